"""What holds for every base that is compared: below one, below the network where it is said, rows on their own."""

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.worst_case import WorstCaseConfig
from mightnt.lm.candidates import CANDIDATES, candidate
from mightnt.lm.further import FurtherConfig
from mightnt.lm.tokens import encode

ABOVE_THE_NETWORK = {"mixture", "mixture-fixed", "counts", "trajectory", "turn", "known"}
"""Those that may give a token more than the first network does."""
BEGINNING, ROWS = 30, 4


@pytest.fixture(scope="module")
def built(imitators):
    """Every candidate, fitted once, quickly and badly."""
    with pytest.MonkeyPatch.context() as patch:
        small = FurtherConfig(width=16, layers=1, steps_per_thousand=15)
        patch.setattr("mightnt.lm.further.FurtherConfig", lambda: small)
        patch.setattr(
            "mightnt.lm.bases.worst_case.WorstCaseConfig", lambda: WorstCaseConfig(evaluations=20, episodes=4)
        )
        yield {name: one.build(imitators) for name, one in CANDIDATES.items()}


def beginnings(imitators):
    """The first tokens of a few demonstrations, and which of them are the demonstrator's; both (ROWS, BEGINNING)."""
    corpus = encode(imitators.tokenizer, imitators.held_out)
    starts = [start for start, n in zip(corpus.starts, corpus.lengths, strict=False) if n >= BEGINNING][:ROWS]
    rows = [slice(start, start + BEGINNING) for start in starts]
    tokens, is_action = (
        [torch.from_numpy(column[row]) for row in rows] for column in (corpus.tokens, corpus.is_action)
    )
    return torch.stack(tokens).long(), torch.stack(is_action)


def walk(members, base, tokens, acting, own, order=None):
    """``[(log nu, q)]`` at every place for all rows, and the last state; rows act where they are told to."""
    order = torch.arange(len(tokens)) if order is None else order
    tokens, acting = tokens[order], acting[order]
    members.start(len(tokens))
    state, seen = base.start(len(tokens)), []
    for t in range(tokens.shape[1]):
        rows = torch.nonzero(acting[:, t]).flatten()
        if len(rows):
            mu = torch.full((len(rows), len(members.is_action)), -torch.inf).double()
            mu[:, members.is_action] = -float(members.is_action.sum().double().log())
            step = members.predict(rows, mu)
            log_nu = base.predict(state[rows], step)
            seen.append((order[rows], log_nu, step.networks[0]))
            chosen = torch.full((len(rows),), own)
            state[rows] = base.advance(state[rows], step, tokens[rows, t], chosen)
        members.advance(tokens[:, t])
    return seen, state


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_base_is_a_semimeasure_below_the_network_where_it_says_so(name, built, imitators):
    tokens, acting = beginnings(imitators)
    seen, state = walk(*built[name], tokens, acting, own=True)
    assert not state.isnan().any()
    for _, log_nu, q in seen:
        assert log_nu.dtype == torch.float64
        assert not log_nu.isnan().any()
        assert (log_nu.exp().sum(dim=1) <= 1 + 1e-9).all()
        assert log_nu[:, ~torch.from_numpy(imitators.counts.is_action)].isneginf().all()
        if name not in ABOVE_THE_NETWORK:
            assert (log_nu <= q + 1e-9).all()


@pytest.mark.parametrize("name", CANDIDATES)
def test_rows_do_not_touch_each_other(name, built, imitators):
    """Rows in another order say the same, in that order; and so does one row alone."""
    tokens, acting = beginnings(imitators)
    members, base = built[name]
    seen, state = walk(members, base, tokens, acting, own=True)
    said = {
        (t, int(row)): line for t, (rows, log_nu, _) in enumerate(seen) for row, line in zip(rows, log_nu, strict=True)
    }
    order = torch.tensor([2, 0, 3, 1])
    again, moved = walk(members, base, tokens, acting, own=True, order=order)
    torch.testing.assert_close(moved, state[order], atol=1e-3, rtol=1e-3)
    for t, (rows, log_nu, _) in enumerate(again):
        for row, line in zip(rows, log_nu, strict=True):
            torch.testing.assert_close(line.exp(), said[t, int(row)].exp(), atol=1e-4, rtol=1e-3)
    alone, _ = walk(members, base, tokens, acting & (torch.arange(ROWS) == 1)[:, None], own=True)
    mine = [line for (_, row), line in sorted(said.items()) if row == 1]
    for line, (_, log_nu, _) in zip(mine, alone, strict=True):
        torch.testing.assert_close(line.exp(), log_nu[0].exp(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in CANDIDATES if name != "mixture"])
def test_the_demonstrators_steps_are_not_charged(name, built, imitators):
    """The mixture counts them as evidence: that is what it is for."""
    tokens, acting = beginnings(imitators)
    members, base = built[name]
    _, state = walk(members, base, tokens, acting, own=False)
    assert torch.equal(state, base.start(ROWS))


def test_a_state_is_a_value(built, imitators):
    """Advancing changes nothing that was handed out."""
    tokens, _ = beginnings(imitators)
    for members, base in built.values():
        members.start(ROWS)
        members.advance(tokens[:, 0])
        step = members.predict(torch.arange(ROWS), torch.zeros(ROWS, len(members.is_action)).double())
        state = base.start(ROWS)
        first = base.predict(state, step)
        base.advance(state, step, first.argmax(dim=1), torch.ones(ROWS, dtype=torch.bool))
        assert torch.equal(state, base.start(ROWS))
        assert torch.equal(base.predict(state, step), first)


def test_each_says_what_it_promises_and_what_it_costs():
    for name, one in CANDIDATES.items():
        assert one.name == name
        assert one.promise.endswith(".")
        assert one.forward_passes >= 1


def test_an_unknown_name_is_refused():
    assert candidate("slack").name == "slack"
    with pytest.raises(InputError, match="unknown base 'nonsense'; allowed are single"):
        candidate("nonsense")
