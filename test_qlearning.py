"""The reference, checked against exact answers, in the order of the program.

On the lake without ice only the step into the goal G is rewarded, with 1. So that step
is worth 1. One step earlier the 1 has to be waited for, and gamma takes 5 % for that:
0.95. Two steps earlier it is 0.95 * 0.95 = 0.9025, and so on, back to the start S. The
step into a hole H is worth 0. Training is told nothing of this, and ends with these 64:

    S F F F       0  1  2  3
    F H F H       4  5  6  7
    F F F H       8  9 10 11
    H F F G      12 13 14 15

    state        LEFT        DOWN       RIGHT          UP
        0  0.73509189  0.77378094  0.77378094  0.73509189
        1  0.73509189           0  0.81450625  0.77378094
        2  0.77378094    0.857375  0.77378094  0.81450625
        3  0.81450625           0  0.77378094  0.77378094
        4  0.77378094  0.81450625           0  0.73509189
        5           0           0           0           0
        6           0      0.9025           0  0.81450625
        7           0           0           0           0
        8  0.81450625           0    0.857375  0.77378094
        9  0.81450625      0.9025      0.9025           0
       10    0.857375        0.95           0    0.857375
       11           0           0           0           0
       12           0           0           0           0
       13           0      0.9025        0.95    0.857375
       14      0.9025        0.95           1      0.9025
       15           0           0           0           0

    python -m pytest                                                      everything
    python -m pytest test_qlearning.py::test_training_finds_all_64_values      that
    python test_qlearning.py                         README's table of results, anew
"""

import ast
import base64
import contextlib
import doctest
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import itertools
import json
import math
import os
import pickle
import pickletools
import platform
import random
import re
import runpy
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gymnasium as gym
import huggingface_hub
import imageio.v2 as imageio
import imageio_ffmpeg
import pytest
import yaml
from gymnasium.envs.toy_text.frozen_lake import MAPS, FrozenLakeEnv
from huggingface_hub import constants

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
    HYPERPARAMETERS,
    RECIPES,
    argmax,
    check_numbers,
    epsilon_greedy_policy,
    evaluate_agent,
    exact_score,
    initialize_q_table,
    learn,
    make_env,
    rollout,
    td_update,
    train,
    value_iteration,
)

HERE = Path(__file__).parent
LEFT, DOWN, RIGHT, UP = range(4)
# The rows of the table above.
LINES = [line.split() for line in __doc__.splitlines() if re.match(" +[0-9]", line)]
GOLDEN = [[float(value) for value in values] for _, *values in LINES]


def game(name, **more):
    """The environment of a recipe."""
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"], **more)


def test_training_finds_all_64_values():
    Qtable = learn(game("frozenlake"), RECIPES["frozenlake"])
    assert Qtable[14][RIGHT] == pytest.approx(1, abs=5e-9), "the step into the goal"
    assert Qtable[14][DOWN] == pytest.approx(0.95, abs=5e-9), "into the wall, then that"
    assert Qtable[6][DOWN] == pytest.approx(0.9025, abs=5e-9), "two steps before it"
    assert [[round(q, 8) for q in row] for row in Qtable] == GOLDEN
    assert evaluate_agent(game("frozenlake"), 99, 100, Qtable, []) == (1.0, 0.0)


def test_every_step_away_from_the_goal_costs_five_percent():
    for waiting, states in enumerate(([14], [10, 13], [6, 9], [2, 8], [1, 3, 4], [0])):
        for state in states:
            assert max(GOLDEN[state]) == pytest.approx(1 * 0.95**waiting, abs=5e-9)


# ------------------ What is a state worth? --------------------------------------------
def test_values_of_states_by_hand():
    assert qlearning.discounted_return([1, 2, 4], 0.5) == 1 + 2 * 0.5 + 4 * 0.25
    V = [2.0, 4.0]
    assert qlearning.td0_update(V, 0, 1, 1, 0.5, 0.75) == 2 + 0.5 * (1 + 0.75 * 4 - 2)
    assert qlearning.monte_carlo_update(V, 0, G=5, learning_rate=0.25) == 3.5
    assert V == [3.5, 4.0], "the new values are kept"
    assert qlearning.td0_update([2.0, 4.0], 0, 1, 1, 0.5, 0.75, True) == 1.5, "the end"


# ------------------ Step 1: initialize the Q-table ------------------------------------
def test_table_has_a_row_of_its_own_for_each_state():
    table = initialize_q_table(3, 2)
    table[0][1] = 7.0
    assert table == [[0.0, 7.0], [0.0, 0.0], [0.0, 0.0]], (
        "one cell was set, and other states have changed: they share one row"
    )


def test_table_starts_where_it_should_and_takes_gymnasiums_numbers():
    two = gym.spaces.Discrete(2).n
    assert type(two) is not int, "NumPy's own whole number"
    assert str(initialize_q_table(two, two, 20)) == "[[20.0, 20.0], [20.0, 20.0]]"


# ------------------ Step 2: choose an action ------------------------------------------
class Numbers:
    """A random number generator that hands out the numbers it is given."""

    def __init__(self, *numbers):
        self.random = iter(numbers).__next__


def test_exploits_only_above_epsilon():
    def action(*numbers):
        return epsilon_greedy_policy([[0.0, 0.0, 9.0, 0.0]], 0, 0.5, Numbers(*numbers))

    assert action(0.51, 0.0) == 2, "0.51 is above epsilon: exploit, by the best action"
    assert action(0.49, 0.99) == 3, "0.49 is below epsilon: explore, by any action"
    assert action(0.5, 0.0) == 0, "0.5 is not above epsilon: explore, by any action"


@pytest.mark.parametrize(
    ("epsilon", "row", "counts"),
    [
        (0.5, [0.0, 9.0, 0.0, 0.0], [50, 250, 50, 50]),
        (0.0, [9.0, 0.0, 0.0, 9.0], [200, 0, 0, 200]),
        (0.5, [9.0, 0.0, 0.0, 9.0], [150, 50, 50, 150]),
    ],
)
def test_epsilon_greedy_frequencies_are_exact(epsilon, row, counts):
    # All 100 x 4 pairs of evenly spread numbers, in place of a sample of random ones.
    pairs = [((i + 0.5) / 100, (j + 0.5) / 4) for i in range(100) for j in range(4)]
    actions = [epsilon_greedy_policy([row], 0, epsilon, Numbers(*p)) for p in pairs]
    assert [actions.count(action) for action in range(4)] == counts, (
        "in 400 tries: epsilon's share goes to all actions alike, and the rest to the "
        "best ones, to each of them equally often"
    )


# ------------------ Steps 3 and 4: act and observe, then update Q(s,a) ----------------
def test_update_by_hand():
    table = [[0.0, 2.0], [3.0, 4.0]]
    new = td_update(table, 0, 1, 1.0, 1, learning_rate=0.5, gamma=0.75)
    assert new == 2 + 0.5 * (1 + 0.75 * 4 - 2), (
        "old + learning_rate * (reward + gamma * best next value - old)"
    )
    assert table == [[0.0, 3.0], [3.0, 4.0]]


def test_update_counts_no_future_after_the_end():
    new = td_update([[0.0, 2.0], [3.0, 4.0]], 0, 1, 1.0, 1, 0.5, 0.75, terminated=True)
    assert new == 2 + 0.5 * (1 - 2), (
        "the game is over, so nothing follows: the target is the reward alone"
    )


class Script(gym.Env):
    """A world that plays back lines of (new_state, reward, terminated, truncated)."""

    def __init__(self, *lines, states=3, actions=2):
        self.observation_space = gym.spaces.Discrete(states)
        self.action_space = gym.spaces.Discrete(actions)
        self.lines, self.seeds, self.actions = lines, [], []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.line = iter(self.lines)
        return 0, {}

    def step(self, action):
        self.actions.append(action)
        return *next(self.line), {}


def taught(env, Qtable=None, **changes):
    """What `train` makes of a table: one episode without chance, but for the changes."""
    numbers = {"n_training_episodes": 1, "min_epsilon": 0, "max_epsilon": 0}
    numbers |= {"decay_rate": 0, "max_steps": 9}
    if Qtable is None:
        Qtable = initialize_q_table(env.observation_space.n, env.action_space.n)
    return train(env=env, Qtable=Qtable, **(numbers | changes))


WALK = (1, 1.0, False, False), (2, 2.0, False, False), (0, 4.0, True, False)
END = (1, 1.0, True, False)


@pytest.mark.parametrize(
    ("ending", "future", "why"),
    [
        ((True, False), 0.0, "terminated: the game is over, nothing follows"),
        ((False, True), 0.5 * 8, "truncated: cut short, the future keeps its value"),
        ((True, True), 0.0, "terminated as well: the game is over, nothing follows"),
    ],
)
def test_only_a_terminated_episode_has_no_future(ending, future, why):
    env = Script((1, 1.0, *ending), (0, 99.0, False, False), states=2, actions=1)
    table = taught(env, [[0.0], [8.0]], learning_rate=0.5, gamma=0.5)
    assert table == [[0.5 * (1 + future)], [8.0]], why
    assert len(env.actions) == 1, "the episode had ended"


def test_the_new_state_is_where_the_next_step_starts():
    table = taught(Script(*WALK, actions=1), learning_rate=1)
    assert table == [[1.0], [2.0], [4.0]], (
        "rewards 1, 2 and 4 belong to the states 0, 1 and 2, where the steps were made"
    )


def test_an_episode_stops_after_max_steps_and_is_told():
    told = []
    tell = {"on_episode": lambda *about: told.append(about)}
    taught(Script(*WALK), n_training_episodes=2, max_steps=2, **tell)
    assert told == [(0, 0, 2, 3.0), (1, 0, 2, 3.0)]  # episode, epsilon, steps, score


def test_defaults_are_the_courses_learning_rate_and_gamma():
    cut = Script((1, 1.0, False, True), states=2, actions=1)
    assert taught(cut, [[0.0], [1.0]])[0] == [0.7 * (1 + 0.95)]


def test_epsilon_decays_from_episode_to_episode():
    epsilons = []
    numbers = {"min_epsilon": 0.1, "max_epsilon": 0.9, "decay_rate": 0.25}
    numbers["on_episode"] = lambda _, epsilon, *__: epsilons.append(epsilon)
    taught(Script(END), n_training_episodes=3, **numbers)
    expected = [0.1 + 0.8 * math.exp(-0.25 * episode) for episode in range(3)]
    assert epsilons == pytest.approx(expected, abs=1e-15), (
        "epsilon must shrink from episode to episode, by the formula of the decay"
    )


def test_the_environment_is_seeded_once():
    env = Script(END)
    taught(env, n_training_episodes=3, seed=7)
    assert env.seeds == [7, None, None], (
        "the first reset alone takes the seed: the same seed again is the same luck again"
    )
    taught(env)
    assert env.seeds[3:] == [None], "nothing is seeded unless it is asked for"
    taught(env, seed=array(1, 1, "int64")[0][0])
    assert [type(seed) for seed in env.seeds[4:]] == [int], "Gymnasium wants Python's"


def second_implementation(env, seed):
    """Q-learning once more, in one piece and as literally as possible."""
    rng, actions = random.Random(seed), range(4)
    Q = {(s, a): 0.0 for s in range(16) for a in actions}
    for episode in range(300):
        epsilon = 0.05 + (1.0 - 0.05) * math.exp(-0.01 * episode)
        alpha = 0.2 + (0.6 - 0.2) * math.exp(-0.01 * episode)
        s, _ = env.reset(seed=seed) if episode == 0 else env.reset()
        for _ in range(99):
            if rng.random() <= epsilon:
                a = int(4 * rng.random())
            else:
                best = [a for a in actions if Q[s, a] == max(Q[s, b] for b in actions)]
                a = best[0] if len(best) == 1 else best[int(len(best) * rng.random())]
            s2, r, terminated, truncated, _ = env.step(a)
            target = r if terminated else r + 0.9 * max(Q[s2, b] for b in actions)
            Q[s, a] += alpha * (target - Q[s, a])
            s = s2
            if terminated or truncated:
                break
    return [[Q[s, a] for a in actions] for s in range(16)]


def test_training_equals_a_second_implementation_bit_for_bit():
    env, more = game("frozenlake-slippery"), {"min_learning_rate": 0.2, "seed": 3}
    for table in initialize_q_table(16, 4), array(16, 4):
        assert train(300, 0.05, 1.0, 0.01, env, 99, table, 0.6, 0.9, **more) is table
        assert [list(row) for row in table] == second_implementation(env, seed=3)
    assert any(map(any, table)), "nothing was learned"


def test_an_interrupt_keeps_what_was_learned_in_the_table():
    def stop(*_):
        raise KeyboardInterrupt

    table = [[0.0], [0.0]]
    with pytest.raises(KeyboardInterrupt):
        taught(Script(END, states=2, actions=1), table, on_episode=stop)
    assert table == [[0.7], [0.0]]


def test_numpys_numbers_become_plain_ones():
    number = game("frozenlake").unwrapped.initial_state_distrib[0]
    state = gym.spaces.Discrete(2, seed=0).sample()
    assert type(state) is not int and type(number) is not float
    scores, env = [], Script((state, number, True, False), states=2, actions=1)
    rates = {"learning_rate": number, "min_learning_rate": number, "gamma": number}
    table = taught(env, on_episode=lambda *told: scores.append(told[3]), **rates)
    assert {type(value) for value in (*table[0], *scores)} == {float}
    assert [type(action) for action in env.actions] == [int]
    (step,) = rollout(env, table, env.reset()[0], 9)
    assert [type(value) for value in step] == [int, int, float, int, bool]


# ------------------ Evaluation: the greedy policy plays, nothing is learned -----------
def test_rollout_gives_each_greedy_step_and_stops_in_time():
    env, table = Script(*WALK), [[0, 1], [1, 0], [0, 0]]
    steps = [(0, 1, 1.0, 1, False), (1, 0, 2.0, 2, False), (2, 0, 4.0, 0, True)]
    assert list(rollout(env, table, env.reset()[0], 99)) == steps
    assert list(rollout(env, table, env.reset()[0], 2)) == steps[:2]
    env = Script((1, 1.0, False, True), *WALK)
    assert list(rollout(env, table, env.reset()[0], 99)) == steps[:1], "truncated"


def test_evaluation_gives_mean_and_population_deviation_of_scores():
    class Growing(Script):
        def step(self, action):
            return 1, 2.0 * len(self.seeds), True, False, {}

    env, table = Growing(), ((0, 1), (0, 1), (0, 1))
    assert evaluate_agent(env, 9, 2, table, []) == (3.0, 1.0)
    seeds = gym.spaces.MultiDiscrete([8, 9]).nvec  # NumPy's whole numbers
    assert evaluate_agent(env, 9, 1, table, seeds) == (6.0, 0.0)
    assert env.seeds == [None, None, 8] and type(env.seeds[2]) is int
    endless = Script(*[(0, 1.0, False, False)] * 50)
    assert evaluate_agent(endless, 20, 2, table, []) == (20.0, 0.0), "max_steps is 20"


# ------------------ Copying: the algorithm stands alone, and fits in elsewhere --------
SOURCE = (HERE / "qlearning.py").read_text(encoding="utf-8")
CUT = "# ================== The algorithm ends here: copy down to here"


def invocation(*arguments, program=sys.executable, cwd=HERE, **options):
    """How to start a command, in an environment that says nothing special."""
    ours = r"HF_|HUGGING|TQDM|COLUMNS|FORCE_COLOR|PYTEST|PYTHON(?!PATH|HOME)|.*_PROXY$"
    kept = {k: v for k, v in os.environ.items() if not re.match(ours, k.upper())}
    kept |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
    told = {"encoding": "utf-8", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    call = {"args": [program, *map(str, arguments)], "cwd": cwd, "env": kept}
    return call | told | options


def command(*arguments, **options):
    """The finished process of a command."""
    call = {"timeout": 120} | invocation(*arguments, **options)
    return subprocess.run(**call, check=False)


def only_gymnasium(code):
    """A program that can import no package but Gymnasium and what that needs itself."""
    needed = {"gymnasium", "numpy", "cloudpickle", "typing_extensions"}
    needed.add("farama_notifications")
    others = {*importlib.metadata.packages_distributions()} - needed
    return f"import sys; sys.modules |= dict.fromkeys({others})\n{code}"


def test_the_part_above_the_cut_is_a_program_of_its_own(tmp_path):
    (tmp_path / "copied.py").write_text(SOURCE.split(CUT)[0], encoding="utf-8")
    code = """
import gymnasium as gym
from copied import *
env = gym.make("FrozenLake-v1", map_name="4x4", is_slippery=False)
table = initialize_q_table(env.observation_space.n, env.action_space.n)
train(1000, 0.05, 1.0, 0.0005, env, 99, table, seed=0)
print(*evaluate_agent(env, 99, 100, table, []), [[round(q, 8) for q in r] for r in table])
"""
    done = command("-c", only_gymnasium(code), cwd=tmp_path)
    assert (done.stderr, done.stdout) == ("", f"1.0 0.0 {GOLDEN}\n")


def test_nothing_above_the_cut_uses_what_stands_below_it():
    above, below = SOURCE.split(CUT)
    used = {n.id for n in ast.walk(ast.parse(above)) if isinstance(n, ast.Name)}
    made = set(re.findall(r"^(?:def |class )?(\w+)(?=:| =|\()", below, re.MULTILINE))
    assert {"RECIPES", "HYPERPARAMETERS", "exact_score", "Parser"} <= made
    assert used.isdisjoint(made)


def test_no_file_imports_numpy():
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) numpy\b", text, re.MULTILINE), path


def array(states, actions, kind="float64"):
    """NumPy's zeros((states, actions)), as Gymnasium hands them out."""
    return gym.spaces.Box(0, 0, (states, actions), kind).sample()


# Four functions as in the course's notebook: with globals, and an array for a table.
NOTEBOOK = """
def initialize_q_table(state_space, action_space):
    return array(state_space, action_space)

def greedy_policy(Qtable, state):
    return argmax(Qtable[state][:])

def epsilon_greedy_policy(Qtable, state, epsilon):
    if random.uniform(0, 1) > epsilon:
        return greedy_policy(Qtable, state)
    return env.action_space.sample()

def train(n_episodes, min_epsilon, max_epsilon, decay_rate, env, max_steps, Qtable):
    for episode in range(n_episodes):
        epsilon = min_epsilon + (max_epsilon - min_epsilon) * e ** (-decay_rate * episode)
        state, ended = env.reset()[0], False
        while not ended:
            action = epsilon_greedy_policy(Qtable, state, epsilon)
            new_state, reward, ended, truncated, info = env.step(action)
            error = reward + gamma * max(Qtable[new_state]) - Qtable[state][action]
            Qtable[state][action] = Qtable[state][action] + learning_rate * error
            state = new_state
    return Qtable
"""


@pytest.mark.parametrize("name", re.findall(r"def (\w+)", NOTEBOOK))
def test_each_course_function_can_be_replaced_by_ours(name):
    cells = {"random": random, "argmax": argmax, "array": array, "e": math.e}
    cells |= {"env": game("frozenlake"), "learning_rate": 0.7, "gamma": 0.95}
    exec(NOTEBOOK, cells)  # noqa: S102
    cells[name] = getattr(qlearning, name)
    random.seed(0)
    cells["env"].action_space.seed(0)
    table = cells["initialize_q_table"](16, 4)
    table = cells["train"](1000, 0.05, 1.0, 0.0005, cells["env"], 99, table)
    assert evaluate_agent(cells["env"], 99, 5, table, []) == (1.0, 0.0)
    assert round(table[6][DOWN], 3) == 0.902


# ------------------ Wrong input: one sentence, before anything is changed -------------
NAN, MOST = float("nan"), 10**9
RANGES = {  # what `train` may be given, and what not
    "n_training_episodes": (f"a whole number from 1 to {MOST}", [0, MOST + 1, 1.0]),
    "max_steps": ("a whole number from 1 to 1000000", [0, 10**6 + 1, 9.0, True]),
    "max_epsilon": ("a number from 0.0 to 1.0", [-0.1, 1.1, NAN, None]),
    "min_epsilon (up to max_epsilon)": ("a number from 0.0 to 0.5", [-0.1, 0.6]),
    "decay_rate": ("a number from 0.0 to 1000.0", [-0.1, 1001, 10**400]),
    "learning_rate": ("a number from 1e-06 to 1.0", [0, 1.1, "0.7"]),
    "min_learning_rate": ("a number from 1e-06 to 0.7", [0, 0.8]),
    "gamma": ("a number from 0.0 to 1.0", [-0.1, 1.01, [0.9]]),
    "seed": ("a whole number from 0 to 4294967295", [-1, 2**32, 0.5]),
    "on_episode": ("a function", [5]),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_that_cannot_be_is_named_before_anything_happens(name):
    (wanted, wrong), env = RANGES[name], Script()
    for number in wrong:
        with pytest.raises(ValueError) as caught:
            taught(env, **({"max_epsilon": 0.5} | {name.split()[0]: number}))
        assert str(caught.value) == f"{name} must be {wanted}, not {number!r}"
    assert env.seeds == [], "the environment was reset"


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_without_a_row_ends_the_training_before_the_update(state):
    table = initialize_q_table(3, 2)
    with pytest.raises(ValueError, match=f"^state {state} is not from 0 to 2$"):
        taught(Script((state, 1.0, False, False)), table)
    assert table == initialize_q_table(3, 2)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (array(4, 2), "is 4 x 2, and this environment has 3 states x 2 actions"),
        ([[0.0], [0.0] * 2, [0.0] * 2], "is 3 x 1 or 2, and this environment has 3 st"),
        ([], "is 0 x 0, and this environment has 3 states x 2 actions"),
        (array(3, 2, "int64"), "is made of int64, and needs floats"),
        ([[0.0] * 2] * 3, "repeats a row: take one from initialize_q_table"),
        ([[0.0, NAN], [0.0] * 2, [0.0] * 2], "has a cell that is not a finite number"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, sentence):
    env = Script()
    with pytest.raises(ValueError, match=f"^the Q-table {sentence}"):
        taught(env, table)
    with pytest.raises(ValueError, match=f"^the Q-table {sentence}"):
        evaluate_agent(env, 9, 1, table, [])
    assert env.seeds == [], "the environment was reset"


def test_an_environment_that_no_table_fits_is_refused():
    spaces = gym.spaces.Discrete(3, start=1), gym.spaces.MultiBinary(2)
    for kind, space in itertools.product(["observation", "action"], spaces):
        env = Script()
        setattr(env, f"{kind}_space", space)
        refused = f"a Discrete {kind}_space from 0, not {type(space).__name__}"
        with pytest.raises(ValueError, match=refused):
            taught(env, [])
    with pytest.raises(ValueError, match="from 0, not None"):
        evaluate_agent(None, 9, 1, [], [])


@pytest.mark.parametrize(
    ("steps", "episodes", "seeds", "sentence"),
    [
        (9, 2, [7], "2 episodes, but only 1 seeds"),
        (9, 2, [7, -1], "seed must be a whole number from 0 to 4294967295, not -1"),
        (0, 1, [], "max_steps must be a whole number from 1 to 1000000, not 0"),
        (9, 0, [], "n_eval_episodes must be a whole number from 1 to 1000000000, not"),
    ],
)
def test_evaluations_that_cannot_be(steps, episodes, seeds, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate_agent(Script(), steps, episodes, initialize_q_table(3, 2), seeds)


# ------------------ The exact answers -------------------------------------------------
def test_value_iteration_finds_the_same_64_values():
    table = value_iteration(game("frozenlake"), 0.95)
    assert [[round(q, 8) for q in row] for row in table] == GOLDEN


class Rules(gym.Env):
    """A world of nothing but rules; it starts in state 0."""

    def __init__(self, *states):
        self.P = [dict(enumerate(actions)) for actions in states]
        self.initial_state_distrib = [1.0] + [0.0] * (len(states) - 1)


FOREVER = Rules([[(1.0, 0, 1.0, False)]])  # one state, which pays 1 without an end


def test_value_iteration_weighs_outcomes_and_masks_only_what_ends():
    # From 0, action 0 ends in state 1 or goes on to it; state 1 itself pays 2 for ever.
    first = [[(0.25, 1, 4.0, True), (0.75, 1, 8.0, False)], [(1.0, 0, 0.0, False)]]
    second = [[(1.0, 1, 2.0, False)], [(1.0, 1, 0.0, True)]]
    table = value_iteration(Rules(first, second), 0.5)
    assert table[1] == pytest.approx([4, 0], abs=1e-9)  # 2 / (1 - 0.5)
    best = 0.25 * 4 + 0.75 * (8 + 0.5 * 4)
    assert table[0] == pytest.approx([best, 0.5 * best], abs=1e-9)


def test_a_state_has_a_value_for_each_policy():
    """V(start) of those who take the best action, and with probability epsilon any."""
    P = game("frozenlake").unwrapped.P
    for epsilon, start in (0, 0.774), (0.05, 0.726), (0.5, 0.276):
        V = [0.0] * 16
        for _ in range(500):
            rows = zip(qlearning.bellman_backup(P, V, 0.95), map(argmax, GOLDEN))
            V = [(1 - epsilon) * q[best] + epsilon * sum(q) / 4 for q, best in rows]
        assert round(V[0], 3) == start


def test_who_drives_perfectly_has_a_worse_mean_minus_std_than_who_dawdles():
    env, exact = game("taxi"), value_iteration(game("taxi"), 0.95)
    scores = []
    for seed in qlearning.evaluation_seeds(RECIPES["taxi"]):
        steps = rollout(env, exact, env.reset(seed=seed)[0], 99)
        scores.append(sum(reward for _, _, reward, _, _ in steps))
    for most, ranked in (20, 4.85), (8, 5.1):  # until no score is above 8
        capped = [min(most, score) for score in scores]
        rank = statistics.fmean(capped) - statistics.pstdev(capped)
        assert round(rank, 2) == ranked


def test_exact_score_is_the_probability_to_reach_the_goal():
    """Stepped forward from the start, where `exact_score` comes back from the end."""
    env = game("frozenlake-slippery")
    table = value_iteration(env, 0.99)
    here, arrived = Counter({0: 1.0}), 0.0
    for _ in range(99):
        there = Counter()
        for s, p in here.items():
            for chance, s2, reward, terminated in env.unwrapped.P[s][argmax(table[s])]:
                arrived += p * chance * reward
                there[s2] += p * chance * (not terminated)
        here = there
    assert round(arrived, 4) == 0.7381
    assert exact_score(env, 99, table) == pytest.approx(arrived)


def test_exact_scores_know_the_environments_own_limit():
    env = game("frozenlake-slippery")  # Gymnasium stops it after 100 steps
    assert exact_score(env, 99) < exact_score(env, 100) == exact_score(env, 5000)
    longer = game("frozenlake-slippery", max_episode_steps=MOST)
    assert round(exact_score(longer, MOST), 4) == 0.8235
    # Without discount the values settle as well here, and at the same number.
    assert round(max(value_iteration(env, 1)[0]), 4) == 0.8235
    assert exact_score(FOREVER, 10_000) == 10_000


class Unstarted(Script):
    """A world whose rules say nothing of the start: action 1 is worth twice as much."""

    P = ({0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 2.0, True)]},) * 3


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda: value_iteration(Script(), 0.9), "^Script does not .* it has no P$"),
        (lambda: exact_score(Unstarted(), 9), "it has no initial_state_distrib$"),
        (lambda: value_iteration(FOREVER, 1), "gamma=1: take a smaller gamma$"),
        (lambda: exact_score(FOREVER, 10_001), "still changes after 10,000 steps"),
    ],
)
def test_exact_answers_that_cannot_be_say_why(answer, sentence):
    with pytest.raises(ValueError, match=sentence):
        answer()


# ------------------ The hyperparameters, the games and the recipes --------------------
def test_numbers_of_the_course_to_the_letter():
    lake, taxi = RECIPES["frozenlake"], RECIPES["taxi"]
    own = {"env_id", "env_kwargs", "n_training_episodes", "decay_rate", "eval_seed"}
    assert {name for name in lake if lake[name] != taxi[name]} == own
    assert (lake["n_training_episodes"], lake["decay_rate"]) == (10_000, 0.0005)
    seeds = taxi["eval_seed"]  # the other numbers are printed in the taxi's story
    assert (lake["eval_seed"], len(seeds), sum(seeds)) == ([], 100, 8859)
    assert sum(place * seed for place, seed in enumerate(seeds)) == 403_242


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"n_eval_episodes": 0}, "n_eval_episodes> must be a whole .* 1 to 10{9}, "),
        ({"initial_value": NAN}, "initial_value> must be .* from -10{9}.0 to 10{9}.0,"),
        ({"gamma": None}, "gamma> must be a number from 0.0 to 1.0, not None"),
        ({"min_epsilon": 0.3, "max_epsilon": 0.2}, "max_epsilon> 0.2 is below <min_e"),
        (
            {"min_learning_rate": 0.3, "learning_rate": 0.2},
            "learning_rate> 0.2 is below <min_learning_rate> 0.3$",
        ),
    ],
)
def test_numbers_that_cannot_be_are_called_by_their_names(numbers, sentence):
    with pytest.raises(ValueError, match=f"^<{sentence}"):
        check_numbers(numbers, "<{}>".format)


def test_numbers_at_their_limits_are_allowed_and_the_same_as_in_train():
    for name, (value, lowest, highest, _) in HYPERPARAMETERS.items():
        for number in (value, lowest, highest):
            check_numbers({name: number})
        if name in RANGES and name != "min_learning_rate":
            wanted, _ = RANGES[name]
            assert wanted.endswith(f" number from {lowest} to {highest}")
    check_numbers({"min_epsilon": 0.5, "max_epsilon": 0.5, "seed": None})
    check_numbers({"max_steps": gym.spaces.Discrete(9).n})  # NumPy's 9


@pytest.mark.parametrize(
    "ids", [("Taxi-v3", "Taxi-v4"), ("CliffWalking-v0", "CliffWalking-v1")]
)
def test_retired_ids_give_the_same_game_and_say_so_once(ids, capsys):
    qlearning.say_once.cache_clear()
    games = [make_env(env_id) for env_id in ids for _ in range(2)]
    assert all(env.unwrapped.P == games[0].unwrapped.P for env in games)
    retired = [env_id for env_id in ids if env_id not in gym.registry]
    notes = capsys.readouterr().err.splitlines()
    assert [note.split()[1] for note in notes] == retired


# ------------------ Output: the story, with its numbers -------------------------------
@functools.cache
def story(*arguments, encoding="utf-8"):
    """What `python qlearning.py` with these arguments prints, but for the seconds."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    with contextlib.redirect_stdout(out):
        assert qlearning.main(arguments) == 0
    text = out.buffer.getvalue().decode(encoding)
    return re.sub(r"[\d.]+ seconds", "N seconds", text)


def shown(name, Qtable, episode=1, env=None, proof=True, **changes):
    """What is printed of a recipe's agent with this table."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        model = RECIPES[name] | changes | {"qtable": Qtable}
        qlearning.show_agent(env or game(name), model, episode, proof)
    return out.getvalue()


def results(told):
    """Mean_reward, expected score, the best one and environment steps, as printed."""
    parts = r"\nMean_reward=(.*?)\n.*rules: (\S+)\n.*play: (\S+)\n.*\n(\S+) environment"
    return re.search(parts, told, re.DOTALL).groups()


def same(*row, states=16):
    """A table in which all rows are alike."""
    return [list(row) for _ in range(states)]


# As in README, where the lake has its story: lines left out are three dots.
TAXI_STORY = """\
THE WORLD: Taxi-v3
...
328 (3,1) Y to R is state 328: taxi in row 3, column 1, passenger from Y to R.
500 states, 6 actions: 0 south, 1 north, 2 east, 3 west, 4 pickup, 5 dropoff
...
n_training_episodes=25000, learning_rate=0.7, min_learning_rate=None,
gamma=0.95, max_steps=99, max_epsilon=1.0, min_epsilon=0.05, decay_rate=0.005,
initial_value=0.0, n_eval_episodes=100, seed=0
episodes  epsilon  mean score since the line above, exploring included
      49    0.797    -370.12
      98    0.635    -311.18  ██████
...
   25000    0.050       5.25  ████████████████████████████████████████
...
Episode 1, state 94 (0,4) B to Y, the first built on a learned value:
  Q(94, west) = -0.91 + 0.7 * (-1 + 0.95 * (-0.7) - (-0.91)) = -1.438

THE Q-TABLE: * the greedy action, . a state of which nothing is known
state                  south     north      east      west    pickup   dropoff
283 (2,4) R to B     -2.4102   -2.5474   -1.4906   -0.4930* -10.9924  -10.6133
...
(only the first states of the episode below)
...
  15 479 (4,3) taxi to B dropoff       20  20.0000   20.0000   +0.0000
After 15 steps the passenger has arrived. Score 6.
The route, with the step that first reached a place:
       6       5       .       .       G
       .       4       .       .       .
       .       3       2       1       0
...
mean - std = 4.81 (4.5 or more passes the course)
...
Cells there that are exact to 8 decimals: 710 of 2424 (24 at ends)
States with a best action: 390 of 400
Mean_reward of the exact table, same episodes: 7.56 +/- 2.71
Expected score in 99 steps, by the rules: 7.8900
Of the exact table: 7.9300; of the best possible play: 7.9300
VERDICT: 0.0400 below the exact table; not the best action in states such as
149 (1,2) Y to G, 291 (2,4) Y to B, 367 (3,3) G to B.
"""
# alpha in episode 352 is 0.01 + (0.5 - 0.01) * e^(-0.0005 * 351) = 0.4211.
ICE_STORY = """\
THE WORLD: FrozenLake-v1 {'map_name': '4x4', 'is_slippery': True}
...
Slippery: a step may go to one side of where it was meant to go.
The states are numbered row by row, from 0 at the top left.

       S       F       F       F
       F       H       F       H
...
Episode 352, state 14, the first value that changes:
  Q(14, RIGHT) = 0 + 0.4211 * (1 + 0.99 * 0 - 0) = 0.4211
...
Of the exact table: 0.7381; of the best possible play: 0.7422
VERDICT: no worse than the exact table, 0.0041 below the best play.
"""


def holds(told, transcript):
    """Whether a story has these lines in this order; others may stand between them."""
    rest = iter(told.splitlines())
    return all(line in rest for line in transcript.splitlines() if line != "...")


def test_stories_of_the_taxi_and_of_the_ice():
    assert holds(story("taxi"), TAXI_STORY)
    assert holds(story("frozenlake-slippery"), ICE_STORY)


LONGEST = (
    "frozenlake-8x8-slippery"  # 5 seconds: .ci/run has its row of README's results
)


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_wider_than_a_terminal_and_no_columns_run_together(name):
    told = story(name, "--episodes", "500") if name == LONGEST else story(name)
    assert max(map(len, told.splitlines())) <= 79
    assert not re.search(r"\d\.\d+\.\d|\d[←↓→↑]|\d[A-Z]", told)


@pytest.mark.parametrize(
    ("name", "table", "verdict"),
    [
        ("cliffwalking", None, "the best possible score is reached."),
        ("frozenlake-8x8-slippery", same(1, 1, 1, 1, states=64), "nothing learned"),
        ("frozenlake", [*same(0, 0, 0, 0)[:14], [0, 0, 1, 0], [0, 0, 0, 0]],
         "1.0000 below the exact table."),
        ("frozenlake", [[q and q + 1e-7 for q in row] for row in GOLDEN],
         "the best possible score is reached."),
        ("frozenlake", [*GOLDEN[:15], [0, 0, 0, 1e-7]],  # the goal, an end, has a value
         "the best possible score is reached."),
    ],
)  # fmt: skip
def test_verdict_says_how_good_a_table_is(name, table, verdict):
    told = shown(name, table) if table else story(name)
    assert " ".join(told.split("VERDICT: ")[1].split()).startswith(verdict)


def test_numpys_table_and_a_model_without_its_start_are_shown_alike(capsys):
    model = RECIPES["frozenlake"] | {"qtable": GOLDEN}
    qlearning.show_agent(game("frozenlake"), model)
    told = capsys.readouterr().out
    model["qtable"] = array(16, 4)
    model["qtable"][:] = GOLDEN
    del model["initial_value"]
    qlearning.show_agent(game("frozenlake"), model)
    assert capsys.readouterr().out == told


def test_proof_counts_what_is_exact_where_something_is_known():
    wrong = [row[:] for row in GOLDEN]
    wrong[14], wrong[0][0] = [1.0, 0.95, 0.95, 0.9025], 0.9  # LEFT in 14 and in 0
    proof = """States that a value has reached: 11 of 16; ends beside them: 5
Cells there that are exact to 8 decimals: 61 of 64 (20 at ends)
States with a best action: 9 of 11"""
    assert holds(shown("frozenlake", wrong), proof)
    assert "THE PROOF" not in shown("frozenlake", GOLDEN, proof=False)


def test_told_episode_says_how_it_ended_and_a_long_one_is_told_in_short():
    into_a_hole = [[0, 0, 1, 0], [0, 1, 0, 0], *same(0, 0, 0, 0, states=14)]
    told = shown("frozenlake", into_a_hole)
    assert "\nAfter 2 steps it fell into a hole. Score 0.\n" in told
    told = shown("cliffwalking", same(0, 1, 0, 0, states=48))
    assert "cut short, after 99 falls off the cliff. Score -9900.\n" in told
    into_the_wall = same(0, 0, 1, 0)
    told = shown("frozenlake", into_the_wall)
    assert "\n   4 3                   RIGHT          0" in told
    assert "\n     ... 92 steps left out ...\n  97 3        " in told
    assert "\nAfter 99 steps it was cut short. Score 0.\n" in told
    told = shown("frozenlake", into_the_wall, max_steps=20)
    assert "left out" not in told and "\n  10 3        " in told


def test_an_environment_of_ones_own_is_shown_as_far_as_it_is_known():
    table = [[0.0, 0.5004], [1.0, 0.0], [0.0, 0.0]]
    known = """state                 action0    action1
   1 0                   action1        1   0.5004    1.9500   +1.4496
After 3 steps it ended. Score 7.
There is no exact table: Script does not publish its rules: it has no P."""
    assert holds(shown("frozenlake", table, env=Script(*WALK)), known)
    named = Script(*WALK)
    named.action_names, named.state_name = ["step back", "step on"], "place {}".format
    told = shown("frozenlake", table, env=named)
    assert "\n   1 place 0             step on  " in told
    for row, verdict in ([1.0, 2.0], "exact."), ([1.0, 0.5], "not exact."):
        told = shown("frozenlake", [row, [0.0] * 2, [0.0] * 2], env=Unstarted(END))
        assert "Expected score" not in told and f"\nVERDICT: {verdict}" in told
    wide = make_env("FrozenLake-v1", desc=["S" + "F" * 15], is_slippery=False)
    assert "route" not in shown("frozenlake", same(0, 0, 1, 0), env=wide)


def test_story_where_arrows_and_bars_cannot_be_printed():
    plain = story("--episodes", "900").translate(str.maketrans("←↓→↑█", "<v>^#"))
    assert plain.startswith("THE WORLD: FrozenLake-v1 {'map_name': '4x4', 'is_slip")
    assert "<" in plain and "#" in plain
    assert story("--episodes", "900", encoding="ascii") == plain


# ------------------ The command line --------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nosuchgame", "no recipe 'nosuchgame': choose from frozenlake, taxi, frozenlake-8x"),
        ("--alpha 0.3", "unrecognized arguments: --alpha"),
        ("--gamma nan", "--gamma must be a number from 0.0 to 1.0, not nan"),
        ("--episodes 0", f"--episodes must be a whole number from 1 to {MOST}, not 0"),
        ("--min-epsilon 0.5 --max-epsilon 0.2", "--max-epsilon 0.2 is below --min-epsilon"),
        ("frozenlake-slippery --learning-rate 0.005",
         "--learning-rate 0.005 is below the recipe's min_learning_rate 0.01"),
        ("--show-episode 0", "--show-episode must be a whole number from 1 to 100, not 0"),
        ("--show-episode 8 --eval-episodes 7", "--show-episode must be a whole number from 1 to 7, not 8"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_on_stderr(arguments, sentence, capsys):
    assert qlearning.main(arguments.split()) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"qlearning.py: error: {sentence}")


def test_options_replace_the_numbers_of_a_recipe():
    values = 5, 0.25, 0.125, 0.5, 7, 0.9, 0.2, 0.75, 0.5, 6, 3
    numbers = dict(zip(HYPERPARAMETERS, values, strict=True))
    pairs = [(qlearning.option(name), str(value)) for name, value in numbers.items()]
    options = *itertools.chain(*pairs), "--show-episode", "4"
    told = story("frozenlake-slippery", *options)
    listed = ", ".join(f"{name}={value}" for name, value in numbers.items())
    assert listed in " ".join(told.split())
    assert "\nONE EPISODE: number 4 of the scored ones (reset seed 3)\n" in told


def test_help_gives_each_options_meaning_and_the_recipes_default():
    done = command("qlearning.py", "cliffwalking", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 79
    assert "N which of the scored episodes" in " ".join(done.stdout.split())
    for name, (*_, meaning) in HYPERPARAMETERS.items():
        value = RECIPES["cliffwalking"][name]
        wanted = f"{qlearning.option(name)} N {meaning} ({value})"
        assert wanted in " ".join(done.stdout.split())


def test_runs_with_nothing_but_gymnasium():
    code = "import qlearning; sys.exit(qlearning.main(['--episodes', '50']))"
    done = command("-c", only_gymnasium(code))
    assert (done.returncode, done.stderr) == (0, "") and "THE PROOF" in done.stdout


def test_progress_bar_in_a_notebook_and_none_in_a_pipe():
    assert command("qlearning.py", "--episodes", 50).stderr == ""
    code = "import sys, qlearning; sys.modules['ipykernel'] = sys; qlearning.main()"
    done = command("-c", code, "--episodes", "50")
    assert "50/50" in done.stderr and "THE PROOF" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_progress_bar_on_a_terminal():
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    size = struct.pack("HHHH", 24, 80, 0, 0)  # rows, columns, and two unused
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    assert command("qlearning.py", "--episodes", 50, stderr=follower).returncode == 0
    drawn = os.read(leader, 9999)
    os.close(follower)
    os.close(leader)
    assert b"50/50" in drawn and b" episodes/s" in drawn


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe that breaks otherwise")
def test_a_reader_who_has_seen_enough_ends_the_program_in_silence():
    call = invocation("qlearning.py", "--episodes", 50)
    with subprocess.Popen(**call) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_ends_in_peace():
    # A shell script ignores SIGINT in what it runs with `&`, and so would our child.
    code = "import qlearning, signal; signal.signal(2, signal.default_int_handler); "
    code += "raise SystemExit(qlearning.main(['--episodes', '1000000']))"
    with subprocess.Popen(**invocation("-u", "-c", code)) as process:
        limit = threading.Timer(60, process.kill)
        limit.start()
        any("seed=0" in line for line in process.stdout)  # then training begins
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        limit.cancel()
    assert (process.returncode, errors) == (130, "\nStopped by Ctrl-C.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes files")
@pytest.mark.parametrize(
    ("to", "code", "errors"),
    [
        (">/dev/full", 1, "qlearning.py: [Errno 28] No space left on device\n"),
        (">&-", 0, ""),
        ("--gamma 7 2>&-", 2, ""),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(to, code, errors):
    if "full" in to and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    line = f'"{sys.executable}" qlearning.py --episodes 50 {to}'
    done = command("-c", line, program="sh")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", errors)


def test_docstring_examples():
    failed, tried = doctest.testmod(qlearning)
    assert failed == 0 and tried >= 7


# ------------------ Film --------------------------------------------------------------
games_are_drawn = pytest.mark.skipif(
    not importlib.util.find_spec("pygame"), reason="pygame, which draws, is missing"
)


class Lamp(gym.Env):
    """A world that is in one given state after the other, and shines as its number says."""

    render_mode = "rgb_array"
    observation_space, action_space = gym.spaces.Discrete(9), gym.spaces.Discrete(2)

    def __init__(self, *states, size=(50, 70), picture=lambda lamp, light: light):
        self.states, self.picture = states, picture
        self.dark = gym.spaces.Box(0, 255, (*size, 3), "uint8").low

    def reset(self, *, seed=None, options=None):
        self.state, self.coming = seed or 0, list(self.states)
        return self.state, {}

    def step(self, action):
        self.state = self.coming.pop(0)
        return self.state, 1.0, not self.coming, False, {}

    def render(self):
        return self.picture(self, self.dark + 20 * self.state)


LAMPS = [[0.0, 0.0] for _ in range(9)]


def seen(path):
    """What ffmpeg says about a film, its size, and its frames as bytes: red, green, blue."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, *raw]
    done = subprocess.run(ffmpeg, capture_output=True, check=False, timeout=60)
    said = done.stderr.decode()
    width, height = map(int, re.search(r"Video: .* (\d+)x(\d+)", said).groups())
    size = 3 * width * height
    frames = [done.stdout[i : i + size] for i in range(0, len(done.stdout), size)]
    return said, (width, height), frames


def states_in(path):
    """The states that a film of a lamp shows."""
    return [round(sum(frame) / len(frame) / 20) for frame in seen(path)[2]]


@games_are_drawn
def test_a_film_is_what_browsers_play_and_shows_the_agent_where_it_is(tmp_path):
    env, path = game("frozenlake", render_mode="rgb_array"), tmp_path / "a/b/c.mp4"
    assert record_video(env, GOLDEN, str(path)) == path
    said, size, frames = seen(path)
    assert "Video: h264 " in said and ", yuv420p" in said
    assert "Duration: 00:00:07.00" in said  # 1 frame a second, where nothing is said
    assert (size, len(frames)) == ((256, 256), 7)  # one before the 6 moves
    film = path.read_bytes()
    assert film.index(b"moov") < film.index(b"mdat")  # it plays while it still arrives
    env.reset()
    moves = itertools.chain([None], rollout(env, GOLDEN, 0, 99))
    for frame, _ in zip(frames, moves):  # with the agent elsewhere it would be 3.7
        pairs = zip(frame[::97], env.render().tobytes()[::97])
        assert sum(abs(a - b) for a, b in pairs) / len(frame[::97]) < 2.5


@pytest.mark.parametrize("name", ["a.mp4", "a.GIF"])
def test_a_film_has_a_frame_before_the_first_step_and_one_after_each(tmp_path, name):
    path, lamp = tmp_path / name, Lamp(5, 2, 8, 4, size=(33, 51))
    assert states_in(record_video(lamp, LAMPS, path)) == [0, 5, 2, 8, 4]
    assert states_in(record_video(lamp, LAMPS, path, seed=7)) == [7, 5, 2, 8, 4]
    assert states_in(record_video(lamp, LAMPS, path, max_steps=2)) == [0, 5, 2]
    assert seen(path)[1] == (50, 32)  # yuv420p has one color for 2 x 2 pixels


def test_endless_games_end_after_99_steps_where_nothing_is_said(tmp_path):
    endless = Lamp(*[1] * 200, size=(2, 2))
    assert states_in(record_video(endless, LAMPS, tmp_path / "a.mp4")) == [0] + [1] * 99


FPS = [(Fraction(1, 2), 8), (2.5, 1.6), (0.01, 400), (100, 0.04)]
FPS += [(gym.spaces.Box(4, 5, (1,), "float32").low[0], 1)]  # a number of NumPy's


@pytest.mark.parametrize(("fps", "seconds"), FPS)
def test_fps_is_any_number(tmp_path, fps, seconds):
    said, _, frames = seen(record_video(Lamp(3, 4, 5), LAMPS, tmp_path / "a.mp4", fps))
    assert f"Duration: 00:{seconds // 60:02.0f}:{seconds % 60:05.2f}" in said
    gif = record_video(Lamp(3, 4, 5), LAMPS, tmp_path / "a.gif", fps).read_bytes()
    waits = re.findall(rb"\x21\xf9\x04.(..)", gif, re.DOTALL)
    hundredths = [int.from_bytes(wait, "little") for wait in waits]
    assert hundredths == [round(100 / fps)] * 4
    assert len(frames) == 4 and b"NETSCAPE2.0\x03\x01\x00\x00" in gif  # for ever


def torn(lamp, light):
    if len(lamp.coming) < 3:
        raise OSError("the wire of the lamp is torn")
    return light


ENDING = "a video is a file that ends in .mp4 or .gif, not {!r}"
RATE = "fps must be from 0.01 to 100, not {!r}"
PICTURE = "render() gives no picture of bytes, but {}"
UNFILMED = [
    ({"out_directory": "a.avi"}, ENDING.format("a.avi")),
    ({"out_directory": "mp4"}, ENDING.format("mp4")),
    ({"max_steps": 0}, "max_steps must be a whole number from 1 to 1000000, not 0"),
    ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, not -1"),
    ({"Qtable": LAMPS[1:]}, "the Q-table is 8 x 2, and this environment has 9 states x 2 actions"),
    *[({"fps": fps}, RATE.format(fps)) for fps in (0.009, 100.1, math.nan, True, "fast", 1j)],
    ({"env": game("frozenlake"), "Qtable": GOLDEN}, 'to film, make the game with render_mode="rgb_array"'),
    (Lamp(1, picture=lambda *_: None), PICTURE.format("<class 'NoneType'> []")),
    (Lamp(1, picture=lambda _, light: light / 2), PICTURE.format("float64 [50, 70, 3]")),
    (Lamp(1, picture=lambda _, light: light[0]), PICTURE.format("uint8 [70, 3]")),
    (Lamp(1, picture=lambda _, light: light[:, :, :2]), PICTURE.format("uint8 [50, 70, 2]")),
    (Lamp(1, size=(1, 70)), PICTURE.format("uint8 [1, 70, 3]")),
    (Lamp(1, size=(50, 1)), PICTURE.format("uint8 [50, 1, 3]")),
    (Lamp(1, picture=lambda lamp, light: light[10 * lamp.state :]), "render() changes the picture's size"),
    (Lamp(1, 2, 3, picture=torn), "the wire of the lamp is torn"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "sentence"), UNFILMED)
def test_what_cannot_be_filmed_is_said_and_the_old_film_stays(
    tmp_path, monkeypatch, how, sentence
):
    monkeypatch.chdir(tmp_path)
    call = {"env": Lamp(1), "Qtable": LAMPS, "out_directory": "a.gif"}
    call |= how if isinstance(how, dict) else {"env": how}
    path = Path(call["out_directory"])
    path.write_bytes(b"old")
    with pytest.raises((ValueError, OSError)) as caught:
        record_video(**call)
    assert str(caught.value) == sentence
    assert (os.listdir(), path.read_bytes()) == ([path.name], b"old")


def test_a_film_goes_home_but_into_no_folder_s_place(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    assert record_video(Lamp(1), LAMPS, "~/new/a.gif") == tmp_path / "new" / "a.gif"
    (tmp_path / "b.gif").mkdir()
    with pytest.raises(ValueError, match=re.escape(ENDING.format("b.gif"))):
        record_video(Lamp(1), LAMPS, "~/b.gif")


# What stands in the place of ffmpeg while it encodes, and what is said of its end. The
# real one is "$0.real"; a frame of the lamp has 10,500 bytes.
ENCODERS = [
    ("kill -9 $$", "exit code -9"),
    ('"$0.real" "$@"; exit 1', "exit code 1"),
    (r"cat > /dev/null; printf '\377' >&2; exit 1", "\N{REPLACEMENT CHARACTER}"),
    ("cat > /dev/null", "pictures are missing"),
    ('head -c 21000 | "$0.real" "$@"', "pictures are missing"),
    ("cat > /dev/null; echo 'av: x\nNo space left' >&2; exit 1", "No space left"),
]


@pytest.mark.skipif(os.name != "posix", reason="these encoders need /bin/sh")
@pytest.mark.parametrize(("encoder", "reason"), ENCODERS)
def test_a_film_counts_only_when_the_encoder_has_ended_it(
    tmp_path, monkeypatch, capfd, encoder, reason
):
    (tmp_path / "ffmpeg.real").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    counting = 'case "$*" in *libx264*) ;; *) exec "$0.real" "$@" ;; esac'
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{counting}\n{encoder}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    path = tmp_path / "films" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError) as caught:
        record_video(Lamp(1, 2, 3), LAMPS, path)
    assert str(caught.value) == f"ffmpeg did not finish a.mp4: {reason}"
    assert (os.listdir(path.parent), path.read_bytes()) == (["a.mp4"], b"old")
    assert capfd.readouterr() == ("", "")


@games_are_drawn
@pytest.mark.skipif(os.name != "posix", reason="no limit for the size of a file")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("a.mp4", "ffmpeg did not finish a.mp4: exit code -25"), ("a.gif", "[Errno 27] ")],
)
def test_a_full_disk_is_one_sentence_and_the_old_film_stays(tmp_path, name, reason):
    (tmp_path / name).write_bytes(b"old")
    record = f'"{sys.executable}" hub_utils.py record frozenlake "{tmp_path / name}"'
    done = command("-c", f"ulimit -f 1; {record} --episodes 9", program="sh")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"hub_utils.py: {reason}")
    assert (os.listdir(tmp_path), (tmp_path / name).read_bytes()) == ([name], b"old")


def test_a_missing_renderer_is_found_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pygame", None)
    record = ["record", "frozenlake", str(tmp_path / "new" / "a.gif")]
    assert hub_utils.main([*record, "--episodes", "1000000"]) == 1  # it takes minutes
    said = "the renderer is missing: pip install 'gymnasium[toy-text]'"
    assert capsys.readouterr() == ("", f"hub_utils.py: {said}\n")
    assert os.listdir(tmp_path) == []


@games_are_drawn
@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
def test_without_a_screen_nothing_is_printed_and_signals_still_arrive(tmp_path):
    code = (
        "import os, signal, sys\n"
        "for name in ('DISPLAY', 'WAYLAND_DISPLAY'): os.environ.pop(name, None)\n"
        "import gymnasium, hub_utils\n"
        "env = gymnasium.make('FrozenLake-v1', render_mode='rgb_array')\n"
        "hub_utils.record_video(env, [[0.0] * 4 for _ in range(16)], sys.argv[1])\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    done = command("-c", code, tmp_path / "a.gif")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")
    assert os.listdir(tmp_path) == ["a.gif"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a screen")
@pytest.mark.parametrize("screens", [{}, {"DISPLAY": ":1"}, {"WAYLAND_DISPLAY": "way"}])
def test_sdl_is_told_to_do_without_a_screen_where_there_is_none(
    tmp_path, monkeypatch, screens
):
    monkeypatch.setattr(os, "environ", dict(screens))
    record_video(Lamp(1), LAMPS, tmp_path / "a.gif")
    told = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    assert os.environ == {"SDL_NO_SIGNAL_HANDLERS": "1"} | (screens or told)


# ------------------ A pickle is a program ---------------------------------------------
# `pickle.load` runs it, letter by letter, on a stack of values with a memo beside it:
#   N None   I J K F a number   V X \x8c a text   S B C bytes   ] } ) empty list, dict, tuple
#   ( a mark   l d t list, dict, tuple of all above it   \x85 \x86 \x87 tuple of 1, 2, 3
#   a e s u put into the list or dict below   0 1 2 drop, drop to the mark, double
#   p q r \x94 remember the top   g h j use it again   \x80 protocol   \x95 frame   . the end
#   c \x93 import a module's name   R o \x81 \x92 call it   i both   b give it a state
# Each of these makes "owned" in the folder where it is obeyed. Beside it is our refusal.
DAMAGED = "a damaged pickle, or one with what no model needs ({})"
NEEDLESS = DAMAGED.format("KeyError")  # the machine does not know the instruction
MKDIR = "it would import os.mkdir"
RUNS = {
    b"cos\nmkdir\n(Vowned\ntR.": MKDIR,
    b"\x80\x02cos\nmkdir\nq\x00X\x05\x00\x00\x00owned\x85R.": MKDIR,
    b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x94\x8c\x05owned\x85R.": MKDIR,
    b"\x80\x04\x8c\x06shutil\x8c\x08os.mkdir\x93\x8c\x05owned\x85R.": "it would import shutil.os.mkdir",
    b"(Vowned\nios\nmkdir\n.": NEEDLESS,
    b"(cos\nmkdir\nVowned\no.": MKDIR,
    b"cbuiltins\ntuple\ncbuiltins\nmap\n(cos\nmkdir\n(Vowned\nlt\x81\x85\x81.": "it would import builtins.tuple",
    b"cfunctools\npartial\ncbuiltins\nprint\n\x85R(cos\nmkdir\n(Vowned\nt}Ntb)R.": "it would import functools.partial",
    b"c__builtin__\nopen\n(Vowned\nVw\ntR.": "it would import __builtin__.open",
    # in a model, as a key, as part of an array, behind something harmless
    b"}Venv_id\nVTaxi-v3\nsVqtable\ncos\nmkdir\n(Vowned\ntRs.": MKDIR,
    b"}cos\nmkdir\n(Vowned\ntRNs.": MKDIR,
    b"cnumpy\ndtype\n(cos\nmkdir\n(Vowned\ntRtR.": MKDIR,
    b"cnumpy\nndarray\n0cos\nmkdir\n(Vowned\ntR.": NEEDLESS,
    b"\x8f0cos\nmkdir\n(Vowned\ntR.": NEEDLESS,
    b"S'x'\ncos\nmkdir\n(Vowned\ntR.": NEEDLESS,
}  # fmt: skip


def test_these_programs_do_harm_where_they_are_obeyed(tmp_path):
    code = (
        "import contextlib, os, pickle, sys, tempfile\n"
        "for program in sys.argv[2:]:\n"
        "    os.chdir(tempfile.mkdtemp(dir=sys.argv[1]))\n"
        "    with contextlib.suppress(Exception):\n"
        "        pickle.loads(bytes.fromhex(program))\n"
        "    print(os.listdir())\n"
    )
    done = command("-c", code, str(tmp_path), *[program.hex() for program in RUNS])
    assert done.stdout.splitlines() == ["['owned']"] * len(RUNS)


MODEL = RECIPES["frozenlake"] | {"env_kwargs": {"desc": ["SFG"], "is_slippery": False}}
MODEL |= {"qtable": [[0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]}


def pickled(protocol=4, **changes):
    return pickle.dumps(MODEL | changes, protocol)


# NumPy's arrays, as Gymnasium hands them out, pickled by the NumPy that is installed.
COUNT = gym.spaces.MultiDiscrete([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]).nvec
ARRAYS = {"b1": COUNT % 3 == 0} | {f"u{size}": COUNT * 21 for size in (1, 2, 4, 8)}
ARRAYS |= {f"i{size}": COUNT * 20 - 128 for size in (1, 2, 4, 8)}
ARRAYS |= {f"f{size}": COUNT / 4 - 2 for size in (2, 4, 8)}


def by_numpy(core, data):
    """A pickle with the names of NumPy 1 (core) or NumPy 2 (_core)."""
    if data[2:3] == b"\x95":  # a frame would have to know its new length
        data = data[:2] + data[11:]

    def named(match):
        name = b"numpy." + core + match[2]
        return (b"\x8c" + bytes([len(name)]) if match[1] else b"") + name

    return re.sub(rb"(\x8c.)?numpy\._?core(\.\w+)", named, data)


@pytest.mark.parametrize("code", ARRAYS)
def test_numpy_arrays_of_all_kinds_are_read(code):
    ways = itertools.product("<>", "CF", range(6), (b"core", b"_core"))
    for order, layout, protocol, core in ways:
        array = ARRAYS[code].astype(order + code).copy(order=layout)
        parts = [array, array[0], array[2, 3], array[:1, 1].reshape(())]
        read = read_pickle(by_numpy(core, pickle.dumps(parts, protocol)))
        expected = [part.tolist() for part in parts]
        assert repr(read) == repr(expected)  # which tells True from 1 and 1 from 1.0


def edited(old, new):
    """A model with an array, in whose pickle one thing is replaced."""
    data = by_numpy(b"core", pickled(2, qtable=COUNT / 4))
    assert data.count(old) == 1
    return data.replace(old, new)


def long(letter, size, data=b""):
    return letter + struct.pack("<I", size) + data


SHAPE, CODE, ORDER = b"K\x03K\x04\x86", b"X\x02\x00\x00\x00f8", b"X\x01\x00\x00\x00<"
LATIN1 = b"X\x06\x00\x00\x00latin1"
DTYPE = b"(Vf8\nI00\nI01\ntR(K\x03V<\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
SCALAR = b"cnumpy.core.multiarray\nscalar\n("
AGAIN = b"q\x00](" + b"h\x00" * 100 + b"e"  # the top of the stack, 100 times in a list
NEST = b")" + b"q\x00h\x00\x86" * 100 + b"q\x01"  # a pair of pairs of pairs ...
NO_MODEL = "not a model: a dictionary with env_id and qtable is needed"
CUT_OFF = "not a pickle, or one that is cut off"
DEEP = "more values, or deeper nested, than a model needs"
KEY = "a dictionary with a key that is not a short text"
MUCH = "more values than any Q-table needs"
NO_NUMBER = "a number that is none"
NO_CALL = "a call that makes no part of an array"
SHAPELESS = "an array of an unknown or too large shape"
SEEDS = "its eval_seed is not a list of whole numbers of 0 or more"
REFUSED = {
    # no pickle, or not the whole of one, or more than one
    b"": CUT_OFF,
    b"<!doctype html><html></html>": NEEDLESS,
    b"version https://git-lfs.github.com/spec/v1\noid": "a Git LFS pointer, not the file itself",
    pickled()[:-9]: CUT_OFF,
    pickled(2)[:-9]: CUT_OFF,
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x3fx": CUT_OFF,  # it claims 2 ** 62 bytes
    # what no model needs
    b"Px\n.": NEEDLESS,
    b"\x82\x01.": NEEDLESS,
    b"\x97.": NEEDLESS,
    b"cnumpy\nload\n.": "it would import numpy.load",
    b"c\x1b[2J\nx\n.": r"it would import \x1b[2J.x",
    b"c" + b"m" * 5000 + b"\nx\n.": "it would import " + "m" * 80 + ".x",
    b"N)R.": NO_CALL,
    b"Vscalar\n)R.": NO_CALL,
    b"]Nb.": "a call with arguments that it cannot have",
    # values that no model has
    pickle.dumps([1, 2]): NO_MODEL,
    pickled(env_id=7): NO_MODEL,
    pickled(env_kwargs=["desc"]): "its env_kwargs are no dictionary",
    pickled(qtable=None): "its qtable is not a list of rows",
    pickled(qtable=[]): "its qtable is not a list of rows",
    pickled(qtable=[[0.0], [0.0, 1.0]]): "the rows of its qtable are not of one length",
    pickled(qtable=[[]]): "the rows of its qtable are not of one length",
    pickled(qtable=[["1"]]): "its qtable has a cell that is not a number",
    pickled(qtable=[[math.nan]]): "a float that no model needs",
    pickled(gamma=math.inf): "a float that no model needs",
    pickled(gamma=5): "gamma must be a number from 0.0 to 1.0, not 5",
    pickled(max_steps="99"): "max_steps must be a whole number from 1 to 1000000, not '99'",
    pickled(eval_seed="123"): SEEDS,
    pickled(eval_seed=[1, "2"]): SEEDS,
    pickled(eval_seed=[1, -1]): SEEDS,
    pickled(seed=2**64): "a int that no model needs",
    pickled(note=b"x"): "a bytes that no model needs",
    pickled(note="x" * 10_001): "a str that no model needs",
    pickled(**{"k" * 101: 2}): KEY,
    pickled(deep=[[[[[[[]]]]]]]): DEEP,
    # arrays that are none
    edited(SHAPE, b"J\xff\xff\xff\xffK\x04\x86"): SHAPELESS,
    edited(SHAPE, b"K\x03K\x02K\x02\x87"): SHAPELESS,
    edited(SHAPE, b"\x88K\x0c\x86"): SHAPELESS,
    edited(SHAPE, b"J\x00\x00\x00\x40K\x00\x86"): SHAPELESS,
    edited(SHAPE, b"J\x60\xae\x0a\x00K\x02\x86"): SHAPELESS,
    edited(SHAPE, b"K\x04K\x04\x86"): DAMAGED.format("error"),
    edited(b"b\x89h", b"bK\x00h"): "an array of unknown parts",  # by columns: 0, not False
    edited(CODE, b"X\x01\x00\x00\x00O"): NEEDLESS,
    edited(ORDER, b"X\x01\x00\x00\x00@"): NEEDLESS,
    edited(LATIN1, b"X\x05\x00\x00\x00utf-8"): NO_CALL,
    ARRAY + b".": "a Part that no model needs",
    # the real machine takes no import for a text
    SCALAR + b"\x8c\x05numpycnumpy\ndtype\n\x93" + DTYPE + b"C\x08" + bytes(8) + b"tR.": DAMAGED.format("UnpicklingError"),
    # work without an end: a key of 2 ** 100 pairs, lists in lists, arrays again and again
    NEST + b"}h\x01Ns.": KEY,
    NEST + b"}(h\x01Nu.": KEY,
    NEST + b"(h\x01Nd.": KEY,
    NEST + b"cnumpy\ndtype\n(h\x01I00\nI01\ntR.": NO_CALL,
    NEST + b"cnumpy\ndtype\n" + DTYPE.replace(b"V<\n", b"h\x01") + b".": NO_CALL,
    b"]" + AGAIN * 200 + b".": DEEP,
    b"}(Va\n](" + b"K\x00" * 100 + b"eq\x01Vb\n](" + b"h\x01" * 100
    + b"eq\x02Vqtable\n](" + b"h\x02" * 100 + b"eu.": DEEP,
    b"]q\x00h\x00a.": DEEP,  # a list that holds itself
    b"]" * 100_000 + b"a" * 99_999 + b".": DEEP,
    b"]" + b"\x85" * 300_000 + b".": DEEP,
    b"(" * 5_000_000: MUCH,
    b"N" * 5_000_000 + b".": MUCH,
    b"cnumpy\ndtype\n" * 700_000 + b".": MUCH,
    b"](" + long(b"B", 240_000, bytes(240_000)) + b"q\x01cnumpy\ndtype\n" + DTYPE + b"q\x02"
    + b"cnumpy.core.numeric\n_frombuffer\n(h\x01h\x02(M\x30\x75tVC\ntR" * 1000 + b"e.": MUCH,
    b"]((K\x01(M\x30\x75tcnumpy\ndtype\n" + DTYPE + b"I00\n"
    + long(b"B", 240_000, bytes(240_000)) + b"tq\x03" + (ARRAY + b"h\x03b") * 1000 + b"e.": MUCH,
    b"](" + long(b"X", 240_000, b"a" * 240_000) + b"q\x01"
    + b"c_codecs\nencode\n(h\x01Vlatin1\ntR" * 1000 + b"e.": MUCH,
    b"]((K\x01(J\xc0\x27\x09\x00K\x00tcnumpy\ndtype\n" + DTYPE + b"I00\nC\x00tq\x03"
    + (ARRAY + b"h\x03b") * 100 + b"e.": SHAPELESS,  # 600,000 rows of nothing
    b"]((K\x01(J\x20\xa1\x07\x00K\x00tcnumpy\ndtype\n" + DTYPE + b"I00\nC\x00tq\x03"
    + (ARRAY + b"h\x03b") * 100 + b"e.": MUCH,  # 500,000, again and again
    # the longest texts and numbers, a place in the memo that would take gigabytes
    long(b"X", 20_000_000, bytes(20_000_000)): "more bytes than any Q-table needs",
    b"}" + long(b"X", 4_000_000, b"a" * 4_000_000) + b"Ns.": KEY,
    long(b"\x8b", 9_000_000, b"\x7f" * 9_000_000) + b".": "a int that no model needs",
    b"I" + b"9" * 5_000_000 + b"\n.": NO_NUMBER,
    b"F1_0\n.": NO_NUMBER,
    b"L1_0L\n.": NO_NUMBER,
    b"Np1_0\n.": NO_NUMBER,
    b"Np10\ng1_0\n.": NO_NUMBER,
    b"Nr\xff\xff\xff\xff.": NO_MODEL,
    b"".join(long(b"Nr", i) for i in range(270_000)) + b".": NO_MODEL,
}  # fmt: skip
NOT_ALLOWED = RUNS | REFUSED


def test_what_is_no_model_is_refused_in_a_second_and_nothing_runs(tmp_path):
    """In a process of its own, for the kernel to count its memory."""
    for i, program in enumerate(NOT_ALLOWED):
        (tmp_path / f"{i:03}").write_bytes(program)
    code = (
        "import hub_utils, os, sys, time\n"
        "def memory():\n"
        "    if os.name == 'nt':\n"
        "        return 0  # Windows does not count\n"
        "    import resource\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "os.chdir(sys.argv[1])\n"
        "before = memory()\n"
        "for name in sorted(os.listdir()):\n"
        "    start = time.process_time()\n"
        "    try:\n"
        "        print(hub_utils.load_model(name))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "    print(time.process_time() - start)\n"
        "print(memory() - before)\n"
    )
    *lines, memory = command("-c", code, str(tmp_path)).stdout.splitlines()
    text = "{:03} is not a Q-learning model: {}"
    reasons = [text.format(i, why) for i, why in enumerate(NOT_ALLOWED.values())]
    assert lines[::2] == reasons
    assert len(os.listdir(tmp_path)) == len(NOT_ALLOWED)
    assert max(map(float, lines[1::2])) < 1
    assert int(memory) * (1 if sys.platform == "darwin" else 1024) < 100e6


def test_folders_devices_and_pipes_are_no_models(tmp_path):
    paths = [tmp_path]
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        paths += [tmp_path / "pipe", Path("/dev/zero")]
    for path in paths:
        with pytest.raises(ValueError, match="model: a folder, a device or a pipe$"):
            load_model(path)


# Our machine against the real one. These letters import nothing, so the real one may run.
LETTERS = (
    b"N|I01\n|I7\n|K\x07|M\x01\x02|J\xff\xff\xff\xff|L7L\n|\x8a\x02\xff\xff|F-2.5\n|\x88|\x89|"
    b"G?\xf8\0\0\0\0\0\0|Va\n|X\x01\0\0\0b|\x8c\x01c|C\x01x|]|}|)|(|l|d|t|\x85|\x86|\x87|"
    b"a|e|s|u|0|1|2|p1\n|q\x01|r\x01\0\0\0|\x94|g1\n|h\0|j\x01\0\0\0|R|b|.|"
    b"\x80\x02|\x80\x05|\x80\x06|\x80\x47|\x95\x03\0\0\0\0\0\0\0"
).split(b"|")


def random_value(rng, depth=3):
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        return [None, True, 7, -2.5, "a", "b"][kind]
    items = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return [items, tuple(items), dict(zip("abc", items))][kind - 6]


def random_program(rng):
    """A real pickle, with a few letters lost, doubled, or replaced by others."""
    data = pickle.dumps(random_value(rng), rng.randrange(6))
    places = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    program = [data[i:j] for i, j in itertools.pairwise(places)]
    for _ in range(rng.randrange(5)):
        place = rng.randrange(len(program) + 1)
        letters = rng.choices(LETTERS + program, k=rng.randrange(3))
        program[place : place + rng.randrange(2)] = letters
    return b"".join(program)


def in_lists(value):
    """The same with a list for each tuple and array, as reading a model gives it."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        return [in_lists(part) for part in value]
    if isinstance(value, dict):
        return {key: in_lists(part) for key, part in value.items()}
    return value


def test_our_machine_and_the_real_one_agree():
    rng, verdicts = random.Random(0), Counter()
    for _ in range(6_000):
        program, ours = random_program(rng), None
        with contextlib.suppress(ValueError):
            ours = repr(read_pickle(program))
        try:
            real = pickle.loads(program)
        except Exception:  # noqa: BLE001 (whatever it says)
            assert ours is None, program  # it accepts nothing that is no pickle
        else:
            verdicts[ours is not None] += 1
            assert ours is None or ours == repr(in_lists(real)), program
    assert verdicts[True] > 2_500 and 0 < verdicts[False] < 300  # it refuses little


def test_what_is_saved_is_plain_lists_of_floats_for_everybody(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    numbers = {"gamma": COUNT[0, 0] / 2, "seed": COUNT[0, 1], "eval_seed": COUNT[0] - 1}
    numbers |= {"qtable": COUNT, "flags": (True, None), "note": "\u4e2d"}
    path = save_model(MODEL | numbers, "~/new/q-learning.pkl")
    assert path == tmp_path / "new" / "q-learning.pkl"
    plain = {"gamma": 0.5, "seed": 2, "eval_seed": [0, 1, 2, 3], "flags": [True, None]}
    plain |= {"qtable": [[float(n) for n in range(i, i + 4)] for i in (1, 5, 9)]}
    data, ours = path.read_bytes(), load_model("~/new/q-learning.pkl")
    assert repr(pickle.loads(data)) == repr(ours) == repr(MODEL | numbers | plain)
    letters = {letter.name for letter, _, _ in pickletools.genops(data)}
    assert not letters & {"GLOBAL", "STACK_GLOBAL", "INST", "REDUCE", "BUILD"}
    assert data[:2] == b"\x80\x04"  # protocol 4


UNSAVED = [
    ({"n": {5: 1}}, KEY),
    ({"n": b"x"}, "a bytes that no model needs"),
    ({"gamma": -1}, "gamma must be a number from 0.0 to 1.0, not -1"),
    ({"qtable": [[None]]}, "its qtable has a cell that is not a number"),
    ({"qtable": COUNT[:, :1].repeat(70_000, 0)}, MUCH),  # more letters than are read
]


@pytest.mark.parametrize(("change", "reason"), UNSAVED)
def test_what_could_not_be_read_again_is_not_written(tmp_path, change, reason):
    path = tmp_path / "m.pkl"
    path.write_bytes(b"old")
    with pytest.raises(ValueError) as caught:
        save_model(MODEL | change, path)
    assert str(caught.value) == reason
    assert (os.listdir(tmp_path), path.read_bytes()) == (["m.pkl"], b"old")


def test_the_bounds_themselves_are_allowed():
    lists = [[None] * 183_332] * 3  # 550,000 values, in less than half as many letters
    assert read_pickle(pickle.dumps(lists)) == lists
    with pytest.raises(ValueError, match=DEEP):
        read_pickle(pickle.dumps([*lists, None]))
    assert read_pickle(b"](" + b"N" * 549_996 + b"e.") == [None] * 549_996
    with pytest.raises(ValueError, match=MUCH):
        read_pickle(b"](" + b"N" * 549_997 + b"e.")


def test_arrays_may_be_empty_and_the_flags_of_a_dtype_numbers():
    assert read_pickle(pickle.dumps([COUNT[:0], COUNT[0, :0]])) == [[], []]
    numbers = edited(b"\x89\x88\x87", b"K\x00K\x01\x87")
    assert read_pickle(numbers)["qtable"] == (COUNT / 4).tolist()


ROWS = [[n] for n in range(300)]
GENUINE = [
    (4, {"qtable": (COUNT / 4).repeat(21_846, 0)[:65_536]}),  # 65,536 states
    (4, {"scores": list((COUNT / 4).ravel().repeat(667))}),  # 8,004 numbers of NumPy's
    (2, {"qtable": list((COUNT / 4).repeat(1_667, 0))}),  # 5,001 rows of NumPy's
    (2, {"rows": ROWS, "again": ROWS[::-1]}),  # more in the memo than a byte can count
    (0, {"a": "x" * 10_000, "k" * 100: 2**64 - 1, "b": [[[[[[]]]]]]}),  # just allowed
    (1, {"qtable": [[0, 0.5, 1, 2.5]] * 3}),
]


@pytest.mark.parametrize(("protocol", "changes"), GENUINE)
def test_whatever_is_genuine_is_read(tmp_path, protocol, changes):
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled(protocol, **changes))
    model = load_model(path)
    assert model == MODEL | in_lists(changes)
    assert load_model(save_model(model, path)) == model


STRANGE = [
    ({"env_id": "os:Game-v0"}, "this Gymnasium has no game 'os:Game-v0'"),
    ({"env_id": "x" * 999}, f"this Gymnasium has no game '{'x' * 80}'"),
    ({"env_id": "Taxi", "env_kwargs": {}}, "this Gymnasium has no game 'Taxi'"),
    ({"env_id": "GymV21Environment-v0", "env_kwargs": {}}, "cannot be made: "),
    ({"env_id": "CartPole-v1", "env_kwargs": {}}, "Discrete"),
    ({"render_mode": "human"}, "cannot be made with ['render_mode']"),
    ({f"k{i:090}": 1 for i in range(9000)}, "cannot be made with ['k000"),
    ({"desc": None}, "has 3 states"),
    ({"desc": None, "map_name": "4x4"}, "16 states"),
    ({"desc": None, "map_name": "9x9"}, "cannot be made: "),
    ({"desc": None, "map_name": ["x" * 9000] * 300}, "cannot be made: "),
    ({"desc": 5}, "cannot be made: "),
    ({"desc": ["FFF"]}, "a map is made of S, F, H and G, and has an S"),
    ({"desc": ["S\x1b\r"]}, "a map is made of S, F, H and G, and has an S"),
    ({"desc": ["SFFFFFFFFG"]}, "its map is too large for its table"),
]


@pytest.mark.parametrize(("change", "text"), STRANGE)
def test_a_stranger_s_game_is_made_only_if_harmless_and_fitting(change, text):
    if "env_id" not in change:
        change = {"env_kwargs": MODEL["env_kwargs"] | change}
    with pytest.raises(ValueError) as caught:
        make_env_from_model(MODEL | change)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def test_games_of_ours_and_of_the_course_are_made(capsys):
    env = make_env_from_model(MODEL, render_mode="rgb_array")
    assert (env.render_mode, env.observation_space.n) == ("rgb_array", 3)
    pond = {"env_kwargs": {"desc": ["SFHG"]}, "qtable": initialize_q_table(4, 4)}
    assert make_env_from_model(MODEL | pond).observation_space.n == 4
    taxi = {"env_id": "Taxi-v3", "qtable": initialize_q_table(500, 6)}
    assert make_env_from_model(taxi).action_space.n == 6
    lake = {"env_id": "FrozenLake-v1", "qtable": initialize_q_table(64, 4)}
    lake |= {"map_name": "8x8"}
    for slippery, outcomes in {True: 3, False: 1, None: 3}.items():
        env = make_env_from_model(lake | {"slippery": slippery})
        assert len(env.unwrapped.P[0][0]) == outcomes
        assert ("guessed: {'is_slippery': True}" in capsys.readouterr().err) == (
            slippery is None
        )


# ------------------ The package -------------------------------------------------------
FILES = {"q-learning.pkl", "params.json", "results.json", "README.md", "replay.mp4"}
MARK = "\n<!-- What you write below this line stays with every new push. -->"
LAKE = {"desc": ["SFG"], "is_slippery": False}
ICE = LAKE | {"is_slippery": True}


def small(**changes):
    """The model of a lake of three cells, whose way is to the right; ... takes a key out."""
    model = RECIPES["frozenlake"] | {"gamma": 0.5, "n_eval_episodes": 3, "seed": 0}
    model["qtable"] = [[0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]
    model |= {"env_kwargs": LAKE} | changes
    return {name: value for name, value in model.items() if value is not ...}


def filmed(name="frozenlake", **arguments):
    """A recipe's environment with a camera, perhaps made with other arguments."""
    pytest.importorskip("pygame", reason="the renderer of gymnasium[toy-text]")
    recipe, camera = RECIPES[name], {"render_mode": "rgb_array"}
    return make_env(recipe["env_id"], **camera, **arguments or recipe["env_kwargs"])


def packed(folder, env=LAKE, repo_id=None, fps=1, **changes):
    """The text of the card in a new package of the small model."""
    env = filmed(**env) if isinstance(env, dict) else env
    package_model(small(**changes), env, folder, fps, repo_id=repo_id)
    return (folder / "README.md").read_bytes().decode()


def pushed(folder, repo_id="ann/lake", env=LAKE, options=None, **changes):
    """The URL of the small model; the options are those of push_to_hub."""
    options = {"local_repo_path": folder} | (options or {})
    if "fps" in changes:
        options["video_fps"] = changes.pop("fps")
    env = filmed(**env) if isinstance(env, dict) else env
    return push_to_hub(repo_id, small(**changes), env, **options)


def metadata(card):
    return yaml.safe_load(re.split(r"---\r?\n", card)[1])


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def film_of(path):
    """How many frames a film has, and how many seconds."""
    return imageio_ffmpeg.count_frames_and_secs(str(path))


def test_package_is_five_files_that_say_how_the_agent_came_about(tmp_path):
    assert package_model(small(), filmed(**LAKE), str(tmp_path)) == tmp_path
    assert set(os.listdir(tmp_path)) == FILES
    assert film_of(tmp_path / "replay.mp4") == (3, 3.0)
    assert load_model(tmp_path / "q-learning.pkl") == small()
    versions = {"python": platform.python_version(), "gymnasium": gym.__version__}
    params = small(qtable=..., versions=versions)
    assert read_json(tmp_path / "params.json") == params
    assert (tmp_path / "params.json").read_text().startswith('{\n  "env_id"')
    results = read_json(tmp_path / "results.json")
    assert re.fullmatch(r"20(\d\d-){2}\d\dT(\d\d:){2}\d\dZ", results["eval_datetime"])
    assert results | {"eval_datetime": ""} == {
        "env_id": "FrozenLake-v1", "mean_reward": 1.0, "std_reward": 0.0, "result": 1.0,
        "n_eval_episodes": 3, "eval_datetime": "", "versions": versions,
    }  # fmt: skip
    before = results | {"eval_datetime": "long ago"}
    (tmp_path / "results.json").write_text(json.dumps(before))
    packed(tmp_path, seed=7)  # the same results keep their time
    assert read_json(tmp_path / "results.json") == before
    packed(tmp_path, n_eval_episodes=2)
    assert read_json(tmp_path / "results.json")["eval_datetime"] != "long ago"


BOUNCES = [[0.0, 0.0, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]  # and back again
COMMAND = "\n```sh\npython hub_utils.py package frozenlake"
CARDS = [
    ("frozenlake", {}, "-4x4-no_slippery", [f"{COMMAND}\n```"]),
    ("frozenlake", {"seed": 4, "n_eval_episodes": 5}, "-4x4-no_slippery", [f"{COMMAND} --seed 4\n"]),
    ("frozenlake", {"n_training_episodes": 7}, "-4x4-no_slippery", [f"{COMMAND} --episodes 7\n"]),
    ("frozenlake", {"seed": None}, "-4x4-no_slippery", ["\nNo command makes this table again"]),
    ("frozenlake-slippery", {"max_steps": 2}, "-4x4", [f"{COMMAND}-slippery --max-steps 2\n"]),
    ("frozenlake",
     {"env_kwargs": ICE, "qtable": BOUNCES, "gamma": 0.5, "max_steps": 3, "n_eval_episodes": 6}, "", [
        "\n# Q-learning agent for FrozenLake-v1\n",
        "\n4 actions in each of 3 states, improved after every step of its training, and\n",
        "\n| mean +/- standard deviation over 6 episodes | 0.00 +/- 0.00 |"
        + "\n| the exact table (value iteration) in the same 6 episodes | 0.33 +/- 0.47 |"
        + "\n| exact mean of this agent within 3 steps, over all starts | 0.0000 |"
        + "\n| exact mean of the best possible policy, likewise | 0.2593 |\n",  # 7 / 27
        "\n| learning_rate | 0.7 | alpha, the share of the TD error to correct |\n",
        "\n| eval_seed | 0, 1, 2, ... | what each evaluated episode starts from |\n",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "called", "texts"), CARDS)
def test_card_tells_game_scores_numbers_and_the_command(
    tmp_path, name, changes, called, texts
):
    model = RECIPES[name] | {"qtable": GOLDEN, "seed": 0} | changes
    card = packed(tmp_path, filmed(**model["env_kwargs"]), **model)
    assert metadata(card)["tags"][0] == f"FrozenLake-v1{called}"
    assert [text for text in texts if text not in card] == []


def test_card_of_a_taxi_is_found_by_the_course_and_has_its_score(tmp_path):
    env = filmed("taxi")
    card = packed(tmp_path, env, **RECIPES["taxi"], qtable=value_iteration(env, 0.95))
    assert "\n| eval_seed | 100 fixed | " in card
    assert "over 100 episodes | 7.56 +/- 2.71 |\n" in card
    assert round(read_json(tmp_path / "results.json")["result"], 3) == 4.853
    assert card.startswith("---\ntags:\n- Taxi-v3\n")
    course, score = "reinforcement-learning", "7.56 +/- 2.71"
    result = {
        "task": {"type": course, "name": course},
        "dataset": {"type": "Taxi-v3", "name": "Taxi-v3"},
        "metrics": [{"type": "mean_reward", "name": "mean_reward", "value": score}],
    }
    assert metadata(card) == {
        "tags": ["Taxi-v3", "q-learning", course, "custom-implementation"],
        "pipeline_tag": course,
        "model-index": [{"name": "q-Taxi-v3", "results": [result]}],
    }


@games_are_drawn
@pytest.mark.parametrize("own", [False, True])
def test_card_s_python_runs_as_it_stands(tmp_path, monkeypatch, capsys, own):
    # FrozenLakeEnv() is made by no gym.make, so nobody knows by what id it is registered.
    card = packed(tmp_path, FrozenLakeEnv("rgb_array", **LAKE) if own else LAKE)
    assert ("the game registered first:\n" in card) == own
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("snippet.py").write_text(snippet)
    runpy.run_path("snippet.py")
    assert "".join(capsys.readouterr()) == "1.00 +/- 0.00\n"


def test_games_without_rules_or_spec_and_text_that_is_no_markdown(tmp_path):
    evil = "x\n# INJECTED `rm` <b> | [a](b)\n---\ntags: no"
    says = {"env_id": evil, "env_kwargs": {"map_name": evil}, "qtable": LAMPS}
    card = packed(tmp_path, Lamp(1, 2, 3), **says, max_steps=2, eval_seed=[7, 4, 5])
    assert states_in(tmp_path / "replay.mp4") == [7, 1, 2]  # the first that is scored
    assert "over 3 episodes | 2.00 +/- 0.00 |\n\n## Hyper" in card
    assert not re.search("(?m)^# INJECTED|^tags: no", card)
    assert "<b>" not in re.sub(r"(?s)```.*?```|^---.*?\n---", "", card)
    assert metadata(card)["tags"][1:3] == ["q-learning", "reinforcement-learning"]
    assert read_json(tmp_path / "params.json")["env_id"] == evil


@pytest.mark.parametrize("says", [{}, {"map_name": "4x4"}, {"slippery": False}])
def test_a_model_of_the_course_is_packaged_with_what_its_game_says(tmp_path, says):
    ours = ("env_kwargs", "seed", "min_learning_rate", "initial_value")
    model = small(**dict.fromkeys(ours, ...), qtable=GOLDEN, **says)
    before = json.dumps(model)
    package_model(model, filmed(), tmp_path)
    assert json.dumps(model) == before
    model |= {"map_name": "4x4", "slippery": False}
    model["env_kwargs"] = {"map_name": "4x4", "is_slippery": False}
    assert load_model(tmp_path / "q-learning.pkl") == model


@games_are_drawn
@pytest.mark.parametrize(
    ("env_id", "arguments", "says"),
    [
        ("FrozenLake-v1", {"is_slippery": True}, {"env_kwargs": ...}),
        ("FrozenLake-v1", {"map_name": None}, {"env_kwargs": ...}),  # at random
        ("FrozenLake8x8-v1", {}, {"env_kwargs": {}}),
        ("FrozenLake-v1", {"map_name": "8x8"}, {"env_kwargs": {"desc": MAPS["8x8"]}}),
    ],
)
def test_a_package_says_what_its_game_is_made_of(tmp_path, env_id, arguments, says):
    env = make_env(env_id, render_mode="rgb_array", **arguments)
    table = initialize_q_table(env.observation_space.n, 4)
    packed(tmp_path, env, env_id=env_id, qtable=table, max_steps=2, **says)
    model = load_model(tmp_path / "q-learning.pkl")
    assert make_env_from_model(model).unwrapped.P == env.unwrapped.P
    assert "slippery" not in model


@games_are_drawn
def test_a_game_that_is_no_longer_registered_is_packaged(tmp_path):
    gym.register("Pond-v0", FrozenLakeEnv)
    env = gym.make("Pond-v0", render_mode="rgb_array", **LAKE)
    del gym.registry["Pond-v0"]
    card = packed(tmp_path, env, env_id="Pond-v0")
    assert "the game registered first:" in card


OTHER = "the model is of FrozenLake-v1.*, and the environment is FrozenLake-v1 "
NO_NAME = "NAME/REPO|the Hub allows no name like"


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("the model is of Taxi-v3, and the", {"env_id": "Taxi-v3", "env_kwargs": {}}),
        (OTHER, {"env_kwargs": LAKE | {"desc": ["SHG"]}}),
        (OTHER, {"env_kwargs": ICE}),
        (OTHER, {"env_kwargs": {"desc": ["SFG"]}}),  # Gymnasium's is slippery
        (OTHER, {"env_kwargs": ..., "slippery": True}),
        (OTHER, {"env_kwargs": ..., "map_name": "4x4"}),
        (OTHER, {"env": LAKE | {"max_episode_steps": 9}}),
        ("the Q-table is 1 x 4", {"qtable": [[0.0] * 4]}),
        ("max_steps must be", {"max_steps": 0}),
        ("the model lacks gamma", {"gamma": ...}),
        ("the model lacks eval_seed", {"eval_seed": ...}),
        ("3 episodes, but only 1 seeds", {"eval_seed": [1]}),
        ('render_mode="rgb_array"', {"env": make_env("FrozenLake-v1", **LAKE)}),
        ("fps must be", {"fps": 0}),
        (NO_NAME, {"repo_id": "a/b/c"}),
        (NO_NAME, {"repo_id": "ann/my lake"}),
        (NO_NAME, {"repo_id": None}),
        ("a commit message is a text", {"options": {"commit_message": " "}}),
        ("a commit message is a text", {"options": {"commit_message": 7}}),
        ("the token is damaged", {"options": {"token": "hf_wr\nite"}}),
        ("the token is damaged", {"options": {"token": "hf_wr\u00efte"}}),
    ],
)
def test_what_may_not_be_packaged_or_pushed(hub, tmp_path, text, how):
    for call in (packed, pushed):
        if call is pushed or "options" not in how and how.get("repo_id", "ann/lake"):
            with pytest.raises(ValueError, match=text) as caught:
                call(tmp_path / "hub", **how)
            assert "\n" not in str(caught.value)
    assert hub.requests == [] and os.listdir(tmp_path) == []


OWN = "\r\n## Mine\r\n\r\nwords   of é and 中, `code`, ---" + MARK + "\nmore\n"
OTHERS = "license: mit  # yes\nlanguage:\n- en\ndatasets: [a/b]\ntags:\n- mine\n"


@pytest.mark.parametrize(("call", "newline"), [(packed, "\n"), (pushed, "\r\n")])
def test_what_the_owner_wrote_stays_with_the_agent(hub, tmp_path, call, newline):
    first = packed(tmp_path, repo_id="ann/lake")
    written = first.replace("tags:\n", OTHERS, 1).rstrip("\n") + OWN
    written = written.replace("\r\n", "\n").replace("\n", newline).encode()
    (tmp_path / "README.md").write_bytes(written)
    hub.commit("ann/lake", {"README.md": written})
    for seed, folder in ((1, tmp_path), (2, tmp_path / "another"), (2, tmp_path)):
        place = tmp_path if call is packed else folder
        call(place, repo_id="ann/lake", seed=seed)
        card = (place / "README.md").read_bytes().decode()
        assert card.partition(MARK)[2] == written.decode().partition(MARK)[2]
        assert f"| seed | {seed} |" in card and "license: mit  # yes" in card
        data = metadata(card)
        assert (data["language"], data["datasets"]) == (["en"], ["a/b"])
        assert data["tags"] == metadata(first)["tags"] + ["mine"]
    if call is pushed:
        assert len(hub.repos["ann/lake"]) == 4  # the third push changed nothing
        assert hub.find("ann/lake")[1]["README.md"].decode() == card
        call(tmp_path, env=ICE, env_kwargs=ICE)  # another game: its tag, and his
        tags = metadata(hub.find("ann/lake")[1]["README.md"].decode())["tags"]
        assert tags == ["FrozenLake-v1", *metadata(first)["tags"][1:], "mine"]
        call(tmp_path, repo_id="ann/pond")
        pond = hub.find("ann/pond")[1]["README.md"].decode()
        assert pond.endswith(MARK + "\n\n") and "mit" not in pond
        assert metadata(pond)["model-index"][0]["name"] == "pond"


@pytest.mark.parametrize("by", ["another agent", "another game", "hand"])
def test_words_do_not_follow_another_agent_and_are_not_lost(tmp_path, capsys, by):
    repo_id = "ann/pond" if by == "another agent" else "ann/lake"
    lake = ICE if by == "another game" else LAKE
    written = packed(tmp_path, lake, repo_id, env_kwargs=lake) + "mine\n"
    if by == "hand":
        written = "---\ntags: q-learning\n---\nmine\n"
    (tmp_path / "README.md").write_text(written, encoding="utf-8")
    assert packed(tmp_path, repo_id="ann/lake").endswith(MARK + "\n\n")
    (kept,) = set(os.listdir(tmp_path)) - FILES
    assert (tmp_path / kept).read_text("utf-8") == written
    assert kept in capsys.readouterr().err


@pytest.mark.parametrize("data", ["", "---\n{license: mit, tags: mine}\n---\n"])
def test_a_card_by_hand_on_the_website_goes_below_the_mark_once(hub, tmp_path, data):
    hub.commit("ann/lake", {"README.md": f"{data}# My lake\n\nNo mark.\n".encode()})
    for seed in (1, 2):
        pushed(tmp_path, seed=seed)
    card = hub.find("ann/lake")[1]["README.md"].decode()
    above, words = card.split(MARK)
    assert words.strip() == "# My lake\n\nNo mark." and "No mark" not in above
    assert metadata(card).get("license") == ("mit" if data else None)
    assert metadata(card)["tags"][4:] == ["mine"] * bool(data)


NO_CARD = "README.md is no agent's card: take another folder"
NO_YAML = "the metadata on top of .*README.md.* is broken"
NO_UTF8 = "README.md.* is not written in UTF-8: save it in UTF-8 first"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"# My project\n\nNothing to do with agents.\n", NO_CARD),
        (b"---\nlicense: mit\n---\n# My project\n", NO_CARD),
        (b"---\ntags: [q-learning\n---\n# Agent\n", NO_YAML),
        (b"---\n- q-learning\n---\n# Agent\n", NO_YAML),
        ("---\ntags: [q-learning]\n---\ncafé".encode("latin-1"), NO_UTF8),
        ("---\ntags: [q-learning]\n---\ncafé".encode("utf-16"), NO_UTF8),
    ],
)
def test_cards_that_are_not_replaced(hub, tmp_path, content, text):
    (tmp_path / "README.md").write_bytes(content)
    for call in (packed, pushed):
        with pytest.raises(ValueError, match=text):
            call(tmp_path)
    assert hub.requests == []
    if text != NO_CARD:  # on the website every card is one
        hub.commit("ann/lake", {"README.md": content})
        with pytest.raises(ValueError, match="README.md of ann/lake"):
            pushed(tmp_path / "hub")
        assert len(hub.repos["ann/lake"]) == 2
    assert os.listdir(tmp_path) == ["README.md"]
    assert (tmp_path / "README.md").read_bytes() == content


def seeds_in(folder):
    """The training seeds that the model, its parameters and its card tell: one, if whole."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    told = int(re.search(r"\| seed \| (\d+) \|", card)[1])
    model = load_model(folder / "q-learning.pkl")
    return {told, model["seed"], read_json(folder / "params.json")["seed"]}


@pytest.mark.parametrize(("at", "seed"), [(".package.ready", 1), ("params.json", 2)])
def test_an_interrupted_packager_leaves_one_whole_package(
    tmp_path, monkeypatch, at, seed
):
    packed(tmp_path, seed=1)
    replace = os.replace

    def interrupted(source, target):
        if target == tmp_path / at:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        packed(tmp_path, seed=2)
    (tmp_path / ".package.unfinished").mkdir(exist_ok=True)  # what a power cut leaves
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", sys.executable)
    with pytest.raises(RuntimeError, match="ffmpeg did not finish"):
        packed(tmp_path, seed=3)  # whoever comes next puts it in order first
    assert set(os.listdir(tmp_path)) == FILES
    assert seeds_in(tmp_path) == {seed}


def test_a_second_packager_waits_for_the_first(tmp_path):
    env, second = filmed(**LAKE), threading.Thread(target=packed, args=[tmp_path])
    render = env.unwrapped.render

    def slow():
        if (tmp_path / ".package.unfinished").exists() and not second.ident:
            second.start()
            second.join(0.2)  # it does not end before the first has
            assert second.is_alive() and FILES.isdisjoint(os.listdir(tmp_path))
        return render()

    env.unwrapped.render = slow
    packed(tmp_path, env, seed=5)
    second.join(30)
    assert set(os.listdir(tmp_path)) == FILES and seeds_in(tmp_path) == {0}


# ------------------ The Hub on loopback, as strict as the real one --------------------
# A real HTTP server, to which the real huggingface_hub speaks. It has two addresses: the
# Hub itself, and the store, where large files (Git LFS) go by signed links, without a
# token. Every repo is a list of commits, and a commit is a dictionary: path -> content.
# The client's own upload of large files warns of itself, which `-W error` would not have.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKENS = {"hf_write": "write", "hf_read": "read"}  # Ann's, who is also in the club
LARGE = (".pkl", ".mp4")  # how the names of large files end


def oid(content, large=True):
    """The name of a file: that of Git LFS if it is large, otherwise that of git."""
    header = b"" if large else b"blob %d\0" % len(content)
    return hashlib.new("sha256" if large else "sha1", header + content).hexdigest()


class Refused(Exception):
    """What the Hub answers if it says no: status, content and headers."""

    def __init__(self, status, message="", code="", **headers):
        headers |= {"X-Error-Message": message, "X-Error-Code": code}
        super().__init__(status, {"error": message}, headers)


class Hub:
    """The repos, and the answers to all requests about them."""

    def __init__(self):
        self.repos, self.store = {}, {}  # in the store: oid -> content
        self.private, self.gated = set(), set()  # repo ids
        self.failures = {}  # a pattern of requests -> what happens there instead
        self.requests, self.messages, self.pauses = [], [], []
        self.stopped = threading.Event()
        here = ("127.0.0.1", 0)
        self.servers = [ThreadingHTTPServer(here, HubHandler) for _ in range(2)]
        ports = [server.server_port for server in self.servers]
        self.url, self.store_url = (f"http://127.0.0.1:{port}" for port in ports)
        for server in self.servers:
            server.hub = self
            run = functools.partial(server.serve_forever, poll_interval=0.01)
            threading.Thread(target=run, daemon=True).start()

    def stop(self):
        self.stopped.set()
        while self.servers:
            server = self.servers.pop()
            server.shutdown()
            server.server_close()

    def commit(self, repo, files):
        """Add a commit, to a new repo if need be; its id comes back."""
        commits = self.repos.setdefault(repo, [{".gitattributes": b""}])
        commits.append(commits[-1] | files)
        return self.find(repo)[0]

    def find(self, repo, revision="main"):
        """The id of a commit and its files."""
        commits = self.repos[repo]
        ids = [oid(f"{repo} {i}".encode(), large=False) for i in range(len(commits))]
        if revision not in ("main", *ids):
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        number = len(ids) - 1 if revision == "main" else ids.index(revision)
        return ids[number], commits[number]

    def stored(self, file):
        """The large file that was announced, if it is all there."""
        content = self.store.get(file["oid"], b"")
        if len(content) != file["size"]:
            raise Refused(400, "LFS pointer pointed to a file that does not exist")
        return content

    def check_token(self, token, writes_to=""):
        if not token:
            raise Refused(401, "Invalid username or password.")
        may_write = TOKENS[token] == "write" and writes_to.startswith(("ann/", "club/"))
        if writes_to and not may_write:
            raise Refused(403, "You don't have the rights to do that")

    def answer(self, method, parts, body, token):
        """(status, content, headers); a content that is not bytes travels as JSON."""
        if token and token not in TOKENS:
            raise Refused(401, "Invalid credentials in Authorization header")
        if parts[0] != "store":  # one line of JSON; the lines of a commit are many
            asked, *files = [json.loads(line) for line in body.splitlines()] or [{}]
        match method, *parts:
            case (("GET" | "PUT"), "store", name):
                if token or (oid(body) != name if body else name not in self.store):
                    raise Refused(400, "a link is for one file, and needs no token")
                return 200, self.store.setdefault(name, body), {}
            case "GET", "api", "whoami-v2":
                self.check_token(token)
                auth = {"accessToken": {"role": TOKENS[token]}}
                user = {"type": "user", "name": "ann", "orgs": [{"name": "club"}]}
                return 200, user | {"auth": auth}, {}
            case "POST", "api", "validate-yaml":
                if not isinstance(metadata(asked["content"]), dict):
                    raise Refused(400, "the metadata are no dictionary")
                return 200, {"errors": [], "warnings": []}, {}
            case "POST", "api", "repos", "create":
                repo = f"{asked.get('organization') or 'ann'}/{asked['name']}"
                self.check_token(token, writes_to=repo)
                if repo in self.repos:
                    raise Refused(409, "You already created this repo")
                self.repos[repo] = [{".gitattributes": b""}]
                # Newer clients say visibility, older ones private.
                if asked.get("private") or asked.get("visibility") == "private":
                    self.private.add(repo)
                return 200, {"url": f"{self.url}/{repo}"}, {}
            case _, "api", "models", owner, name, *action:
                pass
            case _, owner, name, ("info" | "resolve"), *_:
                name, action = name.removesuffix(".git"), parts[2:]
            case _:
                raise Refused(404)
        repo = f"{owner}/{name}"
        if repo not in self.repos or (repo in self.private and not token):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        if repo in self.gated and action[:1] in (["resolve"], ["revision"]):
            raise Refused(403, "Access to this model is restricted", "GatedRepo")
        if method not in ("GET", "HEAD"):
            self.check_token(token, writes_to=repo)
        return self.answer_about(repo, method, action, asked, files)

    def answer_about(self, repo, method, action, asked, new):
        """The answer about a repo that is there, to somebody who may ask it."""
        commit_id, files = self.find(repo)
        match method, *action:
            case "GET", "revision", revision:
                commit_id, files = self.find(repo, revision)
                about = {"id": repo, "sha": commit_id, "private": repo in self.private}
                return 200, about | {"siblings": [{"rfilename": f} for f in files]}, {}
            case "POST", "preupload", "main":
                for file in asked["files"]:
                    large = (path := file["path"]).endswith(LARGE)
                    file["uploadMode"] = "lfs" if large else "regular"
                    file["oid"] = oid(files[path], large) if path in files else None
                    file["shouldIgnore"] = False
                return 200, asked, {}
            case "POST", "info", "lfs", "objects", "batch":
                verify = f"{self.url}/{repo}.git/info/lfs/objects/verify"
                for file in asked["objects"]:
                    if file["oid"] not in self.store:
                        upload = {"href": f"{self.store_url}/store/{file['oid']}"}
                        file["actions"] = {"upload": upload, "verify": {"href": verify}}
                transfer = "xet" if "xet" in asked["transfers"] else "basic"
                return 200, {"transfer": transfer, "objects": asked["objects"]}, {}
            case "POST", "info", "lfs", "objects", "verify":
                self.stored(asked)
                return 200, {}, {}
            case "POST", "commit", "main":  # small files come with it, large ones did
                if asked["value"].get("parentCommit") not in (None, commit_id):
                    raise Refused(412, "A commit has happened since. Please refresh.")
                files = {}
                for kind, file in [(line["key"], line["value"]) for line in new]:
                    large = file["path"].endswith(LARGE)
                    if kind != ("lfsFile" if large else "file"):
                        raise Refused(400, f"{file['path']} was sent as {kind}")
                    content = None if large else base64.b64decode(file["content"])
                    files[file["path"]] = self.stored(file) if large else content
                self.messages.append(asked["value"]["summary"])
                page = f"{self.url}/{repo}/commit/{(new := self.commit(repo, files))}"
                return 200, {"commitOid": new, "commitUrl": page}, {}
            case (("GET" | "HEAD"), "resolve", revision, *parts):
                commit_id, files = self.find(repo, revision)
                path, headers = "/".join(parts), {"X-Repo-Commit": commit_id}
                if path not in files:
                    raise Refused(404, "Entry not found", "EntryNotFound", **headers)
                content, name = files[path], oid(files[path])
                headers["ETag"] = f'"{oid(content, large=False)}"'
                if name not in self.store:
                    return 200, content, headers
                headers |= {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": len(content)}
                headers["Location"] = f"{self.store_url}/store/{name}"
                return 302, b"", headers
            case _:
                raise Refused(404)


class HubHandler(BaseHTTPRequestHandler):
    """Reads a request and answers it in one packet; the connection stays open."""

    protocol_version, wbufsize = "HTTP/1.1", 10**6  # what is written is gathered first

    def log_message(self, *_):
        """Stderr belongs to the program under test."""

    def handle_request(self):
        hub, path = self.server.hub, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.requests.append(request := f"{self.command} {path}")
        try:
            match [how for key, how in hub.failures.items() if re.match(key, request)]:
                case ["cut" | "silence" as how]:
                    hub.stopped.wait(30 if how == "silence" else 0)
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
                case [int(status)]:
                    raise Refused(status, "as the test wants it")
                case [bytes() | dict() | list() as content]:  # a hotel's Wi-Fi, say
                    answer = 200, content, {}
                case before:  # what happens on the website just before
                    for happen in before:
                        happen()
                    answer = hub.answer(self.command, path[1:].split("/"), body, token)
        except Refused as refused:
            answer = refused.args
        status, content, headers = answer
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for header in ({"Content-Length": len(content)} | headers).items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A Hub of the test's own, and a client that sees nothing of this machine's settings."""
    hub, home = Hub(), tmp_path_factory.mktemp("home")
    (home / "token").write_text("hf_write")
    for name in list(os.environ):
        if re.match("HF_|HUGGING|TRANSFORMERS_|.*_PROXY$", name, re.IGNORECASE):
            monkeypatch.delenv(name)
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "NO_PROXY": "*"}
    for name, value in (settings | {"HF_HUB_DISABLE_XET": "1"}).items():
        monkeypatch.setenv(name, value)
    importlib.reload(constants)  # where the client reads its environment
    for module in ("file_download", "utils.tqdm"):  # which keep copies of some
        module = importlib.import_module(f"huggingface_hub.{module}")
        for name in filter(str.isupper, vars(constants).keys() & vars(module).keys()):
            monkeypatch.setattr(module, name, getattr(constants, name))
    utils = huggingface_hub.utils
    close = getattr(utils, "close_session", None) or utils.reset_sessions
    close()  # a connection keeps the settings that it was made with
    monkeypatch.setattr(time, "sleep", hub.pauses.append)  # between the client's tries
    hub.home = home
    yield hub
    close()
    hub.stop()
    monkeypatch.undo()
    importlib.reload(constants)


# ------------------ Push and load: the Hub --------------------------------------------
def test_a_push_is_one_commit_of_the_five_files(hub, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    (tmp_path / "notes.txt").write_text("mine")
    assert pushed(tmp_path) == f"{hub.url}/ann/lake"
    assert "".join(capfd.readouterr()) == ""  # a notebook shows what comes back
    assert film_of(tmp_path / "replay.mp4") == (3, 3.0)
    _, commit = hub.repos["ann/lake"]
    here = {name: (tmp_path / name).read_bytes() for name in FILES}
    assert commit == here | {".gitattributes": b""}
    large = [name for name in FILES if name.endswith(LARGE)]
    assert hub.store.keys() == {oid(commit[name]) for name in large}
    assert b'model = load_from_hub("ann/lake")\n' in commit["README.md"]
    assert "xet" not in " ".join(hub.requests)  # and it is as it was
    assert constants.HF_HUB_DISABLE_XET is False
    assert hub.messages == ["Upload a Q-learning agent"]
    assert set(os.listdir(hub.home)) <= {"token", ".agent_harnesses.json"}


def test_looking_at_a_repo_fetches_no_model_and_leaves_progress_bars_as_they_are(
    hub, tmp_path
):
    put_model(hub)
    bars = huggingface_hub.utils
    for switch, hidden in (
        (bars.disable_progress_bars, True),
        (bars.enable_progress_bars, False),
    ):
        switch()
        with pytest.raises(FileNotFoundError):
            load_from_hub("ann/none")
        assert bars.are_progress_bars_disabled() == hidden
    pushed(tmp_path)
    fetched = [line for line in hub.requests if "/ann/lake/resolve/" in line]
    assert {line.rpartition("/")[2] for line in fetched} == {"README.md"}


def test_what_is_written_on_the_website_meanwhile_is_not_overwritten(hub, tmp_path):
    pushed(tmp_path)
    edit = functools.partial(hub.commit, "ann/lake", {"README.md": b"# Edited\n"})
    hub.failures["POST .*/preupload/"] = edit
    with pytest.raises(ConnectionError, match="has just been changed: .*push again"):
        pushed(tmp_path, seed=5)
    assert hub.find("ann/lake")[1]["README.md"] == b"# Edited\n"


def test_message_privacy_and_organization(hub, tmp_path):
    options = {"commit_message": "better", "private": True}
    assert pushed(tmp_path, "club/lake", options=options) == f"{hub.url}/club/lake"
    assert hub.private == {"club/lake"} and hub.messages == ["better"]
    pushed(tmp_path, "club/lake", seed=5)  # as it is
    pushed(tmp_path, options={"token": "hf_write", "private": False})
    for repo_id, private in (("ann/lake", True), ("club/lake", False)):
        with pytest.raises(ValueError, match=f"{repo_id} is .*: make it .* first"):
            pushed(tmp_path, repo_id, options={"private": private})
    assert hub.private == {"club/lake"}


NO_TOKEN = "there is no token to push with: run `hf auth login`"
UNKNOWN = "the Hub does not know this token: run `hf auth login` again"


@pytest.mark.parametrize(
    ("token", "stored", "repo_id", "text"),
    [
        (None, "", "ann/lake", NO_TOKEN),
        (None, "hf_old", "ann/lake", UNKNOWN),
        ("hf_wrong", "hf_write", "ann/lake", UNKNOWN),
        ("hf_read", "", "ann/lake", "your token can only read: make one with the write"),
        (None, "hf_write", "bob/lake", "bob/lake is not yours: you can push to ann, club"),
    ],
)  # fmt: skip
def test_tokens_that_do_not_do(hub, tmp_path, capfd, token, stored, repo_id, text):
    (hub.home / "token").write_text(stored)
    with pytest.raises(PermissionError) as caught:
        pushed(tmp_path / "hub", repo_id, options={"token": token})
    assert str(caught.value).startswith(text)
    assert hub.repos == {} and os.listdir(tmp_path) == []
    assert "hf_" not in str(caught.value) + "".join(capfd.readouterr())


def test_in_a_notebook_one_logs_in_otherwise(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils.is_notebook", lambda: True)
    notebook = runpy.run_path(HERE / "hub_utils.py")
    (hub.home / "token").unlink()
    with pytest.raises(PermissionError, match=r"push with: run notebook_login\(\)"):
        notebook["push_to_hub"]("ann/lake", small(), filmed(**LAKE), 1, tmp_path)


def put_model(hub, repo="ann/lake", **changes):
    """Let a repo have the small model, as a large file, and a card by hand."""
    content = pickle.dumps(small(**changes))
    hub.store[oid(content)] = content
    hub.commit(repo, {"q-learning.pkl": content, "README.md": b"# A lake\n"})


NO_ANSWER = r"no connection to the Hub, or no answer of it \((?!None)\w+\)"
SAYS = {  # what happens at a step, and what we say if it is no connection
    401: (PermissionError, UNKNOWN),
    403: (PermissionError, "your token may not {0} ann/lake: it lacks the {0} role"),
    404: (FileNotFoundError, "ann/lake has no (branch main|file q-learning.pkl)"),
    409: (ConnectionError, "ann/lake is there already, and your token cannot see it"),
    413: (ConnectionError, "the Hub answers 413: (?!try again)"),
    429: (ConnectionError, "the Hub has had too many requests: try again later"),
    500: (ConnectionError, "the Hub answers 500: try again later"),
    503: (ConnectionError, "the Hub answers 503: try again later"),
}
HTML = b"<html>Welcome to our Wi-Fi</html>"
STEPS = {  # each request in turn, and what can happen there
    "look GET .*/revision": (403, 404, "cut", []),
    "look GET .*/whoami": (401, 500, HTML, {}),
    "look HEAD .*/README.md": (403, 404, "cut"),
    "push POST .*/create": (401, 403, 409, HTML, []),
    "push POST .*/validate-yaml": (500, "cut", []),
    "push POST .*/preupload": (403, HTML, {}),
    "push POST .*/batch": (500, HTML, []),
    "push PUT /store": (403, 503, "cut"),
    "push POST .*/verify": (413, "cut"),
    "push POST .*/commit": (403, 404, 413, 429, "cut", {}),
    "load HEAD .*/resolve": (401, 403, 404, HTML),
    "load GET /store": (403, 500, "cut", HTML),
}


@pytest.mark.parametrize(
    ("step", "how"), [(step, how) for step, hows in STEPS.items() for how in hows]
)
def test_what_fails_on_the_way_is_said(hub, tmp_path, step, how):
    what, request = step.split(" ", 1)
    if what != "push":
        put_model(hub)
    hub.failures[request] = how
    with pytest.raises(OSError) as caught:
        load_from_hub("ann/lake") if what == "load" else pushed(tmp_path / "hub")
    kind, text = SAYS[how] if type(how) is int else (ConnectionError, NO_ANSWER)
    said = str(caught.value)
    text = text.format("write" if what == "push" else "read")
    assert type(caught.value) is kind and re.match(text, said), said
    assert "\n" not in said and sum(hub.pauses) <= 2 * 23  # seconds, side by side
    if what == "push":
        assert said.endswith(f"; the package is ready in {tmp_path / 'hub'}")
        assert set(os.listdir(tmp_path / "hub")) == FILES
        hub.failures.clear()
        assert pushed(tmp_path / "hub") and len(hub.repos["ann/lake"]) == 2
    else:
        assert len(hub.repos["ann/lake"]) == 2 and os.listdir(tmp_path) == []


def test_a_repo_that_has_moved_or_is_gated_is_not_taken_for_a_new_one(hub, tmp_path):
    put_model(hub)
    hub.failures["GET .*/revision"] = {"id": "ann/sea", "siblings": []}
    with pytest.raises(ValueError, match="ann/lake is called ann/sea now: push to"):
        pushed(tmp_path / "hub")
    hub.failures.clear()
    hub.gated.add("ann/lake")
    for call in (lambda: pushed(tmp_path / "hub"), lambda: load_from_hub("ann/lake")):
        with pytest.raises(PermissionError, match="ann/lake is gated: ask for access"):
            call()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", [pushed, load_from_hub])
def test_nobody_answers(hub, tmp_path, monkeypatch, call):
    monkeypatch.setattr(hub_utils, "PATIENCE", 0.1)
    where = tmp_path / "hub" if call is pushed else "ann/lake"
    hub.failures["GET|HEAD"] = "silence"
    for _ in ("silence", "nobody there"):
        with pytest.raises(ConnectionError, match=NO_ANSWER):
            call(where)
        hub.stop()
    assert os.listdir(tmp_path) == []


NO_AGENT = ": q-learning.pkl is not a Q-learning model:"


def test_what_is_too_large_is_not_even_fetched(hub):
    hub.commit("ann/lake", {"q-learning.pkl": bytes(10_000_001)})
    with pytest.raises(ValueError, match=f"ann/lake{NO_AGENT} more bytes than any"):
        load_from_hub("ann/lake")
    assert {request.split()[0] for request in hub.requests} == {"HEAD"}


def test_a_token_is_only_needed_for_private_models_and_a_connection_only_once(hub):
    put_model(hub)
    hub.private.add("ann/lake")
    assert load_from_hub("ann/lake") == small()
    (hub.home / "token").unlink()
    with pytest.raises(FileNotFoundError, match="no model ann/lake on the Hub for"):
        load_from_hub("ann/lake")
    assert load_from_hub("ann/lake", token="hf_read") == small()
    hub.private.clear()
    put_model(hub, seed=5)
    for happens in ({}, {"HEAD": "cut"}):
        hub.failures = happens
        assert load_from_hub("ann/lake") == small(seed=5)  # the latest


def test_what_the_disk_does_is_no_answer_of_the_hub(hub, tmp_path):
    put_model(hub)
    for folder in (hub.home / "hub", tmp_path / "hub"):
        folder.write_text("a file where a folder should be")
    for call in (lambda: load_from_hub("ann/lake"), lambda: pushed(tmp_path / "hub")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno and not isinstance(caught.value, ConnectionError)


# ------------------ The command line of hub_utils -------------------------------------
@pytest.fixture
def says(capfd):
    """A command line run in this process -> exit code, stdout, stderr."""

    def run(*arguments):
        qlearning.say_once.cache_clear()  # as in a new process
        capfd.readouterr()
        code = hub_utils.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def quick(monkeypatch):
    """The small lake as a recipe, which is learned in no time."""
    recipe = RECIPES["frozenlake"] | {"n_training_episodes": 50, "n_eval_episodes": 3}
    monkeypatch.setitem(RECIPES, "frozenlake", recipe | {"env_kwargs": LAKE})
    return RECIPES["frozenlake"]


SCORE = "Mean_reward=1.00 +/- 0.00\n"


@games_are_drawn
def test_package_push_and_load_tell_the_score_and_the_place(hub, quick, tmp_path, says):
    place = tmp_path / "a"
    learn = ("frozenlake", "--seed", 7, "--folder", place, "--fps", 0.5)
    assert says("package", *learn) == (0, f"{SCORE}The package is in {place}\n", "")
    table = qlearning.learn(filmed(**LAKE), quick | {"seed": 7})
    assert load_model(place / "q-learning.pkl") == quick | {"seed": 7, "qtable": table}
    assert film_of(place / "replay.mp4") == (3, 6.0)
    said = f"{SCORE}Your model is on the Hub: {hub.url}/ann/lake\n"
    push = ("push", *learn, "--repo-id", "ann/lake", "--private")
    assert says(*push) == (0, said, "") and hub.private == {"ann/lake"}
    sources = ("ann/lake", place, place / "q-learning.pkl")
    first, *others = [says("load", source) for source in sources]
    assert first[0] == 0 and SCORE in first[1] and first[2] == ""
    assert others == [first, first]


@games_are_drawn
def test_record_films_the_episode_that_it_is_asked_for(quick, tmp_path, says):
    quick["env_kwargs"] = {"desc": ["SFFG"], "is_slippery": True}
    path = tmp_path / "new" / "film.mp4"
    for episode, frames in ((1, 10), (2, 24), (3, 14)):
        record = ("record", "frozenlake", path, "--show-episode", episode)
        assert says(*record) == (0, f"{SCORE}The video is in {path}\n", "")
        assert film_of(path) == (frames, frames)
    assert says("record", "frozenlake", path, "--max-steps", 1)[0] == 0
    assert film_of(path) == (2, 2.0)


@pytest.mark.parametrize(
    ("command_", "texts"),
    [
        ("", ["Film, package, push and load Q-learning agents.",
              "record train a recipe and film an episode",
              "package train a recipe and build all that a push would upload",
              "push train a recipe and upload it to the Hugging Face Hub",
              "load load a model from a repo, a folder or a file, evaluate and show it"]),
        ("record", ["train a recipe and film an episode positional",
                    "file the video to write, .mp4 or .gif", "--fps FPS frames a second (1)"]),
        ("package", ["--folder FOLDER where to build it (hub)"]),
        ("push", ["--repo-id NAME/REPO --private for you alone"]),
        ("load", ["a file, evaluate and show it", "NAME/REPO or a folder, or a file"]),
    ],
)  # fmt: skip
def test_help_says_what_each_command_and_option_is_for(says, command_, texts):
    code, out, err = says(*command_.split(), "--help")
    told = " ".join(out.split())
    assert (code, err, [text for text in texts if text not in told]) == (0, "", [])


@games_are_drawn
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("", 2, "record|package|push|load"),
        ("package frozenlake --gamma 7", 2, "--gamma must be"),
        ("package frozenlake --show-episode 2", 1, "--show-episode is of record"),
        ("push taxi", 2, "--repo-id"),
        ("push frozenlake --repo-id bob/lake", 1, "bob/lake is not yours"),
        ("push frozenlake --repo-id ann/open --private", 1, "ann/open is public: make"),
        ("push frozenlake --repo-id ann/lake --folder FILE/x", 1, "FILE"),
        ("package frozenlake --folder OTHER", 1, NO_CARD),
        ("package frozenlake --folder FILM", 1, "replay.mp4 is a folder, no file"),
        ("package frozenlake --fps nan", 1, "fps must be from 0.01 to 100, not nan"),
        ("record frozenlake FILE/film.gif", 1, "FILE"),
        ("record frozenlake film.avi", 1, "a video is a file that ends in .mp4 or"),
        ("load nothing", 1, "'nothing' is no file, no folder and no NAME/REPO"),
        ("load OTHER", 1, "q-learning.pkl"),
        ("load FILE", 1, "FILE is not a Q-learning model: a damaged pickle"),
        ("load ann/none", 1, "there is no model ann/none on the Hub for your token"),
        ("load ann/..", 1, "the Hub allows no name like 'ann/..'"),
        ("load ann/open", 1, "ann/open has no file q-learning.pkl"),
        ("load ann/thief", 1, f"ann/thief{NO_AGENT} it would import os.system"),
        ("load ann/module", 1, "this Gymnasium has no game 'antigravity:Fly-v0'"),
        ("load ann/sea", 1, "no map of Gymnasium's has 3 states"),
        ("load ann/wide", 1, "the Q-table is 16 x 5"),  # and no notes before that
    ],
)
def test_errors_are_one_line_before_anything_is_trained(
    hub, tmp_path, monkeypatch, says, arguments, code, text
):
    monkeypatch.setattr(qlearning, "train", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("no model")
    Path("FILM", "replay.mp4").mkdir(parents=True)
    Path("OTHER").mkdir()
    Path("OTHER", "README.md").write_text("# My project\n")
    hub.commit("ann/open", {})
    hub.commit("ann/thief", {"q-learning.pkl": b"cos\nsystem\n(S'echo > stolen'\ntR."})
    put_model(hub, "ann/module", env_id="antigravity:Fly-v0")
    put_model(hub, "ann/sea", env_kwargs={})
    wide = {"env_kwargs": {}, "max_steps": ..., "qtable": initialize_q_table(16, 5)}
    put_model(hub, "ann/wide", **wide)
    ended, out, err = says(*arguments.split())
    assert (ended, out, err.count("\n")) == (code, "", 1), err
    assert re.search(text, err) and err.startswith("hub_utils.py")
    assert sorted(os.listdir()) == ["FILE", "FILM", "OTHER"]


NO_ICE, MAP = {"is_slippery": False}, {"map_name": "4x4"}
GUESSED = "note: not said in the model, but guessed: {}"
TAKEN = "note: {} is not in the model: taken for {}"
TOO_MANY = "note: 1000000000 episodes are too many: scored in the first 2020"
FEW_SEEDS = "note: 3 episodes, but only 2 seeds: scored in the first 2"
TOO_LONG = "note: 1000000 steps take too long: an episode ends after 10000"
LEFT_OUT = "note: the proof is left out, as it would take too long"
OCEAN = {"desc": ["S" + "F" * 39] + ["F" * 40] * 38 + ["F" * 39 + "G"]}
OCEAN = {"env_kwargs": OCEAN, "qtable": initialize_q_table(1600, 4), "gamma": 0.999999}
ENDLESS = OCEAN["env_kwargs"] | {"max_episode_steps": -1}  # no limit, says Gymnasium


@pytest.mark.parametrize(
    ("changes", "scores", "notes"),
    [
        ({"n_eval_episodes": 10**9}, "1.00", [TOO_MANY]),
        ({"eval_seed": [1, 2]}, "1.00", [FEW_SEEDS]),
        ({"max_steps": ..., "gamma": ...}, "1.00", [TAKEN.format("gamma", 0.95), TAKEN.format("max_steps", 99)]),
        ({"env_kwargs": NO_ICE}, "1.00", [GUESSED.format(MAP)]),
        ({"env_kwargs": NO_ICE, "qtable": initialize_q_table(64, 4)}, "0.00", [GUESSED.format({"map_name": "8x8"})]),
        ({"env_kwargs": ..., "map_name": "4x4", "slippery": False}, "1.00", []),
        ({"env_kwargs": ..., "slippery": True}, "0.00", [GUESSED.format(MAP)]),
        ({"env_kwargs": ..., "map_name": "4x4"}, "1.00 0.00", []),  # both are shown
        ({"env_kwargs": LAKE, "qtable": small()["qtable"], "gamma": 1, "max_steps": 10**6}, "1.00", []),
        (OCEAN, "0.00", [LEFT_OUT]),
        (OCEAN | {"env_kwargs": ENDLESS, "max_steps": 10**6, "n_eval_episodes": 1}, "0.00", [TOO_LONG, LEFT_OUT]),
    ],
)  # fmt: skip
def test_a_stranger_s_model_is_shown_within_seconds_and_guesses_are_told(
    tmp_path, says, changes, scores, notes
):
    model = small(**{"qtable": GOLDEN, "env_kwargs": MAP | NO_ICE} | changes)
    code, out, err = says("load", save_model(model, tmp_path / "model.pkl"))
    assert (code, err.splitlines()) == (0, notes)
    assert " ".join(re.findall(r"(?m)^Mean_reward=(\S+)", out)) == scores
    assert out.count("THE WORLD") == len(scores.split())
    assert ("THE PROOF" in out) == (LEFT_OUT not in notes)
    headings = re.findall(r"====== If the lake is (.*slippery) ======", out)
    assert headings == (["not slippery", "slippery"] if " " in scores else [])


DISK_FULL = "hub_utils.py: [Errno 28] No space left on device"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
@pytest.mark.parametrize(
    ("to", "code", "errors"),
    [(">/dev/full", 1, [FEW_SEEDS, DISK_FULL]), ("2>/dev/full", 0, []),
     (">&-", 0, [FEW_SEEDS]), ("2>&-", 0, [])],
)  # fmt: skip
def test_output_that_goes_nowhere_is_no_traceback(tmp_path, to, code, errors):
    path = save_model(small(eval_seed=[1, 2]), tmp_path / "model.pkl")  # with a note
    line = f'"{sys.executable}" hub_utils.py load "{path}" {to}'
    done = command("-c", line, program="sh")
    assert (done.returncode, done.stderr.splitlines()) == (code, errors)
    assert (SCORE in done.stdout) == to.startswith("2")


def test_ctrl_c_while_it_still_imports_ends_in_peace(tmp_path):
    for name in ("hub_utils.py", "qlearning.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "gymnasium.py").write_text("raise KeyboardInterrupt")
    done = command("hub_utils.py", "load", "x", cwd=tmp_path)
    said = "\nStopped by Ctrl-C.\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)
    done = command("-c", "import hub_utils", cwd=tmp_path)  # in a program of one's own
    assert "Traceback" in done.stderr and said not in done.stderr


# ======================================================================================
# README: all that it shows is run, and compared with what it says
# ======================================================================================
README = (HERE / "README.md").read_text(encoding="utf-8")
# (language, what is in the block, and the text block that follows it as its output)
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```\n(?:\n(?:</details>\n\n)?```text\n(.*?)^```\n)?",
    README,
    re.DOTALL | re.MULTILINE,
)
PYTHON = [(code, output) for language, code, output in BLOCKS if language == "python"]
SHELL = [(code, output) for language, code, output in BLOCKS if language == "sh"]
# | # | bug | `what stands there` | `the bug` | `test that turns red` | Mean_reward |
BUGS = re.findall(
    r"^\| \d+ \| .*? \| `(.*?)` \| `(.*?)` \| `(test_\w+)` \| (.*?) \|$",
    README,
    re.MULTILINE,
)


def test_every_block_of_readme_is_looked_at():
    fences = sum(2 + 2 * bool(output) for _, _, output in BLOCKS)
    assert README.count("\n```") == fences, "a block that the pattern above missed"
    assert {language for language, _, _ in BLOCKS} == {"python", "sh", "text"}
    assert all(output for _, output in PYTHON), "a python block without its output"
    assert len(BUGS) == README.count("` | `test_") == 9


@pytest.mark.parametrize(("code", "output"), PYTHON, ids=range(len(PYTHON)))
def test_readme_python_prints_what_readme_says(code, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"__name__": "__main__"})  # noqa: S102
    assert out.getvalue() == output


CAMERA = """
class Corridor(Corridor):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return gym.spaces.Box(self.place, self.place, (16, 16, 3), "uint8").sample()
"""


@games_are_drawn
def test_readme_takes_a_game_of_ones_own_to_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (corridor,) = [code for code, _ in PYTHON if "class Corridor" in code]
    section = README.split("**Register it")[1].split("\n## ")[0]
    lines = "\n".join(re.findall(r"^    (.*)", section, re.MULTILINE))
    names = {"package_model": package_model, "tell_story": qlearning.tell_story}
    names |= {"RECIPES": RECIPES, "learn": learn}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(corridor + CAMERA + lines, names)  # noqa: S102
    del gym.registry["Corridor-v0"]
    assert "\nTHE SCORE: " in out.getvalue()
    table = load_model(tmp_path / "my-corridor" / "q-learning.pkl")["qtable"]
    assert [argmax(row) for row in table[:4]] == [1, 1, 1, 1]


def project_in(folder, right="", wrong=""):
    """A copy of the project to try something in, with a bug in qlearning.py if asked."""
    for name in ("hub_utils.py", "test_qlearning.py", "README.md"):
        shutil.copy(HERE / name, folder)
    (folder / "qlearning.py").write_text(SOURCE.replace(right, wrong), encoding="utf-8")
    return folder


@games_are_drawn
def test_readme_commands_do_what_readme_says(tmp_path):
    """Those that need the network, or a name on the Hub, are left to .ci/run."""
    project_in(tmp_path)
    run = 0
    for lines, output in SHELL:
        for program, *arguments in map(str.split, lines.splitlines()):
            if program == "python" and "NAME" not in "".join(arguments):
                done = command(*arguments, cwd=tmp_path)
                assert done.returncode == 0, done.stderr
                assert not output or done.stdout == output
                run += 1
    assert run == 4


def test_readme_transcripts_are_what_the_program_prints():
    texts = [text for language, *two in BLOCKS if language == "text" for text in two]
    texts = [text for text in texts if text and not text.startswith("Step 1 ")]
    assert len(texts) >= 6
    for text in texts:
        assert holds(story("frozenlake"), text) or holds(story("taxi"), text), text


def test_readme_shows_lines_of_the_code():
    table = README.split("\n| Step | Pseudocode | ")[1].split("\n\n")[0]
    shown = re.findall(r"`([^`]*)` \|$", table, re.MULTILINE)[1:]
    source = [line.strip() for line in SOURCE.splitlines()]
    assert len(shown) == 10 and [line for line in shown if line not in source] == []
    (heading,) = [line for line in source if line.startswith(CUT)]
    assert f"`{heading}`" in README


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {LONGEST}))
def test_readme_results_are_what_the_program_prints(name):
    row = rf"^\| `{name}` \| (\S+) \| (.*) \| (\S+), \S+ \| (\S+) \|$"
    ((steps, score, worst, best),) = re.findall(row, README, re.MULTILINE)
    told_score, expected, *told = results(story(name))
    assert [told_score, *told] == [score, best, steps]
    assert float(expected) >= float(worst), "the worst of ten, as .ci/run measures it"


@pytest.fixture(scope="module")
def exercises(tmp_path_factory):
    """The tests of README's exercises, started together so that every core has work."""
    started, run = {}, ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for right, wrong, test, _ in BUGS:
        project = project_in(tmp_path_factory.mktemp("exercise"), right, wrong)
        call = invocation(*run, f"test_qlearning.py::{test}", cwd=project)
        started[wrong] = subprocess.Popen(**call)
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("right", "wrong", "test", "score"), BUGS, ids=range(9))
def test_every_exercise_turns_its_test_red_and_says_why(
    right, wrong, test, score, exercises
):
    assert SOURCE.count(right) == 1
    bugged = {"__name__": "bugged"}
    exec(SOURCE.replace(right, wrong), bugged)  # noqa: S102
    with contextlib.redirect_stdout(io.StringIO()) as played:
        bugged["main"]([])
    scores = re.findall("^Mean_reward=(.*)", played.getvalue(), re.MULTILINE)
    assert [score] == (scores or ["an error"])
    said, _ = exercises[wrong].communicate(timeout=120)
    assert exercises[wrong].returncode == 1, said
    assert f"\nFAILED test_qlearning.py::{test}" in said, said
    sentence = r"^E +AssertionError: (?!assert\b)\w\S*( \S+){5}"
    assert re.search(sentence, said, re.MULTILINE), "it does not say what is wrong"


# ------------------ The Chinese README is as new as the English one -------------------
GITHUB = HERE / ".github"
with_github = pytest.mark.skipif(not GITHUB.exists(), reason="a copy without .github")


def sections(text):
    """The sections of a README from heading to heading; `#` in a block makes none."""
    parts, in_block = [], False
    for line in text.splitlines(keepends=True):
        in_block ^= line.startswith("```")
        if line.startswith("#") and not in_block:
            parts.append("")
        parts[-1] += line
    return parts


def facts(section):
    """What a section and its translation must have in common."""
    block = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    prose = re.sub(r"<!--.*?-->", "", block.sub("", section))
    links = [a or b for a, b in re.findall(r"\]\((.*?)\)|<(http.*?)>", prose)]
    words = re.sub(r"\]\(.*?\)|<http.*?>", "", prose)
    rows = re.findall(r"^\|.*", re.sub("`.*?`", "", words), re.MULTILINE)
    return {
        "heading": re.match(r"#+ ?\d*", section)[0],
        "blocks": block.findall(section),
        "columns of the tables": [row.count("|") for row in rows],
        # Within a page only the number of the section, within the project the file.
        "links": Counter(
            link if "//" in link else re.match(r"#\d+|", link)[0] or Path(link).suffix
            for link in links
        ),
        "numbers": Counter(re.findall(r"[0-9]+(?:[.,][0-9]+)*", words)),
    }


@with_github
def test_chinese_readme_is_as_new_as_the_english_one():
    chinese = (GITHUB / "README.zh-CN.md").read_text(encoding="utf-8")
    pairs = itertools.zip_longest(sections(README), sections(chinese), fillvalue="")
    for english, translated in pairs:
        name = english.partition("\n")[0]
        for fact, value in facts(english).items():
            assert facts(translated)[fact] == value, f"{name}: the {fact} differ"
        stamp = f"<!-- README: {hashlib.sha256(english.encode()).hexdigest()[:8]} -->"
        assert stamp in translated, (
            f"{name}: has changed; translate what is new, then stamp it {stamp}"
        )


@with_github
@pytest.mark.parametrize("path", [HERE / "README.md", GITHUB / "README.zh-CN.md"])
def test_links_within_the_project_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    names = [part.splitlines()[0].lstrip("# ").lower() for part in sections(text)]
    anchors = {"#" + re.sub(r"[^\w\- ]", "", name).replace(" ", "-") for name in names}
    for link in re.findall(r"\]\(((?!http).*?)\)", text):
        assert link in anchors or (path.parent / link).is_file(), link


@with_github
@pytest.mark.parametrize("recipe", ["frozenlake", "taxi"])
def test_pictures_of_readme_are_the_told_episode(recipe):
    env, exact = game(recipe), value_iteration(game(recipe), 0.95)
    start, _ = env.reset(seed=qlearning.evaluation_seeds(RECIPES[recipe])[0])
    with imageio.get_reader(GITHUB / f"{recipe}.gif") as film:
        assert len(list(film)) == 1 + len(list(rollout(env, exact, start, 99)))


# ------------------ `python test_qlearning.py`: README's table of results, anew -------
MOST_STEPS = {"taxi-exact": 112_000, "frozenlake-8x8-slippery": 790_000}


def first_of_equals(Qtable, state, epsilon, rng):
    """What `epsilon_greedy_policy` would be if it did not break ties at random."""
    if rng.random() > epsilon:
        return argmax(Qtable[state])
    return int(rng.random() * len(Qtable[state]))


def is_solved(policy, decay_rate, seed):
    """Whether an agent that learns by this policy solves the lake without ice."""
    env, recipe = game("frozenlake"), RECIPES["frozenlake"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qlearning, "epsilon_greedy_policy", policy)
        table = learn(env, recipe | {"decay_rate": decay_rate, "seed": seed})
    return exact_score(env, 99, table) == 1


def main():
    """Measure anew what README says of ties, and of every recipe with seeds 0 to 9."""
    policies = {
        "the first of equal values": first_of_equals,
        "one of them at random": epsilon_greedy_policy,
    }
    with ProcessPoolExecutor() as pool:
        for label, policy in policies.items():
            cells = [
                str(sum(pool.map(is_solved, [policy] * 5, [rate] * 5, range(5))))
                for rate in (0.0005, 0.005, 0.05, 1.0)
            ]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)
        jobs = {
            name: [pool.submit(story, name, "--seed", str(seed)) for seed in range(10)]
            for name in RECIPES
        }
        for name, stories in jobs.items():
            runs = [results(job.result()) for job in stories]
            score, _, best, steps = runs[0]
            scores = [float(expected) for _, expected, *_ in runs]
            print(f"| `{name}` | {steps} | {score} | {min(scores):.4f}, ", end="")
            print(f"{statistics.fmean(scores):.4f} | {best} |", flush=True)
            most = max(int(steps.replace(",", "")) for *_, steps in runs)
            assert most <= MOST_STEPS.get(name, math.inf)


if __name__ == "__main__":
    main()
