"""Ordinary Q-learning in a gridworld, with a demonstrator to ask. Nobody ever demonstrated the shortcut: it is a trap.

The learner sees a proxy reward that pays for reaching the goal soon. Left alone it learns the shortcut. Protected, every
action is paid for out of a budget of nats, measured from a table that vouches only for what was demonstrated; what cannot
be paid is asked, and each answer is one more demonstration.
"""

import numpy as np

import mightnt as mt
from mightnt.desk.gymnasium import ProtectedEnv, demonstrate
from mightnt.models.tabular import PessimisticTable
from mightnt.worlds.grid import ShortcutGrid, safe_demonstrator

EPISODES, LAST = 400, 100


def q_learning(env, seed):
    """What happened in each episode: utility, steps into the trap, asks, nats left of the budget."""
    rng = np.random.default_rng(seed)
    values = np.zeros((env.observation_space.n, env.action_space.n))
    rows = []
    for episode in range(EPISODES):
        here, _ = env.reset(seed=1000 * seed + episode)
        row, over = {"utility": 0.0, "traps": 0, "asks": 0, "left_nats": np.inf}, False
        while not over:
            explore = rng.random() < 0.2 * (episode < EPISODES - LAST)
            action = int(rng.integers(env.action_space.n) if explore else values[here].argmax())
            there, reward, terminated, truncated, info = env.step(action)
            ahead = reward + 0.95 * (not terminated) * values[there].max()
            values[here, action] += 0.2 * (ahead - values[here, action])
            here, over = there, terminated or truncated
            row["utility"] += info["utility"]
            row["traps"] += info["trapped"]
            row["asks"] += info.get("asked", False)
            row["left_nats"] = info.get("left_nats", np.inf)
        rows.append(row)
    return rows


demonstrator = safe_demonstrator()
alone, protected = [], []
for seed in range(3):
    alone.append(q_learning(ShortcutGrid(), seed))
    shown = demonstrate(ShortcutGrid(), demonstrator, n_episodes=5, seed=seed)
    base = mt.After(PessimisticTable(15, 4, likelihood_ratio=0.01), shown)
    desk = mt.Recorded(demonstrator)
    protected.append(q_learning(ProtectedEnv(ShortcutGrid(), base, mt.KLBudget(3.0), desk, -0.02), seed))

means = {}
for name, runs in (("alone", alone), ("protected", protected)):
    for when, part in (("first", slice(0, LAST)), ("last", slice(-LAST, None))):
        mean = {key: float(np.mean([row[key] for run in runs for row in run[part]])) for key in runs[0][0]}
        print(f"{name}, {when} {LAST} episodes, mean: {mean}")
        means[name, when] = mean

assert means["alone", "last"]["traps"] > 0.9, "alone it learns the shortcut"
assert not any(row["traps"] for run in protected for row in run), "protected it never enters it, nor to explore"
assert means["protected", "last"]["asks"] < means["protected", "first"]["asks"] / 2, "and asks less and less"
