"""A protected trainer of TRL on tiny models: the right gradient, the right numbers, the same after a resume, nothing silent."""

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mightnt.errors import ContractError, InputError
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.reference import Reference
from mightnt.lm.scoring import scores
from mightnt.lm.trl_adapter import attach
from tests.lm.trl_adapter.tiny import WORDS, logged, network, no_pad, reference, tokenizer, trainer

trl = pytest.importorskip("trl")
KINDS = ("RLOO", "GRPO")
BETA = 0.3


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def moved(before, model):
    return sum(
        float((value.detach() - before[name]).abs().sum()) for name, value in model.named_parameters() if name in before
    )


# --- the gradient: all sequences of two tokens, every pair of them as a group, weighted by its probability ---------------

SMALL = WORDS[:4]
SEQUENCES = [[1], *([a, b] for a in (0, 2, 3) for b in range(4))]
PAIRS = list(itertools.product(range(len(SEQUENCES)), repeat=2))


def reward_of(sequence):
    return 1.0 * (2 in sequence) - 0.5 * (sequence[0] == 3)


def enumerated(kind, **changed):
    """A trainer whose every generation is all pairs of sequences behind the prompt `a`."""
    torch.manual_seed(0)
    n = 2 * len(PAIRS)
    made = trainer(
        kind,
        model=network(3, rows=4),
        words=SMALL,
        prompts=["a"] * len(PAIRS),
        reward=lambda completion_ids, **_: [reward_of(ids) for ids in completion_ids],
        per_device_train_batch_size=n,
        max_completion_length=2,
        **changed,
    )
    completions = [SEQUENCES[i] for pair in PAIRS for i in pair]

    def generate(prompts):
        texts = ["" for _ in completions]
        if kind == "RLOO":
            return [[2]] * n, completions, texts
        return [[2]] * n, completions, None, texts, None, {}, None, []

    made._generate = generate
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def log_pi(model, temperature=1.0):
    """log pi of every sequence, with gradients."""
    ids = torch.tensor([[2, *s, 0][:3] for s in SEQUENCES])
    rows = (model(input_ids=ids).logits / temperature).log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return torch.stack([row[: len(s)].sum() for row, s in zip(rows, SEQUENCES, strict=True)])


def small_reference():
    return Reference([network(seed, rows=4) for seed in range(3)], Minimum(), tokenizer=tokenizer(SMALL))


def gradient_by_trl(made):
    """The expected gradient of TRL's own loss: advantages of each pair times how likely that pair is."""
    inputs = [{"prompt": "a"}] * (2 * len(PAIRS))
    output = made._generate_and_score_completions(inputs)
    with torch.no_grad():
        p = log_pi(made.model).exp()
    share = torch.tensor([float(p[i] * p[j]) for i, j in PAIRS for _ in range(2)]) * len(PAIRS)
    if made.beta and "ref_per_token_logps" in output:
        return gradient_in_loss(made, output, share)
    output["advantages"] = output["advantages"] * share
    made.model.zero_grad()
    made._compute_loss(made.model, output).backward()
    return torch.cat([x.grad.flatten() for x in made.model.parameters()])


def gradient_in_loss(made, output, share):
    """The same for a loss with a term of its own: row by row, weighted."""
    total = 0.0
    rows = {name: value for name, value in output.items() if isinstance(value, torch.Tensor) and value.ndim}
    for i in range(len(share)):
        made.model.zero_grad()
        one = {name: value[i : i + 1] for name, value in rows.items()} | {
            "num_items_in_batch": output["num_items_in_batch"]
        }
        made._compute_loss(made.model, one).backward()
        total = total + share[i] * torch.cat([x.grad.flatten() for x in made.model.parameters()]) / len(share)
    return total


def gradient_exact(made, ours, beta):
    """- d/d parameters of sum_x pi(x) (reward(x) - beta log(pi(x) / nu(x)))."""
    ids = torch.tensor([[2, *s, 0][:3] for s in SEQUENCES])
    own = torch.tensor([[False, True, len(s) > 1] for s in SEQUENCES])
    log_nu = ours.score(ids, own=own).log_nu.sum(1).float()
    made.model.zero_grad()
    log_p = log_pi(made.model)
    rewards = torch.tensor([reward_of(s) for s in SEQUENCES])
    (-(log_p.exp() * (rewards - beta * (log_p - log_nu))).sum()).backward()
    return torch.cat([x.grad.flatten() for x in made.model.parameters()])


@pytest.mark.parametrize(("kind", "factor"), [("RLOO", 1.0), ("GRPO", 0.5 / 2)])
def test_the_gradient_is_that_of_reward_minus_beta_times_the_kl_of_sequences(kind, factor):
    """GRPO's factor: (G - 1) / G for the mean that includes oneself, 1 / max_completion_length of dr_grpo."""
    made, ours = enumerated(kind), small_reference()
    attach(made, ours, beta=BETA, exact_kl_every=0)
    found, expected = gradient_by_trl(made), gradient_exact(made, ours, BETA)
    torch.testing.assert_close(found, factor * expected, atol=2e-5, rtol=1e-3)
    without = gradient_exact(made, ours, 0.0)
    assert float((expected - without).norm()) > 0.1 * float(expected.norm()), "the KL has no part in it"


def test_grpos_own_term_is_another_gradient():
    """The neighbor: TRL's k3 in the loss with the same reference. Why that term stays off."""
    made, ours = enumerated("GRPO"), small_reference()
    made.beta, made.ref_model = BETA, ours
    found, exact = gradient_by_trl(made), gradient_exact(made, ours, BETA)
    reward_part = 0.5 / 2 * gradient_exact(made, ours, 0.0)
    kl_found, kl_exact = found - reward_part, 0.5 * (exact - 4 / 2 * reward_part)
    assert float((kl_found - kl_exact).norm()) > 0.1 * float(kl_exact.norm())


# --- the numbers -----------------------------------------------------------------------------------------------------------


def caught(made):
    """What the next generations settle to, kept for a look."""
    guard, kept = made.mightnt_guard, []
    settle = made._generate_and_score_completions

    def look(inputs):
        kept.append(settle(inputs))
        return kept[-1]

    made._generate_and_score_completions = look
    return guard, kept


@pytest.mark.parametrize("kind", KINDS)
def test_the_metrics_are_what_they_say(kind):
    """One generation recomputed from logits, with numpy-like loops."""
    made, ours = trainer(kind, max_steps=1), reference()
    before = network()
    attach(made, ours, beta=0.1, kl_budget_nats=1.0, exact_kl_every=1)
    guard, kept = caught(made)
    made.train()
    output = kept[0]
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    sequence, exact, floors, thetas, over = [], [], [], [], []
    for row, there in zip(ids, mask.bool(), strict=True):
        tokens, n_prompt = row[there], int(output["prompt_mask"][len(sequence)].sum())
        policy = scores(before, tokens[None])[0].double()
        nu = torch.stack([scores(m, tokens[None])[0].double() for m in ours.networks]).amin(0)
        places = range(n_prompt, len(tokens))
        steps = [float(policy[t - 1, tokens[t]] - nu[t - 1, tokens[t]]) for t in places]
        sequence.append(sum(steps))
        over.append(max(itertools.accumulate(steps)) > 1.0)
        exact.append(sum(float((policy[t - 1].exp() * (policy[t - 1] - nu[t - 1])).sum()) for t in places))
        floors.append(sum(-float(nu[t - 1].logsumexp(0)) for t in places))
        thetas += [1 - float(nu[t - 1].exp().sum()) for t in places]
    expected = {
        "sequence_kl_nats": sum(sequence) / 4,
        "sequence_kl_max_nats": max(sequence),
        "exact_kl_nats": sum(exact) / 4,
        "floor_nats": sum(floors) / 4,
        "asking_probability": sum(thetas) / len(thetas),
        "over_budget_share": sum(over) / 4,
        "forbidden_tokens_per_episode": 0.0,
        "beta": 0.1,
    }
    for name, value in expected.items():
        assert logged(made, f"mightnt/{name}") == [pytest.approx(value, abs=1e-4)], name
    assert 0 < sum(over) < 4, "this batch shows nothing of the budget"
    assert guard.beta == 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_over_budget_is_never_reinforced(kind):
    """The first generation with and without a budget: who is over has the lowest advantage, the others keep theirs."""
    outputs, shares = [], []
    for terms in ({"kl_budget_nats": 1.0}, {}):
        made = trainer(kind, max_steps=1, per_device_train_batch_size=8)
        attach(made, reference(), beta=0.01, exact_kl_every=0, **terms)
        _, kept = caught(made)
        torch.manual_seed(0)
        made.train()
        outputs.append(kept[0])
        shares += logged(made, "mightnt/over_budget_share")
    bound, free = outputs
    assert torch.equal(bound["completion_ids"], free["completion_ids"])
    ids, mask = (torch.cat([bound[f"prompt_{x}"], bound[f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
    own = mask.bool() & (torch.arange(mask.shape[1]) >= bound["prompt_ids"].shape[1])
    nets = [Reference([net], Single(), tokenizer=tokenizer()) for net in (network(), *(network(s) for s in (0, 1)))]
    policy, *members = (net.score(ids, mask, own).log_nu for net in nets)
    over = (policy - torch.minimum(*members)).cumsum(1).amax(1) > 1.0
    assert shares == [float(over.double().mean()), 0.0]
    assert 0 < int(over.sum()) < 8
    lowest = free["advantages"].min()
    assert float(lowest) < 0
    assert torch.equal(bound["advantages"], torch.where(over, lowest, free["advantages"]))
    assert bool((free["advantages"][over] > lowest).any()), "this batch shows nothing of the budget"


@pytest.mark.parametrize("kind", KINDS)
def test_forbidden_tokens_end_in_numbers_and_in_a_gradient(kind):
    """Nothing but `a` and the end may be said: nearly every episode is forbidden, and yet the policy learns to say them."""
    mask = no_pad()
    mask[3:] = False
    ours = reference(Single(), is_action=mask)
    made = trainer(kind, max_steps=60, learning_rate=3e-2, per_device_train_batch_size=16, num_generations=8)
    attach(made, ours, beta=0.05, kl_budget_nats=20.0)
    made.train()
    met, norms = logged(made, "mightnt/forbidden_tokens_per_episode"), logged(made, "grad_norm")
    assert all(math.isfinite(x) for x in norms)
    assert min(norms[:5]) > 0
    assert all(math.isfinite(x) for x in logged(made, "mightnt/exact_kl_nats"))
    assert met[0] > 1.5
    assert sum(met[-10:]) / 10 < 0.3 * met[0]
    assert all(bool(value.isfinite().all()) for value in made.model.parameters())
    assert ours.forbidden_tokens == sum(round(x * 16) for x in met)
    assert logged(made, "mightnt/over_budget_share")[0] > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_beta_moves_towards_the_target(kind):
    high, low = trainer(kind, max_steps=3), trainer(kind, max_steps=3)
    up = attach(high, reference(), beta=0.1, kl_target_nats=0.01, beta_step=0.5)
    down = attach(low, reference(), beta=0.1, kl_target_nats=50.0, beta_step=0.5)
    high.train()
    low.train()
    assert logged(high, "mightnt/beta")[0] == 0.1
    assert up.beta > logged(high, "mightnt/beta")[-1] > 0.1 > logged(low, "mightnt/beta")[-1] > down.beta
    assert high.beta == (up.beta if kind == "RLOO" else 0.0)


# --- settings of a real run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_reference_is_trained(kind):
    ours = reference()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    made = trainer(kind)
    start = weights(made.model)
    attach(made, ours)
    made.train()
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    assert moved(start, made.model) > 0
    trained = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in ours.parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_policy(kind):
    """The reference that is attached takes precedence over TRL's own for peft: the policy with its adapter off."""
    peft = pytest.importorskip("peft")
    made = trainer(kind, more={"peft_config": peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])})
    start = weights(made.model)
    attach(made, reference(), beta=0.1, exact_kl_every=1)
    made.train()
    assert moved(start, made.model) > 0
    values = logged(made, "mightnt/sequence_kl_nats")
    assert len(values) == 2
    assert all(value != 0 for value in values)
    assert len(logged(made, "mightnt/exact_kl_nats")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_accumulation_scores_every_episode_once(kind):
    """Two rows a step, two steps an update, every generation used twice: TRL cuts it in pieces, the numbers are of the whole."""
    made = trainer(kind, max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2, num_iterations=2)
    ours, before = reference(), network()
    guard = attach(made, ours, beta=0.1)
    _, kept = caught(made)
    made.train()
    assert guard.generations == len(kept) == 1
    (value,) = {x for x in logged(made, "mightnt/sequence_kl_nats") if x is not None}
    ids, mask = (torch.cat([kept[0][f"prompt_{x}"], kept[0][f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
    own = mask.bool() & (torch.arange(mask.shape[1]) >= kept[0]["prompt_ids"].shape[1])
    nets = [Reference([net], Single(), tokenizer=tokenizer()) for net in (before, *(network(s) for s in (0, 1)))]
    policy, *members = (net.score(ids, mask, own).log_nu for net in nets)
    assert len(ids) == 4
    assert value == pytest.approx(float((policy - torch.minimum(*members)).sum() / 4), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_measured_and_moves_nothing(kind):
    made = trainer(kind, per_device_eval_batch_size=4)
    guard = attach(made, reference(), beta=0.1, kl_target_nats=0.1)
    guard.generations = 3
    found = made.evaluate()
    assert found["eval_mightnt/sequence_kl_nats"] > 0
    assert found["eval_mightnt/exact_kl_nats"] > 0, "measured, whatever generation training stands at"
    assert guard.generations == 3
    assert guard.beta == 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_exact_kl_the_policy_is_never_read_outside_of_the_trainers_own_path(kind, monkeypatch):
    """As it must be where its weights are spread over processes."""
    monkeypatch.setattr(sys.modules[attach.__module__], "TwoParts", None)
    made = trainer(kind, max_steps=1)
    attach(made, reference(), exact_kl_every=0)
    made.train()
    assert "mightnt/exact_kl_nats" not in made.state.log_history[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_goes_on_at_the_price_where_it_stopped(kind, tmp_path):
    """Beta, counters, and the file beside the checkpoint. (The episodes that TRL draws after a resume are others.)"""
    terms = {"beta": 0.1, "kl_target_nats": 0.2, "beta_step": 0.5, "exact_kl_every": 2}
    mask = no_pad()
    whole = trainer(kind, tmp_path / "a", max_steps=4, save_strategy="steps", save_steps=2)
    attach(whole, reference(is_action=mask), **terms)
    whole.train()
    kept = json.loads((tmp_path / "a" / "checkpoint-2" / "mightnt.json").read_text())
    assert kept["generations"] == 2
    assert kept["beta"] == pytest.approx(logged(whole, "mightnt/beta")[2])
    assert kept["beta"] != 0.1
    assert kept["reference"]["base"]["kind"] == "Minimum"
    assert len(kept["reference"]["networks"]) == 2
    again = trainer(kind, tmp_path / "a", max_steps=4)
    guard = attach(again, reference(is_action=mask), **terms)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert logged(again, "mightnt/beta")[:3] == pytest.approx(logged(whole, "mightnt/beta")[:3])
    assert guard.generations == 4
    met = sum(round(4 * x) for x in logged(again, "mightnt/forbidden_tokens_per_episode"))
    assert guard.reference.forbidden_tokens == met > 0
    wrong = trainer(kind, tmp_path / "a", max_steps=4)
    attach(wrong, reference(seeds=(0, 2), is_action=mask), **terms)
    with pytest.raises(InputError, match="another reference: networks differ"):
        wrong.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    dearer = trainer(kind, tmp_path / "a", max_steps=4)
    attach(dearer, reference(is_action=mask), **terms | {"beta": 0.2, "kl_budget_nats": 3.0, "exact_kl_every": 0})
    with pytest.raises(InputError, match="another price or budget: beta, kl_budget_nats differ"):
        dearer.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    """Autocast makes the policy coarse and leaves the reference as it is."""
    made, ours = trainer(kind, bf16=True), reference()
    attach(made, ours, beta=0.1, exact_kl_every=1)
    _, kept = caught(made)
    made.train()
    assert all(math.isfinite(x) for x in logged(made, "mightnt/sequence_kl_nats"))
    ids, mask = (torch.cat([kept[0][f"prompt_{x}"], kept[0][f"completion_{x}"]], dim=1) for x in ("ids", "mask"))
    own = mask.bool() & (torch.arange(mask.shape[1]) >= kept[0]["prompt_ids"].shape[1])
    said = ours.score(ids, mask, own)
    floor = float(-said.log_kept.sum(1).mean())
    assert logged(made, "mightnt/floor_nats")[0] == pytest.approx(floor, abs=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours.score(ids, mask, own).log_nu, said.log_nu)
        coarse = network()(input_ids=ids).logits
    assert not torch.equal(coarse.float(), network()(input_ids=ids).logits)


def test_what_the_environment_said_is_read_and_not_charged():
    """A rollout in which every second token is somebody else's (TRL's env_mask): the KL is of the agent's tokens alone."""

    def rollout(prompts, made):
        ids = [made.processing_class.encode(prompt) for prompt in prompts]
        return {
            "prompt_ids": ids,
            "completion_ids": [[2, 3, 4, 5] for _ in ids],
            "logprobs": [[0.0] * 4 for _ in ids],
            "env_mask": [[1, 0, 1, 0] for _ in ids],
        }

    made, ours = trainer("GRPO", max_steps=1, more={"rollout_func": rollout}), reference()
    attach(made, ours, beta=0.1)
    _, kept = caught(made)
    made.train()
    output = kept[0]
    expected = []
    for row, mask in zip(output["prompt_ids"], output["prompt_mask"].bool(), strict=True):
        tokens = torch.cat([row[mask], torch.tensor([2, 3, 4, 5])])[None]
        n = int(mask.sum())
        own = torch.zeros_like(tokens, dtype=torch.bool)
        own[0, [n, n + 2]] = True
        policy = scores(network(), tokens)[0]
        steps = [float(policy[t - 1, tokens[0, t]] - ours.score(tokens, own=own).log_nu[0, t]) for t in (n, n + 2)]
        expected.append(sum(steps))
    assert logged(made, "mightnt/sequence_kl_nats") == [pytest.approx(sum(expected) / 4, abs=1e-4)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trl_that_scores_otherwise_stops_the_run(kind):
    """As if a later release no longer called what is listened to."""
    made = trainer(kind)
    guard = attach(made, reference())
    if kind == "RLOO":
        made.ref_model = network()
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(made.ref_model)
    else:
        guard.log_probs_of = lambda *_, **__: (torch.zeros(1, 1), None, None)
    with pytest.raises(ContractError, match="another version"):
        made.train()


def test_one_reference_serves_one_trainer_after_another():
    """What it says elsewhere, to a second trainer or to a loop by hand, is not heard by the first."""
    ours = reference()
    first, second = trainer(max_steps=1), trainer(max_steps=1)
    guard = attach(first, ours, exact_kl_every=0)
    first.train()
    heard = len(guard.heard)
    attach(second, ours, exact_kl_every=0)
    second.train()
    ours(torch.tensor([[2, 3, 4]]), labels=torch.tensor([[2, 3, 4]]))
    assert len(guard.heard) == heard == 1


def test_images_are_refused():
    """Members would read the tokens that stand for them as words."""
    made = trainer("GRPO")
    guard = attach(made, reference())
    generate = guard.generate
    guard.generate = lambda inputs: generate(inputs) | {"num_images": [1] * 4}
    with pytest.raises(InputError, match="num_images; a base reads text alone"):
        made.train()


LAUNCHED = """
import sys, json, torch
sys.path.insert(0, {root!r})
torch.set_num_threads(1)
from tests.lm.trl_adapter.tiny import logged, reference, trainer
from mightnt.lm.trl_adapter import attach
settings = dict(max_steps=2, per_device_train_batch_size=2, save_strategy="steps", save_steps=2)
made = trainer({kind!r}, {path!r}, **settings)
guard = attach(made, reference(), beta=0.1, kl_target_nats=0.2, kl_budget_nats=2.0, exact_kl_every=1)
made.train()
total = sum(float(p.detach().double().sum()) for p in made.model.parameters())
kept = {{name: logged(made, "mightnt/" + name) for name in ("sequence_kl_nats", "exact_kl_nats", "over_budget_share")}}
kept |= {{"n": made.accelerator.num_processes, "beta": guard.beta, "weights": total}}
open({path!r} + f"-{{made.accelerator.process_index}}.json", "w").write(json.dumps(kept))
made.accelerator.wait_for_everyone()  # or the first to leave may take the other's connections with it
made.accelerator.end_training()
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes(kind, tmp_path):
    """Both see the episodes of both: the same KL, the same beta, the same weights after."""
    root = str(Path(__file__).parents[3])
    script = tmp_path / "script.py"
    script.write_text(LAUNCHED.format(root=root, kind=kind, path=str(tmp_path / "out")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    done = subprocess.run(
        [*launch, str(script)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr[:4000] + done.stderr[-1000:]
    first, second = (json.loads((tmp_path / f"out-{i}.json").read_text()) for i in range(2))
    assert first["n"] == 2
    assert first["beta"] == second["beta"] != 0.1
    assert first["weights"] == pytest.approx(second["weights"], abs=1e-6)
    assert len(first["sequence_kl_nats"]) == len(first["exact_kl_nats"]) == 2
    assert (tmp_path / "out" / "checkpoint-2" / "mightnt.json").exists()
