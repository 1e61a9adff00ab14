"""What a network says about whole dialogues: log-probabilities of every token, held-out losses.

Networks are read through their own Hugging Face forward pass, in float32, with dropout off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mightnt.errors import InputError
from mightnt.lm.tokens import EncodedDialogues, IntArray
from mightnt.lm.windows import padded, windows
from mightnt.prediction import FloatArray

Network: TypeAlias = Any
"""A ``transformers`` causal language model (a ``PreTrainedModel``; its types cannot be followed by a checker)."""

MAX_LOGITS = 2**24
"""Logits held at once while scoring: 64 MiB of float32."""
MAX_TOKENS = 8192
"""Tokens in one forward pass while scoring."""


def context_tokens(network: Network) -> int:
    """The longest dialogue the network can read, in tokens; a million where its configuration names no limit."""
    return int(getattr(network.config, "max_position_embeddings", None) or 1_000_000)


def logits_of(network: Network, tokens: Tensor) -> Tensor:
    """Logits of the token after each position, shape (rows, length, vocabulary); rows are padded on the right."""
    logits: Tensor = network(input_ids=tokens.to(network.device), use_cache=False).logits
    return logits.float()


def rows_at_once(network: Network, length: int) -> int:
    """How many rows of ``length`` tokens one forward pass takes without holding too much."""
    return max(1, min(MAX_TOKENS, MAX_LOGITS // int(network.config.vocab_size)) // length)


def scores(network: Network, tokens: Tensor) -> Tensor:
    """log p(next token | tokens up to here) at every position of equally long rows.

    Args:
        tokens: shape (rows, length).

    Returns float32, shape (rows, length, vocabulary); entry ``[:, t]`` predicts the token at ``t + 1``.
    Kind: exact (float32). Cost: one forward pass over all tokens, in chunks; the answer itself is the largest object.
    """
    check_length(network, tokens.shape[1])
    with torch.no_grad():
        chunks = torch.split(tokens, rows_at_once(network, tokens.shape[1]))
        return torch.cat([logits_of(network, chunk).log_softmax(dim=-1) for chunk in chunks])


def read_whole(network: Network, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """``(log p(next token), last hidden state)`` at every position of one dialogue, shapes (length, vocabulary), (length, width).

    Kind: exact (float32). Cost: one forward pass, all logits held at once.
    """
    check_length(network, len(tokens))
    with torch.no_grad():
        read = network(input_ids=tokens[None].to(network.device), use_cache=False, output_hidden_states=True)
    return read.logits[0].float().log_softmax(dim=-1).cpu(), read.hidden_states[-1][0].float().cpu()


def hidden_states(network: Network, encoded: EncodedDialogues) -> Iterator[tuple[IntArray, NDArray[np.float32]]]:
    """``(places, last hidden state before the token at each place)`` of every token but the first of a dialogue, in blocks.

    Places index ``encoded.tokens``; hidden states have shape (places, width). Windows as in :func:`token_log_probs`.

    Kind: exact (float32). Cost: one forward pass over all tokens; one block is held at a time.
    """
    chosen = windows(encoded, context_tokens(network))
    with torch.no_grad():
        for rows in length_chunks(network, chosen.lengths):
            tokens, counted = padded(encoded, chosen, rows)
            ids = torch.from_numpy(tokens).to(network.device)
            read = network(input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1)
            where = (chosen.begin[rows, None] + np.arange(tokens.shape[1]))[counted]
            yield where, read.hidden_states[-1][:, :-1].float().cpu().numpy()[counted[:, 1:]]


def check_length(network: Network, length: int) -> None:
    """Refuse more tokens than the network's context."""
    context = context_tokens(network)
    if length > context:
        raise InputError(f"{length} tokens do not fit the network's context of {context}; shorten the dialogue")


def token_log_probs(network: Network, encoded: EncodedDialogues) -> FloatArray:
    """log p(token | the dialogue before it) of every token, in nats, aligned with ``encoded.tokens``.

    The first token of a dialogue is given, not predicted: its entry is 0. A dialogue longer than the context is read in
    overlapping windows (:func:`~mightnt.lm.tokens.windows`): its later tokens are conditioned on part of their past.

    Kind: exact (float32 network), for dialogues that fit the context. Cost: one forward pass over all tokens.
    """
    chosen = windows(encoded, context_tokens(network))
    result = np.zeros(encoded.tokens.size)
    with torch.no_grad():
        for rows in length_chunks(network, chosen.lengths):
            tokens, counted = padded(encoded, chosen, rows)
            targets = torch.from_numpy(tokens).to(network.device)
            logits = logits_of(network, targets)[:, :-1]
            losses = functional.cross_entropy(logits.transpose(1, 2), targets[:, 1:], reduction="none")
            where = (chosen.begin[rows, None] + np.arange(tokens.shape[1]))[counted]
            result[where] = -losses.cpu().numpy()[counted[:, 1:]]
    return result


def length_chunks(network: Network, lengths: IntArray) -> Iterator[IntArray]:
    """Indices of windows in chunks of similar length, each small enough for one forward pass."""
    order = np.argsort(lengths, kind="stable")[::-1]
    done = 0
    while done < order.size:
        n = rows_at_once(network, int(lengths[order[done]]))
        yield order[done : done + n]
        done += n


def log_loss(network: Network, encoded: EncodedDialogues) -> dict[str, float]:
    """How badly the network predicts the actions in these dialogues: nats per action token, turn and dialogue.

    The standard error is over dialogues; it is inf for a single one. An impossible action makes the losses inf.

    Kind: estimate (mean over the given dialogues). Cost: one forward pass over all tokens.
    """
    if not encoded.is_action.any():
        raise InputError("these dialogues hold no action to score; an assistant turn is needed")
    losses = np.where(encoded.is_action, -token_log_probs(network, encoded), 0.0)
    per_dialogue = np.add.reduceat(losses, encoded.starts[:-1])
    n = per_dialogue.size
    return {
        "nats_per_action_token": float(losses.sum() / encoded.is_action.sum()),
        "nats_per_action_turn": float(losses.sum() / encoded.n_action_turns),
        "nats_per_dialogue": float(per_dialogue.mean()),
        "nats_per_dialogue_standard_error": float(per_dialogue.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf,
        "n_action_tokens": int(encoded.is_action.sum()),
        "n_action_turns": encoded.n_action_turns,
        "n_dialogues": n,
    }


def mean_loss(network: Network, encoded: EncodedDialogues) -> float:
    """Nats per predicted token over all tokens but the first of each dialogue."""
    return float(-token_log_probs(network, encoded).sum() / (encoded.tokens.size - encoded.n_dialogues))
