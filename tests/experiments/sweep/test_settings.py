"""What a run needs is made once for all that share it, and what cannot be run is refused with what there is."""

from dataclasses import replace
from pathlib import Path

import pytest

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import Imitation, headline
from mightnt.experiments.sweep.settings import SETTINGS, checked, seconds

FOLDER = Path("somewhere")


def names(cell, seed=0):
    return [one.part.name for one in SETTINGS["chat"].prepare(FOLDER, cell, seed)]


def test_cells_share_what_they_can():
    cell = headline()
    assert names(cell) == names(replace(cell, base="mixture", strength=5.0, iterations=0, reward="adversarial"))
    fewer = set(names(replace(cell, n_demonstrations=300)))
    assert {name for name in names(cell) if "pretrain" in name} == set(names(cell)) & fewer
    assert not set(names(cell)) & set(names(cell, 1))
    assert not set(names(cell)) & set(names(replace(cell, length=2)))
    assert not set(names(cell)) & set(names(replace(cell, imitation=Imitation(other_chats=7))))
    shared = replace(cell, imitation=Imitation(shared=True))
    assert names(shared, 0) == names(shared, 4)


def test_everything_waits_for_what_it_needs():
    before = set()
    for one in SETTINGS["chat"].prepare(FOLDER, headline(), 3):
        assert set(one.part.needs) <= before
        assert one.place.name == one.part.name.split("set3-")[1] + ".json"
        before.add(one.part.name)
    assert len(before) == 5
    last = SETTINGS["chat"].prepare(FOLDER, headline(), 3)[-1].part
    assert len(last.needs) == 2


def test_each_set_has_demonstrations_of_its_own_and_its_length():
    first, second = (SETTINGS["chat"].prepare(FOLDER, replace(headline(), length=2), seed)[0].part for seed in (0, 1))
    assert (first.arguments[2], second.arguments[2]) == (0, 1000)


def test_longer_takes_longer():
    assert seconds(replace(headline(), length=4)) > 3 * seconds(headline())
    assert seconds(replace(headline(), iterations=0)) < seconds(headline()) / 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": "chess"}, "unknown setting 'chess'; allowed are chat, text, tools"),
        ({"reward": "money"}, "unknown reward 'money'; allowed are benign, adversarial, harmless"),
        ({"base": "knwon"}, "unknown base 'knwon'; allowed are none, single"),
        ({"constraint": "hope"}, "unknown constraint 'hope'; allowed are none, budget"),
        ({"asking": "never"}, "unknown asking"),
        ({"n_demonstrations": 0}, "n_demonstrations is 0; 1 or more"),
        ({"iterations": -1}, "iterations is -1; 0 or more"),
        ({"iterations": 0}, "constraint must be none"),
        ({"base": "none"}, "constraint must be none"),
        ({"constraint": "none"}, "strength 10"),
        ({"strength": 0.0}, "strength 0"),
        ({"strength": float("inf")}, "strength inf"),
        ({"strength": float("nan")}, "strength nan"),
    ],
)
def test_what_cannot_be_run_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        checked(replace(headline(), **change))
