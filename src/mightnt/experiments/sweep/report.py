"""The report of the full experiment, made from records only: a table for each study, goals, figures, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mightnt.experiments.sweep.goals import goal_table
from mightnt.experiments.sweep.matched import KINDS as MATCHED_KINDS
from mightnt.experiments.sweep.matched import matched_table
from mightnt.experiments.sweep.pictures import (
    Picture,
    along_episode,
    asking,
    how_held,
    lengths,
    over_optimization,
    promise_and_truth,
    shortcut,
)
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Records, missing
from mightnt.experiments.sweep.studies import PARTS, Study
from mightnt.experiments.sweep.tables import (
    BEHAVIOR_KINDS,
    KINDS,
    LARGEST_KINDS,
    behavior_table,
    demonstrator_table,
    largest_reward_table,
    study_table,
)
from mightnt.experiments.sweep.transcripts import desk_transcripts, transcripts
from mightnt.files import write_text

PAGE = "report.md"
PICTURES_OF = {
    "bases": (along_episode, transcripts),
    "budgets": (over_optimization, promise_and_truth),
    "demonstrations": (asking,),
    "constraints": (how_held,),
    "repeats": (lengths,),
    "shortcut": (shortcut, desk_transcripts),
}
"""The figures that show a study."""
MOST_NAMED = 12
"""Missing runs that are named one by one; the rest are counted."""


def write_report(folder: Path, studies: Sequence[Study], records: Records, first_seed: int = 0) -> None:
    """Write ``folder/report.md`` and ``folder/figures``. Nothing but the records is looked at.

    Cost: seconds.
    """
    sections = [header(studies, records, first_seed)]
    for study in studies:
        pictures = [make(records, first_seed) for make in PICTURES_OF.get(study.name, ())]
        for picture in pictures:
            picture.write(folder / "figures")
        sections.append(section(study, records, pictures, first_seed))
    sections.append(footer(studies, records, first_seed))
    write_text(folder / PAGE, "\n".join(sections))


def header(studies: Sequence[Study], records: Records, first_seed: int) -> str:
    """What this is, how much of it is there, and the goals."""
    runs = planned(studies, first_seed)
    absent = missing(runs, records)
    others = [name for name in PARTS if name not in {study.name for study in studies}]
    lines = [
        "# The full experiment\n",
        f"{len(runs) - len(absent)} of {len(runs)} runs are measured, in {len(studies)} parts; seeds from {first_seed} on. "
        f"Commits: {', '.join(records.commits) or 'none'}.\n",
        *([f"Parts not shown here: {', '.join(others)}.\n"] if others else []),
        *(f"Note: {note}\n" for note in records.notes),
        KINDS + "\n",
        "## Goals\n",
        goal_table(records, first_seed).markdown(),
    ]
    return "\n".join(lines)


def section(study: Study, records: Records, pictures: Sequence[Picture], first_seed: int) -> str:
    """One study: its question, its table, its figures."""
    drawn = [f"![{one.caption}](figures/{one.name}.svg)\n\n*{one.caption}*\n" for one in pictures]
    tables = (study_table(study, records, first_seed), demonstrator_table(study, records, first_seed))
    largest = largest_reward_table(study, records, first_seed).markdown()
    words = [f"{LARGEST_KINDS}\n", largest] if largest else []
    done = behavior_table(study, records, first_seed).markdown()
    words += [f"{BEHAVIOR_KINDS}\n", done] if done else []
    same = matched_table(study, records, first_seed).markdown()
    words += [f"{MATCHED_KINDS}\n", same] if same else []
    return "\n".join([f"## {study.name}: {study.question}\n", *(table.markdown() for table in tables), *words, *drawn])


def footer(studies: Sequence[Study], records: Records, first_seed: int) -> str:
    """Every run that is missing, with its error where it failed, and runs that belong to no part shown here."""
    runs = planned(studies, first_seed)
    absent = missing(runs, records)
    lines = ["## Missing runs\n", "None.\n" if not absent else f"{len(absent)} of {len(runs)}.\n"]
    failed = [records.by_run[run] for run in absent if run in records.by_run]
    lines += [
        f"- {one.cell.name}, seed {one.seed}: failed after {one.attempts} attempt(s): {one.failed}" for one in failed
    ]
    never = [run for run in absent if run not in records.by_run]
    lines += [f"- {cell.name}, seed {seed}: not run" for cell, seed in never[:MOST_NAMED]]
    if len(never) > MOST_NAMED:
        lines.append(f"- and {len(never) - MOST_NAMED} more that were not run")
    others = len(set(records.by_run) - set(runs))
    if others:
        lines.append(f"\n{others} record(s) belong to runs of no part shown here; they are in no table.")
    return "\n".join(lines) + "\n"
