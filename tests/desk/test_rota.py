"""A rota says who is first, who comes after, and when a question gives up; nonsense is refused."""

from math import inf, nan

import pytest

from mightnt.desk.rota import Rota, Shift, read_rota
from mightnt.desk.store import open_store
from mightnt.errors import InputError
from tests.desk.questions import Clock, inquiry


def test_a_rota_is_read_as_it_is_written():
    assert read_rota("ann:60, bob , team: night:2.5") == Rota(
        (Shift("ann", 60.0), Shift("bob", 300.0), Shift("team: night", 2.5))
    )
    assert read_rota("ann:inf").seconds == inf


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ann:soon", "'ann:soon'; NAME or NAME:SECONDS"),
        ("ann:", "NAME or NAME:SECONDS"),
        ("", "needs a name"),
        ("ann,,bob", "needs a name"),
        (":60", "needs a name"),
        ("ann:0", "more than 0 seconds"),
        ("ann:nan", "more than 0 seconds"),
        ("ann,bob,ann", "nobody twice"),
    ],
)
def test_nonsense_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        read_rota(text)


def test_somebody_must_be_on_it():
    with pytest.raises(InputError, match="somebody must be on it"):
        Rota(())
    with pytest.raises(InputError):
        Shift("ann", nan)


def test_it_gives_up_after_everybodys_time(tmp_path):
    rota, clock = read_rota("ann:60,bob:30,cem:10"), Clock()
    assert rota.seconds == 100
    assert rota.begin(clock.now) == ("ann", 1060.0, (("bob", 30.0), ("cem", 10.0)))
    with open_store(tmp_path, clock=clock) as store:
        number = store.ask("q", inquiry(), *rota.begin(store.now())).number
        seen = []
        for _ in range(101):
            store.expire()
            ticket = store.ticket(number)
            seen.append("nobody" if ticket.state.final else ticket.person)
            clock.now += 1
    assert seen == ["ann"] * 60 + ["bob"] * 30 + ["cem"] * 10 + ["nobody"]
