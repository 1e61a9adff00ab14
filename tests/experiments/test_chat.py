"""The experiment end to end, as small as it gets: every part, one results file that the reports accept, resumable."""

from dataclasses import replace

import pytest

from mightnt.audits.results import read_results
from mightnt.errors import InputError
from mightnt.experiments import chat as module
from mightnt.experiments.chat import (
    CONTEXT_PER_ROUND,
    PROFILES,
    REWARDS,
    fit_one,
    gather,
    measure,
    named_profile,
    pretrain,
    reproduce,
    scene_for,
    settings,
    stages,
    train,
)
from mightnt.files import read_json, write_json
from mightnt.lm.adversary import AdversarialScene
from mightnt.lm.imitators import load_imitators
from mightnt.lm.scenes import ChatScene, HarmlessScene
from mightnt.worlds.chat import words
from tests.experiments.test_frontier import run_here
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
    """A whole folder; its parts were run in this process."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_parts", run_here)
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


def test_a_part_run_again_by_a_worker_gives_the_same(folder):
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


def test_folders_of_the_usual_length_keep_their_configuration(folder):
    """What does not say how long chats are was made when all had six rounds."""
    assert "rounds" not in read_json(folder / "config.json")
    assert "rounds" not in read_json(folder / "results.json")["provenance"]["config"]
    assert settings(replace(TINY, rounds=12))["rounds"] == 12
    with pytest.raises(InputError, match="another configuration"):
        reproduce(folder, replace(TINY, rounds=12), 0, Quiet(), resume=True)


@pytest.mark.parametrize("rounds", [1, 2, 6, 24])
def test_the_context_holds_the_longest_chat_there_can_be(rounds):
    longest = max(len(words.positions(text)) for replies in words.REPLIES.values() for text in replies) + 1
    opening = max(len(words.positions(text)) for text in words.REPLIES["greet"]) + 1
    tokens = 1 + opening + rounds * (2 + words.MAX_TURN_TOKENS + 1 + longest)
    assert tokens <= CONTEXT_PER_ROUND * rounds
    if rounds == 6:
        assert CONTEXT_PER_ROUND * rounds == 192


def test_longer_chats_are_learnt_from_and_played(tmp_path):
    """Twice the rounds: networks that can read them, demonstrations and episodes of twelve turns."""
    profile = replace(TINY, rounds=12, iterations=1, episodes=2, evaluation_episodes=3, n_networks=1)
    (tmp_path / "parts").mkdir()

    def made(function, *arguments):
        return function(tmp_path, profile, 0, *arguments, lambda done, of: None)

    made(pretrain, 0)
    write_json(tmp_path / "parts" / "fit-n40-0.json", made(fit_one, 40, 0))
    made(gather, 40)
    record = made(train, 40, "pessimistic", 0)
    assert record["turns"] == 12 * 3
    assert len(record["kl_base_by_turn_nats"]) <= 12
    imitators = load_imitators(tmp_path / "imitators-40")
    assert imitators.networks[0].config.max_position_embeddings == 384
    assert {len(dialogue) for dialogue in (*imitators.fitted, *imitators.held_out)} == {25}
    assert made(measure, 40, "known")["proxy_reward"]["n"] == 3


def test_scenes_by_the_name_of_their_reward():
    scenes = [scene_for(reward, 12) for reward in REWARDS]
    assert [type(scene) for scene in scenes] == [ChatScene, AdversarialScene, HarmlessScene]
    assert {scene.n_turns for scene in scenes} == {12}
    assert scene_for("benign").n_turns == 6
    with pytest.raises(InputError, match="unknown reward 'kind'; allowed are benign, adversarial, harmless"):
        scene_for("kind")


def test_profiles_by_name():
    assert named_profile("default", 500).n_demonstrations == (500,)
    assert named_profile("quick", bases="known,mixture").bases == ("known", "mixture")
    with pytest.raises(InputError, match="unknown base 'knwon'"):
        named_profile("quick", bases="knwon")
    with pytest.raises(InputError, match="quick, default, full"):
        named_profile("huge")
