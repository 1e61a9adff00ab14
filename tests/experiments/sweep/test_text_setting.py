"""Natural text as a setting: the chats are named by what they hold, and the parts are those of ``experiments.text``."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from mightnt.dialogues import read_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.experiments import text
from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.settings import SETTINGS, checked
from mightnt.experiments.sweep.studies import TEXT, chosen, text_study
from mightnt.experiments.sweep.text_setting import BASES, CHATS, kept_chats, stages, text_config, updates
from mightnt.worlds.chat.corpus import demonstrations

CELL = next(cell for cell in text_study("abc").cells if cell.base == "pessimistic" and not cell.alone)


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_dialogues(path, demonstrations(5, 0))
    return path


def test_chats_are_kept_and_named_by_what_they_hold(tmp_path, chats):
    folder = tmp_path / "run"
    assert kept_chats(folder, None) == ""
    assert not folder.exists()
    name = kept_chats(folder, chats)
    assert len(name) == 10
    assert read_dialogues(folder / CHATS) == read_dialogues(chats)
    assert kept_chats(folder, None) == name == kept_chats(folder, chats)
    other = tmp_path / "other.jsonl"
    write_dialogues(other, demonstrations(6, 0))
    with pytest.raises(InputError, match="runs on other chats"):
        kept_chats(folder, other)
    assert kept_chats(folder, None) == name
    assert [path.name for path in folder.iterdir()] == [CHATS]


def test_bases_are_those_of_the_imitators():
    from mightnt.lm.imitators import BASES as known

    assert known == BASES


def test_the_study_of_text_is_of_these_chats_and_asked_for_by_them():
    study = text_study("abc")
    assert {cell.data for cell in study.cells} == {"abc"}
    assert {cell.setting for cell in study.cells} == {TEXT}
    assert {cell.base for cell in study.cells} >= {"none", "single", "mixture", "pessimistic", "known"}
    assert all(checked(cell) for cell in study.cells)
    assert [one.name for one in chosen("text", "abc")] == [TEXT]
    assert chosen("", "abc")[-1] == study
    assert TEXT not in [one.name for one in chosen("")]
    with pytest.raises(InputError, match="--chats"):
        chosen("text")


def test_the_world_is_the_one_of_the_frontier():
    usual, made = text.TextConfig(str(Path("f") / CHATS)), text_config(Path("f"), CELL)
    assert made == usual
    assert {field.name for field in fields(usual)} >= {"n_turns", "demonstrator_steps"}
    longer = text_config(Path("f"), replace(CELL, length=2))
    assert (longer.n_turns, longer.context) == (2 * usual.n_turns, 2 * usual.context)


def test_parts_in_order_and_nothing_is_touched_by_planning(tmp_path):
    listed = [[part.name for part in stage] for stage in stages(tmp_path, tmp_path / "p", CELL, 0)]
    assert listed == [
        ["chats"],
        ["demonstrator", "pretrain-0", "pretrain-1"],
        ["written-n3000"],
        ["fit-n3000-0", "fit-n3000-1"],
        ["imitators-n3000"],
    ]
    assert len(updates(CELL)) == len(listed)
    prepared = SETTINGS[TEXT].prepare(tmp_path, CELL, 2)
    assert len(prepared) == 8
    assert prepared == SETTINGS[TEXT].prepare(tmp_path, CELL, 0)
    assert prepared != SETTINGS[TEXT].prepare(tmp_path, replace(CELL, data="other"), 0)
    assert not list(tmp_path.iterdir())
    assert headline().setting != TEXT


def test_the_frontier_s_stages_are_these(tmp_path):
    write_dialogues(tmp_path / "raw.jsonl", demonstrations(40, 0))
    config = replace(text_config(tmp_path, CELL), chats=str(tmp_path / "raw.jsonl"))
    theirs = [part for stage in text.stages(tmp_path, config, 0, (3000,)) for part in stage]
    own = [part for stage in stages(tmp_path, tmp_path, CELL, 0)[1:] for part in stage]
    assert [part.function for part in own] == [part.function for part in theirs]
    assert [part.arguments[2:] for part in own] == [part.arguments[2:] for part in theirs]
