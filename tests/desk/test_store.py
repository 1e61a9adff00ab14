"""What is acknowledged is kept, once; what is final stays; order is by sequence whatever the clock says."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf, nan
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mightnt.desk import store as store_module
from mightnt.desk.store import FILE, Account, Conflict, Entry, StoreError, key_of, open_store
from mightnt.desk.tickets import Decision, State, Verdict
from mightnt.errors import BudgetError, InputError
from tests.desk.questions import Clock, answer, chat, inquiry, verdict


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    with open_store(tmp_path, undo_seconds=5, clock=clock) as store:
        yield store


def ask(store, key="q", seconds=100.0, then=(), **question):
    return store.ask(key, inquiry(**question), "ann", store.now() + seconds, then)


def settled(store, clock, decision, **question):
    ticket = ask(store, decision.key, **question)
    store.decide(ticket.number, decision)
    clock.now += 5
    (released,) = store.release()
    return released


def test_a_question_comes_back_as_it_was_put(store, tmp_path, clock):
    asked = inquiry(messages=chat("a\0b", "ü\n", "\U0001f600"), limit_nats=inf, begun="So ")
    ticket = store.ask("q", asked, "ann", 1100.0, [("bob", 60.0)])
    assert ticket.inquiry == asked
    assert (ticket.state, ticket.person, ticket.asked_at, ticket.expires_at) == (State.WAITING, "ann", 1000, 1100)
    assert (ticket.decision, ticket.decided_at, ticket.sequence) == (None, None, 1)
    with open_store(tmp_path, shared=True) as other:
        assert other.ticket(ticket.number) == ticket
    assert store.ticket("unknown") is None


def test_the_same_key_is_the_same_ticket_however_it_stands(store, clock):
    first = ask(store)
    assert ask(store, seconds=7.0) == first
    done = settled(store, clock, answer(key="q"))
    assert ask(store) == done
    assert store.counts()[State.ANSWERED] == sum(store.counts().values()) == 1


@pytest.mark.parametrize(
    "other",
    [{"turn": 1}, {"conversation": "d"}, {"messages": chat("Hm?")}, {"begun": "So"}],
    ids=lambda o: next(iter(o)),
)
def test_a_key_belongs_to_its_words(store, other):
    ask(store)
    assert key_of(inquiry(**other)) != key_of(inquiry())
    with pytest.raises(Conflict, match="another question"):
        ask(store, **other)
    assert len(store.waiting()) == 1


@pytest.mark.parametrize(
    ("decision", "state"),
    [
        (answer(), State.ANSWERED),
        (Decision(Verdict.ANSWER, "ann", "k", "No.", 1), State.ANSWERED),
        (Decision(Verdict.EDIT, "ann", "k", "No!", 1), State.ANSWERED),
        (verdict("refuse"), State.REFUSED),
        (verdict("stop"), State.STOPPED),
    ],
)
def test_a_decision_is_final_once_it_cannot_be_undone(store, clock, decision, state):
    number = ask(store).number
    clock.now += 10
    decided = store.decide(number, decision)
    assert (decided.state, decided.decision, decided.decided_at) == (State.DECIDED, decision, 1010.0)
    clock.now += 4.999
    assert store.release() == []
    clock.now += 0.001
    (final,) = store.release()
    assert (final.state, final.decision, final.decided_at) == (state, decision, 1010.0)
    assert store.release() == [] == store.waiting()
    assert store.decisions(number) == [Entry(decision, 1010.0, None)]
    clock.now += 1e6
    assert store.expire() == []
    for late in (lambda: store.decide(number, answer(key="late")), lambda: store.undo(number, "ann")):
        with pytest.raises(Conflict, match=state):
            late()
    assert store.ticket(number) == final


def test_the_same_decision_again_gives_the_same_ticket_and_another_is_refused(store):
    number = ask(store).number
    decided = store.decide(number, answer())
    assert store.decide(number, answer()) == decided
    with pytest.raises(Conflict, match="it is decided by ann"):
        store.decide(number, answer("Other words.", "bob", "k2"))
    for other in (answer("Other words."), answer(person="bob"), verdict("refuse")):
        with pytest.raises(Conflict, match="another decision's"):
            store.decide(number, other)
    with pytest.raises(Conflict, match="another decision's"):
        store.decide(ask(store, "q2", turn=1).number, answer())
    assert store.ticket(number) == decided


def test_of_many_who_decide_at_once_one_does(store):
    number = ask(store).number

    def decide(i):
        try:
            return store.decide(number, answer(f"{i}", key=f"{i}"))
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        done = [ticket for ticket in pool.map(decide, range(24)) if ticket]
    assert len(done) == len(store.decisions(number)) == 1
    assert store.ticket(number) == done[0]


def test_undo_gives_the_question_back_with_the_time_it_had(store, clock):
    number = ask(store, seconds=100).number
    clock.now += 98
    store.decide(number, answer())
    clock.now += 4
    assert store.expire() == []
    ticket = store.undo(number, "ann")
    assert (ticket.state, ticket.decision, ticket.decided_at) == (State.WAITING, None, None)
    assert ticket.expires_at - clock.now == 2
    assert store.decisions(number) == [Entry(answer(), 1098.0, 1102.0)]
    assert store.decide(number, answer()).state is State.WAITING, "sent again late, it is not entered again"
    assert store.decide(number, answer(key="k2")).state is State.DECIDED


def test_undo_is_for_who_decided_and_for_a_while(store, clock):
    number = ask(store).number
    with pytest.raises(Conflict, match="only a decided one"):
        store.undo(number, "ann")
    store.decide(number, answer())
    with pytest.raises(Conflict, match="only ann can take it back, not bob"):
        store.undo(number, "bob")
    clock.now += 5
    with pytest.raises(Conflict, match="too late"):
        store.undo(number, "ann")
    assert store.ticket(number).state is State.DECIDED


def test_who_may_not_decide_at_a_desk_with_other_terms_cannot_release_early(tmp_path, store, clock):
    number = ask(store).number
    store.decide(number, answer())
    with open_store(tmp_path, undo_seconds=0, clock=clock, shared=True) as other:
        assert other.release() == []
        other.decide(ask(store, "q2", turn=1).number, answer(key="k2"))
        assert [ticket.inquiry.turn for ticket in other.release()] == [1]


def test_silence_passes_on_and_in_the_end_is_a_refusal(store, clock):
    number = ask(store, seconds=100, then=[("bob", 50), ("cem", 25)]).number
    clock.now = 1099.9
    assert store.expire() == []
    clock.now = 1120.0
    (ticket,) = store.expire()
    assert (ticket.person, ticket.expires_at, ticket.state) == ("bob", 1150.0, State.WAITING)
    assert [t.number for t in store.waiting("bob")] == [number]
    assert store.waiting("ann") == []
    clock.now = 1175.0
    (ticket,) = store.expire()
    assert (ticket.person, ticket.state, ticket.decision) == ("cem", State.EXPIRED, None)
    assert store.expire() == [] == store.waiting()
    with pytest.raises(Conflict, match="it is expired"):
        store.decide(number, answer())


def test_a_decision_that_comes_too_late_finds_the_question_expired(store, clock):
    number = ask(store, seconds=100).number
    clock.now += 100
    with pytest.raises(Conflict, match="it is expired"):
        store.decide(number, answer())
    assert store.ticket(number).state is State.EXPIRED
    clock.now -= 100
    with pytest.raises(Conflict, match="it is expired"):
        store.decide(number, answer())


def test_passing_on_starts_the_next_persons_time_and_is_recorded(store, clock):
    number = ask(store, seconds=100, then=[("bob", 50)]).number
    clock.now += 10
    ticket = store.decide(number, verdict("escalate"))
    assert (ticket.person, ticket.expires_at, ticket.state, ticket.decision) == ("bob", 1060.0, State.WAITING, None)
    assert store.decisions(number) == [Entry(verdict("escalate"), 1010.0, None)]
    assert store.decide(number, verdict("escalate")) == ticket
    with pytest.raises(Conflict, match="it is the turn of bob, not of ann"):
        store.decide(number, verdict("escalate", key="k2"))
    with pytest.raises(Conflict, match="nobody is left"):
        store.decide(number, verdict("escalate", "bob", "k3"))
    assert store.decide(number, answer(person="bob", key="k4")).decision.person == "bob"


def test_proposals_are_taken_as_they_were_made(store):
    number = ask(store).number
    for chosen in (-1, 2):
        with pytest.raises(InputError, match=r"was not made; there are 2"):
            store.decide(number, Decision(Verdict.EDIT, "ann", "k", "Yes.", chosen))
    with pytest.raises(InputError, match="says something else"):
        store.decide(number, Decision(Verdict.ANSWER, "ann", "k", "Yes", 0))
    assert store.ticket(number).state is State.WAITING


def test_changes_are_in_order_and_each_ticket_once(store, clock):
    numbers = [ask(store, f"{i}", turn=i).number for i in range(3)]
    seen = store.sequence()
    assert [ticket.number for ticket in store.changes(0)] == numbers
    store.decide(numbers[2], answer(key="k2"))
    store.decide(numbers[0], answer(key="k0"))
    store.undo(numbers[2], "ann")
    assert [(t.number, t.state) for t in store.changes(seen)] == [
        (numbers[0], State.DECIDED),
        (numbers[2], State.WAITING),
    ]
    assert store.changes(store.sequence()) == []
    with pytest.raises(InputError, match="too large"):
        store.changes(2**70)


def test_answers_are_those_that_were_given_out_all_of_them_in_order(store, clock, monkeypatch):
    monkeypatch.setattr(store_module, "PAGE", 7)
    assert list(store.answers()) == []
    n = 30  # almost three pages of answers
    for i in range(n):
        store.decide(ask(store, f"{i}", turn=i).number, answer(key=f"{i}") if i % 3 else verdict("refuse", key=f"{i}"))
    assert list(store.answers()) == []
    clock.now += 5
    store.release()
    assert [ticket.inquiry.turn for ticket in store.answers()] == [i for i in range(n) if i % 3]


def test_waiting_is_oldest_first_whatever_happened_since(store):
    numbers = [ask(store, f"{i}", turn=i, then=[("bob", 9)]).number for i in range(3)]
    store.decide(numbers[0], verdict("escalate"))
    assert [ticket.number for ticket in store.waiting()] == numbers
    assert [ticket.number for ticket in store.waiting("ann")] == numbers[1:]


def test_a_stopped_conversation_asks_no_more(store, clock):
    settled(store, clock, verdict("stop", key="q"))
    with pytest.raises(Conflict, match="was stopped"):
        ask(store, "q2", turn=1)
    assert ask(store, "q3", conversation="another").state is State.WAITING


def test_an_account_is_charged_once_a_turn(store, clock):
    assert store.account("c") is None
    assert store.open_conversation("c", 2.0) == Account(2.0, 0.0, 0, False)
    assert store.open_conversation("c", 99.0).limit_nats == 2.0, "the limit it was opened with stays"
    for nats in (0.5, 0.5, 0.25):
        assert store.charge("c", 0, nats).spent_nats == 0.5
    assert store.charge("c", 0, 0.75).left_nats == 1.25
    assert store.charge("c", 1, 1.25 + 1e-7) == Account(2.0, 0.75 + (1.25 + 1e-7), 2, False)
    assert store.account("c").left_nats == 0.0
    settled(store, clock, verdict("stop", key="q"))
    assert store.account("c").stopped


@pytest.mark.parametrize("nats", [1.5 + 1e-5, inf, nan, -0.1])
def test_no_charge_beyond_the_limit_is_entered(store, nats):
    store.open_conversation("c", 2.0)
    store.charge("c", 0, 0.5)
    with pytest.raises(BudgetError):
        store.charge("c", 1, nats)
    assert store.account("c") == Account(2.0, 0.5, 1, False)
    with pytest.raises(InputError, match="open it first"):
        store.charge("d", 0, 0.1)


def test_without_a_limit_nothing_is_refused(store):
    store.open_conversation("c", inf)
    assert store.charge("c", 0, inf).left_nats == inf
    for limit in (-1.0, nan):
        with pytest.raises(BudgetError):
            store.open_conversation("d", limit)


# The clock


def test_a_clock_set_back_leaves_everybody_the_time_they_had(store, clock):
    waits, decided = ask(store, "a", seconds=100), ask(store, "b", seconds=100, turn=1)
    clock.now += 10
    store.decide(decided.number, answer())
    clock.now -= 500
    assert store.release() == store.expire() == []
    seen = store.sequence()
    later = ask(store, "c", seconds=100, turn=2)
    assert later.sequence > seen
    assert store.ticket(waits.number).expires_at == clock.now + 90
    clock.now += 5
    assert [ticket.state for ticket in store.release()] == [State.ANSWERED]
    clock.now += 85
    assert [ticket.number for ticket in store.expire()] == [waits.number]
    clock.now += 10
    assert [ticket.number for ticket in store.expire()] == [later.number]


def test_a_clock_set_back_reopens_nothing(store, clock):
    expired = ask(store, "a", seconds=10)
    answered = settled(store, clock, answer(), turn=1)
    clock.now += 10
    store.expire()
    before = store.changes(0)
    clock.now = 1.0
    ask(store, "new", turn=2)
    store.expire()
    store.release()
    assert store.changes(0)[:2] == before
    for number in (expired.number, answered.number):
        with pytest.raises(Conflict):
            store.decide(number, answer(key="late"))
        with pytest.raises(Conflict):
            store.undo(number, "ann")


def test_a_clock_that_stumbles_stands_still(store, clock):
    ask(store, "a")
    clock.now -= 0.5
    ticket = ask(store, "b", turn=1)
    assert ticket.asked_at == 1000.0
    assert [t.asked_at for t in store.changes(0)] == [1000.0, 1000.0]


def test_time_is_noted_while_nobody_does_anything(store, clock, tmp_path):
    waits = ask(store, seconds=3600)
    clock.now += 3000
    assert store.expire() == []
    clock.now -= 2000
    assert store.expire() == []
    assert store.ticket(waits.number).expires_at == clock.now + 600
    sequence = store.sequence()
    clock.now += 1
    assert store.expire() == []
    assert store.sequence() == sequence, "nothing changed, nothing is written"


# Opening


def test_one_server_at_a_time_and_others_beside_it(tmp_path, store):
    with pytest.raises(InputError, match="another server keeps this desk"), open_store(tmp_path):
        pass
    with open_store(tmp_path, shared=True) as other:
        number = ask(other).number
    assert store.ticket(number) is not None


def test_a_store_can_be_opened_again_after_it_was_closed(tmp_path):
    for i in range(3):
        with open_store(tmp_path) as store:
            ask(store, f"{i}", turn=i)
            assert len(store.waiting()) == i + 1
    with pytest.raises(StoreError, match="closed"):
        store.waiting()


def test_errors_of_who_uses_it_stay_their_own(tmp_path):
    for error in (OSError, sqlite3.OperationalError, OverflowError):
        with pytest.raises(error), open_store(tmp_path):
            raise error
    with open_store(tmp_path):
        pass


def test_what_cannot_be_kept_is_refused(tmp_path, store):
    with pytest.raises(InputError, match="no such folder"), open_store(tmp_path / "nowhere"):
        pass
    with pytest.raises(InputError, match="undo within nan"), open_store(tmp_path, undo_seconds=nan, shared=True):
        pass
    for key, person, until in (("", "ann", 1.0), ("k", "", 1.0), ("k", "ann", nan)):
        with pytest.raises(InputError, match="needs a key, a person and a time"):
            store.ask(key, inquiry(), person, until)
    with pytest.raises(InputError, match="half a character"):
        ask(store, messages=chat("\ud800"))
    for change in (lambda: store.decide("x", answer()), lambda: store.undo("x", "ann")):
        with pytest.raises(InputError, match="no ticket 'x'"):
            change()
    assert store.counts() == dict.fromkeys(State, 0)


def test_a_newer_store_and_a_foreign_one_are_refused(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        number = ask(store).number
    with monkeypatch.context() as newer:
        newer.setattr(store_module, "MIGRATIONS", (*store_module.MIGRATIONS, "CREATE TABLE more (x)"))
        with open_store(tmp_path) as store:
            assert store.ticket(number).state is State.WAITING
    with pytest.raises(InputError, match="has version 2, this program knows 1"), open_store(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(InputError, match="not one of a desk"), open_store(tmp_path):
        pass


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(min_size=1))
@settings(max_examples=25)
def test_any_text_comes_back(tmp_path_factory, words, name):
    with open_store(tmp_path_factory.mktemp("store")) as store:
        asked = inquiry(messages=chat(words), begun=words, proposals=(words,))
        if any("\ud800" <= c <= "\udfff" for c in name):
            with pytest.raises(InputError, match="half a character"):
                store.ask(name, asked, name, inf)
            return
        ticket = store.ask(name, asked, name, inf)
        assert (ticket.inquiry, ticket.person) == (asked, name)
        if words.strip():
            assert store.decide(ticket.number, answer(words, name, name)).decision == answer(words, name, name)


class AgainstTheRules(RuleBasedStateMachine):
    """The store against the plainest program that obeys the same rules, under a clock that also goes back."""

    def __init__(self):
        super().__init__()
        self.clock, self.stack = Clock(), ExitStack()
        path = Path(self.stack.enter_context(TemporaryDirectory()))
        opened = [open_store(path, 5, self.clock), open_store(path, 5, self.clock, shared=True)]
        self.stores = [self.stack.enter_context(store) for store in opened]
        self.tickets = []
        """Of each its number, state, seconds left, seconds to undo, how many come after on the rota."""
        self.history, self.keys = {}, 0

    def teardown(self):
        self.stack.close()

    def pick(self, i):
        return self.tickets[i % len(self.tickets)]

    @rule(seconds=st.sampled_from([3.0, 20.0]), n=st.integers(0, 2), who=st.integers(0, 1))
    def ask(self, seconds, n, who):
        then = [(f"next {i}", 10.0) for i in range(n)]
        turn = len(self.tickets)
        ticket = self.stores[who].ask(f"{turn}", inquiry(turn=turn), "ann", self.clock.now + seconds, then)
        self.tickets.append({"number": ticket.number, "state": "waiting", "left": seconds, "rest": n})

    @precondition(lambda self: self.tickets)
    @rule(i=st.integers(0, 9), who=st.integers(0, 1), stop=st.booleans())
    def decide(self, i, who, stop):
        ticket, self.keys = self.pick(i), self.keys + 1
        decision = verdict("refuse", key=f"{self.keys}") if stop else answer(key=f"{self.keys}")
        self.pass_time_of(ticket)
        if ticket["state"] == "waiting":
            self.stores[who].decide(ticket["number"], decision)
            ticket.update(state="decided", undo=5.0, final="refused" if stop else "answered")
        else:
            with pytest.raises(Conflict):
                self.stores[who].decide(ticket["number"], decision)

    @precondition(lambda self: self.tickets)
    @rule(i=st.integers(0, 9), who=st.integers(0, 1))
    def undo(self, i, who):
        ticket = self.pick(i)
        if ticket["state"] == "decided" and ticket["undo"] > 0:
            self.stores[who].undo(ticket["number"], "ann")
            ticket["state"] = "waiting"
        else:
            with pytest.raises(Conflict):
                self.stores[who].undo(ticket["number"], "ann")

    @rule(seconds=st.sampled_from([1.0, 4.0, 12.0]))
    def pass_time(self, seconds):
        self.clock.now += seconds
        for ticket in self.tickets:
            if ticket["state"] == "waiting":
                ticket["left"] -= seconds
            elif ticket["state"] == "decided":
                ticket["undo"] -= seconds

    @rule(back=st.sampled_from([20.0, 5000.0]), who=st.integers(0, 1))
    def set_back(self, back, who):
        self.stores[who].open_conversation("any", 1.0)  # the time is noted with every change
        self.clock.now -= back
        self.stores[1 - who].open_conversation("any", 1.0)

    @rule(who=st.integers(0, 1))
    def sweep(self, who):
        self.stores[who].release()
        self.stores[who].expire()
        for ticket in self.tickets:
            self.pass_time_of(ticket)
            if ticket["state"] == "decided" and ticket["undo"] <= 0:
                ticket["state"] = ticket["final"]

    def pass_time_of(self, ticket):
        if ticket["state"] != "waiting":
            return
        while ticket["left"] <= 0 and ticket["rest"]:
            ticket["left"], ticket["rest"] = ticket["left"] + 10.0, ticket["rest"] - 1
        if ticket["left"] <= 0:
            ticket["state"] = "expired"

    @invariant()
    def both_agree_with_the_rules(self):
        for store in self.stores:
            found = store.changes(0)
            assert {t.number: t.state for t in found} == {t["number"]: t["state"] for t in self.tickets}
            sequences = [t.sequence for t in found]
            assert sequences == sorted(set(sequences))
        for ticket in found:
            if ticket.state.final:
                assert self.history.setdefault(ticket.number, ticket) == ticket, "what is final changed"


TestAgainstTheRules = AgainstTheRules.TestCase
TestAgainstTheRules.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
