"""Adapters on disk: a folder a member in the format of peft, and a manifest that says which network they belong to.

    adapters.json                        the network they belong to, the vocabulary, weights
    adapter-0/adapter_config.json        what peft reads
    adapter-0/adapter_model.safetensors  A and B of every matrix

Any program that reads peft's format can load a member, and plain LoRA fitted elsewhere can be read here. Adapters of another
network would be loaded without a word wherever the shapes fit, so that is checked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mightnt.errors import InputError
from mightnt.files import plain, read_json, write_json
from mightnt.lm.adapters import AdapterNetwork, Adapters, matrix_size, together
from mightnt.lm.networks import load_network, save_network
from mightnt.lm.scoring import Network
from mightnt.lm.tokens import FastTokenizer, first_line, moving_into

MANIFEST, CONFIG, WEIGHTS = "adapters.json", "adapter_config.json", "adapter_model.safetensors"
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
"""Names of A and B in peft's files."""
ALLOWED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
"""Settings of peft and what they may be. Other beginnings of a fit (``init_lora_weights``) change the network below."""
NO_MATTER = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r"),
    *("target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "megatron_core", "qalora_group_size"),
)
"""Settings of peft that are read here, or say nothing that the weights do not say."""
NOT_THE_NETWORK = (
    *("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "output_attentions", "output_hidden_states", "return_dict"),
)
"""Entries of a configuration that change no forward pass."""


def save_adapters(
    adapters: Adapters, folder: Path, network: Network, tokenizer: FastTokenizer, seed: int | None = None
) -> None:
    """Write the members and, last, the manifest: its presence means that the rest is whole.

    ``seed``: of the fit, for the record.
    """
    check_vocabulary(network, tokenizer)
    (folder / MANIFEST).unlink(missing_ok=True)
    for i in range(adapters.n_members):
        save_adapter(adapters.one(i), folder / f"adapter-{i}", network)
    write_json(
        folder / MANIFEST,
        {
            "kind": "mightnt adapters",
            "version": 1,
            "network": description(network),
            "tokenizer_sha256": vocabulary_sha256(tokenizer),
            "weights": adapters.weights,
            "seed": seed,
        },
    )


def save_adapter(adapter: Adapters, folder: Path, network: Network) -> None:
    """Write one member as peft would."""
    tensors = {}
    for name, down, up in zip(adapter.names, adapter.down, adapter.up, strict=True):
        tensors[f"base_model.model.{name}.lora_A.weight"] = down[0].detach().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = up[0].detach().cpu().contiguous()
    rank = adapter.down[0].shape[1]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": network.config.name_or_path,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,  # a factor of 1: it is in B
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": not isinstance(network.get_submodule(adapter.names[0]), torch.nn.Linear),
        "target_modules": list(adapter.names),
    }
    with moving_into(folder, last=CONFIG) as temporary:
        save_file(tensors, temporary / WEIGHTS)
        write_json(temporary / CONFIG, config)


def load_adapters(folder: Path, network: Network, tokenizer: FastTokenizer) -> Adapters:
    """What :func:`save_adapters` wrote, if it belongs to this network and tokenizer.

    Errors: :class:`~mightnt.errors.InputError` for a folder without a whole set; adapters of another network (another
    configuration, other weights) or vocabulary; a vocabulary with more tokens than the network has embeddings; weights of
    members that do not sum to one; matrices that are missing, of another shape or not finite.
    Cost: reads all weights of the network once, for their checksum.
    """
    check_vocabulary(network, tokenizer)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: holds no whole set of adapters (no {MANIFEST}); read_adapters takes single ones")
    kept = read_json(folder / MANIFEST)
    if not isinstance(kept, dict) or kept.get("kind") != "mightnt adapters":
        raise InputError(f"{folder / MANIFEST}: is not a manifest of adapters")
    try:
        network_then, weights = kept["network"], tuple(float(weight) for weight in kept["weights"])
        same_vocabulary = kept["tokenizer_sha256"] == vocabulary_sha256(tokenizer)
        difference = difference_of(network_then, description(network))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / MANIFEST}: a manifest of adapters of another version, or not whole") from error
    if difference:
        raise InputError(f"{folder}: these adapters belong to another network ({difference}); load that one")
    if not same_vocabulary:
        raise InputError(
            f"{folder}: these adapters were fitted with another tokenizer; load the one that they came with"
        )
    return read_adapters([folder / f"adapter-{i}" for i in range(len(weights))], network, weights)


def read_adapters(folders: Sequence[Path], network: Network, weights: Sequence[float] | None = None) -> Adapters:
    """Plain LoRA adapters in peft's format, one a folder, as members; ``weights`` are alike by default.

    Nothing tells which network such a folder belongs to but its shapes: that these fit is checked, that it is the one is not.
    Errors: :class:`~mightnt.errors.InputError` for variants of LoRA that do more than y + s x A' B', and as
    :func:`load_adapters`.
    """
    if not folders:
        raise InputError("got no adapters; at least one is needed")
    members = [read_adapter(folder, network) for folder in folders]
    return together(members, None if weights is None else tuple(weights))


def read_adapter(folder: Path, network: Network) -> Adapters:
    """One member; see :func:`read_adapters`."""
    config = read_json(folder / CONFIG)
    factor_of = checked_factor(config, folder)
    try:
        tensors: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read as safetensors ({first_line(error)})") from error
    names = []
    for key in tensors:
        match = KEY.fullmatch(key)
        if (
            match is None
            or key.replace("lora_A", "lora_B") not in tensors
            or key.replace("lora_B", "lora_A") not in tensors
        ):
            raise InputError(
                f"{folder}: holds {key}, which is no part of plain LoRA on matrices; only that can be used"
            )
        names += [match[1]] * (match[2] == "A")
    down = [tensors[f"base_model.model.{name}.lora_A.weight"].float() for name in names]
    up = [tensors[f"base_model.model.{name}.lora_B.weight"].float() for name in names]
    for name, a, b in zip(names, down, up, strict=True):
        check_matrix(folder, network, name, a, b)
    scaled = [b * factor_of(len(a)) for a, b in zip(down, up, strict=True)]
    device = network.device
    return Adapters(
        tuple(names), tuple(a[None].to(device) for a in down), tuple(b[None].to(device) for b in scaled), (1.0,)
    )


def check_matrix(folder: Path, network: Network, name: str, down: Tensor, up: Tensor) -> None:
    """Refuse A and B that do not fit this matrix of the network, or are not finite."""
    try:
        size = matrix_size(network.get_submodule(name))
    except AttributeError:
        size = None
    if (
        size is None
        or down.ndim != 2
        or up.ndim != 2
        or (down.shape[1], up.shape[0]) != size
        or len(down) != up.shape[1]
    ):
        raise InputError(
            f"{folder}: belongs to another network: {name} has {tuple(up.shape)} x {tuple(down.shape)} here, "
            f"and in {type(network).__name__} "
            + ("there is no such matrix" if size is None else f"turns {size[0]} into {size[1]}")
        )
    if not bool(down.isfinite().all() and up.isfinite().all()):
        raise InputError(f"{folder}: the adapter of {name} holds NaN or infinity; fit it again at a lower rate")


def checked_factor(config: Any, folder: Path) -> Any:
    """The factor s of an adapter of each rank; anything but plain LoRA is refused, also what is not known yet."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or "lora_alpha" not in config:
        raise InputError(f"{folder / CONFIG}: is not the configuration of a LoRA adapter")
    strange = [key for key, value in config.items() if value and key not in (*NO_MATTER, *ALLOWED)]
    strange += [key for key, values in ALLOWED.items() if config.get(key, values[0]) not in values]
    if strange:
        raise InputError(f"{folder}: has {strange[0]} = {config[strange[0]]!r}; only plain LoRA can be used")
    alpha, root = float(config["lora_alpha"]), bool(config.get("use_rslora"))
    return lambda rank: alpha / (math.sqrt(rank) if root else rank)


def check_vocabulary(network: Network, tokenizer: FastTokenizer) -> None:
    """Refuse a tokenizer with tokens that the network has no embedding for."""
    rows = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the network embeddings for {rows}; "
            "use resize_for(network, tokenizer) before the adapters are fitted"
        )


def description(network: Network) -> dict[str, Any]:
    """Which network this is: class, configuration, checksum of the weights."""
    config = {key: value for key, value in network.config.to_diff_dict().items() if key not in NOT_THE_NETWORK}
    return {
        "class": type(network).__name__,
        "config": json.loads(json.dumps(plain(config), default=str)),
        "weights_sha256": weights_sha256(network),
    }


def difference_of(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first thing in which two descriptions differ, in words; empty where there is none."""
    if then["class"] != now["class"]:
        return f"a {then['class']}, this is a {now['class']}"
    for key in sorted({*then["config"], *now["config"]}):
        before, here = then["config"].get(key), now["config"].get(key)
        if before != here:
            return f"its {key} was {before}, here it is {here}"
    return "" if then["weights_sha256"] == now["weights_sha256"] else "its weights were others, or in another precision"


def weights_sha256(network: Network) -> str:
    """Checksum of names, types, shapes and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(network.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def vocabulary_sha256(tokenizer: FastTokenizer) -> str:
    """Checksum of which token has which number."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def save_networks(networks: Sequence[Network], folder: Path, tokenizer: FastTokenizer) -> None:
    """Write ``network-0``, ``network-1``, ...; of adapters the network below, once, as ``trunk``, and ``adapters``."""
    adapted = [network for network in networks if isinstance(network, AdapterNetwork)]
    if not adapted:
        for i, network in enumerate(networks):
            save_network(network, folder / f"network-{i}")
        return
    trunk = adapted[0].network
    if len(adapted) < len(networks) or any(member.network is not trunk for member in adapted):
        raise InputError("networks and adapters, or adapters of several networks, cannot be saved as one set")
    save_network(trunk, folder / "trunk")
    save_adapters(together([member.adapter for member in adapted]), folder / "adapters", trunk, tokenizer)


def load_networks(folder: Path, n: int, tokenizer: FastTokenizer, device: str = "cpu") -> tuple[Network, ...]:
    """What :func:`save_networks` wrote, in the precision that it had."""
    if not (folder / "adapters").is_dir():
        return tuple(load_network(folder / f"network-{i}", "as saved", device) for i in range(n))
    trunk = load_network(folder / "trunk", "as saved", device)
    return load_adapters(folder / "adapters", trunk, tokenizer).networks(trunk)
