"""What is learnt is what the demonstrator said when asked, and nothing else; runs share their dice and keep their budget."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mightnt.errors import InputError
from mightnt.experiments import learning as module
from mightnt.experiments.chat import chat_tokenizer
from mightnt.experiments.learning import (
    POLICIES,
    SOURCES,
    SOURCES_OF,
    LearningConfig,
    curves,
    elsewhere,
    evidence,
    learning,
    panels,
    summarize,
)
from mightnt.lm.episodes import Said
from mightnt.lm.tokens import encode, marks_of
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import demonstrations
from tests.watchers import Quiet

TINY = LearningConfig(
    "tiny",
    60,
    turns=24,
    batch_episodes=2,
    network_turns=12,
    network_steps=2,
    seeds=2,
    iterations=1,
    other_chats=40,
    pretraining_steps=4,
    fitting_steps=8,
    bins=2,
)


def run_here(parts, folder, watcher, workers):
    """The parts in this process, one after another."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    found = {part.name: part.function(*part.arguments, lambda done, of: None) for part in parts}
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_parts", run_here)
        return learning(tmp_path_factory.mktemp("learning") / "out", TINY, 0, Quiet())


def test_every_policy_learns_from_every_source_and_no_episode_spends_more_than_its_budget(record):
    runs = {(run["seed"], run["policy"], run["source"]): run for run in record["runs"]}
    assert set(runs) == {(s, p, source) for s in range(2) for p in POLICIES for source in SOURCES_OF[p]}
    for (_, _, source), run in runs.items():
        batches = run["by_batch"]
        assert max(batches["most_charged_nats"]) <= TINY.budget_nats + 1e-6
        assert batches["turns"] == [12, 12]
        assert (run["tokens_learnt"] > 0) == (source != "nothing")
        n_networks = run["networks_taken"] + run["networks_refused"]
        assert n_networks == (2 if source in ("answers", "elsewhere") else 0)
    assert 0 < sum(runs[0, "base", "nothing"]["by_batch"]["asked_turns"]) <= 24


def test_until_the_first_lesson_all_sources_see_the_same(record):
    for s in range(2):
        for policy in POLICIES:
            mine = [run["by_batch"] for run in record["runs"] if (run["seed"], run["policy"]) == (s, policy)]
            for name in mine[0]:
                assert len({batches[name][0] for batches in mine}) == 1, name
            assert len({json.dumps(batches) for batches in mine}) > 1
    first, second = ([run["by_batch"] for run in record["runs"] if run["seed"] == s] for s in range(2))
    assert first != second


def test_learning_from_elsewhere_is_as_much_as_was_answered_in_that_run(record):
    for run in record["runs"]:
        if run["source"] in ("elsewhere", "answers", "answers to counts"):
            assert run["tokens_learnt"] == sum(run["by_batch"]["demonstrator_tokens"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_record(record, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_parts", run_here)
    again = learning(tmp_path / "out", replace(TINY, seeds=1), 0, Quiet())
    assert again["runs"] == [run for run in record["runs"] if run["seed"] == 0]
    assert json.loads((tmp_path / "out" / "learning.json").read_text())["runs"] == again["runs"]
    with pytest.raises(InputError, match="--resume"):
        learning(tmp_path / "out", TINY, 0, Quiet())


def test_the_evidence_is_what_was_answered(record):
    """A greeting, a turn that the agent begins and the demonstrator ends, a reply: tokens, marks and who chose."""
    marks = marks_of(chat_tokenizer())
    hello, great, okay = (words.word_ids()[word] for word in ("hello", "great", "okay"))
    said = [
        Said(hello, "user", False),
        Said(marks.end, "user", False),
        Said(great, "assistant", False, 0.1),
        Said(hello, "assistant", True, 0.2),
        Said(marks.end, "assistant", True, 0.0),
        Said(okay, "user", False),
        Said(marks.end, "user", False),
    ]
    corpus = evidence(SimpleNamespace(transcripts=[said, said[:3]]), marks)
    dialogue = [marks.user, hello, marks.end, marks.assistant, great, hello, marks.end, marks.user, okay, marks.end]
    assert corpus.tokens.tolist() == [*dialogue, *dialogue[:5]]
    assert corpus.starts.tolist() == [0, 10, 15]
    assert np.flatnonzero(corpus.is_action).tolist() == [5, 6]
    assert corpus.turn.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1]


def test_evidence_of_whole_answers_is_what_encoding_the_chat_gives():
    chat, tokenizer = demonstrations(1, seed=3)[0], chat_tokenizer()
    marks, corpus = marks_of(tokenizer), encode(tokenizer, demonstrations(1, seed=3))
    roles = [message.role for message in chat]
    said = [
        Said(int(token), roles[turn], bool(action))
        for token, turn, action in zip(corpus.tokens, corpus.turn, corpus.is_action, strict=True)
        if token not in (marks.user, marks.assistant)
    ]
    found = evidence(SimpleNamespace(transcripts=[said]), marks)
    for name in ("tokens", "starts", "is_action", "turn"):
        np.testing.assert_array_equal(getattr(found, name), getattr(corpus, name))


@pytest.mark.parametrize("n", [1, 50, 700])
def test_elsewhere_gives_as_many_choices_as_asked_for(n):
    corpus = elsewhere(SimpleNamespace(tokenizer=chat_tokenizer()), n, seed=0)
    assert corpus.is_action.sum() == n


def test_curves_are_means_over_stretches():
    columns = {
        "episodes": [2, 2, 2, 2],
        "turns": [10, 10, 10, 10],
        "asked_turns": [5, 3, 1, 0],
        "kl_demonstrator_nats": [4.0, 2.0, 1.0, 1.0],
        "charged_nats": [8.0, 8.0, 2.0, 2.0],
        "theta_cubed": [1.0, 0.5, 0.25, 0.0],
        "proxy_reward": [1.0, 1.0, 1.0, 3.0],
        "true_utility": [2.0, 2.0, 2.0, 2.0],
    }
    found = curves({"by_batch": columns}, 2)
    assert found["turns"] == [10.0, 30.0]
    assert found["asks_per_100_turns"] == [40.0, 5.0]
    assert found["kl_demonstrator_nats"] == [1.5, 0.5]
    assert found["charged_nats"] == [4.0, 1.0]
    assert found["theta_cubed_so_far"] == [1.5, 1.75]
    assert found["proxy_reward"] == [0.5, 1.0]


def test_the_summary_lists_every_seed(record):
    rows = summarize(record["runs"])
    assert len(rows) == sum(map(len, SOURCES_OF.values()))
    for row in rows:
        for name in ("asks_per_100_turns_first", "kl_demonstrator_nats_last"):
            assert len(row[name]["by_seed"]) == 2
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"]


def test_there_is_a_picture_of_asks_and_of_distance_for_each_policy(record):
    drawn = panels(record)
    assert len(drawn) == 4
    assert len({panel.title for panel in drawn}) == 4
    for panel in drawn:
        assert panel.svg.startswith("<svg")
        assert "no learning" in panel.svg
        assert ("bound of T3" in panel.svg) == ("KL" in panel.title)
    assert set(module.LOOKS) == set(SOURCES)


def test_sizes_that_make_no_sense_are_refused():
    for changes in ({"seeds": 0}, {"bins": 0}, {"turns": 3, "bins": 4}):
        with pytest.raises(InputError):
            replace(TINY, **changes)
