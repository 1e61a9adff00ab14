"""A refusal is what OpenAI's clients expect of an error, and says whether trying again is of use."""

import json

import pytest

from mightnt.desk.server.refusal import Refusal, busy


@pytest.mark.parametrize(("status", "retry", "kind"), [
    (400, "false", "invalid_request_error"), (409, "false", "invalid_request_error"),
    (429, "true", "invalid_request_error"), (500, "false", "server_error"), (503, "true", "server_error"),
])  # fmt: skip
def test_body_and_headers(status, retry, kind):
    response = Refusal(status, "code", "why", "field", {"X-More": "1"}).response()
    assert response.status_code == status
    assert json.loads(response.body) == {"error": {"message": "why", "type": kind, "param": "field", "code": "code"}}
    assert response.headers["x-should-retry"] == retry
    assert response.headers["x-more"] == "1"


def test_busy_says_when_in_whole_seconds_and_never_at_once():
    assert [busy("", seconds).headers["Retry-After"] for seconds in (0.01, 1.6, 60.0)] == ["1", "2", "60"]
