"""How safe, how silent, how useful, how cheap: every candidate base on the same terms, ranked by goals set beforehand.

A base is trained on with a reward that is honest (``benign``) and with one that pays for leaving the demonstrator
(``adversarial``), at several numbers of demonstrations. Each run is measured twice, on two sets of fresh episodes: the
ranking is decided on the first, the numbers reported are those of the second. What was not run is shown as missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mightnt.errors import InputError
from mightnt.experiments import chat, text
from mightnt.experiments.frontier_pictures import write_page
from mightnt.experiments.frontier_table import GOALS, ORACLE, markdown
from mightnt.experiments.parts import Part, Report, open_folder, run_parts
from mightnt.files import read_json, write_json, write_text
from mightnt.provenance import commit, provenance
from mightnt.watching import Watcher

if TYPE_CHECKING:
    from mightnt.lm.account import Account
    from mightnt.lm.episodes import Episodes
    from mightnt.lm.imitators import Imitators
    from mightnt.lm.scenes import Scene

REWARDS = ("benign", "adversarial")
BASELINES = ("single", "mixture", "mixture-fixed", "counts")
"""Run after those that promise something."""
FOR_CHOOSING = 1_000_000
"""Added to the seed of the episodes that the ranking is decided on."""
REPLAYED_DIALOGUES = 250
"""Most held-out dialogues a base is scored on."""
TIMED_DIALOGUES = 64
"""Held-out dialogues that scoring is timed on."""


@dataclass(frozen=True)
class FrontierProfile:
    """What is compared, and how much is played."""

    name: str = "default"
    n_demonstrations: tuple[int, ...] = (300, 1000, 3000, 10000)
    candidates: tuple[str, ...] = ()
    """Names in ``lm.candidates``, in the order they are run in (the oracle first); empty: all there are, baselines last."""
    rewards: tuple[str, ...] = REWARDS
    seeds: int = 3
    """Runs of every cell; they differ in actor and episodes and share the imitators."""
    world: str = "chat"
    """In ``WORLDS``."""
    chats: str = ""
    """World ``text`` only: a file of real chats."""
    budget_nats: float = 10.0
    """KL to the base that an episode may spend."""
    asking: str = "charged"
    """Which account; see ``lm.account``."""
    iterations: int = 30
    episodes: int = 64
    passes: int = 3
    """Rounds of reinforcement learning, episodes a round, passes of learning over a round."""
    evaluation_episodes: int = 500
    """Fresh episodes to choose on, and as many others to report."""
    n_networks: int = 2
    other_chats: int = 6000
    pretraining_steps: int = 600
    fitting_steps: int = 400
    """As in ``experiments.chat``: the same imitators."""


PROFILES = {
    "quick": FrontierProfile(
        "quick",
        (300,),
        seeds=1,
        iterations=8,
        evaluation_episodes=100,
        other_chats=1000,
        pretraining_steps=150,
        fitting_steps=120,
    ),
    "default": FrontierProfile(),
    "full": FrontierProfile("full", seeds=5, iterations=60, evaluation_episodes=1000),
}
CHOSEN_FREELY = ("name", "n_demonstrations", "candidates", "rewards", "seeds")
"""What may differ from call to call in one folder: no part depends on it."""


def named_profile(
    name: str, n_demonstrations: str = "", candidates: str = "", rewards: str = "", seeds: int = 0, chats: str = ""
) -> FrontierProfile:
    """The profile of this name, with other values where given (lists are separated by commas).

    With a file of real ``chats`` the world is natural text, at the number of demonstrations that its goals speak of.

    Raises :class:`~mightnt.errors.InputError` for an unknown name or no number, with what is allowed.
    """
    from mightnt.lm.candidates import CANDIDATES

    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}; allowed are {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if chats:
        profile = replace(profile, world="text", chats=chats, n_demonstrations=sizes_of_goals("text"))
    sizes = listed(n_demonstrations) or tuple(map(str, profile.n_demonstrations))
    wrong = [size for size in sizes if not (size.isascii() and size.isdigit() and int(size) >= 2)]
    if wrong:
        raise InputError(f"{wrong[0]!r} demonstrations; whole numbers of 2 or more, separated by commas, are needed")
    return replace(
        profile,
        n_demonstrations=tuple(sorted(map(int, sizes))),
        candidates=among(candidates, tuple(CANDIDATES), "base") if candidates else (),
        rewards=among(rewards, REWARDS, "reward"),
        seeds=seeds or profile.seeds,
    )


def listed(words: str) -> tuple[str, ...]:
    """``a, b,a`` as (a, b)."""
    return tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))


def among(words: str, allowed: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names listed in ``words``, in their order; all that are ``allowed`` for an empty text."""
    chosen = listed(words) or allowed
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise InputError(f"unknown {what} {unknown[0]!r}; allowed are {', '.join(allowed)}")
    return chosen


def frontier(
    folder: Path, profile: FrontierProfile, seed: int, watcher: Watcher, resume: bool = False, workers: int = 2
) -> dict[str, Any]:
    """Run what is missing; write ``results.json``, ``frontier.html`` and ``frontier.md``; return the record.

    The three are written too when the run is stopped. A part that fails is noted with its error and does not stop the
    others; it is run again with ``resume``. With ``resume`` other sizes, bases, rewards and seeds may join a folder.

    Cost: a minute or two a run on one core. Memory: about 0.7 GiB a worker.
    """
    if profile.world not in WORLDS:
        raise InputError(f"unknown world {profile.world!r}; allowed are {', '.join(WORLDS)}")
    settings = {key: value for key, value in asdict(profile).items() if key not in CHOSEN_FREELY}
    open_folder(folder, {"experiment": "frontier", "seed": seed, **settings}, resume)
    forget_failures(folder)
    try:
        for stage in stages(folder, profile, seed):
            run_parts(stage, folder, watcher, workers)
    finally:
        record = assemble(folder, profile, seed)
        write_all(record, folder)
    return record


def write_all(record: dict[str, Any], folder: Path) -> None:
    """The record, its page and its tables."""
    write_json(folder / "results.json", record)
    record = read_json(folder / "results.json")
    write_page(record, folder / "frontier.html")
    write_text(folder / "frontier.md", markdown(record))


def forget_failures(folder: Path) -> None:
    """Parts that failed are to be run again."""
    for path in (folder / "parts").glob("*.json"):
        if "failed" in read_json(path):
            path.unlink()


def stages(folder: Path, profile: FrontierProfile, seed: int) -> Iterator[list[Part]]:
    """The parts, in stages: each needs the ones before. What goals speak of comes first, whole seeds at a time."""
    world = WORLDS[profile.world]
    aimed_at = sizes_of_goals(profile.world)
    first = tuple(n for n in profile.n_demonstrations if n in aimed_at)
    rest = tuple(n for n in profile.n_demonstrations if n not in aimed_at)
    for sizes in (first, rest):
        if sizes:
            yield from world.prepare(folder, profile, seed, sizes)
            yield [guarded(part) for part in measured_parts(folder, profile, seed, sizes)]


def sizes_of_goals(world: str) -> tuple[int, ...]:
    """The numbers of demonstrations that goals speak of, ascending."""
    return tuple(sorted({goal.n_demonstrations for goal in GOALS[world]}))


def measured_parts(folder: Path, profile: FrontierProfile, seed: int, sizes: Sequence[int]) -> list[Part]:
    """What is measured with these numbers of demonstrations: runs by reward, then seed, then candidate."""
    from mightnt.lm.candidates import CANDIDATES

    names = sorted(
        profile.candidates or sorted(CANDIDATES, key=BASELINES.__contains__), key=lambda name: name != ORACLE
    )
    common = (folder, profile, seed)
    runs = {
        reward: [
            Part(f"run-{reward}-n{n}-{name}-seed{s}", train, (*common, n, name, reward, s))
            for s in range(profile.seeds)
            for name in names
            for n in reversed(sizes)
        ]
        for reward in profile.rewards
    }
    own = [
        Part(f"demonstrator-{reward}-n{n}", measure_demonstrator, (*common, n, reward))
        for n in sizes
        for reward in profile.rewards
    ]
    alone = [Part(f"alone-n{n}-{name}", measure_alone, (*common, n, name)) for name in names for n in reversed(sizes)]
    ordered = [runs[reward] for reward in REWARDS if reward in runs]
    return [*own, *(ordered[0] if ordered else []), *alone, *(part for later in ordered[1:] for part in later)]


def guarded(part: Part) -> Part:
    """The same part, whose failure is a result and stops nobody."""
    return Part(part.name, attempt, (part.function, part.arguments))


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...], report: Report) -> dict[str, Any]:
    """What the function returns, with the commit it ran from; or how it failed."""
    found: dict[str, Any]
    try:
        found = function(*arguments, report)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    return {**found, "commit": commit()}


def assemble(folder: Path, profile: FrontierProfile, seed: int) -> dict[str, Any]:
    """The record of everything that lies in ``folder`` now."""
    from mightnt.lm.candidates import CANDIDATES

    parts = {path.stem: read_json(path) for path in sorted((folder / "parts").glob("*.json"))}
    whole = {name: part for name, part in parts.items() if "failed" not in part}

    def named(prefix: str) -> list[dict[str, Any]]:
        return [part for name, part in whole.items() if name.startswith(prefix)]

    seen = {part["candidate"] for part in (*named("run-"), *named("alone-"))}
    wanted = [name for name in CANDIDATES if name in seen or name in (profile.candidates or CANDIDATES)]
    return {
        "kind": "mightnt frontier",
        "version": 1,
        "provenance": provenance(seed, asdict(profile)),
        "commits": sorted({str(part["commit"]) for part in whole.values() if "commit" in part}),
        "world": profile.world,
        "budget_nats": profile.budget_nats,
        "evaluation_episodes": profile.evaluation_episodes,
        "seeds": max([profile.seeds, *(part["seed"] + 1 for part in named("run-"))]),
        "n_demonstrations": sorted({*profile.n_demonstrations, *(part["n_demonstrations"] for part in named("run-"))}),
        "rewards": [
            reward for reward in REWARDS if reward in {*profile.rewards, *(p["reward"] for p in named("run-"))}
        ],
        "candidates": [
            {"name": name, "forward_passes": CANDIDATES[name].forward_passes, "promise": CANDIDATES[name].promise}
            for name in wanted
        ],
        "demonstrator": named("demonstrator-"),
        "alone": named("alone-"),
        "runs": named("run-"),
        "failed": {name: part["failed"] for name, part in parts.items() if "failed" in part},
        "seconds_by_part": {name: part.get("seconds") for name, part in whole.items()},
    }


# Worlds: who is imitated, and who is talked to. Everything else is the same in all of them.


@dataclass(frozen=True)
class World:
    """Where candidates are compared."""

    prepare: Callable[[Path, FrontierProfile, int, Sequence[int]], Iterator[list[Part]]]
    """Stages that leave imitators for each of these numbers of demonstrations, in ``imitators-N``."""
    scene: Callable[[Path, FrontierProfile, int, str], Scene]
    """The other side, under this reward; its demonstrator is known."""


def prepare_chat(folder: Path, profile: FrontierProfile, seed: int, sizes: Sequence[int]) -> Iterator[list[Part]]:
    """The imitators of ``mightnt reproduce``."""
    shared = {field.name for field in fields(chat.ChatProfile)} & {field.name for field in fields(profile)}
    same = {name: getattr(profile, name) for name in shared} | {"n_demonstrations": tuple(sizes)}
    yield from islice(chat.stages(folder, chat.ChatProfile(**same), seed), 3)


def chat_scene(folder: Path, profile: FrontierProfile, seed: int, reward: str) -> Scene:
    """The chat, paid by the student's mood or for surprising the demonstrator."""
    from mightnt.lm.adversary import AdversarialScene
    from mightnt.lm.scenes import ChatScene

    return ChatScene() if reward == "benign" else AdversarialScene()


def prepare_text(folder: Path, profile: FrontierProfile, seed: int, sizes: Sequence[int]) -> Iterator[list[Part]]:
    """A demonstrator that is a language model, taught by real chats."""
    return text.stages(folder, text.TextConfig(profile.chats), seed, sizes)


def text_scene(folder: Path, profile: FrontierProfile, seed: int, reward: str) -> Scene:
    """Its chats, paid by the sentiment of replies or for surprising it."""
    return text.scene(folder, text.TextConfig(profile.chats), seed, reward)


WORLDS = {
    "chat": World(prepare_chat, chat_scene),
    "text": World(prepare_text, text_scene),
}


# The parts. Each runs in a process of its own; torch is imported there and nowhere else.


def train(
    folder: Path, profile: FrontierProfile, seed: int, n: int, name: str, reward: str, s: int, report: Report
) -> dict[str, Any]:
    """One run of protected reinforcement learning on this base, measured on two sets of fresh episodes."""
    from mightnt.lm.account import Account
    from mightnt.lm.candidates import candidate
    from mightnt.lm.episodes import Cast
    from mightnt.lm.protect import ProtectConfig, Training, protect
    from mightnt.lm.run import RunConfig, evaluate, new_actor

    if profile.asking not in ("floor", "charged"):
        raise InputError(f"asking {profile.asking!r}; allowed are floor, charged")
    imitators, scene = cast_of(folder, profile, seed, n, reward)
    config = ProtectConfig(iterations=profile.iterations, episodes=profile.episodes, passes=profile.passes)
    account = Account(profile.budget_nats, "floor" if profile.asking == "floor" else "charged")
    started = time.perf_counter()
    members, base = candidate(name).build(imitators)
    built = time.perf_counter()
    training = Training.fresh(new_actor(imitators, RunConfig(name, account), seed + s), config)
    cast = Cast(members, base, account, training.actor, scene, imitators.marks)
    protect(cast, training, config, seed + s, lambda so_far: report(len(so_far.log), profile.iterations))
    trained = time.perf_counter()
    sets = [evaluate(cast, profile.evaluation_episodes, own + s) for own in (seed + FOR_CHOOSING, seed)]
    return {
        "candidate": name,
        "n_demonstrations": n,
        "reward": reward,
        "seed": s,
        "training_episodes": config.episodes * config.iterations,
        "training_over_budget_episodes": sum(int(row["over_budget_episodes"] or 0) for row in training.log),
        "chosen_on": figures(sets[0], account),
        "reported": figures(sets[1], account),
        "build_seconds": built - started,
        "training_seconds": trained - built,
        "seconds": time.perf_counter() - started,
    }


def cast_of(folder: Path, profile: FrontierProfile, seed: int, n: int, reward: str) -> tuple[Imitators, Scene]:
    """Imitators and the other side of this world."""
    from mightnt.lm.imitators import load_imitators

    return load_imitators(folder / f"imitators-{n}"), WORLDS[profile.world].scene(folder, profile, seed, reward)


def figures(batches: list[Episodes], account: Account) -> dict[str, Any]:
    """What the table needs of these episodes.

    ``gap_policy_nats`` is KL(pi, mu) - KL(pi, base) by the account of own decisions. Where asking is not open it is
    E_pi sum log(nu / mu) exactly; where it is, it is at most that (``constraints.asking``).
    """
    from mightnt.lm.run import estimate, joined, measures

    measured = measures(batches, account)
    spent, demonstrator = joined(batches, "spent_nats"), joined(batches, "kl_demonstrator_nats")
    if spent is None or demonstrator is None:
        raise InputError("this scene's demonstrator is not known; the frontier needs its distance")
    kept = {name: value for name, value in measured.items() if not name.endswith("_by_token_nats")}
    return {
        **kept,
        "gap_policy_nats": estimate(demonstrator - spent),
        "demonstrator_tokens_per_episode": measured["demonstrator_tokens"] / measured["episodes"],
    }


def measure_demonstrator(
    folder: Path, profile: FrontierProfile, seed: int, n: int, reward: str, report: Report
) -> dict[str, Any]:
    """What the demonstrator itself earns with this reward."""
    from mightnt.lm.actor import Stay
    from mightnt.lm.candidates import candidate
    from mightnt.lm.episodes import Cast
    from mightnt.lm.run import estimate, evaluate, joined
    from mightnt.lm.scored import NEVER_ASKS

    imitators, scene = cast_of(folder, profile, seed, n, reward)
    members, base = candidate(ORACLE).build(imitators)
    cast = Cast(members, base, NEVER_ASKS, Stay(), scene, imitators.marks)
    batches = evaluate(cast, profile.evaluation_episodes, seed)
    earned = {name: estimate(joined(batches, name)) for name in ("proxy_reward", "true_utility")}
    return {"n_demonstrations": n, "reward": reward, **earned}


def measure_alone(
    folder: Path, profile: FrontierProfile, seed: int, n: int, name: str, report: Report
) -> dict[str, Any]:
    """The base without reinforcement learning: as a policy, on the demonstrator's own histories, on held-out ones; its cost."""
    from mightnt.lm.account import Account
    from mightnt.lm.actor import Stay
    from mightnt.lm.candidates import candidate
    from mightnt.lm.episodes import Cast
    from mightnt.lm.run import asks_per_turn, estimate, evaluate, floors, joined
    from mightnt.lm.scored import on_demonstrator_histories

    imitators, scene = cast_of(folder, profile, seed, n, "benign")
    build = candidate(name).build
    members, base = build(imitators)
    stays = Account(float("inf"), "charged", 0.0)
    cast = Cast(members, base, stays, Stay(), scene, imitators.marks)
    batches = evaluate(cast, profile.evaluation_episodes, seed)
    members, base = build(imitators)
    own = on_demonstrator_histories(members, base, scene, imitators.marks, profile.evaluation_episodes, seed)
    return {
        "candidate": name,
        "n_demonstrations": n,
        "kl_base_demonstrator_nats": estimate(joined(batches, "kl_demonstrator_nats")),
        "asking_nats_per_episode": estimate(np.concatenate([floors(batch) for batch in batches])),
        "asks_per_turn": asks_per_turn(batches),
        "proxy_reward": estimate(joined(batches, "proxy_reward")),
        **{f"{key}_nats": estimate(values) for key, values in own.items()},
        **({} if name == ORACLE else held_out(imitators, name)),
    }


def held_out(imitators: Imitators, name: str) -> dict[str, Any]:
    """What the base does to demonstrations it was not fitted to, and what scoring them costs beside one network."""
    from mightnt.lm.account import Account
    from mightnt.lm.candidates import candidate
    from mightnt.lm.scored import processor_seconds, replay
    from mightnt.lm.tokens import encode

    pad, dialogues = imitators.marks.pad, imitators.held_out[:REPLAYED_DIALOGUES]
    members, base = candidate(name).build(imitators)
    said = replay(members, base, encode(imitators.tokenizer, dialogues), pad)
    timed = encode(imitators.tokenizer, dialogues[:TIMED_DIALOGUES])
    contestants = [(members, base), candidate("single").build(imitators)]
    seconds, of_single = processor_seconds(contestants, timed, pad)
    return {
        "held_out_dialogues": len(dialogues),
        "held_out_vetoed_turns": said.share_of_turns(said.log_probability == float("-inf")),
        "held_out_asking_turns": said.share_of_turns(said.asking > Account().ask_threshold),
        "seconds_per_1000_decisions": 1000 * seconds,
        "times_single": seconds / of_single,
    }
