"""One episode: act, pay, ask.

At every decision: the policy as it is, if what is left can pay for it; else the base (given that it does not ask, or
with its asking, as the account says); else the demonstrator decides, which is free.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from mightnt.constraints.asking import (
    ACCOUNTS,
    AskAccount,
    asking_probability,
    charge_asking_nats,
    charge_floor_nats,
    floor_nats,
    given_no_ask,
    with_answers,
)
from mightnt.constraints.budget import KLBudget
from mightnt.constraints.kl import kl_step_nats
from mightnt.constraints.ledger import Ledger
from mightnt.desk.answer import Demonstrator, Question, draw
from mightnt.desk.record import Record, RecordedStep
from mightnt.errors import InputError, NoAnswer
from mightnt.history import Chooser, Step
from mightnt.prediction import Model, Prediction
from mightnt.worlds.tree import World


def play(
    policy: Model,
    world: World,
    *,
    seed: int,
    desk: Demonstrator | None = None,
    base: Model | None = None,
    budget: KLBudget | None = None,
    asking: AskAccount = "floor",
    demonstrator: Model | None = None,
) -> Record:
    """The record of one episode that never spends more than its budget.

    The ledger is charged the exact KL of every decision, so the limit holds along every path, not on average. An asked
    action is a step of the demonstrator's: models that learn from demonstrations learn from it.

    Args:
        seed: of all dice; a non-negative number.
        desk: who answers questions. Without one, :class:`~mightnt.errors.NoAnswer` where a question is due.
        base: what the KL is measured from; by default the policy's own ``base``, else the policy itself.
        budget: by default the policy's own ``budget``, else no limit.
        asking: ``floor`` (the policy must sum to one, and pays the floor of the base) or ``charged`` (what
            the policy misses is asked, and log(1+theta) is charged a decision).
        demonstrator: where it is known, its model; then KL(system, demonstrator) is recorded at every decision.

    Kind: exact charges along one sampled path. Cost: one prediction of each model a step.
    """
    if asking not in ACCOUNTS:
        raise InputError(f"the account of asking is {asking!r}; known are {', '.join(ACCOUNTS)}")
    base = getattr(policy, "base", policy) if base is None else base
    budget = getattr(policy, "budget", KLBudget(inf)) if budget is None else budget
    ledger, rng = Ledger(budget.nats), np.random.default_rng(seed)
    steps, history, n_asks = list[RecordedStep](), list[Step](), 0
    models: list[Model] = [world, policy, base, *([demonstrator] if demonstrator else [])]
    states: list[Any] = [model.start() for model in models]
    while (turn := world.turn(states[0])) is not None:
        if turn is Chooser.WORLD:
            step = _observe(world.predict(states[0]), ledger, demonstrator is not None, rng)
        else:
            question = Question(tuple(history), world.n_actions, n_asks, seed)
            ahead = [model.predict(state) for model, state in zip(models[1:], states[1:], strict=True)]
            step, ledger = _decide(ahead, ledger, asking, desk, question, rng)
        n_asks += step.chooser is Chooser.DEMONSTRATOR
        steps.append(step)
        history.append(Step(step.symbol, step.chooser))
        states = [model.advance(state, history[-1]) for model, state in zip(models, states, strict=True)]
    names = {"policy": type(policy).__name__, "base": type(base).__name__, "world": type(world).__name__}
    return Record(tuple(steps), budget.nats, asking, seed, world.utility(states[0]), names)


def affordable(
    policy: Prediction, base: Prediction, ledger: Ledger, asking: AskAccount
) -> tuple[Prediction, float] | None:
    """``(what to act by, its cost in nats)``: the policy, else the base, else ``None``: the demonstrator must decide.

    The base costs its floor -log(1-theta) under ``floor`` and log(1+theta) under ``charged``.
    """
    cost = ACCOUNTS[asking](policy, base)
    if ledger.affords(cost):
        return policy, cost
    if asking == "charged":
        cost = charge_asking_nats(base, base)
        return (base, cost) if ledger.affords(cost) else None
    if not ledger.affords(floor_nats(base)):
        return None
    calm = given_no_ask(base)
    return calm, charge_floor_nats(calm, base)


def _decide(
    ahead: list[Prediction],
    ledger: Ledger,
    asking: AskAccount,
    desk: Demonstrator | None,
    question: Question,
    rng: np.random.Generator,
) -> tuple[RecordedStep, Ledger]:
    """One action and the ledger after it; ``ahead`` holds the predictions of policy, base and perhaps demonstrator."""
    choice = affordable(ahead[0], ahead[1], ledger, asking)
    if choice is None:
        measured = 0.0 if ahead[2:] else None
        answer = _ask(desk, question)
        return RecordedStep(answer, Chooser.DEMONSTRATOR, 0.0, measured, 1.0, ledger.left_nats), ledger
    acting, cost = choice
    ledger = ledger.charge(cost)
    from_demonstrator = [kl_step_nats(with_answers(acting, mu), mu) for mu in ahead[2:]]
    drawn = draw(acting, rng)
    step = RecordedStep(
        symbol=_ask(desk, question) if drawn is None else drawn,
        chooser=Chooser.DEMONSTRATOR if drawn is None else Chooser.AGENT,
        kl_base_nats=cost,
        kl_demonstrator_nats=from_demonstrator[0] if from_demonstrator else None,
        asking_probability=asking_probability(acting),
        left_nats=ledger.left_nats,
        policy_log_probabilities=tuple(acting.log_probabilities.tolist()),
    )
    return step, ledger


def _observe(ahead: Prediction, ledger: Ledger, measured: bool, rng: np.random.Generator) -> RecordedStep:
    symbol = draw(ahead, rng)
    if symbol is None:
        raise InputError(f"the world misses probability {ahead.missing:.6g}; only a demonstrator can be asked")
    return RecordedStep(symbol, Chooser.WORLD, 0.0, 0.0 if measured else None, 0.0, ledger.left_nats)


def _ask(desk: Demonstrator | None, question: Question) -> int:
    if desk is None:
        raise NoAnswer(f"after {len(question.history)} step(s) the demonstrator must be asked, and there is no desk")
    answer = desk.answer(question)
    if not 0 <= answer < question.n_symbols:
        raise InputError(f"the demonstrator answered {answer}; allowed are 0..{question.n_symbols - 1}")
    return answer
