"""What a row of a theorem accepts, and that a record gives back what was computed."""

import json
import math

import numpy as np
import pytest

from mightnt.errors import InputError
from mightnt.experiments.theory.theorem import Computed, Row
from mightnt.files import plain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "guess"}, "allowed are exact"),
        ({"value": math.nan}, "NaN"),
        ({"low": 0.0}, "both ends"),
        ({"kind": "estimate"}, "needs an interval"),
        ({"low": 2.0, "high": 3.0}, "outside its interval"),
        ({"holds": np.False_}, "whether it holds is a bool"),
    ],
)
def test_a_row_says_what_it_is_or_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        Row(**{"claim": "c", "value": 1.0, "unit": "nats", "kind": "exact"} | changes)


def test_a_record_gives_back_what_was_computed():
    rows = (Row("a", math.inf, "nats", "exact", holds=True), Row("b", 0.5, "", "estimate", 0.25, math.inf, "by hand"))
    computed = Computed(rows, {"x": [1, 2], "y": [0.5, "inf"]})
    assert Computed.from_json(json.loads(json.dumps(plain(computed.as_json())))) == computed
