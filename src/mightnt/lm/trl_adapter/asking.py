"""Asking as an action of the policy: a base with a token for it, and an environment of TRL's whose tool is to ask.

The policy asks by one token. What that costs is our account's business (``lm.account``, ``charged``): its mass is theta.
TRL then calls the tool of an environment, hears the demonstrator's words, and lets the agent speak again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from mightnt.desk.demonstrators import TextDemonstrator
from mightnt.desk.tickets import Inquiry
from mightnt.dialogues import Message
from mightnt.errors import InputError, NoAnswer
from mightnt.lm.account import Account, offer
from mightnt.lm.bases.contract import Base
from mightnt.lm.members import MemberStep
from mightnt.lm.reference import Reference
from mightnt.lm.sequences import vouch


@dataclass(frozen=True)
class AskToken:
    """A base nu and one token that asks, priced as the account ``charged`` does; KL to it is what that account charges.

    Where theta = 1 - sum_x nu(x | h) exceeds the threshold, asking is open:

        rho(ask | h) = theta / (1 + theta),    rho(x | h) = nu(x | h) / (1 + theta);

    elsewhere rho = nu, and asking is forbidden. So log pi - log rho is log pi - log nu, or log pi - log theta for an ask,
    plus the charge log(1 + theta) of every decision at which asking is open. If nu <= mu then
    KL(system, mu) <= KL(pi, rho), the system being the policy with mu's answers to its questions.

    Kind: exact. Paper: asking with the missing mass; the charge is ours. Cost: that of ``base``.
    """

    base: Base
    """nu; the token that asks must not be an action of its members."""
    token: int
    """The token that asks."""
    ask_threshold: float = 0.1
    """theta above which asking is an action."""
    name: str = "asking"

    def start(self, rows: int) -> Tensor:
        """That of ``base``."""
        return self.base.start(rows)

    def predict(self, state: Tensor, step: MemberStep) -> Tensor:
        """log rho, shape (rows, tokens); sums to 1 / (1 + theta) where asking is open."""
        log_nu = vouch(self.base, state, step)
        if not bool(log_nu[:, self.token].isneginf().all()):
            raise InputError(
                f"token {self.token} asks and is an action of the members too; set is_action to False there"
            )
        terms = offer(log_nu, Account(math.inf, "charged", self.ask_threshold))
        priced = terms.log_base - terms.toll_nats[:, None]
        found = priced[:, :-1].clone()
        found[:, self.token] = priced[:, -1]
        return found

    def advance(self, state: Tensor, step: MemberStep, tokens: Tensor, own: Tensor) -> Tensor:
        """That of ``base``; an ask is impossible under its members and leaves it as it is."""
        return self.base.advance(state, step, tokens, own)


class AskEnvironment:
    """For ``environment_factory`` of :class:`trl.GRPOTrainer`: its tool :meth:`ask` hands the turn to a demonstrator.

    Args:
        demonstrator: who answers: a function, transcripts, another model, a person at the desk (``desk.demonstrators``).
        reference: the trainer's, with an :class:`AskToken`; the question says which theta it found.

    TRL hands a tool its arguments and nothing else, so the question holds the prompt and earlier answers, not what the agent
    said in between: theta is exact for an ask that begins the first turn, and an estimate after that. What is charged is
    computed on the tokens themselves.

    Subclass it for tools of your own. Where there are no words for an answer, the run stops with
    :class:`~mightnt.errors.NoAnswer` before anything is learnt from the episode (TRL alone would pass the error on to the
    agent as if it were an answer).
    """

    def __init__(self, demonstrator: TextDemonstrator, reference: Reference) -> None:
        self._demonstrator, self._reference = demonstrator, reference
        self._messages: list[Message] = []
        self._conversation = ""
        self._failure: NoAnswer | None = None

    def reset(self, prompt: list[dict[str, str]], **row: Any) -> None:
        """A new episode behind this prompt."""
        self._messages = [Message(message["role"], message["content"]) for message in prompt]
        self._conversation, self._failure = uuid4().hex, None

    def ask(self) -> str:
        """Hand this turn to the demonstrator.

        Returns:
            The demonstrator's words.
        """
        try:
            decision = self._demonstrator.answer(self._inquiry())
            if not decision.text:
                raise NoAnswer(
                    f"{decision.person} decided {decision.verdict}; words are needed to go on with the episode"
                )
        except NoAnswer as error:
            self._failure = error
            raise
        self._messages.append(Message("assistant", decision.text))
        return decision.text

    def _inquiry(self) -> Inquiry:
        """What is asked, with the theta of this place."""
        turn = sum(message.role == "assistant" for message in self._messages)
        theta = asking_probability(self._reference, self._messages, tools_of(self))
        return Inquiry(self._conversation, turn, tuple(self._messages), "", theta, False, math.inf, math.inf)


def ask_template(word: str) -> dict[str, Any]:
    """How TRL finds asks in what the agent said: for ``tokenizer.response_template``.

    The word (of one token; generation has to end with it, so add it to ``model.generation_config.eos_token_id``) is a call of
    the tool ``ask``, everything before it is what the agent said of its turn.
    """
    call = {"type": "function", "function": {"name": "ask", "arguments": {}}}
    asks = {"open": word, "close_pattern": "$", "repeats": True, "content": "text", "transform": call}
    fields = {"tool_calls": asks, "content": {"content": "text"}}
    return {"defaults": {"role": "assistant"}, "start_anchor_pattern": ".+", "fields": fields}


def tools_of(environment: Any) -> list[Any]:
    """The methods that TRL makes tools of: public ones, but for ``reset`` and ``get_reward``."""
    names = [name for name, _ in inspect.getmembers(type(environment), predicate=inspect.isfunction)]
    return [getattr(environment, n) for n in names if not n.startswith("_") and n not in ("reset", "get_reward")]


def asking_probability(reference: Reference, messages: Iterable[Message], tools: list[Any] | None = None) -> float:
    """theta before the agent's next turn, as the tokenizer's own chat template renders what was said.

    Errors: :class:`~mightnt.errors.InputError` for a reference without a tokenizer or without an :class:`AskToken`.
    Kind: exact. Cost: one pass of the members.
    """
    base, tokenizer = reference.base, reference.tokenizer
    if not isinstance(base, AskToken) or tokenizer is None:
        raise InputError("the reference has no token that asks, or no tokenizer; make it with AskToken(base, token)")
    chat = [{"role": message.role, "content": message.content} for message in messages]
    said = tokenizer.apply_chat_template(
        chat, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    ids = torch.tensor([[*said, base.token]])
    own = torch.zeros_like(ids, dtype=torch.bool)
    own[:, -1] = True
    scored = reference.score(ids, own=own)
    if bool(scored.log_nu[0, -1].isneginf()):  # asking is closed, and what is kept is 1 - theta
        return float(-torch.expm1(scored.log_kept[0, -1]))
    odds = float(scored.log_nu[0, -1].exp())  # theta / (1 + theta)
    return min(1.0, odds / (1.0 - odds))


def answered_or_raise(trainer: Any) -> None:
    """Raise what an environment of ours met in this generation: TRL turns a tool's error into words for the agent."""
    for environment in getattr(trainer, "environments", None) or ():
        if isinstance(environment, AskEnvironment) and environment._failure is not None:
            raise environment._failure
