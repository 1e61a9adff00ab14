"""Members and a scene with nothing behind them but tables of random numbers: quick, strange, and known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from mightnt.lm.episodes import Cast
from mightnt.lm.members import MemberStep
from mightnt.lm.tokens import Marks

MARKS = Marks(pad=0, user=1, assistant=2, end=3)
N_TOKENS = 7
N_STATES = 97
WIDTH = 4


def moved(states, tokens):
    """A history as one of a few states: what tables are indexed by."""
    return (states * 31 + tokens + 1) % N_STATES


def random_rows(rng, n, sharpness=1.0, zeros=0.0):
    """Log-probabilities over actions (marks but the end excluded), shape (n, N_TOKENS)."""
    rows = np.zeros((n, N_TOKENS))
    rows[:, MARKS.end :] = rng.dirichlet(np.full(N_TOKENS - MARKS.end, sharpness), size=n)
    rows[:, MARKS.end :][rng.random((n, N_TOKENS - MARKS.end)) < zeros] = 0.0
    rows[:, MARKS.end] += 1e-3
    rows /= rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(rows)


class ToyMembers:
    """Two networks, counts and support as tables over hashed histories; every token it was given is kept in ``heard``."""

    def __init__(self, seed=0, vetoed=0.3):
        rng = np.random.default_rng(seed)
        self.tables = torch.from_numpy(np.stack([random_rows(rng, N_STATES) for _ in range(3)]))
        self.tables[2] = torch.logaddexp(self.tables[2], self.tables[0]) - np.log(2)
        self.support = torch.from_numpy(rng.random((N_STATES, N_TOKENS)) >= vetoed)
        self.support[::11] = False
        self.hidden = torch.from_numpy(rng.normal(size=(N_STATES, WIDTH))).float()

    def start(self, rows):
        self.states = np.zeros(rows, dtype=np.int64)
        self.heard = []

    def advance(self, tokens):
        self.heard.append(tokens.clone())
        self.states = moved(self.states, tokens.numpy())

    def predict(self, rows, demonstrator=None):
        here = torch.from_numpy(self.states)[rows]
        counts, supported = self.tables[2, here], self.support[here]
        return MemberStep(self.tables[:2, here], counts, supported, demonstrator, self.hidden[here])


@dataclass
class ToyScene:
    """The other speaker says one of a few replies, or leaves speaking to the first network; reward: a table of tokens."""

    n_turns: int = 3
    max_turn_tokens: int = 4
    max_reply_tokens: int = 3
    demonstrator_known: bool = True
    speaks: bool = True
    sure: bool = False
    """The demonstrator always says the one token that ``sure_token`` tells."""
    log: list = field(default_factory=list)
    """Every call as (name, arguments)."""

    def start(self, rows, rng):
        self.rng, self.states = rng, np.zeros(rows, dtype=np.int64)
        self.table = random_rows(np.random.default_rng(1), N_STATES, sharpness=2.0)
        if self.sure:
            self.table = np.full((N_STATES, N_TOKENS), -np.inf)
            self.table[np.arange(N_STATES), sure_token(np.arange(N_STATES))] = 0.0
        self.skill = np.zeros(rows)
        return [
            [MARKS.user, *rng.integers(4, N_TOKENS, size=row % 3), MARKS.end, MARKS.assistant] for row in range(rows)
        ]

    def begin_turn(self, rows):
        self.log.append(("begin_turn", rows.tolist()))
        self.states[rows] = 0

    def demonstrator(self, rows):
        return self.table[self.states[rows]] if self.demonstrator_known else None

    def hear(self, rows, tokens):
        self.log.append(("hear", rows.tolist(), tokens.tolist()))
        self.states[rows] = moved(self.states[rows], tokens)

    def replies(self, rows, turns):
        self.log.append(("replies", rows.tolist(), [list(turn) for turn in turns]))
        self.skill[rows] += [len(turn) for turn in turns]
        if not self.speaks:
            return None
        return [[*self.rng.integers(4, N_TOKENS, size=self.rng.integers(3)), MARKS.end] for _ in turns]

    def listen(self, tokens):
        return None

    def user(self, rows):
        return None

    def score(self, rows, replies):
        self.log.append(("score", rows.tolist(), [list(reply) for reply in replies]))
        return np.array([worth(reply) for reply in replies])

    def utility(self):
        return self.skill if self.demonstrator_known else None


def sure_token(states):
    """What a sure demonstrator says here."""
    return MARKS.end + states % 4


def worth(reply):
    """The reward of a reply: 1/10 for each token 5 in it, plus 1/100."""
    return 0.1 * sum(token == 5 for token in reply) + 0.01


def toy_cast(base, account, actor, members=None, **scene):
    """A cast of toys."""
    return Cast(members or ToyMembers(), base, account, actor, ToyScene(**scene), MARKS)


def said(networks, counts=None, supported=None, demonstrator=None):
    """What members say, from arrays of probabilities: networks (members, rows, tokens), the others (rows, tokens)."""

    def logs(probabilities):
        return None if probabilities is None else torch.from_numpy(np.array(probabilities, dtype=np.float64)).log()

    first = logs(networks)[0]
    supported = None if supported is None else torch.from_numpy(np.array(supported))
    return MemberStep(logs(networks), logs(counts), supported, logs(demonstrator), first[:, :0])
