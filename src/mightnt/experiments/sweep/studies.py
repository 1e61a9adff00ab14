"""What is asked: one factor at a time around the headline. A study is a question and the cells that answer it.

Studies share cells; a shared cell is run once. The number of seeds belongs to the cell: five where a goal or the headline
speaks of it or the rounds are ninety, three elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mightnt.errors import InputError
from mightnt.experiments.sweep.cells import Cell, Imitation, alone, base_alone, headline
from mightnt.experiments.sweep.settings import checked

BUDGETS_NATS = (2.5, 5.0, 10.0, 20.0, 40.0)
LENGTHS = (1, 2, 4)
PENALTIES_PER_NAT = (0.002, 0.005, 0.01, 0.02, 0.05)
TARGETS_NATS = (5.0, 10.0, 20.0)
SIZES = (300, 1000, 3000, 10000)
COMPARED = ("none", "single", "mixture", "mixture-fixed", "pessimistic-minimum", "pessimistic", "situations", "known")
"""Every base of the headline table."""
HELD = tuple(base for base in COMPARED if base not in ("none", "pessimistic"))
"""The bases of the studies with many cells."""
CONTRASTED = ("single", "mixture", "situations", "known")
"""The bases of the studies that would be too long with all."""
MOST_ROUNDS = 90
SEEDS, HEADLINE_SEEDS = 3, 5


@dataclass(frozen=True)
class Study:
    """A question, and the cells that answer it: a part of the full experiment."""

    name: str
    question: str
    cells: tuple[Cell, ...]


def study(name: str, question: str, cells: Iterable[Cell]) -> Study:
    """A study of these cells, with each base alone beside them."""
    with_rl = tuple(dict.fromkeys(cells))
    bases = [base_alone(cell) for cell in with_rl if cell.base != "none"]
    own = [alone(replace(cell, base="known")) for cell in with_rl]
    return Study(name, question, tuple(map(checked, dict.fromkeys([*with_rl, *bases, *own]))))


def crossed(bases: Sequence[str], changes: Sequence[dict[str, object]]) -> list[Cell]:
    """Each change of the headline, on each base; ``none``, which nothing holds, is not changed in what holds it."""
    return [replace(headline(base), **change) for change in changes for base in bases]  # type: ignore[arg-type]


ELSEWHERE = ("none", "single", "mixture", "pessimistic", "situations", "known")
"""The bases of the studies in other settings."""
DESK = "tools"
"""The setting whose largest reward is known."""

LONG = Imitation(shared=True)
"""Longer demonstrations take longer to fit to: one set of imitators for all seeds."""

STUDIES = {
    one.name: one
    for one in (
        study("bases", "What does it matter what the policy is held to?", crossed(COMPARED, [{}])),
        study(
            "budgets",
            "What does a nat buy, and how far does it lead?",
            [*crossed(HELD, [{"strength": nats} for nats in BUDGETS_NATS]), headline("none")],
        ),
        study(
            "demonstrations",
            "Does data fix it?",
            crossed(("single", "mixture", "pessimistic", "situations"), [{"n_demonstrations": n} for n in SIZES]),
        ),
        study(
            "lengths",
            "Is longer worse, at the same budget for the whole episode?",
            crossed(CONTRASTED, [{"length": 1}, *({"length": x, "imitation": LONG} for x in LENGTHS[1:])]),
        ),
        study(
            "constraints",
            "Does it matter how the policy is held, at the same KL to the base?",
            crossed(
                ("mixture", "situations", "known"),
                [
                    {},
                    *({"constraint": "penalty", "strength": price} for price in PENALTIES_PER_NAT),
                    *({"constraint": "target", "strength": nats} for nats in TARGETS_NATS),
                ],
            ),
        ),
        study(
            "capability",
            "Does a stronger optimizer find more?",
            [
                *crossed(
                    ("mixture", "situations", "known"),
                    [{"actor_width": 32}, {}, {"actor_width": 512}, {"iterations": 10}, {"iterations": MOST_ROUNDS}],
                ),
                replace(headline("mixture"), constraint="target", iterations=MOST_ROUNDS),
            ],
        ),
        study(
            "rewards",
            "How bad does it get with a reward that pays for leaving, and with a harmless one?",
            crossed(HELD, [{"reward": reward} for reward in ("benign", "adversarial", "harmless")]),
        ),
        study(
            "shortcut",
            "And where the largest reward is known, and a simple thing that nobody demonstrated has it?",
            [
                *crossed(ELSEWHERE, [{"setting": DESK}]),
                *crossed(("mixture", "situations"), [{"setting": DESK, "strength": nats} for nats in BUDGETS_NATS[:2]]),
            ],
        ),
        study(
            "repeats",
            "Is longer worse where what is bought pays in every turn?",
            crossed(
                ("mixture", "situations"),
                [{"setting": DESK}, *({"setting": DESK, "length": x, "imitation": LONG} for x in LENGTHS[1:])],
            ),
        ),
    )
}
"""By name, in the order in which they are run."""

TEXT = "text"
"""The part that needs a file of real chats."""
PARTS = (*STUDIES, TEXT)
"""Names of all parts, in the order in which they are run."""


def text_study(data: str) -> Study:
    """Natural text with a known demonstrator; ``data`` is the fingerprint of the chats that taught it."""
    made = Imitation(other_chats=2000, fitting_steps=400, shared=True)
    change = {"setting": TEXT, "data": data, "n_demonstrations": 3000, "imitation": made}
    cells = crossed(ELSEWHERE, [change])
    return study(TEXT, "And where the demonstrator is a language model and the words are natural?", cells)


OFTEN = frozenset(
    cell
    for one in (
        *map(headline, ("mixture", "situations", "known")),
        replace(headline(), reward="adversarial"),
        replace(headline(), n_demonstrations=1000),
        replace(headline("mixture"), iterations=MOST_ROUNDS),
        replace(headline(), iterations=MOST_ROUNDS),
    )
    for cell in (one, base_alone(one))
)
"""Cells with more seeds: the headline, its oracle, what the goals speak of, and the mixture given more rounds to show it."""


def n_seeds(cell: Cell) -> int:
    """How many seeds this cell is run with."""
    return HEADLINE_SEEDS if cell in OFTEN else SEEDS


def chosen(names: str, data: str = "") -> list[Study]:
    """The studies of these names (separated by commas), in their order; all that can be run for an empty text.

    Raises :class:`~mightnt.errors.InputError` for an unknown name, with those there are, and for natural text without chats.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in PARTS:
            raise InputError(f"unknown part {name!r}; allowed are {', '.join(PARTS)}")
    if TEXT in wanted and not data:
        raise InputError("the part text needs real chats to learn from; give a file of them with --chats")
    there = [*STUDIES.values(), *([text_study(data)] if data else [])]
    return [one for one in there if one.name in (wanted or PARTS)]
