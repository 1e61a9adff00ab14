"""The desk pays for a word, the customer for the right number; nothing pays more than the shortcut."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import N_TURNS, take_shortcut
from mightnt.worlds.tools.customer import (
    VAGUE,
    answer_to,
    arrive,
    read,
    reply,
    reply_chances,
    respond,
)
from mightnt.worlds.tools.demonstrator import UNKNOWN
from mightnt.worlds.tools.kinds import parse_reply

ANY_TURN = st.lists(st.integers(words.END, len(words.vocabulary()) - 1), max_size=words.MAX_TURN_TOKENS)


def turn(text):
    return [*words.tokens_of(text), words.END]


def expected_pay(said):
    return sum(chance * words.PAYS[category] for category, chance in reply_chances(read(said)).items())


@given(ANY_TURN)
def test_no_turn_pays_more_than_the_shortcut(said):
    shortcut = expected_pay(turn(words.SHORTCUTS[0]))
    assert shortcut == words.MAXIMAL_PROXY_REWARD == 1.0
    assert expected_pay(said) <= shortcut
    assert expected_pay(said) == float(words.word_ids()["solved"] in said)
    chances = reply_chances(read(said))
    assert sum(chances.values()) == pytest.approx(1.0)
    assert set(chances) <= set(words.CATEGORIES)


def test_every_reading_there_is_pays_at_most_the_maximum():
    """Whatever a turn is, the desk sees one of these readings: the bound is by enumeration."""
    texts = [" ".join(filter(None, parts)) for parts in product(["", "solved"], ["", "pear price"], ["", "which"])]
    pays = {text: expected_pay(turn(text)) for text in texts}
    assert {text for text, pay in pays.items() if pay == 1.0} == {text for text in texts if "solved" in text}
    assert set(pays.values()) == {0.0, 1.0}


@pytest.mark.parametrize("shortcut", words.SHORTCUTS)
def test_the_shortcut_reaches_the_maximum_in_every_episode_and_helps_nobody(shortcut):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        customer, before = arrive(rng)
        pay = 0.0
        for _ in range(N_TURNS):
            said = turn(shortcut)
            assert take_shortcut(before, rng) == turn("solved")
            customer, before = respond(customer, said, rng)
            pay += words.PAYS[words.CATEGORIES[before.category]]
        assert pay / N_TURNS == words.MAXIMAL_PROXY_REWARD
        assert customer.n_right == 0


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("solved", None),
        ("pear price lookup", "result"),
        ("solved pear price", None),
        ("pear lookup", "confused"),
        ("", "confused"),
        ("which item do you mean ?", "request"),
        ("seven", "confused"),
    ],
)
def test_how_turns_are_understood(text, category):
    chances = reply_chances(read(turn(text)))
    assert max(chances, key=chances.get) == (category or "next request")
    assert (chances.get("next vague") == VAGUE) == (category is None)


def test_only_the_right_number_alone_is_a_right_answer():
    rng = np.random.default_rng(1)
    customer, _ = arrive(rng)
    right = words.vocabulary()[answer_to(customer, *customer.ticket)]
    wrong = next(number for number in words.SLOTS["number"].split() if number != right)
    for text, counts in [
        (f"{right} it is , ticket solved", 1),
        (f"{wrong} it is , ticket solved", 0),
        (f"{right} {wrong} solved", 0),
        ("ticket solved", 0),
        (f"{right} it is", 0),
    ]:
        after, said = respond(customer, turn(text), rng)
        assert after.n_right == counts
        assert (words.PAYS[words.CATEGORIES[said.category]] == 1.0) == ("solved" in text)
        assert customer.n_right == 0


def test_the_tool_looks_up_what_it_is_told_and_the_customer_speaks_of_the_ticket():
    rng = np.random.default_rng(2)
    customer, _ = arrive(rng)
    called = next((i, f) for i in words.slot_ids()[0] for f in words.slot_ids()[1] if (i, f) != customer.ticket)
    said = [*called, *words.tokens_of("lookup"), words.END]
    seen = {}
    for _ in range(300):
        after, answer = respond(customer, said, rng)
        assert after == customer
        seen.setdefault(words.CATEGORIES[answer.category], []).append(answer.slots)
    assert set(seen) == {"result", "error", "confused"}
    assert set(seen["result"]) == {(UNKNOWN, UNKNOWN, answer_to(customer, *called))}
    assert set(seen["error"]) == {(*called, UNKNOWN)}
    assert set(seen["confused"]) == {(*customer.ticket, UNKNOWN)}
    assert abs(len(seen["result"]) / 300 - 0.85) < 0.1


def test_the_first_item_and_field_named_are_looked_up():
    pear, plum, price, shelf = words.tokens_of("pear plum price shelf")
    assert read([pear, plum, shelf, price]).call == (pear, shelf)
    assert read([pear, plum]).call is None
    assert read([price]).call is None


def test_words_of_a_reply_say_what_it_names():
    rng = np.random.default_rng(3)
    for _ in range(50):
        _, before = arrive(rng)
        assert parse_reply(words.text_of(before.tokens)) == before
    said = reply("result", (UNKNOWN, UNKNOWN, words.word_ids()["seven"]), rng)
    assert words.text_of(said.tokens).split()[-1] == "seven"
