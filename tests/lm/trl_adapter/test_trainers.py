"""The trainers that are protected from the start do what attach does, with TRL's own configuration."""

import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm import trl_adapter
from tests.lm.trl_adapter.tiny import KL, logged, reference, trainer

trl = pytest.importorskip("trl")


@pytest.mark.parametrize("kind", ["RLOO", "GRPO"])
def test_the_same_run_as_attach(kind):
    cls = getattr(trl_adapter, f"Protected{kind}Trainer")
    terms = {"kl_target_nats": 0.5, "kl_budget_nats": 2.0, "exact_kl_every": 1}
    made = trainer(kind, cls=cls, beta=0.1, more={"reference": reference(), **terms})
    other = trainer(kind)
    trl_adapter.attach(other, reference(), beta=0.1, **terms)
    for one in (made, other):
        torch.manual_seed(0)  # TRL draws from the global generator
        one.train()
    assert isinstance(made, getattr(trl, f"{kind}Trainer"))
    for name in KL:
        assert logged(made, name) == logged(other, name) != []
    for mine, theirs in zip(made.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["RLOO", "GRPO"])
def test_the_configuration_is_copied_and_needed(kind):
    cls = getattr(trl_adapter, f"Protected{kind}Trainer")
    made = trainer(kind)
    args = made.args
    args.beta = 0.2
    protected = cls(
        made.model, made.reward_funcs, args, made.train_dataset, processing_class=made._tokenizer, reference=reference()
    )
    assert args.beta == 0.2
    assert protected.args.beta == 0.0
    assert protected.mightnt_guard.beta == 0.2
    with pytest.raises(InputError, match="args is missing"):
        cls(made.model, made.reward_funcs, reference=reference())
    args.beta = 0.0
    with pytest.raises(InputError, match="beta is 0"):
        cls(
            made.model,
            made.reward_funcs,
            args,
            made.train_dataset,
            processing_class=made._tokenizer,
            reference=reference(),
        )


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trl_adapter.nothing  # noqa: B018
