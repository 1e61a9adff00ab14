"""Networks that know the demonstrations alone: what they see, and that they see nothing else."""

import numpy as np
import pytest
import torch

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.further import Further, FurtherConfig, Glance, further_network, last_place, one_turn_each, with_further
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.scoring import context_tokens, scores
from mightnt.lm.tokens import Marks

MARKS = Marks(pad=0, user=1, assistant=2, end=3)
SMALL = FurtherConfig(width=16, layers=1, steps_per_thousand=15)


@pytest.fixture(scope="module")
def network():
    return build_network(NetworkShape(16, 1, 1, 8), 9, seed=0)


@pytest.mark.parametrize(
    ("heard", "begins"),
    [
        ([1, 5, 3, 2, 6], 0),
        ([1, 5, 3, 2, 6, 3, 1, 7, 3, 2, 6, 8], 6),
        ([2, 6, 6], 0),
        ([1, 5, 3, 2, 6, 3, 2, 7], 6),
        ([2, 6, 3, 1, 5, 3, 2], 3),
        ([5, 6, 7], 0),
    ],
)
def test_one_turn_is_seen_with_the_users_before_it(heard, begins, network):
    assert Glance(network, "turn-local").begins(np.array([heard]), MARKS).tolist() == [begins]


def test_a_limited_context_is_the_last_few_tokens(network):
    glance = Glance(network, "limited-context")
    assert [int(glance.begins(np.zeros((1, n), int), MARKS)[0]) for n in (1, 8, 9, 20)] == [0, 0, 1, 12]


def test_a_glance_says_what_the_network_says_of_the_end_alone(network):
    """Rows of different ends, against one pass over each end; what lies before changes nothing."""
    heard = np.array(
        [[1, 5, 3, 2, 6, 3, 1, 7, 3, 2, 6], [1, 4, 3, 2, 8, 3, 1, 3, 2, 6, 5], [2, 4, 3, 1, 3, 2, 6, 6, 6, 6, 3]]
    )
    for glance in (Glance(network, "turn-local"), Glance(network, "limited-context")):
        found = glance.log_probs(heard, MARKS)
        for row, begin, said in zip(heard, glance.begins(heard, MARKS), found, strict=True):
            expected = scores(network, torch.from_numpy(row[begin:])[None])[0, -1]
            torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-5)
        if glance.kind == "turn-local":
            other = heard.copy()
            other[0, 4], other[1, 1] = 8, 7
            torch.testing.assert_close(glance.log_probs(other, MARKS), found)


def test_the_last_place():
    assert last_place(np.array([[True, False, True, False], [False] * 4])).tolist() == [2, -1]


def test_dialogues_are_cut_to_one_turn_each():
    a, b, c = Message("assistant", "a"), Message("user", "b"), Message("assistant", "c")
    assert one_turn_each([(a, b, c), (b,), (a, c)]) == [(a,), (b, c), (a,), (c,)]


def test_networks_are_fitted_once_and_differ_by_kind(imitators):
    networks = {kind: further_network(imitators, kind, SMALL) for kind in Further.__args__}
    assert all(further_network(imitators, kind, SMALL) is network for kind, network in networks.items())
    assert len({id(network) for network in networks.values()}) == 3
    assert context_tokens(networks["limited-context"]) == SMALL.limited_tokens
    assert further_network(imitators, "turn-local", FurtherConfig(16, 1, 15, seed=1)) is not networks["turn-local"]
    with pytest.raises(InputError, match="unknown kind of network 'x'"):
        further_network(imitators, "x")


def test_updates_grow_with_the_root_of_the_demonstrations():
    assert [FurtherConfig().steps(n) for n in (10, 1000, 9000)] == [100, 300, 900]


def test_members_read_on_and_glance(imitators, monkeypatch):
    """The members' further network is the glance over all that was heard, at the rows asked for, whatever the pieces."""
    monkeypatch.setattr("mightnt.lm.further.FurtherConfig", lambda: SMALL)
    members = with_further(imitators, ["demonstrations-only", "turn-local"])
    marks, is_action = imitators.marks, torch.from_numpy(imitators.counts.is_action)
    heard = torch.tensor([[1, 5, 3, 2, 6, 3, 1, 7, 3, 2], [1, 4, 3, 2, 3, 1, 9, 9, 3, 2]])
    members.start(2)
    members.advance(heard[:, :4])
    for t in range(4, heard.shape[1]):
        members.advance(heard[:, t])
    step = members.predict(torch.tensor([1]))
    assert step.networks.shape[:2] == (3, 1)
    assert step.counts is not None
    glance = members.glances[0].log_probs(heard[1:].numpy(), marks)[:, : len(is_action)]
    expected = torch.log_softmax(glance.double().masked_fill(~is_action, -torch.inf), dim=-1)
    torch.testing.assert_close(step.networks[2], expected)
    alone = scores(further_network(imitators, "demonstrations-only"), heard[1:])[0, -1, : len(is_action)].double()
    alone = torch.log_softmax(alone.masked_fill(~is_action, -torch.inf), dim=-1)
    torch.testing.assert_close(step.networks[1, 0], alone, atol=1e-4, rtol=1e-4)
