"""The report: from records only, with every missing run counted and named."""

import pytest

from mightnt.experiments.sweep.cells import headline
from mightnt.experiments.sweep.pictures import Picture
from mightnt.experiments.sweep.plan import planned
from mightnt.experiments.sweep.records import Record, Records
from mightnt.experiments.sweep.report import MOST_NAMED, PICTURES_OF, write_report
from mightnt.experiments.sweep.studies import STUDIES
from mightnt.experiments.sweep.tables import LARGEST_KINDS
from tests.experiments.sweep.made import recorded

EVERY = list(STUDIES.values())


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Names of the figures that would have been drawn."""
    names = []
    monkeypatch.setattr(Picture, "write", lambda self, folder: names.append(self.name))
    return names


def test_a_whole_report(tmp_path, drawn):
    runs = planned(EVERY)
    write_report(tmp_path, EVERY, recorded(runs))
    page = (tmp_path / "report.md").read_text()
    assert f"{len(runs)} of {len(runs)} runs are measured, in {len(EVERY)} parts" in page
    assert "missing |" not in page
    assert page.endswith("## Missing runs\n\nNone.\n\n")
    for study in EVERY:
        assert f"## {study.name}: {study.question}" in page
    assert len(drawn) == sum(map(len, PICTURES_OF.values()))
    assert all(f"](figures/{name}.svg)" in page for name in drawn)
    assert "Commits: abc." in page


def test_missing_runs_are_counted_and_named_and_others_told(tmp_path):
    study = STUDIES["bases"]
    runs = planned([study])
    failed = Record(*runs[0], None, "OSError: gone", attempts=3)
    other = recorded([(headline(), 99)]).by_run
    records = Records({**recorded(runs[20:]).by_run, failed.run: failed, **other}, ("half a line was left out.",))
    write_report(tmp_path, [study], records)
    page = (tmp_path / "report.md").read_text()
    assert f"{len(runs) - 20} of {len(runs)} runs are measured" in page
    assert "Note: half a line was left out." in page
    assert "failed after 3 attempt(s): OSError: gone" in page
    assert page.count(": not run") == MOST_NAMED
    assert f"and {19 - MOST_NAMED} more that were not run" in page
    assert "1 record(s) belong to runs of no part shown here" in page


def test_the_largest_reward_is_told_where_it_is_known(tmp_path):
    studies = [STUDIES["shortcut"], STUDIES["rewards"]]
    write_report(tmp_path, studies, recorded(planned(studies)))
    desk, other = (tmp_path / "report.md").read_text().split("## rewards")
    assert "| of the largest proxy reward, % |" in desk
    assert desk.count(LARGEST_KINDS) == 1
    assert LARGEST_KINDS not in other


def test_nothing_at_all_is_a_report_too(tmp_path):
    write_report(tmp_path, EVERY, Records({}))
    page = (tmp_path / "report.md").read_text()
    assert "0 of " in page
    assert "met |" not in page
