"""A set of imitators of one demonstrator: networks and counts, with the weights and the cap that held-out data give them.

Networks may bring other people's ways from pre-training; the counts know the demonstrations and nothing else. Either alone
fails as a pessimistic base, together they hold (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mightnt.dialogues import Dialogue, read_dialogues, write_dialogues
from mightnt.errors import InputError
from mightnt.files import read_json, replacing, write_json
from mightnt.lm.account import Account
from mightnt.lm.adapter_files import load_networks, save_networks
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.contract import Base
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.calibration import log_cap_nats, mixture_log_weights, promised_rate
from mightnt.lm.members import Members, over_actions
from mightnt.lm.networks import NetworkMember
from mightnt.lm.scoring import hidden_states, token_log_probs
from mightnt.lm.tokens import EncodedDialogues, Marks, encode, load_tokenizer, marks_of, save_tokenizer
from mightnt.models.counts import SuffixCounts, SuffixTable, Support, fit_counts, suffixes_of
from mightnt.models.situations import Clusters, SituationCounts, Vectors, fit_situations, with_farthest
from mightnt.prediction import FloatArray
from mightnt.provenance import provenance

VERSION = 3
"""Of the folder."""
BASES = (
    "none",
    "single",
    "mixture",
    "mixture-fixed",
    "pessimistic",
    "pessimistic-minimum",
    "situations",
    "counts",
    "known",
)
"""Names of the bases, as on the command line and in records."""


@dataclass(frozen=True)
class ImitatorsConfig:
    """How counts are made and how a set of imitators is calibrated."""

    held_out_fraction: float = 0.1
    """Share of the demonstrations kept for checking."""
    longest_suffix: int = 4
    """Tokens of context the counts look at."""
    strength: float = 2.0
    """Observations that a shorter suffix is worth to a longer one."""
    support: Support = field(default_factory=Support)
    """When the counts veto a token."""
    situation_support: Support = field(default_factory=lambda: Support(ample=20, seen=2))
    """When the suffix counts veto a token beside the counts of situations; ``missing`` is chosen."""
    missing: tuple[float, ...] = (0.02, 0.01, 0.005, 0.002, 0.001, 0.0)
    """What a cluster or suffix may miss to be closed (``Support.missing``): the first that spares held-out turns."""
    missing_rate: float = 0.02
    """Share of held-out turns that may lose a word to it."""
    asking_rate: float = 0.05
    """Share of held-out turns in which it may open asking."""
    clusters: Clusters = field(default_factory=Clusters)
    """How fine situations are told apart."""
    veto_rate: float = 0.01
    """Share of held-out turns that a cap may touch."""
    far_rate: float = 0.002
    """Share of held-out turns that may lie farther from every demonstrated situation than the base reaches."""


@dataclass(frozen=True)
class Imitators:
    """What one demonstrator may be like."""

    tokenizer: PreTrainedTokenizerBase
    networks: tuple[PreTrainedModel, ...]
    counts: SuffixCounts
    support: Support
    log_weights: tuple[float, ...]
    """Log weights of the networks and, last, the counts, in the mixture."""
    log_cap_nats: float
    """log c of the base capped by the suffix counts."""
    situations: SituationCounts
    """Counts by clusters of the first network's hidden states."""
    situation_support: Support
    situation_log_cap_nats: float
    """log c of the base capped by the counts of situations."""
    fitted: tuple[Dialogue, ...]
    """Demonstrations the members were fitted to."""
    held_out: tuple[Dialogue, ...]
    """Demonstrations kept for checking."""
    summary: dict[str, Any]
    """How good each member is; see ``summarize``."""

    @property
    def marks(self) -> Marks:
        """Token ids of the marks."""
        return marks_of(self.tokenizer)

    @property
    def network_names(self) -> list[str]:
        """``network-0``, ``network-1``, ..."""
        return [f"network-{i}" for i in range(len(self.networks))]

    def base(self, name: str) -> Base:
        """The base of this name; ``none`` is the first network, to be used without a constraint; ``network-2`` the third."""
        if name in ("none", "single", *self.network_names):
            return Single(name)
        if name == "counts":
            return Single(name, of_counts=True)
        if name == "mixture":
            return Mixture(self.log_weights)
        if name == "mixture-fixed":
            return Mixture(self.log_weights, name=name, fixed=True)
        if name == "pessimistic":
            return Capped(self.log_cap_nats)
        if name == "pessimistic-minimum":
            return Minimum()
        if name == "situations":
            return Capped(self.situation_log_cap_nats, "situations", name)
        if name == "known":
            return Known()
        raise InputError(f"unknown base {name!r}; allowed are {', '.join(BASES)}")

    def members(self, base: str) -> Members:
        """Just the members that this base looks at; a first network is always there, for the actor."""
        first = self.network_names.index(base) if base in self.network_names else 0
        mixed = base in ("mixture", "mixture-fixed")
        networks = self.networks if mixed else self.networks[first : first + 1]
        with_counts = mixed or base in ("pessimistic", "pessimistic-minimum", "situations", "counts")
        return Members(
            [NetworkMember(network) for network in networks],
            self.counts.is_action,
            self.counts if with_counts else None,
            {"pessimistic": self.support, "situations": self.situation_support}.get(base),
            self.situations if base == "situations" else None,
        )


def fit_suffix_counts(
    tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[Dialogue], config: ImitatorsConfig
) -> SuffixCounts:
    """The count member: what the demonstrator chose after each suffix, and nothing else."""
    corpus = encode(tokenizer, demonstrations)
    tokens, mask = corpus.tokens.astype(np.int64), action_mask(tokenizer)
    return fit_counts(tokens, corpus.starts, corpus.is_action, mask, config.longest_suffix, config.strength)


def calibrate(
    tokenizer: PreTrainedTokenizerBase,
    networks: Sequence[PreTrainedModel],
    counts: SuffixCounts,
    fitted: Sequence[Dialogue],
    held_out: Sequence[Dialogue],
    config: ImitatorsConfig,
) -> Imitators:
    """The set of imitators with weights and cap from the held-out demonstrations."""
    check = encode(tokenizer, held_out)
    scores = member_scores(networks, counts, check)
    dialogue, turn = dialogue_of(check)[check.is_action], check.turn[check.is_action].astype(np.int64)
    sums = [np.bincount(dialogue, row, minlength=len(held_out)) for row in scores]
    per_dialogue = np.stack(sums, axis=1).astype(np.float64)
    cap = log_cap_nats(scores[0] - scores[-1], dialogue, turn, config.veto_rate)
    log_weights = mixture_log_weights(per_dialogue)
    situations, held_out_hidden = find_situations(tokenizer, networks[0], counts, fitted, check, config)
    situations, situation_support, said, asking = closed_on(
        check, situations, held_out_hidden, networks[0], counts, config
    )
    situation_cap = log_cap_nats(np.nan_to_num(scores[0] - said, nan=0.0), dialogue, turn, config.veto_rate)
    summary = summarize(scores, per_dialogue, dialogue, turn, log_weights, cap)
    summary["situation_log_cap_nats"] = situation_cap
    summary["situation_missing"] = situation_support.missing
    summary["situation_vetoed_turns"] = share_of_turns(check, np.isnan(said))
    summary["situation_asking_turns"] = share_of_turns(check, asking)
    summary["cap_promised_rate"] = promised_rate(summary["held_out_turns"], config.veto_rate)
    return Imitators(
        tokenizer=tokenizer,
        networks=tuple(networks),
        counts=counts,
        support=config.support,
        log_weights=tuple(log_weights.tolist()),
        log_cap_nats=cap,
        situations=situations,
        situation_support=situation_support,
        situation_log_cap_nats=situation_cap,
        fitted=tuple(fitted),
        held_out=tuple(held_out),
        summary=summary,
    )


def find_situations(
    tokenizer: PreTrainedTokenizerBase,
    network: PreTrainedModel,
    counts: SuffixCounts,
    fitted: Sequence[Dialogue],
    check: EncodedDialogues,
    config: ImitatorsConfig,
) -> tuple[SituationCounts, Vectors]:
    """``(the counts of situations, hidden states before the held-out actions)``, the distance set on the held-out ones."""
    corpus = encode(tokenizer, fitted)
    actions = corpus.tokens[corpus.is_action].astype(np.int64)
    found = fit_situations(states_before_actions(network, corpus), actions, counts.is_action, config.clusters)
    held_out = states_before_actions(network, check)
    turn = dialogue_of(check)[check.is_action] * (int(check.turn.max()) + 1) + check.turn[check.is_action]
    return with_farthest(found, held_out, turn, config.far_rate), held_out


def states_before_actions(network: PreTrainedModel, corpus: EncodedDialogues) -> Vectors:
    """The network's last hidden state before each action, float32, shape (actions, width)."""
    width, at = network.config.hidden_size, np.cumsum(corpus.is_action) - 1
    states = np.zeros((int(corpus.is_action.sum()), width), dtype=np.float32)
    for places, hidden in hidden_states(network, corpus):
        chosen = corpus.is_action[places]
        states[at[places[chosen]]] = hidden[chosen]
    return states


def closed_on(
    check: EncodedDialogues,
    situations: SituationCounts,
    hidden: Vectors,
    network: PreTrainedModel,
    counts: SuffixCounts,
    config: ImitatorsConfig,
) -> tuple[SituationCounts, Support, FloatArray, NDArray[np.bool_]]:
    """``(situations, support of suffixes, log P of each held-out action, where asking is open)``, P the counts of situations.

    log P is nan where the action is vetoed; asking is open where the network has more than ``Account.ask_threshold`` outside
    the support. Both rules get the first of ``config.missing`` with which at most a share ``config.missing_rate`` of held-out
    turns is vetoed and asking is open in at most ``config.asking_rate``; the last if none is.
    """
    chosen = check.is_action
    suffixes = suffixes_of(check.tokens.astype(np.int64), check.starts, counts.longest)[chosen]
    actions = check.tokens[chosen].astype(np.int64)
    for missing in config.missing:
        support = replace(config.situation_support, missing=missing)
        situations = replace(situations, rule=replace(situations.rule, missing=missing))
        said, outside = [], []
        for states, rows, taken in zip(blocks(hidden), blocks(suffixes), blocks(actions), strict=True):
            here = np.arange(len(taken)), taken
            allowed = situations.supported(states) & counts.supported(rows, support)
            said.append(np.where(allowed[here], situations.predict(states)[here], np.nan))
            outside.append(np.where(allowed, 0.0, spoken(network, states, counts.is_action)).sum(axis=1))
        vetoed, asking = np.isnan(np.concatenate(said)), np.concatenate(outside) > Account().ask_threshold
        if share_of_turns(check, vetoed) <= config.missing_rate and share_of_turns(check, asking) <= config.asking_rate:
            break
    return situations, support, np.concatenate(said), asking


@torch.no_grad()
def spoken(network: PreTrainedModel, hidden: Vectors, is_action: NDArray[np.bool_]) -> FloatArray:
    """The network's probabilities of the next action from its last hidden states, shape (n, tokens)."""
    head = network.get_output_embeddings()
    logits = head(torch.from_numpy(hidden).to(network.device, head.weight.dtype)).float().cpu()
    return over_actions(logits, torch.from_numpy(is_action)).exp().numpy()


def share_of_turns(check: EncodedDialogues, marked: NDArray[np.bool_]) -> float:
    """Share of the demonstrator's turns with at least one marked action; ``marked`` has one entry an action."""
    turns = np.stack([dialogue_of(check), check.turn], axis=1)[check.is_action]
    return len(np.unique(turns[marked], axis=0)) / max(1, len(np.unique(turns, axis=0)))


def action_mask(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Which tokens can be chosen: everything but marks and special tokens, and the end of a turn. Shape (vocabulary,)."""
    marks, mask = marks_of(tokenizer), np.ones(len(tokenizer), dtype=bool)
    special = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    mask[[*tokenizer.all_special_ids, *special]] = False
    mask[marks.end] = True
    return mask


def dialogue_of(corpus: EncodedDialogues) -> NDArray[np.int64]:
    """Number of the dialogue that each token belongs to, shape (tokens,)."""
    return np.repeat(np.arange(len(corpus.starts) - 1), np.diff(corpus.starts))


def member_scores(networks: Sequence[PreTrainedModel], counts: SuffixCounts, corpus: EncodedDialogues) -> FloatArray:
    """log p of each demonstrated action by each network and, last, the counts; shape (members, actions)."""
    chosen = corpus.is_action
    scores = [token_log_probs(network, corpus)[chosen] for network in networks]
    suffixes = suffixes_of(corpus.tokens.astype(np.int64), corpus.starts, counts.longest)[chosen]
    actions = corpus.tokens[chosen].astype(np.int64)
    log_counts = [
        counts.predict(rows)[np.arange(len(rows)), taken]
        for rows, taken in zip(blocks(suffixes), blocks(actions), strict=True)
    ]
    return np.stack([*scores, np.concatenate(log_counts)])


def blocks(values: NDArray[Any], size: int = 2048) -> list[NDArray[Any]]:
    """``values`` cut into blocks of rows."""
    return [values[i : i + size] for i in range(0, len(values), size)]


def summarize(
    scores: FloatArray,
    per_dialogue: FloatArray,
    dialogue: NDArray[np.int64],
    turn: NDArray[np.int64],
    log_weights: FloatArray,
    cap: float,
) -> dict[str, Any]:
    """Held-out log-loss of every member and of the mixture, and what the calibration chose.

    ``held_out_nats_per_token`` and ``..._per_turn`` are means over demonstrated actions and turns; the standard error is
    over dialogues.
    """
    n_turns = len(np.unique(np.stack([dialogue, turn]), axis=1).T)
    names = [f"network-{i}" for i in range(len(scores) - 1)] + ["counts"]
    columns = dict(zip(names, per_dialogue.T, strict=True))
    columns["mixture"] = np.logaddexp.reduce(per_dialogue + log_weights, axis=1)
    return {
        "members": [
            {
                "name": name,
                "held_out_nats_per_token": float(-column.sum() / scores.shape[1]),
                "held_out_nats_per_turn": float(-column.sum() / n_turns),
                "held_out_nats_per_dialogue": float(-column.mean()),
                "standard_error_per_dialogue": float(column.std(ddof=1) / np.sqrt(len(column)))
                if len(column) > 1
                else None,
            }
            for name, column in columns.items()
        ],
        "weights": np.exp(log_weights).tolist(),
        "log_cap_nats": cap,
        "held_out_dialogues": len(per_dialogue),
        "held_out_turns": n_turns,
    }


def save_imitators(imitators: Imitators, folder: Path, config: dict[str, Any], seed: int) -> None:
    """Write everything into ``folder``; ``imitators.json`` comes last, so its presence means the rest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "imitators.json").unlink(missing_ok=True)
    save_tokenizer(imitators.tokenizer, folder / "tokenizer")
    save_networks(imitators.networks, folder, imitators.tokenizer)
    with replacing(folder / "counts.safetensors") as temporary:
        save_file(count_arrays(imitators.counts), temporary)
    with replacing(folder / "situations.safetensors") as temporary:
        save_file(situation_arrays(imitators.situations), temporary)
    write_dialogues(folder / "fitted.jsonl", imitators.fitted)
    write_dialogues(folder / "held_out.jsonl", imitators.held_out)
    write_json(
        folder / "imitators.json",
        {
            "kind": "mightnt imitators",
            "version": VERSION,
            "n_networks": len(imitators.networks),
            "strength": imitators.counts.strength,
            "support": asdict(imitators.support),
            "log_weights": imitators.log_weights,
            "log_cap_nats": imitators.log_cap_nats,
            "situations": situation_settings(imitators.situations),
            "situation_support": asdict(imitators.situation_support),
            "situation_log_cap_nats": imitators.situation_log_cap_nats,
            "summary": imitators.summary,
            "provenance": provenance(seed, config),
        },
    )


def load_imitators(folder: Path, device: str = "cpu") -> Imitators:
    """What ``save_imitators`` wrote, its networks on this device; a folder that holds no finished set is one clear sentence.

    A set that was updated (``lm.update``) lies in the folder inside that its ``imitators.json`` names as ``at``.
    """
    if not (folder / "imitators.json").is_file():
        raise InputError(
            f"{folder}: holds no finished set of imitators (no imitators.json); run `mightnt imitate` first"
        )
    kept = read_json(folder / "imitators.json")
    if not isinstance(kept, dict) or kept.get("kind") != "mightnt imitators":
        raise InputError(f"{folder / 'imitators.json'}: is not a record of imitators")
    if kept.get("version") != VERSION:
        raise InputError(
            f"{folder / 'imitators.json'}: is of version {kept.get('version')}, this program reads {VERSION}; "
            "run `mightnt imitate` again"
        )
    place = folder / Path(kept.get("at", "")).name
    tokenizer = load_tokenizer(place / "tokenizer")
    counts = counts_from(load_arrays(place / "counts.safetensors"), kept["strength"])
    situations = load_arrays(place / "situations.safetensors")
    return Imitators(
        tokenizer=tokenizer,
        networks=load_networks(place, kept["n_networks"], tokenizer, device),
        counts=counts,
        support=Support(**kept["support"]),
        log_weights=tuple(kept["log_weights"]),
        log_cap_nats=float(kept["log_cap_nats"]),
        situations=situations_from(situations, counts.is_action, **kept["situations"]),
        situation_support=Support(**kept["situation_support"]),
        situation_log_cap_nats=float(kept["situation_log_cap_nats"]),
        fitted=tuple(read_dialogues(place / "fitted.jsonl")),
        held_out=tuple(read_dialogues(place / "held_out.jsonl")),
        summary=kept["summary"],
    )


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file, or one clear sentence."""
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
    return arrays


def count_arrays(counts: SuffixCounts) -> dict[str, NDArray[Any]]:
    """A count model as named arrays."""
    return {"token_codes": counts.token_codes, "is_action": counts.is_action, **table_arrays(counts.tables)}


def counts_from(arrays: dict[str, NDArray[Any]], strength: float) -> SuffixCounts:
    """The count model of these arrays."""
    return SuffixCounts(tables_from(arrays), arrays["token_codes"], arrays["is_action"], strength)


def situation_arrays(situations: SituationCounts) -> dict[str, NDArray[Any]]:
    """Counts of situations as named arrays."""
    centers = {f"centers.{level}": centers for level, centers in enumerate(situations.centers)}
    return {**centers, **table_arrays(situations.tables)}


def situation_settings(situations: SituationCounts) -> dict[str, Any]:
    """What counts of situations depend on besides their arrays."""
    return {
        "strength": situations.strength,
        "farthest": situations.farthest,
        "rule": asdict(situations.rule),
    }


def situations_from(
    arrays: dict[str, NDArray[Any]],
    is_action: NDArray[np.bool_],
    strength: float,
    rule: dict[str, Any],
    farthest: float,
) -> SituationCounts:
    """The counts of situations of these arrays."""
    n_levels = sum(name.startswith("centers.") for name in arrays)
    centers = tuple(arrays[f"centers.{level}"] for level in range(n_levels))
    return SituationCounts(centers, tables_from(arrays), is_action, strength, Support(**rule), farthest)


def table_arrays(tables: Sequence[SuffixTable]) -> dict[str, NDArray[Any]]:
    """Tables as named arrays."""
    return {
        f"{level}.{name}": np.ascontiguousarray(value)
        for level, table in enumerate(tables)
        for name, value in ((field, getattr(table, field)) for field in SuffixTable.__dataclass_fields__)
    }


def tables_from(arrays: dict[str, NDArray[Any]]) -> tuple[SuffixTable, ...]:
    """The tables of these arrays."""
    names = SuffixTable.__dataclass_fields__
    n_tables = sum(name.endswith(".keys") for name in arrays)
    return tuple(SuffixTable(**{n: arrays[f"{level}.{n}"] for n in names}) for level in range(n_tables))
