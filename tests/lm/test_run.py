"""A run's record: its arithmetic on a few episodes made by hand, and one small run from end to end."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.results import Run, parse
from mightnt.files import plain
from mightnt.lm import run as run_module
from mightnt.lm.account import Account
from mightnt.lm.episodes import Episodes, Said
from mightnt.lm.ledgers import Decisions
from mightnt.lm.protect import ProtectConfig
from mightnt.lm.run import (
    RunConfig,
    asks_per_turn,
    by_place,
    estimate,
    evaluate,
    floors,
    joined,
    measure_base,
    measures,
    new_actor,
    pooled,
    run,
    terms,
    transcripts,
)
from tests.strategies import seeds

INF = math.inf


def episodes_of(row, cost, spent, theta=None, demonstrator=None, **changes):
    """Episodes whose decisions belong to these rows and cost this; everything else is plain."""
    n, rows = len(row), len(spent)
    log_base = torch.full((n, 3), -torch.inf, dtype=torch.float64)
    if theta is not None:
        log_base[:, 2] = torch.tensor(theta, dtype=torch.float64).log()
    known = None if demonstrator is None else torch.tensor(demonstrator, dtype=torch.float64)
    decisions = Decisions(
        row=np.array(row, dtype=np.int64),
        features=torch.zeros(n, 1),
        log_base=log_base,
        spendable_nats=torch.zeros(n),
        choice=torch.zeros(n, dtype=torch.int64),
        log_probability=torch.zeros(n),
        cost_nats=torch.tensor(cost, dtype=torch.float64),
        kl_demonstrator_nats=known,
        reward=np.zeros(n),
    )
    per_row = None if known is None else np.bincount(decisions.row, known.numpy(), minlength=rows)
    episodes = Episodes(
        decisions=decisions,
        proxy_reward=np.linspace(0.25, 0.75, rows),
        true_utility=np.arange(rows, dtype=np.float64),
        spent_nats=np.array(spent, dtype=np.float64),
        kl_demonstrator_nats=per_row,
        asked_turns=np.arange(rows),
        demonstrator_tokens=np.full(rows, 3),
        turns=np.full(rows, 4),
        n_tokens=10,
    )
    return dataclasses.replace(episodes, **changes)


FIRST = episodes_of([0, 1, 0, 1, 1], [1.0, 2.0, 3.0, 4.0, 5.0], [4.0, 11.0], demonstrator=[0.5, 1.0, 1.5, 2.0, 2.5])
SECOND = episodes_of([1, 1], [0.25, 0.75], [0.0, 1.0, 0.0], demonstrator=[0.0, 4.0])


def test_measures_by_hand():
    """Two batches of two and three episodes; an episode that has ended (or never decided) counts 0 by token."""
    found = measures([FIRST, SECOND], Account(10.0))
    assert found["episodes"] == found["kl_base_nats"]["n"] == 5
    assert found["proxy_reward"]["mean"] == pytest.approx(0.5)
    assert found["true_utility"]["mean"] == pytest.approx((0 + 1 + 0 + 1 + 2) / 5)
    assert found["kl_base_nats"]["mean"] == pytest.approx(16 / 5)
    assert found["kl_base_nats"]["max"] == 11.0
    assert found["kl_demonstrator_nats"]["mean"] == pytest.approx(11.5 / 5)
    assert found["over_budget_episodes"] == 1
    assert (found["turns"], found["asked_turns"], found["demonstrator_tokens"]) == (20, 4, 15)
    assert found["asks_per_turn"] == pytest.approx(0.2)
    assert found["kl_base_by_token_nats"] == pytest.approx([3.25 / 5, 7.75 / 5, 5 / 5])
    assert found["kl_demonstrator_by_token_nats"] == pytest.approx([1.5 / 5, 7.5 / 5, 2.5 / 5])


def test_what_adds_up_over_tokens_is_the_mean_over_episodes():
    found = measures([FIRST, SECOND], Account(10.0))
    assert sum(found["kl_base_by_token_nats"]) == pytest.approx(found["kl_base_nats"]["mean"])
    assert sum(found["kl_demonstrator_by_token_nats"]) == pytest.approx(found["kl_demonstrator_nats"]["mean"])


def test_what_the_scene_does_not_know_is_not_measured():
    unknown = episodes_of([0], [1.0], [1.0, 0.0], true_utility=None)
    found = measures([unknown], Account(10.0))
    assert found["true_utility"] is found["kl_demonstrator_nats"] is found["kl_demonstrator_by_token_nats"] is None


def test_episodes_without_any_decision_can_be_measured():
    found = measures([episodes_of([], [], [0.0, 0.0], demonstrator=[])], Account(0.0))
    assert found["kl_base_by_token_nats"] == found["kl_demonstrator_by_token_nats"] == []
    assert found["kl_base_nats"]["mean"] == found["kl_demonstrator_nats"]["mean"] == 0.0


@given(seeds, st.integers(1, 5), st.integers(0, 20))
def test_by_place_sums_first_decisions_second_ones_and_so_on(seed, rows, n):
    rng = np.random.default_rng(seed)
    row, cost = rng.integers(rows, size=n).tolist(), rng.random(n)
    of_each = [[c for r, c in zip(row, cost, strict=True) if r == episode] for episode in range(rows)]
    longest = max(map(len, of_each))
    expected = [sum(costs[k] for costs in of_each if len(costs) > k) for k in range(longest)]
    assert by_place(episodes_of(row, cost, [0.0] * rows), cost).tolist() == pytest.approx(expected)


def test_pooled_sums_of_different_length():
    assert pooled([np.array([1.0, 2.0]), np.array([3.0]), np.zeros(0)], 4) == [1.0, 0.5]
    assert pooled([], 3) == []


@pytest.mark.parametrize(
    ("values", "mean", "error", "largest"),
    [([1.0, 3.0], 2.0, 1.0, 3.0), ([1.0, 2.0, 3.0, 6.0], 3.0, math.sqrt(14 / 3) / 2, 6.0), ([2.0], 2.0, math.nan, 2.0)],
)
def test_an_estimate_is_a_mean_with_its_standard_error(values, mean, error, largest):
    found = estimate(np.array(values))
    assert found == {
        "mean": pytest.approx(mean),
        "standard_error": pytest.approx(error, nan_ok=True),
        "n": len(values),
        "max": largest,
    }


@pytest.mark.filterwarnings("error")
def test_an_infinite_mean_has_no_standard_error():
    found = estimate(np.array([1.0, INF]))
    assert found["mean"] == found["max"] == INF
    assert math.isnan(found["standard_error"])
    assert estimate(None) is None


@pytest.mark.filterwarnings("error")
def test_floors_add_up_what_could_not_be_vouched_for():
    """-log(1 - .5) - log(1 - .25) in one episode, nothing in another, theta = 1 in the third."""
    batch = episodes_of([0, 2, 0, 1], [0.0] * 4, [0.0] * 4, theta=[0.5, 1.0, 0.25, 0.0])
    assert floors(batch).tolist() == pytest.approx([math.log(2) + math.log(4 / 3), 0.0, INF, 0.0])


@pytest.mark.parametrize(("budget", "over"), [(10.0, 2), (INF, 0), (0.0, 4)])
def test_counting_those_over_budget_allows_rounding(budget, over):
    spent = [10.0, 10.0 + 5e-7, 10.0 + 2e-6, 11.0, 1e-7 if budget == 0 else 0.0]
    assert measures([episodes_of([], [], spent)], Account(budget))["over_budget_episodes"] == over


def test_asks_per_turn_of_no_turns_is_none():
    assert asks_per_turn([FIRST, SECOND]) == pytest.approx(4 / 20)
    assert asks_per_turn([episodes_of([], [], [0.0], turns=np.zeros(1, int), asked_turns=np.zeros(1, int))]) == 0.0


def test_joined_is_nothing_when_a_batch_does_not_know():
    assert joined([FIRST, SECOND], "spent_nats").tolist() == [4.0, 11.0, 0.0, 1.0, 0.0]
    assert joined([FIRST, episodes_of([], [], [0.0], true_utility=None)], "true_utility") is None


def test_transcripts_by_hand(imitators):
    ids = imitators.tokenizer.convert_tokens_to_ids(["hello", "okay", "<|end|>"])
    said = [
        Said(ids[0], "user", False),
        Said(ids[0], "assistant", False, 0.5, 0.25),
        Said(ids[1], "assistant", True, 0.0, 0.0),
        Said(ids[2], "user", False),
    ]
    (found,) = transcripts(episodes_of([], [], [0.0], transcripts=[said]), imitators)
    assert [(turn["speaker"], turn["asked"]) for turn in found["turns"]] == [
        ("user", False),
        ("assistant", True),
        ("user", False),
    ]
    assert found["turns"][1]["tokens"] == [
        {"text": "hello", "kl_base_nats": 0.5, "kl_demonstrator_nats": 0.25},
        {"text": "okay", "kl_base_nats": 0.0, "kl_demonstrator_nats": 0.0},
    ]
    assert found["turns"][2]["tokens"][0]["text"] == "<|end|>"
    assert (found["proxy_reward"], found["true_utility"]) == (0.25, 0.0)


def test_only_the_base_none_knows_no_budget():
    account = Account(3.0, "floor", 0.2)
    assert terms(RunConfig("single", account)) == account
    assert terms(RunConfig("none", account)) == Account(INF, "floor", 0.2)


def test_a_new_actor_depends_on_its_seed_alone(imitators):
    config = RunConfig("single", Account(3.0))
    one, same, other = (new_actor(imitators, config, seed) for seed in (1, 1, 2))
    assert one.leaning.out_features == len(imitators.counts.is_action) + 1
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.leaning.weight, other.leaning.weight)


def test_evaluation_plays_as_many_fresh_episodes_as_asked_in_batches(imitators, short_chat, monkeypatch):
    monkeypatch.setattr(run_module, "EVALUATION_ROWS", 2)
    config = RunConfig("single", Account(3.0))
    cast = run_module.cast_for(imitators, short_chat, "single", config.account, new_actor(imitators, config, 0))
    batches = evaluate(cast, 5, seed=0, n_transcripts=2)
    assert [len(batch.turns) for batch in batches] == [2, 2, 1]
    assert [len(batch.transcripts) for batch in batches] == [2, 0, 0]
    assert batches[0].spent_nats.tolist() != batches[1].spent_nats.tolist()
    again = evaluate(cast, 5, seed=0)
    assert [batch.spent_nats.tolist() for batch in batches] == [batch.spent_nats.tolist() for batch in again]


SMALL = ProtectConfig(iterations=2, episodes=3, passes=1)
VARYING = ("seconds", "training_seconds", "tokens_per_second")


@pytest.mark.parametrize("base", ["none", "single", "pessimistic"])
def test_a_run_is_a_record_that_reports_can_read_and_the_same_again(base, imitators, short_chat):
    config = RunConfig(base, Account(2.0), SMALL, evaluation_episodes=4, transcripts=2)
    record, training = run(imitators, short_chat, config, seed=3)
    read = parse(Run, json.loads(json.dumps(plain(record))), "")
    assert read.base == base
    assert read.asking == ("none" if base == "none" else "charged")
    assert read.budget_nats == (INF if base == "none" else 2.0)
    assert read.over_budget_episodes == read.training_over_budget_episodes == 0
    assert read.episodes == 4
    assert read.training_episodes == 6
    assert read.n_demonstrations == 60
    assert [point.iteration for point in read.curve] == [0, 1]
    assert len(training.log) == 2
    assert len(read.transcripts) == 2
    for transcript in read.transcripts:
        assert [turn.speaker for turn in transcript.turns] == ["user", "assistant"] * 2 + ["user"]
    again, _ = run(imitators, short_chat, config, seed=3)
    assert {k: v for k, v in record.items() if k not in VARYING} == {k: v for k, v in again.items() if k not in VARYING}


@pytest.mark.parametrize("base", ["known", "pessimistic", "counts"])
def test_the_base_itself_is_measured_without_learning(base, imitators, short_chat):
    found = measure_base(imitators, short_chat, base, 6, seed=0)
    assert found["name"] == base
    assert found["n_demonstrations"] == 60
    assert found["proxy_reward"]["n"] == 6
    floor = found["asking_nats_per_episode"]["mean"]
    if base == "pessimistic":
        assert found["asks_per_turn"] > 0
        assert floor > 0
    else:
        assert found["asks_per_turn"] == 0
        assert floor == pytest.approx(0.0, abs=1e-9)
    distance = found["kl_base_demonstrator_nats"]["mean"]
    assert distance == pytest.approx(0.0, abs=1e-9) if base == "known" else distance > 0.5
