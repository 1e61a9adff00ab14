"""Who chose a symbol, and which choices are evidence."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.history import Chooser, Step, demonstrated, is_evidence

DEMONSTRATOR, AGENT, WORLD = Chooser.DEMONSTRATOR, Chooser.AGENT, Chooser.WORLD


@pytest.mark.parametrize(
    ("evidence", "chooser", "counts"),
    [
        ("all", DEMONSTRATOR, True),
        ("all", AGENT, True),
        ("all", WORLD, False),
        ("demonstrated", DEMONSTRATOR, True),
        ("demonstrated", AGENT, False),
        ("demonstrated", WORLD, False),
    ],
)
def test_the_two_rules_of_evidence(evidence, chooser, counts):
    assert is_evidence(Step(0, chooser), evidence) is counts


@pytest.mark.parametrize("rule", ["", "All", "demonstrator", None])
@pytest.mark.parametrize("chooser", list(Chooser))
def test_a_misspelled_rule_is_refused_for_every_chooser(rule, chooser):
    with pytest.raises(InputError, match="allowed are 'all' and 'demonstrated'"):
        is_evidence(Step(0, chooser), rule)


def test_actions_are_what_the_demonstrator_or_the_agent_chose():
    assert [Step(1, chooser).is_action for chooser in (DEMONSTRATOR, AGENT, WORLD)] == [True, True, False]


def test_steps_are_values():
    assert Step(1, AGENT) == Step(1, AGENT) != Step(1, DEMONSTRATOR)
    assert len({Step(1, AGENT), Step(1, AGENT), Step(2, AGENT)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Step(1, AGENT).symbol = 2


def test_choosers_come_back_from_their_names():
    """Records keep them as text."""
    assert [Chooser(str(chooser)) for chooser in Chooser] == list(Chooser)
    assert f"{AGENT}" == "agent"
    with pytest.raises(ValueError, match="robot"):
        Chooser("robot")


@given(st.lists(st.integers(0, 9), max_size=9))
def test_demonstrated_alternates_beginning_with_the_demonstrator(symbols):
    history = demonstrated(symbols)
    assert [step.symbol for step in history] == symbols
    assert all(step.chooser is DEMONSTRATOR for step in history[::2])
    assert all(step.chooser is WORLD for step in history[1::2])
    assert demonstrated(iter(symbols)) == history
