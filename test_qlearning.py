"""The reference checked against exact answers: golden numbers, closed forms, hand-made worlds.

Every training run that a test needs is started once, in the background, on all cores.
"""

import ast
import base64
import doctest
import hashlib
import json
import math
import os
import pickle
import pickletools
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gymnasium as gym
import huggingface_hub
import imageio.v2 as imageio
import pytest
from huggingface_hub import metadata_load
from tqdm import tqdm

import hub_utils
import qlearning
from hub_utils import (
    load_from_hub,
    load_model,
    make_env_from_model,
    package_model,
    push_to_hub,
    read_pickle,
    record_video,
    save_model,
)
from qlearning import (
    RECIPES,
    argmax,
    discounted_return,
    epsilon_greedy_policy,
    evaluate_agent,
    exact_score,
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
    *[("taxi", 0), ("taxi-exact", 0)],
    *[("frozenlake-slippery", 0), ("frozenlake-8x8", 0)],
    *[("frozenlake", seed) for seed in range(2)],
    *[("cliffwalking", seed) for seed in range(3)],
]


def runs_of(name):
    return [run for run in RUNS if run[0] == name]


@pytest.fixture(scope="session")
def background(tmp_path_factory):
    """What takes long, started at once: Futures of trained tables and of README's code."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        folder = tmp_path_factory.mktemp
        work = {run: pool.submit(train_recipe, *run) for run in RUNS}
        work |= {bug: pool.submit(run_with_bug, bug, folder("bug")) for bug in BUGS}
        work |= {
            block: pool.submit(run_python, block[0], folder("block"))
            for block in PYTHON
        }
        yield work


@pytest.fixture(scope="session", autouse=True)
def background_starts_first(request):
    """The pool is busy while the quick tests run, if any test needs it."""
    if any("background" in test.fixturenames for test in request.session.items):
        request.getfixturevalue("background")


def copy_of_the_project(folder):
    for name in ("qlearning.py", "hub_utils.py", "test_qlearning.py", "README.md"):
        shutil.copy(HERE / name, folder)
    return folder


# ------------------ README in pieces: what it runs, and what it says comes out --------
README = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```\n(?:\n(?:</details>\n\n)?```text\n(.*?)^```\n)?",
    README,
    re.DOTALL | re.MULTILINE,
)
PYTHON = [(code, output) for language, code, output in BLOCKS if language == "python"]
COMMANDS = [
    (line, output)
    for language, code, output in BLOCKS
    if language == "sh"
    for line in code.splitlines()
]
# The exercises: | # | bug | `what stands there` | `the bug` | `test that turns red` | score |
BUGS = re.findall(
    r"^\| \d .*? \| `(.*?)` \| `(.*?)` \| `(test_\w+)` \| (.*?) \|$",
    README,
    re.MULTILINE,
)


def run_python(code, folder):
    """What a block of README prints, in a copy of the project."""
    done = command("-c", code, cwd=copy_of_the_project(folder))
    return done.stdout if done.returncode == 0 else done.stderr


def run_with_bug(bug, folder):
    """What pytest says of the one test that should see the bug, and Mean_reward with it."""
    right, wrong, test, _ = bug
    path = copy_of_the_project(folder) / "qlearning.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    only = f"test_qlearning.py::{test}"  # never -k: it could match the caller as well
    tested = command("-m", "pytest", "-q", "-p", "no:cacheprovider", only, cwd=folder)
    played = command("qlearning.py", cwd=folder)
    scores = re.findall("^Mean_reward=(.*)$", played.stdout, re.MULTILINE)
    return source.count(right), tested.returncode, tested.stdout, scores or ["an error"]


def game(name):
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"])


def command(*arguments, cwd=HERE, **options):
    """The finished process of a command, run as a user would, with the output in a pipe."""
    options.setdefault("env", os.environ | {"PYTHONIOENCODING": "utf-8"})
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        check=False,
        encoding="utf-8",
        **options,
    )


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


def test_epsilon_decays_from_episode_to_episode():
    env = Script([(1, 0.0, True, False)])
    told = []
    train(
        3,
        0.1,
        0.9,
        0.25,
        env,
        99,
        initialize_q_table(3, 2),
        on_episode=lambda *a: told.append(a),
    )
    expected = [0.1 + 0.8 * math.exp(-0.25 * episode) for episode in range(3)]
    assert [epsilon for _, epsilon, _, _ in told] == pytest.approx(expected, abs=1e-15)


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


def test_nothing_is_seeded_unless_asked_for():
    env = Script([(1, 0.0, True, False)])
    train(1, 0, 1, 0.1, env, 9, initialize_q_table(3, 2))
    list(rollout(env, initialize_q_table(3, 2), 9))
    assert env.seeds == [None, None]


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
    assert exact_score(env, 99) == pytest.approx(7.93, abs=1e-9)


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
    assert round(exact_score(env, 99), 4) == optimum
    assert round(exact_score(env, 99, table), 4) == best_of_gamma
    assert round(success_rate(env, table, 99), 4) == best_of_gamma


# ------------------ The course ---------------------------------------------------------
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
    shown = str(value) if error is ValueError else repr(value)
    with pytest.raises(error, match=rf"^{name} must be .*, not {re.escape(shown)}$"):
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


@pytest.mark.parametrize("cell", [None, "1", NAN])
def test_cells_that_are_no_numbers_are_refused(cell):
    with pytest.raises(ValueError, match="a cell that is not a number"):
        train(**arguments(Qtable=[[0.0, cell], [0.0, 0.0], [0.0, 0.0]]))


def test_rows_that_are_one_and_the_same_list_are_refused():
    with pytest.raises(ValueError, match="repeats"):
        train(**arguments(Qtable=[[0.0] * 2] * 3))


@pytest.mark.parametrize(
    ("seeds", "error", "text"),
    [
        ([1, 2], ValueError, "only 2 seeds"),
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
    assert "16 states, 4 actions: 0 LEFT, 1 DOWN, 2 RIGHT, 3 UP" in lines
    assert "Mean_reward=1.00 +/- 0.00" in lines
    assert "64 of 64 cells agree to 8 decimals" in lines
    assert "The greedy action is a best one in 11 of 11 known states" in lines
    assert "One episode: DOWN DOWN RIGHT DOWN RIGHT RIGHT. Its score is 1." in lines
    assert sum("█" in line for line in lines) == 10
    assert re.fullmatch(r"65,565 environment steps in [\d.]+ seconds\.", lines[-2])
    assert "\x1b" not in story


def test_story_draws_the_table_and_the_policy(story):
    assert "     14    0.9025     0.9500     1.0000*    0.9025" in story
    assert "      5         .\n" in story
    assert " →0.857 ↓0.902  ↓0.95      H\n      H  →0.95     →1      G\n" in story


def test_story_repeats_but_for_the_time(story):
    assert untimed(
        command("qlearning.py", "frozenlake", "--seed", "0").stdout
    ) == untimed(story)
    short = ("qlearning.py", "--episodes", "300", "--seed")
    assert command(*short, "1").stdout != command(*short, "2").stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_story_where_arrows_cannot_be_printed(encoding):
    short = ("qlearning.py", "--episodes", "300")
    done = command(*short, env=os.environ | {"PYTHONIOENCODING": encoding})
    plain = command(*short).stdout.translate(str.maketrans("←↓→↑█", "<v>^#"))
    assert "<" in plain
    assert (done.returncode, untimed(done.stdout)) == (0, untimed(plain))


def test_states_without_knowledge_are_no_arrows():
    done = command("qlearning.py", "--episodes", "1", "--max-steps", "3")
    assert "      .      .      .      .\n      .      H      .      H\n" in done.stdout
    assert "HOW VALUE SPREADS" not in done.stdout


def test_taxi_tells_an_episode_and_the_optimum():
    done = command("qlearning.py", "taxi", "--episodes", "1500")
    assert re.search(
        r"One episode: .*pickup.*dropoff. Its score", done.stdout, re.DOTALL
    )
    assert re.search(r"mean - std = .*4\.5 ", done.stdout)
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
        (["--gamma", "1.5"], "--gamma must be a number from 0 to 1, not 1.5"),
        (["--gamma", "nan"], "--gamma must be a number from 0 to 1, not nan"),
        (["--episodes", "0"], "--episodes must be a whole number"),
        (["--episodes", "many"], "many"),
        (["--learning-rate", "0"], "--learning-rate must be"),
        (
            ["--min-epsilon", "0.5", "--max-epsilon", "0.2"],
            "--min-epsilon 0.5 is above --max-epsilon 0.2",
        ),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_call_is_one_line_on_stderr(options, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        qlearning.main(options)
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert text in printed.err


def test_a_wrong_call_has_its_exit_code_and_no_traceback():
    done = command("qlearning.py", "--gamma", "7")
    sentence = "qlearning.py: error: --gamma must be a number from 0 to 1, not 7.0\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


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
    assert doctest.testmod(hub_utils).failed == 0


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


# ======================================================================================
# hub_utils: the video
# ======================================================================================
GOOD_TABLE = [[max(0.0, value) for value in row] for row in GOLDEN]


def filmed(name="frozenlake", **more):
    return make_env(
        RECIPES[name]["env_id"],
        render_mode="rgb_array",
        **RECIPES[name]["env_kwargs"],
        **more,
    )


def frames_of(path):
    with imageio.get_reader(path) as reader:
        return reader.get_meta_data(), [frame for frame in reader]


def test_video_is_what_browsers_play(tmp_path):
    path = tmp_path / "new" / "replay.mp4"
    assert record_video(filmed(), GOOD_TABLE, path) == path
    meta, frames = frames_of(path)
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert meta["fps"] == 1
    assert meta["source_size"] == (256, 256)
    assert len(frames) == 7  # before the first of six moves, and after each


def difference(one, other):
    """How far two pictures are apart, over a coarse grid of their pixels."""
    pixels = zip(
        one[::8, ::8].ravel().tolist(), other[::8, ::8].ravel().tolist(), strict=True
    )
    return sum(abs(a - b) for a, b in pixels)


def test_video_shows_the_agent_where_it_is(tmp_path):
    env = filmed()
    record_video(env, GOOD_TABLE, tmp_path / "replay.mp4", 2)
    meta, frames = frames_of(tmp_path / "replay.mp4")
    assert meta["fps"] == 2
    actions = [action for action, _, _ in rollout(env, GOOD_TABLE, 99)][1:]
    env.reset()
    shown = [env.render()]
    for action in actions:
        env.step(action)
        shown.append(env.render())
    for i, frame in enumerate(frames):  # nearer to its own picture than to any other
        distances = [difference(frame, picture) for picture in shown]
        assert argmax([-distance for distance in distances]) == i


def test_gif_by_its_ending_and_the_same_for_the_same_seed(tmp_path):
    table = value_iteration(game("frozenlake-slippery"), 0.99)
    paths = [tmp_path / name for name in ("a.gif", "b.gif", "c.GIF")]
    for path, seed in zip(paths, (1, 1, 3), strict=True):
        record_video(filmed("frozenlake-slippery"), table, path, 4, seed=seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first[:6] == b"GIF89a"
    assert first == again != other
    assert frames_of(paths[0])[0]["duration"] == 250


def test_taxi_keeps_its_size_and_nothing_is_printed(tmp_path):
    code = (
        "import sys, hub_utils, qlearning\n"
        "env = qlearning.gym.make(sys.argv[2], render_mode='rgb_array')\n"
        "table = qlearning.initialize_q_table(500, 6)\n"
        "hub_utils.record_video(env, table, sys.argv[1], max_steps=3, seed=0)\n"
    )
    env_id = next(env_id for env_id in ("Taxi-v3", "Taxi-v4") if env_id in gym.registry)
    screenless = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
    done = command("-c", code, str(tmp_path / "taxi.mp4"), env_id, env=screenless)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    env = filmed("taxi")
    env.reset()
    height, width, _ = env.render().shape
    meta, frames = frames_of(tmp_path / "taxi.mp4")
    assert meta["source_size"] == (width, height)
    assert len(frames) == 4


class Odd(Script):
    """A world without an end, in a picture of odd sizes."""

    render_mode = "rgb_array"

    def render(self):
        import_free = filmed()
        import_free.reset()
        return import_free.render()[:101, :75]


def test_odd_sizes_and_endless_games_are_filmed_too(tmp_path):
    env = Odd([(0, 0.0, False, False)] * 200)
    record_video(env, initialize_q_table(3, 2), tmp_path / "odd.mp4", max_steps=5)
    meta, frames = frames_of(tmp_path / "odd.mp4")
    assert (meta["source_size"], len(frames)) == ((74, 100), 6)
    assert len(env.actions) == 5
    record_video(env, initialize_q_table(3, 2), tmp_path / "long.mp4")
    assert len(env.actions) == 5 + 99


@pytest.mark.parametrize(
    ("env", "name", "more", "text"),
    [
        (game, "a.mp4", {}, 'render_mode="rgb_array"'),
        (filmed, "a.avi", {}, "ends in .mp4 or .gif"),
        (filmed, "replay", {}, "ends in .mp4 or .gif"),
        (filmed, "a.mp4", {"fps": 0}, "fps must be from"),
        (filmed, "a.mp4", {"max_steps": 0}, "max_steps must be"),
        (filmed, "a.mp4", {"seed": -1}, "seed must be"),
    ],
)
def test_what_cannot_be_filmed_is_said_at_once(tmp_path, env, name, more, text):
    with pytest.raises(ValueError, match=text):
        record_video(env("frozenlake"), GOOD_TABLE, tmp_path / "new" / name, **more)
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_breaks_leaves_the_old_one(tmp_path):
    class Breaking(Odd):
        def step(self, action):
            raise OSError("no more")

    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(OSError, match="no more"):
        record_video(Breaking([]), initialize_q_table(3, 2), tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_a_name_that_cannot_be_leaves_nothing(tmp_path):
    for ending in (".gif", ".mp4"):
        with pytest.raises(OSError):
            record_video(filmed(), GOOD_TABLE, tmp_path / ("a" * 300 + ending))
    assert list(tmp_path.iterdir()) == []


def test_missing_renderer_is_said(tmp_path):
    class Bare(Odd):
        def render(self):
            raise gym.error.DependencyNotInstalled("pygame")

    with pytest.raises(RuntimeError, match="pip install"):
        record_video(Bare([]), initialize_q_table(3, 2), tmp_path / "a.mp4")


# ======================================================================================
# hub_utils: pickles
# ======================================================================================
# {"env_id": "FrozenLake-v1", "max_steps": 99, "n_eval_episodes": np.int64(2),
#  "eval_seed": [], "gamma": np.float32(0.5), "map_name": "4x4", "slippery": False,
#  "qtable": np.arange(64).reshape(16, 4) - 8}, zlib and base85 on top.
SAMPLES = {
    "NumPy 1.26, protocol 0, float32": r"""
c-oEBF^tnN6b4`kF`y@g8yFZEZeZxZRdM3BsdUoyDs&>!sX8GPF(3suHC05Cnk22ROdS~+89OpEvJo~$M#he
ejEp>|C()mB(p7Th&wjDrv)i;L#-UK>izu0p5fq*kv$r}wSFiQaLXdH(3^R2Zm6bLn8IOW~pNH~DFH{<7la#
ZG<_Sr0KF`du9nT8g&gN;AsG?9yDr1$Zf=q{6+X$LeOQXqjsTC$ZnH~j>!%a|Se0pm7)CxQbk2xEMMx#-1B&
cZ)2M9sqIEs1CxFnt14#&B?)U6kDhd(#@<|lZAR8>jN6$)wB?eNZ`YkNK0^SQ>R!cuE{E}T?qT!%-eD$5j~i
=Zi&G__T{l5BUU4A<i|T-g*d{ZAEchsM(;>;2?Tc&#o!WwUZ^F0OBTeeQWqa~USeRmNp|d|UF8_x9{1m1$y(
E|yHMNu><mRBD{sz-uojDs(){%c_{i703O(qkOUrFdi4!<m~lmoAQ_k{i_5$o0hcGQrI5P2g0^41$JI?{d^8
Ko$KoTx{FP{s~WThtw4i%e_;&&a+4p%>STXx006B(Yfuf^4E7g3-Ngau5QLEf&;{rv$beR$ccAy651=*ZBj^
+8GpGiA1APbm0Bt}&LBBx1PxlXXxQpAMJD|Iu1JFIteb58YA?P8f1$qR+JSE5n9fJm-$Dk*mbI=9o8R+@&-(
&2=Lw=#ltN*yPuSRKKjj~7Mvi%3nZ??<""",
    "NumPy 1.26, protocol 2, int16": r"""
c-nQ4Nsrn<5QQJ>fCmO<-}jAKU<QUPhe)~Q5Jwz*@+Gnw(+O5=<FXAJB1Ot2Ot|IeWY2*gmXyuhl632}x~p1
M->dh@cZ7<b1t8slVRa~>7y0qb@4c1o3-Lx)2X#v7d5$^a)(ArB1(Z@vy~GjMkON^G(zAkIM+THO-M-@uYi7
@vHK%WfmhgQsR031j!dECW%`2U7=t+gLdXkG+k7;K7@s4sD<tu7RPjKuBDXmuP`EOqFp(3Q&wrQB$#tancMi
+$&dX7IwMWRK;*oQ4b%dOMgh)NojM>Ma|Ld+kt22yrt@g*(k84kS`jw5Kfo9RwjUNvbYVp-K_jaj;XQ>?eU1
wB1&_>?xf+-6gwtr2Z&v=iev!ZTdqNZQp?{A}JfX)jI$w&i)!AJYCf2BlE6ZAl0J8Jgisv*!k(-#0^r4(~_j
cBWZ6Qt^R~877)nn@%E<Q;jNjbf(dHMNOz>H9ew>duLXIE+c1EjcWgPcGVtpwNLza@_F)W@`d%4^^NtN^@H`
3#T!WQ&{IewgDhr{LmmodQ9u!MD4~pbEMO5!SjGxgv4(YQU=v%|#twF|hkYF25Jx!12~JVL8P0KmOH@(A6|P
Z712<^m0UqKJ=sGf2*QgQFO}k(F0|2_pN&""",
    "NumPy 1.26, protocol 4, float64": r"""
c-no^%TC)s6b9gv3n5fovH*z%3shAoLNo#zAY2m&g@REQ?2$FGr`W=FjP0bP5)vCIk!Hu~^OQ&84XCmI3ROa
!g}?bnqcdkD-{gP)$Wc<)Tvi3?^>o{0HFgkmeoF5|T*%M8B~~M@xYEN&`XOtEn(%bl6OJx@JM5S;WHse=UB6
#3I)SXXT_>_d5QsjjLTCs_1pL5iC^-^qMtxtt>}2g45AJ{QDVMdJ%4~6~)jEETEBR;?al2W}rqdDM#pl#Wa&
IW5$!Bq^bK$yztzqkf%6_lDHnYaxXqAt<)YCRaSNOUoT*)d|y{g6=p=0~L4Ej7!h092^9m&>^8r1`7bi6PMx
<(X_Y!%h8XQpp^V2y6MnQ3!+X+|q)`8!TVsl7kSV2}Pii)J5FXW%rPge6#n1fTxUfAv(yqJi_U1SjD%oPo3O
Bm4yCU>VNC1z3TLa0xEMFR%(%;3`~$HMkBp;3nLH+i(ZgVI%bh(k?QjJ!D8tWJvqSkiH^AIzWbWhz#i)GNdD
9NXN*KG-R#8@t@GG`~`05!ao""",
    "NumPy 2.4, protocol 4, float64, by columns": r"""
c-no^O-tNB7zgm|i|Z;?_aM?k52Z+1iY{uSZd>cFZo93f?7_Q)*<@;hd25ngHi9r0t-{=V{5;){)NjzH$v+f
9oI`#vGd%z286v9plZuk9OKQp*_r|(yl3eJA{ss5Gv2(sY-XuBavWXtWJcvj$<dUcJF>`bt*pYAYh~$bla)Y
F$8-B=J?#PL47KSV#S&Izju#oOZ&SZB|%{U48zn!w(rrVpJbV5z7B1?NT7z~d8q$~SqN=(CEy_~nF&~<uG&S
k+7=O&$|rOue^GO}i^d0GCh{x4=NK2oZhR_Wwr>Mjd(kGY&=MV+YWM&#H*z{7-YW$j1Ih7KodMn2O+Zunjlh
a)3STej+Q)-&_j?nqOvs8<?N9$L~GTJ@T;R@zUua&xE@V<|7Exs9pvU^TiphfTNvRoI4munQ02C)kHy;W2!H
+&cW-$z8_zEBFR(!fp5te#{lf7swaL7swaL7e)T_V(!9XAFjeRxCM9Md$<n|U=MzVU*Hkc;BqndFT6wXF7P#
M!MAW1et;d!g?xd0fqa2{fqbELDg6^ht-m?f!k+""",
    "NumPy 2.4, protocol 5, float32": r"""
c-n2yKWGzS7{~E9X_}_~4Jf69LkEWp8Y*PyP-twW6t9FL3J%KoCV68H?=IK7OK1e)rv8C<5PTHJjE;_O#?7%
~$Bd4SZu(8C=-|WqdEb}!9)5T4W%F+z<<+cSNyQdTIB>nT*vs2-@1+TM^$T-*a7XN7pby+6HBll?%U%s#Gtj
<kA}{H+O(J$F><7`X>b82ZsRn&N^>iHTq1a;5(!P%6joA5F4{JLeMrL}F_txa(_(&c|#hJ6Yb!jvj_kU8e$x
*2^w@SZ1Pst&Dc5(LN#F(}`CF;2j0xjKz?gg9g)c%Hbuly&fK+48>OexTj8|uJ_ovR(xI7oaiicCC|6I<L*b
<^k3wSRBL-o#!@>_xW|_kw1>(=pR~Ro<zb`cq$&nv9hiV}uNKsOkRmc}upzRA(T=2xCm3?kZKr3RY3a9-bjW
hGV?OdyMb_AMpuee8nlwFu^x`#}BAYr3xtF63V!aW!%6DZlZ!)SVawMSVtZAu!CLf;UOO5$)<Fdow8Fn6r0<
Ul;7O1{sP-7wWa""",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_models_that_real_numpys_wrote(name, tmp_path):
    path = tmp_path / "q-learning.pkl"
    path.write_bytes(zlib.decompress(base64.b85decode("".join(SAMPLES[name].split()))))
    model = load_model(path)
    assert model == {
        "env_id": "FrozenLake-v1", "max_steps": 99, "n_eval_episodes": 2, "eval_seed": [],
        "gamma": 0.5, "map_name": "4x4", "slippery": False,
        "qtable": [[4.0 * row + column - 8 for column in range(4)] for row in range(16)],
    }  # fmt: skip
    assert type(model["n_eval_episodes"]) is int and type(model["gamma"]) is float
    assert {type(cell) for row in model["qtable"] for cell in row} == {float}
    env = make_env_from_model(model)
    assert env.spec.kwargs["is_slippery"] is False


def small_model(**more):
    model = {"env_id": "FrozenLake-v1", "max_steps": 99, "n_eval_episodes": 3}
    model |= {"env_kwargs": {"desc": ["SFG"], "is_slippery": False}, "eval_seed": []}
    model |= {
        "learning_rate": 0.7,
        "gamma": 0.5,
        "max_epsilon": 1.0,
        "min_epsilon": 0.05,
    }
    model |= {"n_training_episodes": 10, "decay_rate": 0.1, "seed": 0}
    model |= {"qtable": [[0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]}
    return model | more


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    for bad in ({"n": {5: 1}}, {"n": b"x"}, {"gamma": NAN}, {"qtable": [[None]]}):
        with pytest.raises(ValueError):
            save_model(small_model() | bad, tmp_path / "m.pkl")
    assert list(tmp_path.iterdir()) == []


def test_what_we_write_is_read_by_pickle_as_the_course_does(tmp_path):
    path = save_model(small_model(), tmp_path / "deep" / "q-learning.pkl")
    with open(path, "rb") as file:
        model = pickle.load(file)
    assert model["qtable"][1][2] == 1.0 and model["env_id"] == "FrozenLake-v1"
    assert load_model(path) == small_model() == model
    names = {
        instruction.name for instruction, _, _ in pickletools.genops(path.read_bytes())
    }
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
    assert path.read_bytes()[:2] == b"\x80\x04"


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(tmp_path, protocol):
    model = small_model(note="é 中", flags=(True, None), big=2**40, negative=-7)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(model, protocol))
    assert load_model(tmp_path / "m.pkl") == model | {"flags": [True, None]}


def test_numpy_values_are_saved_as_plain_ones(tmp_path):
    number = game("frozenlake").unwrapped.initial_state_distrib
    model = small_model(gamma=number[0], qtable=[number[:2], number[1:3]])
    loaded = load_model(save_model(model, tmp_path / "m.pkl"))
    assert (loaded["gamma"], loaded["qtable"]) == (1.0, [[1.0, 0.0], [0.0, 0.0]])


def op(name, argument=b""):
    """One instruction of a pickle, by its name."""
    code = next(code for code in pickletools.opcodes if code.name == name)
    return code.code.encode("latin1") + argument


def text(value):
    return op("BINUNICODE", struct.pack("<I", len(value)) + value.encode())


def imported(module, name, argument=b")"):
    return (
        op("GLOBAL", f"{module}\n{name}\n".encode())
        + argument
        + op("REDUCE")
        + op("STOP")
    )


def array(shape, data, code="f8", order="<", name="numpy.core.multiarray _reconstruct"):
    """A NumPy array, instruction by instruction; `shape` as the instructions that push it."""
    module, maker = name.split()
    start = (
        op("GLOBAL", f"{module}\n{maker}\n".encode()) + op("EMPTY_TUPLE") + op("REDUCE")
    )
    dtype = op("GLOBAL", b"numpy\ndtype\n") + text(code) + op("TUPLE1") + op("REDUCE")
    dtype += op("NONE") + text(order) + op("TUPLE2") + op("BUILD")
    state = op("NONE") + shape + dtype + op("NEWFALSE")
    state += op("BINBYTES", struct.pack("<I", len(data)) + data)
    return start + op("MARK") + state + op("TUPLE") + op("BUILD")


def pair(rows, columns):
    return b"".join(op("BININT", struct.pack("<i", n)) for n in (rows, columns)) + op(
        "TUPLE2"
    )


def model_with(table):
    """A pickle of a model whose qtable is made by these instructions."""
    env_id = text("env_id") + text("FrozenLake-v1") + op("SETITEM")
    return (
        op("EMPTY_DICT") + env_id + text("qtable") + table + op("SETITEM") + op("STOP")
    )


def nested(opening, closing, depth):
    return opening * depth + closing * depth


def dtype_of(code):
    """A dtype whose code is pushed by these instructions, and a scalar of it."""
    dtype = op("GLOBAL", b"numpy\ndtype\n") + code + op("TUPLE1") + op("REDUCE")
    dtype += op("NONE") + text("<") + op("TUPLE2") + op("BUILD")
    number = dtype + op("BINBYTES", struct.pack("<I", 8) + bytes(8)) + op("TUPLE2")
    return op("GLOBAL", b"numpy.core.multiarray\nscalar\n") + number + op("REDUCE")


def doubled(times, slot):
    """Nested tuples, each twice in the next: 2 ** times of them for whoever walks it."""
    twice = op("BINPUT", bytes([slot])) + op("BINGET", bytes([slot])) + op("TUPLE2")
    return op("EMPTY_TUPLE") + twice * times


def in_itself(slot):
    """A list that holds itself."""
    memo = op("BINPUT", bytes([slot])) + op("BINGET", bytes([slot]))
    return op("EMPTY_LIST") + memo + op("APPEND")


def scalar_of(name):
    return name + op("EMPTY_TUPLE") + op("REDUCE")


LIST, LIST_OF_TWO = op("EMPTY_LIST"), op("TUPLE2")
LAUGHS = op("EMPTY_LIST") + b"".join(
    op("BINPUT", bytes([i]))
    + op("EMPTY_LIST")
    + op("MARK")
    + op("BINGET", bytes([i])) * 10
    + op("APPENDS")
    for i in range(200)
)
ATTACKS = {
    "os.system": (imported("os", "system", text("true") + op("TUPLE1")), "it would import os.system"),
    "eval": (imported("builtins", "eval"), "it would import builtins.eval"),
    "escape codes": (imported("\x1b[2J", "x"), r"it would import \x1b[2J.x"),
    "numpy but not arrays": (imported("numpy", "load"), "it would import numpy.load"),
    "stack global": (
        text("os") + text("system") + op("STACK_GLOBAL") + op("STOP"),
        "it would import os.system",
    ),
    "long name": (imported("m" * 5000, "x"), "it would import " + "m" * 80 + ".x"),
    "instance": (op("MARK") + op("INST", b"os\nsystem\n") + op("STOP"), "INST"),
    "persistent id": (op("PERSID", b"x\n") + op("STOP"), "PERSID"),
    "extension": (op("EXT1", b"\x01") + op("STOP"), "EXT1"),
    "set": (op("EMPTY_SET") + op("STOP"), "EMPTY_SET"),
    "buffer": (op("NEXT_BUFFER") + op("STOP"), "NEXT_BUFFER"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "empty": (b"", "not a pickle"),
    "html": (b"<!doctype html><html></html>", "not a pickle"),
    "zip": (b"PK\x03\x04" + bytes(100), "not a pickle"),
    "cut off": (pickle.dumps(small_model())[:-9], "cut off"),
    "trailing": (pickle.dumps(small_model()) + b"x", "STOP"),
    "no dictionary": (pickle.dumps([1, 2]), "a dictionary with env_id and qtable"),
    "no env_id": (pickle.dumps({"qtable": [[0.0]]}), "a dictionary with env_id"),
    "env_id no text": (pickle.dumps({"env_id": 7, "qtable": [[0.0]]}), "env_id"),
    "no table": (pickle.dumps({"env_id": "x"}), "not a list of rows"),
    "ragged": (pickle.dumps({"env_id": "x", "qtable": [[0.0], [0.0, 1.0]]}), "of one length"),
    "empty rows": (pickle.dumps({"env_id": "x", "qtable": [[]]}), "of one length"),
    "nan": (pickle.dumps(small_model(qtable=[[NAN]])), "not finite"),
    "text cell": (pickle.dumps(small_model(qtable=[["1"]])), "not a number"),
    "infinite gamma": (pickle.dumps(small_model(gamma=math.inf)), "not finite"),
    "huge integer": (pickle.dumps(small_model(seed=2**4000)), "a int that no model needs"),
    "bytes": (pickle.dumps(small_model(note=b"x")), "a bytes that no model needs"),
    "long text": (pickle.dumps(small_model(note="x" * 20_000)), "a str that no model needs"),
    "key no text": (pickle.dumps({1: 2}), "a key that is not a short text"),
    # A dictionary key of nested tuples, each twice in the next: 2 ** 100 hashes.
    "hash bomb": (
        LIST + op("TUPLE1") + (op("BINPUT", b"\0") + op("BINGET", b"\0") + LIST_OF_TWO) * 100
        + op("PUT", b"1\n") + op("EMPTY_DICT") + op("GET", b"1\n") + op("NONE")
        + op("SETITEM") + op("STOP"),
        "a key that is not a short text",
    ),
    "billion laughs": (LAUGHS + op("STOP"), "more values, or deeper nested"),
    "laughs as a table": (model_with(op("MARK") + LAUGHS + op("LIST")), "more values, or deeper nested"),
    "a list in itself": (
        LIST + op("BINPUT", b"\0") + op("BINGET", b"\0") + op("APPEND") + op("STOP"),
        "more values, or deeper nested",
    ),
    "deep lists": (nested(LIST, op("APPEND"), 100_000) + op("STOP"), "damaged"),
    "deep table": (
        model_with(LIST + nested(LIST, op("APPEND"), 100_000)), "more values, or deeper nested"
    ),
    "deep tuples": (LIST + op("TUPLE1") * 300_000 + op("STOP"), "more values, or deeper nested"),
    "deep marks": (op("MARK") * 700_000, "a MARK that no model needs"),
    "long program": (op("NONE") * 5_000_000 + op("STOP"), "more instructions"),
    "large file": (op("BINUNICODE", struct.pack("<I", 20_000_000)) + bytes(20_000_000), "bytes"),
    "huge bytes": (op("BINBYTES8", struct.pack("<Q", 2**62)) + b"x", "cut off"),
    "huge text": (op("BINUNICODE8", struct.pack("<Q", 2**40)) + b"x", "cut off"),
    "huge memo index": (op("NONE") + op("LONG_BINPUT", b"\xff" * 4) + op("STOP"), "not a model"),
    "huge long": (op("LONG4", struct.pack("<i", 9_000_000)) + b"\x7f" * 9_000_000 + op("STOP"), "a int"),
    "many digits": (op("INT", b"9" * 5_000_000 + b"\n") + op("STOP"), ""),
    "memo bomb": (
        b"".join(op("NONE") + op("LONG_BINPUT", struct.pack("<I", i)) for i in range(270_000))
        + op("STOP"),
        "not a model",
    ),
    "nothing on the stack": (op("APPEND") + op("STOP"), "damaged"),
    "no mark": (op("APPENDS") + op("STOP"), "damaged"),
    "nothing in the memo": (op("BINGET", b"\x07") + op("STOP"), "damaged"),
    "build on a list": (LIST + op("NONE") + op("BUILD") + op("STOP"), "damaged"),
    "call of a number": (op("NONE") + op("EMPTY_TUPLE") + op("REDUCE") + op("STOP"), "a call of something without a name"),
    "array of negative size": (model_with(array(pair(-1, -8), bytes(64))), "unknown shape"),
    "array of huge size": (model_with(array(pair(2**30, 2**30), bytes(64))), "larger than any"),
    "array of unspeakable size": (
        model_with(
            array(
                op("LONG4", struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000) + op("TUPLE1"),
                b"",
            )
        ),
        "larger than any",
    ),
    "array of many empty rows": (model_with(array(pair(2**30, 0), b"")), "larger than any"),
    "array of other size": (model_with(array(pair(16, 4), bytes(64))), "damaged"),
    "array of objects": (model_with(array(pair(2, 4), bytes(64), "O8")), "damaged"),
    "array of strange order": (model_with(array(pair(2, 4), bytes(64), order="@")), "damaged"),
    "three dimensions": (
        model_with(array(op("NONE") + pair(2, 2)[:-1] + op("TUPLE3"), bytes(64))), ""
    ),
    "array without its state": (
        model_with(
            op("GLOBAL", b"numpy.core.multiarray\n_reconstruct\n")
            + op("EMPTY_TUPLE")
            + op("REDUCE")
        ),
        "a part of an array",
    ),
    "array of doubled sizes": (
        model_with(array(doubled(60, 0) + doubled(60, 1) + op("TUPLE2"), bytes(64))),
        "unknown shape",
    ),
    "array of sizes in themselves": (
        model_with(array(in_itself(0) + in_itself(1) + op("TUPLE2"), bytes(64))),
        "unknown shape",
    ),
    "dtype of doubled tuples": (model_with(dtype_of(doubled(60, 0))), "unknown numbers"),
    "dtype of deep tuples": (
        model_with(dtype_of(op("EMPTY_TUPLE") + op("TUPLE1") * 200_000)), "unknown numbers"
    ),
    "call of a text": (model_with(scalar_of(text("numpy.core.multiarray.scalar"))), "without a name"),
    "many references to one array": (
        model_with(
            LIST + op("MARK") + array(pair(0, 0), b"") + op("BINPUT", b"\0")
            + op("BINGET", b"\0") * 490_000 + op("APPENDS")
        ),
        "more values",
    ),
    "many imports": (
        op("GLOBAL", b"numpy\ndtype\n") * 500_000 + op("STOP"), "a GLOBAL that no model needs"
    ),
    "equal long keys": (
        op("EMPTY_DICT") + text("a" * 4_000_000) + op("NONE") + op("SETITEM") + op("STOP"),
        "a key that is not a short text",
    ),
    "strange escapes": (op("STRING", b"'\\d'\n") * 9 + op("STOP"), "a STRING that no model needs"),
    "escape codes in a key": (
        pickle.dumps({"env_id": "x", "\x1b[2J" * 10: math.inf}), "not finite"
    ),
    "escape codes in a name": (imported("\x1b[2J", "x"), "it would import"),
    "a dtype as the table": (
        model_with(op("GLOBAL", b"numpy\ndtype\n") + op("EMPTY_TUPLE") + op("REDUCE")),
        "a part of an array",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_model_is_refused_and_nothing_runs(name, tmp_path):
    data, reason = ATTACKS[name]
    (tmp_path / "m.pkl").write_bytes(data)
    with pytest.raises(ValueError, match="is not a Q-learning model") as caught:
        load_model(tmp_path / "m.pkl")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_all_attacks_together_stay_within_time_and_memory(tmp_path):
    """In a process of its own: 2 seconds and 200 MB for each file, as the kernel counts."""
    resource = pytest.importorskip("resource")
    for i, (data, _) in enumerate(ATTACKS.values()):
        (tmp_path / f"{i}.pkl").write_bytes(data)
    code = (
        "import hub_utils, resource, sys, time\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most()\n"
        "for path in sys.argv[1:]:\n"
        "    start = time.process_time()\n"
        "    try:\n"
        "        hub_utils.load_model(path)\n"
        "    except ValueError:\n"
        "        print(f'{time.process_time() - start:.2f}', path)\n"
        "print(most() - before)\n"
    )
    assert resource
    done = command("-c", code, *map(str, sorted(tmp_path.iterdir())))
    *times, memory = done.stdout.splitlines()
    assert len(times) == len(ATTACKS)
    assert max(float(line.split()[0]) for line in times) < 2
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(memory) * unit < 200e6


def test_an_array_assembled_by_hand_is_read():
    numbers = struct.pack(">4h", 1, -2, 3, 4)
    read = read_pickle(model_with(array(pair(2, 2), numbers, "i2", ">")))
    assert read == {"env_id": "FrozenLake-v1", "qtable": [[1, -2], [3, 4]]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"env_id": "os:Game-v0"}, "has no game 'os:Game-v0'"),
        ({"env_id": "NoSuchGame-v0"}, "has no game"),
        (
            {"env_kwargs": {"render_mode": "human"}},
            "cannot be made with ['render_mode']",
        ),
        ({"env_kwargs": {"desc": ["SFFFFFFFFG"]}}, "too large for its table"),
        ({"env_kwargs": {"map_name": "9x9"}}, "cannot be made"),
        ({"env_kwargs": {"map_name": "4x4"}}, "needs 16 x 4"),
        ({"env_kwargs": ["desc"]}, "no dictionary"),
        ({"env_kwargs": {"desc": 5}}, "cannot be made"),
        ({"env_kwargs": {"desc": ["FFF"]}}, "has an S"),
        ({"env_kwargs": {f"k{i:090}": 1 for i in range(9000)}}, "cannot be made with"),
        ({"env_kwargs": {"desc": ["S\x1b\r"]}}, "made of S, F, H and G"),
        ({"env_kwargs": {"map_name": ["x" * 9000] * 300}}, "cannot be made"),
        ({"env_id": "GymV21Environment-v0", "env_kwargs": {}}, "cannot be made"),
        ({"env_id": "CartPole-v1", "env_kwargs": {}}, "Discrete"),
    ],
)
def test_a_stranger_s_game_is_made_only_if_harmless_and_fitting(change, text):
    with pytest.raises(ValueError) as caught:
        make_env_from_model(small_model() | change)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_games_of_ours_and_of_the_course_are_made():
    env = make_env_from_model(small_model(), render_mode="rgb_array")
    assert (env.render_mode, env.observation_space.n) == ("rgb_array", 3)
    taxi = {"env_id": "Taxi-v3", "qtable": initialize_q_table(500, 6)}
    assert make_env_from_model(taxi).action_space.n == 6
    lake = {
        "env_id": "FrozenLake-v1",
        "qtable": initialize_q_table(64, 4),
        "map_name": "8x8",
    }
    assert len(make_env_from_model(lake).unwrapped.P[0][0]) == 3  # slippery by default
    assert len(make_env_from_model(lake | {"slippery": False}).unwrapped.P[0][0]) == 1


# ======================================================================================
# hub_utils: the package
# ======================================================================================
FILES = {"q-learning.pkl", "params.json", "results.json", "README.md", "replay.mp4"}


def lake_model(seed=0):
    """The frozenlake recipe as a model; the table is the exact one."""
    return RECIPES["frozenlake"] | {"seed": seed, "qtable": GOOD_TABLE}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    (folder / "notes.txt").write_text("mine")
    assert package_model(lake_model(), filmed(), folder, repo_id="ann/q-lake") == folder
    return folder


def test_package_is_the_five_files_and_what_was_there(package):
    assert {path.name for path in package.iterdir()} == FILES | {"notes.txt"}
    assert (package / "notes.txt").read_text() == "mine"
    assert len(frames_of(package / "replay.mp4")[1]) == 7


def test_params_are_all_hyperparameters_without_the_table(package):
    params = read_json(package / "params.json")
    assert params.pop("versions")["gymnasium"] == gym.__version__
    recipe = RECIPES["frozenlake"] | {"map_name": "4x4", "slippery": False}
    assert params == recipe


def test_results_have_the_course_s_keys_and_more(package):
    results = read_json(package / "results.json")
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", results.pop("eval_datetime")
    )
    assert results.pop("versions")["python"].startswith(f"{sys.version_info[0]}.")
    assert results == {
        "env_id": "FrozenLake-v1", "mean_reward": 1.0, "std_reward": 0.0, "result": 1.0,
        "n_eval_episodes": 100,
    }  # fmt: skip


def test_result_is_mean_minus_deviation(tmp_path):
    table = value_iteration(game("taxi"), 0.95)
    package_model(RECIPES["taxi"] | {"qtable": table}, filmed("taxi"), tmp_path)
    results = read_json(tmp_path / "results.json")
    assert round(results["result"], 3) == 4.853
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.count("| 7.56 +/- 2.71 |") == 2 and "likewise | 7.9300 |" in card
    assert metadata_load(tmp_path / "README.md")["tags"][0] == "Taxi-v3"


def test_card_is_found_by_the_paths_of_course_tools(package):
    meta = metadata_load(package / "README.md")
    assert meta["tags"] == [
        "FrozenLake-v1-4x4-no_slippery", "q-learning", "reinforcement-learning",
        "custom-implementation",
    ]  # fmt: skip
    metric = meta["model-index"][0]["results"][0]["metrics"][0]
    assert (metric["type"], metric["value"]) == ("mean_reward", "1.00 +/- 0.00")
    assert [float(part) for part in metric["value"].split("+/-")] == [1.0, 0.0]
    assert meta["pipeline_tag"] == "reinforcement-learning"
    assert meta["model-index"][0]["name"] == "q-lake"


def test_card_tells_what_a_reader_needs(package):
    card = (package / "README.md").read_text(encoding="utf-8")
    assert "make_env('FrozenLake-v1', map_name='4x4', is_slippery=False)" in card
    for line in ("| learning_rate | 0.7 |", "| gamma | 0.95 |", "| seed | 0 |"):
        assert line in card
    assert "| exact mean of the best possible policy, likewise | 1.0000 |" in card
    assert "```sh\npython hub_utils.py package frozenlake\n```" in card


def test_usage_snippet_of_the_card_runs_as_it_stands(tmp_path):
    package_model(lake_model(), filmed(), tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("1.00 +/- 0.00\n", "")


@pytest.mark.parametrize(
    ("changes", "command_line"),
    [
        ({}, "python hub_utils.py package frozenlake\n"),
        ({"seed": 4}, "package frozenlake --seed 4\n"),
        ({"n_training_episodes": 7}, "package frozenlake --episodes 7\n"),
        (
            {"gamma": 0.5, "min_learning_rate": 0.1},
            "--min-learning-rate 0.1 --gamma 0.5\n",
        ),
    ],
)
def test_card_has_the_command_that_makes_the_table_again(
    tmp_path, changes, command_line
):
    package_model(lake_model() | changes, filmed(), tmp_path)
    assert command_line in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_model_of_the_course_is_packaged_without_a_command(tmp_path):
    model = {k: v for k, v in lake_model().items() if k not in ("seed", "env_kwargs")}
    del model["min_learning_rate"]
    before = json.dumps(model)
    package_model(model, filmed(), tmp_path)
    assert json.dumps(model) == before  # the caller's dictionary is not changed
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "no command makes it again" in card
    loaded = load_model(tmp_path / "q-learning.pkl")
    assert loaded["env_kwargs"] == {"map_name": "4x4", "is_slippery": False}
    assert (loaded["map_name"], loaded["slippery"]) == ("4x4", False)


@pytest.mark.parametrize("name", ["yes", "1.0", "null", "1e3", "q-Taxi_v3"])
def test_yaml_is_valid_whatever_the_name(tmp_path, name):
    model = small_model()
    env = make_env_from_model(model, "rgb_array")
    package_model(model, env, tmp_path, repo_id=f"ann/{name}")
    meta = metadata_load(tmp_path / "README.md")
    assert meta["model-index"][0]["name"] == name


@pytest.mark.parametrize("repo_id", ["noslash", "a/b/c", "ann/my lake", "ann/"])
def test_packages_are_not_built_for_names_the_hub_refuses(tmp_path, repo_id):
    with pytest.raises(ValueError, match="NAME/REPO|allows no name"):
        package_model(lake_model(), filmed(), tmp_path / "new", repo_id=repo_id)
    assert list(tmp_path.iterdir()) == []


def test_the_owner_s_text_and_the_time_of_equal_results_stay(tmp_path):
    package_model(lake_model(), filmed(), tmp_path)
    card, results = tmp_path / "README.md", tmp_path / "results.json"
    owner = "\r\n## Mine\r\n\r\nword   for word, é 中\n".encode()
    card.write_bytes(card.read_bytes().rstrip(b"\n") + owner)
    results.write_text(json.dumps(read_json(results) | {"eval_datetime": "long ago"}))
    before = {name: (tmp_path / name).read_bytes() for name in FILES - {"results.json"}}
    package_model(lake_model(), filmed(), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert card.read_bytes().endswith(b"-->" + owner)
    assert read_json(results)["eval_datetime"] == "long ago"
    package_model(lake_model() | {"n_eval_episodes": 5}, filmed(), tmp_path)
    assert card.read_bytes().endswith(b"-->" + owner)
    assert read_json(results)["eval_datetime"] != "long ago"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"qtable": [[0.0]]}, "needs 16 x 4"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"qtable": "no"}, "not a list of rows"),
        ({"eval_seed": [1, 2]}, "only 2 seeds"),
    ],
)
def test_bad_models_leave_no_package(tmp_path, change, text):
    with pytest.raises(ValueError, match=text):
        package_model(lake_model() | change, filmed(), tmp_path / "new")
    with pytest.raises(ValueError, match="lacks eval_seed"):
        package_model(
            {k: v for k, v in lake_model().items() if k != "eval_seed"},
            filmed(),
            tmp_path,
        )
    assert not (tmp_path / "new").exists()


def test_packaging_without_a_renderable_game_says_how(tmp_path):
    with pytest.raises(ValueError, match="rgb_array"):
        package_model(lake_model(), game("frozenlake"), tmp_path)
    assert list(tmp_path.iterdir()) == []


# ======================================================================================
# hub_utils: the Hub, which here is a real HTTP server on this machine
# ======================================================================================
class Hub(ThreadingHTTPServer):
    """As much of the Hub as its client needs, with the commits of each repo in a list."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos = {}  # repo id -> [{path: content}, ...], one for each commit
        self.private = {}
        self.role, self.failures, self.requests = "write", {}, []
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def failure(self, method, path):
        found = [
            how
            for (m, part), how in self.failures.items()
            if m == method and part in path
        ]
        return found[0] if found else None


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        headers.setdefault("Content_Length", len(content))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle_request(self):
        hub, path = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append((self.command, path))
        failure = hub.failure(self.command, path)
        if failure == "cut":
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if failure:
            return self.answer(failure, {"error": "as the test wants it"})
        if path == "/api/whoami-v2":
            if self.headers.get("Authorization") != "Bearer hf_secret":
                return self.answer(401, {"error": "who?"})
            token = {"accessToken": {"role": hub.role}}
            orgs = [{"name": "club"}]
            return self.answer(
                200, {"type": "user", "name": "ann", "orgs": orgs, "auth": token}
            )
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'ann'}/{asked['name']}"
            existed = repo in hub.repos
            hub.repos.setdefault(repo, [])
            secret = asked.get("private") or asked.get("visibility") == "private"
            hub.private.setdefault(repo, secret)
            return self.answer(409 if existed else 200, {"url": f"{hub.url}/{repo}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if found := re.fullmatch(
            r"/api/models/(.+?/.+?)/(preupload|commit|revision|tree)/.+", path
        ):
            repo, action = found.groups()
            files = (hub.repos.get(repo) or [{}])[-1]
            if action == "preupload":
                asked = [file["path"] for file in json.loads(body)["files"]]
                modes = [
                    {"path": name, "uploadMode": "regular", "shouldIgnore": False,
                     "oid": git_sha1(files[name]) if name in files else None}
                    for name in asked
                ]  # fmt: skip
                return self.answer(200, {"files": modes})
            if action == "commit":
                lines = [json.loads(line) for line in body.splitlines()]
                new = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                hub.message = lines[0]["value"]["summary"]
                hub.repos[repo].append(files | new)
                oid = self.sha(repo, len(hub.repos[repo]))
                return self.answer(
                    200,
                    {"commitOid": oid, "commitUrl": f"{hub.url}/{repo}/commit/{oid}"},
                )
            sha = self.sha(repo, len(hub.repos[repo]))
            if action == "tree":
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(files[name]),
                        "oid": git_sha1(files[name]),
                    }
                    for name in files
                ]
                return self.answer(200, tree)
            siblings = [{"rfilename": name} for name in files]
            return self.answer(200, {"id": repo, "sha": sha, "siblings": siblings})
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            if repo in hub.repos:
                return self.answer(200, {"id": repo})
            return self.answer(404, X_Error_Code="RepoNotFound")
        if found := re.fullmatch(r"/(.+?/.+?)/resolve/(.+?)/(.+)", path):
            return self.resolve(*found.groups())
        return self.answer(200, {})

    do_GET = do_POST = do_HEAD = handle_request

    @staticmethod
    def sha(repo, number):
        return hashlib.sha1(f"{repo} {number}".encode()).hexdigest()

    def resolve(self, repo, revision, name):
        commits = self.server.repos.get(repo)
        if not commits:
            return self.answer(404, X_Error_Code="RepoNotFound")
        shas = [self.sha(repo, number) for number in range(1, len(commits) + 1)]
        files = commits[-1] if revision == "main" else commits[shas.index(revision)]
        sha = shas[-1] if revision == "main" else revision
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        etag = f'"{git_sha1(files[name])}"'
        return self.answer(200, files[name], X_Repo_Commit=sha, ETag=etag)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub on loopback, and a client whose cache and token lie in a temporary folder."""
    server = Hub()
    constants = huggingface_hub.constants
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, huggingface_hub.file_download):  # its home, by version
        monkeypatch.setattr(
            module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
        )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(
        time, "sleep", lambda _: None
    )  # the client's pauses between tries
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_secret")
    server.cache = tmp_path / "hf" / "hub"
    server.command_env = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
    }
    yield server
    server.shutdown()
    server.server_close()


def push(tmp_path, repo_id="ann/q-lake", model=None, **more):
    return push_to_hub(
        repo_id, model or lake_model(), filmed(), 1, tmp_path / "hub", **more
    )


def test_push_uploads_the_five_files_in_one_commit(hub, tmp_path, capsys):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    assert push(tmp_path) == f"{hub.url}/ann/q-lake"
    captured = capsys.readouterr()
    assert f"{hub.url}/ann/q-lake" in captured.out
    assert "hf_secret" not in captured.out + captured.err
    (commit,) = hub.repos["ann/q-lake"]
    assert set(commit) == FILES
    assert commit == {name: (tmp_path / "hub" / name).read_bytes() for name in FILES}
    assert b'load_from_hub("ann/q-lake")' in commit["README.md"]
    paths = [path for _, path in hub.requests]
    assert paths.index("/api/whoami-v2") < paths.index("/api/repos/create")
    assert not hub.cache.exists()  # a push never writes into the client's cache


def test_push_again_unchanged_makes_no_commit(hub, tmp_path):
    push(tmp_path)
    push(tmp_path)
    push_to_hub(
        "ann/q-lake", lake_model(), filmed(), local_repo_path=tmp_path / "another"
    )
    assert len(hub.repos["ann/q-lake"]) == 1


def test_push_again_changed_keeps_the_owner_s_text(hub, tmp_path):
    push(tmp_path)
    page = hub.repos["ann/q-lake"][0]
    owner = b"\n# My notes\r\nas I wrote them"
    hub.repos["ann/q-lake"].append(page | {"README.md": page["README.md"] + owner})
    push(tmp_path, model=lake_model(seed=5))
    assert len(hub.repos["ann/q-lake"]) == 3
    card = hub.repos["ann/q-lake"][-1]["README.md"]
    assert card.endswith(owner) and b"--seed 5" in card


def test_load_gives_the_model_and_old_revisions_stay(hub, tmp_path):
    push(tmp_path)
    first = load_from_hub("ann/q-lake")
    assert first["qtable"] == GOOD_TABLE and first["seed"] == 0
    push(tmp_path, model=lake_model(seed=5))
    assert load_from_hub("ann/q-lake")["seed"] == 5
    api = huggingface_hub.HfApi()
    old = api.hf_hub_download(
        "ann/q-lake", "q-learning.pkl", revision=HubHandler.sha("ann/q-lake", 1)
    )
    assert load_model(old)["seed"] == 0
    blobs = list(hub.cache.rglob("blobs/*"))
    assert len(blobs) == 2
    for blob in blobs:
        assert git_sha1(blob.read_bytes()) == blob.name
    env = make_env_from_model(first)
    assert qlearning.evaluate_model(env, first) == (1.0, 0.0)


def test_commit_message_privacy_and_organization(hub, tmp_path):
    push(tmp_path, "club/lake", commit_message="better", private=True)
    assert (hub.message, hub.private["club/lake"]) == ("better", True)
    push(tmp_path, token="hf_secret")
    assert not hub.private["ann/q-lake"]


def test_everything_is_tried_here_before_the_repo_is_created(hub, tmp_path):
    with pytest.raises(ValueError, match="rgb_array"):
        push_to_hub("ann/q-lake", lake_model(), game("frozenlake"), 1, tmp_path / "hub")
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("repo_id", "error", "text"),
    [
        ("bob/q-lake", PermissionError, "not yours: you can push to ann, club"),
        ("q-lake", ValueError, "NAME/REPO"),
        ("a/b/c", ValueError, "a/b/c"),
        ("ann/q..lake", ValueError, "allows no name like"),
        ("ann/my lake", ValueError, "allows no name like"),
    ],
)
def test_repos_that_cannot_be_pushed_to(hub, tmp_path, repo_id, error, text):
    with pytest.raises(error, match=text):
        push(tmp_path, repo_id)
    assert hub.repos == {} and not (tmp_path / "hub").exists()


def test_tokens_that_do_not_do(hub, tmp_path, capsys):
    with pytest.raises(
        PermissionError, match="does not know this token: run `hf auth login`"
    ):
        push(tmp_path, token="hf_wrong")
    hub.role = "read"
    with pytest.raises(
        PermissionError, match="can only read: make one with the write role"
    ):
        push(tmp_path)
    (tmp_path / "hf" / "token").unlink()
    with pytest.raises(PermissionError, match="no token .* run `hf auth login`"):
        push(tmp_path)
    assert not (tmp_path / "hub").exists()
    assert "hf_" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("where", "how", "error", "text"),
    [
        (
            ("POST", "/repos/create"),
            403,
            PermissionError,
            "may not write to ann/q-lake",
        ),
        (("POST", "/repos/create"), 500, ConnectionError, "answers 500"),
        (("POST", "/commit/"), 403, PermissionError, "may not write to ann/q-lake"),
        (("POST", "/commit/"), 500, ConnectionError, "answers 500"),
        (("POST", "/preupload/"), "cut", ConnectionError, "no connection"),
        (("POST", "/commit/"), "cut", ConnectionError, "no connection"),
    ],
)
def test_a_push_that_fails_on_the_way_leaves_the_package(
    hub, tmp_path, where, how, error, text
):
    hub.failures[where] = how
    with pytest.raises(error, match=text) as caught:
        push(tmp_path)
    assert str(tmp_path / "hub") in str(caught.value)
    assert {path.name for path in (tmp_path / "hub").iterdir()} == FILES
    assert load_model(tmp_path / "hub" / "q-learning.pkl")["qtable"] == GOOD_TABLE
    hub.failures.clear()
    assert push(tmp_path) and len(hub.repos["ann/q-lake"]) == 1


@pytest.mark.parametrize(
    ("where", "how", "error", "text"),
    [
        (("GET", "/whoami"), 500, ConnectionError, "answers 500"),
        (("GET", "/whoami"), "cut", ConnectionError, "no connection"),
        (("HEAD", "/README.md"), 500, ConnectionError, "answers 500|no connection"),
        (("HEAD", "/README.md"), "cut", ConnectionError, "no connection"),
    ],
)
def test_a_push_that_cannot_look_first_builds_nothing(
    hub, tmp_path, where, how, error, text
):
    hub.failures[where] = how
    with pytest.raises(error, match=text):
        push(tmp_path)
    assert not (tmp_path / "hub").exists() and hub.repos == {}


def test_no_network_at_all(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ConnectionError, match="no connection to the Hub"):
        push(tmp_path)
    with pytest.raises(ConnectionError, match="no connection to the Hub"):
        load_from_hub("ann/q-lake")


def test_loads_that_fail_say_why(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model ann/nothing on the Hub"):
        load_from_hub("ann/nothing")
    hub.repos["ann/other"] = [{"q-learning.pkl": b"cos\nsystem\n(S'true'\ntR."}]
    with pytest.raises(FileNotFoundError, match="ann/other has no file missing.pkl"):
        load_from_hub("ann/other", "missing.pkl")
    with pytest.raises(ValueError, match="it would import os.system"):
        load_from_hub("ann/other")
    with pytest.raises(ValueError, match="allows no name like"):
        load_from_hub("ann/..")
    hub.failures["GET", "/resolve/"] = "cut"
    hub.repos["ann/third"] = hub.repos["ann/other"]
    with pytest.raises(ConnectionError, match="no connection"):
        load_from_hub("ann/third")


# ------------------ The command line of hub_utils -------------------------------------
def test_hub_command_line_from_package_to_load(background, hub, tmp_path):
    done = command(
        "hub_utils.py", "package", "frozenlake", "--folder", str(tmp_path / "a")
    )
    assert (done.returncode, done.stderr) == (0, "")
    packaged = load_model(tmp_path / "a" / "q-learning.pkl")["qtable"]
    assert (
        packaged == background["frozenlake", 0].result()[0]
    )  # training is deterministic
    pushed = command(
        *(
            "hub_utils.py",
            "push",
            "cliffwalking",
            "--repo-id",
            "ann/cliff",
            "--private",
        ),
        *("--folder", str(tmp_path / "c")),
        env=hub.command_env,
    )
    assert (pushed.returncode, pushed.stdout) == (
        0,
        f"Your model is on the Hub: {hub.url}/ann/cliff\n",
    )
    assert hub.private["ann/cliff"] is True


def test_hub_command_line_films(tmp_path):
    film = [
        "hub_utils.py",
        "record",
        "frozenlake",
        str(tmp_path / "film.gif"),
        "--fps",
        "4",
    ]
    done = command(*film)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(frames_of(tmp_path / "film.gif")[1]) == 7


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("", 2, "record|package|push|load"),
        ("package nosuchgame", 2, "cliffwalking"),
        ("package taxi --gamma 7", 2, "gamma must be"),
        ("push taxi", 2, "--repo-id"),
        ("push taxi --repo-id bob/taxi", 1, "not yours"),
        ("push taxi --repo-id taxi", 1, "NAME/REPO"),
        ("load ann/nothing", 1, "no model ann/nothing"),
        ("load ann/slow", 1, "would take too long"),
        ("load ann/seeds", 1, "seed must be"),
        (
            "package frozenlake --episodes 1000000000000000000000",
            2,
            "--episodes must be",
        ),
        ("record frozenlake film.avi", 1, ".mp4 or .gif"),
        ("record frozenlake film.gif --fps 0", 1, "fps"),
    ],
)
def test_hub_command_line_errors_are_one_line(hub, arguments, code, text, capsys):
    for name, change in (
        ("slow", {"max_steps": 10**9}),
        ("seeds", {"eval_seed": [-1] * 3}),
    ):
        hub.repos[f"ann/{name}"] = [
            {"q-learning.pkl": pickle.dumps(small_model(**change))}
        ]
    try:
        ended = hub_utils.main(arguments.split())
    except SystemExit as stopped:
        ended = stopped.code
    printed = capsys.readouterr()
    assert (ended, printed.out, printed.err.count("\n")) == (code, "", 1)
    assert text in printed.err


def test_hub_command_line_exits_with_one(hub):
    done = command("hub_utils.py", "load", "ann/nothing", env=hub.command_env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


# ======================================================================================
# README: all that it shows is run, and compared with what it says
# ======================================================================================
@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_readme_python_blocks_print_what_readme_says(background, block):
    _, output = block
    assert output, "a block without its output"
    assert background[block].result() == output


def test_readme_transcript_is_what_the_program_prints(story):
    (transcript,) = re.findall(
        r"with some parts left out:\n\n```text\n(.*?)```", README, re.DOTALL
    )
    printed = untimed(story)
    for part in untimed(transcript).split("\n...\n"):
        assert part.strip("\n") in printed
        printed = printed[printed.index(part.strip("\n")) :]


def is_run_by_ci(line):
    """Needs the network, or minutes: .ci/run takes these from README and runs them."""
    return "venv" in line or line == "python test_qlearning.py"


def test_readme_commands_do_what_readme_says(hub, tmp_path):
    copy_of_the_project(tmp_path)
    lines = [(line, output) for line, output in COMMANDS if not is_run_by_ci(line)]
    assert len(lines) == 6
    for line, output in lines:
        program, *arguments = line.replace("NAME", "ann").split()
        if program == "hf":  # it would wait for a token to be typed
            program = [Path(sys.executable).with_name("hf"), *arguments, "--help"]
        else:
            program = [sys.executable, *arguments]
        done = subprocess.run(
            program,
            cwd=tmp_path,
            env=hub.command_env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not output or done.stdout == output
    assert len(frames_of(tmp_path / "frozenlake.gif")[1]) == 7
    assert {path.name for path in (tmp_path / "my-agent").iterdir()} == FILES
    assert "Mean_reward=1.00 +/- 0.00" in done.stdout  # of the loaded model


def test_readme_shows_lines_of_the_code():
    source = [
        line.strip() for line in (HERE / "qlearning.py").read_text("utf-8").splitlines()
    ]
    section = README.split("## 3.")[1].split("## 4.")[0]
    shown = re.findall(r"^\|.*\| `(.*)` \|$", section, re.MULTILINE)
    assert len(shown) == 13 + 1
    for line in shown[1:]:  # the first is the heading
        assert line in source


@pytest.mark.parametrize("name", RECIPES)
def test_readme_results_are_what_was_measured(background, name):
    (row,) = re.findall(rf"^\| `{name}` \|.*\|$", README, re.MULTILINE)
    cells = row.strip("| ").split(" | ")
    measured = results_row(name, [background[name, 0].result()])
    assert cells[:8] == measured[:8]  # those of seed 0
    assert (
        cells[10] == measured[10]
    )  # worst and mean of ten seeds: .ci/run compares them


@pytest.mark.parametrize("bug", BUGS, ids=range(len(BUGS)))
def test_every_bug_of_the_exercises_turns_its_test_red(background, bug):
    _, _, test, score = bug
    places, code, report, scores = background[bug].result()
    assert places == 1
    assert code == 1 and re.search(rf"^FAILED .*::{test}", report, re.MULTILINE), report
    assert scores == [score]


def test_there_are_nine_bugs():
    assert len(BUGS) == 9


@pytest.mark.parametrize("recipe", ["frozenlake", "taxi"])
def test_pictures_of_readme_are_episodes(recipe):
    path = HERE / ".github" / f"{recipe}.gif"
    assert f".github/{path.name}" in README
    exact = value_iteration(game(recipe), 0.95)
    told = list(
        rollout(
            game(recipe), exact, 99, seed=next(iter(RECIPES[recipe]["eval_seed"]), 0)
        )
    )
    assert len(frames_of(path)[1]) == len(told)


# ======================================================================================
# What each recipe must reach: last, as the training goes on in the background
# ======================================================================================
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
def test_frozenlake_reaches_the_golden_table(background, run):
    table, _ = background[run].result()
    for row, golden in zip(table, GOLDEN, strict=True):
        assert row == pytest.approx(golden, abs=5e-9)
    assert round(table[14][DOWN], 8) == 0.95
    assert round(table[6][DOWN], 8) == 0.9025
    assert evaluate_agent(game("frozenlake"), 99, 100, table, []) == (1.0, 0.0)


def test_values_are_a_power_of_gamma_for_each_move(background):
    table, _ = background["frozenlake", 0].result()
    for state, letter in enumerate("".join(LAKE_4X4)):
        if letter in "SF":
            moves = moves_to_goal(LAKE_4X4, state)
            assert max(table[state]) == pytest.approx(0.95 ** (moves - 1), abs=5e-9)


@pytest.mark.parametrize("run", runs_of("frozenlake-8x8"))
def test_8x8_takes_the_fewest_moves(background, run):
    table, _ = background[run].result()
    env = game("frozenlake-8x8")
    told = list(rollout(env, table, 99))
    rows = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
    assert len(told) - 1 == moves_to_goal(rows, 0) == 14
    assert told[-1] == (told[-1][0], 1.0, 63)


@pytest.mark.parametrize("run", runs_of("frozenlake-slippery"))
def test_slippery_success_rate(background, run):
    table, _ = background[run].result()
    assert success_rate(game(run[0]), table, 99) >= 0.735


@pytest.mark.parametrize("run", runs_of("frozenlake-8x8-slippery"))
def test_slippery_8x8_success_rate(background, run):
    table, _ = background[run].result()
    assert success_rate(game(run[0]), table, 99) >= 0.61


def test_taxi_passes_the_course(background):
    table, _ = background["taxi", 0].result()
    mean, std = evaluate_agent(
        game("taxi"), 99, 100, table, RECIPES["taxi"]["eval_seed"]
    )
    assert mean - std >= 4.5


@pytest.mark.parametrize("run", runs_of("taxi-exact"))
def test_taxi_exact_is_exact_and_cheaper(background, run):
    table, steps = background[run].result()
    env = game("taxi")
    mean, std = evaluate_agent(env, 99, 100, table, RECIPES["taxi"]["eval_seed"])
    assert f"{mean:.2f} +/- {std:.2f}" == "7.56 +/- 2.71"
    exact = value_iteration(env, 0.95)
    starts = [s for s, p in enumerate(env.unwrapped.initial_state_distrib) if p]
    optimal = sum(drive(env, table, s) == drive(env, exact, s) for s in starts)
    assert len(starts) == 300 and optimal >= 299
    assert steps < background["taxi", 0].result()[1]


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
def test_cliffwalking_reaches_the_textbook_s_optimum(background, run):
    table, _ = background[run].result()
    assert evaluate_agent(game(run[0]), 99, 1, table, []) == (-13.0, 0.0)


# ======================================================================================
# `python test_qlearning.py` measures the table of results in README anew
# ======================================================================================
def results_row(name, runs):
    """The cells of a recipe's row from the (table, steps) of several seeds, 0 first."""
    recipe, env = RECIPES[name], game(name)
    alpha = f"{recipe['learning_rate']}"
    if recipe["min_learning_rate"] is not None:
        alpha += f" to {recipe['min_learning_rate']}"
    table, steps = runs[0]
    mean, std = qlearning.evaluate_model(env, recipe | {"qtable": table})
    returns = [exact_score(env, recipe["max_steps"], table) for table, _ in runs]
    return [
        f"`{name}`", f"{recipe['n_training_episodes']:,}", alpha, f"{recipe['gamma']}",
        f"{recipe['decay_rate']}", f"{steps:,}", f"{mean:.2f} +/- {std:.2f}",
        f"{returns[0]:.4f}", f"{min(returns):.4f}", f"{statistics.fmean(returns):.4f}",
        f"{exact_score(env, recipe['max_steps']):.4f}",
    ]  # fmt: skip


def main():
    """Train every recipe with the seeds 0 to 9 and print the table."""
    jobs = [(name, seed) for name in reversed(RECIPES) for seed in range(10)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {job: pool.submit(train_recipe, *job) for job in jobs}
        for future in tqdm(
            as_completed(futures.values()), total=len(jobs), disable=None
        ):
            future.result()
    for name in RECIPES:
        runs = [futures[name, seed].result() for seed in range(10)]
        print("| " + " | ".join(results_row(name, runs)) + " |")


if __name__ == "__main__":
    main()
