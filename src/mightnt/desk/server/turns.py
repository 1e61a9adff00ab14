"""What was said in which conversation, turn by turn, durable: so that an account goes on where its history goes on.

A conversation is one line of turns. Each turn heard some new messages of the user and said something, so a client that
sends the whole history with every call is recognized by it, and can neither branch a conversation nor rewrite it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mightnt.desk.database import clearly, durable, unflushed
from mightnt.dialogues import Message

FILE = "turns.sqlite"
"""The name of this record in a run's folder."""
APPLICATION = 0x6D6E7474
"""What ``PRAGMA application_id`` says in one ("mntt")."""
CANDIDATES = 100
"""Most conversations with the same words that are looked at for one history."""

MIGRATIONS = (
    """
    CREATE TABLE turns (
        conversation TEXT NOT NULL,
        number INTEGER NOT NULL,
        before TEXT NOT NULL,
        heard TEXT NOT NULL,
        begun_at REAL NOT NULL,
        spent_before_nats REAL NOT NULL,
        words TEXT,
        nats REAL NOT NULL DEFAULT 0,
        n_tokens INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        ticket TEXT,
        PRIMARY KEY (conversation, number)
    ) STRICT;
    CREATE INDEX turns_by_before ON turns (before, begun_at);
    CREATE TABLE dice (seed INTEGER NOT NULL) STRICT;
    """,
    "ALTER TABLE turns ADD COLUMN n_learned INTEGER NOT NULL DEFAULT 0",
)
"""``before``: digest of the messages that the turn answers; ``heard``: JSON of those that are new in it; ``words`` are NULL
while the agent speaks."""

COLUMNS = "conversation, number, heard, begun_at, spent_before_nats, words, nats, n_tokens, reason, ticket, n_learned"


@dataclass(frozen=True, slots=True)
class Said:
    """One turn of the agent: what it heard since the turn before, what it said, what that cost (``nats``), and what all
    turns before it had cost.

    ``text`` is ``None`` while it speaks; ``reason`` is ``stop``, ``length`` or ``ask``; with ``ask``, ``ticket`` is the
    question that the turn became, once it was put. ``n_learned``: how many of the store's answers, in their order, the
    speaker had been taught when the turn began; one that is begun again is said by the speaker as it was then.
    """

    conversation: str
    number: int
    heard: tuple[Message, ...]
    begun_at: float
    spent_before_nats: float = 0.0
    text: str | None = None
    nats: float = 0.0
    n_tokens: int = 0
    reason: str = ""
    ticket: str | None = None
    n_learned: int = 0


def digest(messages: Sequence[Message]) -> str:
    """A fingerprint of these messages. Kind: exact up to collisions of SHA-256."""
    words = json.dumps([[message.role, message.content] for message in messages])
    return hashlib.sha256(words.encode()).hexdigest()


class Turns:
    """The turns of all conversations of a run's folder, in SQLite; may be used from many threads.

    That a turn began survives the end of the process, and that it ended a failure of the power too.

    Errors: :class:`~mightnt.desk.database.StoreError` where the disk is full, ``InputError`` for a file of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()
        self._db = durable(self.path, APPLICATION, MIGRATIONS)
        self._do("INSERT INTO dice SELECT ? WHERE NOT EXISTS (SELECT 1 FROM dice)", (secrets.randbits(62),))

    @property
    def seed(self) -> int:
        """A number that no client knows, drawn when the record was made: a turn that is begun again says the same words."""
        return int(self._do("SELECT seed FROM dice", ())[0][0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def begin(self, said: Said, before: Sequence[Message]) -> Said:
        """A turn begins after these messages; as it is on record. Begun again (after a crash), it is as it was."""
        heard = json.dumps([[message.role, message.content] for message in said.heard])
        with clearly(self.path), unflushed(self._db, self._lock):  # its end is flushed, and comes after it
            self._do(
                "INSERT INTO turns (conversation, number, before, heard, begun_at, spent_before_nats, n_learned)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    said.conversation,
                    said.number,
                    digest(before),
                    heard,
                    said.begun_at,
                    said.spent_before_nats,
                    said.n_learned,
                ),
            )
            return self.of(said.conversation)[said.number]

    def end(self, said: Said) -> None:
        """The agent's part of a turn is over."""
        self._do(
            "UPDATE turns SET words=?, nats=?, n_tokens=?, reason=?, ticket=? WHERE conversation=? AND number=?",
            (said.text, said.nats, said.n_tokens, said.reason, said.ticket, said.conversation, said.number),
        )

    def forget(self, conversation: str, number: int) -> None:
        """A turn that began and failed before a word of it was told."""
        self._do("DELETE FROM turns WHERE conversation=? AND number=? AND words IS NULL", (conversation, number))

    def of(self, conversation: str) -> list[Said]:
        """The turns of a conversation, in order; none of an unknown one."""
        rows = self._do(f"SELECT {COLUMNS} FROM turns WHERE conversation=? ORDER BY number", (conversation,))
        return [
            Said(name, number, tuple(Message(*pair) for pair in json.loads(heard)), *rest)
            for name, number, heard, *rest in rows
        ]

    def after(self, messages: Sequence[Message], reply: str) -> list[str]:
        """Conversations with a turn that answered these messages, perhaps with this reply; the latest first."""
        rows = self._do(
            "SELECT conversation FROM turns WHERE before=? AND (words=? OR ticket IS NOT NULL) ORDER BY begun_at DESC LIMIT ?",
            (digest(messages), reply, CANDIDATES),
        )
        return [row[0] for row in rows]

    def _do(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock, clearly(self.path):
            return self._db.execute(query, values).fetchall()
