"""Conversations at work: turns wait in a short queue, are said in threads, become questions, are remembered.

Two threads keep the books (accounts and questions in one, what was said in the other), ``width`` threads run the
speaker, the event loop does the rest. A turn that has begun is always finished and charged, whether or not its client
still listens; a call for the same turn joins it or gets the same words again, free of charge.

Answers teach the speaker one at a time, in the order in which they became final, so after n of them it is the same speaker
in every process. A turn is said by the speaker as it is when the turn begins, and its record says n: begun again after a
crash, it is said by the speaker as it was then. (Not if the imitators themselves were updated in between.) Networks that
were fitted on in the background take over between two turns, when they have learnt what was answered meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from mightnt.desk.export import lesson
from mightnt.desk.server.histories import Place, Told, conflict, find_place
from mightnt.desk.server.metrics import Metrics
from mightnt.desk.server.refitting import Refit, refitted
from mightnt.desk.server.refusal import Refusal, busy
from mightnt.desk.server.turns import Said, Turns
from mightnt.desk.speaking import Asked, Ended, LearningSpeaker, Piece, Speaker, Turn
from mightnt.desk.store import Account, Store, key_of
from mightnt.desk.tickets import Inquiry, State, Ticket
from mightnt.dialogues import Message
from mightnt.errors import BudgetError, ContractError, MightntError

if TYPE_CHECKING:
    from mightnt.desk.rota import Rota

T = TypeVar("T")
LOG = logging.getLogger("mightnt.desk.server")
TOLERANCE_NATS = 1e-6
"""Rounding allowed on the account of a conversation."""
MOST_PARKED = 256
"""Turns that wait for a person and are kept in memory, so that the speaker can be told what the person said."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a server treats calls."""

    wait_seconds: float = 60.0
    """How long a call waits for a person if it does not say."""
    most_wait_seconds: float = 600.0
    """The longest that a call may ask to wait."""
    width: int = 1
    """Turns that are said at the same time. With 1 the speaker never sees two calls at once."""
    most_queued: int = 100
    """Turns that are said or wait for it; one more is turned away with 429."""
    most_waiting: int = 10_000
    """Questions at the desk; with as many, new turns are turned away with 429."""
    seed: int | None = None
    """Of all dice, together with the name of the conversation and the number of the turn; ``None``: the folder's own."""
    tick_seconds: float = 0.25
    """How often the store is looked at for what others did to it."""
    learn: bool = True
    """Whether answers teach the speaker at once, if it can be taught."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The turn became this question; nothing more is said until somebody decides."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ends. ``text`` is the whole message; ``reason``: stop, length, ask, refused, stopped or expired."""

    said: Said
    text: str
    reason: str
    limit_nats: float
    spent_nats: float


Event: TypeAlias = str | Waiting | Outcome
"""Words of the agent or of the demonstrator, in order; or a question; or, last, the outcome."""


class Talk:
    """A turn that is being said. Any number of calls may follow it, from its first word."""

    def __init__(self, said: Said) -> None:
        self.said = said
        self.pieces = list[str]()
        self.over = False
        self.error: Exception | None = None
        self.news = asyncio.Event()

    def add(self, text: str) -> None:
        """More words."""
        self.pieces.append(text)
        self._tell()

    def end(self, said: Said | None, error: Exception | None) -> None:
        """No more words."""
        self.said, self.error, self.over = said or self.said, error, True
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    async def follow(self) -> AsyncIterator[str]:
        """Every piece, as it comes; raises what the turn failed with."""
        n = 0
        while True:
            news = self.news
            for text in self.pieces[n:]:
                yield text
                n += 1
            if not self.over:
                await news.wait()
            elif n == len(self.pieces):
                break
        if self.error:
            raise self.error


class Conversations:
    """Everything a server does with conversations, over one speaker, one store and one record of turns."""

    def __init__(
        self,
        speaker: Speaker,
        store: Store,
        turns: Turns,
        rota: Rota,
        terms: Terms,
        metrics: Metrics | None = None,
        refit: Refit | None = None,
    ) -> None:
        self.untaught, self.store, self.turns, self.rota, self.terms = speaker, store, turns, rota, terms
        self.pupil = (speaker, 0)
        """The speaker that says the turns that begin now, and how many answers it has been taught."""
        self.metrics = metrics or Metrics()
        self.talks: dict[str, Talk] = {}
        self.parked: dict[str, Turn] = {}
        self.waiters: dict[str, set[asyncio.Future[Ticket]]] = {}
        self.listeners: list[Callable[[Ticket], None]] = []
        self.open: dict[str, Ticket] = {}
        """Questions that are not settled, by number."""
        self.sequence = 0
        """The latest change of the store that was looked at."""
        self.seed = turns.seed if terms.seed is None else terms.seed
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks = set[asyncio.Task[None]]()
        self._books = ThreadPoolExecutor(1, "books")
        self._record = ThreadPoolExecutor(1, "record")
        self._mouths = ThreadPoolExecutor(terms.width, "speaker")
        self._kick = asyncio.Event()
        self._learns = terms.learn and isinstance(speaker, LearningSpeaker)
        self._refit = refit if self._learns else None
        self._n_answered = 0
        """Answers that were looked at."""
        self._n_fitted = refit.n_learned if refit else 0
        """Answers there were when networks were fitted on last."""
        self._fitting = False
        self._loop: asyncio.AbstractEventLoop
        self._school: asyncio.Task[None] | None = None
        """The lesson given last, perhaps still going on."""

    @property
    def speaker(self) -> Speaker:
        """What says the turns that begin now."""
        return self.pupil[0]

    # ---- running

    async def start(self) -> None:
        """Teach the speaker every answer of before, learn what is open, and look at the store from now on."""
        self._loop = asyncio.get_running_loop()
        self.sequence = await self.keep(self.store.sequence)
        if self._learns:
            known = [ticket for ticket in await self.keep(self._answers) if ticket.sequence <= self.sequence]
            self._n_answered = len(known)
            await self._teach(known)
            self._consider_refit()
        for ticket in await self.keep(self.store.waiting):
            self._note(ticket)
        self._spawn(self._clerk())

    async def stop(self) -> None:
        """Let go. What is being said is dropped: nothing of it was told to anybody who was not told to wait."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._mouths.shutdown(wait=False, cancel_futures=True)
        for executor in (self._books, self._record):
            executor.shutdown(wait=True, cancel_futures=True)

    async def keep(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the store or of the turns, in the thread that keeps the books."""
        return await asyncio.get_running_loop().run_in_executor(self._books, function, *arguments)

    def kick(self) -> None:
        """Something was decided: look at the store now."""
        self._kick.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- a call

    async def call(
        self, name: str | None, key: str | None, messages: tuple[Message, ...], most_tokens: int | None
    ) -> Talk:
        """The turn that these messages ask for: a new one, one in progress, or one of before.

        Args:
            name: the conversation, if the client names it; else it is recognized by its history, else it is new.
            key: of a call that is sent again (``Idempotency-Key``): with it, a new conversation is the same one again.

        Errors: :class:`~mightnt.desk.server.refusal.Refusal`: 409 for another history, 429 when there is too much to do.
        """
        name = name or await self.keep(self._recognize, messages) or new_name(key, self.seed)
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            talk = self.talks.get(name)
            turns, told, account = await self.keep(self._told, name)
            place = find_place(told, messages)
            if place.number < len(turns) and turns[place.number].text is not None:
                return again(turns[place.number])
            if talk:
                if place.heard != talk.said.heard or place.number != talk.said.number:
                    raise conflict("a turn of this conversation is being said, after other words")
                return talk
            if account and account.stopped:
                raise Refusal(409, "stopped", "a person has stopped this conversation; begin a new one", "messages")
            self._check_room()
            talk = Talk(Said(name, place.number, place.heard, time.time()))
            self.talks[name] = talk
            self._spawn(self._say(talk, place, most_tokens))
            return talk

    async def events(self, talk: Talk, wait_seconds: float) -> AsyncIterator[Event]:
        """What a call gets to hear: the agent's words, perhaps a question and the demonstrator's words, the outcome."""
        async for text in talk.follow():
            yield text
        said, reply = talk.said, ""
        reason = said.reason
        if said.ticket:
            yield Waiting(said.ticket)
            ticket = await self.settled(said.ticket, wait_seconds)
            reason = "ask" if not ticket.state.final else ending(ticket.state)
            if ticket.state is State.ANSWERED and ticket.decision:
                reply = ticket.decision.text
                yield reply
        account = await self.keep(self._account, said.conversation)
        spoken = (said.text or "") + reply if reason in ("stop", "length") else ""
        yield Outcome(said, spoken, reason, account.limit_nats, account.spent_nats)

    async def settled(self, number: str, seconds: float) -> Ticket:
        """The ticket once it is final, or as it stands after these seconds."""
        future: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self.waiters.setdefault(number, set()).add(future)
        try:
            ticket = await self.ticket(number)
            if not ticket.state.final and seconds > 0:
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(future, seconds)
            return ticket
        finally:
            self.waiters[number].discard(future)
            if not self.waiters[number]:
                del self.waiters[number]

    async def ticket(self, number: str) -> Ticket:
        """A ticket by its number. Errors: 404."""
        ticket = await self.keep(self.store.ticket, number)
        if ticket is None:
            raise Refusal(404, "no_ticket", "there is no ticket of this number")
        return ticket

    async def told_of(self, ticket: Ticket) -> Talk:
        """The turn that became this ticket, as a call for it again would get it."""
        turns = await self.keep(self.turns.of, ticket.inquiry.conversation)
        said = next((said for said in turns if said.ticket == ticket.number), None)
        if said is None:
            raise Refusal(404, "no_ticket", "the turn of this ticket is not on record here")
        return again(said)

    # ---- inside

    def _check_room(self) -> None:
        if len(self.talks) >= self.terms.most_queued:
            raise busy(f"{len(self.talks)} turns are being said or wait for it; try again", 2.0)
        if self.metrics.gauges["mightnt_waiting"] >= self.terms.most_waiting:
            raise busy("too many questions wait for a person; try again later", 60.0)

    def _recognize(self, messages: tuple[Message, ...]) -> str | None:
        """The conversation whose history this is; ``None`` if nothing of the assistant is in it."""
        last = max(
            (i for i, message in enumerate(messages) if message.role == "assistant" and message.content), default=None
        )
        if last is None:
            return None
        before = tuple(message for message in messages[:last] if message.content)
        refusal = None
        for name in self.turns.after(before, messages[last].content):
            try:
                find_place(self._told(name)[1], messages)
                return name
            except Refusal as error:
                refusal = refusal or error
        raise refusal or Refusal(
            409, "other_history", "the history holds words of the assistant that were not said here; name a conversation"
            " with the header X-Conversation, or begin with a message of the user", "messages"
        )  # fmt: skip

    def _told(self, name: str) -> tuple[list[Said], list[Told], Account | None]:
        """The turns of a conversation, as recorded and as the client was told them, and its account."""
        turns = self.turns.of(name)
        told = [Told(said.heard, said.text or "", *self._reply(said), said.reason == "ask") for said in turns]
        return turns, told, self.store.account(name) if turns else None

    def _reply(self, said: Said) -> tuple[str, bool]:
        """``(the whole reply, whether the turn is still open)``."""
        if said.text is None or said.reason != "ask":
            return said.text or "", said.text is None
        ticket = self.store.ticket(said.ticket) if said.ticket else None
        if ticket is None:
            raise ContractError(f"the ticket {said.ticket} of a turn on record is not in the store")
        answered = ticket.state is State.ANSWERED and ticket.decision
        return said.text + ticket.decision.text if answered and ticket.decision else "", not ticket.state.final

    async def _say(self, talk: Talk, place: Place, most_tokens: int | None) -> None:
        """Say one turn, from the queue to the books."""
        name, started = talk.said.conversation, time.perf_counter()
        self.metrics.gauges["mightnt_queued"] = len(self.talks)
        try:
            if self._school:  # what was answered before this turn is learnt before it
                await asyncio.wait([self._school])
            speaker, n_learned = self.pupil
            talk.said, account = await self.keep(self._begin, replace(talk.said, n_learned=n_learned), place)
            if talk.said.n_learned != n_learned:
                speaker = await self.speaker_after(talk.said.n_learned)
            speak = self._loop.run_in_executor(self._mouths, self._speak, speaker, talk, place, account, most_tokens)
            turn, event, n_tokens = await speak
            said = replace(talk.said, text="".join(talk.pieces), nats=turn.spent_nats, n_tokens=n_tokens)
            said = await self._end(said, event, place, turn)
            self._count(said, time.perf_counter() - started)
            talk.end(said, None)
        except Exception as error:
            self.metrics.count("mightnt_failures_total")
            if not talk.pieces:
                with contextlib.suppress(Exception):
                    await self.keep(self.turns.forget, name, talk.said.number)
            talk.end(None, error)
        finally:
            del self.talks[name]
            self.metrics.gauges["mightnt_queued"] = len(self.talks)

    def _begin(self, said: Said, place: Place) -> tuple[Said, Account]:
        """On the books: a turn begins; the history that it is charged along is fixed before a word is said.

        After a crash its own charge may be on the account already, so what was spent before it is on its record.
        """
        if said.number == 0:
            account = self.store.open_conversation(said.conversation, self.speaker.limit_nats)
        else:
            account = self._account(said.conversation)
        return self.turns.begin(replace(said, spent_before_nats=account.spent_nats), place.before), account

    def _account(self, name: str) -> Account:
        account = self.store.account(name)
        if account is None:
            raise ContractError(f"the conversation {name} is on record and has no account in the store")
        return account

    def _speak(
        self, speaker: Speaker, talk: Talk, place: Place, account: Account, most_tokens: int | None
    ) -> tuple[Turn, Asked | Ended, int]:
        """In a thread of the speaker: say everything. A word that the account cannot pay for is never let out."""
        n_tokens = 0
        seed = seed_of(talk.said.conversation, self.seed)
        before_nats = talk.said.spent_before_nats
        turn = speaker.begin(place.before, before_nats, place.number, seed, place.answered)
        while True:
            event = turn.next_piece()
            if not before_nats + turn.spent_nats <= account.limit_nats + TOLERANCE_NATS:
                raise BudgetError(f"a turn would take {before_nats + turn.spent_nats:.6g} of {account.limit_nats} nats")
            if not isinstance(event, Piece):
                return turn, event, n_tokens
            self._loop.call_soon_threadsafe(talk.add, event.text)
            n_tokens += event.n_tokens
            if most_tokens is not None and n_tokens >= most_tokens:
                return turn, Ended("length"), n_tokens

    async def _end(self, said: Said, event: Asked | Ended, place: Place, turn: Turn) -> Said:
        """On the books: the turn's cost, its question if it asked, its words; each of these can be repeated after a crash."""
        loop = asyncio.get_running_loop()
        account = await self.keep(self.store.charge, said.conversation, said.number, said.nats)
        if isinstance(event, Ended):  # what is on record as said is paid
            said = replace(said, reason=event.reason)
            await loop.run_in_executor(self._record, self.turns.end, said)
            return said
        inquiry = replace(
            event.inquiry,
            conversation=said.conversation,
            turn=said.number,
            messages=place.before,
            begun=said.text or "",
            limit_nats=account.limit_nats,
            left_nats=account.left_nats,
        )
        ticket = await self.keep(self._ask, inquiry)
        self._note(ticket)  # before the clerk can know of a later change
        if not ticket.state.final:  # it may be, where the turn was begun again after a crash
            self._park(ticket.number, turn)
        said = replace(said, reason="ask", ticket=ticket.number)
        await loop.run_in_executor(self._record, self.turns.end, said)
        return said

    def _ask(self, inquiry: Inquiry) -> Ticket:
        person, expires_at, then = self.rota.begin(self.store.now())
        return self.store.ask(key_of(inquiry), inquiry, person, expires_at, then)

    def _park(self, number: str, turn: Turn) -> None:
        """Keep a turn until a person has decided; of too many, the oldest is let go (its answer is in the store)."""
        self.parked[number] = turn
        if len(self.parked) > MOST_PARKED:
            del self.parked[next(iter(self.parked))]

    def _count(self, said: Said, seconds: float) -> None:
        metrics = self.metrics
        metrics.count("mightnt_turns_total", reason=said.reason)
        metrics.count("mightnt_spent_nats_total", said.nats)
        metrics.count("mightnt_tokens_total", said.n_tokens)
        metrics.count("mightnt_asks_total", said.reason == "ask")
        metrics.turn_seconds.add(seconds)

    async def _clerk(self) -> None:
        """Make final what can no longer be undone, end what nobody decided in time, pass on what changed."""
        while True:
            try:
                changed, answered = await self.keep(self._tidy)
                if answered:  # begun before anybody is told, so a turn that follows an answer comes after it
                    self._school = self._spawn(self._teach(answered, self._school))
                    self._n_answered += len(answered)
                    self._consider_refit()
                for ticket in changed:
                    self._note(ticket)
            except MightntError as error:  # a full disk: say so and try again
                LOG.error("the store: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), self.terms.tick_seconds)
            self._kick.clear()

    def _tidy(self) -> tuple[list[Ticket], list[Ticket]]:
        """``(what changed, what was answered for good since the last time and can teach)``."""
        self.store.release()
        self.store.expire()
        changed = self.store.changes(self.sequence)
        self.sequence = max([self.sequence, *(ticket.sequence for ticket in changed)])
        return changed, [ticket for ticket in changed if self._learns and ticket.state is State.ANSWERED]

    def _answers(self) -> list[Ticket]:
        return list(self.store.answers())

    async def _teach(self, answered: Sequence[Ticket], after: asyncio.Task[None] | None = None) -> None:
        """Teach the speaker these answers; turns that have begun go on as they are."""
        if after:
            await asyncio.wait([after])
        speaker, n_learned = self.pupil
        speaker, n_taught = await self._loop.run_in_executor(self._mouths, taught, speaker, answered)
        self.pupil = (speaker, n_learned + len(answered))
        self.metrics.count("mightnt_answers_learned_total", n_taught)

    async def speaker_after(self, n_answers: int) -> Speaker:
        """The speaker as it was after so many answers. Cost: learning them again."""
        first = await self.keep(lambda: list(islice(self.store.answers(), n_answers)))
        return (await self._loop.run_in_executor(self._mouths, taught, self.untaught, first))[0]

    # ---- networks

    def _consider_refit(self) -> None:
        """Begin to fit networks on, if enough was answered since the last time and nobody is at it."""
        refit = self._refit
        if refit and not self._fitting and self._n_answered - self._n_fitted >= refit.every:
            self._fitting, self._n_fitted = True, self._n_answered
            self._spawn(self._fit_on(refit))

    async def _fit_on(self, refit: Refit) -> None:
        """Fit networks on, and let those that passed take over. Whatever goes wrong, the old ones serve."""
        outcome = "failed"
        try:
            why = await refitted(refit.commands)
            outcome = "kept" if why else "passed"
            if why:
                LOG.warning("the old networks stay: %s", why)
            else:
                await self._take_over(await asyncio.to_thread(refit.load))
        except Exception as error:
            outcome = "failed"
            LOG.error("networks were not fitted on, the old ones serve: %s", error)
        self.metrics.count("mightnt_refits_total", outcome=outcome)
        self._fitting = False
        self._consider_refit()

    async def _take_over(self, speaker: Speaker) -> None:
        """Let another speaker say the turns that begin once it has learnt as much as this one."""
        n_learned = self.pupil[1]
        answers = await self.keep(self._answers)
        pupil, _ = await asyncio.to_thread(taught, speaker, answers[:n_learned])
        self._school = self._spawn(self._promote(speaker, pupil, n_learned, self._school))
        await self._school

    async def _promote(
        self, speaker: Speaker, pupil: Speaker, n_learned: int, after: asyncio.Task[None] | None
    ) -> None:
        """What was answered while ``pupil`` was taught is learnt; then it takes the place of the other."""
        if after:
            await asyncio.wait([after])
        n_now = self.pupil[1]
        answers = await self.keep(self._answers)
        pupil, _ = await self._loop.run_in_executor(self._mouths, taught, pupil, answers[n_learned:n_now])
        self.untaught, self.pupil = speaker, (pupil, n_now)

    # ---- news

    def _note(self, ticket: Ticket) -> None:
        """A ticket as it stands now: tell who waits for it. (How far the store was looked at is the clerk's to say: others
        change it too, and a change of theirs may lie before this one.)"""
        known = self.open.get(ticket.number)
        if known and known.sequence >= ticket.sequence:
            return
        self.open.pop(ticket.number, None)
        if not ticket.state.final:
            self.open[ticket.number] = ticket
        elif known:
            self.metrics.count("mightnt_settled_total", state=ticket.state)
        self.metrics.gauges["mightnt_waiting"] = len(self.open)
        if ticket.state.final:
            for future in self.waiters.get(ticket.number, ()):
                if not future.done():
                    future.set_result(ticket)
            turn = self.parked.pop(ticket.number, None)
            if turn and ticket.state is State.ANSWERED and ticket.decision:
                asyncio.get_running_loop().run_in_executor(self._mouths, turn.continue_with, ticket.decision.text)
        for listener in self.listeners:
            listener(ticket)


def taught(speaker: Speaker, answered: Sequence[Ticket]) -> tuple[Speaker, int]:
    """``(the speaker after these answers, one at a time, how many taught it something)``.

    An answer that it cannot learn from teaches nothing, today and at the next start; the log says so.
    """
    n_taught = 0
    for ticket in answered:
        try:
            if isinstance(speaker, LearningSpeaker):
                speaker = speaker.taught([lesson(ticket)])
                n_taught += 1
        except Exception as error:
            LOG.warning("the answer to %s teaches nothing: %s", ticket.number, error)
    return speaker, n_taught


def again(said: Said) -> Talk:
    """A turn of before, as if it were said now."""
    talk = Talk(said)
    if said.text:
        talk.add(said.text)
    talk.end(None, None)
    return talk


def ending(state: State) -> str:
    """The reason with which a turn ends whose question came to this."""
    return "stop" if state is State.ANSWERED else state.value


def new_name(key: str | None, seed: int) -> str:
    """A name for a conversation: random, or made from the key of a call that may be sent again."""
    words = secrets.token_hex(16) if key is None else hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()[:32]
    return f"c-{words}"


def seed_of(name: str, seed: int) -> int:
    """The seed of a conversation's dice, 0 to 2^63 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
