"""Chats are read as they are or refused with file and line; a split loses nothing and depends on its seed alone."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.dialogues import (
    MINIMUM_DIALOGUES,
    Message,
    parse_dialogue,
    read_dialogues,
    split_dialogues,
    write_dialogues,
)
from mightnt.errors import InputError

messages = st.builds(Message, st.sampled_from(["user", "assistant"]), st.text()) | st.builds(
    lambda begun, rest: Message("assistant", begun + rest, begun), st.text(), st.text()
)
dialogues = st.lists(messages, min_size=1, max_size=5).map(tuple).filter(lambda d: any(m.demonstrates for m in d))


def numbered(n):
    return [(Message("user", "hello"), Message("assistant", f"this is number {i}")) for i in range(n)]


# Reading


@given(st.lists(dialogues, min_size=1, max_size=5))
def test_dialogues_come_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("chats") / "chat.jsonl"
    write_dialogues(path, written)
    assert read_dialogues(path) == written


def test_other_keys_are_ignored_and_empty_turns_kept():
    message = {"role": "assistant", "content": "", "name": "Ann"}
    assert parse_dialogue({"id": 3, "messages": [message]}, "here") == (Message("assistant", ""),)


def test_what_somebody_else_began_is_kept_and_written_only_where_there_is_something(tmp_path):
    value = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ab", "begun": "a"}]}
    assert parse_dialogue(value, "here") == (Message("user", "hi"), Message("assistant", "ab", "a"))
    write_dialogues(tmp_path / "chat.jsonl", [parse_dialogue(value, "here")])
    assert json.loads((tmp_path / "chat.jsonl").read_text()) == value


@pytest.mark.parametrize(("role", "content"), [("user", "ab"), ("assistant", "b"), ("system", "a")])
def test_a_turn_that_does_not_begin_so_is_none(role, content):
    with pytest.raises(InputError, match="has begun 'a'"):
        Message(role, content, "a")


def test_what_demonstrates():
    turns = [Message("assistant", *words) for words in (("ab",), ("ab", "a"), ("ab", "ab"), ("",))]
    assert [turn.demonstrates for turn in turns] == [True, True, False, True]
    assert not Message("user", "ab").demonstrates


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "non-empty list 'messages'"),
        ({}, "non-empty list 'messages'"),
        ({"messages": []}, "non-empty list 'messages'"),
        ({"messages": {"role": "user"}}, "non-empty list 'messages'"),
        ({"messages": ["hello"]}, "message 0 has role None"),
        ({"messages": [{"content": "hello"}]}, "message 0 has role None"),
        (
            {"messages": [{"role": "assistant", "content": "a"}, {"role": "system", "content": "b"}]},
            "message 1 .*'system'",
        ),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "message 0 has role"),
        ({"messages": [{"role": "assistant"}]}, "message 0 has content of type NoneType"),
        ({"messages": [{"role": "assistant", "content": 3}]}, "content of type int"),
        ({"messages": [{"role": "assistant", "content": ["a"]}]}, "content of type list"),
        ({"messages": [{"role": "assistant", "content": "\ud83d!"}]}, "half a character"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant turn"),
        ({"messages": [{"role": "assistant", "content": "ab", "begun": "ab"}]}, "no assistant turn of a demonstrator"),
        ({"messages": [{"role": "assistant", "content": "ab", "begun": "b"}]}, "message 0 has 'begun'"),
        ({"messages": [{"role": "assistant", "content": "ab", "begun": None}]}, "message 0 has 'begun'"),
        ({"messages": [{"role": "user", "content": "ab", "begun": "a"}]}, "message 0 has 'begun'"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_line(tmp_path, value, says):
    good = json.dumps({"messages": [{"role": "assistant", "content": "fine"}]})
    path = tmp_path / "chat.jsonl"
    path.write_text(f"{good}\n\n{json.dumps(value)}\n{good}\n")
    with pytest.raises(InputError, match=rf"chat\.jsonl:3: .*{says}"):
        read_dialogues(path)


def test_malformed_lines_are_named(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text('{"messages": [\n')
    with pytest.raises(InputError, match=r"chat\.jsonl:1: not JSON"):
        read_dialogues(path)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path, text):
    (tmp_path / "chat.jsonl").write_text(text)
    with pytest.raises(InputError, match="is empty"):
        read_dialogues(tmp_path / "chat.jsonl")


# Splitting


@given(st.integers(MINIMUM_DIALOGUES, 60), st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(0, 99))
def test_a_split_loses_nothing_repeats_nothing_and_keeps_the_order(n, fraction, seed):
    everything = numbered(n)
    fitted, held_out = split_dialogues(everything, fraction, seed)
    assert sorted(fitted + held_out, key=everything.index) == everything
    assert len(set(fitted) & set(held_out)) == 0
    assert fitted == sorted(fitted, key=everything.index)
    assert held_out == sorted(held_out, key=everything.index)
    assert fitted
    assert held_out
    assert abs(len(held_out) - fraction * n) <= 1
    assert split_dialogues(everything, fraction, seed) == (fitted, held_out)


def test_the_seed_matters_and_nothing_else_does():
    splits = {tuple(split_dialogues(numbered(40), 0.25, seed)[1]) for seed in range(20)}
    assert len(splits) == 20
    shouted = [(a, Message("assistant", b.content.upper())) for a, b in numbered(40)]
    quiet, loud = (split_dialogues(chats, 0.25, 3)[1] for chats in (numbered(40), shouted))
    assert [shouted.index(d) for d in loud] == [numbered(40).index(d) for d in quiet]


def test_every_dialogue_is_held_out_equally_often():
    n_seeds, n = 400, 20
    counts = dict.fromkeys(numbered(n), 0)
    for seed in range(n_seeds):
        for dialogue in split_dialogues(numbered(n), 0.25, seed)[1]:
            counts[dialogue] += 1
    assert sum(counts.values()) == n_seeds * 5
    assert all(abs(count - 100) < 5 * math.sqrt(75) for count in counts.values()), (
        "five standard deviations of a binomial"
    )


@pytest.mark.parametrize(("fraction", "n_held_out"), [(1e-9, 1), (0.2, 2), (0.999, 9)])
def test_both_parts_get_at_least_one(fraction, n_held_out):
    fitted, held_out = split_dialogues(numbered(10), fraction, 0)
    assert (len(fitted), len(held_out)) == (10 - n_held_out, n_held_out)


def test_too_few_dialogues_are_refused():
    for n in (0, 1, MINIMUM_DIALOGUES - 1):
        with pytest.raises(InputError, match=rf"got {n} dialogue\(s\); at least 10"):
            split_dialogues(numbered(n), 0.2, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_fractions_outside_the_open_interval_are_refused(fraction):
    with pytest.raises(InputError, match="not between 0 and 1"):
        split_dialogues(numbered(20), fraction, 0)
