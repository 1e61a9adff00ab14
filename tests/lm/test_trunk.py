"""A shared trunk says what each member says by itself, runs shared layers once, and leaves the network as it was."""

import threading

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.adapters import AdapterNetwork, Adapters
from mightnt.lm.scoring import scores
from mightnt.lm.trunk import SharedTrunk, layers_of
from mightnt.lm.vocabulary import vouched_by_heads
from tests.lm.adapted import CONTEXT, DEPTH, MAKERS, bloom, merged, network_of, random_adapters, tokens_of


def alone(network, adapters, tokens, mask=None):
    """What each member says, run by itself, with its adapter merged into the weights."""
    with torch.no_grad():
        outputs = [
            merged(network, adapters, i)(input_ids=tokens, attention_mask=mask) for i in range(adapters.n_members)
        ]
    return torch.stack([output.logits.log_softmax(-1) for output in outputs])


@pytest.mark.parametrize("shared_layers", [0, 1, DEPTH - 1])
@pytest.mark.parametrize("name", MAKERS)
def test_every_member_says_what_it_says_by_itself(name, shared_layers):
    network, tokens = network_of(name), tokens_of(3, 7)
    adapters = random_adapters(network, 3, shared_layers)
    trunk = SharedTrunk(network, adapters)
    assert not trunk.why_not
    assert trunk.shared_layers == shared_layers
    expected = alone(network, adapters, tokens)
    torch.testing.assert_close(trunk.log_probs(tokens), expected, rtol=0, atol=1e-5)
    assert float((expected[0] - expected[1]).abs().max()) > 0.1, "members alike would show nothing"


@pytest.mark.parametrize("name", MAKERS)
def test_in_float64_all_digits_agree(name):
    network, tokens = network_of(name).double(), tokens_of(3, 7)
    adapters = random_adapters(network)
    adapters = Adapters(
        adapters.names,
        tuple(a.double() for a in adapters.down),
        tuple(b.double() for b in adapters.up),
        adapters.weights,
    )
    logits = SharedTrunk(network, adapters).logits(tokens)
    assert logits.dtype == torch.float64
    with torch.no_grad():
        expected = torch.stack([merged(network, adapters, i)(input_ids=tokens).logits for i in range(3)])
    torch.testing.assert_close(logits.detach(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("rows", "n"), [(4, 4), (1, 6), (4, 9)])
def test_padding_on_either_side(name, rows, n):
    """Also where numbers of rows, positions and heads are the same."""
    network, tokens = network_of(name), tokens_of(rows, n)
    mask = torch.ones_like(tokens)
    mask[0, n - 2 :] = 0
    mask[-1, :2] = mask[-1, :2] if rows == 1 else 0
    adapters = random_adapters(network)
    said, there = SharedTrunk(network, adapters).log_probs(tokens, mask), mask.bool()
    torch.testing.assert_close(said[:, there], alone(network, adapters, tokens, mask)[:, there], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_token_by_token(name):
    network, tokens = network_of(name), tokens_of(3, 9)
    trunk = SharedTrunk(network, random_adapters(network))
    expected, memory = trunk.log_probs(tokens), trunk.start()
    log_probs, hidden = trunk.read(memory, tokens[:, :4])
    torch.testing.assert_close(log_probs, expected[:, :, 3], rtol=0, atol=1e-5)
    for t in range(4, 9):
        log_probs, hidden = trunk.read(memory, tokens[:, t : t + 1])
        torch.testing.assert_close(log_probs, expected[:, :, t], rtol=0, atol=1e-5)
    torch.testing.assert_close(hidden, trunk.hidden(tokens)[:, :, -1], rtol=0, atol=1e-4)
    assert memory.position == 9
    with pytest.raises(InputError, match="do not fit the network's context"):
        trunk.read(memory, tokens_of(3, CONTEXT))


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_hidden_states_and_one_head_give_the_minimum_over_members(name):
    network, tokens = network_of(name), tokens_of(3, 7)
    trunk = SharedTrunk(network, random_adapters(network))
    weight, bias = trunk.head()
    hidden, targets = trunk.hidden(tokens)[:, :, :-1].flatten(1, 2), tokens[:, 1:].flatten()
    vouched = vouched_by_heads(list(hidden), [weight] * 3, targets, biases=[bias] * 3)
    least = trunk.log_probs(tokens)[:, :, :-1].flatten(1, 2).amin(dim=0)
    torch.testing.assert_close(vouched.log_nu, least.gather(1, targets[:, None])[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(vouched.log_kept, least.logsumexp(dim=1), rtol=0, atol=1e-4)


def test_a_network_that_does_more_than_its_head_has_none_to_give():
    network = network_of("gemma2")
    with pytest.raises(InputError, match="not one matrix times hidden states"):
        SharedTrunk(network, random_adapters(network)).head()


@pytest.mark.parametrize("shared_layers", [0, 1, 3])
def test_shared_layers_see_each_row_once(shared_layers):
    network = network_of()
    trunk = SharedTrunk(network, random_adapters(network, 5, shared_layers))
    seen = []
    for layer in layers_of(network)[1]:
        layer.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    trunk.log_probs(tokens_of(2, 6))
    # a hook put on after ours is called after it, so the first layer above the trunk shows all members
    assert seen[:shared_layers] == [2] * shared_layers
    assert seen[shared_layers + 1 :] == [10] * (DEPTH - shared_layers - 1)
    assert trunk.passes == shared_layers / DEPTH + 5 * (1 - shared_layers / DEPTH)


def test_a_step_remembers_shared_layers_once():
    network = network_of()
    trunk = SharedTrunk(network, random_adapters(network, 5, 3))
    memory = trunk.start()
    trunk.read(memory, tokens_of(2, 6))
    assert [layer.keys.shape[0] for layer in memory.caches[0].layers] == [2, 2, 2, 10]


def test_gradients_are_those_of_each_member_alone():
    network, tokens = network_of().requires_grad_(False), tokens_of(2, 6)
    adapters = random_adapters(network)
    leaves = [*adapters.down, *adapters.up]
    for leaf in leaves:
        leaf.requires_grad_()
    trunk = SharedTrunk(network, adapters)
    target = torch.randn(3, 2, 6, 20, generator=torch.Generator().manual_seed(0))
    together = torch.autograd.grad((trunk.logits(tokens) * target).sum(), leaves)
    by_one = trunk.one_by_one(adapters, lambda _: trunk.logits_of(tokens, None, 0))[0]
    apart = torch.autograd.grad((by_one * target).sum(), leaves)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_network_is_as_it_was_also_after_an_error():
    network, tokens = network_of(), tokens_of(2, 6)
    before = scores(network, tokens)
    trunk = SharedTrunk(network, random_adapters(network))
    trunk.log_probs(tokens)
    with pytest.raises(IndexError):
        trunk.log_probs(tokens + 1000)
    assert torch.equal(scores(network, tokens), before)
    hooks = [hook for m in network.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not any("mightnt" in str(hook) for hook in hooks)


@pytest.mark.parametrize("member", [0, 2])
def test_nan_is_refused_by_the_number_of_its_member(member):
    network, tokens = network_of(), tokens_of(2, 6)
    adapters = random_adapters(network)
    adapters.up[3][member, 0, 0] = torch.nan
    trunk = SharedTrunk(network, adapters)
    for says in (trunk.log_probs, trunk.hidden, lambda tokens: trunk.read(trunk.start(), tokens)):
        with pytest.raises(InputError, match=f"member {member} of the trunk returned NaN"):
            says(tokens)


def test_nan_in_padding_says_nothing():
    network, tokens = network_of(), tokens_of(2, 6)
    trunk = SharedTrunk(network, random_adapters(network))
    last = layers_of(network)[1][-1]
    mask = torch.ones_like(tokens)
    mask[1, -1] = 0

    def spoil(_module, _inputs, output):
        output = output.clone()
        output[1::2, -1] = torch.nan  # the second row of every member
        return output

    handle = last.register_forward_hook(spoil)
    assert not trunk.log_probs(tokens, mask)[:, mask.bool()].isnan().any()
    with pytest.raises(InputError, match="member 0 of the trunk returned NaN"):
        trunk.log_probs(tokens)
    handle.remove()


def test_more_tokens_than_the_context_are_refused():
    network = network_of()
    trunk = SharedTrunk(network, random_adapters(network))
    for says in (trunk.log_probs, trunk.hidden):
        with pytest.raises(InputError, match="do not fit the network's context"):
            says(tokens_of(1, CONTEXT + 1))


def rows_turned(network):
    """A network in which rows meet: what one member says depends on where its rows lie."""
    layers_of(network)[1][2].register_forward_hook(lambda _module, _inputs, output: output.flip(0))
    return network


def two_lists(network):
    network.another = torch.nn.ModuleList(torch.nn.Identity() for _ in range(DEPTH))
    return network


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (bloom, "BloomForCausalLM runs its members one after the other: The expanded size"),
        (lambda: rows_turned(network_of()), "LlamaForCausalLM gives something else for all members at once"),
        (lambda: two_lists(network_of()), "has 2 lists of 4 layers"),
    ],
)
def test_where_nothing_can_be_shared_members_take_turns_and_say_the_same(make, why):
    network, tokens = make(), tokens_of(3, 6)
    adapters = random_adapters(network, shared_layers=0)
    trunk = SharedTrunk(network, adapters)
    assert why in trunk.why_not
    assert trunk.passes == 3
    torch.testing.assert_close(trunk.log_probs(tokens), alone(network, adapters, tokens), rtol=0, atol=1e-5)
    memory = trunk.start()
    trunk.read(memory, tokens[:, :3])
    log_probs, _ = trunk.read(memory, tokens[:, 3:])
    torch.testing.assert_close(log_probs, trunk.log_probs(tokens)[:, :, -1], rtol=0, atol=1e-5)


def test_parts_outside_the_layers_cannot_be_shared():
    network = network_of()
    outside = Adapters(("lm_head",), (torch.ones(2, 1, 32),), (torch.ones(2, 20, 1),), (0.5, 0.5))
    trunk = SharedTrunk(network, outside)
    assert "lm_head lies outside the layers" in trunk.why_not
    with pytest.raises(InputError, match="not one matrix times hidden states"):
        trunk.head()


def test_two_threads_do_not_wear_each_others_parts():
    network, tokens = network_of(), tokens_of(4, 20)
    members = random_adapters(network, 2).networks(network)
    expected = [scores(member, tokens) for member in members]
    wrong = []

    def work(member: AdapterNetwork, said):
        for _ in range(30):
            if not torch.equal(scores(member, tokens), said):
                wrong.append(member)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(members, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
