"""The known demonstrator is the demonstrator."""

import numpy as np
from hypothesis import given

from mightnt.bases.known import Known
from mightnt.prediction import check_model, follow
from tests.strategies import RandomModel, histories, seeds


@given(seeds, histories())
def test_it_predicts_what_the_demonstrator_does(seed, history):
    demonstrator = RandomModel(seed, 2, missing=0.3)
    base = Known(demonstrator)
    check_model(base, [history])
    expected = demonstrator.predict(follow(demonstrator, history)).log_probabilities
    assert np.array_equal(base.predict(follow(base, history)).log_probabilities, expected)
    assert base.n_symbols == 2
