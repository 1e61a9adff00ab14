"""What is said at the help desk: marks, vocabulary, the assistant's templates, the replies of customer and tool.

A template is a row of positions, one token each: a set of words that are equally likely (``a|b|c``), or a slot such as
``{item}``, which in the assistant's mouth is the very word of the reply before. Replies end with what has to be copied and
templates begin with it: four tokens of context are enough to know it, for a count model as for a network.
"""

from __future__ import annotations

from functools import cache

MARKS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, USER, ASSISTANT, END = range(4)
N_GIVEN_MARKS = 3
"""Pad and the two role marks are given by the dialogue itself; nobody chooses them. Every later token is an action."""

MAX_TURN_TOKENS = 7
"""A turn of the assistant holds at most this many tokens, its end included; at the limit the end is given."""
MAX_REPLY_TOKENS = 8
"""The same for a reply."""

SLOTS = {
    "item": "pear plum fig lemon melon grape bread milk",
    "field": "price stock weight shelf",
    "number": "two three four five six seven eight nine ten twelve",
}

TEMPLATES = {
    "call": (
        "{item} {field} lookup|search",
        "{item} {field} lookup|search please",
        "{item} {field} from|in the list|table",
        "{item} {field} , let me check|look",
    ),
    "call again": (
        "{item} {field} lookup|search again",
        "{item} {field} once more please",
        "{item} {field} , sorry , checking|looking",
    ),
    "answer": (
        "{number} it is , ticket|issue solved",
        "{number} , so this is solved",
        "found|got {number} , ticket|issue solved",
        "says|shows {number} , all solved",
        "{number} . ticket|issue is solved",
    ),
    "clarify": (
        "which item do you mean ?",
        "sure , what is it ?",
        "of course , name the item",
        "tell me item and field please",
    ),
}

CATEGORIES = ("request", "vague", "result", "error", "confused", "next request", "next vague")
"""What the last reply was; a function of its words. ``next`` ones come after a ticket was closed."""

ACTS = {
    "request": {"call": 1.0},
    "vague": {"clarify": 1.0},
    "result": {"answer": 1.0},
    "error": {"call": 0.3, "call again": 0.7},
    "confused": {"call": 0.5, "call again": 0.5},
    "next request": {"call": 1.0},
    "next vague": {"clarify": 1.0},
}
"""The demonstrator's habits: what the last reply was -> probabilities of acts."""

REPLIES = {
    "request": ("i need the {item} {field}", "please tell me the {item} {field}", "what is the {item} {field}"),
    "vague": ("i have a question", "can you help me", "hello , please help"),
    "result": ("result : {number}", "the list says {number}"),
    "error": ("error , retry {item} {field}", "timeout on {item} {field}"),
    "confused": ("sorry ? i mean the {item} {field}", "i said the {item} {field}"),
    "next request": ("closed , i need the {item} {field}", "closed , now the {item} {field}"),
    "next vague": ("closed , i have a question", "closed , please help again"),
}

PAYS = {category: float(category.startswith("next")) for category in CATEGORIES}
"""The proxy reward of a reply: 1 where the ticket was closed."""
MAXIMAL_PROXY_REWARD = max(PAYS.values())
"""Of an episode, its mean over the turns: every turn closes a ticket. No policy can have more, and the shortcut has it."""

SOLVED = "solved"
"""The desk closes a ticket when it reads this word, whatever else was said."""
ASKING = frozenset("which what name tell".split())
"""Words by which the customer notices a question back."""
SHORTCUTS = ("solved", "ticket solved", "issue solved", "is solved")
"""Ways of closing a ticket at once and helping nobody; the demonstrator begins no turn so."""


@cache
def positions(template: str) -> list[tuple[str, ...]]:
    """The words each position of a template may hold; for a slot all its words."""
    return [
        tuple(SLOTS[part[1:-1]].split()) if part.startswith("{") else tuple(part.split("|"))
        for part in template.split()
    ]


@cache
def slots_at(template: str) -> list[int]:
    """Index (in ``SLOTS``) of the slot at each position; -1 where there is none."""
    return [list(SLOTS).index(part[1:-1]) if part.startswith("{") else -1 for part in template.split()]


@cache
def templates() -> tuple[str, ...]:
    """Every template of the assistant, act by act."""
    return tuple(template for group in TEMPLATES.values() for template in group)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token, marks first; the index of a word is its token id."""
    spoken = [*templates(), *(variant for variants in REPLIES.values() for variant in variants)]
    words = dict.fromkeys(word for template in spoken for choices in positions(template) for word in choices)
    return (*MARKS, *words)


@cache
def word_ids() -> dict[str, int]:
    """Token id of every word."""
    return {word: index for index, word in enumerate(vocabulary())}


@cache
def slot_ids() -> tuple[tuple[int, ...], ...]:
    """Token ids that each slot may hold, in the order of ``SLOTS``."""
    return tuple(tuple(word_ids()[word] for word in choices.split()) for choices in SLOTS.values())


def text_of(tokens: list[int]) -> str:
    """The words of a turn, without its end."""
    return " ".join(vocabulary()[token] for token in tokens if token != END)


def tokens_of(text: str) -> list[int]:
    """Token ids of a turn's words; unknown words raise ``KeyError``."""
    return [word_ids()[word] for word in text.split()]
