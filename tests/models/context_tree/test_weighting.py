"""Context-tree weighting as a model: states are values, evidence is a choice, and the bits are those of the mixture."""

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.context_tree import running
from mightnt.models.context_tree.weighting import DecomposedContextTree, DirectContextTree
from mightnt.prediction import check_model, follow
from tests.models.context_tree.reference import context_before, exact_probability
from tests.strategies import histories

both = st.sampled_from([DirectContextTree, DecomposedContextTree])


@given(both, st.lists(histories(3, 2, max_rounds=6), min_size=2, max_size=4))
@settings(max_examples=25)
def test_it_obeys_the_contract(kind, all_histories):
    check_model(kind(3, 5, n_observations=2), all_histories)


@given(both, st.data())
@settings(max_examples=25)
def test_a_state_is_a_value_wherever_one_comes_from(kind, data):
    """A planner's walk: any known state is extended or asked, in any order; each says what a fresh start says there."""
    model = kind(2, 4, n_observations=1, evidence="demonstrated")
    known = [((), model.start())]
    for _ in range(15):
        history, state = data.draw(st.sampled_from(known))
        who = data.draw(st.sampled_from(list(Chooser)))
        step = Step(0 if who is Chooser.WORLD else data.draw(st.integers(0, 1)), who)
        known.append(((*history, step), model.advance(state, step)))
        history, state = data.draw(st.sampled_from(known))
        fresh = model.predict(follow(model, history))
        assert model.predict(state).log_probabilities.tobytes() == fresh.log_probabilities.tobytes()


def test_a_state_too_far_back_is_rebuilt(monkeypatch):
    monkeypatch.setattr(running, "UNDOABLE_STEPS", 5)
    model = DirectContextTree(2, 3)
    first = model.start()
    states = [first]
    for i in range(20):
        states.append(model.advance(states[-1], Step(i % 2, Chooser.AGENT)))
    expected = [model.predict(follow(model, [Step(i % 2, Chooser.AGENT) for i in range(n)])) for n in range(21)]
    for n in (20, 3, 19, 0, 20, 16):
        np.testing.assert_array_equal(model.predict(states[n]).log_probabilities, expected[n].log_probabilities)


@pytest.mark.parametrize("evidence", ["all", "demonstrated"])
def test_what_is_counted_is_the_evidence_and_contexts_hold_everything(evidence):
    """Own actions and observations between demonstrations, against the sum over every tree of what was counted."""
    model = DirectContextTree(2, 2, n_observations=2, evidence=evidence)
    rounds = [(0, Chooser.DEMONSTRATOR, 1), (1, Chooser.AGENT, 0), (1, Chooser.DEMONSTRATOR, 1), (1, Chooser.AGENT, 1)]
    history = [s for a, who, o in rounds * 2 for s in (Step(a, who), Step(o, Chooser.WORLD))]
    codes = [s.symbol if s.is_action else 2 + s.symbol for s in history]
    believed = {"all": (Chooser.DEMONSTRATOR, Chooser.AGENT), "demonstrated": (Chooser.DEMONSTRATOR,)}[evidence]
    visits = [(context_before(codes, t, 2), s.symbol) for t, s in enumerate(history) if s.chooser in believed]
    context = context_before(codes, len(codes), 2)
    exact = [exact_probability([*visits, (context, x)], 2, 2, 4) / exact_probability(visits, 2, 2, 4) for x in range(2)]
    predicted = model.predict(follow(model, history)).probabilities
    np.testing.assert_allclose(predicted, [float(p) for p in exact], rtol=1e-12)


def test_own_actions_teach_nothing_where_only_demonstrations_are_evidence():
    model = DirectContextTree(2, 0, evidence="demonstrated")
    shown = [Step(1, Chooser.DEMONSTRATOR)] * 3
    own = [*shown, *[Step(0, Chooser.AGENT)] * 5]
    assert model.predict(follow(model, own)).probabilities.tolist() == pytest.approx([1 / 8, 7 / 8])
    learned = DirectContextTree(2, 0, evidence="all")
    assert learned.predict(follow(learned, own)).probabilities.tolist() == pytest.approx([5.5 / 9, 3.5 / 9])


def test_code_length_is_the_bits_of_the_predictions():
    sequence = np.random.default_rng(0).integers(0, 3, 60)
    for model in (DirectContextTree(3, 4), DecomposedContextTree(3, 4)):
        state, bits = model.start(), 0.0
        for symbol in sequence:
            bits -= log2(model.predict(state).probabilities[symbol])
            state = model.advance(state, Step(int(symbol), Chooser.AGENT))
        assert model.code_length_bits(sequence) == pytest.approx(bits, abs=1e-9)
        assert model.code_length_bits([]) == 0


def test_code_length_says_what_is_simple():
    """A rule of depth 3 costs bits for its parameters only, coin flips a bit each."""
    rng, tree = np.random.default_rng(0), DirectContextTree(2, 16)
    assert tree.code_length_bits(np.tile([0, 0, 1, 0, 1, 1], 200)) < 100
    assert tree.code_length_bits(rng.integers(0, 2, 1200)) > 1190


def test_decomposing_learns_a_large_alphabet_sooner():
    sequence = np.random.default_rng(0).choice([3, 77], size=300)
    direct, decomposed = (
        kind(100, 0).code_length_bits(sequence) for kind in (DirectContextTree, DecomposedContextTree)
    )
    assert decomposed < direct - 50


@pytest.mark.parametrize("kind", [DirectContextTree, DecomposedContextTree])
def test_what_is_not_allowed_is_refused(kind):
    for arguments in ((1, 3), (2, -1), (2, 500), (300, 2)):
        with pytest.raises(InputError):
            kind(*arguments)
    with pytest.raises(InputError, match="is no rule"):
        kind(2, 3, evidence="everything")
    model = kind(2, 3)
    with pytest.raises(InputError, match=r"action 2 is none of 0\.\.1"):
        model.advance(model.start(), Step(2, Chooser.AGENT))
    with pytest.raises(InputError, match="no observations were declared"):
        follow(model, demonstrated([0, 0]))
    with pytest.raises(InputError, match="is none of"):
        model.code_length_bits([0, 1, 2])
