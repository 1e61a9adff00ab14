"""What a capped base keeps at many finished places, and says of what was said there, in as few sweeps as that takes.

Where the demonstrations veto all but a list of tokens, only what is listed is looked at. Elsewhere one sweep over what the
network says is enough, in its own digits: sums of probabilities need no more.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.contract import State
from mightnt.lm.members import MemberStep
from mightnt.lm.panel import Heard, support_of
from mightnt.lm.vocabulary import pieces, rows_in_cache
from mightnt.models.spread import EVERYTHING, of_rows, shortlist

LEAST_SUM = 1e-20
"""Of less than this a float32 sum has too few digits left: such a place is left to be written out."""
LARGEST_FACTOR = 1e30
"""c / R beyond this, times a float32 number, may be no number: the same."""


def kept_by_lists(base: Capped, states: State, heard: Heard, said: MemberStep) -> tuple[Tensor, Tensor]:
    """``(which places this settles, log nu of the said token and log kept at them)``, shapes (places,), (2, places settled).

    Args:
        states: of the base at each place, shape (places, 1).
        heard: what everybody says there; some rule of support is among it.
        said: the same of the token that was said.

    Kind: exact (float32 where the network's numbers are). Cost: one sweep over the network's numbers at the places that are
    not closed, and the entries of the lists.
    """
    closed, codes = shortlist(heard.allowed)
    place = torch.from_numpy(codes // heard.n_tokens).to(states.device)
    log_kept = grouped_log_sums(base.predict(states[place], heard.at(codes))[:, 0], place, len(states))
    settled = torch.from_numpy(closed).to(states.device)
    rows = np.flatnonzero(~closed)
    if len(rows):
        total = open_sums(base, states, heard, rows)
        there = torch.from_numpy(rows).to(states.device)
        log_kept[there] = total.log()
        settled[there] = total >= LEAST_SUM
    return settled, torch.stack([base.predict(states, said)[:, 0], log_kept.clamp(max=0.0)])[:, settled]


def open_sums(base: Capped, states: State, heard: Heard, rows: NDArray[np.int64]) -> Tensor:
    """sum_x nu(x) at these places, none of which is closed to all but a list; float64, shape (rows,).

    Probabilities, not their logarithms: the lists of the counts are added where they belong, and nothing else is moved.
    """
    spread = heard.counts if base.against == "counts" else heard.situations
    assert spread is not None, f"this base needs the member {base.against}"
    network, device = heard.networks[0], states.device
    factor = (base.log_cap_nats - states[torch.from_numpy(rows).to(device), 0]).exp().clamp(max=LARGEST_FACTOR)
    common = torch.from_numpy(spread.common).to(network)
    scale = (torch.from_numpy(spread.scale[rows]).to(device) * factor).to(network)
    total = torch.empty(len(rows), dtype=torch.float64, device=device)
    for some in pieces(len(rows), rows_in_cache(heard.n_tokens, network.dtype, device)):
        here, bound = rows[some], torch.outer(scale[some], common)
        for codes, more in zip(spread.codes, spread.more, strict=True):
            inside, where = (torch.from_numpy(part).to(device) for part in of_rows(codes, here, heard.n_tokens))
            added = torch.from_numpy(more).to(device)[inside] * factor[some][where // heard.n_tokens]
            bound.view(-1).index_add_(0, where, added.to(bound))
        torch.minimum(bound, network[here].exp_(), out=bound)
        if any(bool((allowed.which[here] != EVERYTHING).any()) for allowed in heard.allowed):
            bound.masked_fill_(~reduce(torch.logical_and, support_of(heard, here)), 0.0)
        total[some] = bound.sum(-1).double()
    return total.masked_fill_(factor == LARGEST_FACTOR, 0.0)


def grouped_log_sums(logs: Tensor, group: Tensor, n: int) -> Tensor:
    """log of the sum of e^logs in each of ``n`` groups, ``-inf`` where all are or there are none; shape (n,)."""
    top = logs.new_full((n,), -torch.inf).scatter_reduce(0, group, logs, "amax")
    top = top.masked_fill(top.isneginf(), 0.0)
    return logs.new_zeros(n).index_add(0, group, (logs - top[group]).exp()).log() + top
