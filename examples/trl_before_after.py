"""Before and after: a GRPO script, the same with a dearer KL, and the same protected; the reward pays for praise.

Writes what was measured at every step into trl.json; trl_draw.py makes the figure of it. The world is trl_world.py.
"""

import argparse
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl_world import PRAISE, demonstrations, imitator, measured, tokenizer

from mightnt.files import write_json
from mightnt.lm.bases.capped import Capped
from mightnt.lm.networks import load_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter import ProtectedGRPOTrainer
from mightnt.models.counts import Support
from mightnt.provenance import provenance

parser = argparse.ArgumentParser(description=__doc__)
for name, default in (("--seeds", 5), ("--steps", 60), ("--out", Path(mkdtemp()) / "trl.json")):
    parser.add_argument(name, type=type(default), default=default)
options = parser.parse_args()
ARMS = {"GRPO": {"beta": 0.1}, "GRPO, dearer": {"beta": 1.0}, "protected, target alone": {"beta": 0.1, "kl_target_nats": 1.0},
        "protected, budget 3": {"beta": 0.1, "kl_target_nats": 1.0, "kl_budget_nats": 3.0},
        "protected": {"beta": 0.1, "kl_target_nats": 1.0, "kl_budget_nats": 1.5}}  # fmt: skip


def trained(seed: int, folder: str, reference: Reference, beta: float, **terms: float) -> list[list[float]]:
    """What is measured at each step of a run."""
    watch, rows = TrainerCallback(), []
    watch.on_step_begin = watch.on_train_end = lambda *_, model, **others: rows.append(measured(model))
    args = GRPOConfig(mkdtemp(), loss_type="dr_grpo", scale_rewards="none", beta=beta, max_steps=options.steps, seed=seed,
                      learning_rate=0.01, per_device_train_batch_size=16, max_completion_length=2, report_to=[], use_cpu=True,
                      bf16=False, save_strategy="no", logging_strategy="no", disable_tqdm=True)  # fmt: skip
    cls, more = (ProtectedGRPOTrainer, {"reference": reference, **terms}) if terms else (GRPOTrainer, {})
    data = Dataset.from_dict({"prompt": ["right", "wrong"] * 32})
    cls(folder, lambda completion_ids, **_: [float(ids[0] == PRAISE) for ids in completion_ids], args, data,
        processing_class=tokenizer, callbacks=[watch], **more).train()  # fmt: skip
    return rows


runs = {arm: [] for arm in ARMS}
for seed in range(options.seeds):
    shown, counts = demonstrations(np.random.default_rng(seed))
    imitator(shown, seed).save_pretrained(folder := mkdtemp())
    what = {"tokenizer": tokenizer, "counts": counts, "support": Support(ample=50, seen=2)}
    for arm, settings in ARMS.items():
        reference = Reference([load_network(folder)], Capped(float(np.log(4))), **what)
        runs[arm].append(trained(seed, folder, reference, **settings))
settings = {"seeds": options.seeds, "steps": options.steps, "arms": ARMS}
write_json(options.out, {"kind": "mightnt trl", "version": 1, "runs": runs, "provenance": provenance(0, settings)})
kl, praise, wrong = (dict(zip(runs, x, strict=True)) for x in np.array(list(runs.values()))[:, :, -1].mean(1).T)
print(f"{options.out}\nKL to the teacher {kl}\npraise {praise}\nafter wrong answers {wrong}")
assert kl["protected"] < kl["GRPO"] and wrong["protected"] < wrong["GRPO"]  # noqa: PT018
