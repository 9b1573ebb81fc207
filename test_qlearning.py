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

    python -m pytest                                            everything, in a minute
    python -m pytest test_qlearning.py::test_update_by_hand     one of them
    python test_qlearning.py --results     README's table of results anew, some minutes
    python test_qlearning.py --pictures    README's pictures anew

A beginner may stop reading at "The recipes and the story": down to there is a test for
every line of the algorithm. Below are the story's words, pictures, pickles and the Hub.
"""

import argparse
import ast
import base64
import contextlib
import doctest
import functools
import hashlib
import importlib
import importlib.metadata
import io
import itertools
import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gymnasium as gym
import huggingface_hub as hf
import imageio.v2 as imageio
import imageio_ffmpeg
import pytest
from gymnasium.envs import toy_text
from huggingface_hub import constants

import hub_utils
import qlearning
from hub_utils import (
    FILES,
    draw_values,
    load_from_hub,
    load_model,
    make_env_from_model,
    package_model,
    push_to_hub,
    record_learning,
    record_video,
    save_model,
)
from qlearning import (
    HYPERPARAMETERS,
    RECIPES,
    argmax,
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
SOURCE = (HERE / "qlearning.py").read_text(encoding="utf-8")
LEFT, DOWN, RIGHT, UP = range(4)
# The rows of the table above.
LINES = [line.split() for line in __doc__.splitlines() if re.match(" +[0-9]+  ", line)]
GOLDEN = [[float(value) for value in values] for _, *values in LINES]


def game(name, **more):
    """The environment of a recipe."""
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"], **more)


@pytest.fixture(scope="session")
def lake():
    return game("frozenlake")


@pytest.fixture(scope="session")
def learned(lake):
    return learn(lake, RECIPES["frozenlake"])


def test_training_finds_all_64_values(lake, learned):
    assert learned[14][RIGHT] == pytest.approx(1, abs=5e-9), "the step into the goal"
    assert learned[14][DOWN] == pytest.approx(0.95, abs=5e-9), (
        "into the wall, then that"
    )
    assert learned[6][DOWN] == pytest.approx(0.9025, abs=5e-9), "two steps before it"
    assert [[round(q, 8) for q in row] for row in learned] == GOLDEN
    assert evaluate_agent(lake, 99, 100, learned, []) == (1.0, 0.0)


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

    def __init__(self, *lines, states=3, actions=2, start=0):
        self.observation_space = gym.spaces.Discrete(states)
        self.action_space = gym.spaces.Discrete(actions)
        self.lines, self.start, self.seeds, self.actions = lines, start, [], []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.line = iter(self.lines)
        return self.start, {}

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


def array(states, actions, kind="float64"):
    """NumPy's zeros((states, actions)), as Gymnasium hands them out."""
    return gym.spaces.Box(0, 0, (states, actions), kind).sample()


def test_training_equals_a_second_implementation_bit_for_bit():
    env, more = game("frozenlake-slippery"), {"min_learning_rate": 0.2, "seed": 3}
    for table in initialize_q_table(16, 4), array(16, 4):
        assert train(300, 0.05, 1.0, 0.01, env, 99, table, 0.6, 0.9, **more) is table
        assert [list(row) for row in table] == second_implementation(env, seed=3)
    assert any(map(any, table)), "nothing was learned"


def test_numpys_numbers_become_plain_ones(lake):
    number = lake.unwrapped.initial_state_distrib[0]
    state = gym.spaces.Discrete(2, seed=0).sample()
    assert type(state) is not int and type(number) is not float
    scores, env = [], Script((state, number, True, False), states=2, actions=1)
    table = taught(env, on_episode=lambda *told: scores.append(told[3]))
    assert {type(value) for value in (*table[0], *scores)} == {float}
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

    env, table = Growing(), [[0, 1], [0, 1], [0, 1]]
    assert evaluate_agent(env, 9, 2, table, []) == (3.0, 1.0)
    seeds = gym.spaces.MultiDiscrete([8, 9]).nvec  # NumPy's whole numbers
    assert evaluate_agent(env, 9, 1, table, seeds) == (6.0, 0.0)
    assert env.seeds == [None, None, 8] and type(env.seeds[2]) is int
    endless = Script(*[(0, 1.0, False, False)] * 50)
    assert evaluate_agent(endless, 20, 2, table, []) == (20.0, 0.0), "max_steps is 20"


# ------------------ Common mistakes: one sentence, before anything is changed ---------
@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (array(4, 2), "this environment needs a Q-table of 3 x 2"),
        ([[0.0], [0.0] * 2, [0.0] * 2], "this environment needs a Q-table of 3 x 2"),
        ([], "this environment needs a Q-table of 3 x 2"),
        (array(3, 2, "int64"), "an array of whole numbers rounds every update"),
        (
            [[0.0] * 2] * 3,
            "the Q-table repeats a row: take one from initialize_q_table",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, sentence):
    env = Script()
    with pytest.raises(ValueError, match=f"^{sentence}"):
        taught(env, table)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        evaluate_agent(env, 9, 1, table, [])
    assert env.seeds == [], "the environment was reset"


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (
            {"n_training_episodes": 0},
            "episodes and max_steps must be 1 or more, not 0 and 9",
        ),
        ({"max_steps": 0}, "episodes and max_steps must be 1 or more, not 1 and 0"),
        ({"min_epsilon": -0.1}, "epsilon cannot go from 0.5 down to -0.1"),
        ({"min_epsilon": 0.6}, "epsilon cannot go from 0.5 down to 0.6"),
        ({"max_epsilon": 7}, "epsilon cannot go from 7 down to 0"),
        ({"max_epsilon": math.nan}, "epsilon cannot go from nan down to 0"),
        ({"learning_rate": 1.1}, "learning_rate cannot go from 1.1 down to 1.1"),
        ({"learning_rate": 0}, "learning_rate cannot go from 0 down to 0"),
        ({"min_learning_rate": 0.8}, "learning_rate cannot go from 0.7 down to 0.8"),
        ({"gamma": 1.01}, "gamma must be from 0 to 1, not 1.01"),
        ({"gamma": -0.1}, "gamma must be from 0 to 1, not -0.1"),
    ],
)
def test_a_number_that_cannot_be_is_refused(numbers, sentence):
    env = Script()
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        taught(env, **({"max_epsilon": 0.5} | numbers))
    assert env.seeds == [], "the environment was reset"


def test_numbers_at_their_limits_are_allowed():
    limits = {"min_epsilon": 1, "max_epsilon": 1, "learning_rate": 1, "gamma": 1}
    taught(Script(END), max_steps=1, **limits)
    taught(Script(END), learning_rate=0.7, min_learning_rate=0.7, gamma=0)


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_without_a_row_ends_learning_and_evaluation(state):
    table, sentence = initialize_q_table(3, 2), f"^state {state} is not from 0 to 2$"
    for env in Script(*WALK, start=state), Script((state, 1.0, False, False)):
        with pytest.raises(ValueError, match=sentence):
            taught(env, table)
        with pytest.raises(ValueError, match=sentence):
            evaluate_agent(env, 9, 1, table, [])
    assert table == initialize_q_table(3, 2), "a row was changed"


def test_states_and_actions_must_be_numbered():
    spaces = gym.spaces.Discrete(3, start=1), gym.spaces.MultiBinary(2)
    for kind, space in itertools.product(["observation", "action"], spaces):
        env = Script()
        setattr(env, f"{kind}_space", space)
        with pytest.raises(
            ValueError, match="must be numbered from 0, unlike (Multi|Di)"
        ):
            taught(env, [])


@pytest.mark.parametrize(
    ("steps", "episodes", "seeds", "sentence"),
    [
        (9, 2, [7], "2 episodes, but only 1 seeds"),
        (0, 1, [], "episodes and max_steps must be 1 or more, not 1 and 0"),
        (9, 0, [], "episodes and max_steps must be 1 or more, not 0 and 9"),
    ],
)
def test_evaluations_that_cannot_be(steps, episodes, seeds, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        evaluate_agent(Script(), steps, episodes, initialize_q_table(3, 2), seeds)


# ------------------ Copying: the algorithm stands alone, and fits in elsewhere --------
CUT = "# ================== The algorithm ends here: copy down to here"
ABOVE, BELOW = SOURCE.split(CUT)


def invocation(*arguments, cwd=HERE, **options):
    """How to start a Python program, in an environment that says nothing special."""
    ours = r"HF_|HUGGING|TQDM|COLUMNS|FORCE_COLOR|PYTEST|PYTHON(?!PATH|HOME)|.*_PROXY$"
    kept = {k: v for k, v in os.environ.items() if not re.match(ours, k.upper())}
    kept |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
    told = {"encoding": "utf-8", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    call = {"args": [sys.executable, *map(str, arguments)], "cwd": cwd, "env": kept}
    return call | told | options


def command(*arguments, **options):
    """The finished process of a Python program."""
    call = {"timeout": 120} | invocation(*arguments, **options)
    return subprocess.run(**call, check=False)


def only_gymnasium(code):
    """A program that can import no package but Gymnasium and what that needs itself."""
    needed = {"gymnasium", "numpy", "cloudpickle", "typing_extensions"}
    needed.add("farama_notifications")
    others = {*importlib.metadata.packages_distributions()} - needed
    return f"import sys; sys.modules |= dict.fromkeys({others})\n{code}"


def test_the_part_above_the_cut_is_a_program_of_its_own(tmp_path):
    (tmp_path / "copied.py").write_text(ABOVE, encoding="utf-8")
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
    used = {n.id for n in ast.walk(ast.parse(ABOVE)) if isinstance(n, ast.Name)}
    made = set(re.findall(r"^(?:def |class )?(\w+)(?=:| =|\()", BELOW, re.MULTILINE))
    assert {"RECIPES", "HYPERPARAMETERS", "exact_score", "StepRecorder"} <= made
    assert used.isdisjoint(made)


def test_no_file_imports_numpy():
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) numpy\b", text, re.MULTILINE), path


def needs_of(functions, name):
    """The modules and functions that the text of a function asks for, when pasted."""
    asked = {n.id for n in ast.walk(functions[name]) if isinstance(n, ast.Name)}
    modules = asked & {"math", "random", "statistics", "sys"}
    called = asked & functions.keys() - {name}
    for other in sorted(called):
        more_modules, more_called = needs_of(functions, other)
        modules, called = modules | more_modules, called | more_called
    return modules, called


def pasted_functions():
    """Each function above the cut, with all that it needs when it is pasted alone."""
    nodes = ast.parse(ABOVE).body
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    return {name: (functions, *needs_of(functions, name)) for name in functions}


def test_a_pasted_function_asks_only_for_imports_and_for_functions_that_it_calls():
    examples = {
        "greedy_policy": ([[0.0, 1.0]], 0),
        "epsilon_greedy_policy": ([[0.0, 1.0]], 0, 0.5),
        "td_update": ([[0.0], [0.0]], 0, 0, 1, 1, 0.5, 0.5),
        "train": (1, 0, 0, 0, Script(*WALK), 9, initialize_q_table(3, 2)),
        "evaluate_agent": (Script(*WALK), 9, 1, initialize_q_table(3, 2), []),
    }
    for name, arguments in examples.items():
        functions, modules, called = pasted_functions()[name]
        namespace = {module: sys.modules[module] for module in modules}
        for function in (*called, name):
            exec(ast.unparse(functions[function]), namespace)  # noqa: S102
        namespace[name](*arguments)


def test_a_dictionary_of_rows_is_a_table_as_well():
    table = defaultdict(lambda: [0.0] * 9)
    table["X.O......"][4] = 1.0
    assert qlearning.greedy_policy(table, "X.O......") == 4
    assert epsilon_greedy_policy(table, "X.O......", 0.0) == 4
    assert epsilon_greedy_policy(table, (0, 1), 1.0, Numbers(0.5, 0.99)) == 8
    assert td_update(table, "new", 3, 1.0, "X.O......", 0.5, 0.5) == 0.5 * (1 + 0.5)
    assert table["new"] == [0, 0, 0, 0.75, 0, 0, 0, 0, 0]


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


@pytest.mark.parametrize("module", [qlearning, hub_utils])
def test_docstring_examples(module):
    failed, _ = doctest.testmod(module)
    assert failed == 0


# ------------------ The exact answers -------------------------------------------------
def test_value_iteration_finds_the_same_64_values(lake):
    table = value_iteration(lake, 0.95)
    assert [[round(q, 8) for q in row] for row in table] == GOLDEN


class Rules(Script):
    """From state 0 one ends with 4, or goes on with 8; or waits. State 1 pays 2, then 0."""

    P = (
        {0: [(0.25, 1, 4.0, True), (0.75, 1, 8.0, False)], 1: [(1.0, 0, 0.0, False)]},
        {0: [(1.0, 1, 2.0, False)], 1: [(1.0, 1, 0.0, True)]},
    )
    initial_state_distrib = (1.0, 0.0)


def test_exact_answers_by_hand():
    env = Rules(states=2)
    best = 0.25 * 4 + 0.75 * (8 + 0.5 * 4)  # state 1 is worth 2 + 0.5 * (2 + ...) = 4
    table = value_iteration(env, 0.5)
    assert sum(table, []) == pytest.approx([best, 0.5 * best, 4, 0])
    assert exact_score(env, 3) == 0.25 * 4 + 0.75 * (8 + 2 + 2)
    assert exact_score(env, 3, [[0, 1], [0, 0]]) == 0, "it waits in state 0"
    with pytest.raises(
        ValueError, match="never settle at gamma=1: take a smaller gamma"
    ):
        value_iteration(env, 1)


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
    assert round(exact_score(env, 99), 4) == 0.7422


def test_exact_scores_know_the_environments_own_limit():
    env = game("frozenlake-slippery")  # Gymnasium stops it after 100 steps
    assert exact_score(env, 99) < exact_score(env, 100) == exact_score(env, 5000)
    longer = game("frozenlake-slippery", max_episode_steps=10**9)
    assert round(exact_score(longer, 10**9), 4) == 0.8235


def test_a_state_has_a_value_for_each_policy(lake):
    """0.7738, 0.7260 and 0.2763, as README has them: with 0, 5 and 50 % random steps."""
    P, exact = lake.unwrapped.P, value_iteration(lake, 0.95)
    for epsilon, value in (0.0, 0.7738), (0.05, 0.7260), (0.5, 0.2763):
        V = [0.0] * 16
        for _ in range(1000):
            Q = qlearning.bellman_backup(P, V, 0.95)
            V = [
                (1 - epsilon) * row[argmax(exact[s])] + epsilon * statistics.fmean(row)
                for s, row in enumerate(Q)
            ]
        assert round(V[0], 4) == value


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


# ------------------ Whose rules, whose map? -------------------------------------------
class Renumbered(gym.ObservationWrapper):
    """A lake whose states count backwards."""

    def observation(self, observation):
        return 15 - observation


class ByRows(gym.ObservationWrapper):
    """A lake of which one sees the row only: 4 states."""

    observation_space = gym.spaces.Discrete(4)

    def observation(self, observation):
        return observation // 4


def with_P(P):
    """A world with an attribute P, whatever that is."""
    env = Script(*WALK)
    env.P, env.initial_state_distrib = P, [1, 0, 0]
    return env


ROW = {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 0.0, False)]}
NO_RULES = {
    "other states": Renumbered(game("frozenlake")),
    "fewer states": ByRows(game("frozenlake")),
    "other rewards": gym.wrappers.TransformReward(
        game("frozenlake"), lambda r: 100 * r
    ),
    "a list of profits": with_P([1.0, 2.0]),
    "a probability": with_P(0.3),
    "an array": with_P(array(3, 2)),
    "pairs as keys": with_P({(s, a): [] for s in range(3) for a in range(2)}),
    "no rows for ends": with_P({0: ROW, 1: ROW}),
    "states that are none": with_P([{0: [(1.0, 9, 0.0, False)], 1: []}] * 3),
    "no P": Script(*WALK),
}


@pytest.mark.parametrize("env", NO_RULES.values(), ids=NO_RULES.keys())
def test_exact_answers_are_claimed_only_for_the_rules_of_these_states(env):
    for answer in (lambda: value_iteration(env, 0.9), lambda: exact_score(env, 9)):
        with pytest.raises(ValueError, match="publishes no rules P for its .* states"):
            answer()
    assert qlearning.map_of(env) == [] and qlearning.known_game(env) == ""


def test_wrappers_that_only_watch_or_limit_change_nothing(lake):
    watched = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(lake, 50))
    assert value_iteration(watched, 0.95) == value_iteration(lake, 0.95)
    assert qlearning.map_of(watched) == ["SFFF", "FHFH", "FFFH", "HFFG"]


def test_a_fickle_passenger_is_not_in_the_published_rules():
    if "Taxi-v4" not in gym.registry:
        pytest.skip("this Gymnasium's taxi has no such option")
    with pytest.raises(ValueError, match="publishes no rules"):
        exact_score(make_env("Taxi-v4", fickle_passenger=True), 99)


class FrozenLakeEnv(Script):
    """A student's own game, which is called like Gymnasium's."""


class OwnMap(Script):
    """A game of one's own with a map, and with names for actions and states."""

    action_names = ("LEFT", "wait")
    map_rows = ("SF", "FG")

    def __init__(self):
        super().__init__((3, 1.0, True, False), states=4)

    def state_name(self, state):
        return f"field {state}"


def test_games_of_ones_own_are_known_by_what_they_say():
    own = OwnMap()
    assert qlearning.action_names(own) == ["LEFT", "wait"]
    assert qlearning.map_of(own) == ["SF", "FG"]
    assert qlearning.state_name(own, 2) == "field 2"
    other = FrozenLakeEnv()
    assert qlearning.known_game(other) == "" and qlearning.map_of(other) == []
    assert qlearning.action_names(other) == ["action0", "action1"]
    assert qlearning.state_name(other, 2) == "2"
    own.map_rows = ("SF", "F")
    assert qlearning.map_of(own) == [], "a place for each state, in rows of one length"


def test_a_map_that_is_too_large_to_look_at_is_none():
    for size, rows in (13, 13), (14, 0):
        desc = ["S" + "F" * (size - 1)] * size
        assert len(qlearning.map_of(make_env("FrozenLake-v1", desc=desc))) == rows


# ------------------ The recipes and the story -----------------------------------------
def test_numbers_of_the_course_to_the_letter():
    lake, taxi = RECIPES["frozenlake"], RECIPES["taxi"]
    course = {"learning_rate": 0.7, "gamma": 0.95, "max_steps": 99, "max_epsilon": 1.0}
    course |= {"min_epsilon": 0.05, "n_eval_episodes": 100}
    own = {"env_id": "FrozenLake-v1", "n_training_episodes": 10_000, "eval_seed": []}
    assert lake == lake | course | own | {"decay_rate": 0.0005}
    own = {"env_id": "Taxi-v3", "n_training_episodes": 25_000, "decay_rate": 0.005}
    assert taxi == taxi | course | own
    seeds = taxi["eval_seed"]
    assert (len(seeds), sum(seeds)) == (100, 8859)
    assert sum(place * seed for place, seed in enumerate(seeds)) == 403_242


@pytest.mark.parametrize(
    "ids", [("Taxi-v3", "Taxi-v4"), ("CliffWalking-v0", "CliffWalking-v1")]
)
def test_retired_ids_give_the_same_game_and_say_so_once(ids, capsys):
    qlearning.print_once.cache_clear()
    games = [make_env(env_id) for env_id in ids for _ in range(2)]
    assert all(env.unwrapped.P == games[0].unwrapped.P for env in games)
    retired = [env_id for env_id in ids if env_id not in gym.registry]
    notes = capsys.readouterr().err.splitlines()
    assert [note.split()[1] for note in notes] == retired


def test_a_game_with_options_is_not_made_under_another_id():
    retired = next(id for id in ("Taxi-v3", "Taxi-v4") if id not in gym.registry)
    with pytest.raises(gym.error.Error):
        make_env(retired, is_rainy=True)


@functools.cache
def story(*arguments, encoding="utf-8"):
    """What `python qlearning.py` with these arguments prints, but for the seconds."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    with contextlib.redirect_stdout(out):
        assert qlearning.main(arguments) == 0
    text = out.buffer.getvalue().decode(encoding)
    return re.sub(r"[\d.]+ seconds", "N seconds", text)


def holds(told, transcript):
    """Whether a story has these lines, one part after the other; `...` leaves some out."""
    start = 0
    for part in transcript.strip("\n").split("\n...\n"):
        found = f"\n{told}".find(f"\n{part}\n", start)
        if found < 0:
            return False
        start = found + len(part)
    return True


# How an agent that never explored ends: with a table that knows next to nothing.
SHORT = ("frozenlake", "--episodes", "1", "--max-epsilon", "0", "--min-epsilon", "0")
TOLD = [
    (
        (),
        """
A bar of 40 letters: the best possible score, 1.00; 20: half that score.
episodes  epsilon  mean score since the line above, exploring included
      20    0.991       0.00
...
    2500    0.322       0.50  ████████████████████
    5000    0.128       0.77  ███████████████████████████████
   10000    0.056       0.92  █████████████████████████████████████

FIRST LESSONS: Q(s,a) = Q + alpha * (r + gamma * max Q(s',a') - Q)

Episode 43, state 14, the first value that changes:
  Q(14, RIGHT) = 0 + 0.7 * (1 + 0.95 * 0 - 0) = 0.7

Episode 82, state 10, the first built on a learned value:
  Q(10, DOWN) = 0 + 0.7 * (0 + 0.95 * 0.7 - 0) = 0.4655

HOW VALUE SPREADS: V(s) in episode 43, goal reached 1x
       .       .       .       .
       .       H       .       H
       .       .       .       H
       H       .   0.700       G
...
HOW VALUE SPREADS: V(s) in episode 247, goal reached 10x
   0.772   0.813   0.856   0.812
...
14                     0.9025     0.9500     1.0000*    0.9025
15                          .

THE POLICY: the greedy actions, with V(s), the value of the best one
  ↓0.774  →0.815  ↓0.857  ←0.815
  ↓0.815       H  ↓0.902       H
  →0.857  ↓0.902  ↓0.950       H
       H  →0.950  →1.000       G
...
   6 14                  RIGHT          1   1.0000    1.0000   +0.0000
After 6 steps the goal is reached. Score 1.
The route, with the step that first reached a place:
       0       F       F       F
       1       H       F       H
       2       3       F       H
       H       4       5       6

THE SCORE: 100 greedy episodes, mean +/- standard deviation
Mean_reward=1.00 +/- 0.00

THE PROOF: beside the exact table, solved from the game's own rules
States that a value has reached: 11 of 16
Their cells that are exact to 8 decimals: 44 of 44
Cells at ends, still as at the start: 20 of 20
States with a best action: 11 of 11
Mean_reward of the exact table, same episodes: 1.00 +/- 0.00
Expected score in 99 steps, by the rules: 1.0000
Of the exact table: 1.0000; of the best possible play: 1.0000
VERDICT: All that was learned is exact. (Whether td_update counts a future
after an end, a table that starts at 0 cannot show: try --initial-value 1.)

65,565 environment steps in N seconds.
""",
    ),
    (
        ("frozenlake-slippery",),
        """
Reward: 1 for reaching G, else 0.
Slippery: a step may go to one side of where it was meant to go.
...
Their cells that are exact to 8 decimals: 0 of 44
Mean distance of these cells from the exact ones: 0.0204
...
VERDICT: The agent plays as well as the exact table. Only somebody who counts
the steps that are left can play better.
""",
    ),
    (
        ("taxi-exact", "--show-episode", "2"),
        """
328 (3,1) Y to R is state 328: taxi in row 3, column 1, passenger from Y to R.
...
+---------+
|R: | : :G|
...
ONE EPISODE: number 2 of the scored ones (reset seed 54)
...
The route, with the step that first reached a place:
...
Mean_reward=7.56 +/- 2.71
mean - std = 4.85 (4.5 or more passes the course)
...
VERDICT: The agent plays as well as possible, though not all values are exact.
""",
    ),
    (
        ("cliffwalking",),
        """
A bar of 40 letters: the best possible score, -13.00; 20: twice that cost.
...
     500    0.056     -34.43  ███████████████
...
After 13 steps the goal is reached. Score -13.
""",
    ),
    (
        SHORT,
        """
States that a value has reached: 0 of 16
Their cells that are exact to 8 decimals: 0 of 0
...
VERDICT: Nothing was learned: no reward has reached the table.
""",
    ),
]


@pytest.mark.parametrize(("arguments", "transcript"), TOLD, ids=range(len(TOLD)))
def test_the_story_tells_what_happened(arguments, transcript):
    assert holds(story(*arguments), transcript), story(*arguments)


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in TOLD])
def test_no_line_is_wider_than_a_terminal(arguments):
    assert [line for line in story(*arguments).splitlines() if len(line) > 79] == []


def shown(env, model, episode=1):
    """What `show_agent` prints of a model."""
    model = RECIPES["frozenlake"] | {"env_id": "Own-v0", "env_kwargs": {}} | model
    with contextlib.redirect_stdout(io.StringIO()) as out:
        qlearning.show_world(env, model)
        qlearning.show_agent(env, model, episode)
    return out.getvalue()


def test_numpys_table_and_a_model_without_its_start_are_shown_alike(lake, learned):
    numpys = array(16, 4)
    numpys[:] = learned
    model = RECIPES["frozenlake"] | {"qtable": learned}
    assert shown(lake, model | {"qtable": numpys}) == shown(lake, model)
    del model["initial_value"]
    model |= {"env_id": "Own-v0", "env_kwargs": {}}
    assert "initial_value" not in model
    with contextlib.redirect_stdout(io.StringIO()) as out:
        qlearning.show_agent(lake, model)
    assert out.getvalue() in shown(lake, model | {"initial_value": 0.0})


def edited(table, *cells):
    """A copy of a table with (state, action, value) put in."""
    table = [list(row) for row in table]
    for state, action, value in cells:
        table[state][action] = value
    return table


@pytest.mark.parametrize(
    ("cells", "start", "sentence"),
    [
        (
            [(14, UP, 2.0)],
            0.0,
            "plays worse than the exact table, in states such as 14.",
        ),
        ([(14, UP, 0.5)], 0.0, "plays as well as possible, though not all values are"),
        ([], 1.0, "All that was learned is exact."),
    ],
)
def test_the_verdict_is_one_plain_sentence(lake, cells, start, sentence):
    exact = edited(value_iteration(lake, 0.95), *cells)
    for end in (5, 7, 11, 12, 15) if start else ():
        exact[end] = [start] * 4
    told = shown(lake, {"qtable": exact, "initial_value": start})
    assert sentence in " ".join(told.split("VERDICT: ")[1].split())
    assert ("--initial-value 1" in told) is False


def test_a_told_episode_says_how_it_ended_and_a_long_one_is_told_in_short(lake):
    into_a_hole = edited(initialize_q_table(16, 4), (0, RIGHT, 1), (1, DOWN, 1))
    assert "After 2 steps it fell into a hole. Score 0." in shown(
        lake, {"qtable": into_a_hole}
    )
    waiting = shown(lake, {"qtable": initialize_q_table(16, 4)})
    assert "After 99 steps it was cut short. Score 0." in waiting
    assert "     ... 92 steps left out ...\n  97 " in waiting
    cliff = game("cliffwalking")
    falling = shown(cliff, {"qtable": edited(initialize_q_table(48, 4), (36, 1, 1))})
    assert "After 99 steps and 99 falls it was cut short. Score -9900." in falling


def test_a_game_of_ones_own_is_shown_as_far_as_it_is_known():
    told = shown(OwnMap(), {"qtable": [[1.0, 0.0], [0.0] * 2, [0.0] * 2, [0.0] * 2]})
    lines = [
        "4 states, 2 actions: 0 LEFT, 1 wait",
        "field 0                1.0000*    0.0000",
        "  <1.000       .",
        "   1 field 0             LEFT           1   1.0000    1.0000   +0.0000",
        "After 1 steps the goal is reached. Score 1.",
        "There is no exact table: OwnMap publishes no rules P for its 4 states.",
    ]
    assert [line for line in lines if line not in told.splitlines()] == []


def test_of_many_actions_the_best_ones_are_shown():
    env = Script(*WALK, actions=9)
    told = shown(env, {"qtable": [[float(a) for a in range(9)], [0.0] * 9, [0.0] * 9]})
    assert "(only the best 6 of 9 actions)" in told
    assert "action3   action4   action5   action6   action7   action8\n" in told
    assert max(map(len, told.splitlines())) <= 79


def test_a_lake_with_other_rewards_says_so():
    if "reward_schedule" not in toy_text.FrozenLakeEnv.__init__.__code__.co_varnames:
        pytest.skip("this Gymnasium's lake has no such option")
    env = make_env("FrozenLake-v1", reward_schedule=(1, -1, -0.04))
    told = shown(env, {"qtable": initialize_q_table(16, 4)})
    assert "Rewards: [-1, -0.04, 0, 1]" in told and "1 for reaching G" not in told


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "big5", "shift_jis"])
def test_where_arrows_are_missing_or_wide_there_are_letters(encoding):
    told = story("frozenlake", encoding=encoding)
    assert "  v0.774  >0.815  v0.857  <0.815\n" in told
    assert (
        "   10000    0.056       0.92  #####################################\n" in told
    )


# ------------------ The command line --------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nosuch"], "argument recipe: invalid choice: 'nosuch'"),
        (["--gamma", "7"], "gamma must be from 0 to 1, not 7.0"),
        (["--gamma", "much"], "argument --gamma: invalid float value: 'much'"),
        (["--max-steps", "0"], "episodes and max_steps must be 1 or more"),
        (["--episodes", "0"], "episodes and max_steps must be 1 or more"),
        (["--eval-episodes", "0"], "episodes and max_steps must be 1 or more"),
        (["--max-epsilon", "0"], "epsilon cannot go from 0.0 down to 0.05"),
        (
            ["--min-learning-rate", "0.8"],
            "learning_rate cannot go from 0.7 down to 0.8",
        ),
        (["--show-episode", "500"], "--show-episode must be from 1 to 100"),
        (["--show-episode", "0"], "--show-episode must be from 1 to 100"),
        (
            ["taxi", "--eval-episodes", "101"],
            "--eval-episodes 101: this game has only 100",
        ),
        (["frozenlake", "--learn", "1"], "unrecognized arguments: --learn 1"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_happens(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        qlearning.main(arguments)
    out, err = capsys.readouterr()
    usage, error = err.split("\n", 1)
    assert (stopped.value.code, out) == (2, "")
    assert usage == "usage: qlearning.py [recipe] [options]"
    assert error.startswith(f"qlearning.py: error: {sentence}")


def test_options_replace_the_numbers_of_a_recipe():
    given = {"--episodes": "50", "--learning-rate": "0.5", "--min-learning-rate": "0.1"}
    given |= {"--gamma": "0.9", "--max-steps": "50", "--max-epsilon": "0.8"}
    given |= {"--min-epsilon": "0.1", "--decay-rate": "0.01", "--initial-value": "1.0"}
    given |= {"--eval-episodes": "5", "--seed": "7"}
    told = story("frozenlake", *itertools.chain(*given.items()))
    numbers = " ".join(told.split("\nLEARNING\n")[1].split("\nA bar")[0].split())
    assert re.findall(r"=(\S+?)(?:,|$)", numbers) == [*given.values()]
    assert qlearning.option("n_eval_episodes") == "--eval-episodes"


def test_help_gives_each_options_meaning_and_the_recipes_value(capsys):
    for arguments, words in (
        (["--help"], ["in brackets those of frozenlake:", "(10000)"]),
        (["taxi", "--help"], ["in brackets those of taxi:", "(25000)"]),
    ):
        with pytest.raises(SystemExit):
            qlearning.main(arguments)
        told = " ".join(capsys.readouterr().out.split())
        meanings = [meaning for _, meaning in HYPERPARAMETERS.values()]
        assert [word for word in words + meanings if word not in told] == []
        assert "discount factor" in told


def test_runs_with_nothing_but_gymnasium():
    code = "import runpy; sys.argv = ['qlearning.py']; "
    code += "runpy.run_path('qlearning.py', run_name='__main__')"
    done = command("-c", only_gymnasium(code))
    assert (done.stderr, done.returncode) == ("", 0)
    assert "Mean_reward=1.00 +/- 0.00" in done.stdout


@pytest.mark.parametrize(("place", "bars"), [("", 0), ("ipykernel", 1)])
def test_a_bar_in_a_notebook_and_none_in_a_pipe(place, bars, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    if place:
        monkeypatch.setitem(sys.modules, place, sys)
    assert list(qlearning.progress_bar(range(3))) == [0, 1, 2]
    assert ("3/3" in capsys.readouterr().err) == bool(bars)


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_a_reader_who_has_seen_enough_and_ctrl_c_end_in_peace():
    reader = subprocess.Popen(**invocation("-u", "qlearning.py"))
    assert reader.stdout.readline().startswith("THE WORLD")
    reader.stdout.close()
    assert (reader.wait(60), reader.stderr.read()) == (1, "")
    reader.stderr.close()

    learner = subprocess.Popen(
        **invocation("-u", "qlearning.py", "--episodes", "9999999")
    )
    while not learner.stdout.readline().startswith("initial_value"):
        pass
    learner.send_signal(signal.SIGINT)
    out, err = learner.communicate(timeout=60)
    assert (learner.returncode, out, err) == (130, "", "\nStopped by Ctrl-C.\n")


def test_what_fails_is_one_line_on_stderr_and_our_own_bugs_are_not(capsys):
    def fail(error):
        raise error

    for error in (
        ValueError("so it is\nand more"),
        OSError("so it is"),
        OverflowError("so it is"),
    ):
        assert qlearning.run(lambda: fail(error)) == 1
        assert capsys.readouterr().err == "error: so it is\n"
    with pytest.raises(TypeError):
        qlearning.run(lambda: fail(TypeError("a bug")))


def test_letters_that_an_output_lacks_are_replaced():
    code = (
        "import sys, qlearning; sys.exit(qlearning.run(lambda: print('\\u96ea.gif')))"
    )
    call = invocation("-c", code)
    call["env"]["PYTHONIOENCODING"] = "ascii"
    done = subprocess.run(**call, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "?.gif\n", "")


def test_list_says_what_each_recipe_is_for():
    told = story("--list")
    assert all(
        f"{name} " in told and qlearning.LESSONS[name] in told for name in RECIPES
    )
