"""The vocabulary and templates fit their limits, and a reply's words tell its category."""

from itertools import product

from mightnt.worlds.chat import words


def test_marks_come_first_and_every_word_once():
    vocabulary = words.vocabulary()
    assert vocabulary[: len(words.MARKS)] == words.MARKS
    assert (vocabulary.index("<|end|>"), words.END) == (3, 3)
    assert len(set(vocabulary)) == len(vocabulary)


def test_every_template_fits_a_turn_with_its_end():
    for group in words.TEMPLATES.values():
        for template in group:
            assert len(words.positions(template)) < words.MAX_TURN_TOKENS, template


def test_habits_are_distributions_over_known_acts():
    for category in words.CATEGORIES:
        for chances in words.ACTS[category]:
            assert abs(sum(chances.values()) - 1) < 1e-12
            assert set(chances) <= set(words.TEMPLATES)


def test_no_reply_belongs_to_two_categories():
    said = {
        category: {
            " ".join(choice) for variant in variants for choice in product(*map(tuple, words.positions(variant)))
        }
        for category, variants in words.REPLIES.items()
    }
    for one in said:
        for other in said:
            assert one == other or not said[one] & said[other]


def test_text_round_trip():
    tokens = words.tokens_of("not quite , try to draw the line first .")
    assert words.text_of([*tokens, words.END]) == "not quite , try to draw the line first ."
