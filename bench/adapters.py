"""Members as adapters on one network: scored together, read in lock-step, fitted in one go; and what each costs alone."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.lines import Line, best_seconds
from mightnt.experiments.chat import chat_tokenizer
from mightnt.lm.adapter_files import save_adapters
from mightnt.lm.adapters import Adapters, AdapterShape, fit_adapters, fresh_adapters
from mightnt.lm.fitting import FitConfig
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.tokens import encode
from mightnt.lm.trunk import SharedTrunk
from mightnt.worlds.chat.corpus import demonstrations

SHAPE = NetworkShape(width=192, layers=8, heads=4, context=192)
SHARED = SHAPE.layers // 2
ROWS, LENGTH, RANK, VOCABULARY, STEPS = 4, 48, 8, 1000, 6


def members(network: Any, k: int, shared_layers: int) -> Adapters:
    """Random members: speed does not depend on what they were fitted to."""
    fresh = fresh_adapters(network, k, 0, AdapterShape(RANK, shared_layers))
    up = tuple(0.1 * torch.randn(b.shape, generator=torch.Generator().manual_seed(0)) for b in fresh.up)
    return Adapters(fresh.names, fresh.down, up, fresh.weights)


def quiet(function: Callable[[], object]) -> Callable[[], object]:
    """Without gradients."""
    return torch.no_grad()(function)


def scoring(network: Any, tokens: Tensor) -> list[Line]:
    """Hidden states of K members, half of the layers shared, against as many passes of the network without adapters.

    Floor: the lower half once and the upper half once a member, k/D + K (1 - k/D) passes; what the adapters themselves
    multiply is left out of it (rank (in + out) against in x out: a fifteenth here).
    """
    lines = []
    for k in (1, 2, 4, 8):
        trunk = SharedTrunk(network, members(network, k, SHARED))
        assert not trunk.why_not
        ours, one = best_seconds(
            lambda trunk=trunk: trunk.hidden(tokens),
            quiet(lambda: network.base_model(input_ids=tokens, use_cache=False)),
            repetitions=5,
        )
        what = f"score {k} members, {SHARED} of {SHAPE.layers} layers shared"
        lines.append(Line(what, ours * 1e3, k * one * 1e3, "ms", f"{k} passes of the network"))
        lines.append(Line(what, ours * 1e3, trunk.passes * one * 1e3, "ms", f"floor: {trunk.passes:g} passes"))
    return lines


def routing(network: Any, tokens: Tensor) -> list[Line]:
    """Four members on all layers: one pass with blocks of rows, against peft's mixed batch, and one after the other."""
    k, trunk = 4, SharedTrunk(network, members(network, 4, 0))
    ways = [
        lambda: trunk.log_probs(tokens),
        quiet(lambda: trunk.one_by_one(trunk.parts, lambda _: trunk.logits_of(tokens, None, 0))[0].log_softmax(-1)),
    ]
    peers = ["one member after the other"]
    if importlib.util.find_spec("peft"):
        ways.append(mixed_batch(network, trunk.parts, tokens))
        peers.append("peft, one mixed batch")
    torch.testing.assert_close(ways[0](), ways[-1]().view(k, ROWS, LENGTH, -1), rtol=0, atol=1e-3)
    ours, *theirs = best_seconds(*ways, repetitions=5)
    what = f"score {k} members, no layer shared"
    return [Line(what, ours * 1e3, seconds * 1e3, "ms", peer) for seconds, peer in zip(theirs, peers, strict=True)]


def mixed_batch(network: Any, adapters: Any, tokens: Tensor) -> Callable[[], Any]:
    """The same members read by peft, rows repeated and each told its adapter."""
    from peft import PeftModel

    k = adapters.n_members
    with tempfile.TemporaryDirectory() as folder:
        save_adapters(adapters, Path(folder), network, chat_tokenizer())
        model = PeftModel.from_pretrained(copy.deepcopy(network), f"{folder}/adapter-0", adapter_name="0").eval()
        for i in range(1, k):
            model.load_adapter(f"{folder}/adapter-{i}", adapter_name=str(i))
    names, rows = [str(i) for i in range(k) for _ in tokens], tokens.repeat(k, 1)
    return quiet(lambda: model(input_ids=rows, adapter_names=names, use_cache=False).logits.log_softmax(-1))


def reading(network: Any, tokens: Tensor) -> list[Line]:
    """A token for every row by all members in lock-step, against members that each read by themselves."""
    lines = []
    for k in (4, 8):
        adapters = members(network, k, SHARED)
        trunk, readers = SharedTrunk(network, adapters), [NetworkMember(one) for one in adapters.networks(network)]

        def together(trunk: SharedTrunk = trunk) -> None:
            memory = trunk.start()
            for column in tokens.T[:STEPS]:
                trunk.read(memory, column[:, None])

        def apart(readers: list[NetworkMember] = readers) -> None:
            for reader in readers:
                state = reader.start(len(tokens))
                for column in tokens.T[:STEPS]:
                    state = reader.advance(state, column)

        ours, theirs = (seconds / STEPS for seconds in best_seconds(together, apart, repetitions=3))
        what = f"read a token, {k} members, {SHARED} of {SHAPE.layers} layers shared"
        lines.append(Line(what, ours * 1e3, theirs * 1e3, "ms", "each by itself"))
    return lines


def fitting() -> list[Line]:
    """Updates of K members in one go, against K fits of one: the same batches, shared layers once for all.

    Floor: where f is the share of a fit of one that goes into shared layers (forward only, 1 unit a layer, against 2 for a
    layer that gradients go back through), f + K (1 - f) fits of one.
    """
    encoded = encode(chat_tokenizer(), demonstrations(16, 0))
    network = build_network(NetworkShape(width=64, layers=8, heads=2, context=192), 200, 0)
    config, lines = FitConfig(steps=4, batch_dialogues=4, learning_rate=1e-3), []
    for k, shared in ((4, 0), (8, 0), (4, 4), (8, 4)):
        shape = AdapterShape(RANK, shared)
        ours, one = best_seconds(
            lambda k=k, shape=shape: fit_adapters(network, encoded, k, config, 0, shape),
            lambda shape=shape: fit_adapters(network, encoded, 1, config, 0, shape),
            repetitions=2,
        )
        what, once = f"update of {k} members, {shared} of 8 layers shared", shared / (shared + 2 * (8 - shared))
        floor = once + k * (1 - once)
        ours, one = ours * 1e3 / config.steps, one * 1e3 / config.steps
        lines.append(Line(what, ours, k * one, "ms", f"{k} fits of one"))
        lines.append(Line(what, ours, floor * one, "ms", f"floor: {floor:.3g} fits of one"))
    return lines


def lines() -> list[Line]:
    """Every comparison."""
    torch.set_num_threads(1)
    network = build_network(SHAPE, VOCABULARY, 0)
    tokens = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    return [*scoring(network, tokens), *routing(network, tokens), *reading(network, tokens), *fitting()]
