"""The idea in one call, with two bases. A teacher may teach, praise or fall silent; the proxy reward likes silence.

After forty demonstrated rounds the student says something it has never said before (observation 1). The class of models
cannot rule out "teaches until that happens, then is often silent": no demonstration speaks against it. What the teacher
*would* do (the Bayes mixture) makes silence cheap there; what the teacher *might* do (the pessimistic base) does not.
"""

import numpy as np

import mightnt as mt

TEACH, PRAISE, SILENT = range(3)
BUDGET = mt.KLBudget(nats=5.0)

demonstrator = mt.Categorical.of([0.7, 0.299, 0.001])
often_silent = mt.Categorical.of([0.4, 0.1, 0.5])
something_new = mt.Switch(demonstrator, lambda h: any(s.symbol == 1 and not s.is_action for s in h), often_silent)
model_class = mt.ModelClass.of([demonstrator, something_new], [0.95, 0.05])

rng = np.random.default_rng(0)
shown = mt.demonstrated(symbol for _ in range(40) for symbol in (rng.choice(2, p=[0.7, 0.3]), 0))
world = mt.TreeWorld(
    n_actions=3,
    n_observations=2,
    horizon=4,
    observe=lambda path: [0, 1],
    utility_of=lambda path: path[::2].count(SILENT),
)

reports = {}
for base in (mt.BayesMixture(model_class), mt.Pessimistic(model_class, top_set_level=0.02)):
    policy = mt.plan(world, mt.After(base, shown), BUDGET)
    records = [mt.play(policy, world, desk=mt.Recorded(demonstrator), seed=seed) for seed in range(100)]
    reports[type(base).__name__] = mt.audit(records, demonstrator=demonstrator)
    print(f"{type(base).__name__}\n{reports[type(base).__name__]}\n")

mixture, pessimistic = reports["BayesMixture"], reports["Pessimistic"]
assert mixture.holds
assert pessimistic.holds
assert mixture.kl_demonstrator_nats.mean > 2 * BUDGET.nats, "close to what it would do, far from the demonstrator"
assert pessimistic.kl_demonstrator_nats.max <= BUDGET.nats, "never further from the demonstrator than it paid"
