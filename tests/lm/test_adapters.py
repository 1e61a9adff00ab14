"""Adapters fitted in one go are those fitted alone; each is a network like any other; the network below never changes."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.nn import functional

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.adapters import (
    AdapterNetwork,
    Adapters,
    AdapterShape,
    bootstrap,
    fit_adapters,
    fit_rows,
    fresh_adapters,
    matrices_of,
    together,
)
from mightnt.lm.fitting import Batches, FitConfig, fit
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.scoring import mean_loss, scores, token_log_probs
from mightnt.lm.tokens import encode, word_tokenizer
from mightnt.lm.trunk import SharedTrunk
from mightnt.lm.windows import padded, windows
from tests.lm.adapted import DEPTH, MAKERS, bloom, merged, network_of, random_adapters, tokens_of

WORDS = ["yes", "no", "why", "so"]
QUICK = FitConfig(steps=8, batch_dialogues=4, learning_rate=0.02, warmup_steps=2, checkpoint_every_steps=3)


def corpus(n=20, seed=0):
    """Chats in which the assistant repeats the user's last word."""
    rng = np.random.default_rng(seed)
    dialogues = []
    for _ in range(n):
        said = [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
        turns = [(Message("user", text), Message("assistant", text.split()[-1])) for text in said]
        dialogues.append(tuple(message for pair in turns for message in pair))
    return encode(word_tokenizer(WORDS), dialogues)


def trunk_of(context=64, layers=3):
    return build_network(NetworkShape(width=32, layers=layers, heads=2, context=context), 8, 0)


def tensors(adapters):
    return [*adapters.down, *adapters.up]


def fitted_alone(network, encoded, member, n_members, config, seed, shape):
    """The oracle: one member, its adapter merged into the weights by hand, losses token by token, plain AdamW."""
    start = fresh_adapters(network, n_members, seed, shape).one(member)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors(start)]
    n = len(start.names)
    optimizer = torch.optim.AdamW(leaves, lr=1.0, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    chosen, seen = (
        windows(encoded, network.config.max_position_embeddings),
        bootstrap(encoded.n_dialogues, n_members, seed),
    )
    batches = Batches(chosen.lengths, config.batch_dialogues, seed)
    for step in range(config.steps):
        changed = dict(network.named_parameters())
        for name, down, up in zip(start.names, leaves[:n], leaves[n:], strict=True):
            weight = changed[f"{name}.weight"].detach()
            changed[f"{name}.weight"] = weight + (up[0] @ down[0]).view_as(weight)
        tokens, counted = padded(encoded, chosen, batches[step])
        said = torch.func.functional_call(network, changed, kwargs={"input_ids": torch.from_numpy(tokens)}).logits
        loss = torch.zeros(())
        for row, window in enumerate(batches[step]):
            dialogue = int(np.flatnonzero(encoded.starts <= chosen.begin[window])[-1])
            for t in np.flatnonzero(counted[row]):
                nats = functional.cross_entropy(said[row, t - 1], torch.tensor(tokens[row, t]))
                loss = loss + float(seen[member, dialogue]) * nats / counted.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimizer.param_groups[0]["lr"] = config.rate(step)
        optimizer.step()
    return leaves


@pytest.mark.parametrize("shared_layers", [0, 2])
@pytest.mark.parametrize("member", [0, 2])
def test_a_member_fitted_with_others_is_the_one_fitted_alone(member, shared_layers):
    """Also where dialogues exceed the context and are cut into windows."""
    network, encoded, shape = trunk_of(context=16), corpus(12), AdapterShape(4, shared_layers)
    assert (encoded.lengths > 16).any()
    adapters, _ = fit_adapters(network, encoded, 3, QUICK, 5, shape)
    expected = fitted_alone(network, encoded, member, 3, QUICK, 5, shape)
    moved = max(float(tensor.abs().max()) for tensor in adapters.up)
    assert moved > 0.05
    for one, other in zip(tensors(adapters.one(member)), expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=0, atol=2e-3 * moved)


def test_members_learn_each_something_else_and_the_network_stays(tmp_path):
    network, encoded, held_out = trunk_of(), corpus(100), corpus(seed=9)
    before, learns = copy.deepcopy(network.state_dict()), [p.requires_grad for p in network.parameters()]
    adapters, record = fit_adapters(network, encoded, 3, replace(QUICK, steps=40), 0)
    assert [p.requires_grad for p in network.parameters()] == learns
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    members = adapters.networks(network)
    losses = [mean_loss(member, held_out) for member in members]
    assert max(losses) < 0.6 * mean_loss(trunk_of(), held_out)
    assert len(set(losses)) == 3
    assert record.losses_nats_per_token[0] == pytest.approx(math.log(8), abs=0.7)
    assert record.n_dialogues == 100
    assert not any(tensor.requires_grad for tensor in tensors(adapters))


def test_the_same_seed_gives_the_same_members_and_another_seed_others():
    network = trunk_of()
    first, again, other = (fit_adapters(network, corpus(), 2, QUICK, seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(tensors(first), tensors(other), strict=True))


def test_a_killed_fit_continues_to_the_same_end(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, _loss):
        if step == 7:
            raise Killed

    network, encoded, place = trunk_of(), corpus(), tmp_path / "fit.checkpoint"
    whole, record = fit_adapters(network, encoded, 2, QUICK, 3)
    with pytest.raises(Killed):
        fit_adapters(network, encoded, 2, QUICK, 3, on_step=kill, checkpoint=place)
    steps = []
    rest, again = fit_adapters(
        network, encoded, 2, QUICK, 3, on_step=lambda step, _: steps.append(step), checkpoint=place
    )
    assert steps == [7, 8]
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(rest), strict=True))
    assert again.losses_nats_per_token == record.losses_nats_per_token
    finished, _ = fit_adapters(network, encoded, 2, QUICK, 3, on_step=kill, checkpoint=place)
    assert all(torch.equal(a, b) for a, b in zip(tensors(whole), tensors(finished), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"n_members": 3},
        {"seed": 4},
        {"shape": AdapterShape(8, 1)},
        {"network": build_network(NetworkShape(32, 3, 2, 64), 8, 1)},
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(tmp_path, change):
    place = tmp_path / "fit.checkpoint"
    words = {"network": trunk_of(), "encoded": corpus(), "n_members": 2, "config": QUICK, "seed": 3}
    fit_adapters(**words, checkpoint=place)
    with pytest.raises(InputError, match="belongs to a fit of other data"):
        fit_adapters(**{**words, **change}, checkpoint=place)


def test_what_others_began_is_read_and_not_learnt():
    network, encoded = trunk_of(), corpus(6)
    nothing = replace(encoded, is_begun=np.zeros(encoded.tokens.size, dtype=bool))
    some = nothing.is_begun.copy()
    some[encoded.starts[2] : encoded.starts[3]] = True  # a whole dialogue
    some[encoded.starts[4] + 2 : encoded.starts[4] + 6] = True  # part of one
    one_batch = replace(QUICK, steps=1, batch_dialogues=6)
    _, plain = fit_adapters(network, encoded, 2, one_batch, 0)
    _, same = fit_adapters(network, nothing, 2, one_batch, 0)
    assert same.losses_nats_per_token == plain.losses_nats_per_token
    _, less = fit_adapters(network, replace(nothing, is_begun=some), 1, one_batch, 0)
    learnt = ~some
    learnt[encoded.starts[:-1]] = False
    assert less.n_tokens == learnt.sum()
    assert less.losses_nats_per_token[0] == pytest.approx(-token_log_probs(network, encoded)[learnt].mean(), abs=1e-5)


def test_a_member_that_leaves_the_numbers_is_named():
    network, encoded = trunk_of(), corpus()
    with pytest.raises(InputError, match=r"member \d (of the trunk returned NaN|is not finite)"):
        fit_adapters(network, encoded, 2, replace(QUICK, learning_rate=1e30, warmup_steps=0), 0)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_new_tokens_are_fitted_and_no_other_weight_changes(tied, tmp_path):
    network, encoded, new = trunk_of(), corpus(40), [2, 3]
    if not tied:
        network.config.tie_word_embeddings = False
        network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone())
    before = copy.deepcopy(network.state_dict())
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    config, first = replace(QUICK, steps=20), mean_loss(network, encoded)
    fit_rows(network, encoded, new, config, 0, checkpoint=tmp_path / "rows.checkpoint")
    assert mean_loss(network, encoded) < first
    for name, weight in network.state_dict().items():
        same = [torch.equal(a, b) for a, b in zip(weight, before[name], strict=True)]
        assert same == ([row not in new for row in range(8)] if name in tables else [True] * len(same)), name
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    with safe_open(tmp_path / "rows.checkpoint", "pt") as file:
        kept = {name for name in file.keys() if name.startswith("weight.")}  # noqa: SIM118 (no mapping)
    assert kept == {f"weight.{name}" for name, _ in network.named_parameters() if name in tables}, (
        "a checkpoint of a few rows is not one of a whole model"
    )


def test_rows_of_a_network_in_bfloat16_are_fitted_too(tmp_path):
    network, encoded = trunk_of().to(torch.bfloat16), corpus()
    before, first = copy.deepcopy(network.state_dict()), mean_loss(network, encoded)
    fit_rows(network, encoded, [2, 3], replace(QUICK, steps=20), 0, checkpoint=tmp_path / "rows.checkpoint")
    assert mean_loss(network, encoded) < first
    changed = {name for name, weight in network.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}


def test_fresh_members_add_nothing():
    network, tokens = network_of(), tokens_of(2, 9)
    fresh = fresh_adapters(network, 3, 0, AdapterShape())
    said = SharedTrunk(network, fresh).log_probs(tokens)
    for member in said:
        torch.testing.assert_close(member, scores(network, tokens))
    assert not torch.equal(fresh.down[0][0], fresh.down[0][1])
    assert all(float(a.abs().max()) <= 1 / math.sqrt(a.shape[2]) for a in fresh.down)


def test_a_member_is_the_same_whoever_comes_after_it():
    network = network_of()
    few, many = (fresh_adapters(network, n, 7, AdapterShape()) for n in (2, 5))
    assert all(torch.equal(a, b[:2]) for a, b in zip(few.down, many.down, strict=True))
    np.testing.assert_array_equal(bootstrap(30, 2, 7), bootstrap(30, 5, 7)[:2])


@given(n=st.integers(1, 40), k=st.integers(1, 5), seed=st.integers(0, 9))
def test_every_bootstrap_draws_as_many_dialogues_as_there_are(n, k, seed):
    seen = bootstrap(n, k, seed)
    assert seen.shape == (k, n)
    assert (seen.sum(axis=1) == n).all()
    assert (seen[0] == 1).all()
    assert (seen >= 0).all()


def test_a_bootstrap_leaves_out_the_share_that_draws_with_replacement_do():
    seen = bootstrap(2000, 4, 0)[1:]
    assert (seen == 0).mean() == pytest.approx(math.exp(-1), abs=0.02)
    assert np.unique(seen, axis=0).shape[0] == 3


@pytest.mark.parametrize("name", MAKERS)
def test_all_matrices_from_a_layer_on_get_an_adapter_and_no_other(name):
    network = network_of(name)
    everywhere, upper = matrices_of(network), matrices_of(network, 3)
    per_layer, rest = divmod(len(everywhere), DEPTH)
    assert rest == 0
    assert len(upper) == per_layer
    assert all(".3." in name for name in upper)
    for matrix, (into, out) in everywhere.items():
        assert sorted(network.get_submodule(matrix).weight.shape) == sorted((into, out))


@pytest.mark.parametrize("n", [DEPTH, 99])
def test_all_layers_cannot_be_shared(n):
    with pytest.raises(InputError, match="at least one must differ"):
        matrices_of(network_of(), n)


def test_bad_shapes_and_numbers_of_members():
    for words in ({"rank": 0}, {"shared_layers": -1}):
        with pytest.raises(InputError, match="the rank must be at least 1"):
            AdapterShape(**words)
    with pytest.raises(InputError, match="at least 1 is needed"):
        fresh_adapters(network_of(), 0, 0, AdapterShape())
    with pytest.raises(InputError, match="use resize_for"):
        fit_adapters(build_network(NetworkShape(32, 2, 2, 64), 6, 0), corpus(), 2, QUICK, 0)


@pytest.mark.parametrize("weights", [(0.5, 0.4), (0.7, 0.7), (-0.5, 1.5), (math.nan, 1.0)])
def test_weights_that_are_no_probabilities_are_refused(weights):
    adapters = random_adapters(network_of(), 2)
    with pytest.raises(InputError, match="must be at least 0 and sum to one"):
        replace(adapters, weights=weights)


def test_matrices_that_do_not_fit_together_are_refused():
    adapters = random_adapters(network_of(), 2)
    for change in ({"weights": (1.0,)}, {"down": tuple(a[:, :2] for a in adapters.down)}):
        with pytest.raises(InputError, match="do not fit together"):
            replace(adapters, **change)
    for change in ({"weights": ()}, {"names": adapters.names[1:]}, {"names": (), "down": (), "up": ()}):
        with pytest.raises(InputError, match="at least one of each"):
            replace(adapters, **change)


def test_members_of_unequal_ranks_and_places_go_together():
    network, tokens = network_of(), tokens_of(3, 6)
    sets = [
        random_adapters(network, 1, 2, 4, 1),
        random_adapters(network, 2, 3, 2, 2),
        random_adapters(network, 1, 1, 5, 3),
    ]
    said = SharedTrunk(network, together(sets)).log_probs(tokens)
    apart = torch.cat([SharedTrunk(network, adapters).log_probs(tokens) for adapters in sets])
    torch.testing.assert_close(said, apart, rtol=0, atol=1e-5)
    assert together(sets).weights == (0.25,) * 4
    assert together(sets, (0.1, 0.2, 0.3, 0.4)).weights == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("name", MAKERS)
def test_a_member_is_a_network_read_token_by_token(name):
    network, tokens = network_of(name), tokens_of(3, 9)
    adapters = random_adapters(network)
    for i, member in enumerate(adapters.networks(network)):
        expected = scores(merged(network, adapters, i), tokens)
        torch.testing.assert_close(scores(member, tokens), expected, rtol=0, atol=1e-5)
        reader = NetworkMember(member)
        state = reader.advance(reader.start(3), tokens[:, :5])
        for t in range(5, 9):
            state = reader.advance(state, tokens[:, t])
            torch.testing.assert_close(state.log_probs, expected[:, t], rtol=0, atol=1e-5)
        assert state.hidden.shape == (3, 32)


def test_a_copy_shares_the_network_and_nothing_else():
    network, tokens = network_of(), tokens_of(2, 6)
    member = random_adapters(network, 1).networks(network)[0]
    twin, before = copy.deepcopy(member), scores(member, tokens)
    assert twin.network is network
    with torch.no_grad():
        twin.matrices[0].mul_(2)
    assert torch.equal(scores(member, tokens), before)
    assert not torch.allclose(scores(twin, tokens), before)


def test_a_member_is_fitted_on_and_the_network_and_its_siblings_stay():
    network, encoded = trunk_of(), corpus(40)
    members = fresh_adapters(network, 2, 0, AdapterShape()).networks(network)
    before = copy.deepcopy(network.state_dict())
    untouched = mean_loss(members[1], encoded)
    record = fit(members[0], encoded, replace(QUICK, steps=30), 0)
    assert record.losses_nats_per_token[-1] < 0.9 * record.losses_nats_per_token[0]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert mean_loss(members[1], encoded) == untouched


def test_members_of_a_network_that_cannot_be_shared_are_fitted_too():
    network = bloom()
    tokenizer = word_tokenizer([f"w{i}" for i in range(16)])
    encoded = encode(tokenizer, [(Message("user", "w1 w2"), Message("assistant", "w3 w4"))] * 8)
    adapters, record = fit_adapters(network, encoded, 2, replace(QUICK, steps=20), 0)
    assert record.losses_nats_per_token[-1] < record.losses_nats_per_token[0]
    assert SharedTrunk(network, adapters).why_not
    assert isinstance(adapters.networks(network)[0], AdapterNetwork)
    assert isinstance(adapters, Adapters)
