"""The experiment in the chat world: imitators of a known demonstrator, protected RL on each base, everything measured.

What is reproduced: a KL leash to a Bayesian imitator is kept to the letter while the agent goes far from the demonstrator;
a leash to what the demonstrator might do keeps it near (arXiv:2410.06213).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mightnt.errors import InputError
from mightnt.experiments.authors import AUTHORS, CHAT
from mightnt.experiments.authors import chat_tokenizer as chat_tokenizer
from mightnt.experiments.parts import Part, Report, open_folder, run_parts
from mightnt.files import read_json, write_json
from mightnt.provenance import provenance
from mightnt.watching import Watcher
from mightnt.worlds.chat.corpus import N_ROUNDS

BASES = ("none", "single", "mixture", "pessimistic", "situations", "known")
"""Compared by default, in this order."""
REWARDS = ("benign", "adversarial", "harmless")
"""What a turn can be paid for: the student's mood, surprising the demonstrator, naming a shape."""
CONTEXT_PER_ROUND = 32
"""Tokens of a network's context for each round of a dialogue, above the longest that a round can be."""
USUAL = {"rounds": N_ROUNDS, "world": CHAT}
"""What folders and records do not say where it is so."""


@dataclass(frozen=True)
class ChatProfile:
    """How big the experiment is. Everything else is the same in all profiles."""

    name: str = "default"
    n_demonstrations: tuple[int, ...] = (1000,)
    """Dialogues of the demonstrator; one set of imitators for each."""
    bases: tuple[str, ...] = BASES
    seeds: int = 3
    """Runs of every cell; they differ in actor and episodes and share the imitators."""
    budget_nats: float = 10.0
    """KL to the base that an episode may spend."""
    asking: str = "charged"
    """Which account; see ``lm.account``."""
    iterations: int = 30
    """Rounds of reinforcement learning."""
    episodes: int = 64
    """Episodes a round."""
    passes: int = 3
    """Passes of learning over a round."""
    evaluation_episodes: int = 500
    """Fresh episodes every number is measured on."""
    n_networks: int = 2
    """Networks in the mixture."""
    other_chats: int = 6000
    """Chats of other authors to pre-train on."""
    pretraining_steps: int = 600
    """Updates of pre-training, 16 chats each."""
    fitting_steps: int = 400
    """Updates on 1000 demonstrations; grows with the square root of their number."""
    rounds: int = N_ROUNDS
    """Turns of the teacher in a chat: in those to learn from and in those played."""
    world: str = CHAT
    """Whose imitators are made; one of ``experiments.authors.AUTHORS``. Only the chat is played here."""


PROFILES = {
    "quick": ChatProfile(
        "quick",
        (300,),
        seeds=1,
        iterations=8,
        evaluation_episodes=100,
        other_chats=1000,
        pretraining_steps=150,
        fitting_steps=120,
    ),
    "default": ChatProfile(),
    "full": ChatProfile(
        "full", (1000, 10000), bases=(*BASES, "pessimistic-minimum"), seeds=5, iterations=60, evaluation_episodes=1000
    ),
}


def named_profile(name: str, n_demonstrations: int = 0, bases: str = "") -> ChatProfile:
    """The profile of this name, with another number of demonstrations or other bases (comma-separated) where given.

    Raises :class:`~mightnt.errors.InputError` for an unknown name, with those there are.
    """
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}; allowed are {', '.join(PROFILES)}")
    profile, allowed = PROFILES[name], PROFILES["full"].bases
    chosen = tuple(dict.fromkeys(bases.split(","))) if bases else profile.bases
    unknown = [base for base in chosen if base not in allowed]
    if unknown:
        raise InputError(f"unknown base {unknown[0]!r}; allowed are {', '.join(allowed)}")
    return replace(
        profile, n_demonstrations=(n_demonstrations,) if n_demonstrations else profile.n_demonstrations, bases=chosen
    )


def reproduce(
    folder: Path, profile: ChatProfile, seed: int, watcher: Watcher, resume: bool = False, workers: int = 2
) -> dict[str, Any]:
    """Run what is missing and write ``folder/results.json``; returns its content.

    Cost: see bench/README.md. Memory: about 0.7 GiB a worker.
    """
    open_folder(folder, {"experiment": "chat", "seed": seed, **settings(profile)}, resume)
    collected: dict[str, Any] = {}
    for stage in stages(folder, profile, seed):
        collected |= run_parts(stage, folder, watcher, workers)
    results = assemble(collected, profile, seed)
    write_json(folder / "results.json", results)
    return results


def settings(profile: ChatProfile) -> dict[str, Any]:
    """The profile as folders and records keep it: without length and world of a chat where they are the usual ones."""
    return {name: value for name, value in asdict(profile).items() if (name, value) not in USUAL.items()}


def stages(folder: Path, profile: ChatProfile, seed: int) -> Iterator[list[Part]]:
    """The parts, in stages: each stage needs the ones before."""
    networks = range(profile.n_networks)
    yield [Part(f"pretrain-{i}", pretrain, (folder, profile, seed, i)) for i in networks]
    yield [
        Part(f"fit-n{n}-{i}", fit_one, (folder, profile, seed, n, i))
        for n in profile.n_demonstrations
        for i in networks
    ]
    yield [Part(f"imitators-n{n}", gather, (folder, profile, seed, n)) for n in profile.n_demonstrations]
    yield [
        *(
            Part(f"base-n{n}-{base}", measure, (folder, profile, seed, n, base))
            for n in profile.n_demonstrations
            for base in standing(profile)
        ),
        *(
            Part(f"run-n{n}-{base}-seed{s}", train, (folder, profile, seed, n, base, s))
            for n in profile.n_demonstrations
            for s in range(profile.seeds)
            for base in profile.bases
        ),
    ]


def standing(profile: ChatProfile) -> list[str]:
    """What is measured without reinforcement learning: the bases compared, and each member alone."""
    members = [f"network-{i}" for i in range(profile.n_networks)]
    return [*(base for base in profile.bases if base not in ("none", "single")), *members, "counts"]


def assemble(collected: dict[str, Any], profile: ChatProfile, seed: int) -> dict[str, Any]:
    """``results.json``: the schema is in ``audits.results``."""
    alone = [part for name, part in collected.items() if name.startswith("base-")]
    known = next((part for part in alone if part["name"] == "known"), None)
    gaps = {(part["n_demonstrations"], part["name"]): part["kl_base_demonstrator_nats"] for part in alone}
    members = [row for name, part in collected.items() if name.startswith("imitators-") for row in part["members"]]
    return {
        "kind": "mightnt results",
        "version": 1,
        "provenance": provenance(seed, settings(profile)),
        "profile": profile.name,
        "headline": {"budget_nats": profile.budget_nats, "n_demonstrations": profile.n_demonstrations[-1]},
        "demonstrator": known
        and {**{key: known[key] for key in ("proxy_reward", "true_utility")}, "episodes": known["proxy_reward"]["n"]},
        "imitators": [{**row, "gap_nats": gaps.get((row["n_demonstrations"], row["name"]))} for row in members],
        "bases": [
            {**part, "name": "single" if part["name"] == "network-0" else part["name"]}
            for part in alone
            if part["name"] != "counts" and not part["name"].startswith("network-1")
        ],
        "runs": [part for name, part in collected.items() if name.startswith("run-")],
        "seconds_by_part": {name: part.get("seconds") for name, part in collected.items()},
    }


# The parts. Each runs in a process of its own; torch is imported there and nowhere else.


def pretrain(folder: Path, profile: ChatProfile, seed: int, i: int, report: Report) -> dict[str, Any]:
    """A network that has learnt from other authors, saved in ``folder/pretrained-i``."""
    from mightnt.lm.fitting import FitConfig, fit
    from mightnt.lm.networks import NetworkShape, build_network, save_network
    from mightnt.lm.tokens import encode

    config, authors = FitConfig(steps=profile.pretraining_steps), AUTHORS[profile.world]
    tokenizer = authors.tokenizer()
    corpus = encode(tokenizer, authors.others(profile.other_chats, seed, profile.rounds))
    shape = NetworkShape(context=CONTEXT_PER_ROUND * profile.rounds)
    network = build_network(shape, len(tokenizer), seed + i)
    kept = fit(network, corpus, config, seed + i, on_step=lambda step, _: report(step, config.steps))
    save_network(network, folder / f"pretrained-{i}")
    return {"seconds": kept.seconds, "nats_per_token": kept.losses_nats_per_token[-1]}


def fit_one(folder: Path, profile: ChatProfile, seed: int, n: int, i: int, report: Report) -> dict[str, Any]:
    """That network fitted on to ``n`` demonstrations, saved in ``folder/fitted-n-i``."""
    from mightnt.lm.fitting import FitConfig, fit
    from mightnt.lm.networks import load_network, save_network
    from mightnt.lm.tokens import encode

    authors = AUTHORS[profile.world]
    config = FitConfig(steps=fitting_steps(profile, n), **authors.fitting)
    network = load_network(folder / f"pretrained-{i}")
    fitted, _ = shared_split(profile, n, seed)
    corpus = encode(authors.tokenizer(), authors.to_fit(fitted, seed, profile.rounds))
    kept = fit(network, corpus, config, seed + i, on_step=lambda step, _: report(step, config.steps))
    save_network(network, folder / f"fitted-{n}-{i}")
    return {"seconds": kept.seconds, "nats_per_token": kept.losses_nats_per_token[-1]}


def gather(folder: Path, profile: ChatProfile, seed: int, n: int, report: Report) -> dict[str, Any]:
    """Networks and counts calibrated on the held-out demonstrations, saved in ``folder/imitators-n``."""
    from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts, save_imitators
    from mightnt.lm.networks import load_network

    config = ImitatorsConfig()
    tokenizer = AUTHORS[profile.world].tokenizer()
    fitted, held_out = shared_split(profile, n, seed)
    networks = [load_network(folder / f"fitted-{n}-{i}") for i in range(profile.n_networks)]
    counts = fit_suffix_counts(tokenizer, fitted, config)
    imitators = calibrate(tokenizer, networks, counts, fitted, held_out, config)
    save_imitators(imitators, folder / f"imitators-{n}", settings(profile), seed)
    seconds = [read_json(folder / "parts" / f"fit-n{n}-{i}.json")["seconds"] for i in range(profile.n_networks)]
    rows = [
        {**row, "n_demonstrations": n, "seconds": took}
        for row, took in zip(imitators.summary["members"], [*seconds, 0.0, 0.0], strict=True)
    ]
    return {**imitators.summary, "members": rows}


def measure(folder: Path, profile: ChatProfile, seed: int, n: int, base: str, report: Report) -> dict[str, Any]:
    """The base itself as policy, without reinforcement learning."""
    from mightnt.lm.imitators import load_imitators
    from mightnt.lm.run import measure_base
    from mightnt.lm.scenes import ChatScene

    imitators = load_imitators(folder / f"imitators-{n}")
    return measure_base(imitators, ChatScene(rounds=profile.rounds), base, profile.evaluation_episodes, seed)


def train(folder: Path, profile: ChatProfile, seed: int, n: int, base: str, s: int, report: Report) -> dict[str, Any]:
    """One run of protected reinforcement learning, measured on fresh episodes."""
    from mightnt.lm.account import Account
    from mightnt.lm.imitators import load_imitators
    from mightnt.lm.protect import ProtectConfig
    from mightnt.lm.run import RunConfig, run
    from mightnt.lm.scenes import ChatScene

    if profile.asking not in ("floor", "charged"):
        raise InputError(f"asking {profile.asking!r}; allowed are floor, charged")
    imitators = load_imitators(folder / f"imitators-{n}")
    training = ProtectConfig(iterations=profile.iterations, episodes=profile.episodes, passes=profile.passes)
    account = Account(profile.budget_nats, "floor" if profile.asking == "floor" else "charged")
    config = RunConfig(base, account, training, profile.evaluation_episodes)
    record, _ = run(
        imitators,
        ChatScene(rounds=profile.rounds),
        config,
        seed + s,
        on_iteration=lambda training: report(len(training.log), profile.iterations),
    )
    return {**record, "seed": s}


def scene_for(reward: str, rounds: int = N_ROUNDS) -> Any:
    """The chat of this length, paid for this (one of ``REWARDS``); its reward lies in [0, 1].

    Raises :class:`~mightnt.errors.InputError` for an unknown reward, with those there are.
    """
    from mightnt.lm.adversary import AdversarialScene
    from mightnt.lm.scenes import ChatScene, HarmlessScene

    if reward not in REWARDS:
        raise InputError(f"unknown reward {reward!r}; allowed are {', '.join(REWARDS)}")
    scene = dict(zip(REWARDS, (ChatScene, AdversarialScene, HarmlessScene), strict=True))[reward]
    return scene(rounds=rounds)


def fitting_steps(profile: ChatProfile, n: int) -> int:
    """Updates on ``n`` demonstrations."""
    return int(profile.fitting_steps * max(1.0, (n / 1000) ** 0.5))


def shared_split(profile: ChatProfile, n: int, seed: int) -> Any:
    """``(to fit, held out)`` of ``n`` demonstrations: the same for all members."""
    from mightnt.dialogues import split_dialogues

    return split_dialogues(AUTHORS[profile.world].demonstrations(n, seed, profile.rounds), 0.1, seed)
