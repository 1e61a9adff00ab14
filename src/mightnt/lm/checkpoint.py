"""A training run on disk: parameters, optimizer and log in one safetensors file, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mightnt.errors import InputError
from mightnt.files import plain, replacing
from mightnt.lm.protect import Training


def save_training(training: Training, path: Path, config: dict[str, object]) -> None:
    """Write everything that is needed to go on as if never stopped."""
    tensors = {f"actor.{name}": value.contiguous() for name, value in training.actor.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(training.optimizer).items()}
    notes = {
        "price": repr(training.price),
        "log": json.dumps(plain(training.log)),
        "config": json.dumps(plain(config), sort_keys=True),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=notes)


def load_training(training: Training, path: Path, config: dict[str, object]) -> Training:
    """``training`` (fresh, of the same shape) moved to where the file says it was.

    Raises :class:`~mightnt.errors.InputError` when the file is not one of ours or belongs to another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint ({error})") from error
    if json.loads(notes.get("config", "null")) != plain(config):
        raise InputError(f"{path}: belongs to a run of another configuration; choose another --out")
    training.actor.load_state_dict(named(tensors, "actor."))
    restore_optimizer(training.optimizer, named(tensors, "optimizer."))
    training.price = float(notes["price"])
    training.log[:] = json.loads(notes["log"])
    return training


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins so, without the beginning."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's moments and step counts by ``parameter number.name``."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(value) for number, row in state.items() for name, value in row.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put moments and step counts back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
