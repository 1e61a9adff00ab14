"""Records of the frontier made by hand."""


def estimate(mean, largest=None):
    """An estimate as records hold it."""
    return {"mean": mean, "standard_error": 0.1, "n": 500, "max": 1.5 * mean if largest is None else largest}


def run(candidate, n, seed, kl, asks=0.0, reward=0.5, kind="benign", largest=None, chosen_kl=None):
    """One run; both sets of episodes alike unless ``chosen_kl`` is given."""

    def figures(distance):
        return {
            "episodes": 500,
            "proxy_reward": estimate(reward),
            "true_utility": estimate(1.7),
            "kl_base_nats": estimate(9.0),
            "kl_demonstrator_nats": estimate(distance, largest),
            "over_budget_episodes": 0,
            "asks_per_turn": asks,
            "demonstrator_tokens_per_episode": 51 * asks,
            "gap_policy_nats": estimate(distance - 9.0),
        }

    return {
        "candidate": candidate,
        "n_demonstrations": n,
        "reward": kind,
        "seed": seed,
        "training_episodes": 1920,
        "training_over_budget_episodes": 0,
        "chosen_on": figures(kl if chosen_kl is None else chosen_kl),
        "reported": figures(kl),
    }


def record(runs, candidates, seeds=2, **changes):
    """A record of these runs; the demonstrator earns .4."""
    return {
        "kind": "mightnt frontier",
        "version": 1,
        "provenance": {"config": {"name": "made by hand"}},
        "commits": ["abc"],
        "world": "chat",
        "budget_nats": 10.0,
        "evaluation_episodes": 500,
        "seeds": seeds,
        "n_demonstrations": [1000, 10000],
        "rewards": ["benign", "adversarial"],
        "candidates": [{"name": name, "forward_passes": 1, "promise": f"{name} <promises> a|b"} for name in candidates],
        "demonstrator": [
            {"n_demonstrations": n, "reward": kind, "proxy_reward": estimate(0.4)}
            for n in (1000, 10000)
            for kind in ("benign", "adversarial")
        ],
        "alone": [],
        "runs": runs,
        "failed": {},
        **changes,
    }
