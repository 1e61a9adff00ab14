"""Who is asked about finished sequences, and what they say at many places at once.

Networks fill a block of (networks x places x vocabulary) numbers; counts stay lists of what they say beyond what they say
anywhere, and are written out a few places at a time, in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.heads import SharedReading, TwoParts, read_all
from mightnt.lm.members import MemberStep
from mightnt.lm.vocabulary import MinimumRule, pieces, rows_in_cache
from mightnt.models.counts import BEFORE_START, SuffixCounts, Support
from mightnt.models.situations import SituationCounts
from mightnt.models.spread import NOTHING, Allowed, Spread, of_rows


@dataclass(frozen=True)
class Panel:
    """Who is asked."""

    networks: tuple[TwoParts, ...]
    """At least one; the first one's hidden states are what bases see."""
    is_action: Tensor
    """Which tokens can be chosen, bool, shape (tokens,); networks are conditioned on these."""
    counts: SuffixCounts | None = None
    support: Support | None = None
    situations: SituationCounts | None = None
    """Counts over hidden states of the first network, as it says them without a temperature."""
    temperature: float = 1.0
    """Logits of networks are divided by it. Counts are shares of what was demonstrated: no temperature applies."""
    shared: tuple[SharedReading, ...] = ()
    """Which of the networks are adapters on one trunk and read together."""

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return len(self.is_action)

    @property
    def rule(self) -> MinimumRule:
        """How logits become log-probabilities of actions."""
        everything = bool(self.is_action.all())
        mask = None if everything else torch.zeros(self.n_tokens, device=self.is_action.device)
        mask = mask if mask is None else mask.masked_fill_(~self.is_action, -torch.inf)
        return MinimumRule((0.0,) * len(self.networks), self.temperature, mask)

    def read(self, tokens: Tensor) -> list[Tensor]:
        """What each network's head needs at every place; adapters on one network share a pass."""
        return read_all(self.networks, self.shared, tokens)

    def hear(self, read: list[Tensor], tokens: Tensor, row: Tensor, place: Tensor, asks: Asks) -> Heard:
        """What everybody says before the tokens at these places.

        Args:
            read: of :meth:`read` for ``tokens``, shape (rows, length).
            row, place: which tokens, shape (places,) each; places are 1 or later.
            asks: what will be looked at.

        Errors: :class:`~mightnt.errors.InputError` for a network that says NaN. Cost: a product with each head; memory: one
        more than networks x places x vocabulary numbers.
        """
        hidden = read[0][row, place - 1]
        counts, support, situations = self.counts, self.support, self.situations
        suffixes = suffixes_at(tokens, row, place, counts.longest if counts else 0)
        located = situations.located(hidden.float().cpu().numpy()) if situations else None
        sources: list[Allowed] = []
        if counts and support:
            sources.append(allowed_of(counts, suffixes, support))
        if situations and located:
            sources.append(situations.allowed(located))
        return Heard(
            networks=self.spoken([states[row, place - 1] for states in read], asks.dtype),
            hidden=hidden,
            counts=spread_of(counts, suffixes) if counts and asks.counts else None,
            situations=situations.spread(located) if situations and located and asks.situations else None,
            allowed=tuple(sources),
        )

    def spoken(self, hidden: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """log p of the next action by every network at some places, each of shape (places, tokens)."""
        device, rule, said = self.is_action.device, self.rule, []
        size = rows_in_cache(self.n_tokens, dtype, device)
        for number, (network, states) in enumerate(zip(self.networks, hidden, strict=True)):
            logits = network.logits(states)[:, : self.n_tokens].to(device, dtype)
            for part in pieces(len(logits), size):
                logits[part] = rule.normalized(logits[part])
            if bool(logits[:, 0].isnan().any()):
                raise InputError(f"network {number} says NaN; a network with finite logits is needed")
            said.append(logits)
        return tuple(said)


@dataclass(frozen=True)
class Asks:
    """What a base looks at, and in how many digits."""

    dtype: torch.dtype
    counts: bool = True
    situations: bool = True


@dataclass(frozen=True)
class Heard:
    """What everybody says at some places: networks in full, counts as lists."""

    networks: tuple[Tensor, ...]
    """log p of the next action by each, shape (places, tokens)."""
    hidden: Tensor
    """Shape (places, width)."""
    counts: Spread | None
    situations: Spread | None
    allowed: tuple[Allowed, ...]
    """A token has support where all of these say so."""

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.networks[0].shape[1]

    def at(self, codes: NDArray[np.int64]) -> MemberStep:
        """What everybody says of single tokens, float64, shape (codes, 1): a vocabulary of one.

        ``codes``, ascending: place x tokens + token. The hidden states are those of the places.
        """
        place, token = (torch.from_numpy(part).to(self.hidden.device) for part in np.divmod(codes, self.n_tokens))

        def column(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(self.hidden.device)[:, None]

        sources = [allowed.at(codes) for allowed in self.allowed]
        return MemberStep(
            networks=torch.stack([said[place, token] for said in self.networks]).double()[..., None],
            counts=column(self.counts.at(codes)) if self.counts else None,
            supported=column(np.logical_and.reduce(sources)) if sources else None,
            demonstrator=None,
            hidden=self.hidden[place],
            situations=column(self.situations.at(codes)) if self.situations else None,
        )

    def written_out(self, places: Tensor) -> MemberStep:
        """What everybody says of every token at a few places, by their numbers."""
        networks, rows = torch.stack([said[places] for said in self.networks]), places.cpu().numpy()
        sources = support_of(self, rows)
        return MemberStep(
            networks=networks,
            counts=spread_written(self.counts, rows, networks) if self.counts else None,
            supported=reduce(Tensor.logical_and_, sources) if sources else None,
            demonstrator=None,
            hidden=self.hidden[places],
            situations=spread_written(self.situations, rows, networks) if self.situations else None,
        )


def spread_written(spread: Spread, rows: NDArray[np.int64], like: Tensor) -> Tensor:
    """Log-probabilities of some rows in full, in the type of ``like`` and where it is, shape (rows, tokens).

    Sums are made in float64, and logarithms of what differs alone.
    """

    def there(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(like.device)

    common, scale = there(spread.common), there(spread.scale[rows])
    result = scale.log().to(like)[:, None] + common.log().to(like)
    sums, found = (scale[:, None] * common).view(-1), []
    for codes, more in zip(spread.codes, spread.more, strict=True):
        inside, here = of_rows(codes, rows, len(common))
        found.append(there(here))
        sums.index_add_(0, found[-1], there(more[inside]))
    for where in found:
        result.view(-1).index_copy_(0, where, sums[where].log().to(like))
    return result


def support_of(heard: Heard, rows: NDArray[np.int64]) -> list[Tensor]:
    """What each rule at hand supports at a few places, in full, each bool, shape (rows, tokens)."""
    return [support_written(allowed, rows, heard.hidden.device) for allowed in heard.allowed]


def support_written(allowed: Allowed, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Some rows in full, bool, shape (rows, tokens)."""
    which = torch.from_numpy(allowed.which[rows]).to(device)
    result = torch.from_numpy(allowed.sets).to(device).index_select(0, which)
    _, codes = of_rows(allowed.codes, rows, allowed.sets.shape[1])
    result.view(-1).index_fill_(0, torch.from_numpy(codes).to(device), True)
    return result


def spread_of(counts: SuffixCounts, suffixes: NDArray[np.int64]) -> Spread:
    """What the counts predict; counts of another kind, that only say it written out, are listed whole."""
    if type(counts).predict is SuffixCounts.predict:
        return counts.spread(suffixes)
    said = counts.predict(suffixes)
    codes = np.flatnonzero(said > -np.inf)
    return Spread(np.zeros(said.shape[1]), np.zeros(len(said)), (codes,), (np.exp(said.reshape(-1)[codes]),))


def allowed_of(counts: SuffixCounts, suffixes: NDArray[np.int64], support: Support) -> Allowed:
    """What the counts support; counts of another kind, that only say it written out, are listed whole."""
    if type(counts).supported is SuffixCounts.supported:
        return counts.allowed(suffixes, support)
    said = counts.supported(suffixes, support)
    return Allowed(np.zeros((3, said.shape[1]), dtype=np.bool_), np.full(len(said), NOTHING), np.flatnonzero(said))


def suffixes_at(tokens: Tensor, row: Tensor, place: Tensor, longest: int) -> NDArray[np.int64]:
    """The ``longest`` tokens before each place, newest last, ``BEFORE_START`` where none was; shape (places, longest)."""
    table, r, t = (x.cpu().numpy() for x in (tokens, row, place))
    before = np.full((len(table), longest), BEFORE_START, dtype=np.int64)
    heard = np.concatenate([before, table], axis=1)
    found: NDArray[np.int64] = heard[r[:, None], t[:, None] + np.arange(longest)]
    return found
