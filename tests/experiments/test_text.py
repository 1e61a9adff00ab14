"""Natural text end to end, small: real chats in, imitators of a known language model out, and the frontier over them."""

from dataclasses import replace

import numpy as np
import pytest

from mightnt.dialogues import Message, read_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.experiments import frontier as frontier_module
from mightnt.experiments import text
from mightnt.experiments.frontier import PROFILES, frontier
from mightnt.files import read_json
from mightnt.lm.imitators import load_imitators
from mightnt.worlds.chat.corpus import demonstrations
from tests.experiments.test_frontier import run_here
from tests.watchers import Quiet

CONFIG = text.TextConfig(
    "", words=30, demonstrator_steps=3, max_turn_tokens=6, other_chats=20, pretraining_steps=3, fitting_steps=3,
    width=16, layers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    place = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    write_dialogues(place, demonstrations(60, 0))
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chats):
    folder = tmp_path_factory.mktemp("text")
    for stage in text.stages(folder, replace(CONFIG, chats=str(chats)), 0, (12, 30)):
        run_here(stage, folder, None, 1)
    return folder


def test_imitators_are_fitted_to_what_the_demonstrator_wrote(folder):
    written = read_dialogues(folder / "demonstrations.jsonl")
    assert len(written) == 30
    for n in (12, 30):
        imitators = load_imitators(folder / f"imitators-{n}")
        known = {*imitators.fitted, *imitators.held_out}
        assert known == set(written[:n])
        assert len(imitators.networks) == 2
    words = {word for chat in written for turn in chat for word in turn.content.split()}
    assert words <= set(text.text_tokenizer(folder).get_vocab())


def test_the_demonstrator_and_the_others_learn_from_different_chats(folder):
    own, others = text.halves(folder, 0)
    assert len(own) == len(others) == 30
    together = sorted(map(str, [*own, *others]))
    assert together == sorted(map(str, read_dialogues(folder / "chats.jsonl")))


def test_other_authors_keep_the_user_and_have_habits():
    chats = [
        (Message("user", f"u {i}"), *[Message("assistant", f"a b c d e f {i}"), Message("user", "v")] * 3)
        for i in range(9)
    ]
    made = text.other_authors(chats, 2000, 0)
    assert all(
        [m for m in chat if m.role == "user"] == [m for m in chats[int(chat[0].content[2:])] if m.role == "user"]
        for chat in made
    )
    assert made[:5] == text.other_authors(chats, 5, 0)
    turns = np.array([[m.content == "" for m in chat if m.role == "assistant"] for chat in made])
    assert 0.1 < turns.mean() < 0.2
    stays = turns[:, 1:][turns[:, :-1]].mean()
    assert stays > 0.8


def test_the_frontier_runs_on_it(tmp_path, chats, monkeypatch):
    monkeypatch.setattr(frontier_module, "run_parts", run_here)
    monkeypatch.setattr(text, "TextConfig", lambda chats: replace(CONFIG, chats=chats))
    profile = replace(
        PROFILES["quick"], world="text", chats=str(chats), n_demonstrations=(12,), candidates=("single", "known"),
        iterations=1, episodes=4, evaluation_episodes=4,
    )  # fmt: skip
    record = frontier(tmp_path / "out", profile, 0, Quiet())
    assert not record["failed"]
    assert record["world"] == "text"
    runs = {(run["candidate"], run["reward"]): run["reported"] for run in record["runs"]}
    assert len(runs) == 4
    for (name, _), measured in runs.items():
        assert measured["true_utility"] is None
        assert measured["kl_base_nats"]["max"] <= 10 + 1e-6
        if name == "known":
            assert abs(measured["gap_policy_nats"]["mean"]) < 1e-6
    own = {entry["reward"]: entry["proxy_reward"]["mean"] for entry in record["demonstrator"]}
    assert 0 <= own["benign"] <= 1
    assert own["adversarial"] > 0
    assert read_json(tmp_path / "out" / "config.json")["chats"] == str(chats)


def test_refusals(tmp_path, chats):
    with pytest.raises(InputError, match="--chats"):
        list(text.stages(tmp_path, CONFIG, 0, (12,)))
    few = tmp_path / "few.jsonl"
    write_dialogues(few, demonstrations(5, 0))
    with pytest.raises(InputError, match="5 chats; 40 or more"):
        list(text.stages(tmp_path, replace(CONFIG, chats=str(few)), 0, (12,)))
