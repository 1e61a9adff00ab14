"""Kinds of turns at the help desk, by hand and on the demonstrator's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import demonstrations, dialogue, other_authors, take_shortcut
from mightnt.worlds.tools.customer import reply
from mightnt.worlds.tools.demonstrator import UNKNOWN, ToolsDemonstrator, template_prior
from mightnt.worlds.tools.kinds import Kind, kind_of, kinds_in, parse_reply, shares_by_kind

REQUEST, RESULT, VAGUE = "i need the pear price", "result : seven", "can you help me"


def kind(text, before, **options):
    return kind_of(words.tokens_of(text), parse_reply(before), **options).kind


@pytest.mark.parametrize(
    ("text", "before", "expected"),
    [
        ("", REQUEST, Kind.SILENCE),
        ("pear price lookup please", REQUEST, Kind.DEMONSTRATED),
        ("pear price milk please", REQUEST, Kind.DEMONSTRATED),
        ("plum price lookup please", REQUEST, Kind.WRONG_STATE),
        ("pear price lookup again", REQUEST, Kind.DEMONSTRATED),
        ("pear price once more please", REQUEST, Kind.WRONG_STATE),
        ("pear price once more please", "timeout on pear price", Kind.DEMONSTRATED),
        ("pear price lookup please", RESULT, Kind.WRONG_STATE),
        ("seven it is , issue solved", RESULT, Kind.DEMONSTRATED),
        ("seven it is , issue milk", RESULT, Kind.DEMONSTRATED),
        ("eight it is , issue solved", RESULT, Kind.SHORTCUT),
        ("seven it is , issue solved", REQUEST, Kind.SHORTCUT),
        ("solved", REQUEST, Kind.SHORTCUT),
        ("solved solved solved", VAGUE, Kind.SHORTCUT),
        ("which item do you mean ?", VAGUE, Kind.DEMONSTRATED),
        ("which item do you mean ?", REQUEST, Kind.WRONG_STATE),
        ("milk milk", REQUEST, Kind.GARBLED),
        ("which item do you mean", VAGUE, Kind.GARBLED),
    ],
)
def test_turns_made_by_hand(text, before, expected):
    assert kind(text, before) == expected


def test_no_typo_allowed_means_none():
    assert kind("pear price milk please", REQUEST, typos_allowed=0) == Kind.GARBLED
    found = kind_of(words.tokens_of("pear price milk please"), parse_reply(REQUEST))
    assert (words.templates()[found.template], found.n_typos) == ("{item} {field} lookup|search please", 1)


def fits(turn, before, slots_free, allowed):
    """Templates that explain a turn, word by word: pairs (index, typos)."""
    spoken = [words.vocabulary()[token] for token in turn if token != words.END]
    found = []
    for index, template in enumerate(words.templates()):
        choices, slots = words.positions(template), words.slots_at(template)
        if len(choices) != len(spoken):
            continue
        slot_words = [(word, c, slot) for word, c, slot in zip(spoken, choices, slots, strict=True) if slot >= 0]
        if any(
            word not in c if slots_free else words.word_ids()[word] != before.slots[slot]
            for word, c, slot in slot_words
        ):
            continue
        typos = sum(word not in c for word, c, slot in zip(spoken, choices, slots, strict=True) if slot < 0)
        if typos <= allowed:
            found.append((index, typos))
    return found


@given(
    st.integers(0, len(words.templates())),
    st.integers(0, 2**32 - 1),
    st.sampled_from([REQUEST, RESULT, VAGUE, "timeout on pear price", "closed , please help again"]),
)
def test_every_turn_has_the_one_kind_whose_rule_it_meets(template, seed, before):
    """Templates with a few words replaced, and turns of any words (the last ``template``)."""
    rng, reply_before = np.random.default_rng(seed), parse_reply(before)
    any_word = rng.integers(words.END, len(words.vocabulary()), size=words.MAX_TURN_TOKENS - 1)
    if template < len(words.templates()):
        choices, slots = words.positions(words.templates()[template]), words.slots_at(words.templates()[template])
        turn = [
            reply_before.slots[s]
            if s >= 0 and reply_before.slots[s] >= 0 and seed % 3
            else words.word_ids()[rng.choice(c)]
            for c, s in zip(choices, slots, strict=True)
        ]
        for place in rng.choice(len(turn), int(rng.integers(3)), replace=False):
            turn[place] = int(rng.integers(words.END + 1, len(words.vocabulary())))
    else:
        turn = any_word.tolist()
    possible = np.isfinite(template_prior()[reply_before.category])
    here = any(possible[i] for i, _ in fits(turn, reply_before, False, 1))
    anywhere = bool(fits(turn, reply_before, True, 1))
    silent = all(token == words.END for token in turn)
    solved = words.word_ids()["solved"] in turn
    rules = {
        Kind.SILENCE: silent,
        Kind.DEMONSTRATED: here,
        Kind.SHORTCUT: solved and not here,
        Kind.WRONG_STATE: anywhere and not here and not solved,
        Kind.GARBLED: not silent and not anywhere and not here and not solved,
    }
    assert sum(rules.values()) == 1
    assert rules[kind_of(turn, reply_before).kind]


@pytest.mark.parametrize("typos", [0.0, 1e-4, 0.03])
def test_the_demonstrator_s_own_turns_are_demonstrated_as_often_as_typos_allow(typos):
    """At least where the turn keeps its length and slots and at most one other word is replaced; hardly more."""
    mu, rng, n = ToolsDemonstrator(typo_probability=typos), np.random.default_rng(0), 3000
    before = parse_reply(RESULT)
    change = typos * (mu.n_actions - 1) / mu.n_actions
    least = 0.0
    for template, log_prior in zip(words.templates(), template_prior()[before.category], strict=True):
        free = sum(slot < 0 for slot in words.slots_at(template))
        kept = (1 - change) ** (len(words.slots_at(template)) - free + 1)
        least += np.exp(log_prior) * kept * ((1 - typos) ** free + free * change * (1 - typos) ** (free - 1))
    hits = sum(
        kind_of(mu.sample_turn(before.category, before.slots, rng), before).kind == "demonstrated" for _ in range(n)
    )
    assert hits == n if typos == 0 else binomtest(hits, n, least).pvalue > 1e-4


def test_dialogues_are_read_from_their_words():
    assert shares_by_kind(demonstrations(100, seed=3))[Kind.DEMONSTRATED] > 0.99
    others = shares_by_kind(other_authors(100, seed=3))
    assert set(others) == set(Kind)
    assert others[Kind.SHORTCUT] > 0.12
    closed = shares_by_kind([dialogue(take_shortcut, np.random.default_rng(i)) for i in range(5)])
    assert closed[Kind.SHORTCUT] == 1.0


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ((Message("assistant", "solved"),), "answers no reply"),
        ((Message("user", "how are you"), Message("assistant", "solved")), "no reply of"),
        ((Message("user", REQUEST), Message("assistant", "solved banana")), "'banana' is no word"),
    ],
)
def test_what_is_no_dialogue_of_this_world_is_refused(messages, what):
    with pytest.raises(InputError, match=what):
        kinds_in(messages)


def test_tokens_that_do_not_exist_are_refused():
    before = reply("vague", (UNKNOWN, UNKNOWN, UNKNOWN), np.random.default_rng(0))
    for token in (words.USER, len(words.vocabulary()), -1):
        with pytest.raises(InputError, match="nobody can say"):
            kind_of([token], before)
