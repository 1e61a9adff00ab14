"""What clients call: /v1/chat/completions and /v1/models as OpenAI's clients know them, and /v1/tickets.

Every answer says in its field ``mightnt`` which conversation it belongs to and how its account stands. A turn for which a
person was needed and did not answer in time has ``finish_reason`` ``ask``, no words, and a ticket to be fetched later;
``refused``, ``stopped`` and ``expired`` are the other ways in which a turn has no words.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from mightnt.desk.database import StoreError
from mightnt.desk.server.conversations import Conversations, Event, Outcome, Talk, Waiting
from mightnt.desk.server.reading import MOST_BYTES, NAME, ChatRequest, chat_request, checked_name, read_json, seconds
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.tickets import Ticket
from mightnt.errors import InputError, MightntError
from mightnt.files import plain

HEARTBEAT_SECONDS = 10.0
"""How often a stream with nothing to say shows that it lives."""
T = TypeVar("T")
LOG = logging.getLogger("mightnt.desk.server")


class Api:
    """The routes of clients."""

    def __init__(self, conversations: Conversations, started: int) -> None:
        self.conversations, self.started = conversations, started

    async def models(self, request: Request) -> Response:
        """GET /v1/models: the one policy that is served."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model())

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        header, key = _name(request, "x-conversation"), _name(request, "idempotency-key")
        asked = chat_request(await read_json(request, MOST_BYTES), header)
        self._check_model(asked.model)
        wait_seconds = self._wait(asked.wait_seconds)
        talk = await self.conversations.call(asked.conversation, key, asked.messages, asked.most_tokens)
        events = self.conversations.events(talk, wait_seconds)
        if asked.stream:
            return await self._stream(talk, asked, events)
        outcome = [event async for event in _clearly(events)][-1]
        assert isinstance(outcome, Outcome)
        return JSONResponse(self._completion(outcome), headers=_headers(talk))

    async def ticket(self, request: Request) -> Response:
        """GET /v1/tickets/NUMBER?wait_seconds=S: how a question stands, and the completion once it is settled."""
        number = request.path_params["number"]
        if not NAME.fullmatch(number):
            raise Refusal(404, "no_ticket", "there is no ticket of this number")
        wait_seconds = self._wait(_seconds(request.query_params.get("wait_seconds", "0")))
        ticket = await self.conversations.settled(number, wait_seconds)
        events = self.conversations.events(await self.conversations.told_of(ticket), 0.0)
        outcome = [event async for event in _clearly(events)][-1]
        assert isinstance(outcome, Outcome)
        ticket = await self.conversations.ticket(number)
        return JSONResponse(_ticket(ticket) | {"completion": self._completion(outcome) if ticket.state.final else None})

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.conversations.speaker.name,
            "object": "model",
            "created": self.started,
            "owned_by": "mightnt",
        }

    def _check_model(self, name: str) -> None:
        if name != self.conversations.speaker.name:
            raise Refusal(404, "model_not_found", "there is no such model here; GET /v1/models says which is", "model")

    def _wait(self, wanted: float | None) -> float:
        most = self.conversations.terms.most_wait_seconds
        if wanted is not None and wanted > most:
            raise Refusal(400, "bad_request", f"a call can wait {most:g} seconds at most", "mightnt.wait_seconds")
        return min(self.conversations.terms.wait_seconds, most) if wanted is None else wanted

    def _completion(self, outcome: Outcome) -> dict[str, Any]:
        message = {"role": "assistant", "content": outcome.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.reason}
        own = {"usage": _usage(outcome), "mightnt": _account(outcome)}
        return (
            self._head(outcome.said.conversation, outcome.said.number, outcome.said.begun_at, "")
            | {"choices": [choice]}
            | own
        )

    def _head(self, name: str, number: int, at: float, kind: str) -> dict[str, Any]:
        head = {"id": f"chatcmpl-{name}-{number}", "object": f"chat.completion{kind}", "created": int(at)}
        return head | {"model": self.conversations.speaker.name, "system_fingerprint": None}

    async def _stream(self, talk: Talk, asked: ChatRequest, events: AsyncIterator[Event]) -> Response:
        """The events as server-sent chunks. What fails before the first of them is still a plain refusal."""
        calm = _clearly(events)
        first = await anext(calm)
        said = talk.said
        head = self._head(said.conversation, said.number, said.begun_at, ".chunk")

        def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return _data(head | {"choices": [choice]} | more)

        async def lines() -> AsyncIterator[str]:
            yield chunk({"role": "assistant", "content": ""})
            try:
                async for event in _with_heartbeats(_chain(first, calm), HEARTBEAT_SECONDS):
                    if event is None:
                        yield ": waiting\n\n"
                    elif isinstance(event, str):
                        yield chunk({"content": event})
                    elif isinstance(event, Waiting):
                        yield ": a person is asked\n\n"
                        yield chunk(
                            {}, mightnt={"conversation": said.conversation, "asked": True, "ticket": event.ticket}
                        )
                    else:
                        yield chunk({}, event.reason, mightnt=_account(event))
                        if asked.include_usage:
                            yield _data(head | {"choices": [], "usage": _usage(event)})
                yield "data: [DONE]\n\n"
            except Refusal as refusal:
                yield _data(refusal.body)

        return StreamingResponse(lines(), media_type="text/event-stream", headers=_headers(talk))


async def _clearly(events: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same events; what goes wrong inside becomes a refusal that says whose fault it is."""
    try:
        async for event in events:
            yield event
    except InputError as error:
        raise Refusal(400, "bad_request", str(error), "messages") from error
    except StoreError as error:
        raise Refusal(503, "store_failed", str(error), headers={"Retry-After": "5"}) from error
    except MightntError as error:
        raise Refusal(500, "policy_failed", str(error)) from error
    except Refusal:
        raise
    except Exception as error:
        LOG.error("a turn failed", exc_info=error)
        raise Refusal(500, "policy_failed", "the policy failed; the log of the server says why") from error


async def _chain(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    yield first
    async for event in rest:
        yield event


async def _with_heartbeats(events: AsyncIterator[T], every_seconds: float) -> AsyncIterator[T | None]:
    """The same events, and ``None`` whenever there was none for this long."""
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=every_seconds)
            if not done:
                yield None
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event
            coming = asyncio.ensure_future(anext(events))
    finally:
        coming.cancel()


def _name(request: Request, header: str) -> str | None:
    value = request.headers.get(header)
    return None if value is None else checked_name(value, header)


def _seconds(text: str) -> float | None:
    try:
        return seconds(float(text), "wait_seconds")
    except ValueError:
        return seconds(text, "wait_seconds")


def _headers(talk: Talk) -> dict[str, str]:
    return {"X-Conversation": talk.said.conversation} | ({"X-Ticket": talk.said.ticket} if talk.said.ticket else {})


def _usage(outcome: Outcome) -> dict[str, int]:
    """Tokens that the agent said; what it read and what a person wrote is not counted."""
    n = outcome.said.n_tokens
    return {"prompt_tokens": 0, "completion_tokens": n, "total_tokens": n}


def _account(outcome: Outcome) -> dict[str, Any]:
    left = outcome.limit_nats - outcome.spent_nats if outcome.limit_nats < float("inf") else outcome.limit_nats
    fields = {
        "conversation": outcome.said.conversation,
        "turn": outcome.said.number,
        "limit_nats": outcome.limit_nats,
        "spent_nats": outcome.spent_nats,
        "left_nats": max(0.0, left),
        "asked": outcome.said.ticket is not None,
        "ticket": outcome.said.ticket,
    }
    return dict(plain(fields))


def _ticket(ticket: Ticket) -> dict[str, Any]:
    return {
        "object": "mightnt.ticket",
        "ticket": ticket.number,
        "state": "waiting" if not ticket.state.final else ticket.state.value,
        "conversation": ticket.inquiry.conversation,
        "turn": ticket.inquiry.turn,
        "asked_at": ticket.asked_at,
        "expires_at": ticket.expires_at,
    }


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
