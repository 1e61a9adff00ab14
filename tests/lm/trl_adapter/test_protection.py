"""The numbers of one generation by hand, and what beta and the budget do."""

import math

import pytest
import torch

from mightnt.errors import BudgetError, InputError
from mightnt.lm.sequences import Scored
from mightnt.lm.trl_adapter.protection import (
    MOST_CHANGE,
    Protection,
    columns,
    from_columns,
    measured,
    never_reinforced,
    next_beta,
    summary,
)

INF = math.inf


def episodes(budget=INF):
    """Three episodes of three tokens; the last token of the first is not the agent's, the third meets a forbidden token."""
    log_policy = torch.tensor([[-1.0, -1.0, -9.0], [-0.5, -3.0, -0.5], [-1.0, -1.0, -1.0]])
    log_nu = torch.tensor([[-2.0, -1.5, -INF], [-2.5, -1.0, -1.5], [-1.0, -INF, -1.0]], dtype=torch.float64)
    kept = torch.tensor([[math.log(0.5), 0.0, -INF], [0.0, 0.0, 0.0], [0.0, math.log(0.25), -INF]], dtype=torch.float64)
    own = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    return measured(log_policy, Scored(log_nu, kept), own, 10.0, budget)


def test_sums_by_hand():
    found = episodes()
    assert found.sequence_kl_nats.tolist() == pytest.approx([1.5, 1.0, 9.0])
    assert found.floor_nats.tolist() == pytest.approx([math.log(2), 0.0, math.log(4) + 10])
    assert found.asking_mass.tolist() == pytest.approx([0.5, 0.0, 1.75])
    assert found.own_tokens.tolist() == [2, 3, 3]
    assert found.forbidden_tokens.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("budget", "over"), [(INF, [0, 0, 1]), (1.9, [0, 1, 1]), (2.1, [0, 0, 1]), (1.4, [1, 1, 1]), (100.0, [0, 0, 1])]
)
def test_over_budget_is_of_the_running_sum_and_a_forbidden_token_is_over_every_budget(budget, over):
    """The second episode runs 2, 0, 1: its end is within 1.9, its way is not."""
    assert episodes(budget).over_budget.tolist() == over


def test_the_summary_is_of_all_episodes_and_theta_of_all_tokens():
    found = summary(from_columns(columns(episodes(1.9))))
    assert found == pytest.approx(
        {
            "mightnt/sequence_kl_nats": 11.5 / 3,
            "mightnt/sequence_kl_max_nats": 9.0,
            "mightnt/floor_nats": (math.log(8) + 10) / 3,
            "mightnt/asking_probability": 2.25 / 8,
            "mightnt/forbidden_tokens_per_episode": 1 / 3,
            "mightnt/over_budget_share": 2 / 3,
        }
    )


def test_episodes_without_a_token():
    empty = torch.zeros(2, 0)
    found = measured(empty, Scored(empty.double(), empty.double()), empty.bool(), 10.0, 1.0)
    assert summary(found)["mightnt/asking_probability"] == 0.0
    assert not bool(found.over_budget.any())


def test_a_policy_that_says_nan_is_refused_unless_somebody_else_said_it():
    """RLOO would make a zero of it, and train on."""
    log_policy, zeros = torch.tensor([[-1.0, math.nan]]), torch.zeros(1, 2, dtype=torch.float64)
    scored = Scored(zeros - 1, zeros)
    with pytest.raises(InputError, match="NaN"):
        measured(log_policy, scored, torch.tensor([[True, True]]), 10.0, INF)
    found = measured(log_policy, scored, torch.tensor([[True, False]]), 10.0, INF)
    assert found.sequence_kl_nats.tolist() == [0.0]


@pytest.mark.parametrize(("lowest", "expected"), [(-3.0, [2.0, -3.0, -3.0]), (1.0, [2.0, 0.0, 0.0])])
def test_who_is_over_is_never_reinforced(lowest, expected):
    found = never_reinforced(torch.tensor([2.0, 5.0, -3.0]), torch.tensor([0.0, 1.0, 1.0]), torch.tensor(lowest))
    assert found.tolist() == expected


def test_beta_climbs_above_the_target_and_falls_below_it():
    terms = Protection(beta=0.1, kl_target_nats=4.0, beta_step=0.2)
    assert next_beta(0.1, 4.0, terms) == 0.1
    assert next_beta(0.1, 6.0, terms) == pytest.approx(0.1 * math.exp(0.1))
    assert next_beta(0.1, 400.0, terms) == pytest.approx(0.1 * math.exp(0.2))
    assert next_beta(0.1, -50.0, terms) == pytest.approx(0.1 * math.exp(-0.2))
    assert next_beta(0.1 * MOST_CHANGE, 400.0, terms) == 0.1 * MOST_CHANGE
    assert next_beta(0.1, 400.0, Protection(beta=0.1)) == 0.1
    with pytest.raises(InputError, match="NaN"):
        next_beta(0.1, math.nan, terms)


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        (InputError, {"beta": 0.0}),
        (InputError, {"beta": math.nan}),
        (InputError, {"beta": math.inf}),
        (BudgetError, {"kl_target_nats": 0.0}),
        (BudgetError, {"kl_target_nats": math.nan}),
        (BudgetError, {"kl_budget_nats": 0.0}),
        (BudgetError, {"kl_budget_nats": math.nan}),
        (InputError, {"beta_step": -0.1}),
        (InputError, {"exact_kl_every": -1}),
    ],
)
def test_refusals(error, changed):
    with pytest.raises(error):
        Protection(**changed)
