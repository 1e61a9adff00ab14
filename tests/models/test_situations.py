"""Counts of situations against the obvious way: find the nearest center by hand, count what followed it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.errors import InputError
from mightnt.models.counts import Support
from mightnt.models.situations import Clusters, add_situations, fit_situations, nearest, with_farthest

IS_ACTION = np.array([False, True, True, True, True])
CORNERS = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], dtype=np.float32)


def around_corners(n, seed=0):
    """Places around four corners, with one action or two at each."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(4, size=n)
    actions = np.where(corner == 3, rng.integers(3, 5, size=n), corner + 1)
    return (CORNERS[corner] + rng.normal(0, 0.3, (n, 2))).astype(np.float32), actions


def obvious_prediction(model, hidden, actions, query):
    p = IS_ACTION / IS_ACTION.sum()
    for centers in (None, *model.centers):
        owner = np.zeros(len(hidden), int)
        mine = 0
        if centers is not None:
            owner = np.array([np.argmin(((centers - row) ** 2).sum(1)) for row in hidden])
            mine = np.argmin(((centers - query) ** 2).sum(1))
        counts = np.bincount(actions[owner == mine], minlength=len(IS_ACTION))
        p = (counts + model.strength * p) / (counts.sum() + model.strength)
    return p


def test_prediction_is_the_back_off_formula_over_clusters():
    hidden, actions = around_corners(200)
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=20, levels=2, coarser=3), strength=2.0)
    queries = np.concatenate([hidden[:20], np.array([[4.4, 4.6], [50, -50]], dtype=np.float32)])
    expected = [obvious_prediction(model, hidden, actions, query) for query in queries]
    np.testing.assert_allclose(np.exp(model.predict(queries)), expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(model.predict(queries)).sum(axis=1), 1.0)


def test_only_what_followed_the_cluster_is_supported():
    hidden, actions = around_corners(400)
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=100, levels=1))
    supported = model.supported(CORNERS)
    assert [np.flatnonzero(row).tolist() for row in supported] == [[1], [2], [3], [3, 4]]


def test_a_cluster_that_may_still_bring_news_leaves_the_word_to_a_coarser_one():
    """Around one corner every action was seen twice: nothing is closed there but the whole."""
    hidden = np.concatenate([np.repeat(CORNERS[:1], 400, axis=0), np.repeat(CORNERS[3:], 6, axis=0)])
    actions = np.concatenate([np.full(400, 1), [2, 3, 4, 2, 3, 4]])
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=30, levels=1))
    assert [np.flatnonzero(row).tolist() for row in model.supported(CORNERS[[0, 3]])] == [[1], [1, 2, 3, 4]]
    loose, strict = (replace(model, rule=Support(1, 2, missing)) for missing in (1.0, 0.0))
    assert [np.flatnonzero(row).tolist() for row in loose.supported(CORNERS[[0, 3]])] == [[1], [2, 3, 4]]
    assert strict.supported(CORNERS)[:, IS_ACTION].all()
    assert not strict.supported(CORNERS)[:, ~IS_ACTION].any()


def test_a_slip_among_many_is_no_support():
    """Seen once among two hundred, it would hardly be missed; among ten it might, and the whole then decides."""
    hidden = np.concatenate([np.repeat(CORNERS[:1], 200, axis=0), np.repeat(CORNERS[3:], 10, axis=0)])
    actions = np.concatenate([np.full(199, 1), [2], np.full(9, 3), [4]])
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=50, levels=1))
    assert [np.flatnonzero(row).tolist() for row in model.supported(CORNERS[[0, 3]])] == [[1], [1, 3]]


def test_a_place_far_from_everything_supports_nothing():
    hidden, actions = around_corners(400)
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=100, levels=1))
    far = np.array([[40, 40]], dtype=np.float32)
    assert model.supported(far).any()
    bounded = with_farthest(model, hidden, np.arange(len(hidden)), 0.01)
    assert not bounded.supported(far).any()
    assert bounded.supported(CORNERS).any(axis=1).all()


def test_the_distance_leaves_out_the_stated_share_of_turns():
    hidden, actions = around_corners(400)
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=100, levels=1))
    turn = np.arange(400) // 4
    for rate, allowed in ((0.0, 0), (0.05, 5), (1.0, 99)):
        bounded = with_farthest(model, hidden, turn, rate)
        too_far = nearest(hidden, bounded.centers[-1])[1] > bounded.farthest
        assert np.bincount(turn, too_far).astype(bool).sum() == allowed


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_adding_later_counts_the_same(n_first, n_more, seed):
    hidden, actions = around_corners(n_first + n_more, seed)
    first = fit_situations(hidden[:n_first], actions[:n_first], IS_ACTION, Clusters(places=5, levels=2, coarser=2))
    both = add_situations(first, hidden[n_first:], actions[n_first:])
    for query in (hidden[:3], hidden[-3:]):
        expected = [obvious_prediction(first, hidden, actions, row) for row in query]
        np.testing.assert_allclose(np.exp(both.predict(query)), expected, atol=1e-12)


def test_same_seed_same_clusters_and_no_more_than_allowed():
    hidden, actions = around_corners(300)
    one, two = (fit_situations(hidden, actions, IS_ACTION, Clusters(places=3, most=16), seed=4) for _ in range(2))
    assert [len(centers) for centers in one.centers] == [1, 2, 4, 8, 16]
    for a, b in zip(one.centers, two.centers, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_place_is_its_own_cluster():
    model = fit_situations(CORNERS[:1], np.array([2]), IS_ACTION)
    assert np.flatnonzero(replace(model, rule=Support(1, 1, 1.0)).supported(CORNERS[:1])[0]).tolist() == [2]
    assert with_farthest(model, CORNERS[:1], np.array([0]), 0.01).farthest == 0.0


def test_nearest_is_the_nearest_in_blocks_too():
    rng = np.random.default_rng(1)
    vectors, centers = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    distance = np.linalg.norm(vectors[:, None].astype(float) - centers[None], axis=2)
    numbers, distances = nearest(vectors, centers, block=8)
    np.testing.assert_array_equal(numbers, distance.argmin(axis=1))
    np.testing.assert_allclose(distances, distance.min(axis=1), atol=1e-5)


def test_what_is_kept_of_the_centers_is_that_of_these_centers():
    """Asked twice, and asked of a model with other centers made from one that was asked before."""
    hidden, actions = around_corners(200)
    model = fit_situations(hidden, actions, IS_ACTION, Clusters(places=20, levels=2))
    for asked in (model, model, replace(model, centers=tuple(2 * centers + 1 for centers in model.centers))):
        located = asked.located(hidden)
        for number, centers in zip(located.keys[1:], asked.centers, strict=True):
            expected, distance = nearest(hidden, centers)
            np.testing.assert_array_equal(number, expected)
        np.testing.assert_array_equal(located.distance, distance)


@pytest.mark.parametrize(
    ("hidden", "actions", "message"),
    [
        (np.zeros((0, 2), np.float32), np.zeros(0, int), "no action"),
        (np.zeros((2, 2), np.float32), np.zeros(3, int), "one finite row"),
        (np.full((1, 2), np.nan, np.float32), np.zeros(1, int), "finite"),
    ],
)
def test_bad_input_is_one_sentence(hidden, actions, message):
    with pytest.raises(InputError, match=message):
        fit_situations(hidden, actions, IS_ACTION)


def test_no_held_out_action_and_bad_clusters_are_refused():
    model = fit_situations(CORNERS, np.array([1, 2, 3, 4]), IS_ACTION)
    with pytest.raises(InputError, match="held-out"):
        with_farthest(model, CORNERS[:0], np.zeros(0, int), 0.01)
    with pytest.raises(InputError, match="places"):
        Clusters(places=0)
