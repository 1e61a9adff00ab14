"""No sequence of charges gets past the limit, and what is left is the limit less the charges."""

from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.constraints.ledger import TOLERANCE_NATS, Ledger
from mightnt.errors import BudgetError

charges = st.lists(st.floats(0, 3), max_size=30)


@given(st.floats(0, 20), charges)
def test_the_exact_sum_of_what_was_accepted_stays_within_the_limit(limit, amounts):
    ledger, accepted = Ledger(limit), Fraction(0)
    for amount in amounts:
        if ledger.affords(amount):
            ledger, accepted = ledger.charge(amount), accepted + Fraction(amount)
        else:
            with pytest.raises(BudgetError, match="exceeds"):
                ledger.charge(amount)
    assert accepted <= Fraction(limit) + Fraction(TOLERANCE_NATS) + Fraction(1, 10**12)
    assert abs(ledger.left_nats - max(0.0, float(limit - accepted))) <= 1e-12


def test_charging_leaves_the_old_ledger_as_it_was():
    before = Ledger(2.0)
    assert (before.charge(0.5).left_nats, before.left_nats) == (1.5, 2.0)


def test_the_tolerance_is_granted_once_not_once_a_charge():
    ledger = Ledger(1.0).charge(1.0).charge(TOLERANCE_NATS / 2)
    assert ledger.left_nats == 0
    with pytest.raises(BudgetError):
        ledger.charge(TOLERANCE_NATS)


def test_ten_tenths_are_one():
    ledger = Ledger(1.0)
    for _ in range(10):
        ledger = ledger.charge(0.1)
    assert ledger.left_nats < 1e-12
    assert not ledger.affords(1e-6)


def test_without_a_limit_everything_can_be_paid_even_infinity():
    ledger = Ledger(inf).charge(1e300).charge(inf)
    assert (ledger.left_nats, ledger.spent_nats) == (inf, inf)
    assert not Ledger(5.0).affords(inf)


@pytest.mark.parametrize("nats", [nan, -0.1, -inf])
def test_what_is_no_amount_is_refused(nats):
    for call in (Ledger, Ledger(1.0).affords, Ledger(1.0).charge, lambda spent: Ledger(1.0, spent)):
        with pytest.raises(BudgetError, match="is allowed"):
            call(nats)


def test_a_ledger_cannot_begin_overdrawn():
    with pytest.raises(BudgetError, match="are spent of a limit"):
        Ledger(1.0, 1.1)
