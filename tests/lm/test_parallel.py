"""Members in several processes: the numbers of one process, one refusal for all, and nobody waits for the dead."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.parallel import Share, Together, agreed, vouched_by_logits_together
from mightnt.lm.vocabulary import vouched_by_heads, vouched_by_logits
from tests.lm.processes import LONG_SECONDS, SCENES, TIMEOUT_SECONDS, logits, members, rules

SCRIPT = Path(__file__).with_name("processes.py")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """What each of two processes wrote in each scene; the second ends in the last scene. Nobody outlives the fixture."""
    folder = tmp_path_factory.mktemp("processes")
    running = [subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(folder)]) for rank in range(2)]
    try:
        assert [process.wait(150) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return {
        (scene, rank): json.loads((folder / f"{scene}-{rank}.json").read_text(encoding="utf-8"))
        for scene in SCENES
        for rank in range(2)
        if (scene, rank) != ("dead", 1)
    }


@pytest.mark.parametrize("split", [[2, 1], [3, 0], [0, 3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [None, 1, 3])
def test_two_processes_say_what_one_says_bit_for_bit(played, split, dtype, block):
    hidden, heads, targets = members(dtype)
    for name, rule in rules().items():
        said = [
            vouched_by_heads(hidden, heads, targets, block_positions=block, **rule),
            vouched_by_logits(logits(dtype), targets, **rule),
        ]
        alone = [[v.log_nu.tolist(), v.log_kept.tolist(), str(dtype)] for v in said]
        for rank in range(2):
            assert played["numbers", rank][f"{split} {name} {dtype} {block}"] == alone


def test_no_positions_are_no_numbers(played):
    assert [played["numbers", rank]["no positions"] for rank in range(2)] == [[[0], [0]]] * 2


@pytest.mark.parametrize(
    ("case", "kind", "sentence"),
    [
        ("vocabulary", "InputError", "differ in vocabulary: [50, 49]"),
        ("positions", "InputError", "differ in positions: [7, 6]"),
        ("targets", "InputError", "differ in targets"),
        ("temperature", "InputError", "targets, temperature or actions"),
        ("actions", "InputError", "or actions"),
        ("type", "InputError", "number type (1: float64): [0, 1]"),
        ("slack", "InputError", "could sum to more than one"),
        ("nobody", "InputError", "no process holds a member"),
        ("one is wrong", "InputError", "process 1: logits [('torch.float32', (50,))]"),
        ("one is strange", "ContractError", "member 3 of 4"),
        ("one has no block", "InputError", "process 1: block_positions is 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_all_with_one_sentence(played, case, kind, sentence):
    first, second = (played["refusals", rank][case] for rank in range(2))
    assert first == second
    assert first[0] == kind
    assert sentence in first[1]


def test_every_refusal_is_looked_at(played):
    assert None not in played["refusals", 0].values()
    assert len(played["refusals", 0]) == 11


def test_a_silent_process_is_an_error_after_the_timeout(played):
    kind, sentence, seconds = played["silent", 0]
    assert kind == "ContractError"
    assert 0.9 * TIMEOUT_SECONDS < seconds < LONG_SECONDS / 2
    assert f"did not come within {TIMEOUT_SECONDS:g} s" in sentence


def test_a_dead_process_is_an_error_at_once(played):
    kind, sentence, seconds = played["dead", 0]
    assert kind == "ContractError"
    assert seconds < LONG_SECONDS / 2
    assert "another process died" in sentence


def test_without_a_group_it_says_what_to_do():
    with pytest.raises(InputError, match="init_process_group"):
        vouched_by_logits_together([torch.zeros(1, 2)], torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("seconds", [0.0, float("nan"), float("inf")])
def test_a_timeout_is_a_time(seconds):
    with pytest.raises(InputError, match="timeout"):
        Together(timeout_seconds=seconds)


def test_a_share_comes_back_whole_and_a_long_complaint_is_cut():
    share = Share(2, 7, 50, 1, 0, 3, 2**55 + 1, "ü: no")
    assert Share.unpacked(share.packed()) == share
    long = Share(complaint="ü" * 2000)
    assert Share.unpacked(long.packed()).complaint == "ü" * 512
    assert long.packed().shape == share.packed().shape


def test_slack_above_zero_is_fine_where_another_process_has_none():
    holder, other = Share(1, 1, 2, slack_above_0=1, block=1), Share(1, 1, 2, slack_above_0=0, block=1)
    assert agreed([holder, other]) == [holder, other]
