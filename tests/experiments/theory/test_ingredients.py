"""Random classes obey the contract, charges are -log of the base, and rows carry honest intervals."""

from math import inf, log

import numpy as np
import pytest

from mightnt.audits.summary import over_seeds
from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.errors import InputError
from mightnt.experiments.theory.ingredients import (
    Answered,
    charges_nats,
    demonstrations,
    mean_row,
    random_class,
    share_row,
)
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.prediction import check_model


def test_the_event_is_the_last_answer():
    event = Answered(1, 0)
    assert not event(())
    assert event(demonstrated([1, 0]))
    assert not event(demonstrated([0, 0]))
    assert not event(demonstrated([1, 0, 1, 1]))


def test_random_classes_obey_the_contract_and_depend_on_the_dice():
    one, other = (random_class(np.random.default_rng(seed), 4, 2, 2) for seed in (0, 1))
    assert len(one.models) == 4
    assert np.exp(one.log_prior).sum() == pytest.approx(1)
    for model in one.models:
        check_model(model, [demonstrated([0, 1, 1, 0, 0, 0])])
    assert one.log_prior.tolist() != other.log_prior.tolist()


def test_demonstrations_are_the_models_own():
    always = Categorical.of([0, 1])
    shown = demonstrations(always, 50, 3, np.random.default_rng(0))
    assert [step.symbol for step in shown[::2]] == [1] * 50
    assert {step.symbol for step in shown[1::2]} == {0, 1, 2}
    assert shown[0] == Step(1, Chooser.DEMONSTRATOR)
    assert shown[1].chooser is Chooser.WORLD
    share = np.mean(
        [s.symbol for s in demonstrations(Categorical.of([0.3, 0.7]), 2000, 1, np.random.default_rng(0))[::2]]
    )
    assert share == pytest.approx(0.7, abs=0.04)


def test_charges_by_hand():
    pair = ModelClass.of([Categorical.of([0.9, 0.1]), Categorical.of([0.5, 0.5])])
    assert charges_nats(Pessimistic(pair, 0.1), [1, 0]) == pytest.approx([log(10), log(2)])
    first, second = 0.3, (0.1**2 + 0.5**2) / 2 / 0.3
    assert charges_nats(BayesMixture(pair), [1, 1]) == pytest.approx([-log(first), -log(second)])
    assert charges_nats(Categorical.of([1, 0]), [0, 1]) == [0, inf]


def test_rows_carry_their_intervals():
    row, spread = mean_row("a", [1.0, 2.0, 4.0], "nats", "runs", holds=True), over_seeds([1.0, 2.0, 4.0])
    assert (row.value, row.low, row.high) == (spread.mean, spread.low, spread.high)
    assert (row.kind, row.holds, row.how) == ("estimate", True, "95% Student t over 3 runs")
    assert share_row("b", 3, 10, "runs").value == 0.3
    assert share_row("b", 0, 10, "runs").low == 0
    with pytest.raises(InputError, match="at least two"):
        mean_row("a", [1.0], "nats", "runs")
    with pytest.raises(InputError, match="at least two"):
        mean_row("a", [1.0, inf], "nats", "runs")
