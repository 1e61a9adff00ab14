"""Who answers when the agent asks for words: a function, recorded dialogues, another model, a person at the desk.

Each is a :class:`TextDemonstrator`. Without an answer there is no act: whoever has none refuses (a decision) or raises
:class:`~mightnt.errors.NoAnswer`, and never makes something up.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from mightnt.desk.rota import Rota
from mightnt.desk.store import Store, key_of
from mightnt.desk.tickets import Decision, Inquiry, Verdict
from mightnt.dialogues import Dialogue
from mightnt.errors import InputError, NoAnswer

LARGEST_REPLY_BYTES = 1 << 20
"""More is not read from an endpoint: an answer is a turn of a conversation."""


class TextDemonstrator(Protocol):
    """Somebody who can be asked for words."""

    def answer(self, inquiry: Inquiry) -> Decision:
        """What to say after ``inquiry.messages`` and ``inquiry.begun``; raises :class:`~mightnt.errors.NoAnswer`."""
        ...


@dataclass(frozen=True, slots=True)
class Function:
    """Answers with what ``function(inquiry)`` returns; no words are a refusal."""

    function: Callable[[Inquiry], str]
    name: str = "function"

    def answer(self, inquiry: Inquiry) -> Decision:
        """Its words, as an answer."""
        words = self.function(inquiry)
        if not words.strip():
            return Decision(Verdict.REFUSE, self.name, key_of(inquiry))
        return Decision(Verdict.ANSWER, self.name, key_of(inquiry), words)


@dataclass(frozen=True, slots=True, eq=False)
class Transcripts:
    """Answers that were there before the question: what was said in a data set after exactly these words.

    Where the same words were followed by different ones, one is drawn, as often as it stands there; the dice depend on
    ``seed`` and the question alone, so the same question gets the same answer.

    Errors: :class:`~mightnt.errors.NoAnswer` where the data set never was at this place.

    Kind: exact. Cost: one pass over the data set a question.
    """

    dialogues: Sequence[Dialogue]
    name: str = "transcripts"
    seed: int = 0

    def answer(self, inquiry: Inquiry) -> Decision:
        """What was said there, without the part that is said already."""
        here, n = inquiry.messages, len(inquiry.messages)
        said = [
            d[n].content.removeprefix(inquiry.begun)
            for d in self.dialogues
            if len(d) > n and d[:n] == here and d[n].role == "assistant" and d[n].content.startswith(inquiry.begun)
        ]
        words = [text for text in said if text.strip()]
        if not words:
            raise NoAnswer(f"{self.name}: none of {len(self.dialogues)} dialogues goes on from here")
        dice = np.random.default_rng([self.seed, *sha256(key_of(inquiry).encode()).digest()])
        return Decision(Verdict.ANSWER, self.name, key_of(inquiry), words[dice.integers(len(words))])


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Another model behind an OpenAI-compatible endpoint: ``POST url/chat/completions``.

    Args:
        url: up to and with ``/v1``.
        model: its name there, and the name of the demonstrator.
        token: sent as a bearer token, to this address alone (redirects are not followed); never shown.
        timeout_seconds: how long a silence is waited for.
        options: more fields of the request, such as ``temperature``.

    A turn that has begun is sent as a last message of the assistant to be continued (``continue_final_message``, as vLLM,
    SGLang and Transformers serve it).

    Errors: :class:`~mightnt.errors.NoAnswer` for everything but a reply that has words and ended by itself.
    """

    url: str
    model: str
    token: str = field(default="", repr=False)
    timeout_seconds: float = 60.0
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"an endpoint at {self.url!r}; an address with http:// or https:// is needed")

    def answer(self, inquiry: Inquiry) -> Decision:
        """What the model says there."""
        try:
            reply = self._post(self._request(inquiry))
            choice = reply["choices"][0]
            words, reason = choice["message"]["content"], choice["finish_reason"]
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.model} at {self.url} gave no answer ({_kind(error)})") from None
        except (LookupError, TypeError):
            raise NoAnswer(f"{self.model} at {self.url} gave no answer (not a chat completion)") from None
        if reason != "stop":
            raise NoAnswer(f"{self.model} at {self.url} did not finish its answer ({str(reason)[:40]!r})")
        text = words.removeprefix(inquiry.begun) if isinstance(words, str) else ""
        try:
            return Decision(Verdict.ANSWER, self.model, key_of(inquiry), text)
        except InputError as error:
            raise NoAnswer(f"{self.model} at {self.url} answered without words ({error})") from None

    def _request(self, inquiry: Inquiry) -> urllib.request.Request:
        messages = [{"role": message.role, "content": message.content} for message in inquiry.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, **dict(self.options)}
        if inquiry.begun:
            messages.append({"role": "assistant", "content": inquiry.begun})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")

    def _post(self, request: urllib.request.Request) -> Any:
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=self.timeout_seconds) as response:
            content = response.read(LARGEST_REPLY_BYTES + 1)
        if len(content) > LARGEST_REPLY_BYTES:
            raise ValueError(f"more than {LARGEST_REPLY_BYTES} bytes")
        return json.loads(content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry the token to another address."""

    def redirect_request(self, *_: Any) -> None:
        """Nowhere."""


def _kind(error: Exception) -> str:
    """What went wrong, in a word or two; nothing of what the other side sent."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return "it timed out" if isinstance(cause, TimeoutError) else type(cause).__name__


@dataclass(frozen=True, slots=True, eq=False)
class AtDesk:
    """A person: the question is put into a store, and whoever is at its desk decides.

    Waits until the decision is final, or the rota gives up. Nobody else needs to look after the store meanwhile.

    Errors: :class:`~mightnt.errors.NoAnswer` where nobody decided in time.
    """

    store: Store
    rota: Rota
    every_seconds: float = 0.2
    """How often the store is looked at."""
    sleep: Callable[[float], None] = time.sleep

    def answer(self, inquiry: Inquiry) -> Decision:
        """What was decided: an answer, an edit, a refusal or a stop."""
        ticket = self.store.ask(key_of(inquiry), inquiry, *self.rota.begin(self.store.now()))
        while not ticket.state.final:
            self.sleep(self.every_seconds)
            self.store.release()
            self.store.expire()
            ticket = self.store.ticket(ticket.number) or ticket
        if ticket.decision is None:
            raise NoAnswer(f"nobody decided within {self.rota.seconds:g} s")
        return ticket.decision
