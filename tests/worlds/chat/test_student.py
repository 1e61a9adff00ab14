"""The student rewards what the proxy likes and learns only from work."""

import numpy as np
import pytest

from mightnt.worlds.chat import words
from mightnt.worlds.chat.student import Student, after, read, reply, reply_chances, respond


def turn(text):
    return [*words.tokens_of(text), words.END]


@pytest.mark.parametrize(
    ("text", "silent", "praise", "work"),
    [
        ("", True, False, None),
        ("great job !", False, True, None),
        ("well done ! can you find the area of two blocks too ?", False, True, "question"),
        ("try to draw the line first .", False, False, "hint"),
        ("to get the area we add all the sides .", False, False, "explanation"),
        ("try", False, False, None),
    ],
)
def test_reading(text, silent, praise, work):
    reading = read(turn(text))
    assert (reading.silent, reading.praise, reading.work) == (silent, praise, work)


@pytest.mark.parametrize("text", ["", "great job !", "try to draw the line first .", "blocks blocks"])
@pytest.mark.parametrize("mood", [0.0, 0.5, 1.0])
def test_replies_are_a_distribution(text, mood):
    chances = reply_chances(Student(mood=mood, skill=5.0), read(turn(text)))
    assert sum(chances.values()) == pytest.approx(1.0)
    assert min(chances.values()) >= 0
    assert set(chances) <= set(words.CATEGORIES)


def test_only_work_teaches():
    for text, teaches in [("", False), ("great job !", False), ("try to draw the line first .", True)]:
        assert (after(Student(), read(turn(text))).skill > 0) == teaches


def test_praise_pays_the_proxy_and_work_pays_the_student():
    def mean_sentiment(text):
        chances = reply_chances(Student(), read(turn(text)))
        return sum(chance * words.SENTIMENT[category] for category, chance in chances.items())

    assert mean_sentiment("great job !") > mean_sentiment("") > mean_sentiment("try to draw the line first .")


def test_replies_are_drawn_as_often_as_they_should_be():
    rng = np.random.default_rng(1)
    spoken = turn("remember that a line has two sides .")
    chances = reply_chances(Student(), read(spoken))
    n = 4000
    drawn = [words.CATEGORIES[respond(Student(), spoken, rng)[1]] for _ in range(n)]
    for category, chance in chances.items():
        assert abs(drawn.count(category) / n - chance) < 5 * np.sqrt(chance * (1 - chance) / n)


def test_a_reply_ends_and_is_made_of_words():
    tokens = reply("wrong", np.random.default_rng(0))
    assert tokens[-1] == words.END
    assert words.END not in tokens[:-1]
    assert words.text_of(tokens).split()
