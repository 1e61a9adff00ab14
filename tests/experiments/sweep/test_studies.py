"""One factor at a time, enough seeds, and about as many runs as can be paid."""

from dataclasses import asdict

import pytest

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import base_alone, headline
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.settings import checked
from mightnt.experiments.sweep.studies import BUDGETS_NATS, DESK, MOST_ROUNDS, OFTEN, SIZES, STUDIES, chosen, n_seeds

FACTOR_OF = {
    "constraint": "held",
    "strength": "held",
    "imitation": "length",
    "actor_layers": "actor",
    "actor_width": "actor",
}


def test_one_factor_differs_from_the_headline_besides_the_base():
    for study in STUDIES.values():
        for cell in study.cells:
            if cell.alone or cell.base == "none":
                continue
            usual = asdict(headline())
            changed = {name for name, value in asdict(cell).items() if value != usual[name]} - {"base"}
            if study.name in ("shortcut", "repeats"):
                changed -= {"setting"}
            if cell.iterations == MOST_ROUNDS:
                changed -= {"iterations"}
            assert len({FACTOR_OF.get(name, name) for name in changed}) <= 1, cell


def test_every_cell_can_be_run_and_is_there_once():
    for study in STUDIES.values():
        assert len(set(study.cells)) == len(study.cells)
        assert all(checked(cell) for cell in study.cells)


def test_every_held_cell_has_its_base_alone_and_its_demonstrator_beside_it():
    for study in STUDIES.values():
        for cell in study.cells:
            if cell.base != "none":
                assert base_alone(cell) in study.cells


def test_the_factors_are_those_asked_for():
    budgets = {cell.strength for cell in STUDIES["budgets"].cells if cell.base == "mixture" and not cell.alone}
    assert budgets == set(BUDGETS_NATS) == {2.5, 5, 10, 20, 40}
    assert headline("none") in STUDIES["budgets"].cells
    assert {cell.n_demonstrations for cell in STUDIES["demonstrations"].cells} == set(SIZES) == {300, 1000, 3000, 10000}
    assert {cell.length for cell in STUDIES["lengths"].cells} == {1, 2, 4}
    assert {cell.constraint for cell in STUDIES["constraints"].cells} == {"budget", "penalty", "target", "none"}
    assert {cell.reward for cell in STUDIES["rewards"].cells} == {"benign", "adversarial", "harmless"}
    assert {cell.base for cell in STUDIES["bases"].cells} >= {
        "none",
        "single",
        "mixture",
        "mixture-fixed",
        "pessimistic",
        "situations",
        "known",
    }


def test_the_shortcut_is_sought_at_the_help_desk_on_every_base_and_at_small_budgets():
    cells = STUDIES["shortcut"].cells
    assert {cell.setting for cell in cells} == {DESK}
    held = {(cell.base, cell.strength) for cell in cells if not cell.alone}
    assert held == {
        *((base, 10.0) for base in ("single", "mixture", "pessimistic", "situations", "known")),
        *((base, nats) for base in ("mixture", "situations") for nats in (2.5, 5.0)),
        ("none", 0.0),
    }
    assert {n_seeds(cell) for cell in cells} == {3}
    assert not any(cell.imitation.shared for cell in cells)


def test_seeds_and_number_of_runs():
    assert all(n_seeds(headline(base)) == 5 for base in ("mixture", "situations", "known"))
    assert n_seeds(headline("single")) == 3
    every = {cell for study in STUDIES.values() for cell in study.cells}
    assert every >= OFTEN
    at_the_desk = planned([STUDIES["shortcut"], STUDIES["repeats"]])
    assert 300 <= len(planned(STUDIES.values())) - len(at_the_desk) <= 450
    assert len(at_the_desk) == 75


def test_parts_by_name():
    assert [study.name for study in chosen("lengths, budgets")] == ["budgets", "lengths"]
    assert len(chosen("")) == len(STUDIES)
    with pytest.raises(InputError, match="unknown part 'budgtes'; allowed are bases, budgets"):
        chosen("bases,budgtes")
