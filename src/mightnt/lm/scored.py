"""What a base says where nobody optimizes: along the demonstrator's own histories, known or recorded, and at what price."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mightnt.lm.account import Account
from mightnt.lm.actor import Stay
from mightnt.lm.bases.contract import Base, log_kept, pick
from mightnt.lm.episodes import Cast, play_episodes
from mightnt.lm.members import Members, MemberStep
from mightnt.lm.scenes import Scene
from mightnt.lm.tokens import EncodedDialogues, Marks
from mightnt.prediction import FloatArray

NEVER_ASKS = Account(float("inf"), "charged", 1.0)
"""Nothing to keep, nothing to ask."""


@dataclass
class Scored:
    """A base that lets the known demonstrator act and only notes what ``inner`` would have said.

    Every token counts as the agent's own. Single use, as :class:`~mightnt.lm.members.Members` are.
    """

    inner: Base
    name: str = "scored"
    gap_demonstrator: Tensor = field(init=False)
    """sum_t sum_x mu(x) log(nu(x) / mu(x)) of each episode, shape (rows,): 0 or less, ``-inf`` where a word is vetoed."""
    gap_base: Tensor = field(init=False)
    """sum_t sum_x nu(x) log(nu(x) / mu(x)), shape (rows,): the same for a policy that stays at the base and asks with theta."""
    floor: Tensor = field(init=False)
    """-sum_t log(1 - theta), shape (rows,)."""

    def start(self, rows: int) -> Tensor:
        """The number of each episode, so that its sums are found again; shape (rows, 1)."""
        self.inner_state = self.inner.start(rows)
        self.gap_demonstrator, self.gap_base, self.floor = torch.zeros(3, rows, dtype=torch.float64)
        return torch.arange(rows, dtype=torch.float64)[:, None]

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """mu's log-probabilities; notes the inner base's."""
        assert step.demonstrator is not None, "this scene's demonstrator is not known"
        rows, log_mu = state[:, 0].long(), step.demonstrator
        log_nu = self.inner.predict(self.inner_state[rows], step)
        self.gap_demonstrator[rows] += expected_ratio(log_mu, log_nu, log_mu)
        self.gap_base[rows] += expected_ratio(log_nu, log_nu, log_mu)
        self.floor[rows] -= log_kept(log_nu)
        return log_mu

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """The inner base moves on; a word it gives nothing to is one that only the demonstrator can have said."""
        rows = state[:, 0].long()
        said = pick(self.inner.predict(self.inner_state[rows], step), tokens)
        self.inner_state[rows] = self.inner.advance(self.inner_state[rows], step, tokens, own & ~said.isneginf())
        return state


def expected_ratio(log_weights: Tensor, log_above: Tensor, log_below: Tensor) -> Tensor:
    """sum_x w(x) log(a(x) / b(x)), shape (rows,); where w is 0 nothing counts."""
    weights = log_weights.exp()
    return torch.where(weights > 0, weights * (log_above - log_below), torch.zeros_like(weights)).sum(dim=1)


def on_demonstrator_histories(
    members: Members, base: Base, scene: Scene, marks: Marks, n: int, seed: int
) -> dict[str, FloatArray]:
    """``gap_demonstrator``, ``gap_base`` and ``floor`` of ``n`` episodes that the known demonstrator plays, in nats.

    Kind: exact at each decision, on sampled histories. Cost: as many episodes.
    """
    scored = Scored(base)
    play_episodes(Cast(members, scored, NEVER_ASKS, Stay(), scene, marks), n, seed)
    return {name: getattr(scored, name).numpy() for name in ("gap_demonstrator", "gap_base", "floor")}


@dataclass(frozen=True)
class Replay:
    """What a base said of recorded actions; one row an action."""

    log_probability: FloatArray
    """log nu(action), ``-inf`` where it was vetoed."""
    asking: FloatArray
    """theta."""
    dialogue: NDArray[np.int64]
    turn: NDArray[np.int64]

    def share_of_turns(self, marked: NDArray[np.bool_]) -> float:
        """Share of turns with at least one marked action; 0 for no turns."""
        turns = np.stack([self.dialogue, self.turn], axis=1)
        return len(np.unique(turns[marked], axis=0)) / max(1, len(np.unique(turns, axis=0)))


@torch.no_grad()
def replay(members: Members, base: Base, corpus: EncodedDialogues, pad: int) -> Replay:
    """Read recorded dialogues side by side, as in episodes, each action of the demonstrator taken for the agent's own.

    A word the base gives nothing to is the demonstrator's. Nobody knows mu here, so the base must not ask for it.
    Kind: exact. Cost: one forward pass of the networks a token; all dialogues are held at once.
    """
    starts, lengths = corpus.starts[:-1], np.diff(corpus.starts)
    members.start(len(starts))
    state = base.start(len(starts))
    said, asking, places = [], [], []
    for place in range(int(lengths.max(initial=0))):
        here = np.flatnonzero(place < lengths)
        tokens = np.full(len(starts), pad)
        tokens[here] = corpus.tokens[starts[here] + place]
        acting = here[corpus.is_action[starts[here] + place]]
        if len(acting):
            step = members.predict(torch.from_numpy(acting))
            log_nu = base.predict(state[acting], step)
            chosen = torch.from_numpy(tokens[acting])
            said.append(pick(log_nu, chosen))
            asking.append(-torch.expm1(log_kept(log_nu)))
            places.append(starts[acting] + place)
            state[acting] = base.advance(state[acting], step, chosen, ~said[-1].isneginf())
        members.advance(torch.from_numpy(tokens))
    if not places:
        return Replay(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    where = np.concatenate(places)
    dialogue = np.searchsorted(corpus.starts, where, side="right") - 1
    return Replay(torch.cat(said).numpy(), torch.cat(asking).numpy(), dialogue, corpus.turn[where].astype(np.int64))


def processor_seconds(
    contestants: list[tuple[Members, Base]], corpus: EncodedDialogues, pad: int, repeats: int = 3
) -> list[float]:
    """Processor seconds that each takes for a decision, everything included; taken in turns, the least of ``repeats``.

    Kind: estimate (processor time of this process). Cost: ``repeats`` replays each.
    """
    least = [float("inf")] * len(contestants)
    n_decisions = int(corpus.is_action.sum())
    for _ in range(repeats):
        for i, (members, base) in enumerate(contestants):
            before = time.process_time()
            replay(members, base, corpus, pad)
            least[i] = min(least[i], (time.process_time() - before) / max(1, n_decisions))
    return least
