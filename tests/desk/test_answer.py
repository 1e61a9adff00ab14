"""Recorded answers are the demonstrator's own, the same for the same question, and missing where they are missing."""

import numpy as np
import pytest
from hypothesis import given

from mightnt.desk.answer import Question, Recorded, draw
from mightnt.errors import NoAnswer
from mightnt.history import demonstrated
from mightnt.models.categorical import Categorical
from mightnt.prediction import Prediction
from tests.strategies import RandomModel, predictions, seeds


def question(number=0, seed=0, history=()):
    return Question(history, 2, number, seed)


def test_a_model_answers_with_its_own_probabilities():
    desk = Recorded(Categorical.of([0.3, 0.7]))
    answers = [desk.answer(question(seed=seed)) for seed in range(4000)]
    assert np.mean(answers) == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 4000))


@pytest.mark.parametrize("seed", range(10))
def test_a_model_answers_what_it_would_do_after_this_history(seed):
    turncoat = RandomModel(seed, 2, zeros=1.0)  # certain of one action, another one after every history
    for history in [(), demonstrated([0, 0]), demonstrated([1, 0]), demonstrated([1, 1, 0, 0])]:
        likely = turncoat.predict(tuple(s.symbol for s in history)).probabilities
        assert likely[Recorded(turncoat).answer(question(history=history))] > 0


@given(seeds)
def test_the_same_question_gets_the_same_answer(seed):
    desk = Recorded(RandomModel(seed, 2), seed=seed)
    assert desk.answer(question(3, seed)) == desk.answer(question(3, seed))


def test_episodes_questions_and_desks_have_dice_of_their_own():
    model = Categorical.of([0.5, 0.5])
    by_question = {Recorded(model).answer(question(number=n)) for n in range(20)}
    by_episode = {Recorded(model).answer(question(seed=n)) for n in range(20)}
    by_desk = {Recorded(model, seed=n).answer(question()) for n in range(20)}
    assert by_question == by_episode == by_desk == {0, 1}


def test_a_list_is_read_in_order_and_ends():
    desk = Recorded([1, 0])
    assert [desk.answer(question(n)) for n in (0, 1, 0)] == [1, 0, 1]
    with pytest.raises(NoAnswer, match=r"question 3 was asked, 2 answer\(s\) were recorded"):
        desk.answer(question(2))


def test_a_demonstrator_that_misses_mass_may_have_no_answer():
    with pytest.raises(NoAnswer, match="no answer"):
        Recorded(Categorical.of([0.0, 0.0])).answer(question())


@given(predictions(), seeds)
def test_only_what_is_possible_is_drawn(prediction, seed):
    symbol = draw(prediction, np.random.default_rng(seed))
    assert prediction.missing > 0 if symbol is None else prediction.probabilities[symbol] > 0


def test_drawing_has_the_probabilities_as_they_are_missing_mass_included():
    prediction, rng, n = Prediction.of([0.2, 0.0, 0.3]), np.random.default_rng(0), 6000
    drawn = [draw(prediction, rng) for _ in range(n)]
    for symbol, probability in ((0, 0.2), (1, 0.0), (2, 0.3), (None, 0.5)):
        error = np.sqrt(probability * (1 - probability) / n)
        assert drawn.count(symbol) / n == pytest.approx(probability, abs=4 * error)


def test_rounding_is_never_a_question():
    class Last:
        def random(self):
            return 1 - 2**-53

    assert draw(Prediction.of([0.5, 0.5 - 1e-10, 0.0]), Last()) == 1
