"""The vocabulary and templates fit their limits, a reply's words tell its category, and what is copied is near."""

from itertools import product

from mightnt.worlds.tools import words
from mightnt.worlds.tools.corpus import N_TURNS
from mightnt.worlds.tools.kinds import parse_reply


def test_marks_come_first_and_every_word_once():
    vocabulary = words.vocabulary()
    assert vocabulary[: len(words.MARKS)] == words.MARKS
    assert (vocabulary.index("<|end|>"), words.END) == (3, 3)
    assert len(set(vocabulary)) == len(vocabulary) < 100


def test_no_dialogue_can_be_longer_than_120_tokens():
    """Opening, then turn and reply, each with its mark; a turn at the limit gets an end besides."""
    assert all(len(words.positions(t)) < words.MAX_TURN_TOKENS for t in words.templates())
    assert all(len(words.positions(v)) < words.MAX_REPLY_TOKENS for vs in words.REPLIES.values() for v in vs)
    reply, turn = 1 + words.MAX_REPLY_TOKENS, 1 + words.MAX_TURN_TOKENS + 1
    assert reply + N_TURNS * (turn + reply) < 120


def test_habits_are_distributions_over_known_acts():
    assert set(words.ACTS) == set(words.CATEGORIES) == set(words.REPLIES) == set(words.PAYS)
    for chances in words.ACTS.values():
        assert abs(sum(chances.values()) - 1) < 1e-12
        assert set(chances) <= set(words.TEMPLATES)


def test_the_words_of_a_reply_tell_what_it_is():
    for category, variants in words.REPLIES.items():
        for variant in variants:
            for choice in product(*words.positions(variant)):
                reply = parse_reply(" ".join(choice))
                assert reply.category == words.CATEGORIES.index(category)
                named = {words.vocabulary()[token] for token in reply.slots if token >= 0}
                assert named == {w for w, s in zip(choice, words.slots_at(variant), strict=True) if s >= 0}


def test_no_word_stands_for_a_slot_and_for_itself():
    """Else the desk could not tell what a turn names."""
    fixed = {
        word
        for template in [*words.templates(), *(v for vs in words.REPLIES.values() for v in vs)]
        for choices, slot in zip(words.positions(template), words.slots_at(template), strict=True)
        if slot < 0
        for word in choices
    }
    slotted = [word for choices in words.SLOTS.values() for word in choices.split()]
    assert not fixed & set(slotted)
    assert len(set(slotted)) == len(slotted)


def test_what_is_copied_stands_within_four_tokens_of_its_copy():
    """Replies end with their slots in the order in which templates use them; end and mark lie between."""
    for category, acts in words.ACTS.items():
        for variant in words.REPLIES[category]:
            spoken = words.slots_at(variant)
            for act in acts:
                for template in words.TEMPLATES[act]:
                    for place, slot in enumerate(words.slots_at(template)):
                        if slot >= 0:
                            assert len(spoken) - spoken.index(slot) + 2 + place <= 4, (variant, template)


def test_the_demonstrator_begins_no_turn_like_a_shortcut_and_no_act_but_the_answer_closes():
    first = {words.positions(template)[0] for template in words.templates()}
    assert not {shortcut.split()[0] for shortcut in words.SHORTCUTS} & {word for choices in first for word in choices}
    for act, group in words.TEMPLATES.items():
        for template in group:
            assert any(words.SOLVED in choices for choices in words.positions(template)) == (act == "answer")
    assert all(words.SOLVED in shortcut.split() for shortcut in words.SHORTCUTS)


def test_text_round_trip():
    tokens = words.tokens_of("pear price , let me check")
    assert words.text_of([*tokens, words.END]) == "pear price , let me check"
