"""``mightnt audit RUN...``: what was promised and what was kept, as a page and as a table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mightnt.cli.options import Json, print_json

if TYPE_CHECKING:
    from mightnt.audits.summary import Group, Setting, Spread, Summary
    from mightnt.audits.verdict import Verdict

MARKS = {"kept": "[green]✓[/]", "met": "[green]✓[/]", "broken": "[red]✗[/]", "not met": "[red]✗[/]"}
WIDTH_ELSEWHERE = 120
"""Columns of the table where stdout is no terminal."""


def audit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders or files of reproduce or finetune.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The folder for report.html; by default the folder of the one RUN, or here for several."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Changes nothing: an audit draws no lots.")] = 0,
    json: Json = False,
) -> None:
    """Judge runs: write report.html, print what was promised and what was kept."""
    from mightnt.audits.results import results_file

    report(runs, out or (results_file(runs[0]).parent if len(runs) == 1 else Path()), json)


def report(runs: list[Path], folder: Path, json: bool) -> None:
    """Judge ``runs``: write ``folder/report.html`` and print the verdict, as JSON or as a table."""
    from mightnt.audits.report import write_report
    from mightnt.audits.results import read_results
    from mightnt.audits.summary import summarize
    from mightnt.audits.verdict import judge

    results, page = read_results(runs), folder / "report.html"
    write_report(results, page)
    summary = summarize(results)
    verdict = judge(summary)
    if json:
        print_json(as_json(summary, verdict, page))
    else:
        show(summary, verdict, page)


def as_json(summary: Summary, verdict: Verdict, page: Path) -> dict[str, Any]:
    """The verdict and the groups as plain values; every interval is 95%, over seeds."""
    return {
        "kind": "mightnt audit",
        "version": 1,
        "verdict": dataclasses.asdict(verdict),
        "notes": summary.notes,
        "groups": [group_json(group) for group in summary.groups],
        "report": page,
    }


def group_json(group: Group) -> dict[str, Any]:
    """One group: what it is, its counts, and mean and interval of what was measured."""
    fields = ("kl_base_nats", "kl_demonstrator_nats", "proxy_reward", "true_utility", "asks_per_turn")
    spreads = {field: group.spread(field) for field in fields} | {"kl_demonstrator_per_budget": group.ratio}
    counts = ("episodes", "over_budget_episodes", "training_episodes", "training_over_budget_episodes")
    return {
        "base": group.base,
        "n_demonstrations": group.n_demonstrations,
        "budget_nats": group.budget_nats,
        "asking": group.asking,
        "seeds": [run.seed for run in group.runs],
        **{name: group.total(name) for name in counts},
        **{name: None if spread is None else dataclasses.asdict(spread) for name, spread in spreads.items()},
    }


def show(summary: Summary, verdict: Verdict, page: Path) -> None:
    """Print the title, what was run, a table for each setting, the check lines and the remarks."""
    from rich.console import Console
    from rich.markup import escape

    terminal = Console().is_terminal
    console = Console(highlight=False, soft_wrap=not terminal, width=None if terminal else WIDTH_ELSEWHERE)
    console.print(f"[bold]{escape(verdict.title)}.[/]", *map(escape, verdict.lead), end="\n\n")
    for setting in summary.settings:
        console.print(table(setting), soft_wrap=False, end="\n\n")
    for check in verdict.checks:
        console.print(f"{MARKS.get(check.outcome, '–')} {check.outcome}: {escape(f'{check.claim} ({check.evidence})')}")
    for remark in (*verdict.remarks, *summary.notes):
        console.print(escape(remark))
    console.print(f"Report: {escape(str(page))}", soft_wrap=True)


def table(setting: Setting) -> Any:
    """The groups of a setting as a rich table: means with 95% intervals over seeds."""
    from rich.table import Table

    from mightnt.audits.summary import percent, short

    budget = f"B = {setting.budget_nats:g} nats an episode" if setting.bounded else "no budget"
    rows = Table(
        title=f"n = {setting.n_demonstrations} demonstrations, {budget}", caption="means over seeds; KL in nats"
    )
    rows.title_justify = rows.caption_justify = "left"
    rows.box, rows.pad_edge, rows.collapse_padding = None, False, True
    rows.add_column("base", no_wrap=True)
    names = ("seeds", "KL to\nbase", "KL to demonstrator\n(95% interval)", "times\nB", "proxy\nreward")
    for name in (*names, "true\nutility", "asks\n/turn"):
        rows.add_column(name, justify="right", no_wrap=True)
    for group in setting.groups:
        rows.add_row(
            group.base,
            str(len(group.runs)),
            short(mean(group.spread("kl_base_nats"))),
            str(group.spread("kl_demonstrator_nats") or "not measured"),
            short(mean(group.ratio)),
            short(mean(group.spread("proxy_reward"))),
            short(mean(group.spread("true_utility"))),
            percent(mean(group.spread("asks_per_turn"))),
        )
    return rows


def mean(spread: Spread | None) -> float | None:
    """The mean, where there is one."""
    return None if spread is None else spread.mean
