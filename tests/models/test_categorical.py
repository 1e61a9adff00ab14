"""The memoryless model: the same row always, missing mass kept."""

import numpy as np
import pytest
from hypothesis import given

from mightnt.errors import InputError
from mightnt.models.categorical import Categorical
from mightnt.prediction import check_model, follow
from tests.strategies import histories, predictions


@given(predictions(n_symbols=2), histories())
def test_it_obeys_the_contract_and_remembers_nothing(prediction, history):
    model = Categorical(prediction)
    check_model(model, [history])
    after = model.predict(follow(model, history))
    assert np.array_equal(after.log_probabilities, prediction.log_probabilities)


def test_missing_mass_is_not_given_back():
    model = Categorical.of([0.5, 0.25])
    assert model.n_symbols == 2
    assert model.predict(model.start()).missing == pytest.approx(0.25)


def test_more_than_one_is_refused():
    with pytest.raises(InputError, match="sum to"):
        Categorical.of([0.9, 0.2])
