"""What is shown to whoever is asked: how each member would go on, and where they part ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mightnt.desk.tickets import Proposal
from mightnt.lm.members import Members, MemberStep, over_actions
from mightnt.lm.tokens import FastTokenizer, Marks, decode_reply
from mightnt.models.counts import SuffixCounts


@torch.no_grad()
def propose(
    tokenizer: FastTokenizer, members: Members, marks: Marks, begun: Sequence[int], longest: int
) -> tuple[Proposal, ...]:
    """How each network and, where it takes part, the counts would go on with the turn: always its likeliest token.

    At least one token is said, and at most ``longest`` with the end; a probability is that of exactly these tokens (and
    the end, where it was reached) by that member alone. Proposals of white space alone are left out.

    The members' memory is used up by this. Kind: exact probabilities of a greedy guess. Cost: a step of the member a token.
    """
    tellers = {f"network-{i}": network_teller(members, i) for i in range(len(members.networks))}
    if members.counts is not None:
        tellers["counts"] = counts_teller(members.counts, members.suffixes[0])
    found = []
    for name, teller in tellers.items():
        tokens, log_probability = greedy(teller, marks.end, longest)
        text = decode_reply(tokenizer, [*begun, *tokens])[len(decode_reply(tokenizer, begun)) :]
        if text.strip():
            found.append(Proposal(name, text, math.exp(log_probability)))
    return tuple(found)


Teller = Callable[[int | None], Tensor]
"""Told the token that was said last (``None`` at first), tells the log-probabilities of the next, shape (tokens,)."""


def greedy(teller: Teller, end: int, longest: int) -> tuple[list[int], float]:
    """``(tokens, their log-probability)``: the likeliest token at each step, the first of them not the end."""
    tokens, total = list[int](), 0.0
    while len(tokens) < max(1, longest) and end not in tokens:
        ahead = teller(tokens[-1] if tokens else None)
        allowed = ahead.clone()
        if not tokens:
            allowed[end] = -torch.inf
        tokens.append(int(allowed.argmax()))
        total += float(ahead[tokens[-1]])
    return tokens, total


def network_teller(members: Members, i: int) -> Teller:
    """The network of this number, from where it stands."""
    network, state = members.networks[i], members.states[i]

    def tell(token: int | None) -> Tensor:
        nonlocal state
        if token is not None:
            state = network.advance(state, torch.tensor([token]))
        return over_actions(state.log_probs, members.is_action)[0]

    return tell


def counts_teller(counts: SuffixCounts, suffix: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Teller:
    """The counts after these last tokens."""

    def tell(token: int | None) -> Tensor:
        nonlocal suffix
        if token is not None:
            suffix = np.append(suffix, token)[-counts.longest :] if counts.longest else suffix
        return torch.from_numpy(counts.predict(suffix[None])[0])

    return tell


def disagreement(tokenizer: FastTokenizer, step: MemberStep, log_nu: Tensor) -> str:
    """One sentence: the word that the first network would most like to say and the base does not vouch for.

    Empty where the base vouches for all that the network would say.
    """
    network, base = step.networks[0, 0].exp(), log_nu[0].exp()
    gap = network - base
    token = int(gap.argmax())
    if float(gap[token]) <= 0.0:
        return ""
    word = decode_reply(tokenizer, [token]).strip()
    what = f'"{word}"' if word else "the end of the turn"
    counts = "" if step.counts is None else f", {share(float(step.counts[0, token].exp()))} by the counts"
    never = "" if step.supported is None or bool(step.supported[0, token]) else ": the demonstrations never go on so"
    return (
        f"Most in doubt is {what} next: {share(float(network[token]))} by network-0{counts}; "
        f"{share(float(base[token]))} is vouched for{never}"
    )


def share(probability: float) -> str:
    """A probability for people; what is possible is never shown as 0."""
    return "under 0.1%" if 0.0 < probability < 0.001 else f"{probability:.1%}"
