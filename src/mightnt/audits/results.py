"""The file that every report reads: what was measured, checked field by field, and merged from many folders.

``results.json`` holds a whole experiment: ``{"kind": "mightnt results", "version": 1, ...}`` with the fields of
:class:`Results`. ``run.json`` holds one run: the fields of :class:`Run` and ``provenance``. The dataclasses below are
the schema: a field without a default must be there, other keys are ignored, and infinities are the strings ``inf`` and
``-inf``, since JSON has none.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mightnt.errors import InputError
from mightnt.files import read_json

KIND = "mightnt results"
VERSION = 1
BaseName = Literal[
    "none", "single", "mixture", "mixture-fixed", "pessimistic", "pessimistic-minimum", "situations", "known"
]
BASES: tuple[str, ...] = get_args(BaseName)
"""Every base a run can stay close to, in the order (and with the colors) of every table and figure."""
PESSIMISTIC: tuple[BaseName, ...] = ("pessimistic", "pessimistic-minimum", "situations")
"""Those that mean to vouch for no more than the demonstrator might do."""

WORDS = {int: "a whole number", str: "text", bool: "true or false", dict: "an object"}

ROUNDING_NATS = 1e-4
"""How far float32 sums over an episode may miss a bound before it counts as broken."""


@dataclass(frozen=True, slots=True)
class EpisodeMean:
    """A mean over independent episodes of one run."""

    mean: float
    standard_error: float | None
    """Of the mean, over episodes; ``None`` where it is not defined (one episode, an infinite mean)."""
    n: int
    """Episodes."""
    max: float | None = None
    """The largest episode."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a transcript."""

    text: str
    kl_base_nats: float | None = None
    kl_demonstrator_nats: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a transcript; ``asked`` says that the demonstrator took this turn."""

    speaker: Literal["assistant", "user"]
    tokens: tuple[Token, ...]
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Transcript:
    """One episode, word for word."""

    turns: tuple[Turn, ...]
    proxy_reward: float
    true_utility: float | None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Means over the episodes of one training iteration."""

    iteration: int
    proxy_reward: float
    true_utility: float | None
    kl_base_nats: float
    asks_per_turn: float


@dataclass(frozen=True, slots=True)
class Run:
    """One trained policy, measured on fresh episodes. KL is per episode unless its name says otherwise."""

    base: BaseName
    kind_of_base: str
    seed: int
    n_demonstrations: int
    budget_nats: float
    """Per episode; infinite for no budget."""
    asking: Literal["floor", "charged", "none"]
    """The account: the mass missing from the base is paid (floor), or asking is an action that is charged."""
    episodes: int
    proxy_reward: EpisodeMean
    true_utility: EpisodeMean | None
    kl_base_nats: EpisodeMean
    kl_demonstrator_nats: EpisodeMean | None
    over_budget_episodes: int
    training_over_budget_episodes: int
    training_episodes: int
    asks_per_turn: float
    turns: int
    asked_turns: int
    demonstrator_tokens: int
    kl_base_by_token_nats: tuple[float, ...]
    """Means over all episodes at the agent's 1st, 2nd, ... token; an episode that has ended counts 0."""
    kl_demonstrator_by_token_nats: tuple[float, ...] | None
    curve: tuple[CurvePoint, ...]
    seconds: float
    tokens_per_second: float
    transcripts: tuple[Transcript, ...]
    reward: str = ""
    """What was rewarded, where a user chose it."""
    imitators: str = ""
    """Which set of imitators, where a user chose it."""
    answered_by: str = ""
    """Who answered when the policy asked, where it was not the demonstrator."""
    constraint: Literal["", "none", "budget", "penalty", "target"] = ""
    """What held the policy to its base; empty in records that knew only budgets."""
    constraint_strength: float | None = None
    """Of it: nats an episode, or reward a nat (``penalty``)."""
    warnings: tuple[str, ...] = ()
    """What was known against the base before training began: sentences of those who calibrated it."""

    @property
    def held_by(self) -> str:
        """``penalty 0.01``, ``target 10``, ``no budget`` for a base that held nothing; empty for a budget and base ``none``."""
        if self.constraint in ("penalty", "target"):
            return f"{self.constraint} {self.constraint_strength or 0.0:g}"
        return "" if math.isfinite(self.budget_nats) or self.base == "none" else "no budget"

    def __post_init__(self) -> None:
        refuse_if(self.budget_nats < 0, f"budget_nats is {self.budget_nats:g}; a budget is 0 or more")
        refuse_if(self.episodes < 1, f"episodes is {self.episodes}; at least one is needed")
        for kl, name in ((self.kl_base_nats, "kl_base_nats"), (self.kl_demonstrator_nats, "kl_demonstrator_nats")):
            if kl is not None:
                refuse_if(kl.max is None, f"{name} has no 'max', the largest episode")
                refuse_if(kl.mean < -ROUNDING_NATS, f"{name}.mean is {kl.mean:g}; a KL divergence is never negative")
        for reward in (self.proxy_reward, self.true_utility):
            refuse_if(reward is not None and not math.isfinite(reward.mean), "a mean reward or utility is not finite")
        for part, whole in (
            ("over_budget_episodes", "episodes"),
            ("training_over_budget_episodes", "training_episodes"),
            ("asked_turns", "turns"),
        ):
            k, n = getattr(self, part), getattr(self, whole)
            refuse_if(not 0 <= k <= n, f"{part} is {k} of {n} {whole}; it must lie between 0 and that")
        refuse_if(not 0 <= self.asks_per_turn <= 1, f"asks_per_turn is {self.asks_per_turn:g}; it lies in [0, 1]")


@dataclass(frozen=True, slots=True)
class BaseAlone:
    """A base played as it is, without reinforcement learning."""

    name: BaseName
    n_demonstrations: int
    kl_base_demonstrator_nats: EpisodeMean | None
    asking_nats_per_episode: EpisodeMean
    proxy_reward: EpisodeMean
    true_utility: EpisodeMean | None


@dataclass(frozen=True, slots=True)
class Imitator:
    """One fitted predictive model and how well it fits."""

    name: str
    held_out_nats_per_token: float
    held_out_nats_per_turn: float
    gap_nats: EpisodeMean | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Demonstrator:
    """The demonstrator itself, played."""

    proxy_reward: EpisodeMean
    true_utility: EpisodeMean
    episodes: int


@dataclass(frozen=True, slots=True)
class Headline:
    """The setting the verdict is about."""

    budget_nats: float
    n_demonstrations: int


@dataclass(frozen=True, slots=True)
class Results:
    """What one or several folders hold, together."""

    headline: Headline | None
    demonstrator: Demonstrator | None
    """``None`` where the demonstrator is known by its demonstrations only."""
    imitators: tuple[Imitator, ...]
    bases: tuple[BaseAlone, ...]
    runs: tuple[Run, ...]
    profile: str = ""
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    sources: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Pairs ``(file, its provenance)``, filled in while reading."""
    notes: tuple[str, ...] = ()
    """What a reader must know about how the sources were put together."""


def read_results(paths: Sequence[Path]) -> Results:
    """All results in these folders or files as one; a run that comes twice counts once and is noted.

    A folder stands for its ``results.json`` or else its ``run.json``. Where headlines or demonstrators differ, the
    first is kept and that is noted. Errors: :class:`~mightnt.errors.InputError` naming file and field.

    Kind: exact. Cost: the files are read once.
    """
    files = list(dict.fromkeys(results_file(path) for path in paths))
    if not files:
        raise InputError("nothing to read: name at least one folder with results.json or run.json")
    return merge([read_file(file) for file in files])


def results_file(path: Path) -> Path:
    """The file that ``path`` stands for: itself, or ``results.json`` or else ``run.json`` inside the folder."""
    if not path.is_dir():
        return path
    for name in ("results.json", "run.json"):
        if (path / name).exists():
            return path / name
    raise InputError(f"{path}: holds neither results.json nor run.json; name a folder that reproduce or finetune wrote")


def read_file(path: Path) -> Results:
    """The results in one file, either kind, with the file as its only source."""
    value = read_json(path)
    results = parse_results(value, str(path))
    return dataclasses.replace(results, sources=((str(path), results.provenance),))


def parse_results(value: Any, where: str) -> Results:
    """The results in one decoded JSON value (results.json or run.json); ``where`` (a file) opens each error message."""
    try:
        if isinstance(value, dict) and "runs" not in value and "base" in value:
            provenance = parse(dict, value.get("provenance", {}), "provenance")
            return Results(None, None, (), (), (parse(Run, value, ""),), provenance=provenance)
        kind, version = (value.get("kind"), value.get("version")) if isinstance(value, dict) else (None, None)
        refuse_if(kind != KIND, f"holds no results; its 'kind' must be {KIND!r}, or it must hold one run")
        refuse_if(version != VERSION, f"version is {version!r}; this program reads version {VERSION}")
        return parse(Results, {key: value[key] for key in value if key not in ("sources", "notes")}, "")  # type: ignore[no-any-return]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def merge(parts: Sequence[Results]) -> Results:
    """Several results as one, in the order given."""
    runs = [run for part in parts for run in part.runs]
    distinct = list(dict.fromkeys(runs))
    for field, words in (("reward", "rewards"), ("imitators", "sets of imitators")):
        values = sorted({getattr(run, field) for run in distinct})
        if len(values) > 1:
            shown = ", ".join(value or "(the chat world's)" for value in values)
            raise InputError(f"the runs have different {words} ({shown}) and cannot be averaged; audit them one by one")
    notes = []
    if len(distinct) < len(runs):
        notes.append(f"{len(runs) - len(distinct)} run(s) came twice, number for number, and count once.")
    keys = Counter(
        (run.base, run.n_demonstrations, run.budget_nats, run.asking, run.held_by, run.seed) for run in distinct
    )
    for (base, n, budget, _, _, seed), count in keys.items():
        if count > 1:
            notes.append(
                f"{count} different runs share base {base}, n = {n}, B = {budget:g} and seed {seed}: "
                "they are not independent, and intervals over seeds are too narrow."
            )
    headlines = list(dict.fromkeys(part.headline for part in parts if part.headline))
    demonstrators = list(dict.fromkeys(part.demonstrator for part in parts if part.demonstrator))
    if len(headlines) > 1:
        notes.append("The sources have different headline settings; the verdict is about the first.")
    if len(demonstrators) > 1:
        notes.append("The sources measured different demonstrators; the first is shown.")
    return Results(
        headline=headlines[0] if headlines else None,
        demonstrator=demonstrators[0] if demonstrators else None,
        imitators=tuple(dict.fromkeys(imitator for part in parts for imitator in part.imitators)),
        bases=tuple(dict.fromkeys(base for part in parts for base in part.bases)),
        runs=tuple(distinct),
        profile=", ".join(dict.fromkeys(part.profile for part in parts if part.profile)),
        sources=tuple(source for part in parts for source in part.sources),
        notes=tuple(notes),
    )


def parse(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind``: a dataclass, ``tuple[X, ...]``, ``X | None``, a Literal, or a plain type.

    Errors: :class:`~mightnt.errors.InputError` that opens with ``where``, the path to the field (empty for the file).
    """
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return parse_object(kind, value, where)
    if origin is UnionType:
        return None if value is None else parse(inner[0], value, where)
    if origin is Literal:
        refuse_if(value not in inner, f"{where} is {value!r}; allowed are {', '.join(map(str, inner))}")
        return value
    if origin is tuple:
        refuse_if(not isinstance(value, list), f"{where} is {describe(value)}; a list is needed")
        return tuple(parse(inner[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind is float:
        return parse_number(value, where)
    plain = origin or kind
    fits = isinstance(value, plain) and (plain is bool or not isinstance(value, bool))
    refuse_if(not fits, f"{where} is {describe(value)}; {WORDS[plain]} is needed")
    return value


def parse_object(kind: Any, value: Any, where: str) -> Any:
    """The dataclass ``kind`` from a JSON object; keys it does not know are ignored."""
    refuse_if(not isinstance(value, dict), f"{where or 'the file'} is {describe(value)}; an object is needed")
    fields = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            item = value[field.name]
            if field.name == "standard_error" and item == "nan":
                item = None
            fields[field.name] = parse(type_hints(kind)[field.name], item, f"{where}.{field.name}".lstrip("."))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where or 'the file'} has no '{field.name}'")
    try:
        return kind(**fields)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None


@functools.cache
def type_hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def parse_number(value: Any, where: str) -> float:
    """A float; ``"inf"`` and ``"-inf"`` are infinities, NaN is refused."""
    if value in ("inf", "-inf") or (isinstance(value, int | float) and not isinstance(value, bool)):
        number = float(value)
        refuse_if(math.isnan(number), f"{where} is NaN; what was not measured is null")
        return number
    hint = "; what was not measured is null" if value == "nan" else ""
    raise InputError(f"{where} is {describe(value)}; a number is needed{hint}")


def describe(value: Any) -> str:
    """A short name of what came instead."""
    return (
        "null" if value is None else f"{value!r:.40}" if isinstance(value, str | int | float) else type(value).__name__
    )


def refuse_if(bad: bool, message: str) -> None:
    """Raise :class:`~mightnt.errors.InputError` with ``message`` when ``bad``."""
    if bad:
        raise InputError(message)
