"""Questions, decisions and a clock for tests of the desk."""

from dataclasses import dataclass
from math import inf

from mightnt.desk.tickets import Decision, Inquiry, Proposal, Verdict
from mightnt.dialogues import Message


@dataclass
class Clock:
    """Says what it is set to."""

    now: float = 1000.0

    def __call__(self):
        return self.now


def chat(*contents):
    """Messages of user and assistant in turn."""
    return tuple(Message("user" if i % 2 == 0 else "assistant", words) for i, words in enumerate(contents))


def inquiry(conversation="c", turn=0, messages=None, begun="", forced=False, limit_nats=inf, proposals=("Yes.", "No.")):
    """A question with two proposals."""
    return Inquiry(
        conversation,
        turn,
        chat(f"May I? ({turn})") if messages is None else messages,
        begun,
        asking_probability=0.25,
        forced=forced,
        limit_nats=limit_nats,
        left_nats=1.5,
        proposals=tuple(Proposal(f"model {i}", text, 0.5**i) for i, text in enumerate(proposals)),
        disagreement="The models disagree.",
    )


def answer(text="Yes, you may.", person="ann", key="k"):
    """An answer in words of the person's own."""
    return Decision(Verdict.ANSWER, person, key, text)


def verdict(verdict, person="ann", key="k"):
    """A decision without words."""
    return Decision(Verdict(verdict), person, key)
