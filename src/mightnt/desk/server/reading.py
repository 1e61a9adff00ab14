"""What came in: bodies of bounded size and depth, and the chat requests in them.

A field that would change what the policy says with which probability (a temperature, a bias, tools) is refused, not
ignored: the policy that samples is the policy whose KL is charged. Fields that change nothing are listed and ignored.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from mightnt.desk.server.refusal import Refusal
from mightnt.dialogues import Message

MOST_BYTES = 1 << 20
MOST_DEPTH = 16
MOST_MESSAGES = 1000
MOST_SECONDS = 20.0
"""How long a body may take to arrive."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
"""What names of conversations, keys and tickets look like."""

ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "temperature": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields of which only these values (or none) can be honored."""

IGNORED = (
    *("user", "store", "seed", "service_tier", "parallel_tool_calls", "prediction", "reasoning_effort", "verbosity"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
)
"""Fields that change nothing here. The dice are the server's, so ``seed`` is one of them."""

OWN = ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "metadata", "mightnt")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A call of /v1/chat/completions, checked."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    most_tokens: int | None
    conversation: str | None
    wait_seconds: float | None


def bad(message: str, parameter: str | None = None) -> Refusal:
    """A request that cannot be understood or honored."""
    return Refusal(400, "bad_request", message, parameter)


async def read_json(request: Request, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in the body.

    Errors: :class:`~mightnt.desk.server.refusal.Refusal`: 415 for another type (so that no foreign page can send one),
    413 for too many bytes, 408 for too slow, 400 for anything but a JSON object of bounded depth in UTF-8.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "not_json", "the body should be JSON, with the header Content-Type: application/json")
    try:
        body = await asyncio.wait_for(_bytes(request, most_bytes), MOST_SECONDS)
    except TimeoutError:
        raise Refusal(408, "too_slow", f"the body took longer than {MOST_SECONDS:g} s") from None
    return parse_json(body)


async def _bytes(request: Request, most_bytes: int) -> bytes:
    chunks, n = [], 0
    async for chunk in request.stream():
        n += len(chunk)
        if n > most_bytes:
            raise Refusal(
                413, "too_large", f"the body is larger than {most_bytes} bytes", headers={"Connection": "close"}
            )
        chunks.append(chunk)
    return b"".join(chunks)


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Errors: status 400."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise bad(f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise bad(f"the body is nested deeper than {MOST_DEPTH} levels") from None
    except ValueError as error:
        raise bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise bad("the body should be a JSON object")
    _check(value)
    return value


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _check(value: Any) -> None:
    """Refuse what is too deep, and half characters; level by level, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise bad(f"the body is nested deeper than {MOST_DEPTH} levels")
        inside = list[Any]()
        for item in level:
            if isinstance(item, str):
                if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                    raise bad("the body holds half a character (a lone surrogate), which is not text")
            elif isinstance(item, dict):
                inside += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                inside += item
        level = inside


def chat_request(value: dict[str, Any], header: str | None) -> ChatRequest:
    """The chat request in a JSON object; ``header``: the conversation that ``X-Conversation`` names."""
    for field in value:
        if field not in OWN and field not in ONLY and field not in IGNORED:
            raise bad(f"there is no field {field!r} here", "unknown")
    for field, allowed in ONLY.items():
        given = value.get(field)
        if given is not None and not any(
            given == one and isinstance(given, bool) == isinstance(one, bool) for one in allowed
        ):
            some = " or ".join(json.dumps(one) for one in allowed)
            raise bad(f"{field} cannot be changed here (only {some}): the policy is served as it was measured", field)
    options = own_options(value.get("mightnt"))
    model = value.get("model")
    if not isinstance(model, str):
        raise bad("model should be the name of the policy; GET /v1/models says it", "model")
    return ChatRequest(
        model,
        chat_messages(value.get("messages")),
        stream=_flag(value.get("stream"), "stream"),
        include_usage=_flag(
            _object(value.get("stream_options"), "stream_options").get("include_usage"), "stream_options"
        ),
        most_tokens=_most_tokens(value),
        conversation=header or _conversation(value.get("metadata")),
        wait_seconds=options,
    )


def chat_messages(value: Any) -> tuple[Message, ...]:
    """The messages of a request; empty ones of the assistant are left out."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_MESSAGES:
        raise bad(f"messages should be a list of 1 to {MOST_MESSAGES} messages", "messages")
    messages = [_message(item, f"messages[{i}]") for i, item in enumerate(value)]
    if messages[-1].role != "user":
        raise bad("the last message should be the user's", "messages")
    return tuple(message for message in messages if message.content)


def _message(value: Any, where: str) -> Message:
    role = value.get("role") if isinstance(value, dict) else None
    if role not in ("user", "assistant"):
        raise bad(
            f"{where}: the role should be user or assistant; this policy was shown no other, so it knows none", where
        )
    if unknown := [
        key for key in value if key not in ("role", "content", "name", "refusal") and value[key] is not None
    ]:
        raise bad(f"{where}: there is no field {unknown[0]!r} here", where)
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise bad(f"{where}: content should be text", where)
    if role == "user" and not content.strip():
        raise bad(f"{where}: a message of the user needs words", where)
    return Message(role, content)


def _part(value: Any, where: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text" or not isinstance(value.get("text"), str):
        raise bad(f"{where}: parts of content should be text", where)
    return str(value["text"])


def own_options(value: Any) -> float | None:
    """``wait_seconds`` in the field ``mightnt`` of a request; ``None`` if it is not there."""
    fields = _object(value, "mightnt")
    if set(fields) - {"wait_seconds"}:
        raise bad("mightnt knows one field, wait_seconds", "mightnt")
    return seconds(fields.get("wait_seconds"), "mightnt.wait_seconds")


def seconds(value: Any, where: str) -> float | None:
    """A number of seconds, zero or more; ``None`` stays."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(float(min(value, 1e9))) or value < 0:
        raise bad(f"{where} should be a number of seconds, zero or more", where)
    return float(min(value, 1e9))


def checked_name(value: str, where: str) -> str:
    """The same text, if it is a name. Errors: status 400."""
    if not NAME.fullmatch(value):
        raise bad(f"{where} should be 1 to 64 letters, digits, or . _ : - (a letter or digit first)", where)
    return value


def _conversation(metadata: Any) -> str | None:
    name = _object(metadata, "metadata").get("conversation")
    if name is not None and not isinstance(name, str):
        raise bad("metadata.conversation should be text", "metadata")
    return None if name is None else checked_name(name, "metadata.conversation")


def _most_tokens(value: dict[str, Any]) -> int | None:
    given = [value[field] for field in ("max_tokens", "max_completion_tokens") if value.get(field) is not None]
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in given):
        raise bad("max_tokens should be a whole number, 1 or more", "max_tokens")
    return min(given, default=None)


def _flag(value: Any, where: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise bad(f"{where} should be true or false", where)
    return bool(value)


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise bad(f"{where} should be an object", where)
    return value or {}
