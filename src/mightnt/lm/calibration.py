"""What held-out demonstrations say about members: mixture weights and the cap of the pessimistic base."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mightnt.errors import InputError
from mightnt.prediction import FloatArray


def mixture_log_weights(log_likelihood_nats: FloatArray, pseudo_dialogues: float = 1.0) -> FloatArray:
    """Log weights of members by maximum posterior over held-out dialogues, shape (members,).

    Each dialogue is taken to be written by one member: maximize sum_d log sum_i w_i p_i(d) + a sum_i log w_i by
    expectation maximization (a = ``pseudo_dialogues`` keeps every member in play).

    Args:
        log_likelihood_nats: log p_i(dialogue's actions), shape (dialogues, members).

    Kind: exact to 1e-10. Cost: dialogues x members a round.
    """
    n_dialogues, n_members = log_likelihood_nats.shape
    log_weights = np.full(n_members, -np.log(n_members))
    for _ in range(1000):
        joint = log_likelihood_nats + log_weights
        share = np.exp(joint - joint.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        weights = (share.sum(axis=0) + pseudo_dialogues) / (n_dialogues + pseudo_dialogues * n_members)
        moved = float(np.abs(np.log(weights) - log_weights).max())
        log_weights = np.log(weights)
        if moved < 1e-10:
            break
    return log_weights


def moved_log_weights(log_weights: FloatArray, log_likelihood_nats: FloatArray, n_before: float) -> FloatArray:
    """Log weights after more dialogues, one at a time, shape (members,): the same picture, without the old dialogues.

    The weights stand for ``n_before`` dialogues (pseudo-dialogues included), and each new one adds to every member the
    probability that this member wrote it: w_i <- (n w_i + w_i p_i(d) / sum_j w_j p_j(d)) / (n + 1).

    Args:
        log_likelihood_nats: log p_i(new dialogue's actions), shape (dialogues, members), in the order they came.

    Kind: estimate (one pass of expectation maximization; near its fixed point for many dialogues). Cost: dialogues x members.
    """
    moved = log_weights
    for n, row in enumerate(log_likelihood_nats):
        log_share = row + moved - np.logaddexp.reduce(row + moved)
        moved = np.logaddexp(np.log(n_before + n) + moved, log_share) - np.log(n_before + n + 1)
    return moved


def running_ratio_nats(log_ratios: FloatArray, episode: NDArray[np.int64]) -> FloatArray:
    """CUSUM S_t = max(0, S_{t-1} + log ratio_t), restarted at each episode; same shape as ``log_ratios``."""
    running = np.zeros_like(log_ratios)
    level = 0.0
    for i, ratio in enumerate(log_ratios):
        level = max(0.0, (level if i and episode[i] == episode[i - 1] else 0.0) + ratio)
        running[i] = level
    return running


def log_cap_nats(
    log_ratios: FloatArray, episode: NDArray[np.int64], turn: NDArray[np.int64], veto_rate: float
) -> float:
    """The smallest log c under which at most a share ``veto_rate`` of held-out turns is capped.

    A turn is capped when, following the demonstrator's own words, the running ratio network / counts exceeds c within it.

    Args:
        log_ratios: log q(x) / P(x) of each held-out action, shape (actions,).
        episode, turn: which dialogue and which turn of it each action belongs to, shape (actions,).

    Kind: exact quantile of the held-out turns (an estimate for new ones). Cost: O(actions).
    """
    if not len(log_ratios):
        raise InputError("no held-out action to choose the cap on; hold out more demonstrations")
    running = running_ratio_nats(log_ratios, episode)
    fresh = np.ones(len(turn), dtype=bool)
    fresh[1:] = (turn[1:] != turn[:-1]) | (episode[1:] != episode[:-1])
    worst_in_turn = np.sort(np.maximum.reduceat(running, np.flatnonzero(fresh)))
    allowed = int(np.floor(veto_rate * len(worst_in_turn) + 1e-9))
    return float(worst_in_turn[max(0, len(worst_in_turn) - 1 - allowed)])
