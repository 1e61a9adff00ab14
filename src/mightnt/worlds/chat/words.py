"""What is said in the chat: marks, vocabulary, the teacher's templates and the student's replies.

A template is a row of positions; each position is a set of words that are equally likely (``a|b|c`` or a slot such as
``{topic}``). One position is one token, so the position in the template is the position in the turn and a filter over
templates gives exact next-token probabilities.
"""

from __future__ import annotations

from functools import cache

MARKS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, USER, ASSISTANT, END = range(4)
N_GIVEN_MARKS = 3
"""Pad and the two role marks are given by the chat itself; nobody chooses them. Every later token is an action."""

MAX_TURN_TOKENS = 15
"""A teacher's turn holds at most this many tokens, its end included; at the limit the end is given."""

SLOTS = {
    "topic": "area sum length width angle slope ratio product",
    "shape": "triangle square circle line graph table",
    "number": "two three four five six seven eight nine ten twelve",
    "unit": "blocks steps tiles boxes points",
}

TEMPLATES = {
    "greeting": (
        "hello|hi ! today we work on the {topic} of a {shape} .",
        "welcome|hello , what is the {topic} of this {shape} ?",
    ),
    "question": (
        "what|which is the {topic} of this|the {shape} ?",
        "can you find the {topic} when it has {number} sides|parts ?",
        "how many {unit} are in {number} times {number} ?",
        "what do you get for {number} plus|minus|times {number} ?",
        "now find the {topic} of {number} {unit} please .",
        "which {shape} has a {topic} of {number} {unit} ?",
    ),
    "hint": (
        "try to draw|sketch the {shape} first .",
        "look at the {topic} again|carefully and count the {unit} .",
        "remember that a {shape} has {number} sides|parts .",
        "first add|multiply {number} and {number} then compare|check .",
        "hint : the {topic} is less|more than {number} .",
    ),
    "explanation": (
        "the {topic} means|is how many {unit} fit in the {shape} .",
        "because {number} times {number} gives the {topic} of the {shape} .",
        "to get the {topic} we add|multiply all the sides|parts .",
        "think of the {topic} as {number} {unit} in a row .",
    ),
    "praise and question": (
        "great|good|nice|excellent job|work ! what is the {topic} of the {shape} ?",
        "yes , that is right|correct ! now find {number} times {number} .",
        "well done ! can you find the {topic} of {number} {unit} too ?",
    ),
    "encouragement and hint": (
        "not quite|yet , try to draw|sketch the {shape} first .",
        "do not worry , look at the {topic} again|carefully .",
        "that is close|hard , but remember a {shape} has {number} sides|parts .",
        "take your time and count the {unit} in the {shape} .",
    ),
}

CATEGORIES = ("greet", "correct", "wrong", "confused", "frustrated", "idle", "happy")
"""What the student's last reply was like; a function of its words."""

ACTS = {
    "greet": ({"greeting": 0.8, "question": 0.2}, {"greeting": 0.2, "question": 0.8}),
    "correct": ({"praise and question": 0.7, "question": 0.3}, {"praise and question": 0.5, "question": 0.5}),
    "wrong": (
        {"encouragement and hint": 0.5, "hint": 0.3, "explanation": 0.2},
        {"encouragement and hint": 0.2, "hint": 0.3, "explanation": 0.5},
    ),
    "confused": (
        {"explanation": 0.6, "hint": 0.3, "encouragement and hint": 0.1},
        {"explanation": 0.3, "hint": 0.3, "encouragement and hint": 0.4},
    ),
    "frustrated": (
        {"encouragement and hint": 0.7, "hint": 0.2, "explanation": 0.1},
        {"encouragement and hint": 0.5, "hint": 0.1, "explanation": 0.4},
    ),
    "idle": (
        {"question": 0.6, "hint": 0.2, "encouragement and hint": 0.2},
        {"question": 0.3, "hint": 0.3, "encouragement and hint": 0.4},
    ),
    "happy": (
        {"question": 0.6, "explanation": 0.2, "hint": 0.2},
        {"question": 0.3, "explanation": 0.3, "hint": 0.4},
    ),
}
"""The demonstrator's habits: category of the last reply -> probabilities of acts in the (first, second) half.

The halves differ in how often, not in what: what the demonstrator might do depends on the last reply alone. (With acts
that one half never uses, suffix counts cannot know what is excluded; docs/log.md has the numbers.)
"""

REPLIES = {
    "greet": ("hello|hi teacher", "hi , ready to start"),
    "correct": ("i got {number} , it works", "so it is {number} , easy", "{number} {unit} , i checked it"),
    "wrong": ("maybe {number} , i guess", "{number} or {number} , not sure", "it could be {number} {unit} perhaps"),
    "confused": ("i do not understand the {topic}", "what do you mean by {topic}", "sorry , i am lost"),
    "frustrated": ("this is too hard", "i give up", "i hate this {topic}"),
    "idle": ("okay", "fine", "okay then", "fine , go on"),
    "happy": ("thank you so much", "wow , i love this", "yay , that feels great"),
}

SENTIMENT = {
    "greet": 0.5,
    "correct": 0.6,
    "wrong": 0.35,
    "confused": 0.25,
    "frustrated": 0.05,
    "idle": 0.57,
    "happy": 0.96,
}
"""The proxy reward of a reply, in [0, 1]."""

PRAISE = frozenset("great good nice excellent well right correct".split())
WORK = {
    "question": frozenset("? please".split()),
    "hint": frozenset("try look remember hint first count".split()),
    "explanation": frozenset("means because think all fit".split()),
}
COMFORT = frozenset("worry close yet quite time".split())
SHAPES = frozenset(SLOTS["shape"].split())


@cache
def positions(template: str) -> list[tuple[str, ...]]:
    """The words each position of a template may hold."""
    return [
        tuple(SLOTS[part[1:-1]].split()) if part.startswith("{") else tuple(part.split("|"))
        for part in template.split()
    ]


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token, marks first; the index of a word is its token id."""
    spoken = [*(t for ts in TEMPLATES.values() for t in ts), *(t for ts in REPLIES.values() for t in ts)]
    words = dict.fromkeys(word for template in spoken for choices in positions(template) for word in choices)
    return (*MARKS, *words)


@cache
def word_ids() -> dict[str, int]:
    """Token id of every word."""
    return {word: index for index, word in enumerate(vocabulary())}


def text_of(tokens: list[int]) -> str:
    """The words of a turn, without its end."""
    return " ".join(vocabulary()[token] for token in tokens if token != END)


def tokens_of(text: str) -> list[int]:
    """Token ids of a turn's words; unknown words raise ``KeyError``."""
    return [word_ids()[word] for word in text.split()]
