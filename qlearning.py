"""Tabular Q-learning in plain Python: learn what every action is worth in every state.

    python qlearning.py            learn to cross a frozen lake, compare with the exact answer
    python qlearning.py --list     the other games; then, say, python qlearning.py taxi

Down to the line "The algorithm ends here" Q-learning is complete. That part needs no
package but a game to play (with tqdm it shows a progress bar). The rest shows what was
learned, and compares it.
[book]: Sutton & Barto, 2nd edition; [course]: Hugging Face Deep RL Course, Unit 2.
The words, each with one meaning:

    state s, action a, reward r, new_state s'    one step of an episode
    terminated       the game itself is over: nothing follows, the future is worth 0
    truncated        somebody cut the episode short: the future keeps its value
    return G         the rewards to come; one that comes k steps later counts gamma^k
    gamma            the discount factor: what a reward is worth one step later
    score            the rewards of an episode just added up, without gamma
    V[s]             value of a state: the return to expect from there
    Qtable[s][a]     value of an action in a state; a row of numbers for each state
    learning_rate    alpha, the share of the TD error that one update corrects
    epsilon          the probability of a random action while learning
    TD target        r + gamma * (value of what follows);  TD error = target - estimate
"""

import math
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Env = Any  # a gymnasium.Env
# list[list[float]] stands for a Q-table (a NumPy array works as well). Some annotations
# are in quotes, as "Env": Python does not look those names up, so a function that you
# paste elsewhere runs without them.


# ------------------ What is a state worth? --------------------------------------------
# These three are not called below. They are the ideas of `td_update`, one by one. The
# two updates change V in place, and return the new value.
def discounted_return(rewards: list[float], gamma: float) -> float:
    """G = r1 + gamma r2 + gamma^2 r3 + ..., summed from the end. [book, eq. 3.8]

    >>> discounted_return([-1, -1, -1, -1], gamma=1)
    -4.0
    """
    G = 0.0
    for reward in reversed(rewards):
        G = reward + gamma * G
    return G


def monte_carlo_update(
    V: list[float], state: int, G: float, learning_rate: float
) -> float:
    """V(s) <- V(s) + alpha [G - V(s)], once the episode is over. [book, eq. 6.1]

    >>> round(monte_carlo_update([0.0], state=0, G=3, learning_rate=0.1), 8)
    0.3
    """
    V[state] += learning_rate * (G - V[state])
    return V[state]


def td0_update(
    V: list[float],
    state: int,
    reward: float,
    new_state: int,
    learning_rate: float,
    gamma: float,
    terminated: bool = False,
) -> float:
    """V(s) <- V(s) + alpha [r + gamma V(s') - V(s)], after each step. [book, eq. 6.2]

    >>> td0_update([0.0, 0.0], 0, reward=1, new_state=1, learning_rate=0.1, gamma=1)
    0.1
    """
    next_value = 0.0 if terminated else V[new_state]
    V[state] += learning_rate * (reward + gamma * next_value - V[state])
    return V[state]


# ------------------ Step 1: initialize the Q-table ------------------------------------
def initialize_q_table(
    state_space: int, action_space: int, initial_value: float = 0.0
) -> list[list[float]]:
    """A row for every state, in it a value for every action. [book, section 2.6]

    Zeros, or an optimistic value: then whatever was not tried yet looks best.

    >>> initialize_q_table(state_space=3, action_space=2)
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    # A new list for each row: [[0.0] * 2] * 3 would be one row, seen three times.
    return [[float(initial_value)] * action_space for _ in range(state_space)]


# ------------------ Step 2: choose an action ------------------------------------------
def argmax(values: list[float]) -> int:
    """The index of the largest value, the first one where several are equal.

    >>> argmax([0.0, 0.95, 0.9025, 0.95])
    1
    """
    values = list(values)  # NumPy's arrays have no index()
    return values.index(max(values))


def greedy_policy(Qtable: list[list[float]], state: int) -> int:
    """The best action known: the policy that is learned about, and that is evaluated."""
    return argmax(Qtable[state])


def epsilon_greedy_policy(
    Qtable: list[list[float]], state: int, epsilon: float, rng: "Any" = random
) -> int:
    """With probability epsilon a random action, otherwise a greedy one.

    [book, section 2.2] Ties between best actions are broken at random: always taking the
    first one would mean walking into the same wall again and again, as long as nothing is
    known. `rng` is a random.Random; the module `random` has the same functions.
    """
    if rng.random() > epsilon:  # exploit
        row = list(Qtable[state])  # NumPy's arrays have no count()
        best = max(row)
        if row.count(best) == 1:  # no tie: no random number is needed
            return row.index(best)
        ties = [action for action, value in enumerate(row) if value == best]
        return ties[int(rng.random() * len(ties))]  # all equally likely
    return int(rng.random() * len(Qtable[state]))  # explore


def exponential_decay(
    episode: int, minimum: float, maximum: float, decay_rate: float
) -> float:
    """minimum + (maximum - minimum) e^(-decay_rate * episode). [course]

    So epsilon decays, and alpha if that is wanted: quickly at first, then more slowly.

    >>> for episode in (0, 1000, 10_000):
    ...     print(round(exponential_decay(episode, 0.05, 1.0, decay_rate=0.0005), 4))
    1.0
    0.6262
    0.0564
    """
    return minimum + (maximum - minimum) * math.exp(-decay_rate * episode)


# ------------------ Steps 3 and 4: act and observe, then update Q(s,a) ----------------
def td_update(
    Qtable: list[list[float]],
    state: int,
    action: int,
    reward: float,
    new_state: int,
    learning_rate: float,
    gamma: float,
    terminated: bool = False,
) -> float:
    """Q(s,a) <- Q(s,a) + alpha [r + gamma max_a' Q(s',a') - Q(s,a)]. [book, eq. 6.8]

    The max, in place of the action that is really taken next, makes it off-policy: the
    epsilon-greedy policy acts, and the greedy policy is learned about.

    >>> Qtable = [[0.0, 0.0], [1.0, 0.0]]
    >>> td_update(Qtable, state=0, action=1, reward=0, new_state=1,
    ...           learning_rate=1, gamma=0.95)
    0.95
    >>> td_update(Qtable, state=0, action=1, reward=1, new_state=1,
    ...           learning_rate=1, gamma=0.95, terminated=True)
    1.0
    """
    # Nothing follows an end.
    best_next_value = 0.0 if terminated else max(Qtable[new_state])
    td_target = reward + gamma * best_next_value
    td_error = td_target - Qtable[state][action]
    Qtable[state][action] += learning_rate * td_error
    return Qtable[state][action]


def train(
    n_training_episodes: int,
    min_epsilon: float,
    max_epsilon: float,
    decay_rate: float,
    env: "Env",
    max_steps: int,
    Qtable: list[list[float]],
    learning_rate: float = 0.7,
    gamma: float = 0.95,
    *,
    min_learning_rate: float | None = None,
    seed: int | None = None,
    on_episode: "Callable[[int, float, int, float], object] | None" = None,
) -> list[list[float]]:
    """The same Qtable, improved in place by Q-learning. [book, section 6.5; course]

    The arguments come in the order of the course; those after the * are new. With
    `min_learning_rate` alpha decays like epsilon, otherwise it stays. The same `seed`
    gives the same table, bit for bit. After each episode
    `on_episode(episode, epsilon, steps, score)` is called.
    """
    # Without a minimum alpha stays: it "decays" from learning_rate to learning_rate.
    min_alpha = learning_rate if min_learning_rate is None else min_learning_rate
    # Refuse the usual mistakes; the checks stand below `evaluate_agent`.
    check_table(env, Qtable)
    check_counts(n_training_episodes, max_steps)
    check_rates(min_epsilon, max_epsilon, min_alpha, learning_rate, gamma)
    rng = random.Random(seed)

    for episode in progress_bar(range(n_training_episodes)):
        epsilon = exponential_decay(episode, min_epsilon, max_epsilon, decay_rate)
        alpha = exponential_decay(episode, min_alpha, learning_rate, decay_rate)
        # Seeded once: the same seed at every reset would repeat the same random numbers.
        state, _ = env.reset(seed=seed if episode == 0 else None)
        check_state(state, Qtable)
        score = 0.0

        # An episode that runs out of steps is truncated.
        for step in range(1, max_steps + 1):
            # Step 2: choose an action
            action = epsilon_greedy_policy(Qtable, state, epsilon, rng)
            # Step 3: take it and observe
            new_state, reward, terminated, truncated, _ = env.step(action)
            check_state(new_state, Qtable)
            reward = float(reward)  # some games give NumPy's numbers
            # Step 4: update Q(s,a); an episode that is only truncated has a future
            td_update(
                Qtable, state, action, reward, new_state, alpha, gamma, terminated
            )
            score += reward
            if terminated or truncated:
                break
            state = new_state

        if on_episode is not None:
            on_episode(episode, epsilon, step, score)
    return Qtable


# ------------------ Evaluation: the greedy policy plays, nothing is learned -----------
def rollout(
    env: "Env", Qtable: list[list[float]], state: int, max_steps: int
) -> "Iterator[tuple[int, int, float, int, bool]]":
    """Play greedily from `state`, in which `env` must be; yield each step once it is made.

    A step is (state, action, reward, new_state, terminated), in Python's own numbers.
    It is a generator: the game moves on only when the next step is asked for.
    """
    check_state(state, Qtable)
    for _ in range(max_steps):
        action = greedy_policy(Qtable, state)
        new_state, reward, terminated, truncated, _ = env.step(action)
        check_state(new_state, Qtable)
        yield int(state), action, float(reward), int(new_state), bool(terminated)
        if terminated or truncated:
            return
        state = new_state


def evaluate_agent(
    env: "Env",
    max_steps: int,
    n_eval_episodes: int,
    Q: list[list[float]],
    seed: "Sequence[int]",
) -> tuple[float, float]:
    """Mean and (population) standard deviation of the greedy policy's scores. [course]

    `seed` (so called in the course) holds one reset seed for each episode, or is empty:
    then nothing is seeded.
    """
    check_table(env, Q)
    check_counts(n_eval_episodes, max_steps)
    if 0 < len(seed) < n_eval_episodes:
        raise ValueError(f"{n_eval_episodes} episodes, but only {len(seed)} seeds")
    scores = []
    for episode in range(n_eval_episodes):
        reset_seed = int(seed[episode]) if len(seed) > 0 else None
        state, _ = env.reset(seed=reset_seed)
        score = 0.0
        for _, _, reward, _, _ in rollout(env, Q, state, max_steps):
            score += reward
        scores.append(score)
    return statistics.fmean(scores), statistics.pstdev(scores)


# ------------------ The common mistakes, and the progress bar -------------------------
def table_size(env: "Env") -> tuple[int, int]:
    """How many states and actions there are; ValueError unless they count from 0."""
    for space in (env.observation_space, env.action_space):
        # Discrete(n) has an n and a start; every other space lacks at least one of them.
        if not (hasattr(space, "n") and getattr(space, "start", None) == 0):
            raise ValueError(
                f"states and actions must be numbered from 0, unlike {space}: a wrapper "
                "can number them (see section 8 of README.md)"
            )
    return int(env.observation_space.n), int(env.action_space.n)


def check_table(env: "Env", Qtable: list[list[float]]) -> None:
    """ValueError unless the table has a row of its own, of floats, for every state."""
    states, actions = table_size(env)
    rows = list(Qtable)
    if len(rows) != states or any(len(row) != actions for row in rows):
        raise ValueError(f"this environment needs a Q-table of {states} x {actions}")
    if len({id(row) for row in rows}) < states:  # [[0.0] * 2] * 3 has one row, thrice
        raise ValueError("the Q-table repeats a row: take one from initialize_q_table")
    dtype = getattr(rows[0], "dtype", None)  # only NumPy's rows have one
    if dtype is not None and "float" not in str(dtype):
        raise ValueError("an array of whole numbers rounds every update: use floats")


def check_counts(n_episodes: int, max_steps: int) -> None:
    """ValueError unless there is an episode to play, and a step to make."""
    if not (n_episodes >= 1 and max_steps >= 1):
        raise ValueError(
            f"episodes and max_steps must be 1 or more, not {n_episodes} and {max_steps}"
        )


def check_rates(
    min_epsilon: float, max_epsilon: float, min_alpha: float, alpha: float, gamma: float
) -> None:
    """ValueError unless all are from 0 to 1, and no minimum is above its maximum."""
    if not 0 <= min_epsilon <= max_epsilon <= 1:
        raise ValueError(f"epsilon cannot go from {max_epsilon} down to {min_epsilon}")
    if not 0 < min_alpha <= alpha <= 1:
        raise ValueError(f"learning_rate cannot go from {alpha} down to {min_alpha}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0 to 1, not {gamma}")


def check_state(state: int, Qtable: list[list[float]]) -> None:
    """ValueError for a state without a row: Qtable[-1] would silently be the last one."""
    if not 0 <= state < len(Qtable):
        raise ValueError(f"state {state} is not from 0 to {len(Qtable) - 1}")


def progress_bar(items: "Sequence[Any]", unit: str = " episodes") -> "Any":
    """The same items, with tqdm's bar in a terminal or a notebook, if installed."""
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return items
    if "ipykernel" in sys.modules:  # a notebook is no terminal, but can show a bar
        return tqdm(items, unit=unit)
    return tqdm(items, unit=unit, disable=None)  # None: a bar only in a terminal


# ================== The algorithm ends here: copy down to here ========================
# All that follows looks at the algorithm from outside; nothing above needs it or its
# imports.
import argparse
import os
import textwrap
import time
from typing import NamedTuple

import gymnasium as gym

Table = list[list[float]]
Step = tuple[int, int, float, int, bool]  # state, action, reward, new_state, terminated
Recipe = dict[str, Any]  # a game with all its numbers; a model is one with its "qtable"


# ------------------ The exact answers, for those who know the rules -------------------
PASSIVE_WRAPPERS = {
    gym.wrappers.HumanRendering,
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
    gym.wrappers.RecordEpisodeStatistics,
    gym.wrappers.RecordVideo,
    gym.wrappers.RenderCollection,
    gym.wrappers.TimeLimit,
}


def game_of(env: Env) -> Env:
    """The game that a table of this environment is about.

    Wrappers that only watch, film or limit a game are taken off. Any other wrapper may
    renumber the states, say, or scale the rewards: it makes a game of its own.
    """
    while type(env) in PASSIVE_WRAPPERS:  # type(), as a subclass may do more
        env = env.env
    return env


def bellman_backup(P: Any, V: list[float], gamma: float) -> Table:
    """Q(s,a) = the expected r + gamma V(s') over all that can happen. [book, eq. 4.6]"""
    Qtable = []
    for state in range(len(V)):
        row = []
        for action in range(len(P[state])):
            parts = []  # probability * target, for each thing that can happen
            for probability, new_state, reward, terminated in P[state][action]:
                next_value = 0.0 if terminated else V[new_state]
                parts.append(probability * (reward + gamma * next_value))
            row.append(sum(parts))
        Qtable.append(row)
    return Qtable


def rules(env: Env) -> tuple[Any, list[float]]:
    """The rules P that a game publishes, and the probability of each state to be first.

    P[s][a] lists all that can happen: (probability, new_state, reward, terminated). A
    learner never looks at it. ValueError if there is no such P for these states.
    """
    game = game_of(env)
    n_states, _ = table_size(env)
    try:
        P = game.P
        starts = [float(p) for p in game.initial_state_distrib]
        bellman_backup(P, [0.0] * n_states, gamma=1)  # fails if P is something else
    except (AttributeError, LookupError, TypeError, ValueError):
        starts = []
    if len(starts) != n_states:
        text = "publishes no rules (P and initial_state_distrib)"
        raise ValueError(f"{type(game).__name__} {text} for its {n_states} states")
    return P, starts


def value_iteration(env: Env, gamma: float) -> Table:
    """The exact Q-table: Bellman's optimality equation, solved. [book, eq. 4.10]

    ValueError if the game publishes no rules, or the values never settle (at gamma = 1).
    """
    P, _ = rules(env)
    V = [0.0] * table_size(env)[0]
    for _ in range(10_000):
        Qtable = bellman_backup(P, V, gamma)
        new_V = [max(row) for row in Qtable]
        if max(abs(new - old) for new, old in zip(new_V, V)) < 1e-12:
            return Qtable
        V = new_V
    raise ValueError(f"the values never settle at gamma={gamma}: take a smaller gamma")


def step_limit(env: Env, max_steps: int) -> int:
    """After how many steps an episode is cut short: max_steps, or the game's own limit."""
    own_limit = getattr(env.spec, "max_episode_steps", None)
    return min(max_steps, own_limit or max_steps)


def exact_score(env: Env, max_steps: int, Qtable: Table | None = None) -> float:
    """The score to expect of a greedy policy, computed from the rules and not sampled.

    Without a table it is that of the best possible play, which knows how many steps are
    left: near the end of an episode another action may be the best one.
    """
    P, start_probabilities = rules(env)
    # V(s) is the score still to come with 0 steps left, then with 1, 2, ... steps left.
    V = [0.0] * len(start_probabilities)
    for _ in range(step_limit(env, max_steps)):
        worth = bellman_backup(P, V, gamma=1)  # of each action in each state
        if Qtable is None:
            new_V = [max(row) for row in worth]
        else:
            new_V = [row[argmax(Qtable[state])] for state, row in enumerate(worth)]
        if new_V == V:  # then more steps change nothing
            break
        V = new_V
    return sum(p * value for p, value in zip(start_probabilities, V))


# ------------------ The hyperparameters, and the games with theirs --------------------
HYPERPARAMETERS: dict[str, tuple[Any, str]] = {  # the course's value, and the meaning
    "n_training_episodes": (10_000, "how many episodes to learn from"),
    "learning_rate": (0.7, "alpha, the share of the TD error to correct"),
    "min_learning_rate": (None, "what alpha decays to; None: it stays"),
    "gamma": (0.95, "discount factor: what a reward is worth one step later"),
    "max_steps": (99, "after so many steps an episode is cut short"),
    "max_epsilon": (1.0, "share of random actions in the first episode"),
    "min_epsilon": (0.05, "what that share decays to"),
    "decay_rate": (0.0005, "how fast epsilon decays, and alpha if it does"),
    "initial_value": (0.0, "what every cell of the Q-table starts at"),
    "n_eval_episodes": (100, "how many episodes to evaluate"),
    "seed": (0, "random seed of the training"),
}
LAKE: Recipe = {
    "env_id": "FrozenLake-v1",
    "env_kwargs": {"map_name": "4x4", "is_slippery": False},
    "eval_seed": [],
    **{name: value for name, (value, _) in HYPERPARAMETERS.items()},
}
# The reset seeds with which the course evaluates a taxi
TAXI_SEEDS = """
    16 54 165 177 191 191 120 80 149 178 48 38 6 125 174 73 50 172 100 148 146 6 25 40 68
    148 49 167 9 97 164 176 61 7 54 55 161 131 184 51 170 12 120 113 95 126 51 98 36 135
    54 82 45 95 89 59 95 124 9 113 58 85 51 134 121 169 105 21 30 11 50 65 12 43 82 145
    152 97 106 55 31 85 38 112 102 168 123 97 21 83 158 26 80 63 5 81 32 11 28 148"""
TAXI = LAKE | {  # where the course has other numbers for the taxi
    "env_id": "Taxi-v3",
    "env_kwargs": {},
    "n_training_episodes": 25_000,
    "decay_rate": 0.005,
    "eval_seed": [int(seed) for seed in TAXI_SEEDS.split()],
}
LAKE_8X8 = LAKE | {"env_kwargs": {"map_name": "8x8", "is_slippery": False}}
# On ice a step may slip to the side: only a shrinking alpha averages that out.
ICE = LAKE | {
    "env_kwargs": {"map_name": "4x4", "is_slippery": True},
    "learning_rate": 0.5,
    "min_learning_rate": 0.01,
    "gamma": 0.99,
}
# The goal is far: every value starts at 1, the most there is, so that all gets tried.
ICE_8X8 = ICE | {
    "env_kwargs": {"map_name": "8x8", "is_slippery": True},
    "initial_value": 1.0,
    "n_training_episodes": 12_500,
    "min_learning_rate": 0.005,
    "decay_rate": 0.0006,
}
# No action is worth more than the fare of 20. So what was not tried yet looks best, and
# a greedy agent explores. The same action always does the same: one try is enough, alpha
# can be 1.
TAXI_EXACT = TAXI | {
    "n_training_episodes": 7_000,
    "learning_rate": 1.0,
    "initial_value": 20.0,
    "max_epsilon": 0.0,
    "min_epsilon": 0.0,
}
CLIFF = LAKE | {
    "env_id": "CliffWalking-v1",
    "env_kwargs": {},
    "n_training_episodes": 500,
    "learning_rate": 0.5,
    "gamma": 0.99,
    "decay_rate": 0.01,
}
RECIPES = {
    "frozenlake": LAKE,
    "taxi": TAXI,
    "frozenlake-8x8": LAKE_8X8,
    "frozenlake-slippery": ICE,
    "frozenlake-8x8-slippery": ICE_8X8,
    "taxi-exact": TAXI_EXACT,
    "cliffwalking": CLIFF,
}
LESSONS = {
    "frozenlake": "the course's lake: value spreads back from the goal",
    "taxi": "the course's taxi: 500 states, soon good, not everywhere exact",
    "frozenlake-8x8": "a goal hard to find: why ties are broken at random",
    "frozenlake-slippery": "luck: why alpha must shrink, and why 0.74 is the optimum",
    "frozenlake-8x8-slippery": "luck and a far goal: an optimistic start finds it sooner",
    "taxi-exact": "perfect from every start in a third of taxi's steps, by optimism",
    "cliffwalking": "the cliff: random steps fall off, the greedy policy does not",
}
# The same game in older and in newer versions of Gymnasium
OTHER_ID = {
    "Taxi-v3": "Taxi-v4",
    "Taxi-v4": "Taxi-v3",
    "CliffWalking-v0": "CliffWalking-v1",
    "CliffWalking-v1": "CliffWalking-v0",
}


def make_env(env_id: str, **kwargs: Any) -> Env:
    """`gym.make`; a game that this Gymnasium has under another id is made by that one."""
    # Only these options mean the same in both versions: rain is new in one of them.
    same_in_both = {"render_mode", "max_episode_steps"}
    if env_id not in gym.registry and kwargs.keys() <= same_in_both:
        env_id = OTHER_ID.get(env_id, env_id)
    return gym.make(env_id, **kwargs)


def learn(env: Env, recipe: Recipe, Qtable: Table | None = None, **more: Any) -> Table:
    """A Q-table, by default a new one, trained with all the numbers of a recipe."""
    if Qtable is None:
        Qtable = initialize_q_table(*table_size(env), recipe["initial_value"])
    # All hyperparameters but these two are parameters of train, under the same names.
    names = HYPERPARAMETERS.keys() - {"initial_value", "n_eval_episodes"}
    numbers = {name: recipe[name] for name in names}
    return train(env=env, Qtable=Qtable, **numbers, **more)


def final_alpha(recipe: Recipe) -> float:
    """What alpha decays to: without a minimum it stays at the learning rate."""
    minimum, alpha = recipe["min_learning_rate"], recipe["learning_rate"]
    return float(alpha if minimum is None else minimum)


def evaluation_seeds(model: Recipe) -> list[int]:
    """The reset seeds of the episodes that are scored: the model's, or 0, 1, 2, ..."""
    return list(model["eval_seed"]) or list(range(model["n_eval_episodes"]))


def evaluate_model(env: Env, model: Recipe) -> tuple[float, float]:
    """`evaluate_agent` as the model asks for it: the same episodes every time."""
    steps, episodes = model["max_steps"], model["n_eval_episodes"]
    seeds = evaluation_seeds(model)
    return evaluate_agent(env, steps, episodes, model["qtable"], seeds)


# ------------------ How a game looks --------------------------------------------------
COMPASS = {"WEST": "LEFT", "SOUTH": "DOWN", "EAST": "RIGHT", "NORTH": "UP"}
GAMES = {  # by Gymnasium's modules: a class of one's own may have the same name
    "gymnasium.envs.toy_text.frozen_lake": "lake",
    "gymnasium.envs.toy_text.cliffwalking": "cliff",
    "gymnasium.envs.toy_text.taxi": "taxi",
}
ABOUT = {
    "lake": "Walk from S over frozen F to the goal G; a hole H ends the walk.",
    "cliff": """Walk from S to the goal G along the cliff C.
Reward: -1 a step; -100 in its place for a fall, which leads back to S.""",
    "taxi": """Fetch a passenger at one of R, G, Y, B and bring them to another one.
Reward: -1 a step; +20 for arriving; -10 for a wrong pickup or dropoff.
25 places x 5 (passenger at R, G, Y, B or in the taxi) x 4 destinations = 500
states; in 100 of them the passenger is at the destination: 4 of these are the
ends, the others never occur.
How to read 328 (3,1) Y to R: state 328, taxi in row 3, column 1, passenger at
Y, destination R. On the map | is a wall, and : is none.""",
}
ACTIONS = {
    "lake": ["LEFT", "DOWN", "RIGHT", "UP"],
    "cliff": ["UP", "RIGHT", "DOWN", "LEFT"],
    "taxi": ["south", "north", "east", "west", "pickup", "dropoff"],
}
TAXI_PLACES = ["R...G", ".....", ".....", ".....", "Y..B."]


def known_game(env: Env) -> str:
    """lake, cliff or taxi, if it is Gymnasium's own; otherwise nothing."""
    return GAMES.get(type(game_of(env)).__module__, "")


def action_names(env: Env) -> list[str]:
    """The names of the actions: your own game may list them as `action_names`."""
    names = ACTIONS.get(known_game(env)) or getattr(game_of(env), "action_names", None)
    n_actions = table_size(env)[1]
    if not names:
        return [f"action{action}" for action in range(n_actions)]
    if len(names) != n_actions:
        raise ValueError(f"{len(names)} action_names for {n_actions} actions")
    return list(names)


def state_name(env: Env, state: int) -> str:
    """How a state is called: 12, or for a taxi 328 (3,1) Y to R.

    Your own game may have a method `state_name(state)`.
    """
    game = game_of(env)
    if known_game(env) == "taxi":
        row, column, passenger, destination = game.decode(state)
        where = ("R", "G", "Y", "B", "taxi")[passenger]
        return f"{state} ({row},{column}) {where} to {'RGYB'[destination]}"
    return str(game.state_name(state)) if hasattr(game, "state_name") else str(state)


def letters_of(game: Env) -> list[str]:
    """The rows of a map as Gymnasium keeps it: an array of single bytes."""
    return [b"".join(row).decode() for row in game.desc.tolist()]


def map_of(env: Env) -> list[str]:
    """The rows of a map, a letter for each state; your own game may have `map_rows`.

    An empty list if there is no map, or one with over 13 rows or columns.
    """
    if known_game(env) == "lake":
        rows = letters_of(game_of(env))
    elif known_game(env) == "cliff":
        rows = ["F" * 12] * 3 + ["S" + "C" * 10 + "G"]
    else:
        rows = list(getattr(game_of(env), "map_rows", []))
    if not rows or len(rows) > 13 or len(rows[0]) > 13:  # none, or too large to print
        return []
    n_states = table_size(env)[0]
    if len({len(row) for row in rows}) > 1 or len("".join(rows)) != n_states:
        raise ValueError(
            f"map_rows must be rows of one length, with a letter for each of the "
            f"{n_states} states"
        )
    return rows


def places_of(env: Env) -> list[str]:
    """The rows of a map, a letter for each place: a taxi has 20 states in each."""
    return TAXI_PLACES if known_game(env) == "taxi" else map_of(env)


def place_width(rows: list[str]) -> int:
    """How many letters wide a place of a printed map is: 8, on a wide map fewer."""
    return min(8, 79 // len(rows[0]))


def draw_map(rows: list[str], texts: dict[int, str]) -> str:
    """The map, with these texts in place of the letters of some states."""
    columns, width = len(rows[0]), place_width(rows)
    lines = []
    for y, row in enumerate(rows):
        line = ""
        for x, letter in enumerate(row):
            line += texts.get(y * columns + x, letter).rjust(width)
        lines.append(line)
    return "\n".join(lines)


def is_known(model: Recipe, row: Sequence[float]) -> bool:
    """Whether learning has changed a row of the table."""
    return any(value != model.get("initial_value", 0.0) for value in row)


def draw_policy(env: Env, model: Recipe, arrows: str = "") -> str:
    """The map with V(s) = max Q(s,a), behind an arrow for the greedy action if wanted.

    `arrows` are four signs, for LEFT, DOWN, RIGHT and UP, or none. ValueError for a game
    without a map (of at most 13 x 13).
    """
    rows, names = map_of(env), action_names(env)
    if not rows:
        raise ValueError("this game has no map to draw: show_table prints its Q-table")
    arrow_of = dict(zip(["LEFT", "DOWN", "RIGHT", "UP"], arrows))  # {} without arrows
    room = place_width(rows) - 2  # for a number; two letters are a blank and its arrow
    texts = {}
    for state, letter in enumerate("".join(rows)):
        row = model["qtable"][state]
        if is_known(model, row):
            name = names[argmax(row)].upper()
            direction = COMPASS.get(name, name)  # WEST is LEFT, and so on
            texts[state] = arrow_of.get(direction, "") + number(max(row), room, 3)
        elif letter not in "HCWG":  # in holes, cliff, walls and goal nobody acts
            texts[state] = "."
    return draw_map(rows, texts)


def number(value: float, room: int = 9, most_decimals: int = 4) -> str:
    """A value with as many decimals as fit into so many letters."""
    for decimals in range(most_decimals, -1, -1):
        text = f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no minus zero
        if len(text) <= room:
            break
    return text


def printable(pretty: str, plain: str) -> str:
    """The pretty text in UTF-8; elsewhere the plain one (signs may be missing, or wide)."""
    return pretty if "utf" in str(sys.stdout.encoding).lower() else plain


# ------------------ The story: learn a game, and print what happened ------------------
def tell_story(recipe: Recipe, episode: int = 1) -> None:
    """Learn the recipe's game and print all of it, from the world to the proof."""
    env = StepRecorder(make_env(recipe["env_id"], **recipe["env_kwargs"]))
    show_world(env, recipe)
    numbers = ", ".join(f"{name}={recipe[name]}" for name in HYPERPARAMETERS)
    print("\nLEARNING\n" + textwrap.fill(numbers, 79))
    history: list[Any] = []  # (epsilon, steps, score) of each episode
    first_episodes: list[list[Step]] = []

    def remember(_: int, epsilon: float, steps: int, score: float) -> None:
        history.append((epsilon, steps, score))
        if len(history) <= 3000:  # enough for the first lessons
            first_episodes.append(env.steps)  # those of the episode just over

    start = time.perf_counter()
    Qtable = learn(env, recipe, on_episode=remember)
    seconds = time.perf_counter() - start
    show_learning(env, recipe["max_steps"], history)
    show_first_lessons(env, recipe, first_episodes)
    if known_game(env) == "lake" and map_of(env):
        show_spreading(env, recipe, first_episodes)
    model = recipe | {"qtable": Qtable}
    show_agent(env, model, episode)
    show_proof(env, model)
    n_steps = sum(steps for _, steps, _ in history)
    print(f"\n{n_steps:,} environment steps in {seconds:.1f} seconds.")
    print("Next: another game (see --list) or other numbers (see --help).")
    print("README.md explains each part, in Chinese .github/README.zh-CN.md.")


class StepRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """The same environment, which keeps the steps of the current episode in `steps`."""

    def reset(self, **options: Any) -> Any:
        self.steps: list[Step] = []  # a new list: `tell_story` keeps the old ones
        self.state, info = self.env.reset(**options)
        return self.state, info

    def step(self, action: int) -> Any:
        result = self.env.step(action)
        new_state, reward, terminated, _, _ = result
        self.steps.append((self.state, action, float(reward), new_state, terminated))
        self.state = new_state
        return result


PASSIVE_WRAPPERS.add(StepRecorder)  # it only watches


def show_world(env: Env, model: Recipe) -> None:
    """Print what the game is about, its states and actions, and its map."""
    game, names, rows = known_game(env), action_names(env), map_of(env)
    world = f"THE WORLD: {model['env_id']} {model.get('env_kwargs') or ''}"
    if env.spec and env.spec.id == OTHER_ID.get(model["env_id"]):
        world += f"(in this Gymnasium {env.spec.id}, the same game)"
    print(textwrap.fill(world, 79))
    if game:
        print(ABOUT[game])
    if game == "lake":
        rewards, is_slippery = lake_rules(env)
        usual = "Reward: 1 for reaching G, else 0."
        print(usual if rewards == [0, 1] else f"Rewards: {rewards}")
        if is_slippery:
            print(
                "Slippery: a step may slide off at a right angle to where it should go."
            )
    numbered = ", ".join(f"{action} {name}" for action, name in enumerate(names))
    sizes = f"{table_size(env)[0]} states, {len(names)} actions: {numbered}"
    print(textwrap.fill(sizes, 79))
    if game == "taxi":  # its own drawing has the walls
        print("\n".join(letters_of(game_of(env))))
    if rows:
        print("The states are numbered row by row, from 0 at the top left.\n")
        print(draw_map(rows, {}))


def lake_rules(env: Env) -> tuple[list[float], bool]:
    """The rewards that a lake can give, and whether a step may slip."""
    P, _ = rules(env)
    rewards, is_slippery = set(), False
    for state in range(len(P)):
        for outcomes in P[state].values():
            for probability, new_state, reward, terminated in outcomes:
                # A hole or the goal only leads to itself: no step begins there.
                if not (terminated and new_state == state):
                    rewards.add(reward)
                    is_slippery = is_slippery or probability < 1
    return sorted(rewards), is_slippery


def show_learning(env: Env, max_steps: int, history: Sequence[Any]) -> None:
    """Print how the episodes went; each line covers as many as all above it together."""
    try:
        best = exact_score(env, max_steps)
    except ValueError:  # it publishes no rules: there are no bars
        best = 0.0
    scale = f"A bar of 40 signs is the best score to expect, {best:.2f}"
    if best > 0:
        print(f"{scale}; 0 or less has no bar.")
    elif best < 0:  # the scores are costs
        print(f"{scale}; {2 * best:.2f} has half a bar.")
    print("episodes  epsilon  mean score since the line above, random steps included")
    # Where the ten lines end, each at half of the next: 20, 40, 79, ... 5000, 10000. (Of
    # few episodes there are fewer lines: a set has each end once.)
    ends = sorted({math.ceil(len(history) / 2**i) for i in range(10)})
    start = 0
    for end in ends:
        mean = statistics.fmean(score for _, _, score in history[start:end])
        epsilon, _, _ = history[end - 1]
        bar = printable("█", "#") * bar_length(mean, best)
        print(f"{end:>8}{epsilon:>9.3f}{mean:>11.2f}  {bar}".rstrip())
        start = end


def bar_length(score: float, best: float) -> int:
    """How long the bar is: 40 for the best score; twice the cost has half the bar."""
    if best > 0:
        return round(40 * max(0.0, min(1.0, score / best)))
    if best < 0 and score < 0:
        return round(40 * min(1.0, best / score))
    return 0


class Update(NamedTuple):
    """One update of the Q-table: of which step, and with which numbers."""

    episode: int
    step: Step
    alpha: float
    next_value: float  # max Q(s',a'), or 0 after an end
    old: float  # Q(s,a) before the update
    new: float  # and after it


def replayed_updates(
    recipe: Recipe, Qtable: Table, episodes: list[list[Step]]
) -> Iterator[Update]:
    """Each update of these episodes, made once more in a new Qtable: the same numbers."""
    gamma, decay_rate = recipe["gamma"], recipe["decay_rate"]
    low, high = final_alpha(recipe), recipe["learning_rate"]
    for episode, steps in enumerate(episodes):
        alpha = exponential_decay(episode, low, high, decay_rate)
        for step in steps:
            state, action, reward, new_state, terminated = step
            old = Qtable[state][action]
            next_value = 0.0 if terminated else max(Qtable[new_state])
            numbers = {"learning_rate": alpha, "gamma": gamma, "terminated": terminated}
            new = td_update(Qtable, state, action, reward, new_state, **numbers)
            yield Update(episode, step, alpha, next_value, old, new)


def show_first_lessons(env: Env, recipe: Recipe, episodes: list[list[Step]]) -> None:
    """Print the arithmetic of the first two updates that teach something."""
    print("\nFIRST LESSONS: Q(s,a) = Q + alpha * (r + gamma * max Q(s',a') - Q)")
    gamma, start = recipe["gamma"], recipe["initial_value"]
    Qtable = initialize_q_table(*table_size(env), start)
    updates = replayed_updates(recipe, Qtable, episodes)
    changes = (update for update in updates if update.new != update.old)
    first = next(changes, None)
    if first is not None:
        show_arithmetic(env, gamma, first, "the first value that changes")
    for update in changes:  # those after the first
        # After an end it is 0, and of an untouched row the start value: else learned.
        if update.next_value not in (0, start):
            show_arithmetic(env, gamma, update, "the first built on a learned value")
            _, _, _, new_state, _ = update.step
            name, value = state_name(env, new_state), update.next_value
            print(f"  where {value:.4g} was the best value of s', state {name}")
            break


def show_arithmetic(env: Env, gamma: float, update: Update, lesson: str) -> None:
    """Print one update with its numbers."""

    def text(value: float) -> str:
        return f"({value:.4g})" if value < 0 else f"{value:.4g}"

    episode, step, alpha, next_value, old, new = update
    state, action, reward, _, terminated = step
    print(f"\nEpisode {episode + 1}, state {state_name(env, state)}, {lesson}:")
    target = f"{reward:g} + {gamma:g} * {text(next_value)}"
    change = f"{alpha:.4g} * ({target} - {text(old)})"
    name = action_names(env)[action]
    print(f"  Q({state}, {name}) = {old:.4g} + {change} = {new:.4g}")
    if terminated:
        print("  where the game is over: the future counts as 0")


def show_spreading(env: Env, recipe: Recipe, episodes: list[list[Step]]) -> None:
    """Print how V(s) spreads over a lake, back from the goal: four maps."""
    print("\nHOW VALUE SPREADS: V(s) = max Q(s,a), and . where nothing is known yet")
    Qtable = initialize_q_table(*table_size(env), recipe["initial_value"])
    goals = 0
    # The generator makes an update only when the loop asks for it. So what Qtable holds
    # now is what it held after this update.
    for update in replayed_updates(recipe, Qtable, episodes):
        _, _, reward, _, terminated = update.step
        if terminated and reward > 0:  # the goal is reached
            goals += 1
            if goals in (1, 3, 10, 30):
                print(f"\nin episode {update.episode + 1}, goal reached {goals}x:")
                print(draw_policy(env, recipe | {"qtable": Qtable}))


# ------------------ The story goes on: what the agent has learned ---------------------
def show_agent(env: Env, model: Recipe, episode: int = 1) -> None:
    """Print what an agent has learned: its table and policy, an episode, the score.

    `episode` says which one of those that are scored is told, from 1.
    """
    Qtable, seed = model["qtable"], evaluation_seeds(model)[episode - 1]
    first_state, _ = env.reset(seed=seed)
    steps = list(rollout(env, Qtable, first_state, model["max_steps"]))
    visited: list[int] = []  # the states of the episode, each once
    for state, _, _, _, _ in steps:
        if state not in visited:
            visited.append(state)
    show_table(env, model, range(len(Qtable)) if len(Qtable) <= 64 else visited[:6])
    if map_of(env):
        print("\nTHE POLICY: the greedy actions, with V(s), the value of the best one")
        print(draw_policy(env, model, printable("←↓→↑", "<v>^")))
    print(f"\nONE EPISODE: number {episode} of the scored ones (reset seed {seed})")
    show_episode(env, model, steps)

    mean, std = evaluate_model(env, model)
    n_episodes = model["n_eval_episodes"]
    print(f"\nTHE SCORE: {n_episodes} greedy episodes, mean +/- standard deviation")
    print(f"Mean_reward={mean:.2f} +/- {std:.2f}")
    if known_game(env) == "taxi":
        print(f"mean - std = {mean - std:.2f} (4.5 or more passes the course)")


def show_table(env: Env, model: Recipe, states: Sequence[int]) -> None:
    """Print these rows of the Q-table; of many actions the six best ones."""
    Qtable, names = model["qtable"], action_names(env)

    def best_value(action: int) -> float:  # of an action, in any of these states
        return float(max(Qtable[state][action] for state in states))

    best_first = sorted(range(len(names)), key=best_value, reverse=True)
    actions = sorted(best_first[:6])  # back in the game's own order
    width = 10 if len(actions) <= 5 else 9

    print(
        "\nTHE Q-TABLE: * the greedy action (of equal ones the first), . nothing known"
    )
    if len(states) < len(Qtable):
        print(f"(only {len(states)} of the {len(Qtable)} states)")
    if len(actions) < len(names):
        print(f"(only the best 6 of {len(names)} actions)")
    # Each column is followed by one place: for the star of a greedy action.
    heads = [names[action][:width].rjust(width) + " " for action in actions]
    print(("state".ljust(19) + "".join(heads)).rstrip())
    for state in states:
        line = state_name(env, state)[:19].ljust(19)
        if is_known(model, Qtable[state]):
            best = argmax(Qtable[state])
            for action in actions:
                star = "*" if action == best else " "
                line += number(Qtable[state][action]).rjust(width) + star
        else:
            line += ".".rjust(width)
        print(line.rstrip())


def show_episode(env: Env, model: Recipe, steps: list[Step]) -> None:
    """Print a greedy episode: what was expected of each step, what came, and the route."""
    print("step state               action    reward   Q(s,a)    target  TD error")
    n = len(steps)
    for i, step in enumerate(steps, start=1):
        if n <= 20 or i <= 4 or i > n - 3:  # of a long episode the first 4 and last 3
            show_step(env, model, i, step)
        elif i == 5:
            print(f"     ... {n - 7} steps left out ...")
    score = sum(reward for _, _, reward, _, _ in steps)
    plural = "s" if n > 1 else ""
    print(f"After {n} step{plural} {how_it_ended(env, steps)}. Score {score:g}.")
    if known_game(env) == "lake" and lake_rules(env)[1]:
        print("(On ice each step is luck: only on average are the TD errors near 0.)")
    show_route(env, steps)


def show_step(env: Env, model: Recipe, i: int, step: Step) -> None:
    """Print step number i: Q(s,a), the TD target that came of it, and the error."""
    state, action, reward, new_state, terminated = step
    Qtable = model["qtable"]
    expected = Qtable[state][action]
    next_value = 0.0 if terminated else max(Qtable[new_state])
    target = reward + model["gamma"] * next_value
    error = round(target, 4) - round(expected, 4)  # of the printed numbers
    name, action_name = state_name(env, state)[:19], action_names(env)[action][:8]
    print(f"{i:>4} {name:<19} {action_name:<8}{reward:>8g}", end="")
    print(f"{number(expected, 8):>9}{number(target):>10}{error:>+10.4f}")


def show_route(env: Env, steps: list[Step]) -> None:
    """Print the map, if there is one, with the step that first reached each place."""
    first_state = steps[0][0]
    places = [first_state] + [new_state for _, _, _, new_state, _ in steps]
    rows = places_of(env)
    if known_game(env) == "taxi":
        places = [state // 20 for state in places]
    reached: dict[int, str] = {}
    for i, place in enumerate(places):
        reached.setdefault(place, str(i))  # only the first time counts
    if rows:
        print("The route, with the step that first reached a place:")
        print(draw_map(rows, reached))


def how_it_ended(env: Env, steps: list[Step]) -> str:
    """The end of an episode in words."""
    _, _, _, new_state, terminated = steps[-1]
    if not terminated:
        return "it was cut short"
    if known_game(env) == "taxi":
        return "the passenger has arrived"
    rows = map_of(env)
    letter = "".join(rows)[new_state] if rows else ""
    ends = {"G": "the goal is reached", "H": "it fell into a hole"}
    return ends.get(letter, "it ended")


# ------------------ The proof: the learned table beside the exact one -----------------
TOLERANCE = 5e-9  # values that are nearer than this are equal to 8 decimals


class Comparison(NamedTuple):
    """How far a table is from the exact one."""

    known: list[int]  # the states whose row has changed
    gaps: list[float]  # how far each cell of these rows is from the exact one
    wrong: list[int]  # the states among them whose greedy action is not a best one
    end_values: list[float]  # the cells of the ends, which no update may change
    agent_score: float  # the expected score of this table's greedy policy
    exact_table_score: float  # the expected score of the exact table's
    best_score: float  # the expected score of the best possible play


def ends_after(env: Env, states: list[int]) -> set[int]:
    """The ends of the game that can be reached from these states by one step."""
    P, _ = rules(env)
    ends = set()
    for state in states:
        for action in range(len(P[state])):
            for _, new_state, _, terminated in P[state][action]:
                if terminated:
                    ends.add(new_state)
    return ends


def compare(env: Env, model: Recipe) -> Comparison:
    """How far a table is from the exact one; ValueError if the game has no exact one."""
    Qtable, max_steps = model["qtable"], model["max_steps"]
    exact = value_iteration(env, model["gamma"])
    known = [state for state, row in enumerate(Qtable) if is_known(model, row)]
    gaps, wrong, end_values = [], [], []
    for state in known:
        for action, value in enumerate(Qtable[state]):
            gaps.append(abs(value - exact[state][action]))
        greedy_action = greedy_policy(Qtable, state)
        if exact[state][greedy_action] < max(exact[state]) - TOLERANCE:
            wrong.append(state)
    for state in ends_after(env, known):
        end_values.extend(Qtable[state])
    return Comparison(
        known=known,
        gaps=gaps,
        wrong=wrong,
        end_values=end_values,
        agent_score=exact_score(env, max_steps, Qtable),
        exact_table_score=exact_score(env, max_steps, exact),
        best_score=exact_score(env, max_steps),
    )


ALL_EXACT = "All that was learned is exact."


def verdict(env: Env, found: Comparison) -> str:
    """What the numbers of a comparison mean, in one sentence."""
    if not found.known:
        return "Nothing was learned: no reward has reached the table."
    missing = found.exact_table_score - found.agent_score
    if missing > TOLERANCE:
        less = f"The agent scores {missing:.4f} less than the exact table"
        if not found.wrong:
            return f"{less}, where it learned nothing."
        states = ", ".join(state_name(env, state) for state in found.wrong[:3])
        # Which of them cost the score is not known: it may not meet all of them.
        return f"{less}; in states such as {states} another action is better."
    lost = found.best_score - found.exact_table_score
    # A little is always lost by not knowing how many steps are left.
    if lost > 0.1 * abs(found.best_score):
        return (
            f"Even the exact table scores {lost:.4f} less than the best possible play: "
            "try another gamma (a little below 1), or more steps."
        )
    if max(found.gaps) < TOLERANCE:
        return ALL_EXACT
    return "The agent plays as well as the exact table: what is inexact costs no score."


def show_proof(env: Env, model: Recipe) -> None:
    """Print a table's comparison with the exact one, and the verdict."""
    print("\nTHE PROOF: beside the exact table, solved from the game's own rules")
    try:
        found = compare(env, model)
    except ValueError as error:
        print(textwrap.fill(f"There is no exact table: {error}.", 79))
        return
    n_known = len(found.known)
    n_right = n_known - len(found.wrong)
    n_cells = len(found.gaps)
    n_exact = sum(gap < TOLERANCE for gap in found.gaps)
    start = model.get("initial_value", 0.0)
    n_ends = len(found.end_values)
    n_kept = found.end_values.count(start)  # if fewer, an update went to an end
    n_steps = step_limit(env, model["max_steps"])
    print(f"States whose row has changed: {n_known} of {len(model['qtable'])}")
    print(f"Their Q-values that are exact to 8 decimals: {n_exact} of {n_cells}")
    if n_exact < n_cells:
        gap = statistics.fmean(found.gaps)
        print(f"Mean distance of these Q-values from the exact ones: {gap:.4f}")
    print(f"Q-values of ends, which must stay as at the start: {n_kept} of {n_ends}")
    print(f"States where the greedy action is a best one: {n_right} of {n_known}")
    print(f"Expected score from all starts in {n_steps} steps, by the rules:")
    print(f"  {found.agent_score:.4f} agent")
    print(f"  {found.exact_table_score:.4f} exact table")
    knows = "it knows how many steps are left"
    print(f"  {found.best_score:.4f} best possible play ({knows})")
    sentence = verdict(env, found)
    print(textwrap.fill(f"VERDICT: {sentence}", 79))
    if sentence == ALL_EXACT and start == 0:
        text = "Try --initial-value 1. From 0 the ends keep the value 0, so code that forgot"
        print(f"{text}\n`terminated` would give the same table; from 1 it would not.")


# ------------------ The command line --------------------------------------------------
def option(name: str) -> str:
    """The option of a hyperparameter: --episodes of n_training_episodes, say."""
    return "--" + name.removeprefix("n_training_").removeprefix("n_").replace("_", "-")


def add_recipe(
    parser: argparse.ArgumentParser, argv: Sequence[str], nargs: Any = None
) -> None:
    """Let a parser take a recipe, and an option for each hyperparameter.

    With nargs="?" the recipe need not be named.
    """
    parser.add_argument(
        "recipe",
        nargs=nargs,
        default="frozenlake",
        choices=RECIPES,
        metavar="recipe",
        help=f"a game with all its numbers: {', '.join(RECIPES)}",
    )
    # The help tells the values of the recipe that argv names, by default of the lake. It
    # is written here, before argparse reads argv: so look for the name.
    named = [word for word in argv if word in RECIPES]
    shown = named[-1] if named else "frozenlake"
    group = parser.add_argument_group(f"its numbers, in brackets those of {shown}")
    for name, (value, meaning) in HYPERPARAMETERS.items():
        kind = int if isinstance(value, int) else float
        text = f"{meaning} ({RECIPES[shown][name]})"
        group.add_argument(option(name), dest=name, type=kind, metavar="N", help=text)


def add_show_episode(parser: argparse.ArgumentParser) -> None:
    """The option --show-episode."""
    text = "which of the scored episodes to show (1)"
    parser.add_argument("--show-episode", type=int, default=1, metavar="N", help=text)


def chosen_recipe(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Recipe:
    """The recipe with the given options in it; bad ones end the program, exit code 2."""
    recipe = dict(RECIPES[args.recipe])
    for name in HYPERPARAMETERS:
        if getattr(args, name) is not None:
            recipe[name] = getattr(args, name)
    episodes, seeds = recipe["n_eval_episodes"], len(recipe["eval_seed"])
    try:
        check_counts(recipe["n_training_episodes"], recipe["max_steps"])
        check_counts(episodes, recipe["max_steps"])
        low, high = recipe["min_epsilon"], recipe["max_epsilon"]
        min_alpha, alpha = final_alpha(recipe), recipe["learning_rate"]
        check_rates(low, high, min_alpha, alpha, recipe["gamma"])
    except ValueError as error:
        parser.error(str(error))
    if 0 < seeds < episodes:
        parser.error(f"--eval-episodes {episodes}: this game has only {seeds} seeds")
    # Not every command of hub_utils.py has this option: without it the first is shown.
    if not 1 <= getattr(args, "show_episode", 1) <= episodes:
        parser.error(f"--show-episode must be from 1 to {episodes}")
    return recipe


def run(command: Callable[[], object]) -> int:
    """The exit code of a command: what people can do wrong becomes one line, code 1."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's cannot
        sys.stdout.reconfigure(errors="replace")  # "?" for what it cannot show
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
        # A usual exit would print what is left, which must fail again: so end at once.
        os._exit(1)
    except (OSError, ValueError, RuntimeError, OverflowError, gym.error.Error) as error:
        first_line = str(error).strip().partition("\n")[0]
        print(f"error: {first_line}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="qlearning.py",
        usage="%(prog)s [recipe] [options]",
        description="Learn a game by tabular Q-learning, and show how it went. "
        "A recipe is a game with all its numbers; the options replace some of them.",
        allow_abbrev=False,
    )
    add_recipe(parser, argv, nargs="?")
    add_show_episode(parser)
    parser.add_argument("--list", action="store_true", help="list the recipes and exit")
    args = parser.parse_args(argv)
    if args.list:
        return run(show_recipes)
    recipe = chosen_recipe(parser, args)
    return run(lambda: tell_story(recipe, args.show_episode))


def show_recipes() -> None:
    """Print the recipes, and what each of them is for."""
    for name, recipe in RECIPES.items():
        game = f"{recipe['env_id']} {recipe['env_kwargs'].get('map_name', '')}".rstrip()
        print(f"{name:25}{recipe['n_training_episodes']:>6} episodes of {game}")
        print(f"    {LESSONS[name]}")


if __name__ == "__main__":
    sys.exit(main())
