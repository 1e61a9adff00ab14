"""results.json is read whole, refused with file and field, and merged without counting anything twice."""

import json
import math

import pytest

from mightnt.audits.results import BASES, EpisodeMean, merge, parse_results, read_results
from mightnt.errors import InputError
from mightnt.files import write_json


def changed(value, path, new):
    """A copy of ``value`` with the item at ``path`` replaced, or removed where ``new`` is ``KeyError``."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if new is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return copy


def test_a_whole_file_is_read(synthetic, tmp_path):
    write_json(tmp_path / "results.json", synthetic.results())
    results = read_results([tmp_path])
    assert len(results.runs) == 18
    assert {run.base for run in results.runs} == set(BASES) - {"mixture-fixed", "situations"}
    assert results.headline.budget_nats == 10
    assert results.profile == "default"
    assert results.runs[0].budget_nats == math.inf
    assert results.runs[3].kl_demonstrator_nats.max == pytest.approx(2.2 * 180)
    assert results.sources == ((str(tmp_path / "results.json"), synthetic.provenance()),)
    assert results.runs[0].transcripts[0].turns[0].tokens[0].text == "great"


def test_a_single_run_is_read_from_its_folder_or_file(synthetic, tmp_path):
    write_json(tmp_path / "run.json", synthetic.run("pessimistic", 7) | {"provenance": synthetic.provenance()})
    for path in (tmp_path, tmp_path / "run.json"):
        results = read_results([path])
        assert [run.seed for run in results.runs] == [7]
        assert results.demonstrator is None
        assert results.sources[0][1]["python"] == "3.11.9"


def test_keys_nobody_knows_are_ignored(synthetic):
    assert len(parse_results(synthetic.results() | {"later": 1}, "here").runs) == 18


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        (["runs", 3, "episodes"], KeyError, "runs[3] has no 'episodes'"),
        (["runs", 3, "episodes"], "many", "runs[3].episodes is 'many'; a whole number is needed"),
        (["runs", 3, "episodes"], True, "runs[3].episodes is True"),
        (["runs", 3, "episodes"], 0, "runs[3]: episodes is 0"),
        (["runs", 3, "base"], "median", "runs[3].base is 'median'; allowed are none, single"),
        (["runs", 3, "asking"], ["floor"], "runs[3].asking"),
        (["runs", 3, "kl_base_nats"], None, "runs[3].kl_base_nats is null; an object is needed"),
        (["runs", 3, "kl_base_nats", "mean"], "nan", "kl_base_nats.mean is 'nan'; a number is needed"),
        (["runs", 3, "kl_base_nats", "mean"], float("nan"), "kl_base_nats.mean is NaN"),
        (["runs", 3, "kl_base_nats", "mean"], -1.0, "never negative"),
        (["runs", 3, "kl_demonstrator_nats", "max"], KeyError, "kl_demonstrator_nats has no 'max'"),
        (["runs", 3, "proxy_reward", "mean"], "inf", "not finite"),
        (["runs", 3, "budget_nats"], -2, "budget_nats is -2"),
        (["runs", 3, "over_budget_episodes"], 501, "over_budget_episodes is 501 of 500"),
        (["runs", 3, "asked_turns"], -1, "asked_turns is -1"),
        (["runs", 3, "asks_per_turn"], 1.5, "asks_per_turn is 1.5"),
        (["runs", 3, "curve", 2, "kl_base_nats"], None, "runs[3].curve[2].kl_base_nats is null"),
        (["runs", 3, "transcripts", 0, "turns", 1, "speaker"], "robot", "turns[1].speaker is 'robot'"),
        (["runs"], {}, "runs is dict; a list is needed"),
        (["headline"], 3, "headline is 3; an object is needed"),
        (["imitators", 1, "name"], None, "imitators[1].name is null; text is needed"),
        (["version"], 2, "version is 2"),
        (["kind"], "recipes", "holds no results"),
        (["demonstrator"], KeyError, "the file has no 'demonstrator'"),
    ],
)
def test_what_does_not_fit_is_named_with_file_and_field(synthetic, path, new, words):
    with pytest.raises(InputError) as caught:
        parse_results(changed(synthetic.results(), path, new), "some/results.json")
    assert str(caught.value).startswith("some/results.json: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("value", [[], 3, None, {}, {"runs": []}, "text"])
def test_other_json_is_refused(value):
    with pytest.raises(InputError, match="holds no results"):
        parse_results(value, "x.json")


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match="holds neither results"):
        read_results([tmp_path])
    with pytest.raises(InputError, match="there is no such file"):
        read_results([tmp_path / "nowhere"])
    (tmp_path / "results.json").write_text('{"kind": \n oops')
    with pytest.raises(InputError, match=r"results.json:2: not JSON"):
        read_results([tmp_path])
    with pytest.raises(InputError, match="nothing to read"):
        read_results([])


def test_infinities_are_numbers_and_an_undefined_error_is_none(synthetic):
    run = parse_results(synthetic.results([synthetic.run(kl_demonstrator="inf")]), "x").runs[0]
    assert run.kl_demonstrator_nats == EpisodeMean(math.inf, None, 500, math.inf)


def test_the_same_run_counts_once_and_shared_seeds_are_noted(synthetic, tmp_path):
    for name, runs in (("a", [0, 1]), ("b", [1, 2])):
        write_json(tmp_path / name / "results.json", synthetic.results([synthetic.run(seed=seed) for seed in runs]))
    write_json(tmp_path / "c" / "run.json", synthetic.run(seed=2, seconds=1.0))
    both = read_results([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert [run.seed for run in both.runs] == [0, 1, 2]
    assert len(both.imitators) == 3
    assert len(both.sources) == 2
    assert "1 run(s) came twice" in both.notes[0]
    again = read_results([tmp_path / "b", tmp_path / "c"])
    assert len(again.runs) == 3
    assert "seed 2" in again.notes[0]
    assert "not independent" in again.notes[0]


def test_the_first_headline_and_demonstrator_win_and_that_is_noted(synthetic):
    other = synthetic.results([], headline={"budget_nats": 5, "n_demonstrations": 300})
    other["demonstrator"]["episodes"] = 7
    merged = merge([parse_results(value, "x") for value in (synthetic.results([]), other)])
    assert merged.headline.budget_nats == 10
    assert merged.demonstrator.episodes == 1000
    assert len(merged.notes) == 2
