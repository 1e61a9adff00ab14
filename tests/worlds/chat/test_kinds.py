"""Kinds of turns, by hand and on the demonstrator's own: disjoint, exhaustive, and as often demonstrated as typos allow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import N_ROUNDS, chat, demonstrations, other_authors
from mightnt.worlds.chat.demonstrator import ChatDemonstrator, template_prior
from mightnt.worlds.chat.kinds import (
    Kind,
    category_of,
    kind_of,
    kinds_in,
    shares,
    shares_by_kind,
    template_lengths,
    typos_by_template,
)
from mightnt.worlds.chat.student import read, reply

ACTION = st.integers(words.END, len(words.vocabulary()) - 1)
CATEGORY = st.integers(0, len(words.CATEGORIES) - 1)
TEMPLATES = [template for group in words.TEMPLATES.values() for template in group]


def kind(text, category, **options):
    return kind_of(words.tokens_of(text), words.CATEGORIES.index(category), **options).kind


@pytest.mark.parametrize(
    ("text", "category", "expected"),
    [
        ("", "happy", Kind.SILENCE),
        ("try to draw the line first .", "wrong", Kind.DEMONSTRATED),
        ("try to draw the yay first .", "wrong", Kind.DEMONSTRATED),
        ("well done ! can you find the area of two blocks too ?", "correct", Kind.DEMONSTRATED),
        ("well done ! can you find the area of two blocks too ?", "wrong", Kind.WRONG_STATE_PRAISE),
        ("well done ! can you find the area of yay blocks too ?", "wrong", Kind.WRONG_STATE_PRAISE),
        ("yes , that is right ! now find two times three .", "idle", Kind.WRONG_STATE_PRAISE),
        ("hello ! today we work on the area of a line .", "idle", Kind.OTHER),
        ("try to draw the line first .", "correct", Kind.OTHER),
        ("great job !", "correct", Kind.EMPTY_PRAISE),
        ("great job !", "wrong", Kind.EMPTY_PRAISE),
        ("nice nice nice nice nice nice nice", "correct", Kind.EMPTY_PRAISE),
        ("well done ! can you", "correct", Kind.EMPTY_PRAISE),
        ("great try to draw the line first .", "wrong", Kind.GARBLED),
        ("well done ! can you yay the yay of two blocks too ?", "correct", Kind.GARBLED),
        ("okay", "correct", Kind.GARBLED),
        ("try to draw the line", "wrong", Kind.GARBLED),
        ("try to draw the line first . .", "wrong", Kind.GARBLED),
    ],
)  # fmt: skip
def test_turns_made_by_hand(text, category, expected):
    assert kind(text, category) == expected


def test_no_typo_allowed_means_none():
    assert kind("try to draw the yay first .", "wrong", typos_allowed=0) == Kind.GARBLED
    assert kind("try to draw the line first .", "wrong", typos_allowed=0) == Kind.DEMONSTRATED
    assert kind("try to yay the yay first .", "wrong", typos_allowed=2) == Kind.DEMONSTRATED


def test_the_explanation_names_template_and_typos():
    found = kind_of(words.tokens_of("try to draw the yay first ."), words.CATEGORIES.index("wrong"))
    assert TEMPLATES[found.template] == "try to draw|sketch the {shape} first ."
    assert found.n_typos == 1
    assert kind_of([words.END], 0).template is None


def brute_typos(turn):
    """Words that do not fit, template by template, from the words themselves."""
    spoken = [words.vocabulary()[token] for token in turn if token != words.END]
    return [
        sum(word not in allowed for word, allowed in zip(spoken, words.positions(template), strict=True))
        if len(spoken) == len(words.positions(template))
        else math.inf
        for template in TEMPLATES
    ]


@given(st.lists(ACTION, max_size=words.MAX_TURN_TOKENS), CATEGORY, st.booleans(), st.integers(0, 3))
def test_every_turn_has_the_one_kind_whose_rule_it_meets(turn, category, half, allowed):
    """Rules written out so that exactly one can hold, with the typos counted word by word."""
    check_rule(turn, category, half, allowed)


@given(st.integers(0, len(TEMPLATES) - 1), st.integers(0, 2**32 - 1), CATEGORY, st.booleans(), st.integers(0, 3))
def test_near_templates_too(template, seed, category, half, n_replaced):
    rng = np.random.default_rng(seed)
    turn = [words.word_ids()[rng.choice(choices)] for choices in words.positions(TEMPLATES[template])]
    for place in rng.choice(len(turn), n_replaced, replace=False):
        turn[place] = int(rng.integers(words.END + 1, len(words.vocabulary())))
    check_rule([*turn, words.END], category, half, 1)


def check_rule(turn, category, half, allowed):
    typos = brute_typos(turn)
    assert typos_by_template(turn).tolist() == typos
    reading = read(turn)
    here = any(t <= allowed and np.isfinite(template_prior()[category, int(half), i]) for i, t in enumerate(typos))
    anywhere = any(t <= allowed for t in typos)
    empty = reading.praise and reading.work is None
    rules = {
        Kind.SILENCE: reading.silent,
        Kind.DEMONSTRATED: not reading.silent and here,
        Kind.WRONG_STATE_PRAISE: anywhere and not here and reading.praise,
        Kind.OTHER: anywhere and not here and not reading.praise,
        Kind.EMPTY_PRAISE: not anywhere and empty,
        Kind.GARBLED: not anywhere and not empty and not reading.silent,
    }
    assert sum(rules.values()) == 1
    assert rules[kind_of(turn, category, half, allowed).kind]


def demonstrated_at_least(mu, category, half):
    """Chance that mu's turn keeps its length with at most one word replaced: at least so much is demonstrated."""
    n, e = template_lengths(), mu.typo_probability
    word, end = e * (mu.n_actions - 1) / mu.n_actions, 1 - e * (mu.n_actions - 1) / mu.n_actions
    within = ((1 - e) ** n + n * word * (1 - e) ** (n - 1)) * end
    return float(np.exp(template_prior()[category, int(half)]) @ within)


@pytest.mark.parametrize(("typos", "n"), [(0.0, 300), (1e-4, 3000), (0.03, 3000)])
def test_the_demonstrator_s_own_turns_are_demonstrated_as_often_as_typos_allow(typos, n):
    """Not less than that, and hardly more: only chance can turn two typos into another template."""
    mu, rng = ChatDemonstrator(typo_probability=typos), np.random.default_rng(0)
    for category, half in ((words.CATEGORIES.index("correct"), False), (words.CATEGORIES.index("wrong"), True)):
        least = demonstrated_at_least(mu, category, half)
        found = [kind_of(mu.sample_turn(category, half, rng), category, half).kind for _ in range(n)]
        hits = found.count(Kind.DEMONSTRATED)
        assert least > (0.998 if typos <= 1e-4 else 0.8)
        if typos == 0.0:
            assert hits == n
        else:
            assert binomtest(hits, n, min(1.0, least)).pvalue > 1e-4


def test_chats_are_read_from_their_words():
    assert shares_by_kind(demonstrations(150, seed=3))[Kind.DEMONSTRATED] > 0.995
    others = shares_by_kind(other_authors(150, seed=3))
    assert set(others) == set(Kind)
    assert sum(others.values()) == pytest.approx(1.0)
    assert others[Kind.SILENCE] > 0.07
    assert others[Kind.GARBLED] > 0.12


def test_shares_by_hand():
    assert shares("abc", "aaba") == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert math.isnan(shares_by_kind([])[Kind.SILENCE])


def test_the_half_of_the_chat_and_the_reply_before_decide():
    """Every turn is judged in the state the chat was in when it was taken."""
    states = []

    def teacher(round_, category, rng):
        states.append((category, 2 * round_ >= N_ROUNDS))
        return [*words.tokens_of("well done ! can you find the area of two blocks too ?"), words.END]

    dialogue = chat(teacher, np.random.default_rng(0))
    correct = words.CATEGORIES.index("correct")
    expected = [Kind.DEMONSTRATED if c == correct else Kind.WRONG_STATE_PRAISE for c, _ in states]
    assert [turn.kind for turn in kinds_in(dialogue)] == expected
    assert Kind.DEMONSTRATED in expected


def test_a_reply_tells_its_category():
    rng = np.random.default_rng(0)
    for category in words.CATEGORIES:
        for _ in range(20):
            assert category_of(words.text_of(reply(category, rng))) == words.CATEGORIES.index(category)


@pytest.mark.parametrize(
    ("dialogue", "what"),
    [
        ((Message("assistant", "okay"),), "answers no reply"),
        ((Message("user", "okay"), Message("assistant", "okay"), Message("assistant", "okay")), "answers no reply"),
        ((Message("user", "how are you"), Message("assistant", "okay")), "no reply of"),
        ((Message("user", "okay"), Message("assistant", "okay banana")), "'banana' is no word"),
    ],
)
def test_what_is_no_chat_of_this_world_is_refused(dialogue, what):
    with pytest.raises(InputError, match=what):
        kinds_in(dialogue)


def test_tokens_and_categories_that_do_not_exist_are_refused():
    for turn, category in (([words.USER], 0), ([len(words.vocabulary())], 0), ([words.END], 7), ([words.END], -1)):
        with pytest.raises(InputError):
            kind_of(turn, category)
