"""Records come back from disk as they were, and a bad file is named by its line."""

import json
from math import inf

import pytest

from mightnt.desk.record import Record, RecordedStep, read_records, write_records
from mightnt.errors import InputError
from mightnt.history import Chooser, Step


def record(limit=2.0, seed=3):
    steps = (
        RecordedStep(1, Chooser.AGENT, 0.5, None, 0.0, limit - 0.5, (-inf, 0.0)),
        RecordedStep(0, Chooser.WORLD, 0.0, None, 0.0, limit - 0.5),
        RecordedStep(0, Chooser.DEMONSTRATOR, 0.0, 0.25, 1.0, limit - 0.5),
    )
    return Record(steps, limit, "floor", seed, 0.75, {"policy": "SoftPolicy"})


def test_what_is_written_is_read(tmp_path):
    written = [record(), record(limit=inf, seed=4)]
    write_records(tmp_path / "two.jsonl", written)
    read = read_records(tmp_path / "two.jsonl")
    assert [r.steps for r in read] == [r.steps for r in written]
    for one, other in zip(read, written, strict=True):
        assert (one.limit_nats, one.asking, one.seed, one.utility) == (
            other.limit_nats,
            other.asking,
            other.seed,
            other.utility,
        )
        assert one.config == other.config
        assert one.provenance["seed"] == other.seed
        assert "python" in one.provenance


def test_provenance_is_kept_when_a_record_is_written_again(tmp_path):
    write_records(tmp_path / "a.jsonl", [record()])
    first = read_records(tmp_path / "a.jsonl")
    write_records(tmp_path / "b.jsonl", first)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def test_what_a_record_adds_up_to():
    assert record().spent_nats == 0.5
    assert record().n_asks == 1
    assert record().history == (Step(1, Chooser.AGENT), Step(0, Chooser.WORLD), Step(0, Chooser.DEMONSTRATOR))


def change(line, **values):
    def edit(lines):
        lines[line].update(values)

    return edit


def drop(line, key):
    return lambda lines: lines[line].pop(key)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda lines: lines.clear(), "is empty"),
        (lambda lines: lines.pop(0), r':1: a record begins with a line that holds "record": 1'),
        (change(0, record=2), r':1: a record begins with a line that holds "record": 1'),
        (lambda lines: lines.pop(), r":1: 3 steps are promised, 2 are there"),
        (lambda lines: lines.append(lines[-1]), r":5: a record begins"),
        (change(0, asking="for free"), r":1: the account of asking is 'for free'"),
        (change(0, n_steps=-1), r":1: .*-1"),
        (change(0, provenance={"config": 3}), r":1: .*config"),
        (drop(0, "limit_nats"), r":1: 'limit_nats' should be a number"),
        (change(2, chooser="somebody"), r":3: the chooser is 'somebody'"),
        (change(3, symbol=1.5), r":4: 'symbol' should be int"),
        (change(3, symbol=True), r":4: 'symbol' should be int"),
        (change(1, left_nats="nan"), r":2: 'left_nats' should be a number or the string inf"),
        (change(1, left_nats=None), r":2: 'left_nats' should be a number"),
        (change(1, kl_demonstrator_nats="much"), r":2: 'kl_demonstrator_nats' should be"),
        (drop(1, "asking_probability"), r":2: 'asking_probability' should be"),
        (change(1, policy_log_probabilities=0.5), r":2: policy_log_probabilities"),
        (change(1, policy_log_probabilities=[None]), r":2: .*should be a number"),
        (lambda lines: lines.__setitem__(2, [1]), r":3: a step is a JSON object"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_named_with_its_line(tmp_path, edit, sentence):
    path = tmp_path / "bad.jsonl"
    write_records(path, [record()])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=sentence):
        read_records(path)


def test_a_bare_nan_in_the_file_is_refused(tmp_path):
    path = tmp_path / "nan.jsonl"
    write_records(path, [record()])
    path.write_text(path.read_text().replace('"left_nats": 1.5', '"left_nats": NaN', 1))
    with pytest.raises(InputError, match=r":2: 'left_nats' is NaN"):
        read_records(path)


def test_what_is_no_json_is_named(tmp_path):
    path = tmp_path / "torn.jsonl"
    write_records(path, [record()])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r":4: not JSON"):
        read_records(path)
