"""The description of the routes, in OpenAPI 3.1, served at /openapi.json."""

from __future__ import annotations

from typing import Any

import mightnt
from mightnt.desk.server.reading import IGNORED, MOST_MESSAGES, NAME, ONLY
from mightnt.desk.tickets import State, Verdict

REASONS = ("stop", "length", "ask", "refused", "stopped", "expired")
MEANINGS = {
    400: "The request cannot be understood or honored; the message says why.",
    401: "A token is needed.",
    403: "The token has another right, or a page from elsewhere has called.",
    404: "There is no such thing here.",
    405: "This path knows other methods.",
    408: "The body took too long to arrive.",
    409: "The messages are not the history of the conversation, or it was stopped; or the decision came too late.",
    413: "The body is too large.",
    415: "The body should be JSON.",
    421: "The server was called by a name that is not its own.",
    429: "Too much at once; Retry-After says when there is room again.",
    500: "The policy failed.",
    503: "The store cannot be written now (a full disk); nothing was done.",
}
TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
GENERAL = (401, 403, 404, 421, 429, 500, 503)
BODY = (400, 408, 413, 415)


def description() -> dict[str, Any]:
    """The whole description, as plain values."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "mightnt", "version": mightnt.__version__, "description": "A policy that asks a person."},
        "paths": {
            "/v1/models": {"get": _route("models", "The policy that is served.", "Models")},
            "/v1/models/{name}": {"get": _route("model", "One policy.", "Model", parameters=[_path("name")])},
            "/v1/chat/completions": {"post": _complete()},
            "/v1/tickets/{number}": {
                "get": _route(
                    "ticket", "A question, as it stands.", "Ticket", parameters=[_path("number"), _wait()], more=(400,)
                )
            },
            "/desk/me": {"get": _route("me", "Who is at the desk.", "Anything")},
            "/desk/login": {"post": _post("login", "A cookie for a demonstrator's token.", "Anything", "Login")},
            "/desk/logout": {"post": _route("logout", "No cookie any more.", "Anything")},
            "/desk/tickets/{number}": {
                "get": _route("deskTicket", "A whole question.", "Anything", parameters=[_path("number")])
            },
            "/desk/tickets/{number}/decide": {
                "post": _post(
                    "decide", "Decide a question.", "Anything", "Decision", [_path("number"), _stamp()], (409,)
                )
            },
            "/desk/tickets/{number}/undo": {
                "post": _post("undo", "Take a decision back.", "Anything", "Undo", [_path("number"), _stamp()], (409,))
            },
            "/healthz": {"get": _route("health", "Whether the server lives.", "Anything")},
            "/metrics": {"get": _route("metrics", "Numbers for Prometheus.", None)},
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _route(
    name: str,
    summary: str,
    schema: str | None,
    parameters: list[dict[str, Any]] | None = None,
    more: tuple[int, ...] = (),
) -> dict[str, Any]:
    content = (
        {"application/json": {"schema": _of(schema)}} if schema else {"text/plain": {"schema": {"type": "string"}}}
    )
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in sorted({*GENERAL, *more}):
        error = {"application/json": {"schema": _of("Error")}}
        responses[str(status)] = {"description": MEANINGS[status], "content": error}
    return {"operationId": name, "summary": summary, "parameters": parameters or [], "responses": responses}


def _post(
    name: str,
    summary: str,
    schema: str,
    body: str,
    parameters: list[dict[str, Any]] | None = None,
    more: tuple[int, ...] = (),
) -> dict[str, Any]:
    route = _route(name, summary, schema, parameters, (*BODY, *more))
    return route | {"requestBody": {"required": True, "content": {"application/json": {"schema": _of(body)}}}}


def _complete() -> dict[str, Any]:
    parameters = [
        _header("X-Conversation", "The conversation to go on with."),
        _header("Idempotency-Key", "Of a repeated call."),
    ]
    route = _post("complete", "The next turn of a conversation.", "Completion", "ChatRequest", parameters, (409,))
    told = {"schema": {"type": "string"}}
    route["responses"]["200"]["headers"] = {"X-Conversation": told, "X-Ticket": told}
    route["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return route


def _of(schema: str | None) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _header(name: str, what: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": what,
        "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"},
    }


def _stamp() -> dict[str, Any]:
    what = "Of a page: `stamp` in /desk/me. Not needed with a token in Authorization."
    return {
        "name": "X-Desk-Stamp",
        "in": "header",
        "description": what,
        "schema": {"type": "string", "pattern": "^[0-9a-f]*$"},
    }


def _wait() -> dict[str, Any]:
    return {"name": "wait_seconds", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 1}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """All of these properties, and perhaps more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """These properties and no others."""
    return _object(properties) | {"required": list(required), "additionalProperties": False}


def _schemas() -> dict[str, Any]:
    return {
        "Anything": {"type": "object"},
        "Error": _object({"error": _object({"message": TEXT, "type": TEXT, "param": {}, "code": TEXT})}),
        "Model": _object({"id": TEXT, "object": {"const": "model"}}),
        "Models": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _of("Model")}}),
        "ChatRequest": _chat_request(),
        "Completion": _completion(),
        "Ticket": _object(
            {
                "ticket": TEXT,
                "state": {"enum": [state.value for state in State if state is not State.DECIDED]},
                "conversation": TEXT,
                "turn": WHOLE,
                "completion": {"anyOf": [{"type": "null"}, _of("Completion")]},
            }
        ),
        "Login": _closed({"token": TEXT}, "token"),
        "Undo": _closed({"person": TEXT}),
        "Decision": _closed(
            {
                "verdict": {"enum": [verdict.value for verdict in Verdict]},
                "key": {"type": "string", "pattern": "^[A-Za-z0-9-]{8,64}$"},
                "text": {"type": ["string", "null"]},
                "proposal": {"type": ["integer", "null"], "minimum": 0},
                "person": TEXT,
            },
            "verdict",
            "key",
        ),
    }


def _completion() -> dict[str, Any]:
    message = _object({"role": {"const": "assistant"}, "content": TEXT})
    choice = _object({"index": {"const": 0}, "message": message, "finish_reason": {"enum": list(REASONS)}})
    nats: dict[str, Any] = {"anyOf": [{"type": "number"}, {"const": "inf"}]}
    account = {"limit_nats": nats, "spent_nats": nats, "left_nats": nats}
    ticket = {"type": ["string", "null"]}
    return _object(
        {
            "id": TEXT,
            "object": {"const": "chat.completion"},
            "created": WHOLE,
            "model": TEXT,
            "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
            "usage": {"type": "object"},
            "mightnt": _object(
                {"conversation": TEXT, "turn": WHOLE, **account, "asked": {"type": "boolean"}, "ticket": ticket}
            ),
        }
    )


def _chat_request() -> dict[str, Any]:
    message = _object({"role": {"enum": ["user", "assistant"]}, "content": {"type": "string", "minLength": 1}})
    most_tokens = {"type": ["integer", "null"], "minimum": 1}
    flag = {"type": ["boolean", "null"]}
    name = {"type": "string", "pattern": f"^{NAME.pattern}$"}
    wait = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
    fields = {
        "model": {"type": "string", "description": "As GET /v1/models says."},
        "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": MOST_MESSAGES},
        "stream": flag,
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": flag}},
        "max_tokens": most_tokens,
        "max_completion_tokens": most_tokens,
        "metadata": {"type": ["object", "null"], "properties": {"conversation": name}},
        "mightnt": _closed({"wait_seconds": wait}),
    }
    only = {field: {"enum": [None, *allowed]} for field, allowed in ONLY.items()}
    return _closed(fields | only | {field: {} for field in IGNORED}, "model", "messages")
