"""Reliability of a base on dialogues: what reading them token by token would give, for every base; levels; thresholds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mightnt.audits.reliability import EDGES, reliability, tally
from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm import reliability as checked
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.imitators import save_imitators
from mightnt.lm.reliability import (
    TopSetMinimum,
    check_folder,
    levels_of,
    reliability_of,
    tallies_of,
    thresholds_of,
    write_calibration,
)
from mightnt.lm.tokens import encode
from mightnt.models.finite import top_set
from tests.lm.toys import said

NAMES = ["none", "single", "network-1", "mixture", "pessimistic", "pessimistic-minimum", "counts"]


def by_reading(imitators, base, members, dialogues):
    """Bounds, choices and dialogue numbers, read token by token; the state follows what was begun by others as own."""
    corpus = encode(imitators.tokenizer, dialogues)
    bounds, chosen, numbers = [], [], []
    for number in range(corpus.n_dialogues):
        one = corpus.rows([number])
        begun = np.zeros(len(one.tokens), bool) if one.is_begun is None else one.is_begun
        members.start(1)
        state = base.start(1)
        for t, token in enumerate(torch.from_numpy(one.tokens.astype(np.int64))):
            if one.is_action[t] or begun[t]:
                step = members.predict(torch.tensor([0]))
                if one.is_action[t]:
                    bounds.append(base.predict(state, step)[0].exp().numpy())
                    chosen.append(int(token))
                    numbers.append(number)
                state = base.advance(state, step, token[None], torch.tensor([bool(begun[t])]))
            members.advance(token[None])
    return np.array(bounds), np.array(chosen), np.array(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_reading_token_by_token_gives(name, imitators, monkeypatch):
    """Two dialogues, one of them begun by others in one turn; also in blocks of a few decisions."""
    monkeypatch.setattr(checked, "MOST_BOUNDS", 5 * len(imitators.counts.is_action))
    first, second = imitators.held_out[:2]
    place = next(i for i, m in enumerate(first) if m.role == "assistant" and len(m.content.split()) > 3)
    message = first[place]
    begun = replace(message, begun=" ".join(message.content.split()[:2]))
    dialogues = [(*first[:place], begun, *first[place + 1 :]), second]
    base, members = imitators.base(name), imitators.members(name)
    bounds, chosen, numbers = by_reading(imitators, base, imitators.members(name), dialogues)
    (found,) = tallies_of(members, [base], encode(imitators.tokenizer, dialogues))
    slow = tally(bounds, chosen, numbers, 2)
    for one, other in zip(found.columns, slow.columns, strict=True):
        np.testing.assert_allclose(one.sum(), other.sum(), rtol=1e-4, atol=1e-3)
    moved = np.abs(found.predictions - slow.predictions).sum()
    assert moved <= 2, "a bound at an edge may fall on either side of it by rounding, and no more"
    if not moved:
        np.testing.assert_allclose(found.predicted, slow.predicted, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found.hits, slow.hits)
    assert found.decisions.sum() == encode(imitators.tokenizer, dialogues).is_action.sum() == len(chosen)
    verdict = reliability_of(imitators, name, dialogues)
    assert verdict.n_decisions == len(chosen)


def test_the_held_out_dialogues_are_the_default(imitators):
    assert reliability_of(imitators, "counts") == reliability_of(imitators, "counts", imitators.held_out)
    verdict = reliability_of(imitators, "single", independent="decisions", confidence=0.5, tolerance_nats=0.2)
    assert (verdict.independent, verdict.confidence, verdict.tolerance_nats) == ("decisions", 0.5, 0.2)
    assert verdict.n_dialogues == len(imitators.held_out)
    assert verdict.mean_asking_probability == pytest.approx(0.0, abs=1e-6)


def test_members_are_read_once_for_many_bases(imitators):
    corpus = encode(imitators.tokenizer, imitators.held_out[:3])
    bases = [imitators.base(name) for name in ("single", "pessimistic", "pessimistic-minimum")]
    together = tallies_of(imitators.members("pessimistic"), bases, corpus)
    for base, found in zip(bases, together, strict=True):
        (alone,) = tallies_of(imitators.members("pessimistic"), [base], corpus)
        for one, other in zip(found.columns, alone.columns, strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_dialogue_is_enough_to_count_and_promises_little(imitators):
    verdict = reliability_of(imitators, "pessimistic", imitators.held_out[:1])
    assert verdict.n_dialogues == 1
    assert verdict.outcome in ("too little data", "fails")


def test_of_a_dialogue_that_does_not_fit_the_beginning_is_read(imitators):
    dialogue = imitators.held_out[0]
    longer = dialogue * 8
    corpus = encode(imitators.tokenizer, [longer])
    context = min(network.context for network in imitators.members("single").networks)
    assert len(corpus.tokens) > context
    verdict = reliability_of(imitators, "single", [longer])
    assert verdict.n_decisions == corpus.is_action[:context].sum()


def test_what_cannot_be_checked_is_refused(imitators):
    with pytest.raises(InputError, match="'known' needs the demonstrator"):
        reliability_of(imitators, "known")
    with pytest.raises(InputError, match="unknown base"):
        reliability_of(imitators, "nonsense")
    for nothing in ([], ()):
        with pytest.raises(InputError, match="no held-out dialogue"):
            reliability_of(imitators, "single", nothing)
    with pytest.raises(InputError, match="no held-out dialogue"):
        thresholds_of(replace(imitators, held_out=()))
    begun = ((Message("user", "hello"), Message("assistant", "yes", begun="yes")),)
    with pytest.raises(InputError, match="chose nothing"):
        reliability_of(imitators, "single", begun)


class Nan(Single):
    """A base whose member is broken."""

    def predict(self, state, step):
        return torch.where(torch.arange(step.networks.shape[2]) == 5, torch.nan, super().predict(state, step))


def test_a_member_that_says_nan_is_refused(imitators):
    with pytest.raises(InputError, match="'single' says NaN"):
        tallies_of(imitators.members("single"), [Nan()], encode(imitators.tokenizer, imitators.held_out[:1]))


def test_a_base_that_vetoes_everything_breaks_nothing_and_met_the_demonstrator_everywhere(imitators):
    corpus = encode(imitators.tokenizer, imitators.held_out[:2])
    (found,) = tallies_of(imitators.members("pessimistic"), [Capped(-math.inf)], corpus)
    verdict = reliability(found)
    assert (verdict.outcome, verdict.unforeseen_share, verdict.mean_asking_probability) == ("holds", 1.0, 1.0)


def test_a_network_that_is_not_pessimistic_is_found_out(imitators):
    """The tiny network, undertrained, gives too much to words that are never said; the minimum with the counts less."""
    alone, both = (reliability_of(imitators, name) for name in ("single", "pessimistic-minimum"))
    assert alone.outcome == "fails"

    def overstated(verdict):
        return sum(part.n_predictions * max(0.0, part.predicted - part.observed) for part in verdict.bins)

    assert overstated(both) < overstated(alone)


# the top set


def test_the_minimum_over_the_top_set_by_hand():
    """Weights (.6, .3, .1) of two networks and the counts: at .5 the first alone, at .3 two, at .01 all."""
    mixture = Mixture(tuple(np.log([0.6, 0.3, 0.1]).tolist()), evidence="demonstrated")
    step = said([[[0.7, 0.3]], [[0.4, 0.6]]], [[0.5, 0.5]])
    for level, expected in ((0.5, [0.7, 0.3]), (0.3, [0.4, 0.3]), (0.01, [0.4, 0.3])):
        base = TopSetMinimum(mixture, level)
        assert base.predict(base.start(1), step).exp()[0].tolist() == pytest.approx(expected)
    base, one, yes = TopSetMinimum(mixture, 0.5), torch.tensor([1]), torch.tensor([True])
    moved = base.advance(base.start(1), step, one, ~yes)
    posterior = np.array([0.6 * 0.3, 0.3 * 0.6, 0.1 * 0.5])
    assert moved.exp()[0].tolist() == pytest.approx((posterior / posterior.sum()).tolist())
    assert torch.equal(base.advance(base.start(1), step, one, yes), base.start(1)), "own words are no evidence"
    with pytest.raises(InputError, match="demonstrated"):
        TopSetMinimum(Mixture((0.0,)), 0.5)


def test_rows_have_top_sets_of_their_own_and_no_belief_vouches_for_nothing():
    rng = np.random.default_rng(0)
    networks, counts = rng.dirichlet(np.ones(4), size=(2, 3)), rng.dirichlet(np.ones(4), size=3)
    state = torch.tensor([[-0.1, -3.0, -5.0], [-4.0, -0.05, -4.0], [-math.inf] * 3]).double()
    base = TopSetMinimum(Mixture((0.0,) * 3, evidence="demonstrated"), 0.02)
    found = base.predict(state, said(networks, counts)).exp().numpy()
    members = np.concatenate([networks, counts[None]])
    for row in range(2):
        top = top_set(state[row].numpy(), 0.02)
        assert found[row].tolist() == pytest.approx(members[top, row].min(axis=0).tolist())
    assert found[2].tolist() == [0.0] * 4


def test_levels_are_tried_on_the_same_dialogues_and_lower_ones_ask_more(imitators):
    few = imitators.held_out[:4]
    found = levels_of(imitators, (0.01, 0.3, 1.0), few)
    asked = [one.mean_asking_probability for _, one in found.curve]
    assert [level for level, _ in found.curve] == [0.01, 0.3, 1.0]
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] == pytest.approx(0.0, abs=1e-6)
    corpus = encode(imitators.tokenizer, few)
    base = TopSetMinimum(Mixture(imitators.log_weights, evidence="demonstrated"), 0.3)
    (alone,) = tallies_of(imitators.members("mixture"), [base], corpus)
    assert found.curve[1][1] == reliability(alone, n_checks=3)
    with pytest.raises(InputError, match="at most 1"):
        levels_of(imitators, (0.1, 2.0), few[:1])


# thresholds and the record


def test_thresholds_touch_as_many_turns_as_they_say(imitators):
    """The cap against the base itself, reading the demonstrator's words as if the agent had said them."""
    found = thresholds_of(imitators, rate=0.1)
    assert set(found) == {"log_cap_nats", "ample", "log_cap_nats_by_dialogues", "ample_by_dialogues"}
    assert found["log_cap_nats"].certified
    corpus = encode(imitators.tokenizer, imitators.held_out)
    assert found["log_cap_nats"].n_units == corpus.n_action_turns
    assert found["ample_by_dialogues"].n_units == corpus.n_dialogues
    assert not thresholds_of(imitators, rate=0.001)["ample"].certified


def test_the_record_and_the_page(imitators, tmp_path):
    save_imitators(replace(imitators, held_out=imitators.held_out[:3]), tmp_path / "set", {}, 0)
    found, record = check_folder(tmp_path / "set", "pessimistic", rate=0.2)
    assert found == reliability_of(imitators, "pessimistic", imitators.held_out[:3])
    assert record["reliability"]["outcome"] == found.outcome
    assert len(record["reliability"]["bins"]) == len(found.bins)
    assert record["reliability_for_new_dialogues"]["independent"] == "dialogues"
    assert "chosen on these very dialogues" in record["notes"][0]
    page = write_calibration(found, record, tmp_path / "out")
    assert found.sentence in page.read_text()
    assert (tmp_path / "out" / "calibration.json").is_file()
    assert len(EDGES) - 1 >= len(found.bins)
