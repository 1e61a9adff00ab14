"""Every base worth comparing, by name: who is read, how it is combined, what it promises and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mightnt.errors import InputError
from mightnt.lm.bases.contract import Base
from mightnt.lm.bases.laplace import laplace
from mightnt.lm.bases.lower_bound import lower_counts
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.slack import Slack
from mightnt.lm.bases.trajectory import Trajectory
from mightnt.lm.bases.turn import Turn
from mightnt.lm.bases.worst_case import worst_case
from mightnt.lm.further import Further, with_further
from mightnt.lm.imitators import Imitators
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember
from mightnt.models.counts import SuffixCounts


@dataclass(frozen=True)
class Candidate:
    """One way to stay within what the demonstrator might do."""

    name: str
    build: Callable[[Imitators], tuple[Members, Base]]
    """Fresh members and the base over them; may fit what it needs to the demonstrations first."""
    forward_passes: float
    """Passes of a network the size of the first a token; table look-ups count nothing."""
    promise: str
    """What holds by construction, and under which assumption, in one sentence."""


def named(name: str) -> Callable[[Imitators], tuple[Members, Base]]:
    """A base that every set of imitators has."""
    return lambda imitators: (imitators.members(name), imitators.base(name))


def over(
    base: Callable[[Imitators], Base],
    counts: Callable[[Imitators], SuffixCounts | None] = lambda imitators: imitators.counts,
    n_networks: int | None = 1,
) -> Callable[[Imitators], tuple[Members, Base]]:
    """A base over the first few networks (``None``: all) and these counts."""

    def build(imitators: Imitators) -> tuple[Members, Base]:
        networks = [NetworkMember(network) for network in imitators.networks[:n_networks]]
        return Members(networks, imitators.counts.is_action, counts(imitators)), base(imitators)

    return build


def no_counts(imitators: Imitators) -> None:
    """Networks only."""


def everybody(imitators: Imitators) -> Trajectory:
    """The minimum of whole episodes over all networks and the counts."""
    return Trajectory(len(imitators.networks) + 1)


def minimum_with(kind: Further) -> Callable[[Imitators], tuple[Members, Base]]:
    """The minimum over the first network, a further one of this kind, and the counts."""
    return lambda imitators: (with_further(imitators, [kind]), Slack(0.0, kind))


NOTHING = "KL(pi, base) <= B, which says nothing of KL(pi, mu)."

CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("single", named("single"), 1, NOTHING),
        Candidate("mixture", named("mixture"), 2, NOTHING),
        Candidate("mixture-fixed", named("mixture-fixed"), 2, NOTHING),
        Candidate("counts", named("counts"), 1, NOTHING),
        Candidate(
            "pessimistic-minimum",
            named("pessimistic-minimum"),
            1,
            "KL(pi, mu) <= B wherever the demonstrator lies above the lower of network and counts.",
        ),
        Candidate(
            "pessimistic",
            named("pessimistic"),
            1,
            "KL(pi, P) <= B + log c an episode, P the count member; KL(pi, mu) as far as P lies below mu on the policy's path.",
        ),
        Candidate(
            "situations",
            named("situations"),
            1,
            "KL(pi, P) <= B + log c an episode, P the counts of situations; KL(pi, mu) as far as P lies below mu on its path.",
        ),
        Candidate(
            "ensemble",
            over(lambda imitators: Slack(0.0, "ensemble"), no_counts, None),
            2,
            "KL(pi, mu) <= B wherever mu lies above the lowest of the networks, which share what they learnt from others.",
        ),
        Candidate(
            "heterogeneous",
            over(lambda imitators: Slack(0.0, "heterogeneous"), n_networks=None),
            2,
            "KL(pi, mu) <= B wherever mu lies above the lowest of the networks and the counts.",
        ),
        Candidate(
            "slack",
            over(lambda imitators: Slack(imitators.log_cap_nats), n_networks=None),
            2,
            "KL(pi, mu) <= B + (own tokens) log c wherever mu lies above the lowest of the networks and the counts.",
        ),
        Candidate(
            "trajectory",
            over(everybody, n_networks=None),
            2,
            "KL(pi, mu) <= B if no episode's own tokens are less likely under mu than under all networks and the counts.",
        ),
        Candidate(
            "turn",
            over(lambda imitators: Turn(everybody(imitators), imitators.marks.end), n_networks=None),
            2,
            "KL(pi, mu) <= B if no turn's own tokens are less likely under mu than under all networks and the counts.",
        ),
        Candidate(
            "lower-bound",
            over(lambda imitators: Minimum("lower-bound"), lambda imitators: lower_counts(imitators.counts)),
            1,
            "KL(pi, mu) <= B where mu depends on the deciding suffix alone and its bounds hold (each but for a chance of 5%).",
        ),
        Candidate(
            "laplace",
            over(laplace, no_counts),
            1,
            "KL(pi, mu) <= B wherever mu lies above a Gaussian 95% bound that knows the output layer's doubts alone.",
        ),
        Candidate(
            "demonstrations-only",
            minimum_with("demonstrations-only"),
            2,
            "KL(pi, mu) <= B wherever mu lies above the lowest of network, counts and a network that knows nobody else.",
        ),
        Candidate(
            "limited-context",
            minimum_with("limited-context"),
            9,
            "KL(pi, mu) <= B wherever mu lies above the lowest of network, counts and a network that sees 8 tokens.",
        ),
        Candidate(
            "turn-local",
            minimum_with("turn-local"),
            14,
            "KL(pi, mu) <= B wherever mu lies above the lowest of network, counts and a network that sees no earlier own turn.",
        ),
        Candidate(
            "worst-case",
            over(worst_case, no_counts),
            1,
            "KL(pi, mu) <= B wherever mu lies above the lower of network and the worst output layer that a search found.",
        ),
        Candidate(
            "worst-case-counts",
            over(worst_case),
            1,
            "KL(pi, mu) <= B wherever mu lies above the lowest of network, counts and the worst output layer found.",
        ),
        Candidate("known", named("known"), 1, "KL(pi, mu) <= B: the oracle."),
    )
}
"""In the order of the table."""


def candidate(name: str) -> Candidate:
    """The candidate of this name.

    Raises :class:`~mightnt.errors.InputError` for an unknown name, with those there are.
    """
    if name not in CANDIDATES:
        raise InputError(f"unknown base {name!r}; allowed are {', '.join(CANDIDATES)}")
    return CANDIDATES[name]
