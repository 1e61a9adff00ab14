"""The training loop from outside: deterministic, resumable, within its budget, refusing NaN; its formulas by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.lm import protect as protect_module
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor, Stay
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.checkpoint import load_training, optimizer_tensors, save_training
from mightnt.lm.episodes import play_episodes
from mightnt.lm.llama import LlamaReader
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember, NetworkShape, build_network
from mightnt.lm.protect import (
    ProtectConfig,
    Training,
    advantages,
    learn,
    moved_price,
    next_price,
    protect,
    round_seed,
    summarize,
    surrogate,
    worth_of_a_nat,
)
from mightnt.lm.stage import Stage
from tests.lm.toys import MARKS, N_TOKENS, WIDTH, ToyMembers, ToyScene, toy_cast
from tests.strategies import seeds

SMALL = ProtectConfig(iterations=3, episodes=4, passes=1)


PENALTY, TARGET = Account(math.inf, penalty_per_nat=0.1), Account(math.inf, "floor", target_nats=1.0)


def beginning(account, base=None, config=SMALL, seed=0, **scene):
    """A fresh training among toys and its cast."""
    torch.manual_seed(seed)
    training = Training.fresh(Actor(WIDTH, N_TOKENS, account, hidden=8), config)
    return toy_cast(base or Minimum(), account, training.actor, **scene), training


def parameters(training):
    return torch.cat([parameter.detach().flatten() for parameter in training.actor.parameters()])


@pytest.mark.parametrize("base", [Single(), Capped(1.0)], ids=lambda base: base.name)
@pytest.mark.parametrize("account", [Account(2.0), Account(0.5, "floor"), Account(math.inf), PENALTY, TARGET])
def test_the_same_seed_trains_the_same_actor_and_no_round_exceeds_its_budget(base, account):
    ends = []
    for seed in (1, 1, 2):
        cast, training = beginning(account, base)
        protect(cast, training, SMALL, seed)
        ends.append((parameters(training), training.log, training.price))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]
    assert ends[0][1] != ends[2][1]
    assert len(ends[0][1]) == 3
    assert all(row["kl_base_max_nats"] <= account.budget_nats + 1e-6 for row in ends[0][1])


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path):
    """One iteration, a checkpoint, a fresh process's objects, two more: the same parameters, moments, price and log."""
    account = Account(1.0)
    cast, whole = beginning(account)
    protect(cast, whole, SMALL, seed=4)
    cast, first = beginning(account)
    protect(cast, first, replace(SMALL, iterations=1), seed=4)
    save_training(first, tmp_path / "training.safetensors", {"seed": 4})
    cast, resumed = beginning(account, seed=99)
    load_training(resumed, tmp_path / "training.safetensors", {"seed": 4})
    assert len(resumed.log) == 1
    protect(cast, resumed, SMALL, seed=4)
    assert torch.equal(parameters(resumed), parameters(whole))
    assert resumed.log == whole.log
    assert resumed.price == whole.price
    mine, others = optimizer_tensors(resumed.optimizer), optimizer_tensors(whole.optimizer)
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in others)


@pytest.mark.parametrize("hugging_face", [False, True])
def test_an_iteration_reads_every_token_once_and_the_update_none(hugging_face, monkeypatch):
    """All that enters the network, in order: each generated or given token of each dialogue once, then padding until the
    last dialogue is over. Learning, four passes of it, adds nothing.
    """
    read, given, played = [], [], []
    network = build_network(NetworkShape(WIDTH, 1, 1, 64), N_TOKENS, seed=0)
    network.model.embed_tokens.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].clone()))
    read_piece, hear_given, play = LlamaReader.read_piece, Stage.hear_given, play_episodes

    def reading(self, cache, tokens):
        read.append(tokens.clone())
        return read_piece(self, cache, tokens)

    def hearing(self, tokens):
        hear_given(self, tokens)
        given.append(int((tokens != MARKS.pad).sum()))

    def playing(*arguments, **more):
        played.append((play(*arguments, **more), len(read)))
        return played[-1][0]

    monkeypatch.setattr(LlamaReader, "read_piece", reading)
    monkeypatch.setattr(Stage, "hear_given", hearing)
    monkeypatch.setattr(protect_module, "play_episodes", playing)
    cast, training = beginning(Account(2.0), Single(), speaks=False)
    cast.members = Members([NetworkMember(network, hugging_face)], np.arange(N_TOKENS) >= MARKS.end)
    protect(cast, training, replace(SMALL, iterations=1, passes=4), seed=0)
    [(episodes, n_read)] = played
    entered = torch.cat(read, dim=1)
    assert len(read) == n_read == len(given) == entered.shape[1]
    spoken = entered != MARKS.pad
    assert int(spoken.sum()) == episodes.n_tokens + sum(given)
    assert episodes.n_tokens > len(episodes.decisions.row) > 20, "the other speaker spoke, too"
    assert (spoken[:, 1:] <= spoken[:, :-1]).all(), "padding only after the end"
    assert len(training.log) == 1
    assert training.log[0]["value_loss"] is not None


def test_a_finished_training_is_left_alone():
    cast, training = beginning(Account(1.0))
    protect(cast, training, SMALL, seed=0)
    before = parameters(training)
    protect(cast, training, SMALL, seed=0)
    assert torch.equal(parameters(training), before)
    assert len(training.log) == 3


def test_every_iteration_is_told_once_with_its_row_of_the_log():
    told = []
    cast, training = beginning(Account(1.0))
    protect(cast, training, SMALL, seed=0, on_iteration=lambda t: told.append((len(t.log), dict(t.log[-1]))))
    assert [n for n, _ in told] == [1, 2, 3]
    assert [row for _, row in told] == training.log
    assert set(training.log[0]) >= {
        *("proxy_reward", "true_utility", "kl_base_nats", "kl_base_max_nats", "kl_demonstrator_nats", "asks_per_turn"),
        *("policy_loss", "value_loss", "clip_fraction", "price_per_nat"),
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.5, -0.5])
def test_a_reward_outside_of_0_and_1_stops_before_anything_is_learnt(bad):
    class Broken(ToyScene):
        def score(self, rows, replies):
            return np.full(len(rows), bad)

    cast, training = beginning(Account(5.0), Single())
    cast.scene = Broken()
    before = parameters(training)
    with pytest.raises(InputError, match=r"a number in \[0, 1\] is needed"):
        protect(cast, training, SMALL, seed=0)
    assert torch.equal(parameters(training), before)
    assert training.log == []


def test_a_loss_that_is_no_number_stops_before_anything_is_learnt():
    cast, training = beginning(Account(5.0), Single())
    decisions = play_episodes(cast, 4, seed=0).decisions
    before = parameters(training)
    with pytest.raises(InputError, match="not a number"):
        learn(training, replace(decisions, reward=decisions.reward + math.nan), SMALL, seed=0)
    assert torch.equal(parameters(training), before)


@pytest.mark.parametrize(("vetoed", "turns", "rows"), [(2.0, 3, 6), (0.0, 1, 1)])
def test_rounds_with_no_decision_or_few_are_no_trouble(vetoed, turns, rows):
    """Everything asked: nothing to learn. One short episode: perhaps a single decision, which has no spread."""
    account = Account(1.0, "floor")
    cast, training = beginning(account, Capped(1.0), n_turns=turns, max_turn_tokens=1)
    cast.members = ToyMembers(vetoed=vetoed)
    protect(cast, training, replace(SMALL, episodes=rows), seed=0)
    assert len(training.log) == 3
    assert bool(parameters(training).isfinite().all())
    if vetoed > 1:
        assert training.log[0]["policy_loss"] is None
        assert training.log[0]["asks_per_turn"] == 1.0


def test_a_single_decision_can_be_learnt_from():
    account = Account(1.0)
    cast, training = beginning(account, Single(), n_turns=1, max_turn_tokens=1)
    decisions = play_episodes(cast, 1, seed=0).decisions
    assert len(decisions.row) == 1
    row = learn(training, decisions, SMALL, seed=0)
    assert math.isfinite(row["value_loss"])


class Echo(ToyScene):
    """Repeats what the agent said; its worth is the share of 5s."""

    def replies(self, rows, turns):
        return [[*(t for t in turn if t != 3), 3] for turn in turns]

    def score(self, rows, replies):
        return np.array([np.mean([token == 5 for token in reply]) for reply in replies])


@pytest.mark.parametrize("budget", [3.0, math.inf])
def test_it_learns_to_get_what_is_rewarded(budget):
    config = ProtectConfig(iterations=12, episodes=16, passes=3)
    cast, training = beginning(Account(budget), Single(), config)
    cast.scene = Echo()
    protect(cast, training, config, seed=0)
    rewards = [row["proxy_reward"] for row in training.log]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.05


def spent_at(account):
    """``(nats that a trained policy's mean episode of the echo spends, its training)``."""
    config = ProtectConfig(iterations=12, episodes=16, passes=3)
    cast, training = beginning(account, Single(), config)
    cast.scene = Echo()
    protect(cast, training, config, seed=0)
    return float(play_episodes(cast, 300, seed=5).spent_nats.mean()), training


def test_a_penalty_is_the_price_throughout_and_a_higher_one_buys_less():
    spent = []
    for penalty in (0.01, 0.1, 1.0):
        nats, training = spent_at(Account(math.inf, penalty_per_nat=penalty))
        assert [row["price_per_nat"] for row in training.log] == [penalty] * 12
        assert training.price == penalty
        spent.append(nats)
    assert spent[0] > 1.5 * spent[1] > 2 * spent[2], spent


def test_without_a_constraint_nothing_has_a_price():
    cast, training = beginning(Account(math.inf))
    protect(cast, training, SMALL, seed=0)
    assert {row["price_per_nat"] for row in training.log} == {0.0}


def test_under_a_penalty_the_first_update_follows_reward_less_penalty_times_kl():
    """Where the policy is still the one that played: -(what is still to come, less the value) log pi + beta x KL, at each
    decision, everything divided by the spread of the first.
    """
    account = Account(math.inf, penalty_per_nat=0.3)
    cast, training = beginning(account, Single())
    decisions = play_episodes(cast, 6, seed=0).decisions
    config = replace(SMALL, trace=1.0, value_weight=0.0)
    gain = decisions.reward - 0.3 * decisions.cost_nats.numpy()
    to_go = np.array([gain[i:][decisions.row[i:] == r].sum() for i, r in enumerate(decisions.row)])
    actor, batch = training.actor, torch.arange(len(gain))
    value = actor.value(decisions.features).detach().double().numpy()
    advantage = torch.from_numpy(to_go - value)
    advantage = (advantage - advantage.mean()) / (scale := float(advantage.std(correction=0)) + 1e-8)
    log_policy, kl = actor.policy(decisions.features, decisions.log_base, decisions.spendable_nats)
    said = log_policy[batch, decisions.choice]
    loss = -(advantage * said).mean() + 0.3 / scale * kl.mean()
    expected = torch.autograd.grad(loss, actor.leaning.weight)[0]
    seen = []
    actor.leaning.weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    learn(training, decisions, replace(config, minibatches=1), seed=0)
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=1e-3)


def by_definition(row, gain, value, trace):
    """A_t = sum_k lambda^k delta_{t+k} along the row, delta_t = gain_t + V_{t+1} - V_t."""
    result = np.zeros(len(row))
    for r in set(row.tolist()):
        mine = np.flatnonzero(row == r)
        v = [*value[mine], 0.0]
        delta = [gain[i] + v[k + 1] - v[k] for k, i in enumerate(mine)]
        for k, i in enumerate(mine):
            result[i] = sum(trace ** (j - k) * delta[j] for j in range(k, len(mine)))
    return result


@given(seeds, st.integers(0, 12), st.integers(1, 3), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_advantages_by_the_definition(seed, n, rows, trace):
    rng = np.random.default_rng(seed)
    row, gain, value = rng.integers(rows, size=n), rng.normal(size=n), rng.normal(size=n)
    advantage, target = advantages(row, gain, value, trace)
    np.testing.assert_allclose(advantage, by_definition(row, gain, value, trace), atol=1e-12)
    np.testing.assert_allclose(target, advantage.numpy() + value, atol=1e-12)
    if trace == 1.0:
        to_go = [sum(gain[j] for j in range(i, n) if row[j] == row[i]) for i in range(n)]
        np.testing.assert_allclose(target, to_go, atol=1e-12)


def test_advantages_by_hand():
    """Rows 0 1 0 with gains 1 2 3, values .5 .25 1, lambda .5: row 0 ends with 3 - 1 = 2, begins with 1.5 + 1 = 2.5."""
    advantage, target = advantages(np.array([0, 1, 0]), np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.25, 1.0]), 0.5)
    assert advantage.tolist() == [2.5, 1.75, 2.0]
    assert target.tolist() == [3.0, 2.0, 3.0]


shares = st.floats(0.0, 1.0)


@given(shares, shares, st.floats(0.001, 10.0))
def test_the_price_rises_where_more_was_spent_and_never_leaps(one, other, price):
    config = ProtectConfig()
    low, high = (next_price(price, share, config) for share in sorted((one, other)))
    assert 0 < low <= high
    for new in (low, high):
        assert abs(math.log(new / price)) <= config.price_step_limit * (1 + 1e-9)


def test_the_price_never_vanishes():
    config, price = ProtectConfig(), 0.01
    for _ in range(1000):
        price = next_price(price, 0.0, config)
    assert 0 < price < 0.01
    assert next_price(price, 0.999, config) > price


def test_the_price_rests_where_the_target_is_left_unspent_and_moves_towards_it():
    config = ProtectConfig(unspent_target=0.05)
    assert next_price(0.01, 0.95, config) == pytest.approx(0.01)
    assert next_price(0.01, 0.90, config) < 0.01 < next_price(0.01, 0.97, config)
    assert next_price(0.01, 1.0 + 1e-7, config) <= 0.01 * math.exp(config.price_step_limit) * (1 + 1e-9)


def test_the_price_under_a_target_by_hand():
    """Target 10 nats, 5 after 2.5: the change from -1 (clipped) to -log 2 raises it twice, the level lowers it by a tenth."""
    config = ProtectConfig(price_step=0.1)
    log = [{"kl_base_nats": nats} for nats in (99.0, 2.5, 5.0)]
    moved = moved_price(0.01, log, Account(math.inf, target_nats=10.0), config)
    assert math.log(moved / 0.01) == pytest.approx(-0.1 * math.log(2) + 2 * (1 - math.log(2)))
    first = moved_price(0.01, log[:1], Account(math.inf, target_nats=10.0), config)
    assert math.log(first / 0.01) == pytest.approx(0.1)


def round_of(share, reward=0.4, budget=10.0):
    return {"kl_base_nats": budget * share, "proxy_reward": reward}


def test_what_is_kept_in_reserve_is_not_unspent():
    """Who has leant with all but the reserve has left nothing: the price rises as fast as without one."""
    config = ProtectConfig()
    without, kept = Account(10.0, reserve=0.0), Account(10.0, reserve=0.1)
    for share in (0.5, 1 - config.unspent_target, 0.99, 1.0):
        moved = moved_price(0.01, [round_of(0.5), round_of(share, 0.9, 9.0)], kept, config)
        assert moved == pytest.approx(moved_price(0.01, [round_of(0.5), round_of(share, 0.9)], without, config))
    assert moved_price(0.01, [round_of(0.9)], Account(10.0, reserve=1.0), config) == 0.01


def test_only_a_budget_and_a_target_move_the_price():
    log = [round_of(0.5)]
    for account in (Account(math.inf), PENALTY, Account(0.0)):
        assert moved_price(0.01, log, account, ProtectConfig()) == 0.01
    assert moved_price(0.01, log, Account(10.0), ProtectConfig()) == next_price(0.01, 0.5, ProtectConfig())


def test_the_price_does_not_run_away_from_a_policy_that_buys_everything_at_once():
    """It spends all it may in every round, whatever the price: 0.2 more reward for 10 nats, so half of 0.02 a nat is the end."""
    account, config, price = Account(10.0, reserve=0.0), ProtectConfig(), 0.005
    log = [round_of(0.7, 0.4)]
    for _ in range(100):
        log.append(round_of(1.0, 0.6))
        price = moved_price(price, log, account, config)
    assert price == pytest.approx(0.01)
    assert worth_of_a_nat(log) == pytest.approx(0.02)


def test_a_price_above_what_a_nat_earns_still_falls_and_never_rises():
    account, config = Account(10.0, reserve=0.0), ProtectConfig()
    for reward in (0.4, 0.3, 0.41):  # nothing gained, a loss, hardly anything
        assert moved_price(0.05, [round_of(0.7), round_of(1.0, reward)], account, config) == 0.05
        lower = moved_price(0.05, [round_of(0.7), round_of(0.2, reward)], account, config)
        assert lower == next_price(0.05, 0.2, config) < 0.05


def test_a_nat_that_was_not_spent_earns_nothing():
    assert worth_of_a_nat([round_of(0.5, 0.2), round_of(0.0, 0.9)]) == 0.0
    assert worth_of_a_nat([{"kl_base_nats": None, "proxy_reward": None}]) == 0.0


def test_rounds_have_seeds_of_their_own():
    found = {round_seed(seed, iteration) for seed in range(20) for iteration in (*range(50), 7_000_000, 7_000_001)}
    assert len(found) == 20 * 52
    assert round_seed(3, 4) == round_seed(3, 4) != round_seed(4, 3)


def played(account=None):
    cast, training = beginning(account or Account(2.0), Single())
    return training, play_episodes(cast, 6, seed=0)


def test_at_the_policy_that_played_no_ratio_has_moved():
    """r = 1: the policy loss is minus the mean advantage, nothing is clipped, and the price is on the tilt alone."""
    training, episodes = played()
    decisions = episodes.decisions
    batch, free = torch.arange(len(decisions.row)), torch.ones(len(decisions.row), dtype=torch.bool)
    advantage, target = torch.linspace(-1, 2, len(batch)).double(), torch.ones(len(batch)).double()
    unpriced, priced = (
        [
            float(term.detach())
            for term in surrogate(training.actor, decisions, batch, free, advantage, target, price, SMALL)
        ]
        for price in (0.0, 3.0)
    )
    assert unpriced[1] == pytest.approx(-float(advantage.mean()), abs=1e-6)
    assert unpriced[3] == pytest.approx(0.0)
    value = training.actor.value(decisions.features).detach().double()
    assert unpriced[2] == pytest.approx(float(((value - 1) ** 2).mean()))
    assert unpriced[0] == pytest.approx(unpriced[1] + SMALL.value_weight * unpriced[2])
    assert priced[0] - unpriced[0] == pytest.approx(3.0 * float(decisions.cost_nats.mean()), abs=1e-5)


def test_a_ratio_beyond_the_range_is_clipped_where_that_is_worse():
    """The policy that played gave e^-.5 of today's probability: ratio 1.65, clipped to 1.2 for gains, not for losses."""
    training, episodes = played()
    decisions = replace(episodes.decisions, log_probability=episodes.decisions.log_probability - 0.5)
    batch, free = torch.arange(len(decisions.row)), torch.ones(len(decisions.row), dtype=torch.bool)
    ones = torch.ones(len(batch)).double()
    gain = surrogate(training.actor, decisions, batch, free, ones, ones, 0.0, SMALL)
    loss = surrogate(training.actor, decisions, batch, free, -ones, ones, 0.0, SMALL)
    assert float(gain[1].detach()) == pytest.approx(-1 - SMALL.clip, abs=1e-5)
    assert float(loss[1].detach()) == pytest.approx(math.exp(0.5), abs=1e-5)
    assert float(gain[3]) == 1.0


@pytest.mark.parametrize("account", [Account(2.0), Account(math.inf, penalty_per_nat=0.1), Account(math.inf)])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_where_there_is_one_choice_nothing_is_learnt_of_choosing(account, all_of_them):
    """Looking at such decisions or passing over them is the same: loss, gradients and all."""
    training, episodes = played(account)
    decisions, batch = episodes.decisions, torch.arange(len(episodes.decisions.row))
    free = torch.zeros_like(batch, dtype=torch.bool) if all_of_them else batch % 3 == 0
    only = torch.full_like(decisions.log_base, -torch.inf).scatter(1, decisions.choice[:, None], 0.0)
    decisions = replace(
        decisions,
        log_base=torch.where(free[:, None], decisions.log_base, only),
        log_probability=torch.where(free, decisions.log_probability, 0.0),
    )
    advantage, target = torch.linspace(-1, 2, len(batch)).double(), torch.ones(len(batch)).double()
    found = []
    for seen in (free, torch.ones_like(free)):
        training.actor.zero_grad(set_to_none=True)
        terms = surrogate(training.actor, decisions, batch, seen, advantage, target, 0.3, SMALL)
        terms[0].backward()
        gradients = [parameter.grad for parameter in training.actor.parameters()]
        found.append(([float(term.detach()) for term in terms], gradients))
    assert found[0][0] == pytest.approx(found[1][0])
    for passed_over, looked_at in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(passed_over, looked_at, rtol=1e-4, atol=1e-7)


def test_the_summary_is_the_means():
    account = Account(1.0)
    cast = toy_cast(Capped(1.0), account, Stay())
    episodes = play_episodes(cast, 7, seed=0)
    row = summarize(episodes, account)
    assert row["proxy_reward"] == pytest.approx(episodes.proxy_reward.mean())
    assert row["true_utility"] == pytest.approx(episodes.true_utility.mean())
    assert row["kl_base_nats"] == pytest.approx(episodes.spent_nats.mean())
    assert row["kl_base_max_nats"] == episodes.spent_nats.max()
    assert row["kl_demonstrator_nats"] == pytest.approx(episodes.kl_demonstrator_nats.mean())
    assert row["asks_per_turn"] == pytest.approx(episodes.asked_turns.sum() / 21)
    assert row["over_budget_episodes"] == 0
    over = summarize(replace(episodes, spent_nats=np.array([1.0 + 5e-7, 1.1, 0.0])), account)
    assert over["over_budget_episodes"] == 1
    unknown = play_episodes(toy_cast(Single(), account, Stay(), demonstrator_known=False), 2, seed=0)
    assert summarize(unknown, account)["true_utility"] is summarize(unknown, account)["kl_demonstrator_nats"] is None
