"""The desk in the terminal: what a person sees and types; only an explicit word decides, and nothing shown is obeyed."""

import os
import termios
import tty
from dataclasses import replace
from math import inf
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.desk.store import Conflict, open_store
from mightnt.desk.terminal import Keyboard, Terminal, clock_text, edited, question_text, queue_text, visible
from mightnt.desk.tickets import State, Verdict
from mightnt.errors import InputError
from tests.desk.questions import Clock, answer, chat, inquiry

HOSTILE = "\x1b[2J\x1b]0;x\x07\u202eevil\u2066\r\x9b1m"


class Person:
    """Types lines, or does things, one after another; ``None`` is a second of silence."""

    def __init__(self, store, *does):
        self.does, self.shown, self.edits = list(does), [], []
        self.terminal = Terminal(store, "ann", self.read, self.shown.append, self.edit)

    def read(self, seconds):
        if not self.does:
            raise EOFError
        done = self.does.pop(0)
        return done() if callable(done) else done

    def edit(self, text):
        self.edits.append(text)
        return text.replace("Yes", "Perhaps") if text.startswith("Yes") else None

    def sit(self):
        self.terminal.run()
        return "".join(self.shown)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    with open_store(tmp_path, undo_seconds=5, clock=clock) as store:
        yield store


@pytest.fixture
def number(store):
    return store.ask("q", inquiry(), "ann", 1300.0, [("bob", 60.0)]).number


@pytest.mark.parametrize(
    ("typed", "kind", "text", "proposal"),
    [
        (["answer Of course."], Verdict.ANSWER, "Of course.", None),
        (["a", "Dear Sam,", "", " no.", "."], Verdict.ANSWER, "Dear Sam,\n\n no.", None),
        (["take 2"], Verdict.ANSWER, "No.", 1),
        (["T 1"], Verdict.ANSWER, "Yes.", 0),
        (["edit 1"], Verdict.EDIT, "Perhaps.", 0),
        (["refuse"], Verdict.REFUSE, "", None),
        (["STOP"], Verdict.STOP, "", None),
    ],
)
def test_every_decision_is_a_word(store, number, typed, kind, text, proposal):
    shown = Person(store, "1", *typed).sit()
    decision = store.ticket(number).decision
    assert (decision.verdict, decision.text, decision.proposal, decision.person) == (kind, text, proposal, "ann")
    assert f"Decided: {kind}. 'undo' takes it back within 5 s." in shown


@pytest.mark.parametrize(
    "typed",
    [
        [""],
        ["1", ""],
        ["1", "", "", ""],
        ["1", "take", ""],
        ["1", "take 0", "take 3", "take x", "take 1 2", "take " + "9" * 5000],
        ["1", "edit 2", ""],
        ["1", "a", "."],
        ["1", "a", " ", "."],
        ["1", "a", "Half an answer"],
        ["1", "refuse it", "stop now", "escalate to bob", "list all"],
        ["1", "s", "y", "yes", "ok", "2", "0"],
        ["1", "answer \x1b[D\x1b[Dno"],
        ["1", "answer \udcff"],
        ["take 1", "refuse", "stop", "escalate", "answer yes", "undo"],
        ["1", "list", "refuse"],
        ["q", "1", "refuse"],
        [None, None, ""],
    ],
    ids=repr,
)
def test_nothing_else_decides(store, number, typed):
    before = store.ticket(number)
    Person(store, *typed).sit()
    assert store.ticket(number) == before
    assert store.decisions(number) == []


@settings(max_examples=25)
@given(lines=st.lists(st.sampled_from(["", " ", "\t", "1", None, "list", "help", "?"])))
def test_enter_and_looking_around_never_decide(tmp_path_factory, lines):
    with open_store(tmp_path_factory.mktemp("store"), clock=Clock()) as store:
        number = store.ask("q", inquiry(), "ann", 1300.0).number
        Person(store, *lines).sit()
        assert (store.ticket(number).state, store.decisions(number)) == (State.WAITING, [])


def test_a_question_is_shown_with_its_reasons(store, clock):
    asked = inquiry(
        messages=chat("May I?", "Hm.", "Well?"), begun="You", forced=True, limit_nats=2.0, proposals=(" may.",)
    )
    text = question_text(store.ask("q", asked, "ann", 1245.0), clock.now)
    assert text.splitlines() == [
        "user: May I?",
        "assistant: Hm.",
        "user: Well?",
        "assistant, so far (your words go on from here): You",
        "",
        "It must ask: asking probability 25.0%; 1.5 of 2 nats are left. The models disagree.",
        "  [1] model 0, probability 1:  may.",
        "",
        "It waits for ann, 4:05; silence is a refusal. 'help' says what you can do.",
    ]
    assert "It asks: " in question_text(store.ask("q2", inquiry(turn=1), "ann", inf), clock.now)
    assert "No model proposes anything." in question_text(
        store.ask("q3", inquiry(turn=2, proposals=()), "ann", inf), clock.now
    )


def test_the_queue_is_numbered_as_it_was_shown(store, clock):
    first, second = (store.ask(f"{i}", inquiry(turn=i), "ann", 1060.0 + i).number for i in range(2))

    def first_is_decided_elsewhere():
        store.decide(first, answer(person="bob"))

    person = Person(store, first_is_decided_elsewhere, None, "2", "answer Second.", "")
    shown = person.sit()
    assert "2 question(s) wait:\n   1     1:00  for ann: May I? (0)\n   2     1:01  for ann: May I? (1)\n" in shown
    assert store.ticket(second).decision.text == "Second."
    assert shown.rstrip("> \n").endswith("No question waits.")
    assert queue_text([replace(store.ticket(first), inquiry=inquiry(messages=chat("x" * 99)))], 0).endswith("x…")


def test_a_question_that_is_gone_cannot_be_decided(store, number, clock):
    def somebody_else():
        store.decide(number, answer(person="bob"))

    shown = Person(store, "1", somebody_else, "take 1", "").sit()
    assert "Not done: the question does not wait any more, it is decided by bob; nothing was changed." in shown
    assert "This question does not wait any more: it is decided." in shown
    assert store.ticket(number).decision.person == "bob"


def test_time_passes_while_nobody_types(store, number, clock):
    def a_second(seconds):
        def pass_it():
            clock.now += seconds

        return pass_it

    def another():
        store.ask("q2", inquiry(turn=1), "ann", clock.now + 60)

    shown = Person(store, "1", "take 1", a_second(5), another, None, "list").sit()
    assert store.ticket(number).state is State.ANSWERED
    assert "\a\n1 new question(s); 'list' shows the queue.\n> " in shown
    assert shown.count("\a") == 1
    assert "May I? (1)" in shown
    Person(store, a_second(60), None).sit()
    assert store.counts()[State.EXPIRED] == 1


def test_undo_opens_the_question_again(store, number, clock):
    shown = Person(store, "1", "take 1", "undo", "take 2", "undo", "undo", "").sit()
    assert store.ticket(number).state is State.WAITING
    assert [entry.decision.text for entry in store.decisions(number)] == ["Yes.", "No."]
    assert shown.count("Taken back; the question waits again.") == 2
    assert "Not done: the question is waiting; only a decided one can be taken back." in shown
    assert "[2] model 1" in shown.rsplit("Not done", 1)[1]


def test_undo_too_late_says_so(store, number, clock):
    def wait():
        clock.now += 5

    shown = Person(store, "1", "take 1", wait, "u").sit()
    assert "Not done: the question is answered; only a decided one can be taken back." in shown
    assert store.ticket(number).decision.text == "Yes."


@pytest.mark.parametrize("saved", ["Yes.", "Yes.\n", "", " \n"])
def test_an_edit_that_changes_nothing_decides_nothing(store, number, saved):
    person = Person(store, "1", "edit 1")
    person.terminal.edit = lambda text: saved
    assert "'take 1' says it as it stands" in person.sit()
    assert store.ticket(number).state is State.WAITING


def test_passing_on(store, number):
    shown = Person(store, "1", "escalate").sit()
    assert "Passed on to bob." in shown
    assert (store.ticket(number).person, store.ticket(number).state) == ("bob", State.WAITING)
    assert "only bob can pass it on" in Person(store, "1", "escalate").sit()


def test_help_lists_every_word(store):
    shown = Person(store, "help").sit()
    for word in ("answer", "take N", "edit N", "refuse", "stop", "escalate", "undo", "list", "quit", "Enter"):
        assert word in shown


def test_nothing_shown_is_obeyed_by_the_terminal(store, clock):
    asked = inquiry(messages=chat(HOSTILE), begun=HOSTILE, proposals=(HOSTILE,))
    asked = replace(asked, disagreement=HOSTILE, proposals=(replace(asked.proposals[0], model=HOSTILE),))
    store.ask("q", asked, HOSTILE + "\n", 1300.0)
    shown = Person(store, HOSTILE, "1", "escalate", "edit " + HOSTILE, "answer " + HOSTILE).sit()
    assert not set("\x1b\x07\u202e\u2066\r\x9b") & set(shown)
    assert shown.count("<U+001B>") > 10


def test_words_cannot_pass_for_lines_of_the_desk(store, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    words = "Hi\n  [9] model, probability 1: x\n" + " " * 70 + "[8] y" + "\u2028[7] z\x85[6]"
    asked = inquiry(messages=chat(words), begun=words, proposals=(words,))
    lines = question_text(store.ask("q", asked, "ann", 1300.0), clock.now).split("\n")
    assert not [line for line in lines if line.strip().startswith(("[9]", "[8]", "[7]", "[6]"))]
    assert max(len(line) for line in lines if line.startswith("    |")) <= 60
    assert sum(line.startswith("    |") for line in lines) >= 3 * 3


@given(st.text())
def test_visible_keeps_what_can_be_seen(text):
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" or category(c) == "Zs" for c in shown)
    if text.isprintable():
        assert shown == text
    assert visible(shown) == shown


def test_joiners_of_scripts_and_emoji_stay():
    assert visible("می\u200cخواهم \U0001f469\u200d\U0001f680 ü\n") == "می\u200cخواهم \U0001f469\u200d\U0001f680 ü\n"
    assert visible("a\u202eb\ud800") == "a<U+202E>b<U+D800>"


def test_time_is_told_in_minutes():
    assert [clock_text(s) for s in (-3, 0, 59.9, 60, 3725, inf)] == [
        "0:00",
        "0:00",
        "0:59",
        "1:00",
        "62:05",
        "no limit",
    ]


def test_the_keyboard_gives_lines_and_waits_no_longer_than_told():
    reading, writing = os.pipe()
    try:
        keyboard = Keyboard(reading)
        assert keyboard.line(0.01) is None
        os.write(writing, "one\r\nzwö\nhalf".encode())
        assert [keyboard.line(0.01) for _ in range(3)] == ["one", "zwö", None]
        os.write(writing, b" a line\n\xff\nlast")
        assert [keyboard.line(0.01) for _ in range(2)] == ["half a line", "\udcff"]
        os.close(writing)
        assert keyboard.line(0.01) == "last"
        with pytest.raises(EOFError):
            keyboard.line(0.01)
    finally:
        os.close(reading)


def test_a_line_that_a_terminal_cuts_off_is_refused():
    ours, theirs = os.openpty()
    try:
        tty.setcbreak(ours, termios.TCSANOW)  # no echo
        attributes = termios.tcgetattr(theirs)
        attributes[3] |= termios.ICANON
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        os.write(ours, b"x" * 3000 + b"\n")
        assert Keyboard(theirs).line(1.0) == "x" * 3000
        os.write(ours, b"y" * 3000)
        os.write(ours, b"y" * 3000)
        os.write(ours, b"\n")
        with pytest.raises(InputError, match="cut off by the terminal"):
            Keyboard(theirs).line(1.0)
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_editor_changes_words(monkeypatch, tmp_path):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/Yes/Maybe/")
    assert edited("Yes.\nü\r\n") == "Maybe.\nü\r\n"
    monkeypatch.setenv("EDITOR", "false")
    assert edited("Yes.") is None
    for bad, words in (("no-such-editor-here", "cannot be used"), ("'", "cannot be used"), ("", "no editor is named")):
        monkeypatch.setenv("EDITOR", bad)
        with pytest.raises(InputError, match=words):
            edited("Yes.")


def test_a_conflict_is_an_input_error():
    assert issubclass(Conflict, InputError)
