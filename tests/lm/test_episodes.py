"""No episode spends more than its budget, everything said and paid is in the records, and rows are strangers to each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import BudgetError, InputError
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor, Stay
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.episodes import draw, play_episodes
from mightnt.lm.members import Members, MemberStep, over_actions
from mightnt.lm.networks import NetworkMember
from mightnt.lm.run import cast_for
from mightnt.lm.scoring import scores
from mightnt.models.counts import suffixes_of
from tests.lm.toys import MARKS, N_TOKENS, WIDTH, ToyMembers, moved, sure_token, toy_cast, worth
from tests.strategies import seeds

INF = math.inf
MIXED = Mixture(tuple(np.log([0.5, 0.25, 0.25]).tolist()))
COMPLETE = (Single(), Single("counts", of_counts=True), MIXED, Known())
"""Bases that miss nothing."""
BASES = (*COMPLETE, Minimum(), Capped(1.0), Capped(0.0, name="tight"))

accounts = st.builds(
    Account,
    st.sampled_from([0.0, 1e-3, 1.0, 10.0, INF]),
    st.sampled_from(["floor", "charged"]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


def wild_actor(account, seed=0, size=1.0, share_bias=-2.0):
    """An actor with random parameters of any size, who spends much or little at once."""
    torch.manual_seed(seed)
    actor = Actor(WIDTH, N_TOKENS, account, hidden=6)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(size)
        actor.share.bias.fill_(share_bias)
    return actor


@st.composite
def plays(draw, bases=BASES):
    """Episodes of a wild actor among toys, all transcripts kept, with the cast and the account."""
    account = draw(accounts)
    share_bias, size = draw(st.sampled_from([-3.0, 0.0, 60.0])), draw(st.sampled_from([1.0, 30.0, 1e4]))
    actor = draw(st.sampled_from([wild_actor(account, draw(st.integers(0, 99)), size, share_bias), Stay()]))
    scene = {
        "n_turns": draw(st.integers(1, 3)),
        "speaks": draw(st.booleans()),
        "demonstrator_known": True,
    }
    cast = toy_cast(draw(st.sampled_from(bases)), account, actor, **scene)
    rows, seed = draw(st.integers(1, 5)), draw(seeds)
    return play_episodes(cast, rows, seed % 2**63, n_transcripts=rows), cast


def per_row(episodes, values):
    return np.bincount(episodes.decisions.row, np.asarray(values), minlength=len(episodes.turns))


@settings(max_examples=50)
@given(plays())
def test_no_episode_spends_more_than_its_budget_and_what_is_spent_is_the_sum_of_the_costs(play):
    episodes, cast = play
    assert (episodes.spent_nats <= cast.account.budget_nats + 1e-6).all()
    np.testing.assert_allclose(episodes.spent_nats, per_row(episodes, episodes.decisions.cost_nats), atol=1e-9)
    assert (episodes.decisions.cost_nats >= 0).all()
    assert (episodes.turns == cast.scene.n_turns).all()
    assert (episodes.asked_turns <= episodes.turns).all()


@settings(max_examples=40)
@given(plays())
def test_every_choice_was_possible_and_asking_only_where_it_was_offered(play):
    decisions = play[0].decisions
    if len(decisions.row):
        chosen = decisions.log_base.gather(1, decisions.choice[:, None])
        assert bool((chosen > -INF).all())
        assert bool((decisions.log_probability <= 1e-9).all())
        assert decisions.log_base.exp().sum(1).tolist() == pytest.approx([1.0] * len(decisions.row))
        if play[1].account.asking == "floor":
            assert bool((decisions.choice < N_TOKENS).all())


class Nearly(Single):
    """A base that misses one part in ten thousand everywhere."""

    def predict(self, state, step):
        return super().predict(state, step) - 1e-4


@pytest.mark.parametrize(("reserve", "asks"), [(0.0, True), (0.025, False)])
@pytest.mark.parametrize("asking", ["floor", "charged"])
def test_who_has_leant_with_everything_pays_small_tolls_from_the_reserve_and_need_not_ask(reserve, asks, asking):
    account = Account(1.0, asking, reserve=reserve)
    episodes = play_episodes(toy_cast(Nearly(), account, wild_actor(account, share_bias=60.0)), 20, 0)
    assert (episodes.spent_nats > 0.97).all()
    assert (episodes.asked_turns > 0).all() if asks else not episodes.asked_turns.any()


def assistant_turns(said):
    """The agent's turns of a transcript, each with the reply that followed: ``[(tokens, reply)]``."""
    turns, reply = [], []
    for token in said:
        if token.speaker == "assistant":
            if reply or not turns:
                turns.append(([], []))
                reply = []
            turns[-1][0].append(token)
        elif turns:
            reply = turns[-1][1]
            reply.append(token)
    return turns


def is_decision(token):
    """Whether the agent decided here: its own token, or an ask it chose and paid for."""
    return token.kl_base_nats is not None and (not token.asked or token.kl_base_nats > 0)


@settings(max_examples=50)
@given(plays())
def test_transcripts_add_up(play):
    """Whole dialogues; costs, distances, asks and the agent's choices are those of the record."""
    episodes, cast = play
    for row, said in enumerate(episodes.transcripts):
        turns = assistant_turns(said)
        assert len(turns) == cast.scene.n_turns
        assert all(own[-1].token == MARKS.end and reply[-1].token == MARKS.end for own, reply in turns)
        actions = [token for own, _ in turns for token in own if token.kl_base_nats is not None]
        assert all(token.kl_base_nats is None for _, reply in turns for token in reply)
        assert sum(token.kl_base_nats for token in actions) == pytest.approx(episodes.spent_nats[row], abs=1e-9)
        distance = sum(token.kl_demonstrator_nats for token in actions)
        assert distance == pytest.approx(episodes.kl_demonstrator_nats[row], abs=1e-9)
        assert sum(token.asked for token in actions) == episodes.demonstrator_tokens[row]
        assert sum(any(token.asked for token in own) for own, _ in turns) == episodes.asked_turns[row]
        choices = episodes.decisions.choice[torch.from_numpy(episodes.decisions.row == row)].tolist()
        decided = [N_TOKENS if token.asked else token.token for token in actions if is_decision(token)]
        assert decided == choices


@settings(max_examples=50)
@given(plays())
def test_once_asked_the_demonstrator_finishes_the_turn_and_it_costs_nothing(play):
    for said in play[0].transcripts:
        for own, _ in assistant_turns(said):
            actions = [token for token in own if token.kl_base_nats is not None]
            asked = [token.asked for token in actions]
            assert asked == sorted(asked), "the agent speaks again in a turn that the demonstrator took over"
            after_the_first = [token for token in actions if token.asked][1:]
            assert all(token.kl_base_nats == token.kl_demonstrator_nats == 0 for token in after_the_first)


@settings(max_examples=40)
@given(plays(bases=(Minimum(), Capped(0.0))))
def test_rewards_go_to_the_last_decision_before_them(play):
    """A reply's reward over the number of turns; before an episode's first decision nobody is credited."""
    episodes, cast = play
    for row, said in enumerate(episodes.transcripts):
        credited, total = [], 0.0
        for own, reply in assistant_turns(said):
            credited += [0.0 for token in own if is_decision(token)]
            heard = [token.token for token in reply]
            limit = 99 if cast.scene.speaks else cast.scene.max_reply_tokens
            reward = worth(heard[:limit]) / cast.scene.n_turns
            total += reward
            if credited:
                credited[-1] += reward
        assert episodes.decisions.reward[episodes.decisions.row == row] == pytest.approx(credited)
        assert episodes.proxy_reward[row] == pytest.approx(total)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_the_same_seed_gives_the_same_episodes_and_another_seed_others(base):
    account = Account(3.0)
    one, same, other = (
        play_episodes(toy_cast(base, account, wild_actor(account)), 3, seed, n_transcripts=3) for seed in (5, 5, 6)
    )
    assert one.transcripts == same.transcripts != other.transcripts
    assert one.spent_nats.tolist() == same.spent_nats.tolist()
    for name, value in vars(one.decisions).items():
        assert np.array_equal(np.asarray(value), np.asarray(getattr(same.decisions, name))), name


@pytest.mark.parametrize("base", COMPLETE, ids=lambda base: base.name)
@pytest.mark.parametrize("asking", ["floor", "charged"])
def test_with_nothing_to_spend_the_agent_plays_the_base_exactly(base, asking):
    account = Account(0.0, asking)
    episodes = play_episodes(toy_cast(base, account, wild_actor(account)), 8, seed=1)
    assert episodes.spent_nats.tolist() == pytest.approx([0.0] * 8, abs=1e-12)
    assert (episodes.decisions.cost_nats >= 0).all()
    assert episodes.asked_turns.sum() == 0
    base_of_choice = episodes.decisions.log_base.gather(1, episodes.decisions.choice[:, None]).squeeze(1)
    torch.testing.assert_close(episodes.decisions.log_probability, base_of_choice, atol=1e-12, rtol=0)


@pytest.mark.parametrize("base", [Minimum(), Capped(0.0)], ids=lambda base: base.name)
@pytest.mark.parametrize("asking", ["floor", "charged"])
def test_with_nothing_to_spend_a_base_that_misses_mass_asks_in_every_turn_it_would_have_to_pay_for(base, asking):
    account = Account(0.0, asking, 0.0)
    episodes = play_episodes(toy_cast(base, account, wild_actor(account)), 8, seed=1)
    assert episodes.asked_turns.sum() > 12
    assert episodes.spent_nats.tolist() == pytest.approx([0.0] * 8, abs=1e-6)


def test_where_nothing_is_ever_vouched_for_there_are_no_decisions():
    members = ToyMembers(vetoed=2.0)
    for budget in (0.0, 1.0, INF):
        account = Account(budget, "floor")
        episodes = play_episodes(toy_cast(Capped(1.0), account, wild_actor(account), members), 3, seed=0)
        assert len(episodes.decisions.row) == 0
        assert episodes.asked_turns.tolist() == episodes.turns.tolist() == [3, 3, 3]
        assert episodes.spent_nats.tolist() == episodes.kl_demonstrator_nats.tolist() == [0.0] * 3


@pytest.mark.parametrize("known", [True, False])
def test_what_is_asked_is_said_by_the_demonstrator_or_the_first_network_as_its_stand_in(known):
    """Everything is asked. A sure demonstrator says its one token; else the first network, here as sure of another one."""
    members = ToyMembers(vetoed=2.0)
    members.tables[0] = -INF
    members.tables[0, :, 6] = 0.0
    cast = toy_cast(Capped(1.0), Account(1.0), Stay(), members, demonstrator_known=known, sure=True)
    episodes = play_episodes(cast, 4, seed=0, n_transcripts=4)
    for said in episodes.transcripts:
        for own, _ in assistant_turns(said):
            state = 0
            for token in (token for token in own if token.kl_base_nats is not None):
                assert token.token == (sure_token(state) if known else 6)
                state = moved(state, token.token)
    assert (episodes.kl_demonstrator_nats is None) == (episodes.true_utility is None) == (not known)


@pytest.mark.parametrize("budget", [0.5, 10.0, INF])
@pytest.mark.parametrize("asking", ["floor", "charged"])
def test_from_the_known_demonstrator_the_two_distances_are_one(budget, asking):
    account = Account(budget, asking)
    episodes = play_episodes(toy_cast(Known(), account, wild_actor(account, size=10.0, share_bias=0.0)), 8, seed=2)
    assert episodes.spent_nats.max() > 0.3
    np.testing.assert_allclose(episodes.kl_demonstrator_nats, episodes.spent_nats, atol=1e-9)
    np.testing.assert_allclose(episodes.decisions.kl_demonstrator_nats, episodes.decisions.cost_nats, atol=1e-9)


class Overspender(Stay):
    """Names a higher price than it was told it may spend."""

    def policy(self, features, log_base, spendable_nats):
        return log_base, spendable_nats + 1e-3


def test_a_policy_that_overspends_stops_everything():
    with pytest.raises(BudgetError, match="exceed"):
        play_episodes(toy_cast(Single(), Account(1.0, reserve=0.0), Overspender()), 2, seed=0)


def test_a_policy_that_is_told_the_truth_sees_what_is_left_before_and_after_the_toll():
    account = Account(2.0, "floor", reserve=0.05)
    seen = []

    class Watching(Actor):
        def features(self, hidden, left_nats, toll_nats):
            seen.append((left_nats, toll_nats))
            return super().features(hidden, left_nats, toll_nats)

    torch.manual_seed(0)
    actor = Watching(WIDTH, N_TOKENS, account, hidden=6, first_share=0.3)
    decisions = play_episodes(toy_cast(Minimum(), account, actor), 1, seed=0).decisions
    assert len(decisions.row) > 2
    spent = 0.0
    for i, (left, toll) in enumerate(seen):
        assert float(left) == pytest.approx(2.0 - spent)
        assert float(toll) <= 2.0 - spent + 1e-8
        assert float(decisions.spendable_nats[i]) == pytest.approx(max(0.0, float(left - toll) - 0.1), abs=1e-9)
        spent += float(decisions.cost_nats[i])


def test_draws_have_the_given_probabilities():
    p = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
    drawn = draw(p.log().repeat(20_000, 1), torch.Generator().manual_seed(0))
    assert (torch.bincount(drawn, minlength=4) / 20_000).tolist() == pytest.approx(p.tolist(), abs=0.015)


@pytest.mark.parametrize("number", [0.0, 0.2, 1 - 2**-53])
def test_what_has_no_probability_is_never_drawn(number, monkeypatch):
    """At both ends of the dice, on the edge between two symbols, and where rounding leaves the sums below or above 1."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, number, dtype=torch.float64))
    p = torch.tensor([[0.0, 0.2, 0.0, 0.3, 0.5, 0.0], [0.0, 0.1, 0.1, 0.7, 0.0, 0.1 + 2e-16]], dtype=torch.float64)
    drawn = draw(p.log(), torch.Generator())
    assert (p.gather(1, drawn[:, None]) > 0).all()
    assert drawn.tolist() == {0.0: [1, 1], 0.2: [3, 3], 1 - 2**-53: [4, 5]}[number]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nothing_is_drawn_from_what_is_no_distribution(bad):
    log_p = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log()
    log_p[1] = bad
    with pytest.raises(InputError, match="to draw from"):
        draw(log_p, torch.Generator())


class Recorder(Members):
    """Members that keep every token they were given and the rows that were predicted before each."""

    def start(self, rows):
        super().start(rows)
        self.heard, self.predicted = [], []

    def advance(self, tokens):
        super().advance(tokens)
        self.heard.append(tokens.clone())

    def predict(self, rows, demonstrator=None):
        self.predicted.append((len(self.heard), rows.clone(), demonstrator))
        return super().predict(rows, demonstrator)


def recorded(imitators, scene, base, account, rows, seed):
    """Episodes of real imitators with everything the members heard, shape (rows, length), and were asked."""
    actor = Actor(imitators.networks[0].config.hidden_size, len(imitators.counts.is_action), account)
    members = Recorder(
        [NetworkMember(network) for network in imitators.networks],
        imitators.counts.is_action,
        imitators.counts,
        imitators.support,
    )
    cast = cast_for(imitators, scene, base, account, actor)
    cast.members = members
    episodes = play_episodes(cast, rows, seed, n_transcripts=rows)
    return episodes, torch.stack(members.heard, dim=1), members.predicted


def whole(imitators, tokens):
    """What members say before every token of one finished dialogue, from one forward pass over all of it."""
    is_action = torch.from_numpy(imitators.counts.is_action)
    networks = torch.stack([over_actions(scores(n, tokens[None])[0], is_action) for n in imitators.networks])
    suffixes = suffixes_of(tokens.numpy(), np.array([0, len(tokens)]), imitators.counts.longest)
    counts = torch.from_numpy(imitators.counts.predict(suffixes))
    supported = torch.from_numpy(imitators.counts.supported(suffixes, imitators.support))

    def at(place, demonstrator):
        here = networks[:, place - 1 : place]
        return MemberStep(here, counts[[place]], supported[[place]], demonstrator, here[0])

    return at


@pytest.mark.parametrize("base", ["single", "mixture", "pessimistic", "pessimistic-minimum", "counts", "known"])
def test_every_base_was_what_the_finished_dialogue_alone_says(base, imitators, short_chat):
    """Row by row, from scratch: no row has seen another, and no token came late, early or twice."""
    account = Account(20.0, "floor")
    episodes, heard, predicted = recorded(imitators, short_chat, base, account, rows=3, seed=0)
    chooser, n_checked = imitators.base(base), 0
    for row in range(3):
        mine = np.flatnonzero(episodes.decisions.row == row)
        actions = [token for token in episodes.transcripts[row] if token.kl_base_nats is not None]
        places = [(t, mu[rows.tolist().index(row)][None]) for t, rows, mu in predicted if row in rows.tolist()]
        state, decision, at = chooser.start(1), 0, whole(imitators, heard[row])
        for said, (place, mu) in zip(actions, places, strict=True):
            step = at(place, mu)
            if not said.asked:
                log_nu, found = chooser.predict(state, step), episodes.decisions.log_base[mine[decision], :-1]
                torch.testing.assert_close(found, log_nu.log_softmax(1)[0], atol=2e-4, rtol=1e-4)
                decision += 1
            token = heard[row, place : place + 1]
            assert int(token) == said.token
            state = chooser.advance(state, step, token, torch.tensor([not said.asked]))
        assert decision == len(mine)
        n_checked += decision
    assert n_checked > 10


@pytest.mark.parametrize("base", ["single", "mixture", "pessimistic", "pessimistic-minimum", "counts", "known"])
@pytest.mark.parametrize(("asking", "budget"), [("floor", 3.0), ("charged", 0.2)])
def test_real_imitators_keep_their_budget_too(base, asking, budget, imitators, short_chat):
    episodes, _, _ = recorded(imitators, short_chat, base, Account(budget, asking), rows=3, seed=1)
    assert (episodes.spent_nats <= budget + 1e-6).all()
    np.testing.assert_allclose(episodes.spent_nats, per_row(episodes, episodes.decisions.cost_nats), atol=1e-9)
