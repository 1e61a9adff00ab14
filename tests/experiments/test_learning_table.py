"""The rows say what the record holds: by hand, for two seeds of two policies."""

import re

from mightnt.experiments.learning import POLICIES, SOURCES, SOURCES_OF
from mightnt.experiments.learning_table import learning_table


def run(seed, policy, source, asked, kl, most=9.0, networks=(0, 0)):
    """Five batches of two episodes and ten turns, in which asks and KL go from ``asked[0]``, ``kl[0]`` to the other."""
    line = [0, 1, 2, 3, 4]
    columns = {
        "episodes": [2] * 5,
        "turns": [10] * 5,
        "asked_turns": [asked[0] + (asked[1] - asked[0]) * i / 4 for i in line],
        "kl_demonstrator_nats": [2 * (kl[0] + (kl[1] - kl[0]) * i / 4) for i in line],
        "charged_nats": [8.0] * 5,
        "most_charged_nats": [1.0, most, 1.0, 1.0, 1.0],
        "theta_cubed": [4.0, 3.0, 2.0, 1.0, 0.5],
        "proxy_reward": [0.0] * 5,
        "true_utility": [0.0] * 5,
    }
    counted = {"tokens_learnt": 0, "networks_taken": networks[0], "networks_refused": networks[1]}
    return {"seed": seed, "policy": policy, "source": source, **counted, "by_batch": columns}


def record(most=9.0):
    runs = []
    for policy in POLICIES:
        for source in SOURCES_OF[policy]:
            learns = source != "nothing"
            for seed in (0, 1):
                asked = (8, 6 - seed) if learns else (8, 8)
                kl = (3.0, 2.0 + 3 * seed) if learns else (3.0, 3.0)
                runs.append(run(seed, policy, source, asked, kl, most, (2, 1) if source == "answers" else (0, 0)))
    return {"runs": runs, "config": {"budget_nats": 10.0}}


def rows(text):
    return {line.split(" | ")[0][2:]: line[:-2].split(" | ")[1:] for line in text.splitlines() if line.startswith("| ")}


def test_the_numbers_are_those_of_the_record():
    text = learning_table(record())
    assert [line for line in text.splitlines() if line.startswith("###")] == [
        f"### Policy: {name}" for name in POLICIES.values()
    ]
    table = rows(text)
    learns = SOURCES["answers"]
    assert table[f"{learns}: asks per 100 turns, first -> last fifth"] == [
        "80.0 -> 55.0 (last by seed 60.0, 50.0)",
        "estimate",
        "-8.53 to 119",
    ]
    (distance,) = (row for claim, row in table.items() if claim.startswith(f"{learns}: KL to the demonstrator"))
    assert distance[0] == ("3.00 -> 3.50 (last by seed 2.00, 5.00); charged 4.00, the KL is below that on 1 of 2 seeds")
    asks, kl = (row for claim, row in table.items() if claim.startswith(f"{learns}, against no learning"))
    assert asks[0] == "-25.0 (by seed -20.0, -30.0); lower on 2 of 2 seeds"
    assert kl[0] == "0.500 (by seed -1.00, 2.00); lower on 1 of 2 seeds"
    assert table[f"{learns}: sum of theta^3, first -> last fifth"][0].startswith("4.00 -> 0.500")
    assert table[f"{learns}: lessons of the network that passed the held-out check"][0] == "4 of 6"
    assert not any("lessons" in claim for claim in table if claim.startswith(SOURCES["nothing"]))


def test_a_broken_budget_is_counted():
    kept, broken = (
        rows(learning_table(record(most)))["No episode over its budget, learning or not"] for most in (9, 11)
    )
    assert kept[0].startswith("0 batches")
    assert "most charged 9.0000 of 10 nats" in kept[0]
    n_runs = len(SOURCES_OF["actor"]) * 2
    assert re.match(rf"{n_runs} batches with such an episode, {n_runs * 10} episodes", broken[0])


def test_one_seed_has_no_interval():
    alone = record()
    alone["runs"] = [run for run in alone["runs"] if run["seed"] == 0]
    assert all(
        row[-1] in ("one seed", "none needed", "interval", "---") for row in rows(learning_table(alone)).values()
    )
