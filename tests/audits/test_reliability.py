"""Where the truth is known: the verdict is wrong no more often than promised, finds what is broken, and counts right."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.intervals import dependent_share_interval, ratio_of_means_interval, share_interval
from mightnt.audits.reliability import EDGES, Tally, one_bin, reliability, stacked, tally, tally_events
from mightnt.errors import InputError
from tests.strategies import seeds


def drawn(rng, n_dialogues=12, length=15, n_tokens=8, sharpness=0.5):
    """(true probabilities, what was chosen, dialogue) of decisions that depend on nothing."""
    truth = rng.dirichlet(np.full(n_tokens, sharpness), size=n_dialogues * length)
    return truth, pick(rng, truth), np.repeat(np.arange(n_dialogues), length)


def pick(rng, truth):
    """One token a row."""
    return np.minimum((rng.random((len(truth), 1)) >= truth.cumsum(axis=1)).sum(axis=1), truth.shape[1] - 1)


def tallied(bounds, chosen, dialogue, **options):
    return tally(bounds, chosen, dialogue, int(dialogue.max()) + 1, **options)


def columns(found):
    return dict(zip(Tally.__slots__[1:], found.columns, strict=True))


# what is counted


@given(seeds, st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_the_tally_is_what_loops_count(seed, n_dialogues, length, mark_all):
    """Bounds in fourths, so that they fall on edges; zeros; decisions that chose none of the tokens."""
    rng, edges = np.random.default_rng(seed), (0.0, 0.25, 0.5, 1.0)
    bounds = rng.multinomial(rng.integers(5), np.full(4, 0.25), size=n_dialogues * length) / 4
    chosen = rng.integers(0 if mark_all else -1, 4, size=len(bounds))
    dialogue = np.repeat(np.arange(n_dialogues), length)
    found = columns(tallied(bounds, chosen, dialogue, edges=edges))
    expected = {name: np.zeros_like(value) for name, value in found.items()}
    for row, token, d in zip(bounds, chosen, dialogue, strict=True):
        expected["decisions"][d] += 1
        expected["missing"][d] += 1 - row.sum()
        expected["unforeseen"][d] += token < 0 or row[token] == 0
        for i, (low, high) in enumerate(itertools.pairwise(edges)):
            inside = [x for x, p in enumerate(row) if p > 0 and (low <= p < high or (p == high == 1))]
            expected["predicted"][d, i] += sum(row[x] for x in inside)
            expected["predictions"][d, i] += len(inside)
            expected["trials"][d, i] += bool(inside)
            expected["hits"][d, i] += token in inside
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)


@given(seeds)
def test_tallies_of_parts_add_up_and_those_of_dialogues_stack(seed):
    rng = np.random.default_rng(seed)
    truth, chosen, dialogue = drawn(rng, n_dialogues=3, length=4)
    whole = columns(tallied(truth, chosen, dialogue))
    even = np.arange(12) % 2 == 0
    parts = [tally(truth[rows], chosen[rows], dialogue[rows], 3) for rows in (even, ~even)]
    each = [tally(truth[dialogue == d], chosen[dialogue == d], np.zeros(4, dtype=int), 1) for d in range(3)]
    for name, value in whole.items():
        np.testing.assert_allclose(columns(parts[0] + parts[1])[name], value)
        np.testing.assert_allclose(columns(stacked(each))[name], value)


def test_events_are_decisions_of_their_own():
    bounds, happened = np.array([0.5, 0.5, 0.05]), np.array([True, False, True])
    found = columns(tally_events(bounds, happened, np.array([0, 0, 1]), 2))
    assert found["decisions"].tolist() == [2, 1]
    assert found["hits"].sum(axis=0)[list(EDGES).index(0.5)] == 1
    assert found["predicted"].sum() == pytest.approx(1.05)
    assert found["missing"].tolist() == pytest.approx([1.0, 0.95])


def test_a_bin_by_hand():
    """Two dialogues: bounds .3 and .3 of which one hits, then .3 that misses; the rest of the mass is left open."""
    bounds = np.array([[0.3, 0.3], [0.3, 0.0], [0.0, 0.0]])
    found = reliability(tallied(bounds, np.array([1, 1, 0]), np.array([0, 0, 1])), independent="decisions")
    (part,) = found.bins
    assert (part.edge_low, part.edge_high, part.n_predictions, part.n_decisions, part.n_hits) == (0.25, 0.5, 3, 2, 1)
    assert (part.predicted, part.observed) == pytest.approx((0.3, 1 / 3))
    low, high = share_interval(1, 2, 0.05 / 9)
    assert (part.low, part.high) == pytest.approx((low * 2 / 3, high * 2 / 3))
    assert part.slack_nats == pytest.approx(math.log(0.3 / part.low))
    assert (found.n_dialogues, found.n_decisions) == (2, 3)
    assert (found.unforeseen_share, found.mean_asking_probability) == pytest.approx((2 / 3, (0.4 + 0.7 + 1) / 3))


def test_each_assumption_has_its_interval():
    """One bin of .3 in ten dialogues of five decisions, at the error of one of nine bins."""
    hits = np.random.default_rng(0).random((10, 5)) < 0.6
    found = tally_events(np.full(50, 0.3), hits.ravel(), np.repeat(np.arange(10), 5), 10)
    error = (1 - 0.95) / 9
    expected = {
        "nothing": dependent_share_interval(int(hits.sum()), 50, error),
        "decisions": share_interval(int(hits.sum()), 50, error),
        "dialogues": [0.3 * r for r in ratio_of_means_interval(hits.mean(axis=1), np.full(10, 0.3), error)],
    }
    for independent, (low, high) in expected.items():
        (part,) = reliability(found, 0.95, independent=independent).bins
        assert (part.low, part.high) == pytest.approx((low, min(1.0, high))), independent


def test_dialogues_count_the_same_where_they_are_the_unit():
    """A dialogue of one decision (hit) and one of three (none): 1/2 of the decisions of a random dialogue, 1/4 of all."""
    bounds = np.full((4, 1), 0.6)
    found = tallied(bounds, np.array([0, -1, -1, -1]), np.array([0, 1, 1, 1]))
    assert reliability(found, independent="dialogues").bins[0].observed == pytest.approx(0.5)
    assert reliability(found).bins[0].observed == pytest.approx(0.25)


# how often it is wrong


def misses(part, bounds, truth):
    """Whether the interval of a bin misses the share that was to be expected."""
    inside = (bounds > 0) & (bounds >= part.edge_low) & (bounds < part.edge_high)
    return not part.low - 1e-12 <= truth[inside].sum() / inside.sum() <= part.high + 1e-12


def share_wrong(make, n_runs, confidence, **options):
    """(how often some interval misses the true share of its bin, how often the verdict is "fails"), of so many runs.

    ``make(rng)`` gives bounds, truth, chosen and dialogue; the bounds are never more than the truth.
    """
    missed = failed = 0
    for seed in range(n_runs):
        bounds, truth, chosen, dialogue = make(np.random.default_rng(seed))
        found = reliability(tallied(bounds, chosen, dialogue), confidence, **options)
        missed += any(misses(part, bounds, truth) for part in found.bins)
        failed += found.outcome == "fails"
    return missed, failed


def exact(rng):
    """The bounds are the truth itself: the hardest case in which they are kept."""
    truth, chosen, dialogue = drawn(rng)
    return truth, truth, chosen, dialogue


def remembering(rng, n_dialogues=12, length=15):
    """Each dialogue repeats itself: what was said is likely again. The bounds are the truth given all before."""
    truth, chosen = np.zeros((n_dialogues, length, 4)), np.zeros((n_dialogues, length), dtype=int)
    for d in range(n_dialogues):
        heard = np.full(4, 0.2)
        for t in range(length):
            truth[d, t] = heard / heard.sum()
            chosen[d, t] = pick(rng, truth[d, t : t + 1])[0]
            heard[chosen[d, t]] += 1
    flat = truth.reshape(-1, 4)
    return flat, flat, chosen.ravel(), np.repeat(np.arange(n_dialogues), length)


def of_two_kinds(rng, n_dialogues=30, length=60):
    """Dialogues of two kinds that differ in what is likely; the bounds are the mean of both, and so is the truth of a
    random dialogue."""
    kind = rng.random(n_dialogues) < 0.5
    p = np.where(kind, 0.5, 0.1)[:, None, None] * np.ones((1, length, 1))
    truth = np.concatenate([p, 1 - p], axis=2).reshape(-1, 2)
    bounds = np.tile([0.3, 0.7], (len(truth), 1))
    return bounds, bounds, pick(rng, truth), np.repeat(np.arange(n_dialogues), length)


def rarely(count, runs, rate):
    """The 99.9% upper bound of how often it is wrong is below the promise."""
    return share_interval(count, runs, 0.002)[1] <= rate


@pytest.mark.parametrize("independent", ["nothing", "decisions"])
def test_it_is_wrong_no_more_often_than_promised(independent):
    """300 sets of dialogues, promised 80%: neither the intervals nor the verdict err more often."""
    missed, failed = share_wrong(exact, 300, 0.8, independent=independent)
    assert rarely(missed, 300, 0.2)
    assert rarely(failed, 300, 0.2)


def test_it_is_wrong_too_often_without_the_correction_for_many_bins():
    """The neighbor: every bin at the error that is meant for all of them together."""
    missed = 0
    for seed in range(300):
        bounds, truth, chosen, dialogue = exact(np.random.default_rng(seed))
        found = tallied(bounds, chosen, dialogue)
        parts = [one_bin(found, i, 0.2, 0.1, "decisions") for i in np.flatnonzero(found.predictions.sum(axis=0))]
        missed += any(misses(part, bounds, truth) for part in parts)
    assert share_interval(missed, 300, 0.002)[0] > 0.2


def test_it_covers_where_everything_depends_on_everything():
    missed, failed = share_wrong(remembering, 200, 0.8)
    assert rarely(missed, 200, 0.2)
    assert rarely(failed, 200, 0.2)


def test_of_new_dialogues_it_covers_where_the_others_do_not():
    """Dialogues of two kinds: as a statement about new dialogues, only the interval over dialogues is right."""
    _, failed = share_wrong(of_two_kinds, 200, 0.8, independent="dialogues")
    assert rarely(failed, 200, 0.2)
    _, failed = share_wrong(of_two_kinds, 200, 0.8, independent="decisions")
    assert share_interval(failed, 200, 0.002)[0] > 0.2


@pytest.mark.parametrize("independent", ["nothing", "dialogues", "decisions"])
def test_what_is_broken_is_found_and_what_is_kept_with_room_is_certified(independent):
    """Overbold by half on likely tokens: refuted. Half the truth: certified, down to where data are few."""
    rng = np.random.default_rng(0)
    truth, chosen, dialogue = drawn(rng, n_dialogues=400, length=10, n_tokens=3, sharpness=5.0)
    bold = np.where(truth > 0.5, np.minimum(1.5 * truth, 0.95), 0.0)
    verdict = reliability(tallied(bold, chosen, dialogue), independent=independent)
    assert verdict.outcome == "fails"
    assert "holds" not in {part.outcome for part in verdict.bins}
    kept = reliability(tallied(0.5 * truth, chosen, dialogue), independent=independent)
    likely = [part for part in kept.bins if part.edge_low >= 0.1]
    assert len(likely) == 2
    assert {part.outcome for part in likely} == {"holds"}
    assert all(part.slack_nats == 0 for part in likely)


def test_with_few_data_nothing_is_certified_nor_refuted():
    truth, chosen, dialogue = drawn(np.random.default_rng(0), n_dialogues=1, length=5)
    for independent in ("nothing", "dialogues", "decisions"):
        found = reliability(tallied(truth, chosen, dialogue), independent=independent)
        assert found.outcome == "too little data"
        assert found.slack_nats == math.inf
        assert "too little data" in found.sentence.lower()


def test_lower_bounds_with_the_slack_taken_off_are_certified_in_every_bin():
    truth, chosen, dialogue = drawn(np.random.default_rng(3), n_dialogues=100, length=30, n_tokens=3, sharpness=20.0)
    found = reliability(tallied(truth, chosen, dialogue))
    assert 0 < found.slack_nats < math.inf
    for part in found.bins:
        assert part.low >= part.predicted * math.exp(-found.slack_nats) * (1 - 1e-12)
    looser = reliability(tallied(truth, chosen, dialogue), tolerance_nats=found.slack_nats * (1 + 1e-9))
    assert looser.outcome == "holds"
    tighter = reliability(tallied(truth, chosen, dialogue), tolerance_nats=found.slack_nats * 0.999)
    assert tighter.outcome == "too little data"


def test_more_checks_read_together_make_wider_intervals():
    truth, chosen, dialogue = drawn(np.random.default_rng(0))
    one, of_many = (reliability(tallied(truth, chosen, dialogue), n_checks=n).bins for n in (1, 20))
    assert all(a.low >= b.low and a.high <= b.high and a != b for a, b in zip(one, of_many, strict=True))


# edges


def test_what_is_certain_and_always_happens_is_kept_in_spite_of_rounding():
    bounds = np.full((2000, 1), 1.0 + 1e-12)
    found = reliability(tallied(bounds, np.zeros(2000, dtype=int), np.zeros(2000, dtype=int)))
    assert found.outcome == "holds"
    assert found.bins[0].edge_high == 1.0


def test_a_base_that_vouches_for_nothing_breaks_nothing():
    found = reliability(tallied(np.zeros((5, 3)), np.zeros(5, dtype=int), np.arange(5)))
    assert (found.bins, found.outcome, found.slack_nats) == ((), "holds", 0.0)
    assert (found.unforeseen_share, found.mean_asking_probability) == (1.0, 1.0)
    assert "vouches for nothing" in found.sentence


def test_tiny_bounds_do_not_break_the_arithmetic():
    found = reliability(tallied(np.full((3, 2), 1e-320), np.array([0, 1, -1]), np.arange(3)))
    assert found.bins[0].outcome == "holds" or math.isinf(found.slack_nats)


def test_sentences_say_where():
    truth, chosen, dialogue = drawn(np.random.default_rng(0), n_dialogues=300, length=20, n_tokens=3)
    found = reliability(tallied(truth, chosen, dialogue))
    assert found.outcome == "too little data"
    assert f"surely kept for p in {found.where('holds')}, within 9.5% of it" in found.sentence
    assert "95% confidence over all bins" in found.sentence
    bold = np.where(truth > 0.1, 0.0, truth * 5)
    assert "Not kept" in reliability(tallied(bold, chosen, dialogue)).sentence
    certain = reliability(
        tallied(np.ones((2000, 1)), np.zeros(2000, dtype=int), np.arange(2000) // 9), tolerance_nats=1
    )
    assert certain.sentence.startswith("Kept: ")


def test_neighbors_are_named_together():
    truth, chosen, dialogue = drawn(np.random.default_rng(0), n_dialogues=300, length=20, n_tokens=3)
    found = reliability(tallied(0.3 * truth, chosen, dialogue))
    assert found.where("holds").endswith("to 0.5")
    assert found.where("fails") == ""


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (np.array([[math.nan, 0.1]]), "NaN"),
        (np.array([[-0.1, 0.1]]), "negative"),
        (np.array([[0.6, 0.5]]), "at most 1"),
        (np.array([0.5]), "shape"),
    ],
)
def test_what_is_no_lower_bound_is_refused(bounds, message):
    with pytest.raises(InputError, match=message):
        tally(bounds, np.zeros(1, dtype=int), np.zeros(1, dtype=int), 1)


@pytest.mark.parametrize(("chosen", "dialogue"), [([0], [0, 0]), ([0, 0], [0]), ([0, 3], [0, 0])])
def test_each_decision_needs_a_token_and_a_dialogue(chosen, dialogue):
    with pytest.raises(InputError, match="a chosen token below 3 and a dialogue each"):
        tally(np.full((2, 3), 0.2), np.array(chosen), np.array(dialogue), 1)


@pytest.mark.parametrize("edges", [(0.0,), (0.1, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, 0.5)])
def test_edges_must_ascend_from_0_to_1(edges):
    with pytest.raises(InputError, match="ascend"):
        tally(np.ones((1, 1)), np.zeros(1, dtype=int), np.zeros(1, dtype=int), 1, edges)


def test_an_empty_held_out_set_and_impossible_confidences_are_refused():
    nothing = tally(np.zeros((0, 3)), np.zeros(0, dtype=int), np.zeros(0, dtype=int), 2)
    with pytest.raises(InputError, match="no held-out decision"):
        reliability(nothing)
    some = tally(np.ones((1, 1)), np.zeros(1, dtype=int), np.zeros(1, dtype=int), 1)
    for options in (
        {"confidence": 0.0},
        {"confidence": 1.0},
        {"tolerance_nats": -1.0},
        {"tolerance_nats": math.inf},
        {"confidence": math.nan},
    ):
        with pytest.raises(InputError, match="confidence"):
            reliability(some, **options)
    with pytest.raises(InputError, match="allowed are"):
        reliability(some, independent="turns")
