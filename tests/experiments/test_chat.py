"""The experiment end to end, as small as it gets: every part, one results file that the reports accept, resumable."""

from dataclasses import replace

import pytest

from mightnt.audits.results import read_results
from mightnt.errors import InputError
from mightnt.experiments.chat import PROFILES, named_profile, reproduce, stages
from mightnt.files import read_json, write_json
from tests.watchers import Quiet

TINY = replace(
    PROFILES["quick"],
    name="tiny",
    n_demonstrations=(40,),
    bases=("none", "mixture", "pessimistic", "known"),
    iterations=2,
    episodes=6,
    evaluation_episodes=6,
    other_chats=20,
    pretraining_steps=4,
    fitting_steps=4,
    budget_nats=3.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    reproduce(folder, TINY, 0, Quiet())
    return folder


def test_results_are_whole_and_read_by_the_reports(folder):
    results = read_results([folder])
    assert [run.base for run in results.runs] == list(TINY.bases)
    assert {alone.name for alone in results.bases} == {"single", "mixture", "pessimistic", "known"}
    assert [row.name for row in results.imitators] == ["network-0", "network-1", "counts", "mixture"]
    assert all(row.gap_nats is not None for row in results.imitators)
    assert results.demonstrator.episodes == TINY.evaluation_episodes


def test_no_episode_exceeds_its_budget(folder):
    for run in read_results([folder]).runs:
        assert run.over_budget_episodes == run.training_over_budget_episodes == 0
        if run.base != "none":
            assert 0 < run.kl_base_nats.max <= TINY.budget_nats + 1e-6


def test_under_the_known_demonstrator_both_distances_are_one(folder):
    (run,) = [run for run in read_results([folder]).runs if run.base == "known"]
    assert run.kl_demonstrator_nats.mean == pytest.approx(run.kl_base_nats.mean, abs=1e-9)
    (alone,) = [row for row in read_results([folder]).bases if row.name == "known"]
    assert alone.kl_base_demonstrator_nats.mean == pytest.approx(0.0, abs=1e-9)


def test_a_part_run_again_gives_the_same(folder):
    path = folder / "parts" / "run-n40-pessimistic-seed0.json"
    before = read_json(path)
    path.unlink()
    reproduce(folder, TINY, 0, Quiet(), resume=True)
    again = read_json(path)
    for name in ("kl_base_nats", "kl_demonstrator_nats", "proxy_reward", "asks_per_turn", "curve"):
        assert again[name] == before[name], name


def test_other_settings_are_refused_in_the_same_folder(folder):
    with pytest.raises(InputError, match="another configuration"):
        reproduce(folder, replace(TINY, budget_nats=4.0), 0, Quiet(), resume=True)
    with pytest.raises(InputError, match="--resume"):
        reproduce(folder, TINY, 0, Quiet())


def test_a_damaged_part_is_named(folder, tmp_path):
    write_json(tmp_path / "results.json", {"kind": "something else"})
    with pytest.raises(InputError, match=r"results\.json"):
        read_results([tmp_path])


def test_every_cell_is_planned_once(tmp_path):
    names = [part.name for stage in stages(tmp_path, PROFILES["full"], 0) for part in stage]
    assert len(names) == len(set(names))
    runs = [name for name in names if name.startswith("run-")]
    full = PROFILES["full"]
    assert len(runs) == len(full.n_demonstrations) * full.seeds * len(full.bases)


def test_profiles_by_name():
    assert named_profile("default", 500).n_demonstrations == (500,)
    assert named_profile("quick", bases="known,mixture").bases == ("known", "mixture")
    with pytest.raises(InputError, match="unknown base 'knwon'"):
        named_profile("quick", bases="knwon")
    with pytest.raises(InputError, match="quick, default, full"):
        named_profile("huge")
