"""Who may come in: addresses, tokens and rights, foreign pages, rates; and the headers that every answer carries.

Without tokens a server listens to its own machine alone, and answers only where it is called by a name of that machine
(so that no page of the web can reach it by a name that it points there). With tokens there are two rights, which do not
contain each other: ``client`` calls the policy, ``demonstrator`` answers at the desk.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mightnt.desk.server.refusal import Refusal, busy
from mightnt.errors import InputError

Right = Literal["client", "demonstrator"]
RIGHTS: tuple[Right, ...] = ("client", "demonstrator")
LEAST_CHARACTERS = 20
"""Of a token."""
COOKIE = "mightnt_desk"
SESSION_SECONDS = 12 * 3600.0
PERSON = re.compile(r"[^\W_][\w .'-]{0,39}")
"""Names of people at the desk."""
OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""What a machine calls itself."""
MOST_CALLERS = 10_000
"""Addresses and tokens whose rate is remembered."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""On every answer: what a browser may do with it, which is little."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with a token; only a fingerprint of the token is kept, and it is never shown."""

    right: Right
    name: str
    fingerprint: bytes = field(repr=False)


def fingerprint(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def read_tokens(path: Path) -> tuple[Holder, ...]:
    """The holders in a file of lines ``client NAME TOKEN`` and ``demonstrator NAME TOKEN``; ``#`` opens a comment.

    Errors: :class:`~mightnt.errors.InputError` names the line, never the token.
    """
    holders = list[Holder]()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); lines 'RIGHT NAME TOKEN' are needed"
        ) from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in RIGHTS or not PERSON.fullmatch(words[1]):
            raise InputError(f"{path}:{number}: should be 'client NAME TOKEN' or 'demonstrator NAME TOKEN'")
        if len(words[2]) < LEAST_CHARACTERS:
            raise InputError(
                f"{path}:{number}: the token has {len(words[2])} characters; {LEAST_CHARACTERS} are needed"
            )
        holders.append(Holder("client" if words[0] == "client" else "demonstrator", words[1], fingerprint(words[2])))
    marks = [holder.fingerprint for holder in holders]
    people = [(holder.right, holder.name) for holder in holders]
    if len(set(marks)) < len(marks) or len(set(people)) < len(people):
        raise InputError(f"{path}: every line needs a name and a token of its own")
    missing = [right for right in RIGHTS if right not in {holder.right for holder in holders}]
    if missing:
        raise InputError(f"{path}: has no token for a {' and none for a '.join(missing)}")
    return tuple(holders)


def is_own(host: str) -> bool:
    """Whether this address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def holder_of(token: str, right: Right, holders: Sequence[Holder]) -> Holder | None:
    """Who has this token and this right. Every holder is compared, each in constant time."""
    mark, found = fingerprint(token), None
    for holder in holders:
        if hmac.compare_digest(mark, holder.fingerprint) & (holder.right == right):
            found = holder
    return found


def session_of(holder: Holder, now: float) -> str:
    """A cookie by which a browser is known for some hours. It outlasts a restart and dies with the token."""
    words = f"{holder.name.encode().hex()}.{int(now + SESSION_SECONDS)}"
    return f"{words}.{hmac.digest(holder.fingerprint, words.encode(), 'sha256').hex()}"


def holder_of_session(cookie: str, holders: Sequence[Holder], now: float) -> Holder | None:
    """The demonstrator whom this cookie was given to, if it still holds."""
    words, _, mark = cookie.rpartition(".")
    found = None
    for holder in holders:
        right_mark = hmac.digest(holder.fingerprint, words.encode(), "sha256").hex()
        if hmac.compare_digest(right_mark.encode(), mark.encode()) & (holder.right == "demonstrator"):
            found = holder
    expires = words.rpartition(".")[2]
    return found if found and expires.isdecimal() and int(expires) > now else None


class Rates:
    """Calls a second of each caller, with some at once allowed."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second, self.burst, self.clock = per_second, burst, clock
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """One call. Errors: 429 with the seconds after which there is room again."""
        now = self.clock()
        left, at = self.left.pop(caller, (self.burst, now))
        left = min(self.burst, left + (now - at) * self.per_second)
        self.left[caller] = (max(0.0, left - 1), now)
        if len(self.left) > MOST_CALLERS:
            self.left.popitem(last=False)
        if left < 1:
            raise busy(f"more than {self.per_second:g} calls a second", (1 - left) / self.per_second)


@dataclass
class Guard:
    """Checks every request before it reaches a route, and dresses every answer.

    ``holders``: who has tokens; empty: everybody who reaches a loopback address has both rights.
    """

    holders: tuple[Holder, ...] = ()
    own_machine: bool = True
    calls: Rates = field(default_factory=lambda: Rates(200.0, 400.0))
    logins: Rates = field(default_factory=lambda: Rates(0.2, 5.0))
    noted: Callable[[str, int], None] = lambda path, status: None
    """Hears path and status of every answer."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The same app behind this guard."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            async def dressed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        headers.setdefault(name, value)
                    self.noted(scope["path"], message["status"])
                await send(message)

            try:
                if scope["type"] == "http":
                    self.check(scope)
            except Refusal as refusal:
                await refusal.response()(scope, receive, dressed)
            else:
                await app(scope, receive, dressed)

        return guarded

    def check(self, scope: Scope) -> None:
        """Host, origin, rate and rights. Errors: 400, 401, 403, 421, 429."""
        headers, path = Headers(scope=scope), scope["path"]
        self._check_names(headers, scope["method"])
        caller = (scope.get("client") or ("unknown",))[0]
        self.calls.take(caller)
        if path.startswith("/desk/login"):
            self.logins.take(caller)
        if path.startswith("/v1/"):
            self._need("client", headers)
        elif path == "/metrics" and self.holders:
            token = bearer(headers)
            if not any(holder_of(token, right, self.holders) for right in RIGHTS):
                raise unknown()

    def _check_names(self, headers: Headers, method: str) -> None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
        if not host or (self.own_machine and name.lower() not in OWN_NAMES):
            raise Refusal(421, "not_here", f"this server is called {' or '.join(OWN_NAMES)}, and by no other name")
        if method in ("GET", "HEAD"):
            return
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Refusal(403, "foreign_page", "a page from elsewhere cannot call this server")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "foreign_page", "a page from elsewhere cannot call this server")

    def _need(self, right: Right, headers: Headers) -> None:
        if not self.holders:
            return
        token = bearer(headers)
        if holder_of(token, right, self.holders):
            return
        other: Right = "demonstrator" if right == "client" else "client"
        if holder_of(token, other, self.holders):
            raise Refusal(403, "other_right", f"this token is a {other}'s; a {right}'s is needed")
        raise unknown()

    def person(self, request: Request, claimed: str = "") -> str:
        """Who is at the desk: the holder of the token or the cookie; without tokens, whoever they say they are.

        Errors: 401 for nobody, 403 for a client, 400 for a name that is none.
        """
        if self.holders:
            holder = holder_of_session(request.cookies.get(COOKIE, ""), self.holders, time.time())
            if holder is None:
                self._need("demonstrator", request.headers)
                holder = holder_of(bearer(request.headers), "demonstrator", self.holders)
            assert holder is not None  # else _need would have refused
            return holder.name
        if claimed and not PERSON.fullmatch(claimed):
            raise Refusal(400, "bad_name", "a name is 1 to 40 letters, digits, spaces or . ' -", "person")
        return claimed

    def stamp(self, request: Request) -> str:
        """What a page of ours must send along with what it does (``X-Desk-Stamp``); no foreign page can know it."""
        return hmac.digest(self.secret, request.cookies.get(COOKIE, "").encode(), "sha256").hex()

    def check_stamp(self, request: Request) -> None:
        """Refuse what no page of ours has sent. Who brings a token in a header needs no stamp: no page can do that."""
        if bearer(request.headers):
            return
        if not hmac.compare_digest(request.headers.get("x-desk-stamp", "").encode(), self.stamp(request).encode()):
            raise Refusal(403, "no_stamp", "the header X-Desk-Stamp is not this server's; load the page again")


def bearer(headers: Mapping[str, str]) -> str:
    """The token of a request; empty if there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def unknown() -> Refusal:
    """Nobody we know."""
    return Refusal(
        401, "no_token", "a token is needed, as Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"}
    )
