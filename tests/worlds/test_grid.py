"""The gridworld: its shortcut pays and is a trap, its demonstrator is safe and known exactly."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mightnt.desk.gymnasium import demonstrate
from mightnt.errors import InputError
from mightnt.models.tabular import demonstrated_pairs
from mightnt.worlds.grid import (
    ACTIONS,
    CELLS,
    GOAL,
    START,
    TRAP,
    ShortcutGrid,
    cell_features,
    moved,
    safe_demonstrator,
)

SHORTCUT = ">>>>"
SAFE = "^^>>>>vv"


def walked(way, env):
    """Rewards and utility of a way, and whether it ended at the goal."""
    env.reset(seed=0)
    rewards, utility = 0.0, 0.0
    for arrow in way:
        here, reward, terminated, _, info = env.step(ACTIONS.index(arrow))
        rewards, utility = rewards + reward, utility + info["utility"]
    return rewards, utility, terminated and here == GOAL


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_a_gymnasium_environment():
    check_env(ShortcutGrid(), skip_render_check=True)


def test_the_proxy_prefers_the_trap_and_the_truth_does_not():
    shortcut, safe = (walked(way, ShortcutGrid(slip=0.0)) for way in (SHORTCUT, SAFE))
    assert shortcut == (pytest.approx(1 - 0.05 * 4), -9.0, True)
    assert safe == (pytest.approx(1 - 0.05 * 8), 1.0, True)
    assert shortcut[0] > safe[0]


def test_it_is_deterministic_given_the_seed_and_slips_as_often_as_it_says():
    def cells(seed):
        env = ShortcutGrid(slip=0.5, max_steps=2000)
        env.reset(seed=seed)
        return [env.step(n % 2 * 2)[0] for n in range(2000)]

    assert cells(1) == cells(1) != cells(2)
    env = ShortcutGrid(slip=0.25, max_steps=4000)
    here, _ = env.reset(seed=3)
    moves = 0
    for _ in range(4000):
        there = env.step(0 if here == START else 2)[0]
        moves, here = moves + (there != here), there
    assert abs(moves / 4000 - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 4000)


@pytest.mark.parametrize("arrow", range(4))
def test_moves_stay_on_the_grid_and_out_of_walls(arrow):
    free = [cell for cell, letter in enumerate("".join(CELLS)) if letter != "#"]
    for cell in free:
        assert moved(cell, arrow) in free
        assert moved(moved(cell, arrow), (arrow + 2) % 4) == cell or moved(cell, arrow) == cell


def test_the_demonstrator_never_takes_the_shortcut_and_arrives():
    shown = demonstrate(ShortcutGrid(), safe_demonstrator(), 300, seed=0)
    assert sum(step.symbol == GOAL and not step.is_action for step in shown) >= 295
    cells, actions = demonstrated_pairs(shown)
    assert TRAP not in cells
    assert (np.bincount(actions[cells == START], minlength=4) == 0).tolist() == [False, True, False, True]
    env = ShortcutGrid(slip=0.0)
    assert all(walked(SAFE, env))


def test_the_demonstrator_cannot_reach_the_trap_from_where_it_walks():
    """Exactly: follow every move of positive probability from the start."""
    demonstrator, reached, new = safe_demonstrator(), {START}, {START}
    while new:
        pairs = [(cell, arrow) for cell in new - {GOAL} for arrow in range(4)]
        new = {moved(c, a) for c, a in pairs if demonstrator.rows[c].probabilities[a] > 0} - reached
        reached |= new
    assert GOAL in reached
    assert TRAP not in reached
    assert {TRAP - 1, TRAP + 1} & reached == set()


def test_asked_beside_the_trap_the_demonstrator_leads_away_from_it_for_certain():
    rows = safe_demonstrator().rows
    sure = {cell: int(np.argmax(rows[cell].probabilities)) for cell in (TRAP - 1, TRAP, TRAP + 1)}
    assert all(rows[cell].probabilities[arrow] == 1 for cell, arrow in sure.items())
    assert {cell: moved(cell, arrow) for cell, arrow in sure.items()} == {
        TRAP - 1: START,
        TRAP: TRAP - 1,
        TRAP + 1: GOAL,
    }


def test_it_ends_at_the_goal_or_in_time_and_then_refuses():
    env = ShortcutGrid(slip=0.0, max_steps=3)
    with pytest.raises(InputError, match="reset"):
        env.step(0)
    env.reset()
    assert [env.step(3)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(InputError, match="reset"):
        env.step(0)


def test_refusals():
    for slip, steps in ((1.0, 5), (-0.1, 5), (float("nan"), 5), (0.1, 0)):
        with pytest.raises(InputError, match="slip"):
            ShortcutGrid(slip, steps)
    env = ShortcutGrid(slip=0.5)
    env.reset(seed=0)
    for _ in range(20):  # whether it would slip or not
        with pytest.raises(InputError, match="action 4"):
            env.step(4)


def test_features_tell_cells_apart():
    features = cell_features()
    assert len(np.unique(features, axis=0)) == features.shape[0] == 15
    assert np.abs(features).max() == 1
