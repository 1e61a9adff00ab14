"""The benchmark end to end, as small as it gets: whole, repeatable, resumable; stopped or broken, it shows what is missing."""

import json
from dataclasses import replace

import pytest

from mightnt.errors import InputError
from mightnt.experiments import frontier as module
from mightnt.experiments.frontier import BASELINES, PROFILES, attempt, frontier, named_profile, stages
from mightnt.files import read_json, write_json
from mightnt.lm.candidates import CANDIDATES, Candidate
from tests.watchers import Quiet

TINY = replace(
    PROFILES["quick"],
    name="tiny",
    n_demonstrations=(40,),
    candidates=("pessimistic", "known"),
    iterations=1,
    episodes=4,
    evaluation_episodes=4,
    n_networks=1,
    other_chats=20,
    pretraining_steps=4,
    fitting_steps=4,
    budget_nats=3.0,
)
RUN = "run-benign-n40-pessimistic-seed0"


def run_here(parts, folder, watcher, workers):
    """The parts that are missing, in this process, one after another."""
    for part in parts:
        place = folder / "parts" / f"{part.name}.json"
        if not place.exists():
            write_json(place, part.function(*part.arguments, lambda done, of: None))
    return {part.name: read_json(folder / "parts" / f"{part.name}.json") for part in parts}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(module, "run_parts", run_here)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_parts", run_here)
        assert not frontier(folder, TINY, 0, Quiet())["failed"]
    return folder


def record_of(folder):
    return read_json(folder / "results.json")


def test_everything_is_there(folder):
    record = record_of(folder)
    assert {(r["candidate"], r["reward"]) for r in record["runs"]} == {
        (name, reward) for name in TINY.candidates for reward in TINY.rewards
    }
    assert {(a["candidate"], a["n_demonstrations"]) for a in record["alone"]} == {
        (name, 40) for name in TINY.candidates
    }
    assert {d["reward"] for d in record["demonstrator"]} == set(TINY.rewards)
    assert "| pessimistic |" in (folder / "frontier.md").read_text(encoding="utf-8")
    assert (folder / "frontier.html").read_text(encoding="utf-8").count("<svg") == 2


def test_budgets_hold_and_the_oracle_is_as_far_as_it_was_charged(folder):
    for run in record_of(folder)["runs"]:
        for of in ("chosen_on", "reported"):
            assert run[of]["over_budget_episodes"] == 0
            assert 0 < run[of]["kl_base_nats"]["max"] <= TINY.budget_nats + 1e-6
            gap = run[of]["kl_demonstrator_nats"]["mean"] - run[of]["kl_base_nats"]["mean"]
            assert run[of]["gap_policy_nats"]["mean"] == pytest.approx(gap, abs=1e-9)
            if run["candidate"] == "known":
                assert gap == pytest.approx(0.0, abs=1e-9)
                assert run[of]["asks_per_turn"] == 0


def test_what_is_chosen_on_is_not_what_is_reported(folder):
    for run in record_of(folder)["runs"]:
        assert run["chosen_on"]["kl_base_nats"] != run["reported"]["kl_base_nats"]


def test_the_known_demonstrator_alone_is_the_demonstrator(folder):
    alone = {a["candidate"]: a for a in record_of(folder)["alone"]}
    for name in ("kl_base_demonstrator_nats", "floor_nats", "gap_base_nats", "gap_demonstrator_nats"):
        assert alone["known"][name]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert alone["pessimistic"]["floor_nats"]["mean"] > 0
    assert float(alone["pessimistic"]["gap_demonstrator_nats"]["mean"]) < 0
    assert alone["pessimistic"]["times_single"] > 0
    assert 0 <= alone["pessimistic"]["held_out_vetoed_turns"] <= 1


def test_the_adversary_pays_the_demonstrator_less_than_the_mood_does(folder):
    own = {d["reward"]: d["proxy_reward"]["mean"] for d in record_of(folder)["demonstrator"]}
    assert 0 < own["adversarial"] < own["benign"] < 1


def test_a_part_run_again_gives_the_same_and_a_failed_one_is_run_again(folder):
    before, record = read_json(folder / "parts" / f"{RUN}.json"), record_of(folder)
    write_json(folder / "parts" / f"{RUN}.json", {"failed": "ValueError: no"})
    again = frontier(folder, TINY, 0, Quiet(), resume=True)
    after = read_json(folder / "parts" / f"{RUN}.json")
    assert (after["chosen_on"], after["reported"]) == (before["chosen_on"], before["reported"])
    assert json.loads(json.dumps(again["alone"])) == record["alone"]


def test_stopped_it_shows_what_is_missing(folder, tmp_path, monkeypatch):
    """Ctrl-C at the first run of the second seed: everything so far is kept and shown."""

    def stopped(parts, folder, watcher, workers):
        for part in parts:
            if part.name.endswith("seed1"):
                raise KeyboardInterrupt
            run_here([part], folder, watcher, workers)

    monkeypatch.setattr(module, "run_parts", stopped)
    with pytest.raises(KeyboardInterrupt):
        frontier(folder, replace(TINY, seeds=2), 0, Quiet(), resume=True)
    assert record_of(folder)["seeds"] == 2
    assert len(record_of(folder)["runs"]) == 4
    assert ", missing)" in (folder / "frontier.md").read_text(encoding="utf-8")
    monkeypatch.setattr(module, "run_parts", run_here)
    frontier(folder, TINY, 0, Quiet(), resume=True)
    assert "missing)" not in (folder / "frontier.md").read_text(encoding="utf-8")


def test_a_candidate_that_breaks_stops_nobody(folder, monkeypatch):
    def broken(imitators):
        raise ValueError("no such thing")

    monkeypatch.setitem(CANDIDATES, "broken", Candidate("broken", broken, 1, "nothing"))
    record = frontier(folder, replace(TINY, candidates=("broken", "known")), 0, Quiet(), resume=True)
    assert record["failed"] == dict.fromkeys(
        ("alone-n40-broken", "run-adversarial-n40-broken-seed0", "run-benign-n40-broken-seed0"),
        "ValueError: no such thing",
    )
    assert [c["name"] for c in record["candidates"]] == ["pessimistic", "known", "broken"]
    assert "failed" in (folder / "frontier.md").read_text(encoding="utf-8")
    monkeypatch.undo()
    monkeypatch.setattr(module, "run_parts", run_here)
    assert not frontier(folder, TINY, 0, Quiet(), resume=True)["failed"]


def test_other_settings_are_refused_in_the_same_folder(folder):
    with pytest.raises(InputError, match="another configuration"):
        frontier(folder, replace(TINY, budget_nats=4.0), 0, Quiet(), resume=True)
    with pytest.raises(InputError, match="--resume"):
        frontier(folder, TINY, 0, Quiet())


def test_an_unknown_world_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="unknown world 'moon'; allowed are chat"):
        frontier(tmp_path / "out", replace(TINY, world="moon"), 0, Quiet())
    assert not (tmp_path / "out").exists()


def test_a_failure_is_a_result():
    def function(a, report):
        return {"half": a / 2 if a else 1 / a}

    assert attempt(function, (4,), print)["half"] == 2
    assert attempt(function, (0,), print) == {"failed": "ZeroDivisionError: division by zero"}


def test_every_cell_is_planned_once_and_what_goals_speak_of_comes_first(tmp_path):
    profile = named_profile("default")
    planned = [[part.name for part in stage] for stage in stages(tmp_path, profile, 0)]
    names = [name for stage in planned for name in stage]
    runs = [name for name in names if name.startswith("run-")]
    once = [name for name in names if not name.startswith("pretrain")]
    assert len(once) == len(set(once))
    assert len(runs) == len(profile.n_demonstrations) * len(CANDIDATES) * profile.seeds * 2
    first = [name for name in planned[3] if name.startswith("run-")]
    assert all("-n1000-" in name or "-n10000-" in name for name in first)
    whole_seed = first[: 2 * len(CANDIDATES)]
    assert all(name.startswith("run-benign") and name.endswith("seed0") for name in whole_seed)
    assert whole_seed[:2] == ["run-benign-n10000-known-seed0", "run-benign-n1000-known-seed0"]
    assert all(any(f"-{name}-" in each for each in whole_seed[-2 * len(BASELINES) :]) for name in BASELINES)
    chosen = replace(profile, candidates=("slack", "single", "known"))
    runs = [part.name for stage in stages(tmp_path, chosen, 0) for part in stage if part.name.startswith("run-")]
    assert [name.split("-")[3] for name in runs[:6:2]] == ["known", "slack", "single"]


def test_profiles_by_name():
    profile = named_profile("quick", "1000,300", "known, counts", "adversarial", 7)
    assert (profile.n_demonstrations, profile.seeds) == ((300, 1000), 7)
    assert (profile.candidates, profile.rewards) == (("known", "counts"), ("adversarial",))
    for wrong, words in (
        ({"name": "huge"}, "quick, default, full"),
        ({"name": "quick", "candidates": "knwon"}, "unknown base 'knwon'"),
        ({"name": "quick", "rewards": "kind"}, "unknown reward 'kind'; allowed are benign, adversarial"),
        ({"name": "quick", "n_demonstrations": "1000,many"}, "'many' demonstrations"),
        ({"name": "quick", "n_demonstrations": "1"}, "'1' demonstrations"),
    ):
        with pytest.raises(InputError, match=words):
            named_profile(**wrong)
