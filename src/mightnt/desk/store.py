"""Where questions, answers and accounts of conversations are kept: one SQLite file in a run's folder.

Everything that is acknowledged is on disk before (WAL, ``synchronous=FULL``), so a process killed at any point loses no
acknowledged answer; keys make a second sending of the same question or decision harmless, so none is doubled. Changes are
ordered by ``sequence``, never by the clock. All the SQL of the desk is in this file; :mod:`mightnt.desk.database` opens it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import fsum, isnan
from pathlib import Path
from typing import Any, TypeAlias

from mightnt.constraints.budget import refuse_no_amount
from mightnt.desk.database import StoreError, clearly, durable, locked, transaction, unflushed
from mightnt.desk.tickets import Decision, Inquiry, Proposal, State, Ticket, Verdict, as_plain
from mightnt.dialogues import Message
from mightnt.errors import BudgetError, InputError
from mightnt.files import plain

FILE = "desk.sqlite"
"""The name of the store in a run's folder; beside it lie SQLite's ``-wal`` and ``-shm`` and ``desk.lock``."""

LOCK = "desk.lock"
"""The file whose lock says that a server keeps the store. The lock dies with the process; the file may stay."""

TOLERANCE_NATS = 1e-6
"""How far the total charged to a conversation may lie above its limit by rounding."""

JITTER_SECONDS = 1.0
"""A clock that goes back by less stands still; by more, it was set back."""

PAGE = 200
"""Answers read at a time."""

REFRESH_SECONDS = 5.0
"""How often the time is noted while nothing but time changes."""

FINAL = {
    Verdict.ANSWER: State.ANSWERED,
    Verdict.EDIT: State.ANSWERED,
    Verdict.REFUSE: State.REFUSED,
    Verdict.STOP: State.STOPPED,
}
"""What a decided question becomes once it cannot be undone any more."""

APPLICATION = 0x6D6E7364
"""What ``PRAGMA application_id`` says in a store ("mnsd")."""

MIGRATIONS = (
    """
    CREATE TABLE tickets (
        id INTEGER PRIMARY KEY,
        number TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL UNIQUE,
        conversation TEXT NOT NULL,
        inquiry TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'decided', 'answered', 'refused', 'stopped', 'expired')),
        asked_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        person TEXT NOT NULL,
        afterwards TEXT NOT NULL,
        decision TEXT REFERENCES decisions (key),
        sequence INTEGER NOT NULL UNIQUE
    ) STRICT;
    CREATE INDEX tickets_by_state ON tickets (state);
    CREATE INDEX tickets_by_conversation ON tickets (conversation, state);
    CREATE TABLE decisions (
        key TEXT PRIMARY KEY,
        ticket TEXT NOT NULL REFERENCES tickets (number),
        verdict TEXT NOT NULL,
        person TEXT NOT NULL,
        words TEXT NOT NULL,
        proposal INTEGER,
        decided_at REAL NOT NULL,
        final_at REAL NOT NULL,
        undone_at REAL
    ) STRICT;
    CREATE INDEX decisions_by_ticket ON decisions (ticket);
    CREATE TABLE conversations (id TEXT PRIMARY KEY, limit_nats REAL NOT NULL) STRICT;
    CREATE TABLE charges (
        conversation TEXT NOT NULL REFERENCES conversations (id),
        turn INTEGER NOT NULL,
        nats REAL NOT NULL,
        PRIMARY KEY (conversation, turn)
    ) STRICT;
    CREATE TABLE clock (latest REAL NOT NULL) STRICT;
    INSERT INTO clock VALUES (0);
    """,
)
"""Item i takes a store from version i to i + 1; ``PRAGMA user_version`` says which it has. Old items never change."""

TICKETS = """
    SELECT t.number, t.inquiry, t.state, t.asked_at, t.expires_at, t.person, t.sequence,
           d.verdict, d.person, d.key, d.words, d.proposal, d.decided_at
    FROM tickets t LEFT JOIN decisions d ON d.key = t.decision WHERE
"""

Clock: TypeAlias = Callable[[], float]

__all__ = ["Account", "Conflict", "Entry", "Store", "StoreError", "key_of", "open_store"]


class Conflict(InputError):
    """Too late, or twice: the question no longer stands where this change could be made. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a conversation may spend, has spent in which number of turns, and whether somebody stopped it."""

    limit_nats: float
    spent_nats: float
    n_turns: int
    stopped: bool

    @property
    def left_nats(self) -> float:
        """limit - spent, never below 0; ``inf`` without a limit."""
        return self.limit_nats if self.limit_nats == float("inf") else max(0.0, self.limit_nats - self.spent_nats)


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision that was made about a question, when, and when it was undone (``None``: it was not)."""

    decision: Decision
    decided_at: float
    undone_at: float | None


def key_of(inquiry: Inquiry) -> str:
    """The same for the same question in the same place of the same conversation: a key for :meth:`Store.ask`."""
    words = [[message.role, message.content] for message in inquiry.messages]
    return sha256(json.dumps([inquiry.conversation, inquiry.turn, words, inquiry.begun]).encode()).hexdigest()


@contextlib.contextmanager
def open_store(
    folder: Path, undo_seconds: float = 5.0, clock: Clock = time.time, shared: bool = False
) -> Iterator[Store]:
    """The store in a run's folder, made there if there is none, as a context manager.

    ``undo_seconds``: how long a decision can be taken back before anybody is told it. ``clock``: seconds since the epoch.
    ``shared``: beside the server that keeps the store, or without one: a desk in the terminal, an export.

    Errors: :class:`~mightnt.errors.InputError` where there is no such folder, where another server keeps the store (unless
    ``shared``), for a file that is no store and for one of a newer version; :class:`StoreError` for a full disk.

    Kind: exact. Cost: milliseconds.
    """
    if not undo_seconds >= 0:
        raise InputError(f"undo within {undo_seconds} s; zero or more is needed")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; the folder of a run is needed")
    with contextlib.ExitStack() as stack:
        if not shared:
            stack.enter_context(contextlib.closing(locked(folder / LOCK)))
        db = stack.enter_context(contextlib.closing(durable(folder / FILE, APPLICATION, MIGRATIONS)))
        yield Store(db, folder / FILE, undo_seconds, clock)


class Store:
    """Questions, answers and accounts; made by :func:`open_store`. May be used from many threads.

    Every method that changes something is one transaction, on disk when it returns, or nothing was changed: then it raises
    :class:`Conflict` (too late, or twice), :class:`~mightnt.errors.InputError` (cannot be used) or :class:`StoreError`.

    Cost: reading under a tenth of a millisecond a ticket, writing one flush of the disk.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, undo_seconds: float, clock: Clock) -> None:
        self.path = path
        self.undo_seconds = undo_seconds
        self._db = db
        self._clock = clock
        self._lock = threading.RLock()

    def now(self) -> float:
        """The clock's time, for times such as ``expires_at``."""
        return self._clock()

    def ask(
        self, key: str, inquiry: Inquiry, person: str, expires_at: float, then: Sequence[tuple[str, float]] = ()
    ) -> Ticket:
        """A ticket that waits for ``person`` until ``expires_at``, and then for each of ``then`` (person, seconds).

        The same key again gives the same ticket, however it stands by now; :func:`key_of` makes one.

        Errors: :class:`Conflict` where the key belongs to other words, or the conversation was stopped.
        """
        if not key or not person or isnan(expires_at):
            raise InputError(f"a question needs a key, a person and a time; got {key!r}, {person!r}, {expires_at}")
        shown = json.dumps(plain(as_plain(inquiry)), ensure_ascii=False)
        with self._writing() as now:
            for before in self._select("t.key = ?", key):
                if key_of(before.inquiry) != key_of(inquiry):
                    raise Conflict(f"the key {key!r} belongs to another question; each question needs its own")
                return before
            if self._stopped(inquiry.conversation):
                raise Conflict(f"the conversation {inquiry.conversation} was stopped; nothing more is asked in it")
            number = secrets.token_hex(8)
            self._db.execute(
                "INSERT INTO tickets (number, key, conversation, inquiry, state, asked_at, expires_at, person, afterwards,"
                " sequence) VALUES (?, ?, ?, ?, 'waiting', ?, ?, ?, ?, (SELECT coalesce(max(sequence), 0) + 1 FROM tickets))",
                (
                    number,
                    key,
                    inquiry.conversation,
                    shown,
                    now,
                    expires_at,
                    person,
                    json.dumps([list(p) for p in then]),
                ),
            )
            return self._known(number)

    def ticket(self, number: str) -> Ticket | None:
        """The ticket of this number; ``None`` if there is none."""
        return next(iter(self._select("t.number = ?", number)), None)

    def waiting(self, person: str | None = None) -> list[Ticket]:
        """Questions that wait, the oldest first; only those that wait for ``person``, if one is named."""
        return self._select("t.state = 'waiting' AND t.person = coalesce(?, t.person) ORDER BY t.id", person)

    def counts(self) -> dict[State, int]:
        """How many tickets stand where; every state is there."""
        with self._reading():
            rows = self._db.execute("SELECT state, count(*) FROM tickets GROUP BY state").fetchall()
        return dict.fromkeys(State, 0) | {State(state): n for state, n in rows}

    def decide(self, number: str, decision: Decision) -> Ticket:
        """Enter what somebody decided; the ticket is ``decided``, and final once the time to undo is over.

        ``escalate`` hands it to the next person of the rota instead and it goes on waiting; only the person whose turn it
        is can do that. Every other verdict may come from anybody at the desk. The same decision (by its key) again changes
        nothing and gives the ticket as it stands.

        Errors: :class:`Conflict` where the ticket does not wait any more, where nobody is left to pass it on to, and for a
        key that was another decision's; :class:`~mightnt.errors.InputError` for an unknown ticket or proposal.
        """
        with self._writing() as now:
            if self._sent_before(number, decision):
                return self._known(number)
            before = self._known(number)
            _refuse_other_words(before.inquiry, decision)
            if before.state is State.WAITING and before.expires_at <= now:
                before = self._time_is_up(before, now)
            refusal = self._refusal(before, decision)
            if refusal is None:
                self._enter(before, decision, now)
                return self._known(number)
        raise Conflict(refusal)

    def undo(self, number: str, person: str) -> Ticket:
        """Take a decision back: the question waits again, as long as it had left when it was decided.

        Errors: :class:`Conflict` where nothing is decided, the time to undo is over, or somebody else decided.
        """
        with self._writing() as now:
            ticket = self._known(number)
            decided = ticket.decision
            if ticket.state is not State.DECIDED or decided is None or ticket.decided_at is None:
                raise Conflict(f"the question is {ticket.state}; only a decided one can be taken back")
            if decided.person != person:
                raise Conflict(f"{decided.person} decided this; only {decided.person} can take it back, not {person}")
            if self._one("SELECT final_at <= ? FROM decisions WHERE key = ?", now, decided.key):
                raise Conflict(f"it is too late to take this back; {self.undo_seconds:g} s are allowed")
            self._db.execute("UPDATE decisions SET undone_at = ? WHERE key = ?", (now, decided.key))
            until = ticket.expires_at + now - ticket.decided_at
            self._change(number, "state = 'waiting', decision = NULL, expires_at = ?", until)
            return self._known(number)

    def release(self, now: float | None = None) -> list[Ticket]:
        """Make final what can no longer be undone, and return it; ``now``: by the store's clock if it is not given."""

        def finish(ticket: Ticket, _: float) -> None:
            assert ticket.decision is not None  # decided, by the condition below
            self._change(ticket.number, "state = ?", FINAL[ticket.decision.verdict])

        return self._sweep("t.state = 'decided' AND d.final_at <= ? ORDER BY d.final_at, t.id", now, finish)

    def expire(self, now: float | None = None) -> list[Ticket]:
        """Pass on or end what nobody decided in time, and return it: silence is a refusal.

        A ticket whose person's time is up waits for the next of the rota, who has had time since then; without a next it is
        ``expired`` for good.
        """
        return self._sweep(
            "t.state = 'waiting' AND t.expires_at <= ? ORDER BY t.expires_at, t.id", now, self._time_is_up
        )

    def changes(self, after_sequence: int) -> list[Ticket]:
        """Tickets that changed after this number, in order of their last change; each as it stands now."""
        return self._select("t.sequence > ? ORDER BY t.sequence", after_sequence)

    def sequence(self) -> int:
        """The number of the latest change; 0 for an empty store."""
        with self._reading():
            return int(self._one("SELECT coalesce(max(sequence), 0) FROM tickets"))

    def answers(self) -> Iterator[Ticket]:
        """Every question that was answered for good, in the order in which that became so."""
        after = 0
        while page := self._select("t.state = 'answered' AND t.sequence > ? ORDER BY t.sequence LIMIT ?", after, PAGE):
            yield from page
            after = page[-1].sequence

    def decisions(self, number: str) -> list[Entry]:
        """Everything that anybody decided about a ticket, passings on and what was undone included, in order."""
        columns = "verdict, person, key, words, proposal, decided_at, undone_at"
        with self._reading():
            query = f"SELECT {columns} FROM decisions WHERE ticket = ? ORDER BY rowid"
            rows = self._db.execute(query, (number,)).fetchall()
        return [Entry(_decision(*row[:5]), *row[5:]) for row in rows]

    def open_conversation(self, id: str, limit_nats: float) -> Account:
        """The account of a conversation, opened with this limit; one that is open keeps the limit it has.

        It survives the end of the process, and with the first charge or question after it a failure of the power too.
        """
        refuse_no_amount(limit_nats, "the limit of a conversation")
        with unflushed(self._db, self._lock), self._writing():
            self._db.execute("INSERT INTO conversations VALUES (?, ?) ON CONFLICT DO NOTHING", (id, limit_nats))
            return self._account(id)

    def charge(self, id: str, turn: int, nats: float) -> Account:
        """Enter that a turn has cost ``nats`` so far; the same again changes nothing, more raises it, less does not lower it.

        Errors: :class:`~mightnt.errors.BudgetError` for NaN, less than 0 and more than is left (beyond 1e-6);
        :class:`~mightnt.errors.InputError` for an unknown conversation.
        """
        refuse_no_amount(nats, "a charge")
        with self._writing():
            self._account(id)
            self._db.execute(
                "INSERT INTO charges VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET nats = max(nats, excluded.nats)",
                (id, turn, nats),
            )
            account = self._account(id)
            if not account.spent_nats <= account.limit_nats + TOLERANCE_NATS:
                raise BudgetError(
                    f"turn {turn} of {id} at {nats:.12g} nats makes {account.spent_nats:.12g} spent; "
                    f"{account.limit_nats:.12g} are allowed"
                )
            return account

    def account(self, id: str) -> Account | None:
        """The account of a conversation; ``None`` if there is none."""
        with self._reading():
            known = self._one("SELECT EXISTS (SELECT 1 FROM conversations WHERE id = ?)", id)
            return self._account(id) if known else None

    # What follows is called inside a transaction or under the lock.

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, clearly(self.path):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[float]:
        """One transaction, on disk when the block ends; yields the time. After an error nothing was changed."""
        with self._lock, clearly(self.path), transaction(self._db):
            yield self._time()

    def _time(self) -> float:
        """The clock's time, noted. Where it was set back, everything open moves with it: everybody keeps the time they had."""
        now, latest = self._clock(), float(self._one("SELECT latest FROM clock"))
        if now < latest - JITTER_SECONDS:
            back = latest - now
            for ticket in self._select("t.state IN ('waiting', 'decided') ORDER BY t.sequence"):
                self._change(ticket.number, "asked_at = asked_at - ?, expires_at = expires_at - ?", back, back)
                if ticket.decision is not None:
                    self._db.execute(
                        "UPDATE decisions SET decided_at = decided_at - ?, final_at = final_at - ? WHERE key = ?",
                        (back, back, ticket.decision.key),
                    )
        elif now < latest:
            now = latest
        self._db.execute("UPDATE clock SET latest = ?", (now,))
        return now

    def _sweep(self, due: str, now: float | None, change: Callable[[Ticket, float], object]) -> list[Ticket]:
        """Every ticket for which time alone makes the condition ``due`` true, after ``change``. Cheap where there is none."""
        with self._reading():
            time = self._clock() if now is None else now
            if not self._select(f"{due} LIMIT 1", time) and not self._unnoted():
                return []
        with self._writing() as noted:
            time = noted if now is None else now
            found = self._select(due, time)
            for ticket in found:
                change(ticket, time)
            return [self._known(ticket.number) for ticket in found]

    def _unnoted(self) -> bool:
        """Whether the time noted last is old (or ahead), and something open depends on it."""
        some_open = "EXISTS (SELECT 1 FROM tickets WHERE state IN ('waiting', 'decided'))"
        query = f"SELECT abs(latest - ?) > ? AND {some_open} FROM clock"
        return bool(self._one(query, self._clock(), REFRESH_SECONDS))

    def _sent_before(self, number: str, decision: Decision) -> bool:
        """Whether this very decision was entered before; :class:`Conflict` where its key was another's."""
        query = "SELECT ticket, verdict, person, key, words, proposal FROM decisions WHERE key = ?"
        row = self._db.execute(query, (decision.key,)).fetchone()
        if row is not None and (row[0] != number or _decision(*row[1:]) != decision):
            raise Conflict(f"the key {decision.key!r} was another decision's; each decision needs its own")
        return row is not None

    def _refusal(self, ticket: Ticket, decision: Decision) -> str | None:
        """Why this decision cannot be entered now; ``None`` if it can."""
        if ticket.state is not State.WAITING:
            by = f" by {ticket.decision.person}" if ticket.decision else ""
            return f"the question does not wait any more, it is {ticket.state}{by}; nothing was changed"
        if decision.verdict is not Verdict.ESCALATE:
            return None
        if ticket.person != decision.person:
            return f"it is the turn of {ticket.person}, not of {decision.person}; only {ticket.person} can pass it on"
        return None if self._afterwards(ticket) else "nobody is left to pass this on to; decide it, or let it expire"

    def _enter(self, ticket: Ticket, decision: Decision, now: float) -> None:
        passes = decision.verdict is Verdict.ESCALATE
        final_at = now if passes else now + self.undo_seconds
        row = (decision.key, ticket.number, decision.verdict, decision.person, decision.text, decision.proposal)
        self._db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", (*row, now, final_at))
        if passes:
            self._pass_on(ticket, now)
        else:
            self._change(ticket.number, "state = 'decided', decision = ?", decision.key)

    def _time_is_up(self, ticket: Ticket, now: float) -> Ticket:
        """The ticket with the first of the rota who still has time, else expired."""
        while ticket.expires_at <= now and self._afterwards(ticket):
            ticket = self._pass_on(ticket, ticket.expires_at)
        if ticket.expires_at <= now:
            self._change(ticket.number, "state = 'expired'")
        return self._known(ticket.number)

    def _pass_on(self, ticket: Ticket, since: float) -> Ticket:
        (person, seconds), *rest = self._afterwards(ticket)
        sets = "person = ?, expires_at = ?, afterwards = ?"
        self._change(ticket.number, sets, person, since + seconds, json.dumps(rest))
        return self._known(ticket.number)

    def _afterwards(self, ticket: Ticket) -> list[tuple[str, float]]:
        text = self._one("SELECT afterwards FROM tickets WHERE number = ?", ticket.number)
        return [(person, seconds) for person, seconds in json.loads(text)]

    def _change(self, number: str, sets: str, *values: object) -> None:
        sets += ", sequence = (SELECT max(sequence) + 1 FROM tickets)"
        self._db.execute(f"UPDATE tickets SET {sets} WHERE number = ?", (*values, number))

    def _account(self, id: str) -> Account:
        limit = self._db.execute("SELECT limit_nats FROM conversations WHERE id = ?", (id,)).fetchone()
        if limit is None:
            raise InputError(f"there is no conversation {id!r}; open it first")
        rows = self._db.execute("SELECT nats FROM charges WHERE conversation = ?", (id,)).fetchall()
        return Account(limit[0], fsum(nats for (nats,) in rows), len(rows), self._stopped(id))

    def _stopped(self, conversation: str) -> bool:
        stopped = "SELECT 1 FROM tickets WHERE conversation = ? AND state = 'stopped'"
        return bool(self._one(f"SELECT EXISTS ({stopped})", conversation))

    def _known(self, number: str) -> Ticket:
        for ticket in self._select("t.number = ?", number):
            return ticket
        raise InputError(f"there is no ticket {number!r} at this desk")

    def _select(self, condition: str, *values: object) -> list[Ticket]:
        with self._reading():
            return [_ticket(*row) for row in self._db.execute(TICKETS + condition, values).fetchall()]

    def _one(self, query: str, *values: object) -> Any:
        return self._db.execute(query, values).fetchone()[0]


def _refuse_other_words(inquiry: Inquiry, decision: Decision) -> None:
    """Refuse a proposal that was not made, and one that is said to be taken as it is and is not."""
    chosen = decision.proposal
    if chosen is None:
        return
    if not 0 <= chosen < len(inquiry.proposals):
        raise InputError(f"proposal {chosen} was not made; there are {len(inquiry.proposals)}, counted from 0")
    if decision.verdict is Verdict.ANSWER and decision.text != inquiry.proposals[chosen].text:
        raise InputError(f"proposal {chosen} says something else; words made from it are an edit, not an answer")


def _ticket(*row: Any) -> Ticket:
    number, inquiry, state, asked_at, expires_at, person, sequence, *decided = row
    decision = None if decided[0] is None else _decision(*decided[:5])
    return Ticket(number, _inquiry(inquiry), State(state), asked_at, expires_at, person, decision, decided[5], sequence)


def _decision(verdict: str, person: str, key: str, words: str, proposal: int | None) -> Decision:
    return Decision(Verdict(verdict), person, key, words, proposal)


def _inquiry(text: str) -> Inquiry:
    value = json.loads(text)
    value["messages"] = tuple(Message(**message) for message in value["messages"])
    value["proposals"] = tuple(Proposal(**proposal) for proposal in value["proposals"])
    return Inquiry(**value | {name: float(value[name]) for name in ("limit_nats", "left_nats")})
