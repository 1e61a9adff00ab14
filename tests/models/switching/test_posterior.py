"""The posterior over all programs against a finite class of the same programs, each written out as an ordinary model."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated, is_evidence
from mightnt.models.after import After
from mightnt.models.finite import ModelClass
from mightnt.models.switching import posterior
from mightnt.models.switching.posterior import SwitchingClass
from mightnt.prediction import check_model, follow
from tests.models.switching.oracle import as_model
from tests.strategies import histories

evidences = st.sampled_from(["all", "demonstrated"])
long_histories = st.integers(0, 2**32 - 1).map(lambda seed: random_history(np.random.default_rng(seed), 60, 2, 2))


def random_history(rng, n_steps, n_actions, n_observations):
    """Steps in any order, often equal to the one before, so that runs, words and copies happen."""
    steps, last = [], 0
    for _ in range(int(rng.integers(n_steps))):
        chooser = [Chooser.AGENT, Chooser.DEMONSTRATOR, Chooser.WORLD][int(rng.integers(3))]
        size = n_observations if chooser is Chooser.WORLD else n_actions
        last = last % size if rng.uniform() < 0.6 else int(rng.integers(size))
        steps.append(Step(last, chooser))
    return tuple(steps)


@functools.cache
def language(limit, n_actions=2, n_observations=2):
    return SwitchingClass.up_to(limit, n_actions, n_observations)


@functools.cache
def written_out(limit, n_actions=2, n_observations=2):
    programs = language(limit, n_actions, n_observations).programs
    return ModelClass([as_model(programs, i) for i in range(len(programs))], -programs.bits * np.log(2))


@given(st.data(), st.sampled_from([(13, 2, 2), (14, 3, 2), (13, 2, 1)]), evidences)
@settings(max_examples=20, deadline=None)
def test_it_is_the_finite_class_of_its_programs(data, sizes, evidence):
    fast, slow = language(*sizes), written_out(*sizes)
    state, expected = fast.start(), slow.start()
    for step in data.draw(histories(*sizes[1:], max_rounds=6)):
        np.testing.assert_allclose(fast.log_predictions(state), slow.log_predictions(expected), atol=1e-12)
        state, expected = fast.advance(state, step, evidence), slow.advance(expected, step, evidence)
        np.testing.assert_allclose(state.log_posterior, expected.log_posterior, atol=1e-9)


@given(long_histories, st.sampled_from([14, 20]), evidences, st.sampled_from([1, 7, 64, 1000]))
@settings(max_examples=25, deadline=None)
def test_a_history_at_once_is_the_history_step_by_step(history, limit, evidence, block):
    language_here = language(limit)
    state = language_here.start()
    for step in history:
        state = language_here.advance(state, step, evidence)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "BLOCK_STEPS", block)
        given_here = language_here.given(history, evidence)
    alive = state.log_posterior > -np.inf
    assert given_here.description_bits.tolist() == language_here.description_bits[alive].tolist()
    np.testing.assert_allclose(given_here.log_prior, state.log_posterior[alive], atol=1e-9)
    for step in (Step(1, Chooser.WORLD), Step(1, Chooser.AGENT), Step(0, Chooser.AGENT)):
        later = given_here.follow(given_here.first, step)
        assert np.array_equal(
            given_here.log_predictions(posterior.SwitchingState(later, given_here.log_prior)),
            language_here.log_predictions(language_here.advance(state, step, evidence))[alive],
        )


@given(histories(max_rounds=6), evidences)
@settings(max_examples=20, deadline=None)
def test_the_bases_accept_it_as_a_class(history, evidence):
    for base in (BayesMixture, lambda c, e: Pessimistic(c, 0.05, evidence=e)):
        fast, slow = base(language(13), evidence), base(written_out(13), evidence)
        check_model(fast, [history])
        np.testing.assert_allclose(
            fast.predict(follow(fast, history)).log_probabilities,
            slow.predict(follow(slow, history)).log_probabilities,
            atol=1e-9,
        )


def test_the_pessimistic_base_by_trajectory_too():
    history = demonstrated([0, 1, 0, 0, 0, 0])
    own = (Step(0, Chooser.AGENT), Step(1, Chooser.WORLD))
    fast, slow = (Pessimistic(c, 0.01, "trajectory") for c in (language(13), written_out(13)))
    np.testing.assert_allclose(
        fast.predict(follow(fast, history + own)).log_probabilities,
        slow.predict(follow(slow, history + own)).log_probabilities,
        atol=1e-9,
    )


@given(long_histories)
@settings(max_examples=20, deadline=None)
def test_given_is_after(history):
    at_once = BayesMixture(language(15).given(history, "all"), "all")
    step_by_step = After(BayesMixture(language(15), "all"), history)
    assert at_once.predict(at_once.start()).probabilities == pytest.approx(
        step_by_step.predict(step_by_step.start()).probabilities
    )


def test_a_switch_stays_as_likely_against_what_it_switches_from_until_its_event_however_long_that_takes():
    """w(if E then rho else nu | h) = 2^-(1 + |E| + |rho|) w(nu | h) while E has not happened: the heart of theorem 1."""
    programs = language(20).programs
    event = [str(e) for e in programs.events].index("observation 1 has occurred")
    for n_rounds in (1, 100, 5000):
        here = language(20).given(demonstrated([0, 0] * n_rounds))
        table = here.programs
        weight = dict(zip(here.listed.tolist(), here.log_prior / np.log(2), strict=True))
        heads = [row for row in weight if table.event[row] == event and table.otherwise[row] in weight]
        assert len(heads) > 20
        for row in heads:
            cost = 1 + table.event_bits[event] + table.bits[table.then[row]]
            assert weight[row] == pytest.approx(weight[table.otherwise[row]] - cost)


@pytest.mark.parametrize("n_rounds", [100_000])
def test_ten_to_the_five_demonstrated_rounds_take_seconds_and_find_the_demonstrator(n_rounds):
    rng = np.random.default_rng(0)
    observations = rng.integers(2, size=n_rounds)
    copied = np.concatenate([[0], observations[:-1]])
    actions = np.where(rng.uniform(size=n_rounds) < 1 / 16, 1 - copied, copied)
    here = language(18).given(demonstrated(np.column_stack([actions, observations]).ravel().tolist()))
    best = int(np.argmax(here.log_prior))
    assert here.text(best) == "copy the last observation but for 1 in 16"
    assert str(here.models[best]) == here.text(best)
    assert here.code(best) == "0110110"


def test_a_program_is_an_ordinary_model():
    history = demonstrated([0, 1, 1, 0, 1, 1])
    for index in (0, 20, 300, -1):
        model = language(14).models[index]
        expected = written_out(14).models[index]
        check_model(model, [history])
        assert model.description_bits == language(14).description_bits[index]
        for t in range(len(history)):
            assert model.predict(follow(model, history[:t])).probabilities == pytest.approx(
                expected.predict(follow(expected, history[:t])).probabilities
            )
    assert len(language(14).models[:3]) == 3
    with pytest.raises(IndexError):
        language(14).models[10**6]


def test_without_evidence_the_prior_stays_as_it_is():
    own = (Step(1, Chooser.AGENT), Step(1, Chooser.WORLD))
    here = language(14).given(own)
    assert not any(is_evidence(step, "demonstrated") for step in own)
    assert np.array_equal(here.log_prior, language(14).log_prior)
    assert np.exp(here.log_prior).sum() < 1
    assert language(14).given(own, "all").log_prior.shape != here.log_prior.shape


def test_evidence_that_no_program_allows_leaves_nothing_believed():
    always_0 = language(14).only([[language(14).text(i) for i in range(10)].index("always 0")])
    refuted = always_0.given(demonstrated([1, 0]))
    assert refuted.log_prior.tolist() == [-np.inf]


@pytest.mark.parametrize("step", [Step(2, Chooser.AGENT), Step(-1, Chooser.DEMONSTRATOR), Step(2, Chooser.WORLD)])
def test_symbols_outside_their_alphabet_are_refused(step):
    with pytest.raises(InputError, match=r"none of 0\.\.1"):
        language(14).advance(language(14).start(), step, "all")
    with pytest.raises(InputError, match=r"none of 0\.\.1"):
        language(14).given((step,))
    with pytest.raises(InputError, match="is no rule"):
        language(14).given(demonstrated([0, 0]), "some")
