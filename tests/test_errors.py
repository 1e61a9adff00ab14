"""Every error the package raises on purpose is a MightntError, and none can be taken for another."""

import inspect

import pytest

from mightnt import errors
from mightnt.errors import BudgetError, ContractError, InputError, MightntError, NoAnswer

KINDS = (InputError, ContractError, BudgetError, NoAnswer)


@pytest.mark.parametrize("kind", KINDS)
def test_one_except_catches_each_and_prints_its_sentence(kind):
    with pytest.raises(MightntError, match="what I got"):
        raise kind("what I got, what is allowed, what to do")


def test_no_kind_is_caught_as_another():
    for kind in KINDS:
        assert not any(issubclass(kind, other) for other in KINDS if other is not kind)
        assert not issubclass(kind, (OSError, ValueError)), "an `except ValueError` somewhere would swallow it"


def test_every_kind_is_listed_here_and_says_what_it_is_for():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert set(classes) == {MightntError, *KINDS}
    assert all(c.__doc__ for c in classes)
