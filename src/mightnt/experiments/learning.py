"""Does asking teach? Thousands of turns in the chat world, the demonstrator answering, with and without learning from it.

The policy is frozen; what it is held to may learn, after every batch of episodes (counts) and every thousand turns
(the network, with the same check as ``mightnt imitate --update``). It learns from nothing; from the answers, counts alone or
both; or, for comparison, from as many words that the demonstrator says elsewhere, in chats of its own. The last tells
whether answers are worth less because of where they are asked for: where a policy was pushed by a reward, not where the
demonstrator goes by itself. Two policies: one trained for the reward, and the base as it is, which nobody pushed.

What the theorem of the paper promises (T3), where the base never vouches for more than the demonstrator would do: the
distance of the system to the demonstrator is at most what was charged, and the sum of theta^3 over all decisions is finite,
so asking dies out. Both are measured beside it; the premise is not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from mightnt.audits.drawing import INK, SOFT, STYLES, render
from mightnt.audits.figures import Panel
from mightnt.audits.page import drawn, page
from mightnt.audits.summary import over_seeds
from mightnt.errors import InputError
from mightnt.experiments import chat
from mightnt.experiments.parts import Part, Report, open_folder, run_parts
from mightnt.files import write_json, write_text
from mightnt.provenance import provenance
from mightnt.watching import Watcher

if TYPE_CHECKING:
    from mightnt.lm.episodes import Episodes
    from mightnt.lm.imitators import Imitators
    from mightnt.lm.tokens import EncodedDialogues, Marks

POLICIES = {"base": "the base as it is", "actor": "trained for the reward"}
SOURCES = {
    "nothing": "no learning",
    "answers to counts": "counts learn",
    "answers": "counts and network learn",
    "elsewhere": "both learn as much elsewhere",
}
"""What is learnt from, and how it is called in pictures."""
SOURCES_OF = {"base": ("nothing", "answers"), "actor": tuple(SOURCES)}
"""What is compared for each policy."""
STREAM = 9_000_000
"""Added to a batch's number in its seed, so that no episode is one that was trained on."""


@dataclass(frozen=True)
class LearningConfig:
    """How much is played, and by whom."""

    name: str = "default"
    n_demonstrations: int = 300
    """Dialogues the imitators begin with; few, so that there is something to ask."""
    base: str = "pessimistic-minimum"
    """What the policy is held to."""
    budget_nats: float = 10.0
    """KL to the base that an episode may spend."""
    turns: int = 5000
    """Turns of the agent in each run."""
    batch_episodes: int = 64
    """Episodes between two lessons of the counts."""
    network_turns: int = 1000
    """Turns between two lessons of the network."""
    network_steps: int = 60
    """Updates in each."""
    seeds: int = 3
    """Each has its own demonstrations, network, actor and episodes."""
    iterations: int = 10
    """Rounds of reinforcement learning before."""
    other_chats: int = 2000
    """Chats of other authors to pre-train on."""
    pretraining_steps: int = 250
    """Updates of pre-training."""
    fitting_steps: int = 200
    """Updates on the demonstrations."""
    bins: int = 10
    """Stretches of turns that curves and summary are given for."""

    def __post_init__(self) -> None:
        if min(self.seeds, self.bins, self.batch_episodes) < 1 or self.turns < self.bins:
            raise InputError(f"{self}: seeds, bins and batch_episodes must be 1 or more, turns as many as bins or more")


PROFILES = {
    "quick": LearningConfig(
        "quick",
        100,
        turns=240,
        batch_episodes=10,
        seeds=2,
        iterations=1,
        other_chats=200,
        pretraining_steps=30,
        fitting_steps=30,
        bins=2,
    ),
    "default": LearningConfig(),
}


def learning(
    out: Path, config: LearningConfig, seed: int, watcher: Watcher, resume: bool = False, workers: int = 1
) -> dict[str, Any]:
    """Run what is missing and write ``out/learning.json``; returns its content.

    Kind: estimates (means over sampled episodes, exact KL at each decision). Cost: 3 to 4 minutes a seed on one core.
    """
    open_folder(out, {"experiment": "learning", "seed": seed, **asdict(config)}, resume)
    runs: list[dict[str, Any]] = []
    for s in range(config.seeds):
        for stage in stages(out, config, seed, s):
            found = run_parts(stage, out / f"seed-{s}", watcher, workers)
            runs += [run for name, part in found.items() if name.startswith("runs-") for run in part]
    record = {
        "kind": "mightnt learning",
        "version": 1,
        "provenance": provenance(seed, asdict(config)),
        "config": asdict(config),
        "runs": runs,
        "summary": summarize(runs),
    }
    write_json(out / "learning.json", record)
    return record


def stages(out: Path, config: LearningConfig, seed: int, s: int) -> Iterator[list[Part]]:
    """The parts of one seed, in stages: what is played with, then the runs of each policy."""
    folder, own, n = out / f"seed-{s}", seed + 1000 * s, config.n_demonstrations
    profile = chat.ChatProfile(
        "learning",
        (n,),
        n_networks=1,
        other_chats=config.other_chats,
        pretraining_steps=config.pretraining_steps,
        fitting_steps=config.fitting_steps,
    )
    yield [Part("prepare", prepare, (folder, config, profile, own))]
    yield [Part(f"runs-{policy}", converse_all, (folder, config, own, s, policy)) for policy in POLICIES]


# The parts. Each runs in a process of its own; torch is imported there and nowhere else.


def prepare(
    folder: Path, config: LearningConfig, profile: chat.ChatProfile, seed: int, report: Report
) -> dict[str, Any]:
    """Imitators and an actor, in ``folder``."""
    n = config.n_demonstrations
    chat.pretrain(folder, profile, seed, 0, report)
    write_json(folder / "parts" / f"fit-n{n}-0.json", chat.fit_one(folder, profile, seed, n, 0, report))
    summary = chat.gather(folder, profile, seed, n, report)
    return {"imitators": summary, **train_actor(folder, config, seed, report)}


def train_actor(folder: Path, config: LearningConfig, seed: int, report: Report) -> dict[str, Any]:
    """An actor trained for the reward within its budget, kept in ``folder/actor.safetensors``."""
    from mightnt.lm.checkpoint import save_training
    from mightnt.lm.imitators import load_imitators
    from mightnt.lm.protect import Training, protect
    from mightnt.lm.run import cast_for, new_actor
    from mightnt.lm.scenes import ChatScene

    imitators = load_imitators(folder / f"imitators-{config.n_demonstrations}")
    settings = run_settings(config)
    training = Training.fresh(new_actor(imitators, settings, seed), settings.training)
    cast = cast_for(imitators, ChatScene(), config.base, settings.account, training.actor)
    protect(cast, training, settings.training, seed, lambda t: report(len(t.log), config.iterations))
    save_training(training, folder / "actor.safetensors", asdict(config))
    return {"curve": training.log}


def run_settings(config: LearningConfig) -> Any:
    """The run that trains the actor."""
    from mightnt.lm.account import Account
    from mightnt.lm.protect import ProtectConfig
    from mightnt.lm.run import RunConfig

    training = ProtectConfig(iterations=config.iterations, episodes=64, passes=3)
    return RunConfig(config.base, Account(config.budget_nats, "charged"), training)


def converse_all(
    folder: Path, config: LearningConfig, seed: int, s: int, policy: str, report: Report
) -> list[dict[str, Any]]:
    """The runs of one policy, one for each source."""
    return [converse(folder, config, seed, s, policy, source, report) for source in SOURCES_OF[policy]]


def converse(
    folder: Path, config: LearningConfig, seed: int, s: int, policy: str, source: str, report: Report
) -> dict[str, Any]:
    """``config.turns`` turns of one policy, the counts learning from ``source`` after every batch; columns by batch.

    Policies and sources of one seed see the same dice, as far as the same things happen.
    """
    from mightnt.lm.actor import Stay
    from mightnt.lm.checkpoint import load_training
    from mightnt.lm.episodes import play_episodes
    from mightnt.lm.imitators import load_imitators
    from mightnt.lm.protect import Training, round_seed
    from mightnt.lm.run import cast_for, new_actor
    from mightnt.lm.scenes import ChatScene

    imitators, settings = load_imitators(folder / f"imitators-{config.n_demonstrations}"), run_settings(config)
    training = Training.fresh(new_actor(imitators, settings, seed), settings.training)
    actor = load_training(training, folder / "actor.safetensors", asdict(config)).actor
    batches, pupil = list[dict[str, float]](), Pupil(imitators, source, config, seed)
    n_turns = 0
    while n_turns < config.turns:
        scene = ChatScene()
        deciding = actor if policy == "actor" else Stay()
        cast = cast_for(pupil.imitators, scene, config.base, settings.account, deciding)
        rows = min(config.batch_episodes, -(-(config.turns - n_turns) // scene.n_turns))
        episodes = play_episodes(cast, rows, round_seed(seed, STREAM + len(batches)), n_transcripts=rows)
        batches.append(measured(episodes))
        n_turns += int(episodes.turns.sum())
        pupil.hear(episodes, n_turns)
        report(n_turns, config.turns)
    columns = {name: [batch[name] for batch in batches] for name in batches[0]}
    return {"seed": s, "policy": policy, "source": source, **pupil.counted, "by_batch": columns}


class Pupil:
    """Imitators that learn while they are used; what they are by now is ``imitators``. Moves by ``hear``."""

    def __init__(self, imitators: Imitators, source: str, config: LearningConfig, seed: int) -> None:
        self.imitators, self.source, self.config, self.seed = imitators, source, config, seed
        self.waiting: EncodedDialogues | None = None
        """What the network has yet to learn."""
        self.n_networks = 0
        self.counted = {"tokens_learnt": 0, "networks_taken": 0, "networks_refused": 0}

    def hear(self, episodes: Episodes, n_turns: int) -> None:
        """A batch was played, and so many turns by now."""
        from mightnt.lm.protect import round_seed
        from mightnt.lm.update import joined, learned_from

        lesson = evidence(episodes, self.imitators.marks)
        n_tokens = int(lesson.is_action.sum())
        if self.source == "nothing" or not n_tokens:
            return
        if self.source == "elsewhere":
            lesson = elsewhere(self.imitators, n_tokens, round_seed(self.seed, STREAM - n_turns))
        self.imitators = learned_from(self.imitators, lesson)
        self.counted["tokens_learnt"] += int(lesson.is_action.sum())
        if self.source != "answers to counts":
            self.waiting = lesson if self.waiting is None else joined(self.waiting, lesson)
            if n_turns >= (self.n_networks + 1) * self.config.network_turns:
                self.teach_network(self.waiting)

    def teach_network(self, lesson: EncodedDialogues) -> None:
        """Fit the network on; the old one stays unless the new one passes."""
        from mightnt.lm.update import compare, networks_learned

        new = networks_learned(self.imitators, lesson, self.seed + self.n_networks, self.config.network_steps)
        _, why = compare(self.imitators, new, ())
        self.counted["networks_refused" if why else "networks_taken"] += 1
        self.imitators = self.imitators if why else new
        self.n_networks += 1
        self.waiting = None


def measured(episodes: Episodes) -> dict[str, float]:
    """Sums over one batch. ``theta_cubed`` counts the decisions where asking was open; the others are below .1^3 each."""
    assert episodes.kl_demonstrator_nats is not None, "the demonstrator of this world is known"
    assert episodes.true_utility is not None, "the utility of this world is known"
    theta = np.exp(episodes.decisions.log_base[:, -1].double().numpy())
    return {
        "episodes": len(episodes.turns),
        "turns": int(episodes.turns.sum()),
        "asked_turns": int(episodes.asked_turns.sum()),
        "demonstrator_tokens": int(episodes.demonstrator_tokens.sum()),
        "kl_demonstrator_nats": float(episodes.kl_demonstrator_nats.sum()),
        "charged_nats": float(episodes.spent_nats.sum()),
        "most_charged_nats": float(episodes.spent_nats.max()),
        "theta_cubed": float((theta**3).sum()),
        "proxy_reward": float(episodes.proxy_reward.sum()),
        "true_utility": float(episodes.true_utility.sum()),
    }


def evidence(episodes: Episodes, marks: Marks) -> EncodedDialogues:
    """The transcripts of a batch as dialogues in which the demonstrator chose its answers and nothing else."""
    from mightnt.lm.tokens import EncodedDialogues

    tokens, actions, turns, starts = list[int](), list[bool](), list[int](), [0]
    for said in episodes.transcripts:
        speaker, turn = "", -1
        for token in said:
            if token.speaker != speaker:
                speaker, turn = token.speaker, turn + 1
                tokens.append(marks.user if speaker == "user" else marks.assistant)
                actions.append(False)
                turns.append(turn)
            tokens.append(token.token)
            actions.append(token.asked)
            turns.append(turn)
        starts.append(len(tokens))
    return EncodedDialogues(
        np.array(tokens, dtype=np.int32), np.array(starts), np.array(actions), np.array(turns, dtype=np.int32)
    )


def elsewhere(imitators: Imitators, n_tokens: int, seed: int) -> EncodedDialogues:
    """New chats of the demonstrator's own in which its first ``n_tokens`` choices count, and no more."""
    from dataclasses import replace

    from mightnt.lm.tokens import encode
    from mightnt.worlds.chat.corpus import demonstrations

    corpus = encode(imitators.tokenizer, demonstrations(max(1, n_tokens // 30), seed))
    return replace(corpus, is_action=corpus.is_action & (np.cumsum(corpus.is_action) <= n_tokens))


# What came out of it.


def curves(run: dict[str, Any], bins: int) -> dict[str, list[float]]:
    """By ``bins`` stretches of about equally many turns, no more than batches: asks, and per episode KL, charge, reward."""
    bins = min(bins, len(run["by_batch"]["turns"]))
    columns = {name: np.array(values, dtype=float) for name, values in run["by_batch"].items()}
    turns = np.cumsum(columns["turns"])
    place = np.minimum((turns - columns["turns"] / 2) / turns[-1] * bins, bins - 1).astype(int)
    sums = {name: np.bincount(place, values, minlength=bins) for name, values in columns.items()}
    per_episode = ("kl_demonstrator_nats", "charged_nats", "proxy_reward", "true_utility")
    return {
        "turns": np.linspace(0, turns[-1], 2 * bins + 1)[1::2].tolist(),
        "asks_per_100_turns": (100 * sums["asked_turns"] / sums["turns"]).tolist(),
        "theta_cubed_so_far": np.cumsum(sums["theta_cubed"]).tolist(),
        **{name: (sums[name] / sums["episodes"]).tolist() for name in per_episode},
    }


COMPARED = ("asks_per_100_turns", "kl_demonstrator_nats", "charged_nats", "proxy_reward", "true_utility")
"""What the summary gives for the first and the last fifth of a run."""


def summarize(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each policy and source: every number in the first and last fifth of the turns, over seeds; all runs listed."""
    rows = []
    for policy in POLICIES:
        for source in SOURCES_OF[policy]:
            found = [curves(run, 5) for run in runs if (run["policy"], run["source"]) == (policy, source)]
            row: dict[str, Any] = {"policy": policy, "source": source}
            for name in COMPARED:
                for when, index in (("first", 0), ("last", -1)):
                    values = [curve[name][index] for curve in found]
                    spread = over_seeds(values)
                    row[f"{name}_{when}"] = {
                        "mean": spread.mean if spread else None,
                        "low": spread.low if spread else None,
                        "high": spread.high if spread else None,
                        "by_seed": values,
                    }
            rows.append(row)
    return rows


LOOKS = {
    "nothing": (SOFT, (0, (1, 1.5))),
    "answers to counts": (STYLES["pessimistic-minimum"].color, (0, (4, 1.5))),
    "answers": (STYLES["pessimistic"].color, "-"),
    "elsewhere": (STYLES["known"].color, (0, (6, 2))),
}
"""Color and dash of each source."""


def write_page(record: dict[str, Any], path: Path) -> None:
    """Write the page of a record: pictures, first against last fifth, where it came from."""
    shown = [drawn(panel) for panel in panels(record)]
    template = Path(__file__).parent / "learning.html.jinja"
    write_text(path, page(template, record=record, panels=shown, policies=POLICIES, sources=SOURCES))


def panels(record: dict[str, Any]) -> list[Panel]:
    """Asks and KL to the demonstrator along the turns, for each policy; thin lines are seeds, thick ones their mean."""
    return [
        panel(record, policy, name, label)
        for name, label in (("asks_per_100_turns", "asks per 100 turns"), ("kl_demonstrator_nats", "nats an episode"))
        for policy in POLICIES
    ]


def panel(record: dict[str, Any], policy: str, name: str, label: str) -> Panel:
    """One picture of :func:`panels`."""
    bins = record["config"]["bins"]

    def draw(axes: Axes) -> None:
        for source in SOURCES_OF[policy]:
            color, dash = LOOKS[source]
            found = [curves(run, bins) for run in record["runs"] if (run["policy"], run["source"]) == (policy, source)]
            for curve in found:
                axes.plot(curve["turns"], curve[name], color=color, lw=0.7, alpha=0.4)
            mean = np.mean([curve[name] for curve in found], axis=0)
            axes.plot(found[0]["turns"], mean, color=color, ls=dash, lw=2, label=SOURCES[source])
            if name == "kl_demonstrator_nats" and source == "answers":
                charged = np.mean([curve["charged_nats"] for curve in found], axis=0)
                axes.plot(found[0]["turns"], charged, color=INK, lw=1.2, ls=(0, (4, 2)), label="charged: bound of T3")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("turns of the agent so far")
        axes.set_ylabel(label)
        axes.legend(
            frameon=False, fontsize=8.5, ncols=2, columnspacing=1.0, loc="lower left", bbox_to_anchor=(-0.08, 1)
        )

    what = "How often it asks" if name == "asks_per_100_turns" else "KL to the demonstrator"
    note = (
        "The dashed black line is what the runs that learn from answers were charged: a bound on their KL wherever the base "
        "vouches for no more than the demonstrator would do."
        if name == "kl_demonstrator_nats"
        else ""
    )
    return Panel(f"{what}: {POLICIES[policy]}", render(f"learning-{policy}-{name}", draw, 3.6), note)
