"""What comes in: JSON of bounded size and depth, chat requests of which nothing is silently ignored."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.server.reading import IGNORED, MOST_DEPTH, MOST_MESSAGES, ONLY, chat_request, parse_json
from mightnt.desk.server.refusal import Refusal
from mightnt.dialogues import Message

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def status(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.status


@given(st.binary(max_size=200))
def test_bytes_are_an_object_or_a_refusal(body):
    try:
        assert isinstance(parse_json(body), dict)
    except Refusal as refusal:
        if refusal.status != 400:
            raise


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b'{"b":' * 50_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_refused(body):
    assert status(parse_json, body) == 400


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return json.dumps({"a": value}).encode()


def test_depth_has_an_edge():
    assert parse_json(nested(MOST_DEPTH - 2))
    assert status(parse_json, nested(MOST_DEPTH - 1)) == 400


def test_a_request_as_clients_send_it():
    request = chat_request(
        CHAT
        | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 9, "max_completion_tokens": 5}
        | {"temperature": 1.0, "n": 1, "user": "u", "metadata": {"conversation": "c1", "other": "x"}, "seed": 3}
        | {"mightnt": {"wait_seconds": 2}},
        None,
    )
    assert request.messages == (Message("user", "hello"),)
    assert (request.stream, request.include_usage, request.most_tokens) == (True, True, 5)
    assert (request.conversation, request.wait_seconds) == ("c1", 2.0)


def test_the_header_names_the_conversation_first():
    assert chat_request(CHAT | {"metadata": {"conversation": "c1"}}, "h").conversation == "h"


def test_parts_of_text_are_text():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert chat_request(CHAT | {"messages": [{"role": "user", "content": parts}]}, None).messages[0].content == "hello"


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": True},
        {"n": 2},
        {"n": True},
        {"top_p": 0.9},
        {"tools": [{}]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"frobnicate": 1},
        {"model": None},
        {"messages": []},
        {"messages": CHAT["messages"] * (MOST_MESSAGES + 1)},
        {"messages": [{"role": "system", "content": "be nice"}, *CHAT["messages"]]},
        {"messages": [*CHAT["messages"], {"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]},
        {"messages": ["hello"]},
        {"stream": "yes"},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"metadata": {"conversation": "a b"}},
        {"metadata": {"conversation": 3}},
        {"metadata": []},
        {"mightnt": {"wait_seconds": -1}},
        {"mightnt": {"wait_seconds": True}},
        {"mightnt": {"budget": 100}},
    ],
)
def test_what_cannot_be_honored_is_refused(change):
    assert status(chat_request, CHAT | change, None) == 400


@given(
    st.dictionaries(st.sampled_from([*CHAT, *ONLY, *IGNORED, "stream", "metadata", "mightnt", "max_tokens"]), values)
)
def test_any_value_is_a_request_or_a_refusal(change):
    try:
        chat_request(CHAT | change, None)
    except Refusal as refusal:
        if refusal.status != 400:
            raise
