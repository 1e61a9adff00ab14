"""Errors that say what was got, what is allowed and what to do.

Everything a caller can do wrong raises :class:`MightntError`; the command line prints its sentence and exits with 2.
"""

from __future__ import annotations


class MightntError(Exception):
    """Base of every error this package raises on purpose. Its message is one sentence for the user."""


class InputError(MightntError):
    """What came in cannot be used: a file, a number, a name. Nothing was changed."""


class ContractError(MightntError):
    """A model, base, world or policy breaks the contract start / predict / advance."""


class BudgetError(MightntError):
    """A charge would exceed what is left, or a budget is not a number of nats."""


class NoAnswer(MightntError):
    """The demonstrator was asked and gave no answer: without an answer there is no act."""
