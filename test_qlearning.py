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

    python -m pytest                                            everything, 1-2 minutes
    python -m pytest test_qlearning.py::test_update_by_hand     one of them

A beginner may stop reading at "Whose rules?": down to there is a test for every line of
the algorithm, and for the exact answers. Below are other games, the story's words,
pictures, pickles, the Hub, and README.
"""

import ast
import base64
import contextlib
import doctest
import functools
import hashlib
import inspect
import io
import itertools
import json
import math
import os
import pickle
import pickletools
import random
import re
import runpy
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import gymnasium as gym
import huggingface_hub as hf
import imageio.v2 as imageio
import imageio_ffmpeg
import pytest
from gymnasium.envs import toy_text
from huggingface_hub import constants, file_download

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

# With `-W error` a warning is an error, but not this one, which is huggingface_hub's own.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
HERE = Path(__file__).parent
SOURCE = (HERE / "qlearning.py").read_text(encoding="utf-8")
LEFT, DOWN, RIGHT, UP = range(4)
# The 16 rows of the table above, as lists of 4 numbers
GOLDEN = [
    [float(value) for value in line.split()[1:]]
    for line in __doc__.split("UP\n")[1].splitlines()[:16]
]


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
    assert learned[10][DOWN] == pytest.approx(0.95, abs=5e-9), "one step earlier"
    assert learned[6][DOWN] == pytest.approx(0.9025, abs=5e-9), "two steps earlier"
    assert [[round(q, 8) for q in row] for row in learned] == GOLDEN
    assert evaluate_agent(lake, 99, 100, learned, []) == (1.0, 0.0), "always the goal"


# ------------------ What is a state worth? --------------------------------------------
def test_return_by_hand():
    assert qlearning.discounted_return([1, 2, 4], 0.5) == 1 + 2 * 0.5 + 4 * 0.25


def test_monte_carlo_update_by_hand():
    V = [2.0, 4.0]
    assert qlearning.monte_carlo_update(V, 0, G=5, learning_rate=0.25) == 2.75
    assert V == [2 + 0.25 * (5 - 2), 4.0], "the new value is kept"


def test_td0_update_by_hand():
    V = [2.0, 4.0]
    step = {"reward": 1, "new_state": 1, "learning_rate": 0.5, "gamma": 0.75}
    assert qlearning.td0_update(V, 0, **step, terminated=True) == 2 + 0.5 * (1 - 2)
    assert V == [1.5, 4.0], "the new value is kept"
    assert qlearning.td0_update(V, 0, **step) == 1.5 + 0.5 * (1 + 0.75 * 4 - 1.5)


# ------------------ Step 1: initialize the Q-table ------------------------------------
def test_table_has_a_row_of_its_own_for_each_state():
    table = initialize_q_table(3, 2)
    table[0][1] = 7.0
    assert table == [[0.0, 7.0], [0.0, 0.0], [0.0, 0.0]], (
        "one cell was set, and other states have changed: they share one row"
    )


def test_table_starts_at_the_initial_value_and_takes_gymnasiums_numbers():
    two = gym.spaces.Discrete(2).n
    assert type(two) is not int, "NumPy's own whole number"
    # As texts, because 20 == 20.0.
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
    state, action, reward, new_state = 0, 1, 1.0, 1
    new = td_update(table, state, action, reward, new_state, 0.5, gamma=0.75)
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
        self.coming = iter(self.lines)
        return self.start, {}

    def step(self, action):
        self.actions.append(action)
        return *next(self.coming), {}


def taught(env, Qtable=None, **changes):
    """What `train` makes of a table: one greedy episode, unless the changes say more."""
    if Qtable is None:
        Qtable = initialize_q_table(env.observation_space.n, env.action_space.n)
    one_episode = {"n_training_episodes": 1, "max_steps": 9}
    greedy = {"min_epsilon": 0, "max_epsilon": 0, "decay_rate": 0}
    return train(env=env, Qtable=Qtable, **(one_episode | greedy | changes))


def episodes_of(env, **changes):
    """What `train` tells of its episodes: (number, epsilon, steps, score) of each."""
    told = []
    taught(env, on_episode=lambda *about: told.append(about), **changes)
    return told


# Three steps, the last of which ends the episode; and a first step that ends it.
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
    told = episodes_of(Script(*WALK), n_training_episodes=2, max_steps=2)
    assert told == [(0, 0, 2, 3.0), (1, 0, 2, 3.0)]


def test_defaults_are_the_courses_learning_rate_and_gamma():
    cut = Script((1, 1.0, False, True), states=2, actions=1)
    assert taught(cut, [[0.0], [1.0]])[0] == [0.7 * (1 + 0.95)]


def test_epsilon_decays_from_episode_to_episode():
    numbers = {"min_epsilon": 0.1, "max_epsilon": 0.9, "decay_rate": 0.25}
    told = episodes_of(Script(END), n_training_episodes=3, **numbers)
    epsilons = [epsilon for _, epsilon, _, _ in told]
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
    """NumPy's zeros((states, actions)), from Gymnasium: nothing here imports NumPy."""
    return gym.spaces.Box(0, 0, (states, actions), kind).sample()


def test_training_equals_a_second_implementation_bit_for_bit():
    env, more = game("frozenlake-slippery"), {"min_learning_rate": 0.2, "seed": 3}
    expected = second_implementation(env, seed=3)
    assert any(map(any, expected)), "nothing was learned"
    for table in initialize_q_table(16, 4), array(16, 4):
        assert train(300, 0.05, 1.0, 0.01, env, 99, table, 0.6, 0.9, **more) is table
        assert [list(row) for row in table] == expected


def test_numpys_numbers_become_plain_ones():
    zero = array(1, 1, "int64")[0, 0]  # what is made from it is NumPy's as well
    new_state, reward, terminated, truncated = zero, zero * 1.0, zero != 0, zero == 0
    line = new_state, reward, terminated, truncated
    assert {type(value).__module__ for value in line} == {"numpy"}
    env, table = Script(line, states=2, actions=1), [[0.0], [0.0]]
    _, _, _, score = episodes_of(env, Qtable=table)[0]
    assert type(table[0][0]) is type(score) is float
    evaluate_agent(env, 9, 1, table, seed=[zero])
    assert type(env.seeds[-1]) is int
    env.reset()
    step = next(rollout(env, array(2, 1), zero, 9))
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
    env, scores = Script(), iter([2.0, 4.0])  # of episodes that have one step each
    env.step = lambda action: (1, next(scores), True, False, {})
    assert evaluate_agent(env, 9, 2, initialize_q_table(3, 2), []) == (3.0, 1.0)


def test_evaluation_takes_a_seed_for_each_episode():
    env, table = Script(END), initialize_q_table(3, 2)
    evaluate_agent(env, 9, 1, table, [])
    evaluate_agent(env, 9, 1, table, [7])
    evaluate_agent(env, 9, 2, table, [8, 9])
    assert env.seeds == [None, 7, 8, 9]


def test_evaluation_needs_enough_seeds_and_a_step_to_make():
    env, table = Script(END), initialize_q_table(3, 2)
    with pytest.raises(ValueError, match="^2 episodes, but only 1 seeds$"):
        evaluate_agent(env, 9, 2, table, [7])
    with pytest.raises(ValueError, match="must be 1 or more, not 2 and 0$"):
        evaluate_agent(env, 0, 2, table, [])


# ------------------ Common mistakes: one sentence, before anything is changed ---------
SIZES = "this environment needs a Q-table of 3 x 2"
REPEATS = "the Q-table repeats a row"
ROW = [0.0, 0.0]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (array(4, 2), SIZES),
        ([[0.0], [0.0, 0.0], [0.0, 0.0]], SIZES),
        ([], SIZES),
        (array(3, 2, "int64"), "an array of whole numbers rounds every update"),
        ([ROW, ROW, ROW], f"{REPEATS}: take one from initialize_q_table"),
        ([ROW, ROW, [0.0, 0.0]], REPEATS),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, sentence):
    env = Script()
    with pytest.raises(ValueError, match=f"^{sentence}"):
        taught(env, table)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        evaluate_agent(env, 9, 1, table, [])
    assert env.seeds == [], "the environment was reset"


COUNTS = "episodes and max_steps must be 1 or more, not"


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"n_training_episodes": 0}, f"{COUNTS} 0 and 9"),
        ({"max_steps": 0}, f"{COUNTS} 1 and 0"),
        ({"min_epsilon": -0.1}, "epsilon cannot go from 0.5 down to -0.1"),
        ({"min_epsilon": 0.6}, "epsilon cannot go from 0.5 down to 0.6"),
        ({"max_epsilon": 1.1}, "epsilon cannot go from 1.1 down to 0"),
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
    taught(Script((0, 1.0, True, False), states=1))  # One row repeats no other.


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_without_a_row_ends_learning_and_evaluation(state):
    table, sentence = initialize_q_table(3, 2), f"^state {state} is not from 0 to 2$"
    for env in Script(*WALK, start=state), Script((state, 1.0, False, False)):
        with pytest.raises(ValueError, match=sentence):
            taught(env, table)
        with pytest.raises(ValueError, match=sentence):
            evaluate_agent(env, 9, 1, table, [])
    assert table == initialize_q_table(3, 2), "a row was changed"


@pytest.mark.parametrize("kind", ["observation_space", "action_space"])
def test_states_and_actions_must_be_numbered_from_0(kind):
    from_1, binary = gym.spaces.Discrete(3, start=1), gym.spaces.MultiBinary(2)
    for space in from_1, binary, gym.spaces.MultiDiscrete([2, 2]):
        env = Script()
        setattr(env, kind, space)
        with pytest.raises(ValueError, match="must be numbered from 0, unlike "):
            taught(env, [])


# ------------------ The exact answers -------------------------------------------------
def test_value_iteration_finds_the_same_64_values(lake):
    table = value_iteration(lake, 0.95)
    assert [[round(q, 8) for q in row] for row in table] == GOLDEN


class Rules(Script):
    """State 0: dare a step (0), or wait (1). State 1: take 2 and stay (0), or end (1)."""

    P = (  # by state and action: (probability, new_state, reward, terminated), ...
        {0: [(0.25, 1, 4.0, True), (0.75, 1, 8.0, False)], 1: [(1.0, 0, 0.0, False)]},
        {0: [(1.0, 1, 2.0, False)], 1: [(1.0, 1, 0.0, True)]},
    )
    initial_state_distrib = (1.0, 0.0)


def test_exact_answers_by_hand():
    env = Rules(states=2)
    (dare, wait), (take, end) = value_iteration(env, 0.5)
    assert (take, end) == (pytest.approx(4), 0), "4 is 2 + 0.5 * 4"
    assert dare == pytest.approx(0.25 * 4 + 0.75 * (8 + 0.5 * 4))
    assert wait == pytest.approx(0.5 * dare)
    assert exact_score(env, 3) == 0.25 * 4 + 0.75 * (8 + 2 + 2), "dare, take, take"
    assert exact_score(env, 3, [[0, 1], [0, 0]]) == 0, "it waits in state 0"
    with pytest.raises(ValueError, match="never settle at gamma=1: take a smaller"):
        value_iteration(env, 1)


def test_exact_scores_know_the_environments_own_limit():
    env = game("frozenlake-slippery")  # Gymnasium stops it after 100 steps
    assert round(exact_score(env, 99), 4) == 0.7422
    assert exact_score(env, 99) < exact_score(env, 100) == exact_score(env, 5000)
    longer = game("frozenlake-slippery", max_episode_steps=10**9)
    assert round(exact_score(longer, 10**9), 4) == 0.8235


def value_of_start(P, exact, epsilon):
    """V(S) of epsilon-greedy about the exact table: 0, 5, 50 % random in README."""
    V = [0.0] * 16
    for _ in range(1000):
        for state, row in enumerate(qlearning.bellman_backup(P, V, 0.95)):
            greedy, at_random = row[argmax(exact[state])], statistics.fmean(row)
            V[state] = (1 - epsilon) * greedy + epsilon * at_random
    return round(V[0], 4)


def test_a_state_has_a_value_for_each_policy(lake):
    P, exact = lake.unwrapped.P, value_iteration(lake, 0.95)
    assert value_of_start(P, exact, 0.0) == 0.7738
    assert value_of_start(P, exact, 0.05) == 0.7260
    assert value_of_start(P, exact, 0.5) == 0.2763


def mean_minus_std(scores):
    """What the course ranks taxis by."""
    return round(statistics.fmean(scores) - statistics.pstdev(scores), 2)


def test_wasted_time_can_raise_mean_minus_std():
    """README has 4.85, and 5.10 for detours (-1 a step) so that no score is above 8."""
    env, exact = game("taxi"), value_iteration(game("taxi"), 0.95)
    scores = []
    for seed in qlearning.evaluation_seeds(RECIPES["taxi"]):
        steps = rollout(env, exact, env.reset(seed=seed)[0], 99)
        scores.append(sum(reward for _, _, reward, _, _ in steps))
    assert mean_minus_std(scores) == 4.85
    assert mean_minus_std([min(8, score) for score in scores]) == 5.1


# ------------------ Whose rules? ------------------------------------------------------
# What a game publishes as P may be about another game than the one that is played: under
# a wrapper that renumbers states, say, or where P is not a table of rules at all. Then an
# exact answer would be a wrong one, and there must be none.
def renumbered(lake, n_states, number):
    """A lake whose states are seen under other numbers: a function of the right ones."""
    space = gym.spaces.Discrete(n_states)
    return gym.wrappers.TransformObservation(lake, number, space)


class FrozenLakeEnv(Script):
    """A student's own game. (Gymnasium's is known by its module, not by this name.)"""

    initial_state_distrib = (1.0, 0.0, 0.0)

    def __init__(self, P):
        super().__init__(*WALK)
        self.P = P


NO_RULES = {
    "counted backwards": renumbered(game("frozenlake"), 16, lambda s: 15 - s),
    "only rows are seen": renumbered(game("frozenlake"), 4, lambda s: s // 4),
    "other rewards": gym.wrappers.TransformReward(
        game("frozenlake"), lambda r: 100 * r
    ),
    "no P": Script(*WALK),
    "P is a list of profits": FrozenLakeEnv([1.0, 2.0]),
    "P has pairs as keys": FrozenLakeEnv({(0, 0): [], (0, 1): []}),
    "P leads to a state that is none": FrozenLakeEnv([{0: [(1.0, 3, 0.0, False)]}] * 3),
}


@pytest.mark.parametrize("env", NO_RULES.values(), ids=NO_RULES.keys())
def test_rules_and_map_of_another_game_are_not_taken_for_its_own(env):
    sentence = r"publishes no rules \(P and initial_state_distrib\) for its"
    with pytest.raises(ValueError, match=sentence):
        value_iteration(env, gamma=0.95)
    with pytest.raises(ValueError, match=sentence):
        exact_score(env, max_steps=99)
    assert qlearning.map_of(env) == [] and qlearning.known_game(env) == ""


def test_wrappers_that_only_watch_or_limit_change_nothing(lake):
    watched = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.TimeLimit(lake, 50))
    assert value_iteration(watched, 0.95) == value_iteration(lake, 0.95)
    assert qlearning.map_of(watched) == ["SFFF", "FHFH", "FFFH", "HFFG"]


# ------------------ A game of one's own: its names and its map ------------------------
class OwnMap(Script):
    """A game of one's own with a map, and with names for actions and states."""

    action_names = ("LEFT", "wait")
    map_rows = ("SF", "FG")

    def __init__(self):
        super().__init__((3, 1.0, True, False), states=4)

    def state_name(self, state):
        return f"field {state}"


ROWS = "map_rows must be rows of one length, with a letter for each of the 4 states"


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("map_rows", ("SFF", "G"), ROWS),
        ("map_rows", ("SFF", "FFG"), ROWS),
        ("action_names", ["LEFT"], "1 action_names for 2 actions"),
    ],
)
def test_a_map_or_names_that_do_not_fit_are_refused(attribute, value, sentence):
    own = OwnMap()
    setattr(own, attribute, value)
    with pytest.raises(ValueError, match=sentence):
        qlearning.show_world(own, RECIPES["frozenlake"])


def test_the_largest_map_has_13_rows_and_columns():
    for n_rows, n_columns, n_shown in (13, 13, 13), (14, 13, 0), (13, 14, 0):
        env = make_env("FrozenLake-v1", desc=["S" * n_columns] * n_rows)
        assert len(qlearning.map_of(env)) == n_shown


def test_without_a_map_no_policy_is_drawn():
    with pytest.raises(ValueError, match="no map .*: show_table prints its Q-table"):
        qlearning.draw_policy(Script(*WALK), {"qtable": initialize_q_table(3, 2)})


# ------------------ Copying: the algorithm stands alone, and fits in elsewhere --------
CUT = "# ================== The algorithm ends here: copy down to here"
ABOVE, BELOW = SOURCE.split(CUT)


def started(*arguments, cwd=HERE, **variables):
    """A Python program that has begun to run, without this machine's settings."""
    settings = ("COLUMNS", "FORCE_COLOR", "PYTEST", "PYTHONWARNINGS", "TQDM")
    settings += ("DISPLAY", "WAYLAND_DISPLAY", "SDL_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    env |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"} | variables
    pipes = {"encoding": "utf-8", "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=env, **pipes)


def finished(program):
    """The exit code of a program, when it has ended, and what it printed: out and err."""
    out, err = program.communicate(timeout=300)
    return program.returncode, out, err


def only_gymnasium(code):
    """A program for which nothing is installed but Gymnasium."""
    others = ["huggingface_hub", "imageio", "imageio_ffmpeg", "pygame", "tqdm"]
    # Where `sys.modules` has None for a name, its import fails.
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
    copied = started("-c", only_gymnasium(code), cwd=tmp_path)
    assert finished(copied) == (0, f"1.0 0.0 {GOLDEN}\n", "")


def test_no_file_imports_numpy():
    for path in HERE.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) numpy\b", text, re.MULTILINE), path


def test_a_dictionary_of_rows_is_a_table_as_well():
    table = defaultdict(lambda: [0.0] * 9)
    table["X.O......"][4] = 1.0
    assert qlearning.greedy_policy(table, "X.O......") == 4
    assert epsilon_greedy_policy(table, "X.O......", 0.0) == 4
    assert epsilon_greedy_policy(table, (0, 1), 1.0, Numbers(0.5, 0.99)) == 8
    assert td_update(table, "new", 3, 1.0, "X.O......", 0.5, 0.5) == 0.5 * (1 + 0.5)
    assert table["new"] == [0, 0, 0, 0.75, 0, 0, 0, 0, 0]


def test_docstring_examples():
    examples = doctest.testmod(qlearning)
    assert examples.failed == 0 < examples.attempted


# ------------------ The recipes and the story -----------------------------------------
def test_numbers_of_the_course_to_the_letter():
    both = {"learning_rate": 0.7, "gamma": 0.95, "max_steps": 99, "max_epsilon": 1.0}
    both |= {"min_epsilon": 0.05, "n_eval_episodes": 100}
    lake = {"env_id": "FrozenLake-v1", "n_training_episodes": 10_000}
    lake |= {"decay_rate": 0.0005, "eval_seed": []}
    taxi = {"env_id": "Taxi-v3", "n_training_episodes": 25_000, "decay_rate": 0.005}
    for name, own in ("frozenlake", lake), ("taxi", taxi):
        assert (both | own).items() <= RECIPES[name].items()
    seeds = str(RECIPES["taxi"]["eval_seed"]).encode()
    assert hashlib.sha256(seeds).hexdigest()[:8] == "176ec67c", "the course's 100 seeds"


@pytest.mark.parametrize("ids", qlearning.OTHER_ID.items())
def test_a_game_that_was_renamed_is_made_by_either_name(ids):
    one, other = (make_env(env_id) for env_id in ids)
    assert one.unwrapped.P == other.unwrapped.P


def test_a_game_with_options_is_not_made_under_another_name():
    retired = next(id for id in ("Taxi-v3", "Taxi-v4") if id not in gym.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium says first that the name is old
        with pytest.raises(gym.error.Error):
            make_env(retired, is_rainy=True)


@functools.cache
def story_begun(*arguments):
    """`python qlearning.py`, begun: the long ones by `long_programs_begin_at_once`."""
    return started("qlearning.py", *arguments)


@functools.cache
def story(*arguments):
    """What `python qlearning.py` with these arguments prints, but for the seconds."""
    code, told, errors = finished(story_begun(*arguments))
    assert (code, errors) == (0, "")
    return re.sub(r"\b\d{1,3}\.\d seconds", "N seconds", told)


def holds(told, transcript):
    """Whether a story has these lines, one part after the other; `...` leaves some out."""
    parts = map(re.escape, transcript.strip("\n").split("\n...\n"))
    pattern = "^" + "$.*?^".join(parts) + "$"
    return re.search(pattern, told, re.DOTALL | re.MULTILINE) is not None


TOLD = {  # a command, and lines of its story
    "frozenlake": """
THE Q-TABLE: * the greedy action (of equal ones the first), . nothing known
state                    LEFT       DOWN      RIGHT         UP
...
The route, with the step that first reached a place:
       0       F       F       F
       1       H       F       H
       2       3       F       H
       H       4       5       6
""",
    "frozenlake-8x8": """
63                          .

THE POLICY: the greedy actions, with V(s), the value of the best one
""",
    # From 1 a bug at the ends would show. (Only from 0 the program advises to try this.)
    "frozenlake --episodes 2000 --initial-value 1": """
Their Q-values that are exact to 8 decimals: 44 of 44
Q-values of ends, which must stay as at the start: 20 of 20
...
VERDICT: All that was learned is exact.

14,777 environment steps in N seconds.
""",
    "frozenlake-slippery": """
Reward: 1 for reaching G, else 0.
Slippery: a step may slide off at a right angle to where it should go.
...
(On ice each step is luck: only on average are the TD errors near 0.)
...
Their Q-values that are exact to 8 decimals: 0 of 44
Mean distance of these Q-values from the exact ones: 0.0204
...
  0.7381 agent
  0.7381 exact table
  0.7422 best possible play (it knows how many steps are left)
VERDICT: The agent plays as well as the exact table: what is inexact costs no
score.
""",
    "taxi-exact": """
How to read 328 (3,1) Y to R: state 328, taxi in row 3, column 1, passenger at
...
+---------+
|R: | : :G|
...
ONE EPISODE: number 1 of the scored ones (reset seed 16)
...
The route, with the step that first reached a place:
       6       5       .       .       G
       8       4       .       .       .
       9       3       2       1       0
       .       .       .      13       .
       Y       .       .      14       .
...
mean - std = 4.85 (4.5 or more passes the course)
""",
    "cliffwalking": """
A bar of 40 signs is the best score to expect, -13.00; -26.00 has half a bar.
...
     500    0.056     -34.43  ███████████████
...
  →-13  →-12  →-11  →-10 →-9.5 ↓-8.6 ↓-7.7 ↓-6.8 ↓-5.9 ↓-4.9 ↓-3.9 ↓-3.0
...
After 13 steps the goal is reached. Score -13.
""",
    # An agent that never explored ends with a table that knows nothing.
    "frozenlake --episodes 1 --max-epsilon 0 --min-epsilon 0 --show-episode 100": """
ONE EPISODE: number 100 of the scored ones (reset seed 99)
...
States whose row has changed: 0 of 16
Their Q-values that are exact to 8 decimals: 0 of 0
...
VERDICT: Nothing was learned: no reward has reached the table.
""",
}


@pytest.mark.parametrize("arguments", TOLD)
def test_the_story_tells_what_happened_in_79_columns(arguments):
    told, transcript = story(*arguments.split()), TOLD[arguments]
    assert holds(told, transcript), told
    assert [line for line in told.splitlines() if len(line) > 79] == []


def shown(env, model):
    """What the story says of a world and of a model."""
    model = RECIPES["frozenlake"] | {"env_id": "Own-v0", "env_kwargs": {}} | model
    with contextlib.redirect_stdout(io.StringIO()) as out:
        qlearning.show_world(env, model)
        qlearning.show_agent(env, model)
        qlearning.show_proof(env, model)
    return out.getvalue()


def test_an_array_is_shown_like_a_list(lake, learned):
    numpys = array(16, 4) + learned
    assert shown(lake, {"qtable": numpys}) == shown(lake, {"qtable": learned})


def edited(table, *cells):
    """A copy of a table with (state, action, value) put in."""
    table = [list(row) for row in table]
    for state, action, value in cells:
        table[state][action] = value
    return table


def test_the_verdict_is_in_plain_words(lake):
    """Up from 14 goes away from the goal, and is worth 0.9025."""
    exact, nothing = value_iteration(lake, 0.95), initialize_q_table(16, 4)
    less = "1.0000 less than the exact table"
    for table, words in [
        (
            edited(exact, (14, UP, 2.0)),
            f"{less}; in states such as 14 another action is better.",
        ),
        (edited(exact, (14, UP, 0.5)), "as the exact table: what is inexact costs"),
        (edited(nothing, (14, RIGHT, 1.0)), f"{less}, where it learned nothing."),
    ]:
        told = " ".join(shown(lake, {"qtable": table}).split("VERDICT: ")[1].split())
        assert words in told
        assert "--initial-value 1" not in told, "that hint is for exact tables"


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_verdict_says_if_even_the_exact_table_fails(lake, gamma):
    """With gamma 0 all steps but one look equal, with gamma 1 waiting costs nothing."""
    told = shown(lake, {"qtable": value_iteration(lake, gamma), "gamma": gamma})
    sentence = "VERDICT: Even the exact table scores 1.0000 less than the best possible"
    assert sentence in told and "--initial-value 1" not in told


def test_a_told_episode_says_how_it_ended_and_a_long_one_is_told_in_short(lake):
    nothing = initialize_q_table(16, 4)
    told = shown(lake, {"qtable": edited(nothing, (0, RIGHT, 1), (1, DOWN, 1))})
    assert "After 2 steps it fell into a hole. Score 0." in told
    told = shown(lake, {"qtable": nothing})
    assert "After 99 steps it was cut short. Score 0." in told
    assert "\n     ... 92 steps left out ...\n  97 " in told
    assert told.count("left out") == 1


def test_a_game_of_ones_own_is_shown_as_far_as_it_is_known():
    told = shown(OwnMap(), {"qtable": [[1.0, 0.0], [0.0] * 2, [0.0] * 2, [0.0] * 2]})
    lines = [
        "4 states, 2 actions: 0 LEFT, 1 wait",
        "field 0                1.0000*    0.0000",
        "  <1.000       .",
        "   1 field 0             LEFT           1   1.0000    1.0000   +0.0000",
        "After 1 step the goal is reached. Score 1.",
        "There is no exact table: OwnMap publishes no rules (P and",
    ]
    assert [line for line in lines if line not in told.splitlines()] == []


def test_of_many_actions_the_best_ones_are_shown():
    env = Script(*WALK, actions=9)
    told = shown(env, {"qtable": [[float(a) for a in range(9)], [0.0] * 9, [0.0] * 9]})
    assert "(only the best 6 of 9 actions)" in told
    assert "action3   action4   action5   action6   action7   action8\n" in told
    assert max(map(len, told.splitlines())) <= 79


def test_a_lake_with_other_rewards_says_so():
    if "reward_schedule" not in inspect.signature(toy_text.FrozenLakeEnv).parameters:
        pytest.skip("this Gymnasium's lake has no such option")
    env = make_env("FrozenLake-v1", reward_schedule=(1, -1, -0.04))
    told = shown(env, {"qtable": initialize_q_table(16, 4)})
    assert "Rewards: [-1, -0.04, 1]" in told and "1 for reaching G" not in told


def test_where_arrows_are_missing_or_wide_there_are_letters():
    chinese = started("qlearning.py", "--episodes", "1000", PYTHONIOENCODING="gbk")
    _, told, _ = finished(chinese)
    assert "  v0.774  >0.815  v0.857  <0.815\n" in told
    assert re.search(r"^ +1000 .*  #+$", told, re.MULTILINE)


# ------------------ The command line --------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nosuch", "argument recipe: invalid choice: 'nosuch'"),
        ("--gamma 7", "gamma must be from 0 to 1, not 7.0"),
        ("--episodes 0", f"{COUNTS} 0 and 99"),
        ("--eval-episodes 0", f"{COUNTS} 0 and 99"),
        ("--show-episode 101", "--show-episode must be from 1 to 100"),
        ("--show-episode 0", "--show-episode must be from 1 to 100"),
        ("taxi --eval-episodes 101", "--eval-episodes 101: this game has only 100"),
        ("frozenlake --learn 1", "unrecognized arguments: --learn 1"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_happens(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        qlearning.main(arguments.split())
    out, err = capsys.readouterr()
    usage, error = err.split("\n", 1)
    assert (stopped.value.code, out) == (2, "")
    assert usage == "usage: qlearning.py [recipe] [options]"
    assert error.startswith(f"qlearning.py: error: {sentence}")


def test_options_replace_the_numbers_of_a_recipe():
    options = "--episodes 50 --learning-rate 0.5 --min-learning-rate 0.1 --gamma 0.9 "
    options += "--max-steps 50 --max-epsilon 0.8 --min-epsilon 0.1 --decay-rate 0.01 "
    options += "--initial-value 1 --eval-episodes 5 --seed 7"
    transcript = """
LEARNING
n_training_episodes=50, learning_rate=0.5, min_learning_rate=0.1, gamma=0.9,
max_steps=50, max_epsilon=0.8, min_epsilon=0.1, decay_rate=0.01,
initial_value=1.0, n_eval_episodes=5, seed=7
"""
    assert holds(story("frozenlake", *options.split()), transcript)


def test_list_and_help_say_what_recipes_and_options_are_for(capsys):
    told = story("--list")
    for name in RECIPES:
        assert f"{name} " in told and qlearning.LESSONS[name] in told
    with pytest.raises(SystemExit):
        qlearning.main(["taxi", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "in brackets those of taxi:" in told and "(25000)" in told
    for _, meaning in HYPERPARAMETERS.values():
        assert meaning in told


def test_runs_with_nothing_but_gymnasium():
    code = "import runpy; sys.argv = ['qlearning.py', '--episodes', '1000']; "
    code += "runpy.run_path('qlearning.py', run_name='__main__')"
    exit_code, told, errors = finished(started("-c", only_gymnasium(code)))
    assert (exit_code, errors) == (0, "")
    assert "Mean_reward=1.00 +/- 0.00" in told


def test_a_bar_in_a_notebook_and_none_in_a_pipe(monkeypatch, capsys):
    pytest.importorskip("tqdm")
    assert list(qlearning.progress_bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ipykernel", ...)  # A notebook has imported it.
    assert list(qlearning.progress_bar(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_a_reader_who_has_seen_enough_ends_it_in_peace():
    reader = started("-u", "qlearning.py")
    assert reader.stdout.readline().startswith("THE WORLD")
    reader.stdout.close()
    assert (reader.wait(60), reader.stderr.read()) == (1, "")
    reader.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_ctrl_c_ends_it_in_peace():
    # Programs that run in the background may ignore it, and so would those they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with started("-u", "qlearning.py", "--episodes", "9999999") as learner:
        try:
            assert any(line.startswith("LEARNING") for line in learner.stdout)
            learner.send_signal(signal.SIGINT)
            out, err = learner.communicate(timeout=30)
        finally:
            learner.kill()
    assert (learner.returncode, err) == (130, "\nStopped by Ctrl-C.\n")
    assert "episodes  epsilon" not in out, "it had not learned to the end"


@pytest.mark.parametrize("kind", [ValueError, OSError, RuntimeError, gym.error.Error])
def test_what_fails_is_one_line_on_stderr_and_our_own_bugs_are_not(kind, capsys):
    def fail():
        raise kind("so it is\nand more")

    assert qlearning.run(fail) == 1
    assert capsys.readouterr().err == "error: so it is\n"
    with pytest.raises(ZeroDivisionError):
        qlearning.run(lambda: 1 / 0)


def test_letters_that_an_output_lacks_are_replaced():
    code = "import qlearning; exit(qlearning.run(lambda: print('\\u96ea.gif')))"
    program = started("-c", code, PYTHONIOENCODING="ascii")
    assert finished(program) == (0, "?.gif\n", "")


# ======================================================================================
# hub_utils.py
# ======================================================================================
# ------------------ Film an episode ---------------------------------------------------
@pytest.fixture
def camera():
    return game("frozenlake", render_mode="rgb_array")


@pytest.fixture
def model(learned):
    return RECIPES["frozenlake"] | {"qtable": learned}


def frames_of(path):
    """The pictures of a film."""
    with imageio.get_reader(path) as film:
        return list(film.iter_data())


def distance(frame, other):
    """How far two pictures are apart, in shades of a pixel."""
    return abs(frame.astype("int64") - other).mean()


def nearest(frame, pictures):
    """Which of the pictures a frame shows: a film blurs it, so by the distance."""
    distances = [distance(frame, picture) for picture in pictures]
    return distances.index(min(distances))


def contents(folder):
    """The files in a folder, each name with its bytes."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["new/er/a.mp4", "a.gif"])
def test_a_film_shows_the_agent_where_it_is_after_each_step(
    tmp_path, camera, learned, name
):
    camera.reset(seed=5)
    expected = [camera.render()]
    for action in DOWN, DOWN, RIGHT, DOWN, RIGHT, RIGHT:
        camera.step(action)
        expected.append(camera.render())
    path = record_video(camera, learned, tmp_path / name, fps=2, seed=5)
    assert [nearest(frame, expected) for frame in frames_of(path)] == [*range(7)]


def test_films_play_in_browsers_as_fast_as_fps_says(tmp_path, camera, learned):
    path = record_video(camera, learned, tmp_path / "a.mp4", fps=2)
    meta = next(imageio_ffmpeg.read_frames(str(path)))
    assert (meta["codec"], meta["pix_fmt"][:7]) == ("h264", "yuv420p")
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (7, 3.5)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it plays while it still loads"
    path = record_video(camera, learned, tmp_path / "a.gif", fps=4)
    with imageio.get_reader(path) as film:
        about = [film.get_meta_data(i) for i in range(7)]
    assert [(one["duration"], one["loop"]) for one in about] == [(250, 0)] * 7


def test_an_endless_episode_ends_after_max_steps(tmp_path, camera):
    waiting = initialize_q_table(16, 4)
    path = record_video(camera, waiting, tmp_path / "a.mp4", max_steps=2)
    assert len(frames_of(path)) == 1 + 2
    path = record_video(camera, waiting, tmp_path / "a.mp4")
    assert len(frames_of(path)) == 1 + 99, "as in the course"


def test_odd_sizes_are_filmed_as_even_ones(tmp_path, camera, learned, monkeypatch):
    render = camera.render
    monkeypatch.setattr(camera, "render", lambda: render()[:51, :33])
    path = record_video(camera, learned, tmp_path / "a.mp4")
    assert frames_of(path)[0].shape == (52, 34, 3)


CANNOT_BE_FILMED = [
    ("a.avi", {}, "a film is a file that ends in .mp4 or .gif, not a.avi"),
    ("a.gif", {"fps": 0}, "fps must be from 0.01 to 100, not 0"),
    ("a.mp4", {"fps": 101}, "fps must be from 0.01 to 100, not 101"),
    ("a.gif", {"fps": 0.01}, "a .gif of over 655 seconds: take a larger --fps"),
    ("a.mp4", {"env": game("frozenlake")}, "to film, make the game with render_mode"),
    ("a.mp4", {"Qtable": [[0.0]]}, "this environment needs a Q-table of 16 x 4"),
]


@pytest.mark.parametrize(("name", "changes", "sentence"), CANNOT_BE_FILMED)
def test_what_cannot_be_filmed_is_said_and_an_older_film_stays(
    tmp_path, camera, learned, name, changes, sentence
):
    (tmp_path / name).write_bytes(b"old")
    how = {"env": camera, "Qtable": learned, "out_directory": tmp_path / name} | changes
    with pytest.raises(ValueError, match=sentence):
        record_video(**how)
    assert contents(tmp_path) == {name: b"old"}


def test_a_film_that_was_cut_short_leaves_the_older_one(
    tmp_path, camera, learned, monkeypatch
):
    (tmp_path / "a.mp4").write_bytes(b"old")
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda _: (6, 1.0))
    with pytest.raises(RuntimeError, match="ffmpeg wrote 6 of 7 frames"):
        record_video(camera, learned, tmp_path / "a.mp4")
    assert contents(tmp_path) == {"a.mp4": b"old"}


@pytest.mark.skipif(sys.platform != "linux", reason="for servers")
def test_without_a_screen_none_is_looked_for():
    code = "import os, hub_utils; print(os.environ.get('SDL_VIDEODRIVER'))"
    with_screen, without = started("-c", code, DISPLAY=":0"), started("-c", code)
    assert finished(with_screen) == (0, "None\n", "")
    assert finished(without) == (0, "dummy\n", "")


# ------------------ Draw a Q-table ----------------------------------------------------
# A map has a square of 120 x 120 pixels for each place. What it says is seen by looking at
# single points of a square: (0, 0) is its top left corner, (1, 1) the one at the bottom
# right.
PAPER, INK, ORANGE = hub_utils.PAPER, hub_utils.INK, hub_utils.ORANGE
DARKEST, PALEST = hub_utils.SHADES[-1], hub_utils.SHADES[0]


def at(picture, square, x, y):
    """The colour of a point in a square, which is given by its column and row."""
    column, row = square
    pixel = picture[round((row + y) * 120), round((column + x) * 120)]
    return tuple(int(part) for part in pixel)


def shade(picture, square, action):
    """The colour of an action's triangle, beside the number and the arrow in it."""
    points = {LEFT: (0.1, 0.35), DOWN: (0.35, 0.9), RIGHT: (0.9, 0.35), UP: (0.35, 0.1)}
    return at(picture, square, *points[action])


def has_arrow(picture, square, action):
    """Whether an action is marked as greedy, by a dark or a white arrow."""
    points = {LEFT: (0.33, 0.5), DOWN: (0.5, 0.67), RIGHT: (0.67, 0.5), UP: (0.5, 0.33)}
    return at(picture, square, *points[action]) in (INK, hub_utils.WHITE)


def is_framed(picture, square):
    """Whether a square is marked as the present state, by a frame."""
    return at(picture, square, 0.5, 0.01) == ORANGE


@pytest.fixture(scope="module")
def map_of_14(lake):
    """A map on which only state 14 is known, in column 2 and row 3."""
    table = edited(initialize_q_table(16, 4), (14, RIGHT, 1.0), (14, UP, 0.5))
    return draw_values(lake, table)


def test_dark_is_high_and_white_was_never_tried(map_of_14):
    assert map_of_14.shape == (480, 480, 3) and str(map_of_14.dtype) == "uint8"
    assert shade(map_of_14, (2, 3), RIGHT) == DARKEST, "the best value"
    assert shade(map_of_14, (2, 3), UP) == hub_utils.SHADES[2], "half as good"
    assert shade(map_of_14, (2, 3), LEFT) == PALEST, "0, which was learned"
    assert shade(map_of_14, (0, 0), RIGHT) == PAPER, "never tried: no shade"


def test_holes_and_goal_have_a_colour_of_their_own(map_of_14):
    assert at(map_of_14, (1, 1), 0.3, 0.3) == hub_utils.NO_CHOICE["H"]
    assert at(map_of_14, (3, 3), 0.2, 0.2) == hub_utils.NO_CHOICE["G"]


def test_the_first_learned_state_is_framed(map_of_14):
    squares = itertools.product(range(4), range(4))
    framed = [square for square in squares if is_framed(map_of_14, square)]
    assert framed == [(2, 3)], "state 14"


def test_arrows_mark_the_greedy_actions(lake, learned):
    picture = draw_values(lake, learned)
    for state in (0, 9, 14):
        square, best = (state % 4, state // 4), max(learned[state])
        marked = [has_arrow(picture, square, action) for action in range(4)]
        assert marked == [value == best for value in learned[state]], state


@pytest.fixture
def written(monkeypatch):
    """The texts that are written into a picture, each with its place in its square."""
    texts = {}

    def write(image, text, center, size, *_, **__):
        assert size <= 60, "it is higher than half a square"
        if text not in "SGH":  # the letters of the lake itself
            texts[text] = tuple(round(share, 2) for share in center)

    monkeypatch.setattr(hub_utils, "write", write)
    return texts


def test_numbers_stand_in_their_triangles_where_something_was_tried(lake, written):
    table = initialize_q_table(16, 4)
    table[14] = [0.1, 0.2, 1.0, 0.5]  # LEFT, DOWN, RIGHT, UP
    draw_values(lake, table)
    left, down, right, up = (0.16, 0.5), (0.5, 0.84), (0.84, 0.5), (0.5, 0.16)
    assert written == {"0.10": left, "0.20": down, "1.00": right, "0.50": up}


def test_large_numbers_have_fewer_decimals():
    texts = [hub_utils.number_text(value) for value in (0.95, 0, -12.57, -112.13)]
    assert texts == ["0.95", "0", "-12.6", "-112"]


def test_dark_shades_are_written_on_in_white():
    assert hub_utils.ink_on(PALEST) == INK
    assert hub_utils.ink_on(DARKEST) == hub_utils.WHITE


def test_of_an_optimistic_start_only_what_was_tried_has_a_number(lake, written):
    table = edited(initialize_q_table(16, 4, 1.0), (14, LEFT, 0.9))
    picture = draw_values(lake, table, initial_value=1.0)
    assert shade(picture, (2, 3), RIGHT) == PAPER, "never tried"
    assert shade(picture, (2, 3), LEFT) == DARKEST
    assert [*written] == ["0.90"]


@pytest.fixture(scope="module")
def map_of_taxi():
    """Draws the map of the exact taxi in a state."""
    taxi = game("taxi")
    exact = value_iteration(taxi, 0.95)
    return lambda state: draw_values(taxi, exact, state=state)


def test_the_map_of_the_taxi_has_its_walls(map_of_taxi):
    picture = map_of_taxi(328)
    assert picture.shape == (5 * 120 + 40, 5 * 120, 3)
    squares = (1, 0), (1, 2), (0, 3), (2, 4)
    walls = [square for square in squares if at(picture, square, 1, 0.5) == INK]
    assert walls == [(1, 0), (0, 3), (2, 4)], "right of these squares"


def test_the_map_of_the_taxi_is_that_of_a_passenger_and_a_destination(map_of_taxi):
    picture = map_of_taxi(328)  # (3,1) Y to R
    assert is_framed(picture, (1, 3))
    assert at(picture, (0, 4), 0.37, 0.37) == DARKEST, "p, at Y: pick the passenger up"
    other = map_of_taxi(329)  # (3,1) Y to G
    assert distance(picture[:600], other[:600]) > 0, "with other values"


def test_games_of_ones_own_have_a_map_and_buttons(written):
    table = [[1.0, 0.0], [0.0] * 2, [0.0] * 2, [0.0] * 2]
    picture = draw_values(OwnMap(), table)
    assert picture.shape == (240, 240, 3)
    assert shade(picture, (0, 0), LEFT) == DARKEST
    assert written["w 0"] == (0.5, 0.5), "the button for `wait`, and its value"


@pytest.mark.parametrize("row", [[1.0, -1.0], [-1.0, -2.0]])
def test_without_a_map_there_are_bars(row, written):
    table = array(3, 2, "float32")  # whose numbers are none of Python's
    table[0] = row
    picture = draw_values(Script(*WALK), table, state=0)
    assert picture.shape == (40 + 2 * 40, 600, 3)
    best, worst = picture[20], picture[60]  # the middle lines of the two bars
    # Bars begin at 140; the best is 360 pixels long, the worst 40.
    assert tuple(best[495]) == DARKEST and tuple(best[505]) == PAPER
    assert tuple(worst[175]) == PALEST and tuple(worst[185]) == PAPER
    assert tuple(best[140]) == INK != tuple(worst[140]), "the greedy action has a frame"
    places = {"action0": (0.12, 0.5), f"{row[0]:.2f}": (0.92, 0.5)}
    assert places.items() <= written.items()


def test_a_text_has_its_middle_where_it_should():
    image = hub_utils.canvas(200, 100)
    hub_utils.write(image, "text", (0.75, 0.25), 40, background=INK)
    rows, columns = (hub_utils.pixels(image)[:, :, 0] != PAPER[0]).nonzero()
    assert (columns.min() + columns.max()) / 2 == pytest.approx(150, abs=0.5)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(25, abs=0.5)


def test_the_game_is_above_a_wide_picture():
    frame = gym.spaces.Box(0, 0, (30, 60, 3), "uint8").sample()
    both = hub_utils.beside(frame, hub_utils.canvas(900, 300))
    assert both.get_size() == (900, 450 + 300)


def test_a_film_can_show_the_values_beside_the_game(tmp_path, camera, learned):
    path = record_video(camera, learned, tmp_path / "a.mp4", values=True)
    film = frames_of(path)
    assert film[0].shape == (480, 480 + 12 + 480, 3), "the game, a gap, the values"
    pictures = [draw_values(camera, learned, state=state) for state in range(16)]
    shown = [nearest(frame[:, 480 + 12 :], pictures) for frame in film]
    assert shown == [0, 4, 8, 9, 13, 14, 15], "each time the present state is framed"


# ------------------ Film the learning itself ------------------------------------------
SHORT_LAKE = RECIPES["frozenlake"] | {"n_training_episodes": 1000}


@pytest.fixture(scope="module")
def watched():
    """A short training: table, snapshots, means, and when each pair was first tried."""
    table = initialize_q_table(16, 4)
    return table, *hub_utils.watch_learning(SHORT_LAKE, table, [*range(16)])


def test_the_learning_that_is_filmed_is_the_one_that_is_not(lake, watched):
    table, snapshots, means, first_tried = watched
    assert table == learn(lake, SHORT_LAKE), "the same, bit for bit"
    assert snapshots[-1].rows == dict(enumerate(table)), "the end is reached"
    assert snapshots[-1].episode == 999 and len(means) == 1000
    assert len(first_tried) == (16 - 5) * 4, "all actions of all states but the 5 ends"
    assert first_tried[14, RIGHT] == 42, "the 43rd episode"


def test_value_is_seen_to_spread_back_from_the_goal_step_by_step(watched):
    _, snapshots, _, _ = watched
    first_seen = {}  # in which snapshot, by state
    for i, snapshot in enumerate(snapshots):
        for state, row in snapshot.rows.items():
            if max(row) > 0.005:
                first_seen.setdefault(state, i)
    assert list(first_seen)[:2] == [14, 10], "the goal's neighbour, then one step back"
    assert first_seen[14] == 1 and max(snapshots[1].rows[14]) == 0.7
    assert len(set(first_seen.values())) > 8, "not all at once"


def test_a_film_of_learning_has_at_most_60_pictures(tmp_path, monkeypatch):
    draw = mock.Mock(wraps=hub_utils.draw)  # It draws, and remembers its calls.
    write_film = mock.Mock()  # This one writes nothing.
    monkeypatch.setattr(hub_utils, "draw", draw)
    monkeypatch.setattr(hub_utils, "write_film", write_film)
    record_learning(SHORT_LAKE, tmp_path / "a.mp4", fps=3)
    drawn = [call.args[1] for call in draw.call_args_list]
    path, film, fps = write_film.call_args.args
    assert (path, len(film), fps) == (tmp_path / "a.mp4", 60, 3)
    assert film[0].shape == (480 + 2 * 40 + 110, 972, 3)
    assert {(values.low, values.high) for values in drawn} == {(0, 1)}, "one scale"
    assert len(drawn[0].tried) < len(drawn[-1].tried) == 44


def test_pictures_are_close_together_at_first_and_reach_the_end():
    assert hub_utils.spread([*range(60)]) == [*range(60)]
    chosen = hub_utils.spread([*range(1000)])
    assert len(chosen) == 60 and chosen[:5] == [*range(5)] and chosen[-1] == 999


def test_the_curve_is_a_moving_mean(watched, lake):
    scores = []
    learn(lake, SHORT_LAKE, on_episode=lambda *about: scores.append(about[3]))
    _, _, means, _ = watched
    assert means[0] == scores[0] and means[1] == sum(scores[:2]) / 2
    assert means[-1] == pytest.approx(sum(scores[-20:]) / 20), "a fiftieth of 1000"


def test_the_curve_ends_at_the_episode_of_the_moment():
    """A training is 318 pixels wide, from x = 70, and high from y = 96 up to y = 14."""
    for means, x, y in ([0, 1], 70 + 318 // 2, 14), ([1, 1, 0], 70 + 318 * 2 // 3, 96):
        curve = hub_utils.pixels(hub_utils.draw_curve(means, len(means) - 1, 400))
        assert tuple(curve[y, x]) == ORANGE


def test_the_curve_begins_where_luck_ends(written):
    # Of 100 episodes each mean is of two, but for the first: 9 is luck.
    means = [9.0, 0.0] + [1.0] * 98

    def curve(episode):
        return hub_utils.pixels(hub_utils.draw_curve(means, episode, 400))

    assert tuple(curve(0)[14, 70]) == ORANGE, "a dot at the end of the scale"
    assert not (curve(1) == hub_utils.BLUE).all(2).any(), "no line from luck to 0"
    assert tuple(curve(99)[14, 300]) == hub_utils.BLUE, "the highest mean, 1"
    assert tuple(curve(99)[96, 300]) == hub_utils.GREY, "the lowest one, 0"
    assert written == {"0": (0.09, 0.87), "1.00": (0.09, 0.13)}, "9 is not on the scale"


def test_a_caption_says_of_how_many_episodes_the_mean_is(monkeypatch):
    line_of_text = mock.Mock(wraps=hub_utils.line_of_text)
    monkeypatch.setattr(hub_utils, "line_of_text", line_of_text)
    for episode, n_episodes in (0, 1), (99, 2):
        snapshot = hub_utils.Snapshot(episode, 0.5, {})
        hub_utils.with_captions(hub_utils.canvas(400, 9), snapshot, [1.0] * 100)
        said = f"mean score of the last {n_episodes} episodes: 1.00"
        assert line_of_text.call_args.args == (said, 400)


# ------------------ A pickle is a program, and is not run -----------------------------
class Mkdir:
    """What is pickled as the call os.mkdir("owned")."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def with_table(**changes):
    """The pickle of a small model, with changes."""
    return pickle.dumps({"env_id": "x", "qtable": [[1.0]]} | changes)


CODES = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}


def assembled(*steps):
    """A pickle of protocol 4: its instructions by name, what they work on as bytes."""
    return b"\x80\x04" + b"".join(CODES.get(step, step) for step in steps)


OWNED = ["BINUNICODE", b"\5\0\0\0owned"]
CALL_MKDIR = ["GLOBAL", b"os\nmkdir\n", *OWNED, "TUPLE1", "REDUCE"]
INST_MKDIR = ["MARK", *OWNED, "INST", b"os\nmkdir\n"]
CALL_DTYPE = ["GLOBAL", b"numpy\ndtype\n", "EMPTY_TUPLE", "REDUCE"]
# x, on top of the stack, becomes (x, x), a hundred times over: 2 ** 100 values in a small
# file. Whoever copies or prints them never ends.
DOUBLED = ["BINPUT", b"\0", "BINGET", b"\0", "TUPLE2"] * 100
ENDLESS = []
ENDLESS.append(ENDLESS)
ARRAY = pickle.dumps(array(2, 2))  # its shape, 2 x 2, is written as K\2K\2
HARMFUL = [  # programs that make a folder where they are obeyed, and what is said of them
    ("a call", assembled(*CALL_MKDIR, "STOP"), "it would import 'os.mkdir'"),
    ("an old call", assembled(*INST_MKDIR, "STOP"), "a model needs no INST"),
    ("in a model", with_table(gamma=Mkdir()), "it would import '(posix|nt).mkdir'"),
]
REFUSED = [
    # what no model needs
    ("protocol 0", pickle.dumps({"env_id": "x"}, 0), "protocols 2 to 5 are read"),
    ("an odd call", assembled(*CALL_DTYPE, "STOP"), "it would call 'numpy dtype'"),
    ("nan", with_table(gamma=math.nan), "a model needs nothing like nan"),
    ("a huge number", with_table(qtable=[[10**400]]), "too large to convert to float"),
    ("other keys", pickle.dumps({1: 2}), "a dictionary with keys that are no texts"),
    # no model
    ("no name", with_table(env_id=5), "a dictionary with env_id and qtable"),
    ("no table", with_table(qtable=None), "its qtable is not a list of rows"),
    ("a text in it", with_table(qtable=[["1"]]), "its qtable has a cell that is no number"),
    ("a text", with_table(max_steps="9"), "its max_steps cannot be '9'"),
    ("no steps", with_table(max_steps=0), f"{COUNTS} 100 and 0"),
    ("gamma", with_table(gamma=1.5), "its gamma must be from 0 to 1, not 1.5"),
    ("a seed", with_table(eval_seed=[-1]), "its eval_seed is no list of whole numbers"),
    ("few seeds", with_table(eval_seed=[1]), "its eval_seed has only 1 seeds"),
    # no pickle, or not the whole of one
    ("cut off", with_table()[:-9], "no pickle, or one that was cut off"),
    ("Git LFS", b"version https://git-lfs.github.com\n", "a Git LFS pointer, not the file"),
    ("APPEND to nothing", assembled("APPEND", "STOP"), "pop from empty list"),
    ("BUILD of None", assembled("NONE", "EMPTY_DICT", "BUILD", "STOP"), "has no attribute 'state'"),
    ("an odd dtype", ARRAY.replace(b"f8", b"f0"), "numbers of the kind 'f0' are not read"),
    ("a wrong shape", ARRAY.replace(b"K\2K\2", b"K\3K\2"), "an array that is no table"),
    ("a negative one", ARRAY.replace(b"K\2K\2", b"J\xfe\xff\xff\xff" * 2), "an array that is no table"),
    ("3 dimensions", pickle.dumps(array(2, 2)[None]), "an array that is no table"),
    # work without an end
    ("10 ** 6 numbers", pickle.dumps([[[0] * 100] * 100] * 100), "more values, or deeper nested"),
    ("6 * 10 ** 5 bytes", pickle.dumps(array(1000, 600, "uint8")), "more than 500,000 values"),
    ("long texts", with_table(gamma=["x" * 1000] * 1000), "more values, or deeper nested"),
    ("in itself", pickle.dumps(ENDLESS), "more values, or deeper nested"),
    ("a key of 2 ** 100", assembled("EMPTY_DICT", "EMPTY_TUPLE", *DOUBLED, "NONE", "SETITEM", "STOP"), "keys that"),
    ("a value of 2 ** 100", assembled("EMPTY_TUPLE", *DOUBLED, "STOP"), "more values, or deeper nested"),
    ("a call of 2 ** 100", assembled("GLOBAL", b"numpy\ndtype\n", "EMPTY_TUPLE", *DOUBLED, "REDUCE", "STOP"), "call 'numpy dtype'"),
    ("long", b"\x80\x04" + b"N" * 700_000 + b".", "more than 600,000 instructions"),
    ("large", b"N" * 5_000_001 + b".", "more than 5,000,000 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "sentence"),
    [pytest.param(*row, id=what) for what, *row in HARMFUL + REFUSED],
)
def test_what_is_no_model_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, program, sentence
):
    monkeypatch.chdir(tmp_path)
    Path("m.pkl").write_bytes(program)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_model("m.pkl")
    said = str(caught.value)
    assert said.startswith("m.pkl is not a Q-learning model: ")
    assert len(said) < 250 and "\n" not in said
    assert os.listdir() == ["m.pkl"]


@pytest.mark.parametrize("program", [program for _, program, _ in HARMFUL])
def test_pickle_itself_would_have_run_the_harmful_ones(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    pickle.loads(program)
    assert os.listdir() == ["owned"]


KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


def read(data):
    """What a pickle is read as."""
    return hub_utils.plain(hub_utils.read_pickle(data))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [order + kind for order in "<>" for kind in KINDS])
def test_arrays_of_all_kinds_are_read_as_numpy_wrote_them(kind, protocol):
    table = array(3, 2).astype(kind)
    table.flat = range(6)
    for value in table, table.T, table[0], table[2, 1]:  # .T is written by columns
        data = pickle.dumps(value, protocol)
        # NumPy 1's name. (Protocols 4 and 5 write it otherwise: there nothing changes.)
        older = data.replace(b"cnumpy._core", b"cnumpy.core")
        assert read(data) == read(older) == value.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_are_read_as_pickle_reads_them(protocol):
    texts = ["", "é" * 300, *map(str, range(300))]  # too many to be counted in a byte
    numbers = [0, 255, 256, 65535, 65536, 2**31, 2**40, 2**63, -1, -(2**40), 0.1]
    tuples = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]
    others = [[], [None], {}, {"a": True}, {"b": False, "c": tuples}]
    value = [numbers, tuples, others, texts, texts[::-1]]
    as_lists = json.loads(json.dumps(value))  # the same, tuples as lists
    assert read(pickle.dumps(value, protocol)) == as_lists


# ------------------ Save and load -----------------------------------------------------
def test_what_is_saved_is_plain_lists_of_floats_for_everybody(tmp_path, model, learned):
    numpys = array(16, 4) + learned
    written = model | {"qtable": numpys, "gamma": numpys[14, 2], "eval_seed": ()}
    path = save_model(written, tmp_path / "new" / "er" / "m.pkl")
    expected = model | {"qtable": learned, "gamma": learned[14][2], "eval_seed": []}
    read = pickle.loads(path.read_bytes())
    assert read == load_model(path) == expected
    assert {type(q) for row in read["qtable"] for q in row} == {float}
    assert b"numpy" not in path.read_bytes() and type(read["gamma"]) is float
    assert written["qtable"] is numpys, "the caller's dictionary is as it was"


def test_a_large_table_is_read_and_a_larger_one_not_even_written(tmp_path, model):
    # save_model reads what it has made before it writes.
    save_model(model | {"qtable": [[0.5] * 4] * 65_536}, tmp_path / "m.pkl")
    with pytest.raises(ValueError, match="more values, or deeper nested"):
        save_model(model | {"qtable": [[0.5] * 4] * 130_000}, tmp_path / "n.pkl")
    assert os.listdir(tmp_path) == ["m.pkl"]


# ------------------ Which game? The round trip is the proof ---------------------------
class Corridor(gym.Env):
    """A game of one's own, with arguments, and with pictures."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, size=5, config=None, render_mode=None):
        self.render_mode, self.size = render_mode, size
        self.observation_space = gym.spaces.Discrete(size)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = 0
        return 0, {}

    def step(self, action):
        self.s = max(0, self.s + (1 if action == 1 else -1))
        return self.s, -1.0, self.s == self.size - 1, False, {}

    def render(self):
        return gym.spaces.Box(self.s, self.s, (16, 16, 3), "uint8").sample()


gym.register("Short-v0", Corridor, max_episode_steps=50)
gym.register("Longer-v0", Corridor, max_episode_steps=50, kwargs={"size": 7})
LAKE_ID, DESC = "FrozenLake-v1", ["SFF", "FHF", "FFG"]
DESC_LETTERS = [[*row] for row in DESC]


def made(env_id=LAKE_ID, **arguments):
    """A game with pictures."""
    return make_env(env_id, render_mode="rgb_array", **arguments)


def round_trip(env, changes, folder):
    """A model, packaged and loaded: its game's arguments, and the score in that game."""
    # The recipe says 4x4 and ice. The package must say what the game itself says.
    model = RECIPES["frozenlake-slippery"] | {"n_eval_episodes": 3} | changes
    loaded = load_model(package_model(model, env, folder))
    score, _ = qlearning.evaluate_model(make_env_from_model(loaded), loaded)
    return loaded["env_kwargs"], score


BYTES = make_env(LAKE_ID, desc=DESC).unwrapped.desc  # as Gymnasium keeps a map
NO_LIMIT, LIMIT = {"max_episode_steps": -1}, {"max_episode_steps": 20}
LAKES = {  # arguments of a lake, and what its model says of them once it is packaged
    "another map": ({"map_name": "8x8"}, {"map_name": "8x8"}),
    "an own map": ({"desc": DESC}, {"desc": DESC_LETTERS}),
    "in bytes": ({"desc": BYTES, "map_name": "8x8"}, {"desc": DESC_LETTERS}),
    "no limit": (NO_LIMIT, {"map_name": "4x4"} | NO_LIMIT),
    "another limit": (LIMIT, {"map_name": "4x4"} | LIMIT),
}


@pytest.mark.parametrize(("arguments", "says"), LAKES.values(), ids=LAKES.keys())
def test_a_packaged_lake_says_which_one_it_is_and_is_solved(tmp_path, arguments, says):
    env = made(is_slippery=False, **arguments)
    exact = {"qtable": value_iteration(env, 0.95)}
    assert round_trip(env, exact, tmp_path) == ({"is_slippery": False} | says, 1.0)


def test_of_a_random_map_the_package_has_the_letters(tmp_path):
    env = made(map_name=None, is_slippery=False)
    letters = {"desc": env.unwrapped.desc.astype(str).tolist()}
    exact = {"qtable": value_iteration(env, 0.95)}
    assert round_trip(env, exact, tmp_path) == ({"is_slippery": False} | letters, 1.0)


def to_the_right(size):
    """The table of an agent that walks through a corridor."""
    return [[0.0, 1.0] for _ in range(size)]


def test_games_of_ones_own_keep_their_arguments(tmp_path):
    config, size = {"config": {"a": [1]}}, {"size": 7}  # as Longer-v0 is registered
    walk = {"env_id": "Short-v0", "qtable": to_the_right(5)}
    assert round_trip(made("Short-v0", **config), walk, tmp_path) == (config, -4.0)
    walk = {"env_id": "Longer-v0", "qtable": to_the_right(7)}
    assert round_trip(made("Longer-v0"), walk, tmp_path / "b") == (size, -6.0)


LAKE_TABLE = value_iteration(game("frozenlake"), 0.95)
CORRIDOR = {"env_id": "Short-v0", "qtable": to_the_right(5)}
DRY = made(is_slippery=False)
BACKWARDS = renumbered(DRY, 16, lambda s: 15 - s)
BY_ROWS = renumbered(DRY, 4, lambda s: s // 4)
GENEROUS = gym.wrappers.TransformReward(DRY, lambda reward: 1.0)
NOT_PACKAGED = {  # the game, what its model says, and why it is refused
    # a wrapper makes it another game
    "rewards": (GENEROUS, {}, r"environment gives 6.00 \+/- 0.00, the one that others"),
    "states": (BACKWARDS, {"qtable": LAKE_TABLE[::-1]}, "make from this model 0.00"),
    "fewer states": (BY_ROWS, {"qtable": LAKE_TABLE[:4]}, "others cannot use this"),
    # the model is about another one
    "another game": (DRY, {"env_id": "Taxi-v3"}, f"was made as {LAKE_ID}, the model"),
    "a table": (DRY, CORRIDOR | {"env_id": LAKE_ID}, "needs a Q-table of 16 x 4"),
    "an own game": (Corridor(), CORRIDOR, "was made as no registered game, the model"),
    # something is missing, or cannot be published
    "no gamma": (DRY, {"gamma": None}, "its gamma cannot be None"),
    "a function": (
        made("Short-v0", config=len),
        CORRIDOR,
        "publish the argument config",
    ),
}


@pytest.mark.parametrize(
    ("env", "changes", "sentence"), NOT_PACKAGED.values(), ids=NOT_PACKAGED.keys()
)
def test_what_would_not_load_back_is_refused_in_a_sentence(
    tmp_path, env, changes, sentence
):
    model = RECIPES["frozenlake"] | {"n_eval_episodes": 3, "qtable": LAKE_TABLE}
    with pytest.raises(ValueError, match=sentence):
        package_model(model | changes, env, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"env_id": "os:Game-v0"}, "this Gymnasium has no game 'os:Game-v0'"),
        ({"env_kwargs": {"desc": ["SFFF"] * 5}}, "its map is larger than its table"),
        ({"env_kwargs": {"desc": 5}}, "cannot be made with {'desc': 5} for this model"),
        ({"env_kwargs": {"map_name": "8x8"}}, "for this model: .* Q-table of 64 x 4"),
    ],
)
def test_no_game_is_made_that_is_unknown_or_does_not_fit(model, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_env_from_model(model | changes)


def test_a_model_of_the_course_says_less_and_is_known(model):
    for name in "env_kwargs", "initial_value", "min_learning_rate", "seed", "eval_seed":
        del model[name]
    dry = model | {"map_name": "4x4", "slippery": False}
    for said, outcomes in (model, 3), (dry, 1):  # On ice a step can end in 3 states.
        assert len(make_env_from_model(said).unwrapped.P[0][0]) == outcomes
    assert hub_utils.game_name(dry) == "FrozenLake-v1-4x4-no_slippery"
    assert hub_utils.command_to_train(dry) == "python hub_utils.py package frozenlake"


@pytest.mark.parametrize(
    ("says", "name"),
    [
        ({"map_name": "8x8"}, "FrozenLake-v1-8x8"),
        ({"desc": DESC, "is_slippery": True}, "FrozenLake-v1-desc"),
        ({"reward_schedule": [1, 0, 0]}, "FrozenLake-v1-reward_schedule"),
        ({"max_episode_steps": 9}, "FrozenLake-v1-max_episode_steps=9"),
    ],
)
def test_the_tag_is_what_the_course_calls_the_game(model, says, name):
    assert hub_utils.game_name(model | {"env_kwargs": says}) == name


# ------------------ The package and its card ------------------------------------------
def card_of(folder):
    return hf.ModelCard((folder / "README.md").read_text("utf-8"))


@pytest.fixture
def package(tmp_path, camera, model):
    """The folder with the package of the lake's agent."""
    return package_model(model, camera, tmp_path, video_fps=2)


def test_a_package_is_six_files_about_the_agent(package, camera, model):
    assert {file.name for file in package.iterdir()} == set(FILES) and len(FILES) == 6
    extra = {"map_name": "4x4", "slippery": False}  # for the course's readers
    assert load_model(package) == model | extra
    params = json.loads((package / "params.json").read_text())
    assert params == {n: v for n, v in (model | extra).items() if n != "qtable"}
    results = json.loads((package / "results.json").read_text())
    score = {"mean_reward": 1.0, "std_reward": 0.0, "n_eval_episodes": 100}
    about = {"env_id": "FrozenLake-v1", "gymnasium": gym.__version__}
    assert (score | about).items() <= results.items()
    assert imageio_ffmpeg.count_frames_and_secs(str(package / "replay.mp4")) == (7, 3.5)
    values = imageio.imread(package / "values.png")
    assert distance(values, draw_values(camera, model["qtable"], state=0)) == 0


def test_the_card_has_the_tags_of_the_course_and_what_the_agent_is(package):
    card = card_of(package)
    tag = "FrozenLake-v1-4x4-no_slippery"
    tags = [tag, "q-learning", "reinforcement-learning", "custom-implementation"]
    assert card.data.tags == tags and card.data.pipeline_tag == "reinforcement-learning"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("mean_reward", "1.00 +/- 0.00")
    assert result.dataset_name == result.dataset_type == tag
    for line in [
        f"# Q-learning agent for {tag}",
        "4 actions in each of 16 states, and takes the action of the highest value.",
        "![The values that it has learned](values.png)",
        "- 1.00 +/- 0.00 mean +/- deviation over 100 episodes",
        "- 1.0000 exact mean of this agent within 99 steps",
        "| learning_rate | 0.7 | alpha, the share of the TD error to correct |",
        "python hub_utils.py package frozenlake",
    ]:
        assert line in card.text.splitlines(), line


def test_the_film_shows_the_first_scored_episode(tmp_path):
    env = game("taxi", render_mode="rgb_array")
    model = RECIPES["taxi"] | {"qtable": value_iteration(env, 0.95)}
    package_model(model, env, tmp_path)
    starts = []
    for seed in [*model["eval_seed"][:2], 0]:
        env.reset(seed=seed)
        starts.append(env.render())
    film = frames_of(tmp_path / "replay.mp4")
    assert nearest(film[0], starts) == 0
    _, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "replay.mp4"))
    assert seconds == len(film), "a frame a second"


def test_the_card_of_a_taxi_has_its_own_name_and_score(tmp_path):
    env = game("taxi", render_mode="rgb_array")
    model = RECIPES["taxi"] | {"qtable": value_iteration(env, 0.95)}
    (result,) = card_of(package_model(model, env, tmp_path)).data.eval_results
    assert (result.dataset_name, result.metric_value) == ("Taxi-v3", "7.56 +/- 2.71")


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"n_eval_episodes": 5}, "frozenlake --eval-episodes 5"),
        ({"seed": 3, "n_training_episodes": 9}, "frozenlake --episodes 9 --seed 3"),
        (RECIPES["taxi-exact"], "taxi-exact"),
        ({"env_kwargs": {"map_name": "5x5"}}, None),
        ({"seed": None}, None),
    ],
)
def test_the_card_has_the_command_that_trains_with_these_numbers(
    model, changes, command
):
    told = f"python hub_utils.py package {command}" if command else ""
    assert hub_utils.command_to_train(model | changes) == told


def test_the_card_s_python_runs_as_it_stands(package, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", card_of(package).text, re.DOTALL)[1]
    monkeypatch.chdir(package)
    capsys.readouterr()
    exec(code, {})  # noqa: S102
    assert capsys.readouterr().out == "1.00 +/- 0.00\n"


WORDS = "\n\nMy {own} words: 雪.\n"  # The card is made by str.format.


def test_what_the_owner_wrote_stays_over_each_new_package(package, camera, model):
    text = (package / "README.md").read_text("utf-8").rstrip("\n")
    text = text.replace("tags:\n", "license: mit\ntags:\n- mine\n", 1)
    (package / "README.md").write_text(text + WORDS, "utf-8")
    for seed in (1, 2):
        package_model(model | {"seed": seed}, camera, package)
    card = card_of(package)
    assert card.text.endswith(hub_utils.OWNER_MARK + WORDS)
    assert card.text.count("words") == 1 and "| seed | 2 |" in card.text
    assert card.data.license == "mit" and card.data.tags[-1] == "mine"


def test_a_card_without_the_mark_is_kept_below_it(tmp_path, camera, model):
    tag = "FrozenLake-v1-4x4-no_slippery"
    (tmp_path / "README.md").write_text(f"---\ntags: [{tag}]\n---\nBy hand.\n")
    for _ in range(2):
        package_model(model, camera, tmp_path)
    assert card_of(tmp_path).text.endswith(f"{hub_utils.OWNER_MARK}\n\nBy hand.\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("---\ntags: [Taxi-v3]\n---\nMy taxi.\n", "would get lost, or words in it"),
        ("---\nlicense: mit\n---\n", "would get lost, or words in it"),
        ("---\ntags: [\n---\n", "README.md cannot be read"),
    ],
)
def test_no_words_get_lost(tmp_path, camera, model, text, sentence):
    (tmp_path / "README.md").write_bytes(text.encode())
    with pytest.raises(ValueError, match=sentence):
        package_model(model, camera, tmp_path)
    assert contents(tmp_path) == {"README.md": text.encode()}


def test_all_or_none_of_a_package_is_there(package, camera, model, monkeypatch):
    before = contents(package)
    monkeypatch.setattr(hub_utils, "record_video", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        package_model(model | {"seed": 5}, camera, package)
    assert contents(package) == before


# ------------------ The Hub on loopback -----------------------------------------------
# A real HTTP server, to which the real huggingface_hub speaks; on a first reading it may be
# taken on trust. For each kind of request that the client makes there is a short method,
# and a table says which one.
TOKENS = {"hf_write": "write", "hf_read": "read"}  # Ann's, who is also in the club
LARGE = (".pkl", ".mp4", ".png")  # how the names of large files (Git LFS) end


class Refused(Exception):
    """What the Hub answers if it says no: a status, and a code that the client knows."""

    def __init__(self, status, code=""):
        self.status, self.code = status, code


class Hub(ThreadingHTTPServer):
    """The repos: each a list of commits, and a commit is a dictionary: path -> content."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.private, self.large_files = {}, set(), {}
        self.requests, self.messages = [], []
        self.failures = {}  # a pattern of requests -> what happens before the answer
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def stop(self):
        """From now on nobody answers."""
        self.shutdown()
        self.server_close()

    def commit(self, repo, files):
        """Add a commit, to a new repo if need be; its id comes back."""
        commits = self.repos.setdefault(repo, [{}])
        commits.append(commits[-1] | files)
        return self.find(repo)[0]

    def find(self, repo, revision="main"):
        """The id of a commit, which is its number in 40 digits, and its files."""
        commits = self.repos[repo]
        number = len(commits) if revision == "main" else int(revision)
        return f"{number:040}", commits[number - 1]


class Request(BaseHTTPRequestHandler):
    """One request: it is read, answered by one of the methods below, and sent back."""

    def do_GET(self):
        self.hub, self.answer_headers = self.server, {}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            status, content = 200, self.answer()
        except Refused as refused:
            status, content = refused.status, b""
            self.answer_headers["X-Error-Code"] = refused.code
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.answer_headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        self.answer_headers["Content-Length"] = len(content)
        self.send_response(status)
        for name, value in self.answer_headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self):
        """The content of the answer: bytes, or what is sent as JSON."""
        request = f"{self.command} {self.path.split('?')[0]}"
        self.hub.requests.append(request)
        for pattern, happen in self.hub.failures.items():
            if re.match(pattern, request):
                happen()
        if self.token and self.token not in TOKENS:
            raise Refused(401)
        if self.command == "POST" and TOKENS.get(self.token) != "write":
            raise Refused(403)
        for pattern, method in METHODS.items():
            if found := re.fullmatch(pattern, request):
                return method(self, *found.groups())
        raise Refused(404)

    def log_message(self, *_):
        """Stderr belongs to the program under test."""

    def lines(self):
        """The lines of JSON that were sent. A commit has many, all else has one."""
        return [json.loads(line) for line in self.body.splitlines()]

    def who_am_i(self):
        user = {"type": "user", "name": "ann", "orgs": [{"name": "club"}]}
        return user | {"auth": {"accessToken": {"role": TOKENS[self.token]}}}

    def accept_card(self):
        return {"errors": [], "warnings": []}

    def create_repo(self):
        (asked,) = self.lines()
        repo = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        self.hub.repos[repo] = [{}]
        # Newer clients say visibility, older ones private.
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        return {"url": f"{self.hub.url}/{repo}"}

    def find_if_seen(self, repo, revision="main"):
        """`Hub.find`, if the token may see this repo."""
        is_hidden = repo in self.hub.private and not self.token
        if repo not in self.hub.repos or is_hidden:
            raise Refused(404 if self.token else 401, "RepoNotFound")
        return self.hub.find(repo, revision)

    def tell_about(self, repo):
        commit_id, files = self.find_if_seen(repo)
        about = {"id": repo, "sha": commit_id, "private": repo in self.hub.private}
        return about | {"siblings": [{"rfilename": path} for path in files]}

    def download(self, repo, revision, path):
        self.answer_headers["X-Repo-Commit"], files = self.find_if_seen(repo, revision)
        if path not in files:
            raise Refused(404, "EntryNotFound")
        return files[path]

    # A push asks which files are large, and where to send them; it sends them; and the
    # commit brings the small ones along.
    def say_which_are_large(self, repo):
        (asked,) = self.lines()
        for file in asked["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            file |= {"uploadMode": mode, "shouldIgnore": False}
        return asked

    def say_where_to_send(self, repo):
        (asked,) = self.lines()
        for file in asked["objects"]:
            link = {"href": f"{self.hub.url}/large/{file['oid']}"}
            file["actions"] = {"upload": link}
        return {"transfer": "basic", "objects": asked["objects"]}

    def take_large_file(self, oid):
        self.hub.large_files[oid] = self.body
        return b""

    def take_commit(self, repo):
        files = {}
        about, *sent = [line["value"] for line in self.lines()]
        if about.get("parentCommit") not in (None, self.find_if_seen(repo)[0]):
            raise Refused(412)
        for file in sent:
            if file["path"].endswith(LARGE):
                files[file["path"]] = self.hub.large_files[file["oid"]]
            else:
                files[file["path"]] = base64.b64decode(file["content"])
        self.hub.messages.append(about["summary"])
        commit_id = self.hub.commit(repo, files)
        return {"commitOid": commit_id, "commitUrl": f"{self.hub.url}/{repo}"}


METHODS = {  # by request; what is in brackets are the arguments
    "GET /api/whoami-v2": Request.who_am_i,
    "POST /api/validate-yaml": Request.accept_card,
    "POST /api/repos/create": Request.create_repo,
    "GET /api/models/([^/]+/[^/]+)(?:/revision/.*)?": Request.tell_about,
    "(?:GET|HEAD) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)": Request.download,
    "POST /api/models/(.+)/preupload/main": Request.say_which_are_large,
    "POST /(.+).git/info/lfs/objects/batch": Request.say_where_to_send,
    "PUT /large/(.+)": Request.take_large_file,
    "POST /api/models/(.+)/commit/main": Request.take_commit,
}


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A Hub of the test's own, and a client that knows it, and a token in its home."""
    hub, home = Hub(), tmp_path_factory.mktemp("home")
    (home / "token").write_text("hf_write")
    for name in "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN":
        monkeypatch.delenv(name, raising=False)
    for name in "NO_PROXY", "no_proxy":
        monkeypatch.setenv(name, "*")
    # All addresses and folders that the client knows are to be those of this test.
    page = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in [
        ("ENDPOINT", hub.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", page),
        ("HF_HUB_CACHE", str(home / "hub")),
        ("HF_TOKEN_PATH", str(home / "token")),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
    ]:
        monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(file_download, name, value, raising=False)  # an older copy
    close = getattr(hf.utils, "close_session", None) or hf.utils.reset_sessions
    close()  # a connection keeps the settings that it was made with
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's tries
    hub.home = home
    yield hub
    close()
    hub.stop()


# ------------------ Push and load -----------------------------------------------------
@pytest.fixture
def push(tmp_path, camera, model):
    """Push the model, by default as ann/lake."""

    def push(repo_id="ann/lake", seed=0, **options):
        changed = model | {"seed": seed}
        return push_to_hub(repo_id, changed, camera, 1, tmp_path / "hub", **options)

    return push


def test_a_push_is_one_commit_of_the_six_files(hub, push, tmp_path):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    push()
    _, commit = hub.repos["ann/lake"]
    assert contents(tmp_path / "hub") == commit | {"notes.txt": b"mine"}
    large = {commit[name] for name in FILES if name.endswith(LARGE)}
    assert {*hub.large_files.values()} == large
    assert hub.messages == ["Upload a Q-learning agent"] and hub.private == set()


def test_a_push_tells_the_score_and_the_page_and_loads_back(hub, push, model, capsys):
    assert push() == f"{hub.url}/ann/lake"
    told = f"Mean_reward=1.00 +/- 0.00\nYour model is on the Hub: {hub.url}/ann/lake\n"
    assert capsys.readouterr().out == told
    _, files = hub.find("ann/lake")
    assert b'model = load_from_hub("ann/lake")\n' in files["README.md"]
    assert b"\n- name: lake\n" in files["README.md"], "the model's name"
    assert load_from_hub("ann/lake")["qtable"] == model["qtable"]


def test_message_privacy_and_organization_are_as_asked_for(hub, push):
    hub.commit("ann/lake", {})  # somebody has made it, without a card
    push(private=False)
    push("club/lake", commit_message="better", private=True)
    for repo_id, private in ("ann/lake", True), ("club/lake", False):
        with pytest.raises(ValueError, match=f"{repo_id} is .*: change that in its"):
            push(repo_id, private=private)
    assert hub.messages == ["Upload a Q-learning agent", "better"]
    assert hub.private == {"club/lake"}


def test_what_is_written_on_the_website_stays(hub, push, tmp_path):
    push()
    text = hub.find("ann/lake")[1]["README.md"].decode().rstrip("\n")
    hub.commit("ann/lake", {"README.md": f"{text}{WORDS}".encode()})
    push(seed=4)  # here is the card without the words,
    push(seed=5)  # now with them,
    shutil.rmtree(tmp_path / "hub")
    push(seed=6)  # and now none
    text = hub.find("ann/lake")[1]["README.md"].decode()
    assert text.endswith(hub_utils.OWNER_MARK + WORDS) and "| seed | 6 |" in text


def test_words_that_are_only_here_are_not_lost_for_those_on_the_hub(
    hub, push, tmp_path
):
    push()
    card = tmp_path / "hub" / "README.md"
    text = card.read_text("utf-8").rstrip("\n") + WORDS
    card.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="would get lost, or words in it"):
        push()
    assert card.read_text("utf-8") == text and len(hub.messages) == 1


def test_what_is_pushed_by_somebody_else_meanwhile_is_not_overwritten(hub, push):
    push()
    hub.failures["POST .*/preupload/"] = lambda: hub.commit("ann/lake", {"x": b"new"})
    with pytest.raises(OSError, match=r"\b412\b"):
        push(seed=5)
    assert hub.messages == ["Upload a Q-learning agent"]


CANNOT_BE_PUSHED = [
    ("hf_write", "bob/lake", "bob/lake: it must begin with ann/ or club/"),
    ("hf_read", "ann/lake", "your token can only read: make one with the write role"),
    ("", "ann/lake", "there is no token: run `hf auth login`, in a notebook"),
    ("hf_old", "ann/lake", "(?:[Ii]nvalid (user token|credentials)|401)"),
]


@pytest.mark.parametrize(("token", "repo_id", "sentence"), CANNOT_BE_PUSHED)
def test_what_cannot_be_pushed_is_known_before_training(
    hub, tmp_path, monkeypatch, capsys, token, repo_id, sentence
):
    monkeypatch.setattr(qlearning, "learn", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.chdir(tmp_path)
    (hub.home / "token").write_text(token)
    assert hub_utils.main(["push", "frozenlake", "--repo-id", repo_id]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.match(f"error: .*{sentence}", err) and err.count("\n") == 1
    assert "hf_" not in err and hub.repos == {} and os.listdir() == []


NOT_SEEN = "no ann/lake on the Hub, for your token"


@pytest.mark.parametrize(
    ("step", "answer", "sentence"),
    [
        ("GET .*/ann/lake", Refused(403), r"\b403\b"),
        # What is said of a private repo to a token that may not see it
        ("GET .*/ann/lake", Refused(401, "RepoNotFound"), NOT_SEEN),
        ("HEAD .*README.md", Refused(500), "no connection"),  # so the client says here
        ("POST .*/commit", Refused(500), r"\b500\b"),
    ],
)
def test_what_the_hub_refuses_is_said_and_nothing_is_pushed(
    hub, push, step, answer, sentence
):
    hub.commit("ann/lake", {"README.md": b"---\ntags: [x]\n---\nWords.\n"})
    before = hub.repos["ann/lake"].copy()

    def refuse():
        raise answer

    hub.failures[step] = refuse
    with pytest.raises(OSError, match=sentence):
        push()
    assert hub.repos == {"ann/lake": before}


def test_what_is_missing_too_large_or_harmful_is_not_loaded(hub):
    with pytest.raises(FileNotFoundError, match=NOT_SEEN):
        load_from_hub("ann/lake")
    hub.commit("ann/lake", {"q-learning.pkl": bytes(5_000_001)})
    with pytest.raises(FileNotFoundError, match="or no such file in it"):
        load_from_hub("ann/lake", "other.pkl")
    with pytest.raises(ValueError, match="q-learning.pkl of ann/lake is larger"):
        load_from_hub("ann/lake")
    assert "GET /ann/lake/resolve/main/q-learning.pkl" not in hub.requests
    hub.commit("ann/lake", {"q-learning.pkl": HARMFUL[0][1]})
    with pytest.raises(ValueError, match="is not a Q-learning model: it would import"):
        load_from_hub("ann/lake")


def test_a_private_model_needs_a_token(hub, push):
    push(private=True)
    (hub.home / "token").unlink()
    with pytest.raises(FileNotFoundError, match=NOT_SEEN):
        load_from_hub("ann/lake")
    push(seed=5, private=True, token="hf_write")  # A token that is given is enough.
    assert load_from_hub("ann/lake", token="hf_read")["seed"] == 5


def test_without_a_connection_there_is_the_copy_of_before(hub, push):
    push()
    loaded = load_from_hub("ann/lake")
    hub.stop()
    assert load_from_hub("ann/lake") == loaded
    with pytest.raises(ConnectionError, match="no connection to the Hub .HF_ENDPOINT"):
        load_from_hub("ann/other")
    with pytest.raises(ConnectionError, match="no connection to the Hub"):
        push()


# ------------------ The command line of hub_utils -------------------------------------
def test_package_push_and_load_tell_the_score_and_the_place(hub, tmp_path, capsys):
    folder = str(tmp_path / "a")
    to_folder = ["frozenlake", "--episodes", "1000", "--folder", folder]
    for arguments, told in [
        (["package", *to_folder], f"{folder}\n"),
        (["push", *to_folder, "--repo-id", "ann/lake"], f"{hub.url}/ann/lake"),
        (["load", folder], "THE WORLD: FrozenLake-v1 {'map_name': '4x4', 'is_sl"),
        (["load", f"{folder}/q-learning.pkl"], "THE PROOF: "),
        (["load", "ann/lake"], "VERDICT: "),
    ]:
        assert hub_utils.main(arguments) == 0
        out = capsys.readouterr().out
        assert "Mean_reward=1.00 +/- 0.00\n" in out and told in out


def record(arguments, path):
    """Run `hub_utils.py record` with these arguments; the path comes back."""
    assert hub_utils.main(["record", *arguments.split(), str(path)]) == 0
    return path


def test_record_films_an_episode_and_draws_the_table_of_this_training(tmp_path):
    name, ice = "frozenlake-slippery", "frozenlake-slippery --episodes 100"
    env = game(name)
    table = learn(env, RECIPES[name] | {"n_training_episodes": 100})
    for episode in 1, 2:
        film = record(f"{ice} --show-episode {episode}", tmp_path / "a.mp4")
        steps = rollout(env, table, env.reset(seed=episode - 1)[0], 99)
        assert len(frames_of(film)) == 1 + len(list(steps))
    film = record(f"{ice} --values", tmp_path / "a.mp4")
    assert frames_of(film)[0].shape[1] == 480 + 12 + 480, "the values are beside it"
    picture = record(ice, tmp_path / "new" / "er" / "a.png")
    assert distance(imageio.imread(picture), draw_values(env, table, state=0)) == 0


NO_FILE = "error: .* is no file, and no NAME/REPO on the Hub"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("record frozenlake .", 1, "error: a film is a file that ends in .mp4"),
        ("record frozenlake file/a.gif", 1, "error: .*[Ff]ile.*exists"),  # no folder
        ("record frozenlake a.png --learning", 1, "error: a film is a file that ends"),
        ("package taxi --folder file", 1, "error: .*file"),
        ("package taxi --folder .", 1, "error: .* would get lost, or words in it"),
        ("push taxi", 2, "the following arguments are required: --repo-id"),
        ("load nothing", 1, NO_FILE),
        ("load my-agent/q-learning.pkl", 1, NO_FILE),
        ("", 2, "the following arguments are required: command"),
    ],
)
def test_what_can_be_wrong_is_said_before_anything_is_trained(
    tmp_path, monkeypatch, capsys, arguments, code, sentence
):
    monkeypatch.setattr(qlearning, "learn", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("README.md").write_text("# My project\n")
    try:
        assert hub_utils.main(arguments.split()) == code
    except SystemExit as stopped:
        assert stopped.code == code
    out, err = capsys.readouterr()
    assert out == "" and re.search(sentence, err) and "Traceback" not in err
    assert set(os.listdir()) == {"file", "README.md"}


@pytest.fixture
def loaded(tmp_path, capsys):
    """What `hub_utils.py load` prints of a model: stdout and stderr."""

    def load(model):
        path = save_model(model, tmp_path / "m.pkl")
        assert hub_utils.main(["load", str(path)]) == 0
        return capsys.readouterr()

    return load


def test_a_model_that_claims_endless_games_is_shown_in_seconds(loaded, model):
    claims = {"n_eval_episodes": 10**9, "max_steps": 10**9}
    out, err = loaded(model | claims | {"env_kwargs": {"max_episode_steps": -1}})
    assert err == "note: at most 200 episodes of 1000 steps are played\n"
    assert "THE SCORE: 200 greedy episodes" in out
    assert "from all starts in 1000 steps" in out


def test_of_a_large_table_only_some_rows_and_no_proof_are_shown(loaded, model):
    lake = {"desc": ["S" * 50] * 50}
    out, _ = loaded(model | {"env_kwargs": lake, "qtable": [[0.5] * 4] * 2_500})
    assert "THE SCORE: " in out and "THE PROOF" not in out and len(out) < 5000


def test_a_model_with_nothing_but_a_table_is_shown(loaded, learned):
    out, _ = loaded({"env_id": "FrozenLake-v1", "qtable": learned})
    assert "THE SCORE: 100 greedy episodes" in out and "\nSlippery: " in out


# ======================================================================================
# README: all that it shows is run, and compared with what it says
# ======================================================================================
# ------------------ README's blocks: Python, commands, transcripts --------------------
GITHUB = HERE / ".github"
with_github = pytest.mark.skipif(not GITHUB.exists(), reason="a copy without .github")
README = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```\n", README, re.DOTALL | re.MULTILINE)


def test_every_block_of_readme_is_looked_at():
    assert README.count("\n```") == 2 * len(BLOCKS), "a block that the pattern missed"
    assert {language for language, _ in BLOCKS} == {"python", "sh", "text"}
    for (language, _), (next_language, _) in itertools.pairwise(BLOCKS):
        if language == "python":
            assert next_language == "text", "Python without its output"


# A block of Python, and the block that follows it: its output.
PYTHON = [
    (code, output)
    for (language, code), (_, output) in itertools.pairwise(BLOCKS)
    if language == "python"
]
OUTPUTS = [output for _, output in PYTHON]


@pytest.fixture(scope="session")
def blocks_begun(tmp_path_factory):
    """README's blocks of Python, each in a folder of its own; all begin at once."""
    folders = [tmp_path_factory.mktemp("block") for _ in PYTHON]
    return [
        started("-c", code, cwd=folder, PYTHONPATH=str(HERE))
        for folder, (code, _) in zip(folders, PYTHON)
    ]


@pytest.mark.parametrize("i", range(len(PYTHON)))
def test_readme_python_prints_what_readme_says(i, blocks_begun):
    assert finished(blocks_begun[i]) == (0, OUTPUTS[i], "")


# The commands for hub_utils.py that need no Hub: "record frozenlake values.png", say
SHELL = "".join(text for language, text in BLOCKS if language == "sh")
COMMANDS = re.findall(r"^python hub_utils\.py (?!.*NAME)(.*)$", SHELL, re.MULTILINE)


@pytest.fixture(scope="session")
def commands_begun(tmp_path_factory):
    """A folder, and README's commands at work in it, all but `load`, which has to wait."""
    folder = tmp_path_factory.mktemp("commands")
    commands = [command.split() for command in COMMANDS[:-1]]
    return folder, [started(HERE / "hub_utils.py", *c, cwd=folder) for c in commands]


def test_readme_commands_do_what_readme_says(commands_begun):
    folder, programs = commands_begun
    for program in programs:
        code, told, errors = finished(program)
        assert (code, errors) == (0, "") and told
    assert COMMANDS[-1] == "load my-agent"
    loading = started(HERE / "hub_utils.py", "load", "my-agent", cwd=folder)
    code, told, errors = finished(loading)
    assert (code, errors) == (0, "") and "Mean_reward=1.00 +/- 0.00" in told
    names = ["frozenlake.gif", "learning.gif", "values.png"]
    assert {file.name for file in folder.iterdir()} == {*names, "my-agent"}
    if GITHUB.exists():
        check_pictures(folder, names)


@pytest.fixture(scope="session", autouse=True)
def long_programs_begin_at_once(request):
    """They run beside the first tests, unless only some tests were asked for."""
    if len(request.session.items) > 200:  # of nearly 400
        for name in "taxi", "taxi-exact", "frozenlake-slippery", "frozenlake-8x8":
            story_begun(name)
        request.getfixturevalue("blocks_begun")
        request.getfixturevalue("commands_begun")


def test_readme_transcripts_are_what_the_program_prints():
    texts = [text for kind, text in BLOCKS if kind == "text" and text not in OUTPUTS]
    # The text that starts with step 1 is the pseudocode.
    transcripts = [text for text in texts if not text.startswith("Step 1 ")]
    assert len(transcripts) >= 5
    for text in transcripts:
        assert holds(story("frozenlake"), text) or holds(story("taxi"), text), text


# ------------------ README's tables ---------------------------------------------------
def test_readme_shows_lines_of_the_code():
    table = README.split("\n| Step | Pseudocode | ")[1].split("\n\n")[0]
    shown = re.findall(r"`([^`]*)` \|$", table, re.MULTILINE)[1:]
    source = [line.strip() for line in SOURCE.splitlines()]
    assert len(shown) == 11 and [line for line in shown if line not in source] == []
    (heading,) = [line for line in source if line.startswith(CUT)]
    assert f"`{heading}`" in README


def test_readme_s_rules_of_the_corridor_are_those_of_its_steps():
    """Section 8 has them in three lines; this corridor is the same game."""
    env = Corridor(6)
    lines = re.findall(
        r"`(def to\(.*?|self\.(?:P|initial_state_distrib) = .*?)`", README
    )
    exec("\n".join(lines), {"self": env, "size": 6})  # noqa: S102
    for state, action in itertools.product(range(5), range(2)):
        env.s = state
        new_state, reward, terminated, _, _ = env.step(action)
        assert env.P[state][action] == [(1.0, new_state, reward, terminated)]
    assert exact_score(env, 99) == -5.0


def test_a_pasted_function_needs_only_what_readme_says():
    """Section 9 has a table: a function, and the modules and functions that it needs."""
    table = README.split("\n| function | imports | functions |\n")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row) for row in table.splitlines()[1:]]
    ours = vars(qlearning)  # all names of the file
    for pasted in [*rows, ["td_update"]]:
        for name in pasted:
            if inspect.isfunction(ours[name]):
                nodes = ast.walk(ast.parse(inspect.getsource(ours[name])))
                used = {node.id for node in nodes if isinstance(node, ast.Name)}
                missing = (used & ours.keys()) - {*pasted}
                assert not missing, name


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"frozenlake-8x8-slippery"}))
def test_readme_results_are_what_the_program_prints(name):
    """The recipe that takes longest is left out here: .ci/run measures all of them."""
    row = rf"^\| `{name}` \| (\S+) \| (.*) \| (\S+), \S+ \| (\S+) \|$"
    ((steps, score, worst, best),) = re.findall(row, README, re.MULTILINE)
    told = story(name)
    assert f"\nMean_reward={score}\n" in told
    assert f"\n  {best} best possible play" in told
    assert f"\n{steps} environment steps" in told
    expected = re.search(r"^  (\S+) agent$", told, re.MULTILINE)[1]
    assert float(expected) >= float(worst), "the worst of ten, as .ci/run measures it"


# ------------------ README's exercises: break it, and a test turns red -----------------
# | # | bug | `what stands there` | `the bug` | `test that turns red` | Mean_reward |
BUG = r"^\| \d+ \| .*? \| `(.*?)` \| `(.*?)` \| `(test_\w+)` \| (.*?) \|$"
BUGS = re.findall(BUG, README, re.MULTILINE)


@pytest.fixture(scope="module")
def exercises_begun(tmp_path_factory):
    """A folder for each bug, and `python qlearning.py` there; all begin at once."""
    assert len(BUGS) == README.count("` | `test_") == 9
    folders = [tmp_path_factory.mktemp("bug") for _ in BUGS]
    for folder, (right, wrong, _, _) in zip(folders, BUGS):
        assert SOURCE.count(right) == 1
        (folder / "qlearning.py").write_text(SOURCE.replace(right, wrong), "utf-8")
        for name in ("hub_utils.py", "test_qlearning.py", "README.md"):
            shutil.copy(HERE / name, folder)
    return [(folder, started("qlearning.py", cwd=folder)) for folder in folders]


@pytest.mark.parametrize("i", range(9))
def test_every_exercise_turns_its_test_red_and_says_why(i, exercises_begun):
    _, _, test, score = BUGS[i]
    folder, program = exercises_begun[i]
    # (With plain asserts pytest starts sooner.)
    run = ["-m", "pytest", "-q", "--assert=plain", f"test_qlearning.py::{test}"]
    _, said, _ = finished(started(*run, cwd=folder))
    assert f"\nFAILED test_qlearning.py::{test}" in said, said
    # Six words or more that are not pytest's own `assert ...`
    sentence = r"^E +AssertionError: (?!assert\b)\w\S*( \S+){5}"
    assert re.search(sentence, said, re.MULTILINE), "it does not say what is wrong"
    _, told, _ = finished(program)
    scores = re.findall("^Mean_reward=(.*)", told, re.MULTILINE)
    assert (scores or ["an error"]) == [score]


# ------------------ The Chinese README is as new as the English one -------------------
def sections(text):
    """The sections of a README from heading to heading (the title is in the first)."""
    return re.split(r"^(?=##+ )", text, flags=re.MULTILINE)


def facts(section):
    """What a section and its translation must have in common."""
    block = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    prose = re.sub(r"<!--.*?-->", "", block.sub("", section))
    return {
        "blocks": block.findall(section),
        "links": Counter(re.findall(r"(?:\]\(|<)(http.*?)[)>]", prose)),
        "numbers": Counter(re.findall(r"[0-9]+(?:[.,][0-9]+)*", prose)),
    }


@with_github
def test_chinese_readme_is_as_new_as_the_english_one():
    chinese = (GITHUB / "README.zh-CN.md").read_text(encoding="utf-8")
    pairs = itertools.zip_longest(sections(README), sections(chinese), fillvalue="")
    for english, translated in pairs:
        name, found = english.partition("\n")[0], facts(translated)
        for fact, value in facts(english).items():
            assert found[fact] == value, f"{name}: the {fact} differ"
        stamp = f"<!-- README: {hashlib.sha256(english.encode()).hexdigest()[:8]} -->"
        assert stamp in translated, (
            f"{name}: has changed; translate what is new, then stamp it {stamp}"
        )


@with_github
@pytest.mark.parametrize("path", [HERE / "README.md", GITHUB / "README.zh-CN.md"])
def test_links_within_the_project_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    names = [part.splitlines()[0].lstrip("# ").lower() for part in sections(text)]
    # GitHub's anchor of a heading: lower case, no punctuation, hyphens for blanks
    anchors = {"#" + re.sub(r"[^\w\- ]", "", name).replace(" ", "-") for name in names}
    for link in re.findall(r"\]\(((?!http).*?)\)", text):
        assert link in anchors or (path.parent / link).is_file(), link


# ------------------ README's pictures, drawn anew -------------------------------------
def blocks(frame):
    """The mean colour of each 20 x 20 pixels: letters hardly matter, shades do."""
    height, width = (size // 20 for size in frame.shape[:2])
    frame = frame[: height * 20, : width * 20, :3].astype("float64")
    in_blocks = frame.reshape(height, 20, width, 20, 3)
    return in_blocks.mean((1, 3))  # over the two axes of 20 pixels


def check_pictures(folder, names):
    """That pictures look like README's, but for the game: each Gymnasium's is different."""
    for name in names:
        shown, drawn = imageio.mimread(GITHUB / name), imageio.mimread(folder / name)
        assert len(shown) == len(drawn), name
        if name in ("frozenlake.gif", "taxi.gif"):
            continue  # only the game is in them
        left = 500 if name == "learning.gif" else 0  # The game is left of this.
        for before, now in zip(shown, drawn):
            gap = abs(blocks(before[:480, left:]) - blocks(now[:480, left:]))
            assert gap.max() < 40, name


@with_github
def test_no_picture_of_readme_is_stale(tmp_path):
    pictures = runpy.run_path(str(HERE / ".ci" / "pictures.py"))
    pictures["draw_other_pictures"](tmp_path)
    check_pictures(tmp_path, [path.name for path in tmp_path.iterdir()])
    shown = set(re.findall(r"\]\(\.github/(\w+\.(?:gif|png))\)", README))
    files = {path.name: path.stat().st_size for path in GITHUB.iterdir() if path.suffix}
    assert shown == files.keys() - {"README.zh-CN.md"}
    assert files["learning.gif"] < 1_000_000 and sum(files.values()) < 3_000_000
