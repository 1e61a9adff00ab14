"""What a run was protected by, beside every checkpoint, and whether a run that is resumed is protected by the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mightnt.errors import InputError
from mightnt.files import plain, write_json
from mightnt.lm.imitators import count_arrays, situation_arrays, situation_settings
from mightnt.lm.reference import Reference
from mightnt.provenance import installed_version, provenance

NAME = "mightnt.json"
"""The file beside a checkpoint."""


def described(reference: Reference) -> dict[str, Any]:
    """What a reference is made of, with a SHA-256 of everything large: equal descriptions, equal numbers.

    Kind: exact. Cost: one pass over all weights.
    """
    counts, situations = reference.counts, reference.situations
    return plain(  # type: ignore[no-any-return]
        {
            "base": settings_of(reference.base),
            "networks": [
                {"kind": type(part.network).__name__, "sha256": digest(part.network.state_dict())}
                for part in reference.parts
            ],
            "counts_sha256": digest({**count_arrays(counts), "strength": counts.strength}) if counts else None,
            "support": asdict(reference.support) if reference.support else None,
            "situations": situation_settings(situations) if situations else None,
            "situations_sha256": digest(situation_arrays(situations)) if situations else None,
            "is_action_sha256": digest({"is_action": reference.get_buffer("is_action")}),
            "vocabulary_sha256": digest(reference.tokenizer.get_vocab()) if reference.tokenizer else None,
            "temperature": reference.temperature,
            "forbidden_nats": reference.forbidden_nats,
        }
    )


def settings_of(value: Any) -> Any:
    """The settings of a base: kind and fields of every dataclass in it, a SHA-256 of every array, others as they are."""
    if isinstance(value, Tensor | np.ndarray):
        return {"sha256": digest({"value": value})}
    if is_dataclass(value):
        settings = {field.name: settings_of(getattr(value, field.name)) for field in fields(value)}
        return {"kind": type(value).__name__, **settings}
    if isinstance(value, tuple | list):
        return [settings_of(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def digest(values: dict[str, Any]) -> str:
    """SHA-256 of names, types, shapes and bytes, in the order of the names."""
    found = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        array = bytes_of(value) if isinstance(value, Tensor) else np.asarray(value)
        shape = list(value.shape) if isinstance(value, Tensor) else list(array.shape)
        found.update(json.dumps([name, str(getattr(value, "dtype", array.dtype)), shape]).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def bytes_of(tensor: Tensor) -> Any:
    """A tensor's bytes as an array; types that numpy lacks included."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def write_manifest(folder: Path, state: dict[str, Any]) -> None:
    """Write what a run is protected by into ``folder``, whole or not at all, with the versions of what ran."""
    versions = {name: version for name in ("trl", "accelerate", "peft") if (version := installed_version(name))}
    record = {
        "kind": "mightnt protection",
        "version": 1,
        **state,
        "provenance": provenance(None, {"packages": versions}),
    }
    write_json(folder / NAME, record)


def same_or_refuse(saved: dict[str, Any], now: dict[str, Any], what: str) -> None:
    """Refuse to go on with another reference, or other terms, than the checkpoint's; the sentence names what differs."""
    different = [name for name in now if saved.get(name) != now[name]]
    if different:
        raise InputError(
            f"the checkpoint was trained against another {what}: {', '.join(different)} differ; attach with the same, or "
            "start a new run"
        )
