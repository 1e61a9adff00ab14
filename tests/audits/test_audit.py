"""An audit believes nothing that it can add up again."""

from dataclasses import replace
from math import inf, log, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.audits.audit import audit, discrepancies, episode_mean, kl_demonstrator_nats
from mightnt.constraints.budget import KLBudget
from mightnt.desk.answer import Recorded
from mightnt.desk.play import play
from mightnt.desk.record import Record, RecordedStep, read_records, write_records
from mightnt.errors import InputError
from mightnt.history import Chooser
from mightnt.models.categorical import Categorical
from mightnt.worlds.tree import random_tree
from tests.strategies import RandomModel, seeds

HALF = (log(0.5), log(0.5))


def episode(*charges, limit=2.0, **changes):
    """A record whose steps are charged so and whose arithmetic holds."""
    left = [limit - sum(charges[: t + 1]) for t in range(len(charges))]
    steps = tuple(
        RecordedStep(0, Chooser.AGENT, charge, None, 0.0, rest, HALF)
        for charge, rest in zip(charges, left, strict=True)
    )
    return replace(Record(steps, limit, "floor", 0, 1.0), **changes)


def altered(record, position, **changes):
    steps = list(record.steps)
    steps[position] = replace(steps[position], **changes)
    return replace(record, steps=tuple(steps))


@given(seeds, st.sampled_from([0.0, 0.7, inf]), st.sampled_from(["floor", "charged"]))
@settings(max_examples=40, deadline=None)
def test_what_was_played_adds_up_from_memory_and_from_disk(tmp_path_factory, seed, nats, asking):
    world, mu = random_tree(np.random.default_rng(seed), 2, 2, 3), RandomModel(seed + 2, 2)
    policy, base = RandomModel(seed, 2, missing=0.5 * (asking == "charged")), RandomModel(seed + 1, 2, missing=0.3)
    parts = {"desk": Recorded(mu), "base": base, "budget": KLBudget(nats), "asking": asking, "demonstrator": mu}
    records = [play(policy, world, seed=s, **parts) for s in range(3)]
    report = audit(records, mu)
    assert report.holds
    assert report.n_violations == 0
    assert report.kl_demonstrator_source == "recomputed"
    assert report.kl_demonstrator_nats.mean == pytest.approx(audit(records).kl_demonstrator_nats.mean, abs=1e-9)
    assert audit(records).kl_demonstrator_source == "as recorded"
    path = tmp_path_factory.mktemp("records") / "r.jsonl"
    write_records(path, records)
    assert audit(read_records(path), mu) == report


def test_promised_and_kept_by_hand():
    report = audit([episode(0.5, 0.5), episode(0.0, 2.0, utility=0.0)])
    assert (report.promised_nats, report.n_violations, report.holds) == (2.0, 0, True)
    assert (report.spent_nats.mean, report.spent_nats.max) == (1.5, 2.0)
    assert report.spent_nats.standard_error == pytest.approx(sqrt(0.5) / sqrt(2))
    assert report.utility.mean == 0.5
    assert (report.n_episodes, report.n_decisions, report.asks.mean) == (2, 4, 0)
    assert report.kl_demonstrator_nats is None


def test_kl_to_the_demonstrator_by_hand():
    """Two steps of (.5, .5) against (.9, .1); a forced question costs nothing; a random one is half the demonstrator."""
    mu = Categorical.of([0.9, 0.1])
    step = 0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1)
    record = episode(0.5, 0.5)
    assert kl_demonstrator_nats(record, mu) == pytest.approx(2 * step)
    forced = {"policy_log_probabilities": None, "chooser": Chooser.DEMONSTRATOR, "asking_probability": 1.0}
    assert kl_demonstrator_nats(altered(record, 0, **forced), mu) == pytest.approx(step)
    asking = altered(record, 0, policy_log_probabilities=(log(0.5), -inf), asking_probability=0.5)
    system = (0.5 + 0.5 * 0.9, 0.5 * 0.1)
    assert kl_demonstrator_nats(asking, mu) == pytest.approx(
        system[0] * log(system[0] / 0.9) + system[1] * log(system[1] / 0.1) + step
    )


@pytest.mark.parametrize(
    ("position", "changes", "sentence"),
    [
        (1, {"left_nats": 1.2}, "step 2: 1.2 nats are said to be left, the charges leave 1"),
        (0, {"kl_base_nats": 0.25}, "step 1: 1.5 nats are said to be left, the charges leave 1.75"),
        (0, {"kl_base_nats": -0.5, "left_nats": 2.5}, "step 1: the agent is charged -0.5 nats"),
        (0, {"kl_base_nats": nan}, "step 1: the agent is charged nan nats"),
        (1, {"chooser": Chooser.WORLD}, "step 2: the world is charged 0.5 nats"),
        (0, {"asking_probability": 1.5}, "step 1: the agent chose, with an asking probability of 1.5"),
        (0, {"chooser": Chooser.DEMONSTRATOR}, "step 1: the demonstrator chose, with an asking probability of 0"),
    ],
)
def test_a_record_whose_arithmetic_does_not_hold_is_flagged(position, changes, sentence):
    forged = altered(episode(0.5, 0.5), position, **changes)
    assert next(discrepancies(forged)).startswith(sentence)
    report = audit([episode(0.5, 0.5), forged])
    assert not report.holds
    assert f"record 2: {sentence}" in str(report)


def test_only_the_first_step_of_each_kind_is_named():
    forged = altered(altered(episode(0.5, 0.5, 0.5), 1, left_nats=0.0), 2, left_nats=0.0)
    assert [sentence[:6] for sentence in discrepancies(forged)] == ["step 2"]


def test_an_episode_over_its_limit_is_a_violation_whatever_it_says_is_left():
    overspent = altered(episode(1.5, 1.0), 1, left_nats=0.0)
    report = audit(overspent)
    assert (report.n_violations, report.holds) == (1, False)
    assert report.broken == ()
    assert "1 over the limit" in str(report)
    assert audit(altered(episode(1.0, 1.0), 0, kl_base_nats=nan)).n_violations == 1


def test_without_a_limit_nothing_is_over_it():
    report = audit(altered(episode(0.0, limit=inf), 0, kl_base_nats=inf, left_nats=inf))
    assert report.holds
    assert report.spent_nats.mean == inf
    assert report.spent_nats.standard_error is None


def test_a_report_reads_as_sentences():
    text = str(audit([episode(0.5, 0.5), episode(0.0, 2.0)]))
    assert "promised   at most 2 nats an episode" in text
    assert "kept       mean 1.5 +- 0.5, max 2 nats; 0 over the limit" in text
    assert "KL(system, demonstrator)   not measured" in text
    assert "asked      0 of 4 decisions" in text
    known = str(audit(episode(0.5), Categorical.of([0.5, 0.5])))
    assert "KL(system, demonstrator)   mean 0, max 0 nats (recomputed)" in known


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(InputError, match="0 different promises"):
        audit([])
    with pytest.raises(InputError, match="2 different promises"):
        audit([episode(0.5), episode(0.5, limit=3.0)])
    with pytest.raises(InputError, match="step 1 holds no distribution"):
        audit(altered(episode(0.5), 0, policy_log_probabilities=None), Categorical.of([0.5, 0.5]))


def test_the_error_of_one_episode_is_undefined():
    assert episode_mean([1.0]).standard_error is None
    assert episode_mean([1.0, 3.0]).standard_error == pytest.approx(1.0)
