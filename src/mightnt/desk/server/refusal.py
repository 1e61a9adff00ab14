"""How a call is turned down: a status, one sentence, and what a client's program can tell it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse


@dataclass
class Refusal(Exception):
    """A clear no. ``code`` is for programs, ``message`` for people; ``parameter`` names the field that is at fault."""

    status: int
    code: str
    message: str
    parameter: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI clients expect errors."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer; clients that try again by themselves are told where that is of no use."""
        retry = "true" if self.status in (429, 503) else "false"
        return JSONResponse(self.body, self.status, {"x-should-retry": retry, **self.headers})


def busy(message: str, seconds: float) -> Refusal:
    """Too much at once: try again after these seconds."""
    return Refusal(429, "too_many", message, headers={"Retry-After": str(max(1, round(seconds)))})
