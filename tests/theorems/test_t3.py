"""T3: pessimism bounds the distance to the demonstrator.

(a) If mu is in the top set along the history, nu_alpha <= mu, so KL(pi, mu) <= KL(pi, nu_alpha).
(b) mu stays in the top set for ever with probability >= 1 - alpha / w(mu), when only its own actions are evidence.
(c) A minimum over trajectories gives (a) as well and lies between the product of token minima and mu.
(d) Where asking is an action, each decision is log(1 + theta) further from mu than the extended KL says.
(e) Asking is summable: E sum theta^3 <= 2 k sum over nu of log(1 + w(nu) / (alpha w(mu))), k the smaller of the number of
    actions and of models other than mu.

Each: it holds; it is tight; it needs its premise; its neighbor fails.
"""

import itertools
from math import log, prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution

from mightnt.bases.mixture import BayesMixture
from mightnt.bases.pessimistic import Pessimistic
from mightnt.constraints.asking import charge_asking_nats, with_answers
from mightnt.constraints.kl import kl_adaptive_nats, kl_expected_nats, kl_max_observations_nats, kl_step_nats
from mightnt.experiments.theory.timetables import Timetable, ask, believed, cubed_asking_bound
from mightnt.experiments.theory.timetables import coins as coin_table
from mightnt.history import Chooser, Step, demonstrated
from mightnt.models.after import After
from mightnt.models.categorical import Categorical
from mightnt.models.finite import ModelClass, top_set
from mightnt.prediction import Prediction, follow
from mightnt.worlds.tree import random_tree
from tests.strategies import RandomModel, agent_paths, histories, model_classes, probability_of_actions, seeds

HORIZON = 3
granularities = st.sampled_from(["token", "trajectory"])
short = st.lists(st.integers(0, 1), max_size=4).map(lambda symbols: demonstrated(symbols[: 2 * (len(symbols) // 2)]))


def own(history, *actions):
    return (*history, *(Step(action, Chooser.AGENT) for action in actions))


def by_agent(step):
    return step.chooser is Chooser.AGENT


# (a) the divergence


@given(model_classes(zeros=0.1), short, seeds, granularities, st.sampled_from([0.01, 0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_divergence_holds(model_class, shown, seed, granularity, level):
    """On whole small trees, for every member of the top set in the part of mu and any policy."""
    base = Pessimistic(model_class, level, granularity)
    posterior = follow(base, shown).of_class.log_posterior
    policy, world = RandomModel(seed, 2), random_tree(np.random.default_rng(seed), 2, 2, HORIZON)
    believed = top_set(posterior, level)
    assume(believed.size > 0)
    to_base = [f(policy, After(base, shown), 2, HORIZON) for f in (kl_max_observations_nats, kl_adaptive_nats)]
    to_base.append(kl_expected_nats(policy, After(base, shown), world))
    for index in believed:
        mu = After(model_class.models[index], shown)
        to_mu = [f(policy, mu, 2, HORIZON) for f in (kl_max_observations_nats, kl_adaptive_nats)]
        to_mu.append(kl_expected_nats(policy, mu, world))
        assert all(d <= b * (1 + 1e-9) + 1e-9 for d, b in zip(to_mu, to_base, strict=True))


@pytest.mark.parametrize("granularity", ["token", "trajectory"])
def test_divergence_is_tight(granularity):
    """No more pessimism than the bound needs: where mu is the least of the believed it is an equality, and when the
    evidence has left mu alone the base *is* mu, whatever else the class holds."""
    mu, others = Categorical.of([0.7, 0.3]), [Categorical.of([0.1, 0.9]), Categorical.of([0.95, 0.05])]
    base = Pessimistic(ModelClass.of([mu, *others]), 0.05, granularity)
    policy = Categorical.of([0.0, 1.0])
    pair = Pessimistic(ModelClass.of([mu, others[0]]), 0.05, granularity)
    assert kl_adaptive_nats(policy, pair, 1, 2) == pytest.approx(2 * log(1 / 0.3))
    shown = demonstrated([0, 0, 0, 0, 1, 0] * 10)  # 20 zeros and 10 ones
    assert kl_adaptive_nats(policy, After(base, shown), 1, 2) == pytest.approx(kl_adaptive_nats(policy, mu, 1, 2))
    assert After(base, shown).predict(follow(base, shown)).missing == pytest.approx(0, abs=1e-9)


def test_divergence_needs_the_demonstrator_in_the_top_set():
    mu, nu, policy = Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9]), Categorical.of([0.0, 1.0])
    base = Pessimistic(ModelClass.of([mu, nu], [0.05, 0.95]), 0.5)  # .05 < .5 * 1: mu is not listened to
    assert kl_adaptive_nats(policy, base, 1, 1) == pytest.approx(log(1 / 0.9))
    assert kl_adaptive_nats(policy, mu, 1, 1) == pytest.approx(log(1 / 0.1))


def test_divergence_fails_for_the_mixture():
    """The neighbor: the same class, mu in it and most believed. Close to the mixture is not close to mu."""
    mu, nu = Categorical.of([1.0, 0.0]), Categorical.of([0.1, 0.9])
    mixture = BayesMixture(ModelClass.of([mu, nu], [0.9, 0.1]))
    policy = Categorical.of([0.0, 1.0])
    assert kl_adaptive_nats(policy, mixture, 1, 20) < log(1 / 0.1) + 20 * log(1 / 0.9) + 1e-9
    assert kl_adaptive_nats(policy, mu, 1, 1) == np.inf


# (b) coverage


def ever_outside(model_class, index, level, sequence):
    """Whether model ``index`` leaves the top set at any time while ``sequence`` is demonstrated."""
    state = model_class.start()
    for symbol in (None, *sequence):
        if symbol is not None:
            state = model_class.advance(state, Step(int(symbol), Chooser.DEMONSTRATOR), "demonstrated")
        if index not in top_set(state.log_posterior, level):
            return True
    return False


COINS = [0.5, 0.3, 0.45, 0.55, 0.8]


def coins(prior):
    return ModelClass.of([Categorical.of([1 - p, p]) for p in COINS], prior)


@pytest.mark.parametrize(("prior", "level"), [([0.2] * 5, 0.04), ([0.1, 0.3, 0.2, 0.2, 0.2], 0.01)])
def test_coverage_holds(prior, level):
    """600 demonstrations of 60 steps, fixed seeds: the 99.9% lower confidence bound lies above 1 - alpha / w(mu)."""
    n_runs, model_class = 600, coins(prior)
    rng = np.random.default_rng(0)
    kept = sum(not ever_outside(model_class, 0, level, rng.uniform(size=60) < COINS[0]) for _ in range(n_runs))
    lower = beta_distribution.ppf(0.001, kept, n_runs - kept + 1)
    assert lower >= 1 - level / prior[0]
    assert kept < n_runs  # the level is not so low that nothing ever leaves


def test_coverage_is_tight():
    """A rival that says "always 0" and a small w(mu): mu leaves exactly when the first k steps are 0, 2^-k of the time,
    and alpha / w(mu) is hardly more."""
    prior, k = 0.02, 3
    level = prior / (prior + (1 - prior) * 2**k) * 1.0001  # just above w(mu | k zeros)
    model_class = ModelClass.of([Categorical.of([0.5, 0.5]), Categorical.of([1.0, 0.0])], [prior, 1 - prior])
    sequences = list(itertools.product(range(2), repeat=5))
    outside = sum(ever_outside(model_class, 0, level, sequence) for sequence in sequences) / len(sequences)
    assert outside == 2**-k
    assert outside <= level / prior <= 1.03 * outside


def test_coverage_needs_the_evidence_to_be_the_demonstrators():
    """While the agent acts, counting its actions drives mu out for certain; counting the demonstrator's alone never does."""
    model_class = ModelClass.of([Categorical.of([0.99, 0.01]), Categorical.of([0.5, 0.5])])
    odd = own((), *[1] * 5)
    for evidence, stays in (("all", False), ("demonstrated", True)):
        state = follow(Pessimistic(model_class, 0.05, evidence=evidence), odd)
        assert (0 in top_set(state.of_class.log_posterior, 0.05)) == stays
    learned = Pessimistic(model_class, 0.05, evidence="all")
    assert learned.predict(follow(learned, odd)).probabilities[1] == pytest.approx(0.5)  # and (a) is lost with it


def test_coverage_fails_for_the_single_best_model():
    """The neighbor: listening to the most believed model alone. It is not mu for certain, and far too often."""
    n_runs, rng, model_class = 100, np.random.default_rng(0), coins([0.2] * 5)
    lost = sum(ever_outside(model_class, 0, 1.0, rng.uniform(size=150) < COINS[0]) for _ in range(n_runs))
    assert lost > 0.9 * n_runs


# (c) the minimum over trajectories


@given(model_classes(zeros=0.1), short, st.sampled_from([0.01, 0.3]))
@settings(max_examples=40, deadline=None)
def test_trajectory_holds(model_class, shown, level):
    """A semimeasure over the agent's actions, never below the product of token minima, below every believed model."""
    bases = [After(Pessimistic(model_class, level, kind), shown) for kind in ("trajectory", "token")]
    believed = top_set(bases[0].start().of_class.log_posterior, level)
    assume(believed.size > 0)
    totals = {}
    for path in agent_paths(2, 2, HORIZON):
        trajectory, token = (probability_of_actions(base, path) for base in bases)
        assert trajectory >= token * (1 - 1e-9)
        for index in believed:
            assert trajectory <= probability_of_actions(After(model_class.models[index], shown), path) * (1 + 1e-9)
        told = tuple(step.symbol for step in path if not step.is_action)
        totals[told] = totals.get(told, 0.0) + trajectory
    assert max(totals.values()) <= 1 + 1e-9


def test_trajectory_is_tight():
    """Two models that trade places: token minima lose half of every step, the trajectory keeps what the worse one keeps."""

    class Turns(RandomModel):
        def predict(self, state):
            likely = 0.8 if (len(state) + self.seed) % 2 else 0.4
            return Prediction.of([likely, 1 - likely])

    pair = ModelClass.of([Turns(0, 2), Turns(1, 2)])
    path = own((), 0, 0)
    token, trajectory = (probability_of_actions(Pessimistic(pair, 0.1, kind), path) for kind in ("token", "trajectory"))
    assert token == pytest.approx(0.4**2)
    assert trajectory == pytest.approx(0.4 * 0.8)
    assert trajectory == pytest.approx(probability_of_actions(pair.models[0], path))


@given(model_classes(zeros=0.1), histories(max_rounds=4), st.sampled_from([0.05, 0.3]), granularities)
@settings(max_examples=150, deadline=None)
def test_across_answers_the_agents_part_stays_below_the_demonstrators(model_class, history, level, granularity):
    """The premise step by step: while mu is in the top set, whatever was asked and answered in between."""
    base = Pessimistic(model_class, level, granularity)
    sets = [set(top_set(follow(base, history[:t]).of_class.log_posterior, level)) for t in range(len(history) + 1)]
    here = probability_of_actions(base, history, by_agent)
    for index in set.intersection(*sets):
        mu = model_class.models[index]
        assert here <= probability_of_actions(mu, history, by_agent) * (1 + 1e-9)


def test_trajectory_needs_to_begin_again_at_every_answer():
    """The premise: one top set for both minima of the ratio. Here evidence lets nu in, whose running product is 10^-4; a
    ratio that kept running would allow the action 1 with .99 where mu allows .5."""
    mu, nu = Categorical.of([0.5, 0.5]), Categorical.of([0.01, 0.99])
    base = Pessimistic(ModelClass.of([mu, nu], [0.99, 0.01]), 0.05, "trajectory")
    history = (*own((), 0, 0), *demonstrated([1, 0] * 4))
    assert top_set(follow(base, ()).of_class.log_posterior, 0.05).tolist() == [0]
    assert set(top_set(follow(base, history).of_class.log_posterior, 0.05)) == {0, 1}
    assert base.predict(follow(base, history)).probabilities.tolist() == pytest.approx([0.01, 0.5])
    running_on = min(0.25 * 0.5, 1e-4 * 0.99) / min(0.25, 1e-4)
    assert running_on == pytest.approx(0.99)


def test_trajectory_fails_for_the_mixture_of_trajectories():
    """The neighbor: averaging products instead of taking the least. It is no semimeasure below mu."""
    mu, nu = Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9])
    path = own((), 1, 1)
    averaged = probability_of_actions(BayesMixture(ModelClass.of([mu, nu])), path)
    assert averaged == pytest.approx(0.41)
    assert averaged > 40 * prod([0.1, 0.1])


# (d) asking as an action


@given(model_classes(), histories(), st.sampled_from([0.05, 0.3]), granularities)
@settings(deadline=None)
def test_asking_holds(model_class, history, level, granularity):
    """Playing the pessimistic base itself and answering its questions costs at most log(1 + theta), token by token."""
    base = Pessimistic(model_class, level, granularity)
    state = follow(base, history)
    nu = base.predict(state)
    for index in top_set(state.of_class.log_posterior, level):
        mu = model_class.models[index].predict(follow(model_class.models[index], history))
        if (
            nu.probabilities <= mu.probabilities * (1 + 1e-12)
        ).all():  # always so by token; by trajectory not at each step
            assert kl_step_nats(with_answers(nu, mu), mu) <= log(1 + nu.missing) + 1e-9
        else:
            assert granularity == "trajectory"


def test_asking_is_tight():
    """nu = mu on all but the last theta of mu, played as it is: the truth is (1-theta^2) log(1+theta) + theta^2 log theta,
    which is all of log(1+theta) as theta falls."""
    shares = []
    for theta in (0.5, 0.1, 0.01, 0.001):
        mu, nu = Prediction.of([1 - theta, theta]), Prediction.of([1 - theta, 0])
        shares.append(kl_step_nats(with_answers(nu, mu), mu) / charge_asking_nats(nu, nu))
    assert shares == sorted(shares)
    assert 0.99 < shares[-1] <= 1


def test_asking_needs_its_correction_and_a_base_below_the_demonstrator():
    mu, nu = Prediction.of([0.5, 0.5]), Prediction.of([0.5, 0.0])
    extended = charge_asking_nats(nu, nu) - log(1.5)
    truth = kl_step_nats(with_answers(nu, mu), mu)
    assert extended == pytest.approx(0, abs=1e-12)
    assert truth == pytest.approx(0.1308, abs=1e-4)
    elsewhere = Prediction.of([0.001, 0.999])
    assert kl_step_nats(with_answers(nu, elsewhere), elsewhere) > charge_asking_nats(nu, nu)  # nu is not below this one


def expected_over_asked_episodes(base, mu, n_steps, states=None):
    """``(KL(system, mu), charges)`` expected over episodes in which the base acts and mu answers, by the whole tree."""
    if n_steps == 0:
        return np.zeros(2)
    at_base, at_mu = states or (base.start(), mu.start())
    nu, demonstrator = base.predict(at_base), mu.predict(at_mu)
    total = np.array([kl_step_nats(with_answers(nu, demonstrator), demonstrator), charge_asking_nats(nu, nu)])
    for chooser, probabilities in (
        (Chooser.AGENT, nu.probabilities),
        (Chooser.DEMONSTRATOR, nu.missing * demonstrator.probabilities),
    ):
        for symbol, p in enumerate(probabilities.tolist()):
            if p > 0:
                step = Step(symbol, chooser)
                after = base.advance(at_base, step), mu.advance(at_mu, step)
                total = total + p * expected_over_asked_episodes(base, mu, n_steps - 1, after)
    return total


@given(model_classes(), granularities)
@settings(max_examples=40, deadline=None)
def test_asking_holds_over_episodes_by_trajectory_too(model_class, granularity):
    """Single decisions of the trajectory minimum may lie above mu; what an episode is charged still covers its KL."""
    base, index = Pessimistic(model_class, 1e-6, granularity), 0
    distance, charge = expected_over_asked_episodes(base, model_class.models[index], 4)
    assert distance <= charge + 1e-9


def test_asking_by_trajectory_fails_decision_by_decision():
    """The neighbor: at a single decision the trajectory minimum is above mu, and its charge is below the truth."""
    mu, nu = Categorical.of([0.9, 0.1]), Categorical.of([0.1, 0.9])
    base = Pessimistic(ModelClass.of([mu, nu]), 0.01, "trajectory")
    state = follow(base, own((), 0, 0, 0))  # the second model stands so much lower that it alone decides
    ahead = base.predict(state)
    assert ahead.probabilities.tolist() == pytest.approx([0.1, 0.9])
    truth = kl_step_nats(with_answers(ahead, mu.prediction), mu.prediction)
    assert truth > charge_asking_nats(ahead, ahead) + 1


# (e) asking is summable


@st.composite
def posteriors(draw):
    """A class of memoryless models over three actions at any posterior, mu first, and a level."""
    n_models, rng = draw(st.integers(2, 5)), np.random.default_rng(draw(seeds))
    rows = rng.dirichlet(np.ones(3), size=n_models)
    rows[1:] *= rng.uniform(0.5, 1, size=(n_models - 1, 1)) if draw(st.booleans()) else 1.0
    weights = np.exp(rng.normal(size=n_models) * draw(st.sampled_from([0.5, 2.0])))
    return rows, weights / weights.sum(), draw(st.sampled_from([0.01, 0.1, 0.5]))


@given(posteriors())
@settings(deadline=None)
def test_summable_holds_step_by_step(posterior):
    """The two inequalities behind the bound, at any posterior: theta^2 <= k sum d^2, and one answer lowers the sum of
    log(1 + r/alpha) by d^2 / 2 for every believed model, and never raises it for any."""
    rows, weights, level = posterior
    inside = believed(np.log(weights)[None], level)[0]
    theta = 1 - rows[inside].min(axis=0).sum()
    excess = np.maximum(rows[0] - rows, 0).sum(axis=1)  # d: the largest of mu(A) - nu(A)
    k = min(rows.shape[1], len(rows) - 1)
    assert theta**2 <= k * (excess[1:][inside[1:]] ** 2).sum() + 1e-12
    ratios = weights / weights[0]
    drop = np.log1p(ratios / level) - np.log1p(ratios[:, None] * rows / rows[0] / level) @ rows[0]
    assert (drop[1:] >= -1e-12).all()
    assert (drop[1:] >= np.where(inside[1:], excess[1:] ** 2 / 2, 0) - 1e-12).all()
    assert (ratios[inside] >= level * (1 - 1e-9)).all()


@given(posteriors())
@settings(max_examples=15, deadline=None)
def test_summable_holds(posterior):
    rows, prior, share = posterior
    table, level = Timetable.steady(rows, prior), share * prior[0]
    cubes = ask(table, level, np.array([20_000]), 60, np.random.default_rng(0))[3][:, 0]
    assert cubes.mean() + 4 * cubes.std() / np.sqrt(len(cubes)) <= cubed_asking_bound(table, level)


def test_summable_is_tight():
    """Two coins that come closer: the cubes come to the same within a factor of six of the bound; no smaller power would."""
    level, sums = 0.05, {}
    for gap in (0.2, 0.05):
        sums[gap] = ask(
            coin_table([0.5, 0.5 + gap]), level, np.array([int(100 / gap**3)]), 300, np.random.default_rng(0)
        )
    bound = cubed_asking_bound(coin_table([0.5, 0.7]), level)
    means = {power: [float(sums[gap][power].mean()) for gap in (0.2, 0.05)] for power in (1, 2, 3)}
    assert bound / 6 < min(means[3]) <= max(means[3]) < bound
    assert max(means[3]) < 1.2 * min(means[3])
    assert means[2][1] > 3 * means[2][0]
    assert means[1][1] > 12 * means[1][0]


def test_summable_needs_the_demonstrator_in_the_class():
    """Exactly between two coins neither is ever settled: questions go on, their cubes grow like a random walk's visits to 0."""
    models, rng, level = (
        ModelClass.of([Categorical.of([0.3, 0.7]), Categorical.of([0.7, 0.3])]),
        np.random.default_rng(0),
        0.05,
    )
    bound = 2 * log(1 + 1 / level)
    totals = []
    for _ in range(20):
        base = Pessimistic(models, level)
        state, total = base.start(), 0.0
        for _ in range(600):
            theta = base.predict(state).missing
            total += theta**3
            if rng.uniform() < theta:
                state = base.advance(state, Step(int(rng.uniform() < 0.5), Chooser.DEMONSTRATOR))
        totals.append(total)
    member = coin_table([0.7, 0.3])
    assert np.mean(ask(member, level, np.array([600]), 200, np.random.default_rng(0))[3]) < bound / 2
    assert max(totals) > bound


def test_summable_fails_for_squares():
    """The neighbor: the same bound for theta^2, or for the questions, is broken by two near coins."""
    table, level = coin_table([0.5, 0.55]), 0.05
    sums = ask(table, level, np.array([10**6]), 200, np.random.default_rng(0))
    bound = cubed_asking_bound(table, level)
    assert sums[3].mean() < bound < sums[2].mean() < sums[1].mean()
