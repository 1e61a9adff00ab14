"""Everything that TRL accepts and that would make a number mean something else is refused, and a wrong reference is caught."""

import pytest
import torch

from mightnt.errors import ContractError, InputError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.reference import Reference, ReferenceOutput
from mightnt.lm.trl_adapter import attach
from mightnt.lm.trl_adapter.checks import check_path, check_sampler, needs_trl
from mightnt.models.counts import Support, fit_counts
from tests.lm.trl_adapter.tiny import WORDS, network, reference, tokenizer, trainer

trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize(
    ("what", "kind", "changed"),
    [
        ("top_p=0.9", "RLOO", {"top_p": 0.9}),
        ("top_k=5", "GRPO", {"top_k": 5}),
        ("min_p=0.1", "RLOO", {"min_p": 0.1}),
        ("repetition_penalty=1.1", "RLOO", {"repetition_penalty": 1.1}),
        ("generation_kwargs", "RLOO", {"generation_kwargs": {"typical_p": 0.5}}),
        ("samples at temperature 0.7", "RLOO", {"temperature": 0.7}),
        ("mask_truncated_completions", "GRPO", {"mask_truncated_completions": True}),
        ("loss_type='dapo'", "GRPO", {"loss_type": "dapo"}),
        ("scale_rewards='group'", "GRPO", {"scale_rewards": "group"}),
        ("normalize_then_sum", "GRPO", {"multi_objective_aggregation": "normalize_then_sum"}),
        ("top_entropy_quantile=0.5", "GRPO", {"top_entropy_quantile": 0.5}),
        ("off_policy_mask_threshold=0.1", "GRPO", {"off_policy_mask_threshold": 0.1}),
    ],
)
def test_settings_that_change_what_is_measured(what, kind, changed):
    made = trainer(kind, **changed)
    with pytest.raises(InputError, match=what):
        attach(made, reference())
    assert made.ref_model is None
    assert made.beta == 0


@pytest.mark.parametrize("changed", [{"suppress_tokens": [3]}, {"min_p": 0.2}, {"no_repeat_ngram_size": 4}])
def test_a_policy_whose_own_generation_settings_trl_leaves_in_place(changed):
    """Nothing of this stands in the trainer's arguments."""
    for kind in ("RLOO", "GRPO"):
        policy = network()
        policy.generation_config.update(**changed)
        with pytest.raises(InputError, match="generation configuration changes what is sampled"):
            attach(trainer(kind, model=policy), reference())


def test_looking_at_the_sampler_takes_no_dice_and_leaves_the_mode():
    made = trainer(temperature=0.7)
    made.model.train()
    before = torch.random.get_rng_state()
    check_sampler(made)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert made.model.training


def test_policies_with_dropout():
    made = trainer()
    made.model.model.layers[0].self_attn.attention_dropout = 0.1
    with pytest.raises(InputError, match=r"dropout \(model.layers.0.self_attn: 0.1\)"):
        attach(made, reference())
    config = peft.LoraConfig(r=2, lora_dropout=0.2, target_modules=["q_proj"])
    with pytest.raises(InputError, match=r"dropout \(.*lora_dropout.*: 0.2\)"):
        attach(trainer(more={"peft_config": config}), reference())
    attach(trainer(more={"peft_config": config}, disable_dropout=True), reference())


def test_vllm_without_its_correction():
    made = trainer("GRPO", vllm_importance_sampling_correction=False)
    made.args.use_vllm = True
    with pytest.raises(InputError, match="vllm_importance_sampling_correction"):
        attach(made, reference())


def test_references_that_trl_keeps_itself(tmp_path):
    network().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    for kind in ("RLOO", "GRPO"):
        made = trainer(kind, model=str(tmp_path), beta=0.1)
        with pytest.raises(InputError, match=r"args.beta is 0.1.*set beta=0.0"):
            attach(made, reference())
    with pytest.raises(InputError, match="sync_ref_model"):
        attach(trainer(model=str(tmp_path), beta=0.1, sync_ref_model=True), reference())


def test_vocabularies():
    with pytest.raises(InputError, match="no tokenizer"):
        attach(trainer(), Reference([network()], Single(), is_action=reference().get_buffer("is_action").numpy()))
    more = tokenizer([*WORDS, "h"])
    with pytest.raises(InputError, match=r"9 and 10 tokens, \('h', 9\)"):
        attach(trainer(), Reference([network(rows=10)], Single(), tokenizer=more))
    swapped = tokenizer([*WORDS[:2], "b", "a", *WORDS[4:]])
    with pytest.raises(InputError, match="different vocabularies"):
        attach(trainer(), Reference([network()], Single(), tokenizer=swapped))


def test_members_that_share_weights_with_the_policy():
    policy = network()
    with pytest.raises(InputError, match="shares weights"):
        attach(trainer(model=policy), Reference([policy], Single(), tokenizer=tokenizer()))
    trunk = network()
    adapted = peft.get_peft_model(trunk, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(InputError, match="shares weights"):
        attach(trainer(model=adapted), Reference([trunk], Single(), tokenizer=tokenizer()))


def test_trainers_without_a_reference_and_trainers_that_were_changed(tmp_path):
    data = datasets.Dataset.from_list([{"text": "a b"}])
    supervised = trl.SFTTrainer(
        network(),
        trl.SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[]),
        train_dataset=data,
        processing_class=tokenizer(),
    )
    with pytest.raises(InputError, match=r"SFTTrainer cannot be protected.*asynchronous"):
        attach(supervised, reference())

    class Mine(trl.GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, inputs)

    with pytest.raises(InputError, match="Mine overrides _compute_loss"):
        attach(trainer("GRPO", cls=Mine), reference())


def test_attach_once():
    made = trainer()
    attach(made, reference())
    with pytest.raises(InputError, match="already"):
        attach(made, reference())


class Renormalized(Reference):
    """The mistake that raises no error anywhere: log nu - log(1 - theta)."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return ReferenceOutput((output.log_probs - output.scored.log_kept[:, 1:]).float(), output.scored)


class Shifted(Reference):
    """Off by one place."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return ReferenceOutput(output.log_probs.roll(1, 1), output.scored)


class Unshifted(Reference):
    """As many numbers as tokens."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return ReferenceOutput(output.scored.log_nu[:, :4].float(), output.scored)


class ForgetsTemperature(Reference):
    """Says one thing by hand and another when called."""

    def score(self, *args, **kwargs):
        kept, self.temperature = self.temperature, 1.3
        found = super().score(*args, **kwargs)
        self.temperature = kept
        return found


@pytest.mark.parametrize("wrong", [Renormalized, Shifted, Unshifted, ForgetsTemperature])
def test_a_wrong_reference_is_caught_before_anything_is_trained(wrong):
    for kind in ("RLOO", "GRPO"):
        made = trainer(kind)
        with pytest.raises(ContractError, match="own path"):
            attach(made, wrong([network(0), network(1)], Minimum(), tokenizer=tokenizer()))
        assert made.ref_model is None
        assert not hasattr(made, "mightnt_guard")


def test_the_check_passes_for_right_references_and_leaves_no_trace():
    tokens = torch.arange(200).numpy() % 7 + 2
    counts = fit_counts(
        tokens, torch.tensor([0, 200]).numpy(), tokens > 0, reference().get_buffer("is_action").numpy(), 2
    )
    capped = {"counts": counts, "support": Support(10, 1)}
    for base, settings in ((Minimum(), {}), (Single(), {}), (Capped(0.5), capped)):
        ours = reference(base, **settings)
        assert check_path(trainer(), ours) < 1e-4
        assert ours.forbidden_tokens == 0
    short = Reference([network(0).bfloat16(), network(1).bfloat16()], Minimum(), tokenizer=tokenizer())
    assert check_path(trainer(), short) < 0.1


def test_trl_that_is_missing_or_old_is_one_sentence(monkeypatch):
    for version in (None, "1.15.2", "0.24.0"):
        monkeypatch.setattr("mightnt.lm.trl_adapter.checks.installed_version", lambda _, version=version: version)
        with pytest.raises(InputError, match=r"pip install .mightnt\[trl\]"):
            needs_trl()
