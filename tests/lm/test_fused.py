"""Who reckons the minimum over a large vocabulary: the kernel on a GPU, the way without it everywhere else."""

import importlib.util

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm import fused
from mightnt.lm.fused import (
    kernel_serves,
    kl_by_kernel_nats,
    kl_where_they_are_nats,
    vouched_by_kernel,
    vouched_in_blocks,
    vouched_where_they_are,
)
from mightnt.lm.vocabulary import Vouched, minimum_rule, said_by_logits, vouched, vouched_by_logits, vouched_kl_nats

REST = {"log_slack_nats": [0.0, 0.5], "temperature": 0.7, "is_action": torch.arange(6) < 5}
TARGETS = torch.tensor([0, 5, 2])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 6, generator=generator) for _ in range(2)]


class OnGpu:
    """Looks like a tensor of another device and type; nothing can be reckoned with it."""

    def __init__(self, dtype=torch.float32, device="cuda:0"):
        self.dtype, self.device = dtype, torch.device(device)


@pytest.fixture
def with_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_a_cpu_is_served_by_the_way_without_kernels_whatever_is_installed(logits, with_triton):
    ours, oracle = vouched_where_they_are(logits, TARGETS, **REST), vouched_by_logits(logits, TARGETS, **REST)
    assert torch.equal(ours.log_nu, oracle.log_nu)
    assert torch.equal(ours.log_kept, oracle.log_kept)
    kl = kl_where_they_are_nats(logits[0], logits, **REST)
    assert torch.equal(kl, vouched_kl_nats(logits[0], logits, **REST))
    said = said_by_logits(logits)
    rule = minimum_rule(said, *REST.values())
    blocks, oracle = vouched_in_blocks(said, rule, TARGETS, 2), vouched(said, rule, TARGETS, 2)
    assert torch.equal(blocks.log_nu, oracle.log_nu)
    assert torch.equal(blocks.log_kept, oracle.log_kept)


def test_the_kernel_gets_what_it_serves_with_everything_that_was_said(logits, monkeypatch):
    heard = []
    monkeypatch.setattr(fused, "kernel_serves", lambda tensors, temperature: heard.append(temperature) or True)
    monkeypatch.setattr(fused, "vouched_by_kernel", lambda *given, **rest: (given, rest))
    monkeypatch.setattr(fused, "kl_by_kernel_nats", lambda *given, **rest: (given, rest))
    assert vouched_where_they_are(logits, TARGETS, **REST) == ((logits, TARGETS), REST)
    assert kl_where_they_are_nats(logits[0], logits, **REST) == ((logits[0], logits), REST)
    assert heard == [0.7, 0.7]


def test_which_tensors_the_kernel_serves(with_triton, monkeypatch):
    types = [OnGpu(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert kernel_serves(types)
    assert not kernel_serves([])
    assert not kernel_serves([*types, OnGpu(torch.float64)])
    assert not kernel_serves([*types, OnGpu(device="cuda:1")])
    assert not kernel_serves([*types, OnGpu(device="cpu")])
    assert not kernel_serves([OnGpu(device="cpu")])
    assert not kernel_serves(types, 1e-40)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not kernel_serves(types)


def test_without_triton_the_kernel_says_what_to_install(logits, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "mightnt\[triton\]"'):
        vouched_by_kernel(logits, TARGETS)
    with pytest.raises(InputError, match="needs triton"):
        kl_by_kernel_nats(logits[0], logits)


def test_what_is_given_is_checked_before_the_kernel(logits):
    with pytest.raises(InputError, match="differ in vocabulary"):
        vouched_by_kernel([*logits, torch.zeros(3, 7)], TARGETS)
    with pytest.raises(InputError, match="from 1 to 6"):
        vouched_by_kernel(logits, TARGETS + 1)
    with pytest.raises(InputError, match="differ in positions"):
        kl_by_kernel_nats(torch.zeros(2, 6), logits)


def test_no_positions_are_no_blocks(logits):
    said = said_by_logits([each[:0] for each in logits])
    nothing = vouched_in_blocks(said, minimum_rule(said, None, 1.0, None), TARGETS[:0], 4)
    assert isinstance(nothing, Vouched)
    assert nothing.log_nu.shape == nothing.log_kept.shape == (0,)
