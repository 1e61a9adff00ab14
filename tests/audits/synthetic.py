"""Made-up results of the right shape, for tests of everything that reads results.json. No number here was measured."""

import numpy as np

BUDGET = 10.0
SEEDS = (0, 1, 2)
# base: KL to the demonstrator by seed, proxy reward, true utility, asks per turn, how fast the budget is spent
SHAPES = {
    "none": ((430.0, 444.0, 461.0), 0.94, 0.02, 0.0, 0.3),
    "single": ((180.0, 204.0, 233.0), 0.54, 1.72, 0.0, 6.0),
    "mixture": ((198.0, 211.0, 231.0), 0.55, 1.69, 0.0, 6.0),
    "pessimistic": ((9.4, 9.9, 10.6), 0.444, 2.46, 0.021, 1.2),
    "pessimistic-minimum": ((6.6, 7.4, 10.1), 0.431, 2.47, 0.41, 1.1),
    "known": ((8.8, 9.1, 9.4), 0.449, 2.49, 0.0, 1.1),
}
WORDS = "well done . what is seven plus five ? think of a number line and count on".split()


def mean(value, spread=0.0, n=500, largest=None):
    """An episode mean with its standard error, and the largest episode where one is given."""
    measured = {"mean": value, "standard_error": spread / np.sqrt(n), "n": n}
    return measured if largest is None else measured | {"max": largest}


def run(base="mixture", seed=0, budget_nats=BUDGET, kl_demonstrator=None, **changes):
    """One entry of "runs"; ``kl_demonstrator`` is a number, ``"unmeasured"`` or ``None`` for the base's usual one."""
    usual, reward, utility, asks, speed = SHAPES[base]
    rng = np.random.default_rng([seed, list(SHAPES).index(base)])
    kl = usual[seed % 3] if kl_demonstrator is None else kl_demonstrator
    known = kl != "unmeasured"
    budget = "inf" if base == "none" else budget_nats
    spent = 121.0 if base == "none" else 0.93 * budget_nats
    noise = rng.normal(0, 0.01)
    value = {
        "base": base,
        "kind_of_base": f"{base}, as the tests make it up",
        "seed": seed,
        "n_demonstrations": 1000,
        "budget_nats": budget,
        "asking": "charged" if base.startswith("pessimistic") else "none",
        "episodes": 500,
        "proxy_reward": mean(reward + noise, 0.1),
        "true_utility": mean(utility + 4 * noise, 0.6) if known else None,
        "kl_base_nats": mean(spent, 1.0, largest=spent * 1.07),
        "kl_demonstrator_nats": mean(kl, 0.3 * kl, largest=2.2 * kl) if known and kl != "inf" else None,
        "over_budget_episodes": 0,
        "training_over_budget_episodes": 0,
        "training_episodes": 3840,
        "asks_per_turn": max(0.0, asks * (1 + 20 * noise)),
        "turns": 3000,
        "asked_turns": int(3000 * asks),
        "demonstrator_tokens": int(3000 * asks * 8),
        "kl_base_by_token_nats": by_token(spent, speed, rng),
        "kl_demonstrator_by_token_nats": by_token(kl, 1.1, rng) if known and kl != "inf" else None,
        "curve": [point(i, reward, utility if known else None, spent, asks, rng) for i in range(0, 60, 2)],
        "seconds": 51.3,
        "tokens_per_second": 4210.0,
        "transcripts": [transcript(base, known, rng) for _ in range(2)],
    }
    if kl == "inf":
        value["kl_demonstrator_nats"] = {"mean": "inf", "standard_error": "nan", "n": 500, "max": "inf"}
    return value | changes


def by_token(total, speed, rng, length=51):
    """KL at each token that sums to ``total``; a large ``speed`` spends it early."""
    weights = np.exp(-speed * np.arange(length) / length) * rng.uniform(0.6, 1.4, length)
    return list(total * weights / weights.sum())


def point(iteration, reward, utility, spent, asks, rng):
    """One training iteration on the way to the end."""
    done = 1 - np.exp(-iteration / 15)
    return {
        "iteration": iteration,
        "proxy_reward": 0.404 + (reward - 0.404) * done + rng.normal(0, 0.01),
        "true_utility": None if utility is None else 2.5 + (utility - 2.5) * done + rng.normal(0, 0.05),
        "kl_base_nats": spent * done,
        "asks_per_turn": asks * (1 + np.exp(-iteration / 10)),
    }


def transcript(base, known, rng):
    """Six rounds; the agent of an unprotected base repeats itself."""
    turns = []
    for _ in range(6):
        said = ["great"] * 6 if base == "none" else list(rng.choice(WORDS, 7))
        size = 1.1 if base in ("known", "pessimistic", "pessimistic-minimum") else 8.0
        tokens = [
            {
                "text": word,
                "kl_base_nats": float(rng.exponential(0.25)),
                "kl_demonstrator_nats": float(rng.exponential(size) * (rng.random() < 0.4)) if known else None,
            }
            for word in said
        ]
        reply = [{"text": word, "kl_base_nats": None, "kl_demonstrator_nats": None} for word in ("okay", ".")]
        asked = base == "pessimistic" and rng.random() < 0.2
        turns.append({"speaker": "assistant", "asked": bool(asked), "tokens": tokens})
        turns.append({"speaker": "user", "asked": False, "tokens": reply})
    return {"turns": turns, "proxy_reward": 0.5, "true_utility": 2.0 if known else None}


def results(runs=None, demonstrator=True, **changes):
    """A whole results.json; all bases and seeds unless ``runs`` are given."""
    runs = [run(base, seed) for base in SHAPES for seed in SEEDS] if runs is None else runs
    own = {"proxy_reward": mean(0.404, 0.1, 1000), "true_utility": mean(2.5, 0.6, 1000), "episodes": 1000}
    alone = {
        "none": 106.0,
        "single": 109.0,
        "mixture": 106.0,
        "pessimistic": 0.6,
        "pessimistic-minimum": 0.3,
        "known": 0,
    }
    bases = [
        {
            "name": name,
            "n_demonstrations": 1000,
            "kl_base_demonstrator_nats": mean(kl, 0.4 * kl, 1000) if demonstrator else None,
            "asking_nats_per_episode": mean(2.6 if name.startswith("pess") else 0.0, 0.5, 1000),
            "proxy_reward": mean(0.405, 0.1, 1000),
            "true_utility": mean(2.48, 0.6, 1000) if demonstrator else None,
        }
        for name, kl in alone.items()
    ]
    imitators = [
        {
            "name": name,
            "held_out_nats_per_token": nats,
            "held_out_nats_per_turn": 8 * nats,
            "gap_nats": mean(gap, 3.0, 1000) if demonstrator else None,
            "seconds": 34.0,
        }
        for name, nats, gap in (("network-0", 1.31, 96.0), ("network-1", 1.32, 94.0), ("counts", 1.46, -0.9))
    ]
    value = {
        "kind": "mightnt results",
        "version": 1,
        "provenance": provenance(),
        "profile": "default",
        "headline": {"budget_nats": BUDGET, "n_demonstrations": 1000},
        "demonstrator": own if demonstrator else None,
        "imitators": imitators,
        "bases": bases,
        "runs": runs,
    }
    return value | changes


def provenance():
    """What :func:`mightnt.provenance.provenance` writes, made up."""
    return {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "packages": {"mightnt": "0.1.0", "numpy": "2.4.6"},
        "python": "3.11.9",
        "machine": "Linux x86_64",
        "written_utc": "2026-01-02T03:04:05Z",
        "seed": 0,
        "config": {"budget_nats": BUDGET, "iterations": 60},
    }
