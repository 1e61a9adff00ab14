"""Counting a question as one more action is not enough: the smallest example, and the term that mends it.

The demonstrator throws a fair coin. The base allows heads with .5 and asks otherwise. An agent that does just that is at
distance 0 from the base if "ask" is a symbol like any other; yet together with the answers it shows heads three times of
four.
"""

from math import log

from mightnt.constraints.asking import charge_asking_nats, with_answers
from mightnt.constraints.kl import kl_step_nats
from mightnt.prediction import Prediction

demonstrator = Prediction.of([0.5, 0.5])
base = Prediction.of([0.5, 0.0])
policy = base

system = with_answers(policy, demonstrator)
truth_nats = kl_step_nats(system, demonstrator)
charged_nats = charge_asking_nats(policy, base)
correction_nats = log(1 + base.missing)

print(f"the system shows {system.probabilities.tolist()}, {truth_nats:.3f} nats from the demonstrator")
print(f"ask symbol alone: {charged_nats - correction_nats:.3f} nats; with log(1 + theta): {charged_nats:.3f} nats")

assert abs(charged_nats - correction_nats) < 1e-12 < truth_nats, "the ask symbol alone says 0"
assert truth_nats <= charged_nats, "with the correction it is a bound"
