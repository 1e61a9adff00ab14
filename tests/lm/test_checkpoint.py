"""A training on disk: whole, exact, and only for the run it belongs to."""

import math

import pytest
import torch
from safetensors.torch import save_file

from mightnt.errors import InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor
from mightnt.lm.bases.single import Single
from mightnt.lm.checkpoint import load_training, named, optimizer_tensors, restore_optimizer, save_training
from mightnt.lm.protect import ProtectConfig, Training, protect
from tests.lm.toys import N_TOKENS, WIDTH, toy_cast

CONFIG = {"seed": 1, "base": "single", "budget": math.inf, "nested": {"some": (1, 2)}}


def training_of(iterations, seed=0):
    """A training among toys after so many iterations."""
    torch.manual_seed(seed)
    account, config = Account(1.0), ProtectConfig(iterations=iterations, episodes=4, passes=1)
    training = Training.fresh(Actor(WIDTH, N_TOKENS, account, hidden=6), config)
    protect(toy_cast(Single(), account, training.actor, demonstrator_known=False), training, config, seed=0)
    return training


def flat(training):
    """Everything a training holds, to compare."""
    tensors = {**training.actor.state_dict(), **optimizer_tensors(training.optimizer)}
    return {name: value.tolist() for name, value in tensors.items()}, training.price, training.log


@pytest.mark.parametrize("iterations", [0, 2])
def test_what_comes_back_is_what_was_kept(iterations, tmp_path):
    kept, fresh = training_of(iterations), training_of(0, seed=5)
    save_training(kept, tmp_path / "training.safetensors", CONFIG)
    assert flat(load_training(fresh, tmp_path / "training.safetensors", CONFIG)) == flat(kept)
    assert fresh.optimizer.param_groups[0]["lr"] == kept.optimizer.param_groups[0]["lr"]
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_a_later_checkpoint_takes_the_place_of_an_earlier_one(tmp_path):
    path = tmp_path / "training.safetensors"
    save_training(training_of(1), path, CONFIG)
    save_training(training_of(2), path, CONFIG)
    assert len(load_training(training_of(0), path, CONFIG).log) == 2


@pytest.mark.parametrize(
    "other", [{**CONFIG, "seed": 2}, {}, {**CONFIG, "budget": 1.0}, {**CONFIG, "nested": {"some": [1, 3]}}]
)
def test_a_checkpoint_of_another_configuration_is_refused_and_changes_nothing(other, tmp_path):
    path, fresh = tmp_path / "training.safetensors", training_of(0)
    save_training(training_of(1), path, CONFIG)
    before = flat(fresh)
    with pytest.raises(InputError, match="another configuration"):
        load_training(fresh, path, other)
    assert flat(fresh) == before


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    missing, nonsense, foreign = (tmp_path / name for name in ("missing", "nonsense", "foreign"))
    nonsense.write_bytes(b"\x00\x01 not a checkpoint")
    save_file({"weight": torch.zeros(2)}, foreign)
    for path in (missing, nonsense, foreign, tmp_path):
        with pytest.raises(InputError, match=path.name):
            load_training(training_of(0), path, CONFIG)


def test_an_optimizer_goes_on_as_if_it_had_never_stopped():
    """Three steps of Adam on x^2, against two, a copy of its state, and one more."""

    def step(x, optimizer):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()

    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(2):
        step(x, optimizer)
    y = x.detach().clone().requires_grad_()
    again = torch.optim.Adam([y], lr=0.1)
    restore_optimizer(again, {name: value.clone() for name, value in optimizer_tensors(optimizer).items()})
    step(x, optimizer)
    step(y, again)
    assert torch.equal(x, y)


def test_names_are_taken_by_their_beginning():
    tensors = {"actor.body.0": torch.tensor(1), "optimizer.actor.0": torch.tensor(2)}
    assert list(named(tensors, "actor.")) == ["body.0"]
    assert list(named(tensors, "optimizer.")) == ["actor.0"]
