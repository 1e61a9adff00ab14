"""Fitting: it learns, it is repeatable, and a killed fit ends where the other does."""

import math

import numpy as np
import pytest
import torch

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.fitting import Batches, FitConfig, batch_loss, fit
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.scoring import mean_loss, token_log_probs
from mightnt.lm.tokens import encode, word_tokenizer
from mightnt.lm.windows import padded, windows

WORDS = ["yes", "no", "why", "so"]
QUICK = FitConfig(steps=12, batch_dialogues=4, warmup_steps=2, evaluate_every_steps=5, checkpoint_every_steps=3)


def corpus(n=20, seed=0):
    """Chats in which the assistant repeats the user's last word: learnable from context only."""
    rng = np.random.default_rng(seed)
    dialogues = []
    for _ in range(n):
        said = [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
        turns = [(Message("user", text), Message("assistant", text.split()[-1])) for text in said]
        dialogues.append(tuple(message for pair in turns for message in pair))
    return encode(word_tokenizer(WORDS), dialogues)


def network_of(seed=0, context=64, vocabulary=8):
    return build_network(NetworkShape(width=32, layers=2, heads=2, context=context), vocabulary, seed)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_it_learns_to_repeat_a_word():
    network, held_out = network_of(), corpus(seed=9)
    record = fit(network, corpus(n=200), FitConfig(steps=200), seed=0, held_out=held_out)
    before, after = record.losses_nats_per_token[0], record.held_out_nats_per_token[-1][1]
    assert before == pytest.approx(math.log(8), abs=0.5)
    assert after == pytest.approx(mean_loss(network, held_out))
    acted = -token_log_probs(network, held_out)[held_out.is_action].mean()
    assert acted < 0.1, "guessing costs log(4) a word: 0.69 an action, the end being certain"


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    results = [(network := network_of(), fit(network, corpus(), QUICK, seed=seed)) for seed in (1, 1, 2)]
    assert torch.equal(weights(results[0][0]), weights(results[1][0]))
    assert results[0][1].losses_nats_per_token == results[1][1].losses_nats_per_token
    assert not torch.equal(weights(results[0][0]), weights(results[2][0]))


def test_a_killed_fit_continues_to_the_same_end(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, loss):
        if step == 8:
            raise Killed

    whole = network_of()
    expected = fit(whole, corpus(), QUICK, seed=3, held_out=corpus(seed=5))
    with pytest.raises(Killed):
        fit(network_of(), corpus(), QUICK, seed=3, on_step=kill, held_out=corpus(seed=5), checkpoint=tmp_path / "c")
    continued, seen = network_of(), []
    got = fit(
        continued,
        corpus(),
        QUICK,
        seed=3,
        on_step=lambda step, loss: seen.append(step),
        held_out=corpus(seed=5),
        checkpoint=tmp_path / "c",
    )
    assert seen == [7, 8, 9, 10, 11, 12]
    assert torch.equal(weights(continued), weights(whole))
    assert got.losses_nats_per_token == expected.losses_nats_per_token
    assert got.held_out_nats_per_token == expected.held_out_nats_per_token
    assert (got.n_tokens, got.padding_share) == (expected.n_tokens, expected.padding_share)
    again = network_of()
    assert fit(again, corpus(), QUICK, seed=3, checkpoint=tmp_path / "c") == got
    assert torch.equal(weights(again), weights(whole))


@pytest.mark.parametrize("other", ["seed", "data", "network", "config"])
def test_a_checkpoint_of_another_fit_is_refused(other, tmp_path):
    fit(network_of(), corpus(), QUICK, seed=3, checkpoint=tmp_path / "c")
    config = FitConfig(steps=13) if other == "config" else QUICK
    with pytest.raises(InputError, match="belongs to a fit of other data"):
        fit(
            network_of(seed=other == "network"),
            corpus(seed=other == "data"),
            config,
            seed=4 if other == "seed" else 3,
            checkpoint=tmp_path / "c",
        )


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "c").write_text("hello")
    with pytest.raises(InputError, match="is no checkpoint"):
        fit(network_of(), corpus(), QUICK, seed=3, checkpoint=tmp_path / "c")


def test_a_checkpoint_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fit(network_of(), corpus(), QUICK, seed=3, checkpoint=tmp_path / "file" / "c")


def test_held_out_is_scored_when_asked_and_at_the_end():
    record = fit(network_of(), corpus(), QUICK, seed=0, held_out=corpus(seed=5))
    assert [step for step, _ in record.held_out_nats_per_token] == [5, 10, 12]
    assert len(record.losses_nats_per_token) == 12


def test_the_loss_is_the_mean_over_counted_tokens_whatever_stands_in_the_padding():
    network, encoded = network_of(), corpus()
    tokens, counted = padded(encoded, windows(encoded, 64), np.arange(encoded.n_dialogues))
    inside = np.arange(tokens.shape[1]) < encoded.lengths[:, None]
    for filler in (0, 7):
        loss = batch_loss(network, np.where(inside, tokens, filler), counted).item()
        assert loss == pytest.approx(mean_loss(network, encoded), abs=1e-5)


def test_the_record_counts():
    encoded = corpus()
    config = FitConfig(steps=6, batch_dialogues=encoded.n_dialogues, warmup_steps=0)
    record = fit(network_of(), encoded, config, seed=0)
    assert record.n_dialogues == encoded.n_dialogues
    assert record.n_longer_than_context == 0
    assert record.n_tokens == 6 * (encoded.tokens.size - encoded.n_dialogues)
    rectangle = encoded.n_dialogues * encoded.lengths.max()
    assert record.padding_share == pytest.approx(1 - encoded.tokens.size / rectangle)
    short = fit(network_of(context=8), encoded, QUICK, seed=0)
    assert short.n_longer_than_context == (encoded.lengths > 8).sum() > 0


def test_each_pass_takes_every_window_once_with_little_padding():
    lengths = np.random.default_rng(0).integers(5, 100, 203)
    batches = Batches(lengths, 16, seed=1)
    first = [batches[i] for i in range(batches.per_pass)]
    second = [batches[batches.per_pass + i] for i in range(batches.per_pass)]
    for one in (first, second):
        np.testing.assert_array_equal(np.sort(np.concatenate(one)), np.arange(203))
        assert max(map(len, one)) <= 16
        computed = sum(len(rows) * lengths[rows].max() for rows in one)
        assert computed < 1.2 * lengths.sum()
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    np.testing.assert_array_equal(Batches(lengths, 16, seed=1)[batches.per_pass + 3], second[3])


def test_the_rate_rises_then_falls_to_zero():
    config = FitConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [config.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == 0.0
    assert FitConfig(steps=3, warmup_steps=50).rate(2) < 0.1 * FitConfig().learning_rate


def test_updates_use_the_rate_of_their_step():
    network = network_of()
    before = weights(network)
    fit(network, corpus(), FitConfig(steps=1, learning_rate=1e-2, warmup_steps=99), seed=0)
    moved = (weights(network) - before).abs().max().item()
    assert moved == pytest.approx(1e-4, rel=0.05), "the first step of AdamW moves a weight by the rate"


def test_a_loss_that_is_not_a_number_stops_the_fit_and_leaves_the_weights_finite():
    network = network_of()
    with torch.no_grad():
        network.model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match=r"loss or gradient is nan at step 1; lower learning_rate"):
        fit(network, corpus(), QUICK, seed=0)
    wild = network_of()
    with pytest.raises(InputError, match="loss or gradient is"):
        fit(wild, corpus(), FitConfig(steps=50, learning_rate=1e30, warmup_steps=0), seed=0)
    assert weights(wild).isfinite().all()


def test_data_that_does_not_fit_the_network_is_refused():
    with pytest.raises(InputError, match=r"token 7 exceeds the network's 6"):
        fit(network_of(vocabulary=6), corpus(), QUICK, seed=0)
    with pytest.raises(InputError, match="no dialogues"):
        fit(network_of(), corpus().rows([]), QUICK, seed=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch_dialogues": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -1.0},
        {"warmup_steps": -1},
        {"checkpoint_every_steps": 0},
    ],
)
def test_dials_out_of_range_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        FitConfig(**changes)
