"""What a reply is worth: rewards that read only what the *other* speaker said.

A reward is any callable that turns a list of replies into a list of numbers, as many, each in [0, 1].
"""

from __future__ import annotations

import functools
import importlib
import math
import re
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import torch

from mightnt.errors import InputError
from mightnt.lm.networks import no_progress_bars

ALLOWED = "sentiment, hf:NAME_OR_PATH (a Hugging Face classifier) or module:function (your own)"
EMPTY_REPLY_SCORE = 0.5
"""What silence gets: neither good nor bad."""
BATCH_REPLIES = 32
LONGEST_REPLY_TOKENS = 512
SHOWN_CHARACTERS = 60


class Reward(Protocol):
    """``reward(replies)``: one number in [0, 1] a reply, in the same order."""

    def __call__(self, replies: list[str], /) -> Sequence[float]:
        """The score of each reply."""
        ...


def resolve_reward(name: str) -> Reward:
    """The reward of this name, :func:`checked`.

    - ``sentiment``: VADER's compound score c of the reply as (c + 1) / 2; no model to load.
    - ``hf:NAME_OR_PATH``: a Hugging Face sequence classifier; the probability of its positive label.
    - ``module:function``: a function of yours, called with the list of replies. The current folder is importable.

    The first two lie in [0, 1] and give an empty reply 0.5. Your own must lie there too: prices of a nat are in units of
    reward, so an episode stops at the first value outside (``lm.stage``).

    Errors: :class:`~mightnt.errors.InputError` for an unknown name, a classifier or function that cannot be loaded, a
    classifier without one clearly positive label.

    Kind: exact (a score, not a measure of value). Paper: the experiments, the sentiment of the student's reply. Cost: loads the
    model or module once.
    """
    kind, colon, rest = name.partition(":")
    if name == "sentiment":
        return checked(sentiment, name)
    if kind == "hf" and rest:
        return checked(classifier(rest), name)
    if kind != "hf" and colon and all(part.isidentifier() for part in (*kind.split("."), rest)):
        return checked(own_function(kind, rest), name)
    raise InputError(f"unknown reward {name!r}; allowed are {ALLOWED}")


def checked(reward: Reward, name: str) -> Reward:
    """``reward``, but a wrong number of scores, or one that is no finite number, stops with the reply it was given for.

    Scores come back as Python floats. Errors raised inside the reward are left as they are.

    Errors: :class:`~mightnt.errors.InputError` naming the reward, the reply (shortened) and the value.

    Kind: exact. Paper: none. Cost: O(replies).
    """

    def reward_checked(replies: list[str], /) -> list[float]:
        returned = reward(replies)
        try:
            scores: list[Any] = list(returned)
        except TypeError:
            raise InputError(
                f"reward {name} returned {returned!r}; a list of {len(replies)} numbers is needed"
            ) from None
        if len(scores) != len(replies):
            raise InputError(f"reward {name} returned {len(scores)} number(s) for {len(replies)} replies")
        for reply, score in zip(replies, scores, strict=True):
            if not isinstance(score, Real) or not math.isfinite(score):
                raise InputError(
                    f"reward {name} gave {score!r} for the reply {_shortened(reply)}; a finite number is needed"
                )
        return [float(score) for score in scores]

    return reward_checked


def _shortened(reply: str) -> str:
    """The reply in quotes, at most sixty characters of it."""
    return repr(reply if len(reply) <= SHOWN_CHARACTERS else reply[:SHOWN_CHARACTERS] + "…")


def sentiment(replies: list[str], /) -> list[float]:
    """VADER's compound sentiment c of each reply as (c + 1) / 2, in [0, 1]; an empty reply has c = 0 and scores 0.5."""
    analyzer = _vader()
    return [(analyzer.polarity_scores(reply)["compound"] + 1) / 2 for reply in replies]


@functools.cache
def _vader() -> Any:
    """VADER with its lexicon, loaded once."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def classifier(name_or_path: str) -> Reward:
    """The probability that a Hugging Face sequence classifier gives to its positive label; an empty reply scores 0.5.

    The label is found by its name (:func:`positive_label`), never by its index. Weights are read from safetensors only, no
    code that comes with a model is run, and a model whose head was never trained is refused. Replies are cut at 512 tokens
    or what the model allows.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                name_or_path, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"hf:{name_or_path} cannot be loaded as a sequence classifier ({reason})") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise InputError(f"hf:{name_or_path} is no trained classifier: its file lacks the weights {missing}")
    model.eval()
    positive = positive_label(model.config.id2label, f"hf:{name_or_path}")
    several_at_once = model.config.problem_type == "multi_label_classification"
    longest = min(LONGEST_REPLY_TOKENS, tokenizer.model_max_length, _positions(model.config))
    batch_replies = BATCH_REPLIES if tokenizer.pad_token is not None else 1

    @torch.no_grad()
    def probabilities(replies: list[str]) -> list[float]:
        batch = tokenizer(replies, padding=len(replies) > 1, truncation=True, max_length=longest, return_tensors="pt")
        logits = model(**batch).logits.float()
        scores: list[float] = (logits.sigmoid() if several_at_once else logits.softmax(-1))[:, positive].tolist()
        return scores

    def reward(replies: list[str], /) -> list[float]:
        scores = [EMPTY_REPLY_SCORE] * len(replies)
        spoken = [i for i, reply in enumerate(replies) if reply.strip()]
        for start in range(0, len(spoken), batch_replies):
            chosen = spoken[start : start + batch_replies]
            for i, score in zip(chosen, probabilities([replies[i] for i in chosen]), strict=True):
                scores[i] = score
        return scores

    return reward


def _positions(config: Any) -> int:
    """How many tokens a model can read; no bound when its configuration names none."""
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else sys.maxsize


def positive_label(id2label: dict[int, str], name: str) -> int:
    """The index of the one label that says ``positive`` or ``pos`` as a word of its own, upper or lower case.

    Negated ones (``not positive``, ``non-positive``) do not count. None, or more than one (``positive`` beside
    ``very positive``), is refused with the list of labels, and so is a model with a single label.
    """
    fitting = []
    for index, label in id2label.items():
        words = set(re.findall("[a-z]+", str(label).lower()))
        if words & {"positive", "pos"} and not words & {"not", "non", "no"}:
            fitting.append(int(index))
    if len(fitting) != 1 or len(id2label) < 2:
        labels = ", ".join(repr(str(label)) for label in id2label.values())
        raise InputError(f"{name} has the labels {labels}; exactly one of several must be called 'positive' or 'pos'")
    return fitting[0]


def own_function(module_name: str, function_name: str) -> Callable[..., Any]:
    """The function of this name in this module; modules in the current folder are found after the installed ones."""
    name = f"{module_name}:{function_name}"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            f"reward {name}: {module_name} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "there is none" if function is None else f"it is a {type(function).__name__}"
        raise InputError(f"reward {name}: {module_name} has no function {function_name} ({found})")
    return function  # type: ignore[no-any-return]
