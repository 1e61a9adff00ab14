"""The whole server: routes, guard, what errors become; and how it is run.

GET  /                                     the page (it moves on to /desk)
GET  /v1/models, /v1/models/NAME           the policy
POST /v1/chat/completions                  a turn
GET  /v1/tickets/NUMBER                    a question that waits, or its answer
GET  /desk, /desk/events, /desk/me         the page of the desk
GET  /desk/tickets/NUMBER                  a question
POST /desk/tickets/NUMBER/decide, .../undo
POST /desk/login, /desk/logout
GET  /healthz, /metrics, /openapi.json
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mightnt.desk.rota import Rota
from mightnt.desk.server.api import Api
from mightnt.desk.server.conversations import Conversations, Terms
from mightnt.desk.server.metrics import TYPE, Metrics
from mightnt.desk.server.openapi import description
from mightnt.desk.server.page import Page
from mightnt.desk.server.refitting import Refit
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.server.safety import Guard
from mightnt.desk.server.turns import Turns
from mightnt.desk.speaking import Speaker
from mightnt.desk.store import Store
from mightnt.errors import MightntError

LOG = logging.getLogger("mightnt.desk.server")
ROUTES = ("/v1/chat/completions", "/v1/models", "/v1/tickets", "/desk", "/healthz", "/metrics", "/openapi.json")
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def build_app(
    speaker: Speaker,
    store: Store,
    folder: Path,
    rota: Rota,
    terms: Terms | None = None,
    guard: Guard | None = None,
    refit: Refit | None = None,
) -> ASGIApp:
    """The server of this speaker, over an open store, as an ASGI app; what was said is kept in ``folder``.

    ``refit``: how the networks learn in the background; ``None``: not at all.

    Kind: exact accounts, durable. Cost: beside the speaker, two flushes of the disk a turn and one more a question.
    """
    guard, metrics, turns = guard or Guard(), Metrics(), Turns(folder)
    conversations = Conversations(speaker, store, turns, rota, terms or Terms(), metrics, refit)
    guard.noted = lambda path, status: metrics.count("mightnt_calls_total", route=_route(path), status=str(status))

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        await conversations.start()
        try:
            yield
        finally:
            await conversations.stop()
            turns.close()

    app = Starlette(routes=_routes(conversations, guard), lifespan=running, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return guard.wrap(app)


def _routes(conversations: Conversations, guard: Guard) -> list[Route]:
    api, page = Api(conversations, int(time.time())), Page(conversations, guard)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def numbers(request: Request) -> Response:
        return Response(conversations.metrics.text(), media_type=TYPE)

    async def described(request: Request) -> Response:
        return JSONResponse(description())

    gets: dict[str, Handler] = {
        "/": page.home,
        "/v1/models": api.models,
        "/v1/models/{name:path}": api.model,
        "/v1/tickets/{number}": api.ticket,
        "/desk": page.file,
        "/desk/me": page.me,
        "/desk/events": page.events,
        "/desk/tickets/{number}": page.ticket,
        "/healthz": health,
        "/metrics": numbers,
        "/openapi.json": described,
        "/desk/{name}": page.file,
    }
    posts: dict[str, Handler] = {
        "/v1/chat/completions": api.complete,
        "/desk/login": page.login,
        "/desk/logout": page.logout,
        "/desk/tickets/{number}/decide": page.decide,
        "/desk/tickets/{number}/undo": page.undo,
    }
    posted = [Route(path, handler, methods=["POST"]) for path, handler in posts.items()]
    return [*posted, *(Route(path, handler, methods=["GET"]) for path, handler in gets.items())]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if error.status >= 500:
        LOG.error("%s %s: %s", request.method, request.url.path, error.message)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such path; see /openapi.json", 405: "this path knows other methods"}
    refusal = Refusal(error.status_code, "no_route", words.get(error.status_code, str(error.detail)))
    return Refusal(refusal.status, refusal.code, refusal.message, headers=error.headers or {}).response()


async def _store_failed(request: Request, error: Exception) -> Response:
    LOG.error("%s %s: %s", request.method, request.url.path, error)
    return Refusal(503, "store_failed", str(error), headers={"Retry-After": "5"}).response()


async def _failed(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Refusal(500, "failed", "something went wrong here; the log of the server says what").response()


HANDLERS: dict[int | type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refusal: _refused,
    HTTPException: _no_route,
    MightntError: _store_failed,
    Exception: _failed,
}


def _route(path: str) -> str:
    """The few names under which paths are counted."""
    return next((route for route in ROUTES if path == route or path.startswith(route + "/")), "other")
