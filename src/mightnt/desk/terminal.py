"""The desk in the terminal: the queue, a question with its reasons, and a person's decision, line by line.

Whatever a model or a person wrote is shown as text: control characters, which a terminal would obey, and characters that
turn the direction of reading become visible marks. An empty line only looks again; it decides nothing.
"""

from __future__ import annotations

import os
import secrets
import select
import shlex
import shutil
import subprocess
import tempfile
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mightnt.desk.store import Store
from mightnt.desk.tickets import Decision, Inquiry, State, Ticket, Verdict
from mightnt.errors import InputError, MightntError

HELP = """\
  NUMBER      open this question of the queue
  answer      write the words yourself: 'answer WORDS', or more lines, ended by a single dot
  take N      say proposal N exactly as it stands
  edit N      change proposal N in your editor and say the result
  refuse      nothing is said in this turn
  stop        the conversation ends here
  escalate    somebody else is to decide
  undo        take your last decision back, while that is possible
  list        back to the queue
  quit        leave; what waits goes on waiting
  (Enter alone looks again and decides nothing.)"""

TICK_SECONDS = 1.0
"""How often the queue is looked at while nobody types."""

SHORT = {"a": "answer", "t": "take", "e": "edit", "r": "refuse", "u": "undo", "l": "list", "h": "help", "?": "help"}
"""Letters for words; to stop a conversation and to pass a question on, the word is needed."""

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of controls, formats, half characters, private and unassigned ones, separators of lines."""

SHOWN = "\n\t\u200c\u200d"
"""Of those, what does no harm: line ends, tabs, and the joiners that scripts and emoji are written with."""

SHORTENED = 60
"""Characters of the last message that the queue shows."""

TERMINAL_LINE_BYTES = 4095
"""A terminal cuts a longer line off without a word."""

MARGIN = "    | "
"""What the further lines of somebody's words begin with."""


def visible(text: str) -> str:
    """``text`` with every character that a terminal obeys or that hides others written as ``<U+001B>``."""
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in HIDDEN and c not in SHOWN else c for c in text)


def clock_text(seconds: float) -> str:
    """``4:05`` for 245 seconds; ``0:00`` below 0, ``no limit`` for infinity."""
    if seconds == float("inf"):
        return "no limit"
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes}:{rest:02d}"


def queue_text(tickets: list[Ticket], now: float) -> str:
    """One line a question: its number in the queue, how long it has, for whom it waits, the last words before it."""
    if not tickets:
        return "No question waits."
    lines = [f"{len(tickets)} question(s) wait:"]
    for number, ticket in enumerate(tickets, 1):
        last = one_line(ticket.inquiry.messages[-1].content) if ticket.inquiry.messages else ""
        short = last if len(last) <= SHORTENED else last[: SHORTENED - 1] + "…"
        lines.append(f"{number:>4} {clock_text(ticket.expires_at - now):>8}  for {one_line(ticket.person)}: {short}")
    return "\n".join(lines)


def question_text(ticket: Ticket, now: float) -> str:
    """A question as a person needs it: the conversation, why it is asked, what the models would say."""
    inquiry = ticket.inquiry
    lines = [set_in(f"{message.role}: ", message.content) for message in inquiry.messages]
    if inquiry.begun:
        lines.append(set_in("assistant, so far (your words go on from here): ", inquiry.begun))
    lines += ["", why(inquiry)]
    for number, proposal in enumerate(inquiry.proposals, 1):
        head = f"  [{number}] {one_line(proposal.model)}, probability {proposal.probability:.3g}: "
        lines.append(set_in(head, proposal.text))
    if not inquiry.proposals:
        lines.append("  No model proposes anything.")
    left = clock_text(ticket.expires_at - now)
    lines += ["", f"It waits for {one_line(ticket.person)}, {left}; silence is a refusal. 'help' says what you can do."]
    return "\n".join(lines)


def why(inquiry: Inquiry) -> str:
    """Why it asks, in a sentence or two."""
    forced = "It must ask" if inquiry.forced else "It asks"
    account = f"{inquiry.left_nats:.3g} of {inquiry.limit_nats:.3g} nats are left"
    reason = f"{forced}: asking probability {inquiry.asking_probability:.1%}; {account}."
    return f"{reason} {one_line(inquiry.disagreement)}".strip()


def one_line(text: str) -> str:
    """``text``, visible, with single spaces for every white space."""
    return visible(" ".join(text.split()))


def set_in(head: str, words: str) -> str:
    """``head`` and the words, with every further line set in, so that none passes for one of the desk's own."""
    width = max(40, shutil.get_terminal_size().columns - len(MARGIN))
    shown = (head + visible(words)).expandtabs(4).split("\n")
    wrapped = (textwrap.wrap(line, width, replace_whitespace=False, drop_whitespace=False) for line in shown)
    return f"\n{MARGIN}".join(piece for pieces in wrapped for piece in pieces or [""])


@dataclass
class Terminal:
    """A person's desk over lines of text.

    Args:
        store: where the questions are.
        person: who sits at it.
        read: the next line without its end; ``None`` when that many seconds went by; ``EOFError`` at the end.
        write: shows a text.
        edit: a text after the person changed it; ``None`` where it was not saved.
    """

    store: Store
    person: str
    read: Callable[[float], str | None]
    write: Callable[[str], None]
    edit: Callable[[str], str | None]
    queue: list[Ticket] = field(default_factory=list)
    """As it was shown last: a number means the same question until the queue is shown again."""
    announced: set[str] = field(default_factory=set)
    opened: str | None = None
    decided: str | None = None
    """The ticket that this person decided last."""

    def run(self) -> None:
        """Until the person leaves, or the lines end."""
        self.say("Enter looks again; 'help' lists what you can do.")
        self.look()
        while True:
            try:
                line = self.next_line("> ")
                if line is None or line.strip().lower() in ("quit", "q"):
                    return
                self.obey(line.strip())
            except MightntError as error:
                self.say(f"Not done: {visible(str(error))}.")

    def say(self, text: str) -> None:
        """Show a text and end the line."""
        self.write(text + "\n")

    def next_line(self, prompt: str) -> str | None:
        """The next line, or ``None`` at the end; meanwhile time passes in the store and new questions are announced."""
        self.write(prompt)
        while True:
            try:
                line = self.read(TICK_SECONDS)
            except EOFError:
                return None
            if line is not None:
                return line
            if new := self.unannounced():
                self.write(f"\a\n{new} new question(s); 'list' shows the queue.\n{prompt}")

    def unannounced(self) -> int:
        """How many questions came that were not spoken of; time passes in the store."""
        self.store.release()
        self.store.expire()
        waiting = {ticket.number for ticket in self.store.waiting()}
        new, self.announced = waiting - self.announced, self.announced | waiting
        return len(new)

    def obey(self, line: str) -> None:
        """Do what a line says."""
        word, _, rest = line.partition(" ")
        word = SHORT.get(word.lower(), word.lower())
        words = {"answer": self.answer, "take": self.take, "edit": self.change}
        alone: dict[str, Callable[[], None]] = {
            "": self.look,
            "list": self.back,
            "undo": self.undo,
            "help": lambda: self.say(HELP),
        }
        verdicts = {"refuse": Verdict.REFUSE, "stop": Verdict.STOP, "escalate": Verdict.ESCALATE}
        if word in words:
            words[word](rest.strip())
        elif rest:
            raise InputError(f"{line!r} means nothing here; 'help' lists what does")
        elif word in alone:
            alone[word]()
        elif word in verdicts:
            self.decide(verdicts[word])
        else:
            self.opened = self.queue[index_of(word, self.queue, "question")].number
            self.look()

    def look(self) -> None:
        """Show the open question as it stands, or the queue."""
        self.unannounced()
        ticket = self.store.ticket(self.opened) if self.opened else None
        if ticket is None:
            self.queue = self.store.waiting()
            self.say(queue_text(self.queue, self.store.now()))
        elif ticket.state is State.WAITING:
            self.say(question_text(ticket, self.store.now()))
        else:
            self.opened = None
            self.say(f"This question does not wait any more: it is {ticket.state}.")

    def back(self) -> None:
        """Close the question and show the queue."""
        self.opened = None
        self.look()

    def answer(self, words: str) -> None:
        """Say words of the person's own: the rest of the line, or the lines that follow."""
        self.current()
        if not words:
            self.say("Your words; a line with a single dot ends them (alone, it decides nothing).")
            lines: list[str] = []
            while (line := self.next_line("| ")) != ".":
                if line is None:
                    return
                lines.append(line)
            words = "\n".join(lines)
        if not words.strip():
            self.say("No words: nothing was decided.")
            return
        self.decide(Verdict.ANSWER, words)

    def take(self, number: str) -> None:
        """Say a proposal exactly as it stands."""
        proposals = self.current().inquiry.proposals
        chosen = index_of(number, proposals, "proposal")
        self.decide(Verdict.ANSWER, proposals[chosen].text, chosen)

    def change(self, number: str) -> None:
        """Say what the person makes of a proposal."""
        proposals = self.current().inquiry.proposals
        chosen = index_of(number, proposals, "proposal")
        words = (self.edit(proposals[chosen].text) or "").rstrip("\n")
        if words.strip() and words != proposals[chosen].text.rstrip("\n"):
            self.decide(Verdict.EDIT, words, chosen)
        else:
            self.say(f"Nothing was changed and nothing decided; 'take {number}' says it as it stands.")

    def decide(self, verdict: Verdict, words: str = "", proposal: int | None = None) -> None:
        """Enter a decision about the open question, and close it."""
        ticket = self.current()
        if proposal is None and any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in words):
            raise InputError(f"{visible(words)!r} holds keys that are no characters; write it again")
        ticket = self.store.decide(ticket.number, Decision(verdict, self.person, secrets.token_hex(8), words, proposal))
        self.opened = None
        if verdict is Verdict.ESCALATE:
            self.say(f"Passed on to {visible(ticket.person)}.")
        else:
            self.decided = ticket.number
            self.say(f"Decided: {verdict}. 'undo' takes it back within {self.store.undo_seconds:g} s.")

    def undo(self) -> None:
        """Take the last decision back and open its question again."""
        if self.decided is None:
            raise InputError("you have decided nothing yet that could be taken back")
        self.opened = self.store.undo(self.decided, self.person).number
        self.say("Taken back; the question waits again.")

    def current(self) -> Ticket:
        """The open question."""
        ticket = self.store.ticket(self.opened) if self.opened else None
        if ticket is None:
            raise InputError("no question is open; type the number of one in the queue first")
        return ticket


def index_of(number: str, items: Sequence[object], what: str) -> int:
    """The index that ``number``, counted from 1, means."""
    if not number.isdecimal() or len(number) > 6 or not 1 <= int(number) <= len(items):
        raise InputError(f"there is no {what} {number[:20]!r}; there are {len(items)}, counted from 1")
    return int(number) - 1


@dataclass
class Keyboard:
    """Lines from a file descriptor, with a time to wait for each."""

    descriptor: int
    held: bytes = b""

    def line(self, seconds: float) -> str | None:
        """The next line; ``None`` when that long went by without one; raises ``EOFError`` at the end.

        Where waiting with a limit is not possible (Windows), it waits for the line. Bytes that are not UTF-8 become
        characters that a decision refuses. A line that the terminal may have cut off is an ``InputError``.
        """
        while b"\n" not in self.held:
            if os.name != "nt" and not select.select([self.descriptor], [], [], seconds)[0]:
                return None
            read = os.read(self.descriptor, 4096)
            if not read and not self.held:
                raise EOFError
            self.held += read or b"\n"
        line, _, self.held = self.held.partition(b"\n")
        if len(line) >= TERMINAL_LINE_BYTES and os.isatty(self.descriptor):
            raise InputError("a line this long is cut off by the terminal; break it into several")
        return line.decode("utf-8", "surrogateescape").removesuffix("\r")


def edited(text: str) -> str | None:
    """``text`` after the person changed it in their editor ($VISUAL or $EDITOR); ``None`` where the editor failed.

    Errors: :class:`~mightnt.errors.InputError` where no editor is named or it cannot be run.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise InputError("no editor is named in $EDITOR; 'answer' takes words of your own")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.txt"
        path.write_text(text, encoding="utf-8", newline="")
        try:
            done = subprocess.run([*shlex.split(editor), str(path)], check=False)
            return None if done.returncode else path.read_bytes().decode()
        except (OSError, ValueError) as error:
            raise InputError(f"the editor {editor!r} cannot be used ({error})") from error
