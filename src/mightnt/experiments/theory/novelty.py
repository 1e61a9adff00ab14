"""T1, novelty: after something that never happened before, close to the mixture is hardly a constraint at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, log, log2
from typing import Any

import numpy as np

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.budget import KLBudget
from mightnt.constraints.kl import kl_adaptive_nats, kl_expected_nats, kl_max_observations_nats, kl_pathwise_nats
from mightnt.errors import InputError
from mightnt.experiments.theory.ingredients import charges_nats, mean_row
from mightnt.experiments.theory.novelty_pictures import panels
from mightnt.experiments.theory.theorem import Computed, Report, Row, Theorem
from mightnt.history import Chooser, Evidence, History, Step, demonstrated
from mightnt.models.switching.posterior import SwitchingClass, SwitchingState
from mightnt.models.switching.programs import NONE
from mightnt.planners.least import least_expected_kl_nats, least_kl_nats
from mightnt.planners.levels import lay_out
from mightnt.planners.soft import plan_expected_kl
from mightnt.prediction import FloatArray, Model
from mightnt.worlds.tree import Path, TreeWorld, random_tree

BITS = 1 / log(2)
"""Bits in a nat."""

Part = tuple[list[Row], dict[str, Any]]
"""Rows, and the curves they come with."""

Utilities = Callable[[Path], FloatArray]
"""Several utilities of a path at once, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """What is computed."""

    limit_bits: int = 22
    """Length of the longest program in the class."""
    demonstrated_rounds: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    """k: rounds that the demonstrator shows before the event."""
    horizon: int = 4
    """Actions of the agent after the event."""
    value_share: float = 0.9
    """The value to be reached, as a share of the best there is."""
    noise: int = 4
    """The demonstrator who slips does so with probability 4^-noise."""
    noisy_rounds: int = 1000
    """What that demonstrator shows."""
    n_steps: int = 30
    """Length of the episode that is followed step by step."""
    n_utilities: int = 12
    """Random worlds with random utilities."""
    top_set_level: float = 0.05
    """alpha of the pessimistic base."""
    aim_bits: int = 9
    """Utilities of the form "this has happened": the longest event aimed at."""


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """An unprecedented event, just happened.

    ``event`` is its place among the language's events; ``here`` the class after everything up to the event; ``language``
    the class with its original weights at the same place, refuted programs included.
    """

    event: int
    here: SwitchingClass
    language: SwitchingClass

    @property
    def event_bits(self) -> int:
        """K(E)."""
        return int(self.language.programs.event_bits[self.event])


# the event, the bound, and what programs reach


def simplest_novelty(here: SwitchingClass, moves: Sequence[History]) -> tuple[int, History]:
    """The shortest event that has not happened yet and that one of ``moves`` brings about: ``(event, the move)``.

    Among events of equal length the first of the language, among moves the first. Only events that stay true count.

    Errors: :class:`~mightnt.errors.InputError` where no move brings about anything new.

    Kind: exact (a search over every event of the class). Paper: E. Cost: one look at all events for every step.
    """
    programs = here.programs
    before = here.truth(here.first)
    lasting = np.array([event.is_for_ever for event in programs.events], dtype=bool)
    found = []
    for number, move in enumerate(moves):
        tracks = here.first
        for step in move:
            tracks = here.follow(tracks, step)
        news = np.flatnonzero(here.truth(tracks) & ~before & lasting)
        found += [(int(programs.event_bits[event]), number, int(event)) for event in news]
    if not found:
        raise InputError(f"none of {len(moves)} move(s) brings about anything new that the language has a word for")
    _, number, event = min(found)
    return event, moves[number]


def surprise(language: SwitchingClass, shown: History, action: int) -> Surprise:
    """What the world can say next that is new: the simplest event, found by search, and everybody after it.

    The demonstrator's next action is ``action``; the world may say anything. Errors: where no answer brings anything new.
    """
    here = language.given(shown)
    n_observations = language.programs.alphabets.n_observations
    moves = [(Step(action, Chooser.DEMONSTRATOR), Step(o, Chooser.WORLD)) for o in range(n_observations)]
    event, move = simplest_novelty(here, moves)
    after = here.given(move)
    return Surprise(event, after, replace(language, first=after.first))


def bound_bits(found: Surprise, rho_bits: int) -> dict[str, float]:
    """What theorem 1 promises for a program rho of ``rho_bits`` bits, term by term; the sum of the terms is the bound.

    For every program nu the class holds "if E then rho else nu" at Delta = 1 + K(E) + K(rho) more bits, as far as the limit
    L on lengths allows; before E the two predict the same, so w(if E then rho else nu | h) = 2^-Delta w(nu | h), and
    xi >= 2^-Delta W rho from now on, W being the posterior of the nu of at most L - Delta bits. Hence
    KL(rho, xi) <= Delta + log2(1/W) bits: in expectation, and under the worst observations, fixed or adaptive.

    ``inf`` where no such program fits. Kind: upper bound. Paper: theorem 1 without its constants. Cost: O(n_programs).
    """
    delta = 1 + found.event_bits + rho_bits
    limit = int(found.language.programs.bits.max())
    weight = float(np.exp(found.here.log_prior[found.here.description_bits <= limit - delta]).sum())
    terms = {"the if": 1.0, "the event": float(found.event_bits), "the policy afterwards": float(rho_bits)}
    return terms | {"the limit on lengths": -log2(min(1.0, weight)) if weight > 0 else inf}


def program_values(language: SwitchingClass, world: TreeWorld, utilities: Utilities | None = None) -> FloatArray:
    """Expected utility in ``world`` of every program from where the class stands, shape (n_programs,).

    With ``utilities``, a function from paths to a row of n utilities, those instead of the world's: (n_programs, n).

    Kind: exact. Cost: one round of predictions at every node of the tree.
    """
    worth: Utilities = utilities or (lambda path: np.array([world.utility(path)]))

    def below(path: Path, state: SwitchingState) -> FloatArray:
        if world.turn(path) is None:
            return worth(path)[None]
        predictions, total = np.exp(language.log_predictions(state)), np.zeros(())
        for action in range(world.n_actions):
            acted = world.advance(path, Step(action, Chooser.AGENT))
            for observation, probability in enumerate(world.predict(acted).probabilities.tolist()):
                steps = (Step(action, Chooser.AGENT), Step(observation, Chooser.WORLD))
                tracks = language.follow(language.follow(state.tracks, steps[0]), steps[1])
                after = below(world.advance(acted, steps[1]), SwitchingState(tracks, state.log_posterior))
                total = total + probability * predictions[:, action, None] * after
        return total

    values = below(world.start(), language.start())
    return values if utilities else values[:, 0]


def shortest_that_reaches(language: SwitchingClass, values: FloatArray, value: float) -> int | None:
    """The shortest program whose value is at least ``value`` (up to rounding); ``None`` where no program's is."""
    reached = np.flatnonzero(values >= value - 1e-9)
    return int(reached[0]) if len(reached) else None


def mixture(here: SwitchingClass, evidence: Evidence = "all") -> BayesMixture:
    """The Bayes mixture over the class (which is used as any finite class is)."""
    return BayesMixture(here, evidence)


def pessimistic(here: SwitchingClass, level: float) -> Pessimistic:
    """The pessimistic base over the class."""
    return Pessimistic(here, level)


def atoms_alone(language: SwitchingClass) -> SwitchingClass:
    """The class without its ifs: simple policies only."""
    return language.only(np.flatnonzero(language.programs.atom[language.listed] != NONE))


def named(language: SwitchingClass, text: str) -> Model:
    """The program that reads ``text``, as a model from where the class stands."""
    short = (index for index in range(len(language.listed)) if language.text(index) == text)
    return language.models[next(short)]


def rounds_world(horizon: int, utility: Any) -> TreeWorld:
    """Binary actions; after each the world says 0 or 1 with equal probability."""
    return TreeWorld(2, 2, horizon, lambda path: [0.5, 0.5], utility)


def share_of_zeros(path: Path) -> float:
    """The share of actions 0."""
    return path[::2].count(0) / len(path[::2])


# the parts


def compute(config: Novelty, seed: int, report: Report) -> Computed:
    """The five parts of the chapter."""
    language = SwitchingClass.up_to(config.limit_bits)
    rows, curves = list[Row](), dict[str, Any]()
    parts = (by_rounds, term_by_term, readings, along_the_episode, aims)
    for done, part in enumerate(parts):
        more, curves[part.__name__] = part(config, seed, language)
        rows += more
        report(done + 1, len(parts))
    return Computed(tuple(rows), curves)


def by_rounds(config: Novelty, seed: int, language: SwitchingClass) -> Part:
    """The least KL that buys the value, after k rounds of a demonstrator who always plays 1 in a world that says 0."""
    world, value = rounds_world(config.horizon, share_of_zeros), config.value_share
    alone = atoms_alone(language)
    keys = ("mixture", "max_observations", "bound", "no ifs", "pessimistic", "demonstrator")
    curve: dict[str, list[float]] = {key: [] for key in keys}
    events = []
    for k in config.demonstrated_rounds:
        shown = demonstrated([1, 0] * (k - 1))
        found = surprise(language, shown, action=1)
        events.append(str(language.programs.events[found.event]))
        move = demonstrated([1, int(found.here.first[1].recent[-1])])
        rho = shortest_that_reaches(found.language, program_values(found.language, world), value)
        assert rho is not None
        bases: dict[str, Model] = {
            "mixture": mixture(found.here),
            "no ifs": mixture(alone.given(shown + move)),
            "pessimistic": pessimistic(found.here, config.top_set_level),
            "demonstrator": named(found.language, "always 1"),
        }
        for key, base in bases.items():
            curve[key].append(least_kl_nats(world, base, value) * BITS)
        worst = least_kl_nats(world, bases["mixture"], value, "max_observations")
        curve["max_observations"].append(worst * BITS)
        curve["bound"].append(sum(bound_bits(found, int(found.language.description_bits[rho])).values()))
    return rows_by_rounds(config, curve, events), {"rounds": list(config.demonstrated_rounds), "event": events, **curve}


def rows_by_rounds(config: Novelty, curve: dict[str, list[float]], events: list[str]) -> list[Row]:
    """What the first picture says in numbers."""
    first, last = config.demonstrated_rounds[0], config.demonstrated_rounds[-1]
    least, worst, bound, open_ = (curve[k] for k in ("mixture", "max_observations", "bound", "no ifs"))
    of, what = f"after {last} rounds", f'{config.value_share:g} of the reward after "{events[-1]}"'
    grown, ratio = max(least) - min(least), min(b - w for b, w in zip(bound, worst, strict=True))
    return [
        Row(f"The least KL to the mixture that buys {what}, {of}: expected", least[-1], "bits", "exact",
            how="to 1e-9", holds=least[-1] <= bound[-1]),
        Row(f"The same under the worst observations, {of}", worst[-1], "bits", "exact", how="cone program, to 1e-6",
            holds=worst[-1] <= bound[-1] + 1e-5),
        Row("What the theorem promises in this class", bound[-1], "bits", "upper bound", how="bounds the two before"),
        Row("It holds at every number of rounds; the least that is left over", ratio, "bits", "exact", holds=ratio >= -1e-5),
        Row(f"It does not grow with demonstration: largest less smallest from {first} to {last} rounds", grown, "bits",
            "exact", how="over the numbers of rounds in the picture", holds=grown < 1.0),
        Row(f"A class without ifs over the same policies: it grows; from {first} to {last} rounds by", open_[-1] - open_[0],
            "bits", "exact", how="to 1e-9", holds=bool((np.diff(open_) > 1).all())),
        Row("To the demonstrator, who never plays 0", curve["demonstrator"][-1] / BITS, "nats", "exact",
            holds=curve["demonstrator"][-1] == inf),
        Row(f"To the pessimistic base over the same class (alpha = {config.top_set_level:g})",
            curve["pessimistic"][-1] / BITS, "nats", "exact", holds=curve["pessimistic"][-1] == inf),
    ]  # fmt: skip


def noisy_surprise(config: Novelty, seed: int, language: SwitchingClass) -> tuple[Surprise, str]:
    """After a demonstrator who plays 1 and slips now and then, in a world that says 0; and the demonstrator's name."""
    rng = np.random.default_rng([seed, 1])
    slips = (rng.uniform(size=config.noisy_rounds - 1) < 4.0**-config.noise).astype(int)
    shown = demonstrated(np.column_stack([1 - slips, np.zeros_like(slips)]).ravel().tolist())
    return surprise(language, shown, action=1), f"always 1 but for 1 in {4**config.noise}"


def term_by_term(config: Novelty, seed: int, language: SwitchingClass) -> Part:
    """Random worlds and utilities: the least KL against the bound, over the values that programs reach."""
    found = surprise(language, demonstrated([1, 0] * (config.noisy_rounds - 1)), action=1)
    base, room = mixture(found.here), 64
    shortest, gaps, curve = list[float](), list[float](), dict[str, Any]()
    for number in range(config.n_utilities):
        world = random_tree(np.random.default_rng([seed, 2, number]), 2, 2, config.horizon)
        values = program_values(found.language, world)
        fits = np.array([isfinite(sum(bound_bits(found, b).values())) for b in range(room)])
        values = np.where(fits[np.minimum(found.language.description_bits, room - 1)], values, -inf)
        low, high = float(np.median(values[values > -inf])), float(values.max())
        levels, points = lay_out(world, base, world.start(), base.start()), []
        for value in np.linspace(low, high, 13).tolist():
            rho = shortest_that_reaches(found.language, values, value)
            assert rho is not None
            terms = bound_bits(found, int(found.language.description_bits[rho]))
            points.append({"value": value, "least": least_expected_kl_nats(levels, value) * BITS} | terms)
        gaps += [sum(v for k, v in p.items() if k not in ("value", "least")) - p["least"] for p in points]
        shortest.append(points[-1]["the policy afterwards"])
        curve = curve or {"points": points}
    last = curve["points"][-1]
    rows = [
        Row("Random utilities: at every value that a program reaches the bound holds; the least that is left over",
            min(gaps), "bits", "exact", how=f"{len(gaps)} values in {config.n_utilities} worlds", holds=min(gaps) >= -1e-6),
        mean_row("Random utilities: length of the shortest program that does best among those that fit", shortest, "bits",
                 "random worlds"),
    ]  # fmt: skip
    for name in ("the if", "the event", "the policy afterwards", "the limit on lengths"):
        rows.append(
            Row(f"A term of the bound at the highest value of the first world: {name}", last[name], "bits", "exact")
        )
    return rows, curve


def readings(config: Novelty, seed: int, language: SwitchingClass) -> Part:
    """One policy, four readings of its KL, to the mixture and to a demonstrator who slips."""
    found, name = noisy_surprise(config, seed, language)
    world = rounds_world(config.horizon, share_of_zeros)
    base, mu = mixture(found.here), named(found.language, name)
    budget = least_kl_nats(world, base, config.value_share)
    policy = plan_expected_kl(world, base, KLBudget(budget + 1e-9))
    rows, curve = [], {}
    for whom, model in (("the mixture", base), ("the demonstrator who slips", mu)):
        numbers = {
            "expected": kl_expected_nats(policy, model, world),
            "worst observations": kl_max_observations_nats(policy, model, 2, config.horizon),
            "worst answers": kl_adaptive_nats(policy, model, 2, config.horizon),
            "worst path": kl_pathwise_nats(policy, model, 2, config.horizon),
        }
        curve[whom] = numbers
        ordered = list(numbers.values())
        rows += [
            Row(f"The cheapest policy that reaches {config.value_share:g}, KL to {whom}: {reading}", nats * BITS, "bits",
                "exact", holds=all(a <= b + 1e-9 for a, b in pairwise(ordered)))
            for reading, nats in numbers.items()
        ]  # fmt: skip
    return rows, curve


def along_the_episode(config: Novelty, seed: int, language: SwitchingClass) -> Part:
    """An agent that plays 0 for ever after the event: what each step costs, by base."""
    found, name = noisy_surprise(config, seed, language)
    bases: dict[str, Model] = {
        "all": mixture(found.here),
        "demonstrated": mixture(found.here, "demonstrated"),
        "pessimistic": pessimistic(found.here, config.top_set_level),
        "demonstrator": named(found.language, name),
    }
    curve = {key: charges_nats(base, [0] * config.n_steps) for key, base in bases.items()}
    rest = {key: np.array(nats[2:]) for key, nats in curve.items()}
    rho = shortest_that_reaches(found.language, program_values(found.language, rounds_world(1, share_of_zeros)), 1.0)
    assert rho is not None
    bound = sum(bound_bits(found, int(found.language.description_bits[rho])).values()) / BITS
    return [
        Row(f"{config.n_steps} odd steps, KL to the mixture whose evidence is all steps", sum(curve["all"]), "nats", "exact",
            how=f"the bound is {bound:.4g} nats, for an episode of any length", holds=sum(curve["all"]) <= bound),
        Row("After two of them it is nearly free: all later steps together", float(rest["all"].sum()), "nats", "exact",
            holds=float(rest["all"].sum()) < curve["all"][0]),
        Row("Evidence of the demonstrator's steps only: it costs the same each time; largest less smallest after the second, as "
            "a share", float(np.ptp(rest["demonstrated"]) / rest["demonstrated"].mean()), "", "exact",
            holds=bool(np.ptp(rest["demonstrated"]) < 0.05 * rest["demonstrated"].mean())),
        Row("and each of these steps costs", float(rest["demonstrated"].mean()), "nats a step", "exact"),
        Row(f"{config.n_steps} odd steps, KL to the demonstrator who slips: grows with every step",
            sum(curve["demonstrator"]), "nats", "exact", holds=sum(curve["demonstrator"]) > bound),
        Row("to the pessimistic base: no less", sum(curve["pessimistic"]), "nats", "exact",
            holds=sum(curve["pessimistic"]) >= sum(curve["demonstrator"]) - 1e-9),
    ], curve  # fmt: skip


def aims(config: Novelty, seed: int, language: SwitchingClass) -> Part:
    """How many bits more than its utility a near-optimal policy takes: the utility is that an event has happened.

    The theorem describes the policy as "what is nearly optimal for U, given v and the mixture", which costs K(U) and the
    term K(v xi). Here the policy is described by itself, and the difference to K(U) is what that term amounts to.
    """
    found = surprise(language, demonstrated([1, 0] * 9), action=1)
    here, bits = found.language, found.language.programs.event_bits
    candidates = np.flatnonzero((bits <= config.aim_bits) & ~here.truth(here.first))

    def happened(path: Path) -> FloatArray:
        tracks = here.first
        for place, symbol in enumerate(path):
            tracks = here.follow(tracks, Step(symbol, Chooser.WORLD if place % 2 else Chooser.AGENT))
        return here.truth(tracks)[candidates].astype(np.float64)

    world = rounds_world(config.horizon, share_of_zeros)
    best, values = best_values(world, happened), program_values(here, world, happened)
    rows, curve, possible = list[Row](), dict[str, Any](), np.flatnonzero(best > 0)
    for share in (0.5, config.value_share, 1.0):
        shortest = [shortest_that_reaches(here, values[:, i], share * best[i]) for i in possible]
        extra = [int(here.description_bits[rho] - bits[candidates[i]])
                 for i, rho in zip(possible, shortest, strict=True) if rho is not None]  # fmt: skip
        how = f"what the term K(v xi) amounts to; mean {np.mean(extra):.2g}; {len(possible)} events of "
        how += f"at most {config.aim_bits} bits"
        missed = len(possible) - len(extra)
        claim = (
            f"Utility 1 if an event happens: bits that a policy worth {share:g} of the optimum takes beyond the event's"
        )
        how += f"; for {missed} of them no program of at most {config.limit_bits} bits does it" if missed else ""
        rows.append(Row(f"{claim}, at most", max(extra), "bits", "lower bound" if missed else "exact", how=how))
        curve[f"{share:g}"] = extra
    return rows, curve


def best_values(world: TreeWorld, utilities: Utilities) -> FloatArray:
    """The highest expected utility of any policy, for each of several utilities; shape (n,)."""

    def below(path: Path) -> FloatArray:
        turn = world.turn(path)
        if turn is None:
            return utilities(path)
        size = world.n_actions if turn is Chooser.AGENT else world.n_observations
        after = np.stack([below(world.advance(path, Step(symbol, turn))) for symbol in range(size)])
        return np.asarray(after.max(axis=0) if turn is Chooser.AGENT else world.predict(path).probabilities @ after)

    return below(world.start())


THEOREM = Theorem(
    name="T1",
    title="Little constraint in novel situations",
    says=(
        "A Bayesian imitator holds, beside every account of its demonstrator, the account that agrees with it until something "
        "unprecedented happens and then does whatever you like. No demonstration can tell the two apart before the event, so "
        "the second stays as likely, against the first, as it was at the start. Once the event has happened any simple "
        "behavior is therefore cheap, at a price in bits that does not depend on how much was demonstrated: the length of the "
        "event, of the behavior, and one if. Here the class is every program of a small language up to a length, so the least "
        "KL is computed exactly and stands beside the bound, term by term. The event is not chosen by hand: it is the shortest "
        "in the language that has not happened yet and that the world can bring about next. Language, numbers and the "
        "comparison with a pessimistic base are ours."
    ),
    profiles={
        "quick": Novelty(limit_bits=18, demonstrated_rounds=(10, 100, 1000), horizon=3, n_utilities=2, n_steps=12),
        "default": Novelty(),
    },
    compute=compute,
    draw=panels,
)
