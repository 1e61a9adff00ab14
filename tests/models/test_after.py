"""A model that starts later is the model, with the history behind it."""

import numpy as np
from hypothesis import given

from mightnt.bases.mixture import BayesMixture
from mightnt.models.after import After
from mightnt.prediction import check_model, follow
from tests.strategies import histories, model_classes


@given(model_classes(), histories(), histories())
def test_starting_later_is_following_longer(model_class, earlier, later):
    base = BayesMixture(model_class)
    model = After(base, earlier)
    check_model(model, [later])
    here = model.predict(follow(model, later)).log_probabilities
    assert np.array_equal(here, base.predict(follow(base, earlier + later)).log_probabilities)
    assert model.n_symbols == base.n_symbols
