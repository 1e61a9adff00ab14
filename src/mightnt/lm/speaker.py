"""A finished run as something that can be served: it says the next turn of a conversation, token by token, and asks.

Every token goes through what episodes go through (``lm.episodes.choose``, the same base, the same charges), so what was
trained and measured is what is served. What the conversation was before the turn is known from its messages alone:

- **Whose words the earlier assistant turns were.** They count as the agent's own, which is what the running ratio of the
  pessimistic base watches, unless ``answered`` names them as the demonstrator's: that is for who keeps the record to say.
- **What was paid for them** is told (``spent_nats``), never recomputed.
- **Their tokens** are those of the text. Where the agent had spelled its words in another way than the tokenizer does,
  the ratio is that of the usual spelling.
- **A conversation longer than the context** of a network loses whole messages at its beginning until the rest and a turn
  of full length fit; the base begins there.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mightnt.desk.speaking import Asked, Ended, Event, Piece
from mightnt.desk.tickets import Inquiry
from mightnt.dialogues import Dialogue, Message
from mightnt.errors import BudgetError, InputError
from mightnt.files import read_json
from mightnt.lm.account import Account, must_ask, offer
from mightnt.lm.actor import Policy
from mightnt.lm.bases.contract import Base
from mightnt.lm.checkpoint import load_training
from mightnt.lm.episodes import choose
from mightnt.lm.finetune import CHECKPOINT, FinetuneConfig, config_of, fingerprint, run_config
from mightnt.lm.imitators import Imitators, load_imitators
from mightnt.lm.ledgers import Ledgers
from mightnt.lm.members import Members, MemberStep
from mightnt.lm.proposals import disagreement, propose
from mightnt.lm.protect import Training, round_seed
from mightnt.lm.run import new_actor, terms
from mightnt.lm.tokens import Marks, content_tokens, decode_reply
from mightnt.lm.update import answers_learned, learned

UNFINISHED = "\ufffd"
"""What decoding makes of half a character: more tokens are needed before it can be said."""
ONLY = np.zeros(1, dtype=np.int64)
"""The one row of a conversation, as members and ledgers know rows."""


Answer: TypeAlias = tuple[tuple[tuple[str, str], ...], Message]
"""What tells an answer: the words before it, and it."""


def told_by(dialogue: Dialogue) -> Answer:
    """What tells the last turn of a dialogue from any other answer."""
    return tuple((message.role, message.content) for message in dialogue[:-1]), dialogue[-1]


@dataclass(frozen=True)
class Heard:
    """A conversation as tokens, up to and with the mark that gives the agent the word."""

    tokens: list[int]
    chosen: list[int]
    """Places in ``tokens`` of what somebody chose in the agent's turns."""
    own: list[bool]
    """For each of them, whether that was the agent."""


@dataclass(frozen=True)
class PolicySpeaker:
    """A policy that can be served; see :class:`mightnt.desk.speaking.Speaker`. Many turns may be in progress at once.

    Deterministic given the arguments of ``begin``. Cost of a turn: one pass over the conversation, then one step of the
    networks and a projection for every token.
    """

    name: str
    imitators: Imitators
    members: Members
    """What the base looks at; turns share its networks and nothing else."""
    base: Base
    account: Account
    actor: Policy
    turn_tokens: int
    """Most tokens of a turn, its end included."""
    known: Counter[Answer] = field(default_factory=Counter)
    """Answers that the imitators were updated with: they are not learnt a second time."""
    marks: Marks = field(init=False)
    """Of the tokenizer, looked up once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", self.imitators.marks)

    @property
    def limit_nats(self) -> float:
        """What a conversation may spend."""
        return self.account.budget_nats

    @property
    def context(self) -> int:
        """Tokens that the network with the shortest memory can read."""
        return min(network.context for network in self.members.networks)

    def begin(
        self,
        messages: tuple[Message, ...],
        spent_nats: float,
        turn: int,
        seed: int,
        answered: Mapping[int, str] | None = None,
    ) -> PolicyTurn:
        """The agent's next turn, about to be said.

        Args:
            messages: the conversation so far; it ends with a user's message, or is empty where the agent opens it.
            answered: number of each assistant message that a demonstrator finished -> what the agent had begun of it.

        Errors: :class:`~mightnt.errors.InputError` for text that cannot be encoded, a last message that is too long, a
        conversation that does not end with the user; :class:`~mightnt.errors.BudgetError` for an amount that is none.
        """
        if isnan(spent_nats) or spent_nats < 0:
            raise BudgetError(f"a conversation that has spent {spent_nats} nats; 0 or more is needed")
        if messages and messages[-1].role != "user":
            raise InputError("the last message is the assistant's; the agent speaks after a message of the user")
        heard = self.hear(messages, answered or {})
        generator = torch.Generator().manual_seed(round_seed(seed, turn))
        return PolicyTurn(self, messages, turn, spent_nats, heard, generator)

    def taught(self, answers: Sequence[Dialogue]) -> PolicySpeaker:
        """The speaker after these answers: counts and weights have moved, networks and actor are the same.

        See :func:`mightnt.lm.update.learned`. Turns in progress go on as they began. An answer is told by its last turn and
        the words before it; one that the imitators were updated with teaches nothing.

        Cost: a pass of the networks over the answers, and a sort of the counts.
        """
        known, fresh = Counter(self.known), list[Dialogue]()
        for answer in answers:
            if known[told_by(answer)]:
                known[told_by(answer)] -= 1
            else:
                fresh.append(answer)
        imitators = learned(self.imitators, fresh)
        members = self.fresh_members()
        members.counts = members.counts and imitators.counts
        return replace(self, imitators=imitators, members=members, base=imitators.base(self.base.name), known=known)

    def hear(self, messages: Sequence[Message], answered: Mapping[int, str]) -> Heard:
        """The messages as tokens, from the first that fits the context on."""
        pieces = self.encoded(messages, answered)
        room = self.context - self.turn_tokens - 1
        sizes = [sum(map(len, parts)) + 1 + (not closed) for parts, closed in pieces]
        if sizes and sizes[-1] > room:
            raise InputError(f"the last message is {sizes[-1]} tokens long; {max(0, room)} fit, so shorten it")
        first = next(i for i in range(len(sizes) + 1) if sum(sizes[i:]) <= room)
        marks, heard = self.marks, Heard([], [], [])
        for message, (parts, closed) in zip(messages[first:], pieces[first:], strict=True):
            spoken = message.role == "assistant"
            heard.tokens.append(marks.assistant if spoken else marks.user)
            for part, own in zip(parts, (True, False), strict=True):
                if spoken:
                    heard.chosen.extend(range(len(heard.tokens), len(heard.tokens) + len(part)))
                    heard.own.extend([own] * len(part))
                heard.tokens.extend(part)
            if not closed:
                heard.tokens.append(marks.end)
        heard.tokens.append(marks.assistant)
        return heard

    def encoded(
        self, messages: Sequence[Message], answered: Mapping[int, str]
    ) -> list[tuple[tuple[list[int], list[int]], bool]]:
        """Of each message ``((own, the demonstrator's) tokens, are they closed by a chosen end)``.

        A turn of full length was cut off: its end was given, and nobody chose it.
        """
        texts = list[str]()
        for i, message in enumerate(messages):
            begun = answered.get(i, message.content)
            if not message.content.startswith(begun) or message.role not in ("user", "assistant"):
                raise InputError(f"message {i} has role {message.role!r} and does not go on from what was begun")
            texts += [begun, message.content[len(begun) :]]
        ids = content_tokens(self.imitators.tokenizer, texts) if texts else []
        pieces = []
        for i in range(len(messages)):
            own, theirs = ids[2 * i], ids[2 * i + 1]
            closed = messages[i].role == "assistant" and len(own) + len(theirs) < self.turn_tokens
            if closed:
                (theirs if i in answered else own).append(self.marks.end)
            pieces.append(((own, theirs), closed))
        return pieces

    def fresh_members(self) -> Members:
        """Members of a new conversation: the same networks with a memory of its own."""
        return copy.copy(self.members)

    @torch.no_grad()
    def state_after(self, heard: Heard) -> Tensor:
        """The base's state after the agent's earlier turns, as reading them token by token would have left it."""
        state = self.base.start(1)
        if not state.shape[1]:
            return state
        tokens = torch.tensor(heard.tokens)
        for place, own, step in zip(heard.chosen, heard.own, self.members.recall(tokens, heard.chosen), strict=True):
            state = self.base.advance(state, step, tokens[place : place + 1], torch.tensor([own]))
        return state


class PolicyTurn:
    """A turn in progress; see :class:`mightnt.desk.speaking.Turn`. Once it has asked or ended it holds words only: the
    counts of its speaker are as large as ever and, where answers teach, those of no other."""

    def __init__(
        self,
        speaker: PolicySpeaker,
        messages: tuple[Message, ...],
        number: int,
        spent_nats: float,
        heard: Heard,
        generator: torch.Generator,
    ) -> None:
        self.messages, self.number = messages, number
        self.speaker: PolicySpeaker | None = speaker
        self.tokenizer, self.marks = speaker.imitators.tokenizer, speaker.marks
        self.generator = generator
        self.spent_before_nats = spent_nats
        self.ledgers = Ledgers(1, speaker.limit_nats)
        self.ledgers.spent[0] = spent_nats
        self.answered = np.zeros(1, dtype=bool)
        self.tokens: list[int] = []
        """What the agent has chosen in this turn."""
        self.text = ""
        """Of it, what has been handed out."""
        self.last: Asked | Ended | None = None
        self.told_nats = 0.0
        """Of what was charged, the part that pieces have told."""
        self.members: Members | None = speaker.fresh_members()
        self.state = speaker.state_after(heard)
        with torch.no_grad():
            self.members.start(1)
            self.members.advance(torch.tensor([heard.tokens]))

    @property
    def spent_nats(self) -> float:
        """What this turn has been charged so far."""
        return float(self.ledgers.spent[0]) - self.spent_before_nats

    @torch.no_grad()
    def next_piece(self) -> Event:
        """The next words that are whole characters, a question, or the end."""
        n_before = len(self.tokens)
        while self.last is None:
            self.decide()
            piece = self.piece(len(self.tokens) - n_before)
            if piece is not None:
                return piece
        return self.last

    def continue_with(self, text: str) -> None:
        """The demonstrator's words: they end the turn. Errors: :class:`~mightnt.errors.InputError` without a question
        before, or for words that the imitators cannot read."""
        if not isinstance(self.last, Asked):
            raise InputError("nothing was asked in this turn, so no words of a demonstrator can go on from it")
        content_tokens(self.tokenizer, [text])
        self.last = Ended("stop")

    def decide(self) -> None:
        """One decision of the agent: a token, its end, or a question."""
        speaker, members = self.speaker, self.members
        assert members is not None, "a turn that has ended decides nothing"
        assert speaker is not None, "a turn that has ended decides nothing"
        step = members.predict(torch.from_numpy(ONLY))
        log_nu = speaker.base.predict(self.state, step)
        left = self.ledgers.left(ONLY)
        out = choose(
            speaker.actor,
            speaker.account,
            self.answered,
            self.ledgers,
            ONLY,
            log_nu,
            step,
            self.generator,
        )
        if not bool(out.own[0]):
            self.finish(Asked(self.inquiry(speaker, members, step, log_nu, left)))
            return
        token = int(out.tokens[0])
        self.tokens.append(token)
        if token == speaker.marks.end:
            self.finish(Ended("stop"))
        elif len(self.tokens) >= speaker.turn_tokens:
            self.finish(Ended("length"))
        else:
            self.state = speaker.base.advance(self.state, step, out.tokens, out.own)
            members.advance(out.tokens)

    def finish(self, last: Asked | Ended) -> None:
        """Nothing more is decided: let the networks' memory and the counts go."""
        self.last, self.members, self.speaker = last, None, None
        self.ledgers.columns.clear()

    def piece(self, n_tokens: int) -> Piece | None:
        """What can be said by now and was not; ``None`` while a character is half told. At a stop all is said."""
        text = self.whole_text()
        if text == self.text:
            return None
        said, self.text = text[len(self.text) :], text
        nats = self.spent_nats - self.told_nats
        self.told_nats += nats
        return Piece(said, max(0.0, nats), n_tokens)

    def whole_text(self) -> str:
        """The turn's words so far; an unfinished character at their end is left out until the turn is over."""
        text = decode_reply(self.tokenizer, self.tokens, self.marks)
        over = isinstance(self.last, Ended)
        return text if over else text.rstrip(UNFINISHED) if text.endswith(UNFINISHED) else text

    def inquiry(
        self, speaker: PolicySpeaker, members: Members, step: MemberStep, log_nu: Tensor, left_nats: Tensor
    ) -> Inquiry:
        """Why it asks, and what each member would say."""
        offered = offer(log_nu, speaker.account)
        forced = bool(must_ask(offered.toll_nats, left_nats)[0])
        begun = self.whole_text()
        longest = speaker.turn_tokens - len(self.tokens)
        return Inquiry(
            conversation="",
            turn=self.number,
            messages=self.messages,
            begun=begun,
            asking_probability=min(1.0, max(0.0, float(offered.asking_probability[0]))),
            forced=forced,
            limit_nats=speaker.limit_nats,
            left_nats=max(0.0, float(self.ledgers.left(ONLY)[0])),
            proposals=propose(speaker.imitators.tokenizer, members, speaker.marks, self.tokens, longest),
            disagreement=disagreement(speaker.imitators.tokenizer, step, log_nu),
        )


def load_speaker(run_folder: Path, imitators: Path | None = None) -> PolicySpeaker:
    """The policy of a finished ``mightnt finetune`` run, ready to be served.

    Args:
        imitators: their folder, where it is neither where it was nor beside the run as it was.

    Errors: :class:`~mightnt.errors.InputError` for a run that is not finished, imitators that cannot be found or are
    others than those it was trained with (or an update of them).
    """
    record = run_record(run_folder)
    everything = record.get("provenance", {}).get("config", {}) if isinstance(record, dict) else {}
    config, seed = config_of(everything, run_folder)
    place = imitators_of(run_folder, imitators)
    speaker = speaker_of(load_imitators(place), config, seed, run_folder, everything)
    answers = [d[: i + 1] for d in answers_learned(place) for i in range(len(d)) if d[i].demonstrates]
    return replace(speaker, known=Counter(map(told_by, answers)))


def run_record(run_folder: Path) -> Any:
    """What a finished run says of itself. Errors: :class:`~mightnt.errors.InputError` where there is none."""
    if not (run_folder / "run.json").is_file() or not (run_folder / CHECKPOINT).is_file():
        raise InputError(f"{run_folder}: holds no finished run of `mightnt finetune`; finish it with --resume")
    return read_json(run_folder / "run.json")


def speaker_of(
    imitators: Imitators, config: FinetuneConfig, seed: int, run_folder: Path, everything: Mapping[str, Any]
) -> PolicySpeaker:
    """The speaker that this checkpoint makes of these imitators."""
    settings = run_config(config)
    training = Training.fresh(new_actor(imitators, settings, seed), settings.training)
    load_training(training, run_folder / CHECKPOINT, dict(everything))
    return PolicySpeaker(
        name=run_folder.resolve().name,
        imitators=imitators,
        members=imitators.members(config.base),
        base=imitators.base(config.base),
        account=terms(settings),
        actor=training.actor.eval(),
        turn_tokens=config.turn_tokens,
    )


def imitators_of(run_folder: Path, given: Path | None = None) -> Path:
    """The folder of the imitators that the run was trained with: the given one, beside the run as it was, where it was.

    Errors: as :func:`load_speaker`.
    """
    record = run_record(run_folder)
    noted = record["provenance"]["config"].get("imitators", "")
    places = (
        [given] if given else [Path(os.path.normpath(run_folder / record.get("imitators_from_here", "."))), Path(noted)]
    )
    there = [place for place in places if (place / "imitators.json").is_file()]
    if not there:
        raise InputError(
            f"{run_folder}: its imitators are not at {' or '.join(map(str, places))} any more; say where they are"
        )
    for place in there:
        known = [fingerprint(place), *read_json(place / "imitators.json").get("updated_from", [])]
        if record.get("imitators") in known:
            return place
    raise InputError(
        f"{there[0]}: these are not the imitators that {run_folder} was trained with, nor an update of them"
    )
