"""The member that the agent's own tokens surprise most, among all that explain the demonstrations nearly as well as the best.

Members differ in their output layer alone, over the hidden states of the first network. There the log-likelihood is concave,
so that the search for its optimum has no traps, and stepping back towards it always ends inside. Left out: refreshing the
member as the policy moves (what the agent does is guessed once, when the base is built), and the layers below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.bases.contract import Base, pick
from mightnt.lm.bases.single import Single
from mightnt.lm.bases.slack import every_member
from mightnt.lm.episodes import Cast, play_episodes
from mightnt.lm.fitting import fingerprint
from mightnt.lm.imitators import Imitators
from mightnt.lm.last_layer import OutputLayer, Shown, curvature, output_layer, shown_actions
from mightnt.lm.members import Members, MemberStep
from mightnt.lm.networks import NetworkMember
from mightnt.lm.scenes import LanguageScene
from mightnt.lm.scoring import context_tokens
from mightnt.lm.tokens import EncodedDialogues, encode

LEAST = math.exp(-30)
"""Where pushing a token further down is worth nothing any more."""
HALVINGS = 8
"""Of the way back into the set of near-optimal members."""


@dataclass(frozen=True)
class WorstCaseConfig:
    """How the member is looked for."""

    level: float = 0.05
    """alpha: the log posterior given the demonstrations is kept within log(1 / alpha) of the best."""
    prior: float = 1.0
    """Precision of the Gaussian prior around the network's own layer, in units of 1 / (mean square of its weights)."""
    temperature: float = 2.0
    """Of the network's own chats that stand for behavior nobody demonstrated."""
    episodes: int = 48
    """Chats of each kind."""
    turns: int = 4
    """Own turns in each, fewer where the context is short."""
    refreshes: int = 1
    """How often the base so far chats again, and the member is looked for again."""
    rounds: int = 5
    """Weights tried for the demonstrations against the agent's tokens."""
    evaluations: int = 150
    """Likelihoods of all demonstrations computed while climbing to the optimum; a tenth of that a round of going down."""
    work: float = 5e10
    """Multiplications they may take altogether; 20 evaluations are always made."""

    def __post_init__(self) -> None:
        if not 0 < self.level <= 1 or not self.temperature > 0 or min(self.episodes, self.turns, self.rounds) < 1:
            raise InputError(f"{self}: level is above 0 and at most 1, temperature above 0, the others at least 1")


@dataclass(frozen=True)
class WorstCase:
    """nu(x | h) = min over the first network, the counts where there are any, and the worst member found.

    Behavior demonstrated c times is pushed down by about log(1 / alpha) / c nats, behavior never demonstrated as far as the
    prior lets it, and as hidden states tell the two apart.

    Kind: exact minimum over the members it has; the member itself is a local search, so an upper bound on the minimum over
    all near-optimal output layers. Cost: one forward pass and one more output layer.
    """

    layer: OutputLayer = field(repr=False)
    """The worst member's."""
    given_up_nats: float = 0.0
    """How far its log posterior (demonstrations and prior) lies below the best seen."""
    name: str = "worst-case"

    def start(self, rows: int) -> Tensor:
        """No state."""
        return torch.empty(rows, 0, dtype=torch.float64)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log nu, shape (rows, tokens)."""
        others = every_member(step).amin(dim=0)
        worst = torch.full_like(others, -torch.inf)
        worst[:, self.layer.tokens] = self.layer.log_probs(step.hidden)
        return torch.minimum(others, worst)

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """No state."""
        return state


FOUND: dict[str, WorstCase] = {}
"""Bases made in this process, by what they were made from and how."""


def worst_case(imitators: Imitators, config: WorstCaseConfig | None = None, seed: int = 0) -> WorstCase:
    """The base of these imitators; sought once in a process, then found again. Deterministic given ``seed``.

    Cost: up to a minute for 1000 dialogues of 50 own tokens and 90 words, on one core.
    """
    config = config or WorstCaseConfig()
    corpus = encode(imitators.tokenizer, imitators.fitted)
    key = fingerprint(imitators.networks[0], corpus, config, seed)
    if key not in FOUND:
        FOUND[key] = sought(imitators, corpus, config, seed)
    return FOUND[key]


def sought(imitators: Imitators, corpus: EncodedDialogues, config: WorstCaseConfig, seed: int) -> WorstCase:
    """The base: climb to the optimum, see what the agent may do, look for who is surprised, repeat."""
    start = output_layer(imitators)
    demonstrated = Demonstrations(start, shown_actions(imitators.networks[0], corpus, start), config)
    best = demonstrated.climb()
    single: Base = Single()
    chats = [
        chat(imitators, corpus, single, config, temperature, seed + i)
        for i, temperature in enumerate((1.0, config.temperature))
    ]
    worst = demonstrated.descend(best, own_tokens(chats, start))
    for i in range(config.refreshes):
        chats.append(chat(imitators, corpus, worst, config, 1.0, seed + 2 + i))
        worst = demonstrated.descend(best, own_tokens(chats, start))
    return worst


class Demonstrations:
    """The log loss of all demonstrated actions as a function of the output layer, in coordinates in which it is round.

    The layer is W0 + R V S' with R R' and S S' the factors of its posterior's covariance, and V what is moved.
    """

    def __init__(self, layer: OutputLayer, shown: Shown, config: WorstCaseConfig) -> None:
        self.config, self.layer = config, layer
        covariance = curvature(layer, shown)
        self.left = torch.linalg.cholesky(covariance.over_actions)
        self.right = torch.linalg.cholesky(covariance.over_hidden)
        self.blocks = Shown(shown.hidden.float(), shown.actions).blocks(len(layer.tokens))
        self.precision = config.prior / float(layer.weight.square().mean())
        cost = len(shown.actions) * layer.weight.numel()
        self.evaluations = int(max(20, min(config.evaluations, config.work / cost)))

    def at(self, v: Tensor) -> OutputLayer:
        """The layer at these coordinates."""
        return replace(self.layer, weight=self.layer.weight + self.left @ v @ self.right.T)

    def add_loss(self, v: Tensor, weight: float) -> float:
        """Log loss of all demonstrations minus log prior, in nats; its gradient times ``weight`` is added to that of ``v``.

        Kind: exact (float32 for each token, float64 in the sum). No gradient where ``weight`` is 0.
        """
        moved = self.left @ v.detach() @ self.right.T
        matrix = (self.layer.weight + moved).float().requires_grad_(weight != 0)
        total = 0.5 * self.precision * float(moved.square().sum())
        for block in self.blocks:
            logits = block.hidden @ matrix.T + self.layer.bias.float()
            losses = torch.nn.functional.cross_entropy(logits, block.actions, reduction="none")
            total += float(losses.detach().double().sum())
            if weight:
                torch.autograd.backward(weight * losses.sum())
        if weight:
            assert matrix.grad is not None
            gradient = matrix.grad.double() + weight * self.precision * moved
            gradient = self.left.T @ gradient @ self.right
            v.grad = gradient if v.grad is None else v.grad + gradient
        return total

    def climb(self) -> Tensor:
        """Coordinates of the highest posterior."""
        v = torch.zeros_like(self.layer.weight, requires_grad=True)
        minimize(v, lambda: self.add_loss(v, 1.0), self.evaluations)
        return v.detach()

    def descend(self, best: Tensor, own: Shown) -> WorstCase:
        """The member inside the set that finds these tokens least likely, of those the search came to.

        Each round minimizes mean log(p(own token) + tiny) + weight x loss, steps back towards the optimum until the loss
        is within log(1 / alpha) of the lowest ever seen, and adapts the weight, as if the loss grew like its square.
        """
        least_loss = self.add_loss(best, 0.0)
        allowed = -math.log(self.config.level)
        found, weight, v = best, 0.1, best.clone().requires_grad_()
        for _ in range(self.config.rounds):

            def objective(weight: float = weight) -> float:
                value = self.likelihood(v, own)
                torch.autograd.backward(value)
                return value.item() + weight * self.add_loss(v, weight)

            minimize(v, objective, max(5, self.evaluations // 10))
            over = self.add_loss(v, 0.0) - least_loss
            if over < 0:
                best, least_loss = v.detach().clone(), least_loss + over
            inside = self.step_back(best, v.detach(), least_loss + allowed) if over > allowed else v.detach().clone()
            if self.likelihood(inside, own) < self.likelihood(found, own):
                found = inside
            weight *= min(10.0, max(0.1, (max(over, 0.0) / max(allowed, 1e-9)) ** 0.5))
        given_up = self.add_loss(found, 0.0) - least_loss
        if given_up > allowed:
            found = self.step_back(best, found, least_loss + allowed)
        return WorstCase(self.at(found), self.add_loss(found, 0.0) - least_loss)

    def likelihood(self, v: Tensor, own: Shown) -> Tensor:
        """Mean of log(p(own token) + tiny)."""
        return (pick(self.at(v).log_probs(own.hidden), own.actions).exp() + LEAST).log().mean()

    def step_back(self, best: Tensor, v: Tensor, most_loss: float) -> Tensor:
        """The farthest point from ``best`` towards ``v``, up to halvings, whose loss is ``most_loss`` at most."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            inside = self.add_loss(best + middle * (v - best), 0.0) <= most_loss
            low, high = (middle, high) if inside else (low, middle)
        return best + low * (v - best)


def minimize(v: Tensor, objective: Callable[[], float], evaluations: int) -> None:
    """Move ``v`` to a lower value by L-BFGS; ``objective`` computes it and adds its gradient. Ends at a number, never NaN."""
    optimizer = torch.optim.LBFGS(
        [v], max_iter=evaluations, max_eval=evaluations, history_size=20, line_search_fn="strong_wolfe"
    )
    before = v.detach().clone()

    def closure() -> float:
        optimizer.zero_grad()
        return objective()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    if not v.isfinite().all():
        with torch.no_grad():
            v.copy_(before)


@dataclass(frozen=True)
class Warm:
    """A policy for seeing what may be done: the base at a temperature, never asking where there is anything to say."""

    temperature: float

    def features(self, hidden: Tensor, left_nats: Tensor, toll_nats: Tensor) -> Tensor:
        """The hidden state: it is kept with each decision."""
        return hidden

    def policy(self, features: Tensor, log_base: Tensor, spendable_nats: Tensor) -> tuple[Tensor, Tensor]:
        """The base to the power 1 / temperature, normalized; nothing spent."""
        tokens = log_base[:, :-1] / self.temperature
        nothing = tokens.isneginf().all(dim=1, keepdim=True)
        warm = torch.log_softmax(tokens.masked_fill(nothing, 0.0), dim=1)
        said = torch.cat([warm, torch.full_like(spendable_nats, -torch.inf)[:, None]], dim=1)
        return torch.where(nothing, log_base, said), torch.zeros_like(spendable_nats)


def chat(
    imitators: Imitators, corpus: EncodedDialogues, base: Base, config: WorstCaseConfig, temperature: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Own tokens of chats in which the network plays both sides: ``(hidden states (n, width), tokens (n,))``."""
    network = imitators.networks[0]
    context = context_tokens(network)
    opening = min(80, context // 2)
    longest = min(int(turn_lengths(corpus).max()), 40, (context - opening) // 2 - 2)
    turns = max(1, min(config.turns, (context - opening) // (2 * longest + 4)))
    scene = LanguageScene(
        imitators.tokenizer, imitators.fitted, lambda replies: [0.0] * len(replies), turns, longest, longest, opening
    )
    members = Members([NetworkMember(network)], imitators.counts.is_action)
    cast = Cast(members, base, Account(math.inf, "charged", 0.0), Warm(temperature), scene, imitators.marks)
    decisions = play_episodes(cast, config.episodes, seed).decisions
    said = decisions.choice < len(imitators.counts.is_action)
    return decisions.features[said].double(), decisions.choice[said]


def turn_lengths(corpus: EncodedDialogues) -> np.typing.NDArray[np.int64]:
    """Tokens of each turn, marks included."""
    opens = np.flatnonzero(np.diff(corpus.turn, prepend=-1))
    return np.diff(np.append(opens, corpus.tokens.size))


def own_tokens(chats: Sequence[tuple[Tensor, Tensor]], layer: OutputLayer) -> Shown:
    """The tokens of all chats, as indices among the actions."""
    hidden, tokens = (torch.cat(parts) for parts in zip(*chats, strict=True))
    return Shown(hidden, torch.searchsorted(layer.tokens, tokens))
