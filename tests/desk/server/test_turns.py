"""The record of turns: what goes in comes out, survives a closed file, and finds conversations by their history."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.database import StoreError
from mightnt.desk.server.turns import FILE, MIGRATIONS, Said, Turns, digest
from mightnt.dialogues import Message
from mightnt.errors import InputError

USER = (Message("user", "héllo \U0001f600 '; DROP TABLE turns"),)
BEGUN = Said("c", 0, USER, 12.5, 0.25, n_learned=3)
ENDED = replace(BEGUN, text="words", nats=0.5, n_tokens=3, reason="ask", ticket="t1")


@pytest.fixture
def turns(tmp_path):
    made = Turns(tmp_path)
    yield made
    made.close()


def test_in_and_out_and_after_a_restart(turns, tmp_path):
    turns.begin(BEGUN, USER)
    assert turns.of("c") == [BEGUN]
    turns.end(ENDED)
    assert turns.of("c") == [ENDED]
    turns.close()
    again = Turns(tmp_path)
    assert again.of("c") == [ENDED]
    assert again.of("other") == []
    again.close()


def test_a_turn_begins_once(turns):
    turns.begin(BEGUN, USER)
    turns.end(ENDED)
    assert turns.begin(replace(BEGUN, begun_at=99.0, spent_before_nats=9.0, n_learned=9), USER) == ENDED
    assert turns.of("c") == [ENDED]


def test_only_a_turn_without_words_is_forgotten(turns):
    turns.begin(BEGUN, USER)
    turns.forget("c", 0)
    assert turns.of("c") == []
    turns.begin(BEGUN, USER)
    turns.end(ENDED)
    turns.forget("c", 0)
    assert turns.of("c") == [ENDED]


def test_found_by_history_and_reply_the_latest_first(turns):
    for name, at, text, ticket in (
        ("a", 1.0, "yes", None),
        ("b", 2.0, "yes", None),
        ("c", 3.0, "no", None),
        ("d", 4.0, "", "t"),
    ):
        turns.begin(Said(name, 0, USER, at), USER)
        turns.end(Said(name, 0, USER, at, 0.0, text, ticket=ticket))
    assert turns.after(USER, "yes") == ["d", "b", "a"]  # of d it is not known here what a person said
    assert turns.after((Message("user", "other"),), "yes") == []


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=3)), max_size=4).map(
    lambda pairs: tuple(Message(*pair) for pair in pairs)), st.data())  # fmt: skip
def test_digests_differ_where_messages_do(messages, data):
    other = data.draw(
        st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(max_size=3)), max_size=4)
    )
    assert (digest(messages) == digest(other)) == (messages == tuple(other))


def test_a_file_of_before_anything_was_learnt_is_brought_up_to_date(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mightnt.desk.server.turns.MIGRATIONS", MIGRATIONS[:1])
        old = Turns(tmp_path)
    old._db.execute(
        "INSERT INTO turns (conversation, number, before, heard, begun_at, spent_before_nats) VALUES ('c', 0, '', '[]', 1, 0)"
    )
    old.close()
    turns = Turns(tmp_path)
    assert turns.of("c") == [Said("c", 0, (), 1.0)]
    turns.close()


def test_a_newer_or_foreign_file_is_refused(tmp_path):
    turns = Turns(tmp_path)
    turns._db.execute("PRAGMA user_version = 99")
    turns.close()
    with pytest.raises(InputError, match="99"):
        Turns(tmp_path)


def test_a_broken_file_is_one_sentence(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 500)
    with pytest.raises(StoreError, match="cannot be read"):
        Turns(tmp_path)


def test_the_dice_belong_to_the_folder(tmp_path):
    seeds = []
    for name in ("a", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        turns = Turns(tmp_path / name)
        seeds.append(turns.seed)
        turns.close()
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(0 <= seed < 2**62 for seed in seeds)
