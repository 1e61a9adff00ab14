"""The pessimistic imitator played as it is: it asks when believed models disagree, learns from the answers, asks less.

It does not know which of nine coins the demonstrator throws. Where it does not ask it does what every believed model
would; asking is charged log(1 + theta) a decision, and that bounds its distance to the demonstrator step by step.
"""

from math import fsum

from mightnt.audits.audit import audit
from mightnt.bases.pessimistic import Pessimistic
from mightnt.desk.answer import Recorded
from mightnt.desk.play import play
from mightnt.history import Chooser
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass
from mightnt.worlds.tree import TreeWorld

ROUNDS = 200
coins = [Categorical.of([1 - p / 10, p / 10]) for p in range(1, 10)]
demonstrator = coins[6]
base = Pessimistic(ModelClass.of(coins), top_set_level=0.01)
world = TreeWorld(
    n_actions=2, n_observations=1, horizon=ROUNDS, observe=lambda path: [1.0], utility_of=lambda path: sum(path[::2])
)

desk = Recorded(demonstrator)
records = [play(base, world, desk=desk, asking="charged", seed=s, demonstrator=demonstrator) for s in range(12)]
print(audit(records, demonstrator))

asked = [
    [step.chooser is Chooser.DEMONSTRATOR for step in record.steps if step.chooser is not Chooser.WORLD]
    for record in records
]
first, last = (fsum(sum(row[part]) / 50 for row in asked) / len(asked) for part in (slice(0, 50), slice(-50, None)))
print(f"asked in the first 50 rounds: {first:.0%}, in the last 50: {last:.0%}")
within = [
    record for record in records if all(step.kl_demonstrator_nats <= step.kl_base_nats + 1e-9 for step in record.steps)
]

assert last < first / 2, "asking fades"
assert len(within) >= 0.9 * len(records), "the demonstrator stays among the believed models almost always"
