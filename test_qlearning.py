"""The reference checked against exact answers: golden numbers, closed forms, hand-made worlds.

Every training run that a test needs is started once, in the background, on all cores.
"""

import ast
import doctest
import math
import os
import random
import re
import signal
import struct
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym
import pytest

import qlearning
from qlearning import (
    RECIPES,
    argmax,
    discounted_return,
    epsilon_greedy_policy,
    evaluate_agent,
    exact_return,
    exponential_decay,
    greedy_policy,
    initialize_q_table,
    make_env,
    monte_carlo_update,
    rollout,
    td0_update,
    td_update,
    train,
    value_iteration,
)

HERE = Path(__file__).parent

# FrozenLake 4x4, not slippery, gamma 0.95: rows are states, columns LEFT DOWN RIGHT UP.
GOLDEN = [
    [0.73509189, 0.77378094, 0.77378094, 0.73509189],
    [0.73509189, 0, 0.81450625, 0.77378094],
    [0.77378094, 0.857375, 0.77378094, 0.81450625],
    [0.81450625, 0, 0.77378094, 0.77378094],
    [0.77378094, 0.81450625, 0, 0.73509189],
    [0, 0, 0, 0],
    [0, 0.9025, 0, 0.81450625],
    [0, 0, 0, 0],
    [0.81450625, 0, 0.857375, 0.77378094],
    [0.81450625, 0.9025, 0.9025, 0],
    [0.857375, 0.95, 0, 0.857375],
    [0, 0, 0, 0],
    [0, 0, 0, 0],
    [0, 0.9025, 0.95, 0.857375],
    [0.9025, 0.95, 1, 0.9025],
    [0, 0, 0, 0],
]
LEFT, DOWN, RIGHT, UP = range(4)
LAKE_4X4 = ["SFFF", "FHFH", "FFFH", "HFFG"]


# ------------------ The worlds and agents that the tests are made of ------------------
def train_recipe(name, seed):
    """The Q-table of a recipe and the environment steps it took; runs in the pool."""
    recipe = RECIPES[name] | {"seed": seed}
    env = make_env(recipe["env_id"], **recipe["env_kwargs"])
    Qtable = initialize_q_table(env.observation_space.n, env.action_space.n)
    steps = []
    qlearning.learn(env, Qtable, recipe, on_episode=lambda *args: steps.append(args[2]))
    return Qtable, sum(steps)


RUNS = [
    ("frozenlake-8x8-slippery", 0),
    *[("taxi", 0), ("taxi-exact", 0), ("taxi-exact", 1)],
    *[("frozenlake-slippery", seed) for seed in range(2)],
    *[("frozenlake-8x8", seed) for seed in range(2)],
    *[("frozenlake", seed) for seed in range(3)],
    *[("cliffwalking", seed) for seed in range(10)],
]


def runs_of(name):
    return [run for run in RUNS if run[0] == name]


@pytest.fixture(scope="session")
def trained():
    """(recipe, seed) -> the Future of its (Q-table, steps)."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield {run: pool.submit(train_recipe, *run) for run in RUNS}


@pytest.fixture(scope="session", autouse=True)
def training_starts_first(trained):
    """The pool is busy while the quick tests run."""


def game(name):
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"])


class Script(gym.Env):
    """A world that plays back lines of (new_state, reward, terminated, truncated)."""

    def __init__(self, steps, states=3, actions=2, start=0):
        self.observation_space = gym.spaces.Discrete(states)
        self.action_space = gym.spaces.Discrete(actions)
        self.steps, self.start = steps, start
        self.seeds, self.actions, self.resets = [], [], 0

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.line = iter(self.steps)
        return self.start, {}

    def step(self, action):
        self.actions.append(action)
        return *next(self.line), {}


class Numbers:
    """A random number generator that hands out the numbers it is given."""

    def __init__(self, *numbers):
        self.numbers = iter(numbers)

    def random(self):
        return next(self.numbers)


# ------------------ Value functions ---------------------------------------------------
def test_return_of_a_maze_where_every_move_costs_one():
    assert discounted_return([-1] * 4, 1) == -4
    assert discounted_return([-1] * 6, 1) == -6
    assert -1 + discounted_return([-1] * 3, 1) == -4  # Bellman: reward + V(next)


def test_return_discounts_later_rewards_more():
    assert discounted_return([1, 2, 4], 0.5) == 1 + 2 * 0.5 + 4 * 0.25
    assert discounted_return([0, 0, 1], 0.95) == pytest.approx(0.9025, abs=1e-15)
    assert discounted_return([], 0.9) == 0


def test_monte_carlo_moves_a_tenth_of_the_way_to_the_return():
    V = [0.0, 5.0]
    assert monte_carlo_update(V, 0, 3, 0.1) == pytest.approx(0.3, abs=1e-15)
    assert V == [pytest.approx(0.3, abs=1e-15), 5.0]
    assert monte_carlo_update(V, 1, 3, 0.5) == 4.0


def test_td0_uses_the_value_of_the_next_state():
    assert td0_update([0.0, 0.0], 0, 1, 1, 0.1, 1) == 0.1
    V = [2.0, 4.0]
    assert td0_update(V, 0, 1, 1, 0.5, 0.75) == 2 + 0.5 * (1 + 0.75 * 4 - 2)
    assert V == [3.0, 4.0]


def test_td0_counts_no_future_after_the_end():
    assert td0_update([2.0, 4.0], 0, 1, 1, 0.5, 0.75, True) == 2 + 0.5 * (1 - 2)


def test_value_iteration_gives_the_golden_table():
    table = value_iteration(game("frozenlake"), 0.95)
    for row, golden in zip(table, GOLDEN, strict=True):
        assert row == pytest.approx(golden, abs=5e-9)


class Rules(gym.Env):
    """A world of nothing but rules."""

    def __init__(self, P):
        self.P = P


def test_value_iteration_weighs_outcomes_and_masks_only_what_ends():
    # From 0, action 0 ends in state 1 or goes on to it; state 1 itself pays 2 for ever.
    P = {
        0: {
            0: [(0.25, 1, 4.0, True), (0.75, 1, 8.0, False)],
            1: [(1.0, 0, 0.0, False)],
        },
        1: {0: [(1.0, 1, 2.0, False)], 1: [(1.0, 1, 0.0, True)]},
    }
    table = value_iteration(Rules(P), 0.5)
    assert table[1] == pytest.approx([4, 0], abs=1e-9)  # 2 / (1 - 0.5)
    first = 0.25 * 4 + 0.75 * (8 + 0.5 * 4)
    assert table[0] == pytest.approx([first, 0.5 * first], abs=1e-9)


def test_value_iteration_says_what_is_missing():
    with pytest.raises(ValueError, match="env.unwrapped.P"):
        value_iteration(Script([]), 0.9)
    with pytest.raises(ValueError, match="gamma=1"):
        value_iteration(Rules({0: {0: [(1.0, 0, 1.0, False)]}}), 1)


# ------------------ Step 1: the table -------------------------------------------------
def test_table_has_a_row_of_its_own_for_each_state():
    table = initialize_q_table(3, 2)
    table[0][1] = 7.0
    assert table == [[0.0, 7.0], [0.0, 0.0], [0.0, 0.0]]
    assert all(type(value) is float for row in table for value in row)


def test_table_takes_the_sizes_as_gymnasium_gives_them():
    env = game("taxi")
    assert type(env.observation_space.n) is not int  # NumPy's own integer
    table = initialize_q_table(env.observation_space.n, env.action_space.n)
    assert (len(table), {len(row) for row in table}) == (500, {6})


# ------------------ Step 2: the policies ----------------------------------------------
def test_argmax_takes_the_first_of_equals_in_any_sequence():
    assert argmax([0.0, 0.95, 0.9025, 0.95]) == 1
    assert argmax((3, 1, 3)) == 0
    assert argmax([-2.0, -1.0]) == 1
    assert argmax([5.0]) == 0
    assert argmax(game("frozenlake").unwrapped.initial_state_distrib) == 0


def test_greedy_policy_looks_into_the_row_of_the_state():
    assert greedy_policy([[1.0, 0.0], [0.0, 1.0]], 1) == 1
    assert greedy_policy([[1.0, 0.0], [0.0, 1.0]], 0) == 0


def test_exploits_only_above_epsilon():
    table = [[0.0, 0.0, 1.0, 0.0]]
    assert epsilon_greedy_policy(table, 0, 0.5, Numbers(0.51)) == 2
    assert epsilon_greedy_policy(table, 0, 0.5, Numbers(0.5, 0.0)) == 0
    assert epsilon_greedy_policy(table, 0, 0.5, Numbers(0.49, 0.99)) == 3


@pytest.mark.parametrize(
    ("epsilon", "row", "counts"),
    [
        (0.0, [0.0, 9.0, 0.0, 0.0], [0, 400, 0, 0]),
        (0.5, [0.0, 9.0, 0.0, 0.0], [50, 250, 50, 50]),
        (1.0, [0.0, 9.0, 0.0, 0.0], [100, 100, 100, 100]),
        (0.0, [9.0, 0.0, 0.0, 9.0], [200, 0, 0, 200]),
        (0.5, [9.0, 0.0, 0.0, 9.0], [150, 50, 50, 150]),
        (0.0, [0.0, 0.0, 0.0, 0.0], [100, 100, 100, 100]),
    ],
)
def test_epsilon_greedy_frequencies_are_exact(epsilon, row, counts):
    # All 100 x 4 pairs of evenly spread numbers, in place of a sample of random ones.
    tries = Counter(
        epsilon_greedy_policy(
            [row], 0, epsilon, Numbers((i + 0.5) / 100, (j + 0.5) / 4)
        )
        for i in range(100)
        for j in range(4)
    )
    assert [tries[action] for action in range(4)] == counts


def test_epsilon_greedy_uses_the_random_module_unless_told_otherwise():
    table = [[0.0] * 6]
    random.seed(5)
    own = [epsilon_greedy_policy(table, 0, 0.5) for _ in range(50)]
    rng = random.Random(5)
    assert own == [epsilon_greedy_policy(table, 0, 0.5, rng) for _ in range(50)]


@pytest.mark.parametrize(
    ("episode", "value"),
    [(0, 1.0), (1000, 0.05 + 0.95 * math.e**-0.5), (2000, 0.05 + 0.95 / math.e)],
)
def test_decay_formula(episode, value):
    assert exponential_decay(episode, 0.05, 1.0, 0.0005) == pytest.approx(
        value, abs=1e-14
    )


def test_decay_ends_at_the_minimum():
    assert exponential_decay(10**6, 0.05, 1.0, 0.0005) == 0.05
    assert exponential_decay(7, 0.3, 0.3, 0.1) == 0.3


# ------------------ Steps 3 and 4: the update and the loop ----------------------------
def test_update_by_hand():
    table = [[0.0, 2.0], [3.0, 4.0]]
    assert td_update(table, 0, 1, 1.0, 1, 0.5, 0.75) == 2 + 0.5 * (1 + 0.75 * 4 - 2)
    assert table == [[0.0, 3.0], [3.0, 4.0]]


def test_update_counts_no_future_after_the_end():
    table = [[0.0, 2.0], [3.0, 4.0]]
    assert td_update(table, 0, 1, 1.0, 1, 0.5, 0.75, terminated=True) == 1.5
    assert table == [[0.0, 1.5], [3.0, 4.0]]


def test_first_visits_to_the_goal():
    table = initialize_q_table(16, 4)
    values = [td_update(table, 14, RIGHT, 1, 15, 0.7, 0.95, True) for _ in range(3)]
    assert values == pytest.approx([0.7, 0.91, 0.973], abs=1e-15)


@pytest.mark.parametrize(("reward", "value"), [(1, 0.1), (-10, -1.0)])
def test_first_step_in_the_maze_of_cheese_and_poison(reward, value):
    assert td_update(initialize_q_table(6, 4), 0, 2, reward, 1, 0.1, 0.99) == value


@pytest.mark.parametrize(
    ("ending", "future"),
    [((True, False), 0.0), ((False, True), 0.5 * 8), ((True, True), 0.0)],
)
def test_only_a_terminated_episode_has_no_future(ending, future):
    table = [[0.0], [8.0]]
    env = Script([(1, 1.0, *ending), (0, 99.0, False, False)], states=2, actions=1)
    train(1, 0, 0, 0, env, 99, table, 0.5, 0.5)
    assert table == [[0.5 * (1 + future)], [8.0]]
    assert len(env.actions) == 1


def test_an_episode_stops_after_max_steps():
    env = Script(
        [(1, 1.0, False, False), (2, 2.0, False, False), (0, 4.0, True, False)]
    )
    seen = []
    train(
        2,
        0,
        0,
        0,
        env,
        2,
        initialize_q_table(3, 2),
        on_episode=lambda *a: seen.append(a),
    )
    assert len(env.actions) == 4
    assert seen == [(0, 0, 2, 3.0), (1, 0, 2, 3.0)]  # episode, epsilon, steps, return


def test_the_new_state_is_where_the_next_step_starts():
    env = Script(
        [(1, 1.0, False, False), (2, 2.0, False, False), (0, 4.0, True, False)]
    )
    env.action_space = gym.spaces.Discrete(1)
    table = train(1, 0, 0, 0, env, 99, initialize_q_table(3, 1), 1.0, 0.5)
    assert table == [[1.0], [2.0], [4.0]]


def test_defaults_are_the_course_s_learning_rate_and_gamma():
    env = Script([(1, 1.0, True, False)], states=2, actions=1)
    assert train(1, 0, 0, 0, env, 99, initialize_q_table(2, 1)) == [[0.7], [0.0]]
    env = Script([(1, 0.0, False, True)], states=2, actions=1)
    assert train(1, 0, 0, 0, env, 99, [[0.0], [1.0]])[0] == [0.7 * 0.95]


def test_learning_rate_decays_by_the_formula_of_epsilon():
    env = Script([(1, 1.0, True, False)], states=2, actions=1)
    epsilons = []
    table = train(
        *(3, 0.1, 0.9, 0.25, env, 99, initialize_q_table(2, 1), 0.5, 0.9),
        min_learning_rate=0.2,
        on_episode=lambda _, epsilon, *__: epsilons.append(epsilon),
    )
    value = 0.0
    for episode in range(3):
        value += (0.2 + 0.3 * math.exp(-0.25 * episode)) * (1 - value)
    assert table[0][0] == pytest.approx(value, abs=1e-15)
    expected = [0.1 + 0.8 * math.exp(-0.25 * episode) for episode in range(3)]
    assert epsilons == pytest.approx(expected, abs=1e-15)


def test_the_environment_is_seeded_once():
    env = Script([(1, 0.0, True, False)])
    train(3, 0, 1, 0.1, env, 9, initialize_q_table(3, 2), seed=7)
    assert env.seeds == [7, None, None]


def course_style_training(env, episodes, decay, alpha, gamma, seed):
    """Q-learning once more, in one piece and as literally as possible."""
    rng = random.Random(seed)
    Q = {(s, a): 0.0 for s in range(env.observation_space.n) for a in range(4)}
    for episode in range(episodes):
        epsilon = 0.05 + (1.0 - 0.05) * math.exp(-decay * episode)
        s, _ = env.reset(seed=seed) if episode == 0 else env.reset()
        for _ in range(99):
            if rng.random() <= epsilon:
                a = int(4 * rng.random())
            else:
                best = [
                    a for a in range(4) if Q[s, a] == max(Q[s, b] for b in range(4))
                ]
                a = best[0] if len(best) == 1 else best[int(len(best) * rng.random())]
            s2, r, terminated, truncated, _ = env.step(a)
            target = r if terminated else r + gamma * max(Q[s2, b] for b in range(4))
            Q[s, a] += alpha * (target - Q[s, a])
            s = s2
            if terminated or truncated:
                break
    return [[Q[s, a] for a in range(4)] for s in range(env.observation_space.n)]


def test_training_equals_a_second_implementation_bit_for_bit():
    env = game("frozenlake-slippery")
    table = train(
        300, 0.05, 1.0, 0.01, env, 99, initialize_q_table(16, 4), 0.3, 0.9, seed=3
    )
    assert table == course_style_training(env, 300, 0.01, 0.3, 0.9, seed=3)
    assert any(any(row) for row in table)


def test_seeds_make_and_break_repetition():
    def run(seed):
        table = initialize_q_table(16, 4)
        env = game("frozenlake-slippery")
        return train(300, 0.05, 1.0, 0.01, env, 99, table, seed=seed)

    assert run(1) == run(1) != run(2)
    assert run(None) != run(None)


def test_training_works_in_place_and_survives_an_interrupt():
    def stop(episode, *_):
        if episode == 99:
            raise KeyboardInterrupt

    table = initialize_q_table(16, 4)
    with pytest.raises(KeyboardInterrupt):
        train(
            10**9,
            0.05,
            1,
            0.0005,
            game("frozenlake"),
            99,
            table,
            seed=0,
            on_episode=stop,
        )
    assert any(any(row) for row in table)
    assert train(1, 0, 1, 0, game("frozenlake"), 99, table, seed=0) is table


def test_numpy_numbers_become_plain_ones():
    state = gym.spaces.Discrete(2, seed=0).sample()
    reward = game("frozenlake").unwrapped.initial_state_distrib[0]
    assert type(state) is not int and type(reward) is not float
    env = Script([(state, reward, True, False)], states=2, actions=1)
    totals = []
    table = train(
        1, 0, 0, 0, env, 9, [[0.0], [0.0]], on_episode=lambda *a: totals.append(a[3])
    )
    assert type(table[0][0]) is float and type(totals[0]) is float
    assert type(env.actions[0]) is int
    told = list(rollout(env, [[0.0], [0.0]], 9))
    assert [type(value) for value in told[1]] == [int, float, int]


# ------------------ Evaluation --------------------------------------------------------
def test_rollout_tells_the_start_and_every_step():
    env = Script([(1, 1.0, False, False), (2, 2.0, False, True), (0, 4.0, True, False)])
    told = list(rollout(env, [[0, 1], [1, 0], [0, 0]], 99, seed=3))
    assert told == [(None, 0.0, 0), (1, 1.0, 1), (0, 2.0, 2)]
    assert env.seeds == [3]
    assert len(list(rollout(env, [[0, 1], [1, 0], [0, 0]], 1))) == 2


def test_evaluation_gives_mean_and_population_deviation():
    class Growing(Script):
        def reset(self, **kwargs):
            super().reset(**kwargs)
            self.line = iter([(1, 2.0 * len(self.seeds), True, False)])
            return 0, {}

    env = Growing([])
    assert evaluate_agent(env, 9, 2, initialize_q_table(3, 2), []) == (3.0, 1.0)
    assert evaluate_agent(env, 9, 1, initialize_q_table(3, 2), [8, 9]) == (6.0, 0.0)
    assert env.seeds == [None, None, 8]


def test_evaluation_is_bounded_and_takes_any_table():
    env = Script([(0, 1.0, False, False)] * 50)
    assert evaluate_agent(env, 20, 2, ((0, 1), (0, 1), (0, 1)), []) == (20.0, 0.0)


def test_exact_answers_of_taxi():
    env, recipe = game("taxi"), RECIPES["taxi"]
    exact = value_iteration(env, 0.95)
    mean, std = evaluate_agent(env, 99, 100, exact, recipe["eval_seed"])
    assert mean == pytest.approx(7.56, abs=1e-12)
    assert round(std, 4) == 2.7067
    assert round(mean - std, 3) == 4.853
    assert exact_return(env, 99) == pytest.approx(7.93, abs=1e-9)


def success_rate(env, table, steps):
    """Probability to be at the goal within so many steps, stepping it all forward."""
    here = {s: float(p) for s, p in enumerate(env.unwrapped.initial_state_distrib) if p}
    arrived = 0.0
    for _ in range(steps):
        there = Counter()
        for s, p in here.items():
            action = max(range(4), key=table[s].__getitem__)
            for chance, s2, reward, terminated in env.unwrapped.P[s][action]:
                arrived += p * chance * reward
                if not terminated:
                    there[s2] += p * chance
        here = there
    return arrived


@pytest.mark.parametrize(
    ("name", "optimum", "best_of_gamma"),
    [
        ("frozenlake-slippery", 0.7422, 0.7381),
        ("frozenlake-8x8-slippery", 0.6353, 0.6262),
    ],
)
def test_exact_success_rates(name, optimum, best_of_gamma):
    env = game(name)
    table = value_iteration(env, 0.99)
    assert round(exact_return(env, 99), 4) == optimum
    assert round(exact_return(env, 99, table), 4) == best_of_gamma
    assert round(success_rate(env, table, 99), 4) == best_of_gamma


# ------------------ What each recipe must reach ---------------------------------------
def moves_to_goal(rows, start):
    """How many moves a breadth-first search needs from a cell to the G (None: no way)."""
    width, cells = len(rows[0]), "".join(rows)
    distance, queue = {start: 0}, [start]
    for cell in queue:
        if cells[cell] == "G":
            return distance[cell]
        if cells[cell] == "H":
            continue
        y, x = divmod(cell, width)
        for y2, x2 in ((y, x - 1), (y + 1, x), (y, x + 1), (y - 1, x)):
            neighbour = y2 * width + x2
            on_map = 0 <= y2 < len(rows) and 0 <= x2 < width
            if on_map and neighbour not in distance:
                distance[neighbour] = distance[cell] + 1
                queue.append(neighbour)
    return None


@pytest.mark.parametrize("run", runs_of("frozenlake"))
def test_frozenlake_reaches_the_golden_table(trained, run):
    table, _ = trained[run].result()
    for row, golden in zip(table, GOLDEN, strict=True):
        assert row == pytest.approx(golden, abs=5e-9)
    assert round(table[14][DOWN], 8) == 0.95
    assert round(table[6][DOWN], 8) == 0.9025
    assert evaluate_agent(game("frozenlake"), 99, 100, table, []) == (1.0, 0.0)


def test_values_are_a_power_of_gamma_for_each_move(trained):
    table, _ = trained["frozenlake", 0].result()
    for state, letter in enumerate("".join(LAKE_4X4)):
        if letter in "SF":
            moves = moves_to_goal(LAKE_4X4, state)
            assert max(table[state]) == pytest.approx(0.95 ** (moves - 1), abs=5e-9)


@pytest.mark.parametrize("run", runs_of("frozenlake-8x8"))
def test_8x8_takes_the_fewest_moves(trained, run):
    table, _ = trained[run].result()
    env = game("frozenlake-8x8")
    told = list(rollout(env, table, 99))
    rows = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
    assert len(told) - 1 == moves_to_goal(rows, 0) == 14
    assert told[-1] == (told[-1][0], 1.0, 63)


@pytest.mark.parametrize("run", runs_of("frozenlake-slippery"))
def test_slippery_success_rate(trained, run):
    table, _ = trained[run].result()
    assert success_rate(game(run[0]), table, 99) >= 0.735


@pytest.mark.parametrize("run", runs_of("frozenlake-8x8-slippery"))
def test_slippery_8x8_success_rate(trained, run):
    table, _ = trained[run].result()
    assert success_rate(game(run[0]), table, 99) >= 0.61


def test_taxi_passes_the_course(trained):
    table, _ = trained["taxi", 0].result()
    mean, std = evaluate_agent(
        game("taxi"), 99, 100, table, RECIPES["taxi"]["eval_seed"]
    )
    assert mean - std >= 4.5


@pytest.mark.parametrize("run", runs_of("taxi-exact"))
def test_taxi_exact_is_exact_and_cheaper(trained, run):
    table, steps = trained[run].result()
    env = game("taxi")
    mean, std = evaluate_agent(env, 99, 100, table, RECIPES["taxi"]["eval_seed"])
    assert f"{mean:.2f} +/- {std:.2f}" == "7.56 +/- 2.71"
    exact = value_iteration(env, 0.95)
    starts = [s for s, p in enumerate(env.unwrapped.initial_state_distrib) if p]
    optimal = sum(drive(env, table, s) == drive(env, exact, s) for s in starts)
    assert len(starts) == 300 and optimal >= 299
    assert steps < trained["taxi", 0].result()[1]


def drive(env, table, state):
    """The return of the greedy policy from a start state, by the rules of the game."""
    total = 0
    for _ in range(99):
        ((_, state, reward, terminated),) = env.unwrapped.P[state][argmax(table[state])]
        total += reward
        if terminated:
            break
    return total


@pytest.mark.parametrize("run", runs_of("cliffwalking"))
def test_cliffwalking_reaches_the_textbook_s_optimum(trained, run):
    table, _ = trained[run].result()
    assert evaluate_agent(game(run[0]), 99, 1, table, []) == (-13.0, 0.0)


def test_the_course_s_hyperparameters_to_the_letter():
    shared = {"learning_rate": 0.7, "gamma": 0.95, "max_steps": 99, "max_epsilon": 1.0}
    shared |= {"min_epsilon": 0.05, "n_eval_episodes": 100, "min_learning_rate": None}
    lake = {
        "env_id": "FrozenLake-v1",
        "n_training_episodes": 10_000,
        "decay_rate": 0.0005,
    }
    lake |= {"env_kwargs": {"map_name": "4x4", "is_slippery": False}, "eval_seed": []}
    taxi = {"env_id": "Taxi-v3", "n_training_episodes": 25_000, "decay_rate": 0.005}
    seeds = RECIPES["taxi"]["eval_seed"]
    assert RECIPES["frozenlake"].items() >= (shared | lake).items()
    assert RECIPES["taxi"].items() >= (shared | taxi | {"env_kwargs": {}}).items()
    assert (len(seeds), sum(seeds)) == (100, 8859)
    assert sum(place * seed for place, seed in enumerate(seeds)) == 403_242


# ------------------ Bad input ---------------------------------------------------------
class Untouchable(Script):
    """Fails the test that touches it."""

    def reset(self, **_):
        raise AssertionError("the environment was touched")

    step = reset


def arguments(**changes):
    good = {
        "n_training_episodes": 1,
        "min_epsilon": 0.1,
        "max_epsilon": 1.0,
        "decay_rate": 0.1,
    }
    good |= {"env": Untouchable([]), "max_steps": 9, "Qtable": initialize_q_table(3, 2)}
    return good | changes


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *[("learning_rate", bad, ValueError) for bad in (0, -0.1, 1.1, NAN)],
        *[("gamma", bad, ValueError) for bad in (-0.1, 1.01, NAN, math.inf)],
        *[("min_epsilon", bad, ValueError) for bad in (-0.1, NAN)],
        *[("max_epsilon", bad, ValueError) for bad in (1.1, NAN)],
        *[("min_learning_rate", bad, ValueError) for bad in (0, 1.1, NAN)],
        *[("decay_rate", bad, ValueError) for bad in (-0.1, math.inf, NAN)],
        *[("n_training_episodes", bad, ValueError) for bad in (0, -1)],
        *[("max_steps", bad, ValueError) for bad in (0, -1)],
        ("seed", -1, ValueError),
        *[("n_training_episodes", bad, TypeError) for bad in (1.0, "10", None, True)],
        *[("max_steps", bad, TypeError) for bad in (99.0, None, True)],
        *[("learning_rate", bad, TypeError) for bad in ("0.7", None, True)],
        *[("gamma", bad, TypeError) for bad in ([0.9], None)],
        *[("max_epsilon", bad, TypeError) for bad in ("1", None)],
        *[("min_epsilon", bad, TypeError) for bad in ("0", None)],
        *[("decay_rate", bad, TypeError) for bad in ("0", None)],
        ("min_learning_rate", "0.1", TypeError),
        *[("seed", bad, TypeError) for bad in (0.5, "0", True)],
    ],
)
def test_bad_numbers_are_named_before_anything_happens(name, value, error):
    with pytest.raises(
        error, match=f"{name} must be .*, not {re.escape(str(value))}|{value!r}"
    ):
        train(**arguments(**{name: value}))


def test_limits_themselves_are_allowed():
    env = Script([(1, 1.0, True, False)])
    edges = {
        "min_epsilon": 0,
        "max_epsilon": 1,
        "decay_rate": 0,
        "max_steps": 1,
        "seed": 0,
    }
    train(**arguments(env=env, **edges), learning_rate=1, min_learning_rate=1, gamma=0)
    train(**arguments(env=env, **edges), learning_rate=1, gamma=1)
    assert len(env.actions) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"min_epsilon": 0.9, "max_epsilon": 0.2},
        {"min_learning_rate": 0.9, "learning_rate": 0.2},
    ],
)
def test_a_minimum_above_its_maximum_is_refused(changes):
    with pytest.raises(ValueError, match=r"0\.9 is above .* 0\.2"):
        train(**arguments(**changes))


@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    "space", [gym.spaces.Discrete(3, start=1), gym.spaces.Box(0, 1)]
)
def test_spaces_that_no_table_fits_are_named(kind, space):
    env = Untouchable([])
    setattr(env, kind, space)
    for call in (
        lambda: train(**arguments(env=env)),
        lambda: evaluate_agent(env, 9, 1, [], []),
    ):
        with pytest.raises(ValueError, match="Discrete") as caught:
            call()
        assert str(space) in str(caught.value)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ([[0.0] * 4] * 16, "16 x 4"),
        ([[0.0, 0.0], [0.0, 0.0], [0.0]], "3 x 1 or 3 x 2"),
        ([[0.0, 0.0]] * 2, "2 x 2"),
        ([], "empty"),
    ],
)
def test_a_table_of_another_shape_is_refused_with_both_shapes(table, found):
    env = Untouchable([])
    for call in (
        lambda: train(**arguments(Qtable=table)),
        lambda: evaluate_agent(env, 9, 1, table, []),
    ):
        with pytest.raises(ValueError, match=f"is {found}, .* needs 3 x 2"):
            call()


@pytest.mark.parametrize("table", [None, 7, [1.0, 2.0]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(TypeError, match="a Q-table is a list"):
        train(**arguments(Qtable=table))


def test_rows_that_are_one_and_the_same_list_are_refused():
    with pytest.raises(ValueError, match="repeats"):
        train(**arguments(Qtable=[[0.0] * 2] * 3))


@pytest.mark.parametrize(
    ("seeds", "error", "text"),
    [
        ([1, 2], ValueError, "3 .* 2"),
        ([1, 2, -3], ValueError, "-3"),
        (5, TypeError, "5"),
    ],
)
def test_bad_evaluation_seeds(seeds, error, text):
    with pytest.raises(error, match=text):
        evaluate_agent(Untouchable([]), 9, 3, initialize_q_table(3, 2), seeds)


@pytest.mark.parametrize(("steps", "episodes"), [(0, 1), (1, 0), (NAN, 1)])
def test_bad_evaluation_counts(steps, episodes):
    with pytest.raises((ValueError, TypeError), match="must be a whole number"):
        evaluate_agent(Untouchable([]), steps, episodes, initialize_q_table(3, 2), [])


# ------------------ The games and the command line ------------------------------------
@pytest.mark.parametrize("ids", qlearning.SAME_GAMES)
def test_retired_ids_give_the_same_game_and_say_so_once(ids, capsys):
    qlearning.say_once.cache_clear()
    games = [make_env(env_id) for env_id in ids for _ in range(2)]
    assert len({type(env.unwrapped) for env in games}) == 1
    assert games[0].unwrapped.P == games[-1].unwrapped.P
    assert len(capsys.readouterr().err.splitlines()) == len(
        [i for i in ids if i not in gym.registry]
    )


def test_make_env_passes_arguments_on():
    env = make_env("FrozenLake-v1", desc=["SG"], is_slippery=False)
    assert env.observation_space.n == 2
    with pytest.raises(gym.error.Error):
        make_env("NoSuchGame-v0")


def command(*arguments, **options):
    """The finished process of a command, run as a user would with the output in a pipe."""
    options.setdefault("env", os.environ | {"PYTHONIOENCODING": "utf-8"})
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE,
        capture_output=True,
        check=False,
        encoding="utf-8",
        **options,
    )


def untimed(text):
    return re.sub(r"[\d.]+ seconds", "N seconds", text)


@pytest.fixture(scope="module")
def story():
    done = command("qlearning.py")
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar in a pipe
    return done.stdout


def test_story_tells_it_all_in_order(story):
    lines = story.splitlines()
    headings = [
        line.split(" (")[0].split(":")[0] for line in lines if line[:3].isupper()
    ]
    assert headings == [
        "THE WORLD", "LEARNING", *["HOW VALUE SPREADS"] * 4,
        "THE Q-TABLE", "THE POLICY", "THE SCORE", "THE PROOF",
    ]  # fmt: skip
    assert "16 states, 4 actions: LEFT, DOWN, RIGHT, UP" in lines
    assert "Mean_reward=1.00 +/- 0.00" in lines
    assert "64 of 64 cells agree to 8 decimals" in lines
    assert "One episode: DOWN DOWN RIGHT DOWN RIGHT RIGHT. Its return is 1." in lines
    assert sum("█" in line for line in lines) == 10
    assert "66,091" in lines[-2] or "environment steps in" in lines[-2]
    assert "\x1b" not in story


def test_story_draws_the_table_and_the_policy(story):
    assert "     14    0.9025     0.9500     1.0000*    0.9025" in story
    assert "      5         .\n" in story
    assert " →0.857 ↓0.902  ↓0.95      H\n      H  →0.95     →1      G\n" in story


def test_story_repeats_but_for_the_time(story):
    assert untimed(
        command("qlearning.py", "frozenlake", "--seed", "0").stdout
    ) == untimed(story)
    assert untimed(command("qlearning.py", "--seed", "1").stdout) != untimed(story)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_story_where_arrows_cannot_be_printed(story, encoding):
    done = command("qlearning.py", env=os.environ | {"PYTHONIOENCODING": encoding})
    plain = story.translate(str.maketrans("←↓→↑█", "<v>^#"))
    assert (done.returncode, untimed(done.stdout)) == (0, untimed(plain))


def test_states_without_knowledge_are_no_arrows():
    done = command("qlearning.py", "--episodes", "1", "--max-steps", "3")
    assert "      .      .      .      .\n      .      H      .      H\n" in done.stdout
    assert "HOW VALUE SPREADS" not in done.stdout


def test_taxi_tells_an_episode_and_the_optimum():
    done = command("qlearning.py", "taxi", "--episodes", "1500")
    assert re.search(
        r"One episode: .*pickup.*dropoff. Its return", done.stdout, re.DOTALL
    )
    assert re.search(r"mean - std = .* 4\.5 ", done.stdout)
    assert "scores 7.56 +/- 2.71" in done.stdout
    assert len(done.stdout.splitlines()) < 60


def test_slippery_lake_prints_what_is_possible():
    done = command("qlearning.py", "frozenlake-slippery", "--episodes", "300")
    assert "optimum that no policy can beat: 0.7422" in done.stdout


def test_list_and_help_name_every_recipe():
    listed = command("qlearning.py", "--list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(RECIPES)
    helped = command("qlearning.py", "--help").stdout
    for word in (
        *RECIPES,
        "--episodes",
        "--learning-rate",
        "--gamma",
        "--decay-rate",
        "--seed",
    ):
        assert word in helped


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["nosuchgame"], "cliffwalking"),
        (["--gamma", "1.5"], "gamma must be a number from 0 to 1, not 1.5"),
        (["--gamma", "nan"], "gamma must be a number from 0 to 1, not nan"),
        (["--episodes", "0"], "n_training_episodes must be a whole number"),
        (["--episodes", "many"], "many"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--min-epsilon", "0.5", "--max-epsilon", "0.2"], "min_epsilon 0.5 is above"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_call_is_one_line_on_stderr(options, text):
    done = command("qlearning.py", *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert text in done.stderr and "Traceback" not in done.stderr


def test_options_override_the_recipe():
    options = "--episodes 5 --learning-rate 0.25 --gamma 0.5 --decay-rate 0.75 --seed 3"
    options += (
        " --max-steps 7 --max-epsilon 0.9 --min-epsilon 0.2 --min-learning-rate 0.125"
    )
    printed = " ".join(command("qlearning.py", *options.split()).stdout.split())
    for text in (
        "n_training_episodes=5, n_eval_episodes=100, max_steps=7, learning_rate=0.25,",
        "min_learning_rate=0.125, gamma=0.5, max_epsilon=0.9, min_epsilon=0.2,",
        "decay_rate=0.75, seed=3",
    ):
        assert text in printed


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_ends_in_peace():
    call = [sys.executable, "-u", "qlearning.py", "taxi"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        call, cwd=HERE, stdout=pipe, stderr=pipe, text=True
    ) as process:
        while "seed=0" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "Stopped" in errors and "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_progress_bar_on_a_terminal():
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    size = struct.pack("HHHH", 24, 80, 0, 0)  # rows, columns, and two unused
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    call = [sys.executable, "qlearning.py", "cliffwalking"]
    process = subprocess.Popen(
        call, cwd=HERE, stdout=subprocess.DEVNULL, stderr=follower
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 1024):
            shown += chunk
    except OSError:  # the other end was closed
        pass
    os.close(leader)
    assert process.wait() == 0
    assert b"500/500" in shown


def test_runs_with_nothing_but_gymnasium():
    code = (
        "import sys\n"
        "for name in 'tqdm huggingface_hub imageio pygame pytest'.split():\n"
        "    sys.modules[name] = None\n"
        "import qlearning\n"
        "sys.exit(qlearning.main(['--episodes', '50']))\n"
    )
    done = command("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "THE PROOF" in done.stdout


def test_docstring_examples():
    failed, tried = doctest.testmod(qlearning)
    assert failed == 0 and tried >= 7


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_no_file_imports_numpy(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [
            alias.name
            for alias in getattr(node, "names", [])
            if isinstance(alias, ast.alias)
        ]
        module = getattr(node, "module", None) or ""
        assert not any(name.split(".")[0] == "numpy" for name in [*names, str(module)])
