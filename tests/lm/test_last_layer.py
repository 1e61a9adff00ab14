"""The output layer is the network's, and its curvature is that of the demonstrations' log loss."""

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.last_layer import OutputLayer, Shown, curvature, output_layer, shown_actions
from mightnt.lm.scoring import token_log_probs
from mightnt.lm.tokens import encode


def test_it_says_what_the_network_says_of_every_demonstrated_action(imitators):
    network, corpus, layer = (
        imitators.networks[0],
        encode(imitators.tokenizer, imitators.held_out),
        output_layer(imitators),
    )
    shown = shown_actions(network, corpus, layer)
    found = shown.hidden @ layer.weight.T + layer.bias
    marks = [i for i in range(len(imitators.tokenizer)) if not imitators.counts.is_action[i]]
    others = shown.hidden @ network.get_output_embeddings().weight[marks].double().T
    whole = torch.logsumexp(torch.cat([found, others], dim=1), dim=1)
    picked = found[torch.arange(len(found)), shown.actions] - whole
    expected = torch.from_numpy(token_log_probs(network, corpus)[corpus.is_action])
    torch.testing.assert_close(picked, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(layer.tokens[shown.actions], torch.from_numpy(corpus.tokens[corpus.is_action]).long())


def test_the_curvature_is_exact_where_the_factors_are():
    """With one hidden state for all actions the Hessian is n (diag p - p p') (x) h h': against autograd."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    layer = OutputLayer(weight, torch.zeros(3).double(), torch.arange(3))
    hidden, n = torch.tensor([[0.7, -1.2]]).double(), 50
    found = curvature(layer, Shown(hidden.repeat(n, 1), torch.zeros(n, dtype=torch.int64)))

    def loss(w):
        return -n * torch.log_softmax(hidden @ w.T, dim=-1)[0, 0]

    hessian = torch.autograd.functional.hessian(loss, weight).reshape(6, 6)
    root_tau = float(weight.square().mean()) ** -0.5
    per_action, per_hidden = (
        torch.linalg.inv(inverse) - root_tau * torch.eye(len(inverse)).double()
        for inverse in (found.over_actions, found.over_hidden)
    )
    torch.testing.assert_close(torch.kron(per_action, per_hidden), hessian)


def test_blocks_change_nothing(imitators, monkeypatch):
    layer = output_layer(imitators)
    shown = shown_actions(imitators.networks[0], encode(imitators.tokenizer, imitators.held_out), layer)
    whole = curvature(layer, shown)
    monkeypatch.setattr("mightnt.lm.last_layer.MAX_CELLS", 7 * len(layer.tokens))
    assert len(shown.blocks(len(layer.tokens))) > 2
    torch.testing.assert_close(curvature(layer, shown).over_actions, whole.over_actions)


def test_more_actions_than_a_dense_matrix_is_for_are_refused(imitators, monkeypatch):
    monkeypatch.setattr("mightnt.lm.last_layer.MOST_ACTIONS", 5)
    with pytest.raises(InputError, match="5 at most"):
        output_layer(imitators)
