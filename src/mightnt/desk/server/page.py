"""What the people at the desk use: the page, its live queue, and what they decide.

A page hears of changes by server-sent events; each is a summary, and the whole question is fetched when it is opened.
Everything goes to the page as JSON and is shown as text, never as HTML.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from mightnt.desk.server.conversations import Conversations
from mightnt.desk.server.reading import bad, read_json
from mightnt.desk.server.refusal import Refusal, busy
from mightnt.desk.server.safety import COOKIE, SESSION_SECONDS, Guard, holder_of, session_of, unknown
from mightnt.desk.tickets import Decision, Ticket, Verdict, as_plain
from mightnt.errors import InputError
from mightnt.files import plain

TYPES = {"desk.html": "text/html", "desk.css": "text/css", "desk.js": "text/javascript"}
HEARTBEAT_SECONDS = 5.0
"""A page that hears nothing for three of these says that it is offline."""
MOST_PAGES = 200
"""Pages that listen at the same time."""
MOST_UNHEARD = 1000
"""Changes that a slow page may be behind; then it is cut off, and connects again."""
EXCERPT = 160


class Page:
    """The routes of the desk."""

    def __init__(self, conversations: Conversations, guard: Guard) -> None:
        self.conversations, self.guard = conversations, guard
        self.pages = set[asyncio.Queue[Ticket | None]]()
        self.static = {name: files("mightnt.desk.server").joinpath("static", name).read_bytes() for name in TYPES}
        conversations.listeners.append(self._changed)

    async def home(self, request: Request) -> Response:
        """GET /: the page is at /desk."""
        return RedirectResponse("/desk", 307)

    async def file(self, request: Request) -> Response:
        """GET /desk, /desk/desk.css, /desk/desk.js."""
        name = request.path_params.get("name", "desk.html")
        if name not in self.static:
            raise Refusal(404, "no_page", "there is no such page")
        return Response(self.static[name], media_type=TYPES[name])

    async def me(self, request: Request) -> Response:
        """GET /desk/me: who this is, what the page must send along, how the server is set up."""
        person = self.guard.person(request)
        return JSONResponse(
            {
                "person": person,
                "tokens": bool(self.guard.holders),
                "stamp": self.guard.stamp(request),
                "people": [shift.person for shift in self.conversations.rota.shifts],
                "undo_seconds": self.conversations.store.undo_seconds,
                "model": self.conversations.speaker.name,
            }
        )

    async def login(self, request: Request) -> Response:
        """POST /desk/login {token}: a cookie for some hours."""
        value = await read_json(request, 4096)
        token = value.get("token")
        holder = holder_of(token, "demonstrator", self.guard.holders) if isinstance(token, str) else None
        if holder is None:
            raise unknown()
        response = JSONResponse({"person": holder.name})
        response.set_cookie(
            COOKIE,
            session_of(holder, time.time()),
            max_age=int(SESSION_SECONDS),
            path="/desk",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """POST /desk/logout: the cookie is gone."""
        self.guard.person(request)
        self.guard.check_stamp(request)
        response = JSONResponse({})
        response.delete_cookie(COOKIE, path="/desk")
        return response

    async def ticket(self, request: Request) -> Response:
        """GET /desk/tickets/NUMBER: the whole question, and how it stands."""
        self.guard.person(request)
        return JSONResponse(whole(await self.conversations.ticket(request.path_params["number"])))

    async def decide(self, request: Request) -> Response:
        """POST /desk/tickets/NUMBER/decide {verdict, key, text?, proposal?, person?}: durable when it is answered."""
        self.guard.check_stamp(request)
        value = await read_json(request, 256 * 1024)
        decision = decision_in(value, self._person(request, value))
        number = request.path_params["number"]
        await self.conversations.ticket(number)
        return await self._changing(self.conversations.store.decide, number, decision)

    async def undo(self, request: Request) -> Response:
        """POST /desk/tickets/NUMBER/undo {person?}: within some seconds, by whoever decided."""
        self.guard.check_stamp(request)
        person = self._person(request, await read_json(request, 4096))
        number = request.path_params["number"]
        await self.conversations.ticket(number)
        return await self._changing(self.conversations.store.undo, number, person)

    async def events(self, request: Request) -> Response:
        """GET /desk/events: the queue as it is, then every change of it."""
        self.guard.person(request)
        if len(self.pages) >= MOST_PAGES:
            raise busy("too many pages listen", 10.0)
        return StreamingResponse(self._listen(), media_type="text/event-stream")

    async def _listen(self) -> AsyncIterator[str]:
        changes: asyncio.Queue[Ticket | None] = asyncio.Queue(MOST_UNHEARD)
        self.pages.add(changes)
        try:
            queue = sorted(self.conversations.open.values(), key=lambda ticket: ticket.asked_at)
            yield _event("queue", {"tickets": [summary(ticket) for ticket in queue], "now": self._now()})
            while True:
                try:
                    ticket = await asyncio.wait_for(changes.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield _event("beat", {"now": self._now()})
                    continue
                if ticket is None:
                    return
                yield _event("ticket", summary(ticket) | {"now": self._now()})
        finally:
            self.pages.discard(changes)

    def _now(self) -> float:
        return self.conversations.store.now()

    def _changed(self, ticket: Ticket) -> None:
        """Tell every page that keeps up."""
        for changes in list(self.pages):
            try:
                changes.put_nowait(ticket)
            except asyncio.QueueFull:
                self.pages.discard(changes)
                while not changes.empty():
                    changes.get_nowait()
                changes.put_nowait(None)

    def _person(self, request: Request, value: dict[str, Any]) -> str:
        claimed = value.get("person", "")
        if not isinstance(claimed, str):
            raise bad("person should be a name", "person")
        return self.guard.person(request, claimed) or self.conversations.rota.shifts[0].person

    async def _changing(self, change: Any, *arguments: Any) -> Response:
        """Change the store, durably; then tell everybody."""
        from mightnt.desk.store import Conflict

        try:
            ticket = await self.conversations.keep(change, *arguments)
        except Conflict as error:
            raise Refusal(409, "too_late", str(error)) from error
        except InputError as error:
            raise bad(str(error)) from error
        self.conversations.kick()
        return JSONResponse(whole(ticket))


def decision_in(value: dict[str, Any], person: str) -> Decision:
    """The decision in a JSON object. Errors: status 400."""
    text, proposal, key, verdict = (value.get(name) for name in ("text", "proposal", "key", "verdict"))
    if set(value) - {"text", "proposal", "key", "verdict", "person"}:
        raise bad("a decision has the fields verdict, key, text, proposal and person, and no others")
    if not isinstance(verdict, str) or verdict not in {v.value for v in Verdict}:
        raise bad(f"verdict should be one of {', '.join(Verdict)}", "verdict")
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9-]{8,64}", key):
        raise bad("key should be 8 to 64 letters, digits or -, and new for every decision", "key")
    if proposal is not None and (not isinstance(proposal, int) or isinstance(proposal, bool)):
        raise bad("proposal should be a number", "proposal")
    if text is not None and not isinstance(text, str):
        raise bad("text should be text", "text")
    try:
        return Decision(Verdict(verdict), person, key, text or "", proposal)
    except InputError as error:
        raise bad(str(error)) from error


def summary(ticket: Ticket) -> dict[str, Any]:
    """A ticket as it stands in the queue."""
    last = ticket.inquiry.messages[-1].content if ticket.inquiry.messages else ""
    decision = ticket.decision
    fields = {
        "number": ticket.number,
        "state": ticket.state.value,
        "sequence": ticket.sequence,
        "conversation": ticket.inquiry.conversation,
        "turn": ticket.inquiry.turn,
        "excerpt": last[:EXCERPT],
        "asked_at": ticket.asked_at,
        "expires_at": ticket.expires_at,
        "person": ticket.person,
        "asking_probability": ticket.inquiry.asking_probability,
        "forced": ticket.inquiry.forced,
        "decided_at": ticket.decided_at,
        "decided_by": decision.person if decision else None,
        "verdict": decision.verdict.value if decision else None,
    }
    return dict(plain(fields))


def whole(ticket: Ticket) -> dict[str, Any]:
    """A ticket with everything that a person needs to decide it."""
    decided = ticket.decision.text if ticket.decision else None
    return summary(ticket) | {"inquiry": plain(as_plain(ticket.inquiry)), "text": decided}


def _event(name: str, value: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"
