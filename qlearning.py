"""Tabular Q-learning in plain Python: learn what every action is worth in every state.

    python qlearning.py            learn to cross a frozen lake, prove the result right
    python qlearning.py --list     the other games

Down to the line "The algorithm ends here" it is complete, and it needs no package; all
the rest only checks, names and shows it. [book]: Sutton & Barto, 2nd edition; [course]:
Hugging Face Deep RL Course, Unit 2. The words, each with one meaning:

    state s, action a, reward r, new_state s'    one step of an episode
    terminated       the game itself is over: nothing follows, the future is worth 0
    truncated        somebody cut the episode short: the future keeps its value
    return G         the rewards to come, each times gamma once per step of waiting
    score            the rewards of an episode just added up, without gamma
    V[s]             value of a state: the return to expect from there
    Qtable[s][a]     value of an action in a state; a row of numbers for each state
    learning_rate    alpha, the share of the TD error that one update corrects
    epsilon          the probability of a random action while learning
    TD target        r + gamma * (value of what follows);  TD error = target - estimate
"""

import argparse
import contextlib
import functools
import io
import math
import random
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from operator import index
from typing import Any, NoReturn

Env = Any  # a gymnasium.Env
Step = tuple[int, int, float, int, bool]  # state, action, reward, new_state, terminated
# list[list[float]] is a Q-table: a NumPy array works as well, in every function.


# ------------------ What is a state worth? --------------------------------------------
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
    """The new V(s) <- V(s) + alpha [G - V(s)], once the episode is over. [eq. 6.1]

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
    """The new V(s) <- V(s) + alpha [r + gamma V(s') - V(s)], after each step. [eq. 6.2]

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
    """A row for every state, in it a value for every action. [section 2.6 on the start]

    Zeros, or an optimistic value: then whatever was not tried yet looks best.

    >>> initialize_q_table(state_space=3, action_space=2)
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    # A new list for each row: [[0.0] * 2] * 3 would be one row, seen three times.
    value = float(initial_value)
    return [[value for _ in range(action_space)] for _ in range(state_space)]


# ------------------ Step 2: choose an action ------------------------------------------
# Off-policy: the epsilon-greedy policy acts, and the greedy policy is learned about.
def argmax(values: list[float]) -> int:
    """The index of the largest value, the first one where several are equal.

    >>> argmax([0.0, 0.95, 0.9025, 0.95])
    1
    """
    return max(range(len(values)), key=lambda action: values[action])


def greedy_policy(Qtable: list[list[float]], state: int) -> int:
    """The best action known: the policy that is learned about, and the final one."""
    return argmax(Qtable[state])


def epsilon_greedy_policy(
    Qtable: list[list[float]], state: int, epsilon: float, rng: "Any" = random
) -> int:
    """With probability epsilon any action, a best one among them; else a best one. [2.2]

    Equal best values are broken at random: whoever always takes the first of them walks
    into the same wall again and again, as long as nothing is known.
    """
    if rng.random() > epsilon:  # exploit
        row = list(Qtable[state])  # a NumPy row could not count
        best = max(row)
        if row.count(best) == 1:
            return row.index(best)
        ties = [action for action, value in enumerate(row) if value == best]
        return ties[int(rng.random() * len(ties))]
    return int(rng.random() * len(Qtable[state]))  # explore


def exponential_decay(
    episode: int, minimum: float, maximum: float, decay_rate: float
) -> float:
    """minimum + (maximum - minimum) e^(-decay_rate * episode). [course]

    >>> exponential_decay(0, minimum=0.05, maximum=1.0, decay_rate=0.0005)
    1.0
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
    """The new Q(s,a) <- Q(s,a) + alpha [r + gamma max_a' Q(s',a') - Q(s,a)]. [eq. 6.8]

    >>> td_update([[0.0, 0.0], [1.0, 0.0]], 0, 1, 0.0, 1, learning_rate=1, gamma=0.95)
    0.95
    """
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
    env: Env,
    max_steps: int,
    Qtable: list[list[float]],
    learning_rate: float = 0.7,
    gamma: float = 0.95,
    *,
    min_learning_rate: float | None = None,
    seed: int | None = None,
    on_episode: Callable[[int, float, int, float], object] | None = None,
) -> list[list[float]]:
    """The same Qtable, improved in place by Q-learning. [book, section 6.5; course]

    `min_learning_rate` lets alpha decay by the formula of epsilon; without it alpha
    stays. The same `seed` gives the same table, bit for bit. After each episode comes
    `on_episode(episode, epsilon, steps, score)`. ValueError names what cannot be.
    """
    if min_learning_rate is None:
        min_learning_rate = learning_rate
    # What is asked of the arguments, before anything changes
    check_table(env, Qtable)
    check_range("n_training_episodes", n_training_episodes, 1, 10**9)
    check_range("max_steps", max_steps, 1, 10**6)
    check_range("max_epsilon", max_epsilon, 0.0, 1.0)
    check_range("min_epsilon (up to max_epsilon)", min_epsilon, 0.0, max_epsilon)
    check_range("decay_rate", decay_rate, 0.0, 1000.0)
    check_range("learning_rate", learning_rate, 1e-6, 1.0)
    check_range("min_learning_rate", min_learning_rate, 1e-6, learning_rate)
    check_range("gamma", gamma, 0.0, 1.0)
    check_range("seed", 0 if seed is None else seed, 0, 2**32 - 1)
    if not (on_episode is None or callable(on_episode)):
        raise ValueError(f"on_episode must be a function, not {on_episode!r}")
    # index and float: NumPy's numbers in, Python's own from here on
    seed = None if seed is None else index(seed)
    rng, n_states = random.Random(seed), len(Qtable)
    learning_rate, gamma = float(learning_rate), float(gamma)
    min_learning_rate = float(min_learning_rate)

    for episode in progress_bar(range(n_training_episodes)):
        epsilon = exponential_decay(episode, min_epsilon, max_epsilon, decay_rate)
        alpha = exponential_decay(episode, min_learning_rate, learning_rate, decay_rate)
        # Seeded once: the same seed at every reset would replay one and the same luck.
        state, _ = env.reset(seed=seed if episode == 0 else None)
        score = 0.0

        for step in range(1, max_steps + 1):
            # Step 2: choose an action
            action = epsilon_greedy_policy(Qtable, state, epsilon, rng)
            # Step 3: take it and observe
            new_state, reward, terminated, truncated, _ = env.step(action)
            reward = float(reward)
            if not 0 <= new_state < n_states:  # or Q[-1] would be the last row
                raise ValueError(f"state {new_state} is not from 0 to {n_states - 1}")
            # Step 4: update Q(s,a); where it was only truncated, a future remains
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
    env: Env, Qtable: list[list[float]], state: int, max_steps: int
) -> Iterator[Step]:
    """The steps of a greedy episode, from the state in which the environment is."""
    for _ in range(max_steps):
        action = greedy_policy(Qtable, state)
        new_state, reward, terminated, truncated, _ = env.step(action)
        yield int(state), action, float(reward), int(new_state), bool(terminated)
        if terminated or truncated:
            return
        state = new_state


def evaluate_agent(
    env: Env,
    max_steps: int,
    n_eval_episodes: int,
    Q: list[list[float]],
    seed: Sequence[int],
) -> tuple[float, float]:
    """Mean and (population) standard deviation of the greedy policy's scores. [course]

    `seed` holds one reset seed for each episode, or nothing.
    """
    check_table(env, Q)
    check_range("max_steps", max_steps, 1, 10**6)
    check_range("n_eval_episodes", n_eval_episodes, 1, 10**9)
    if 0 < len(seed) < n_eval_episodes:
        raise ValueError(f"{n_eval_episodes} episodes, but only {len(seed)} seeds")
    for reset_seed in seed:
        check_range("seed", reset_seed, 0, 2**32 - 1)
    scores = []
    for episode in range(n_eval_episodes):
        state, _ = env.reset(seed=index(seed[episode]) if len(seed) else None)
        steps = rollout(env, Q, state, max_steps)
        scores.append(sum(reward for _, _, reward, _, _ in steps))
    return statistics.fmean(scores), statistics.pstdev(scores)


# ------------------ What both loops ask for, and the progress bar ---------------------
def check_range(name: str, value: Any, lowest: float, highest: float) -> None:
    """ValueError unless the value is in its range, and whole where the lowest is."""
    kind, text = (Integral, "whole ") if isinstance(lowest, int) else (Real, "")
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not lowest <= value <= highest:  # so a NaN is refused as well
        wanted = f"a {text}number from {lowest} to {highest}"
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def table_size(env: Env) -> tuple[int, int]:
    """How many states and actions there are; ValueError if no table can hold them."""
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, env)
        if not (hasattr(space, "n") and getattr(space, "start", None) == 0):
            raise ValueError(
                f"a Q-table needs an environment with a Discrete {name} from 0, not "
                f"{space}; what can be counted, a wrapper can number (see README)"
            )
    return int(env.observation_space.n), int(env.action_space.n)


def check_table(env: Env, Qtable: list[list[float]]) -> None:
    """ValueError unless the table has a row of numbers of its own for every state."""
    states, actions = table_size(env)
    rows: list[Any] = list(Qtable)
    if len(rows) != states or {len(row) for row in rows} != {actions}:
        widths = " or ".join(str(width) for width in sorted({len(row) for row in rows}))
        raise ValueError(
            f"the Q-table is {len(rows)} x {widths or 0}, and this environment has "
            f"{states} states x {actions} actions"
        )
    own = [id(row) for row in rows if not isinstance(row, tuple)]  # what can change
    if len(set(own)) < len(own):
        raise ValueError("the Q-table repeats a row: take one from initialize_q_table")
    if "float" not in str(getattr(rows[0], "dtype", "float")):  # NumPy would round
        raise ValueError(f"the Q-table is made of {rows[0].dtype}, and needs floats")
    if not math.isfinite(sum(sum(row) for row in rows)):
        raise ValueError("the Q-table has a cell that is not a finite number")


def progress_bar(episodes: range) -> Any:
    """The same episodes, with tqdm's bar where there is a tqdm and somebody to see it."""
    try:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return episodes
    in_notebook = "ipykernel" in sys.modules
    # None: on a terminal only, so that nothing is drawn into a pipe or a file
    return tqdm(episodes, unit=" episodes", disable=False if in_notebook else None)


# ================== The algorithm ends here: copy down to here ========================
# All that follows looks at the algorithm from outside: nothing above needs it.


# ------------------ The exact answers, for who knows the rules ------------------------
def rules(env: Env, part: str = "P") -> Any:
    """What an environment publishes of its rules; a learner never looks at it.

    P[s][a] lists the (probability, new_state, reward, terminated) of all that can happen.
    ValueError if there is no such thing.
    """
    if not hasattr(env.unwrapped, part):
        game = type(env.unwrapped).__name__
        raise ValueError(f"{game} does not publish its rules: it has no {part}")
    return getattr(env.unwrapped, part)


def bellman_backup(P: Any, V: list[float], gamma: float) -> list[list[float]]:
    """Q(s,a) = the expected r + gamma V(s') over all that can happen. [book, eq. 4.6]"""

    def expected(outcomes: Sequence[tuple[float, int, float, bool]]) -> float:
        return sum(
            p * (reward + (0.0 if terminated else gamma * V[new_state]))
            for p, new_state, reward, terminated in outcomes
        )

    return [[expected(P[s][a]) for a in range(len(P[s]))] for s in range(len(P))]


def value_iteration(env: Env, gamma: float) -> list[list[float]]:
    """The exact Q-table: Bellman's optimality equation, solved. [section 4.4, eq. 4.10]

    ValueError if there are no rules, or if the values never settle (at gamma = 1).
    """
    P = rules(env)
    V = [0.0] * len(P)
    for _ in range(10_000):
        Qtable = bellman_backup(P, V, gamma)
        new_V = [max(row) for row in Qtable]
        if max(abs(new - old) for new, old in zip(new_V, V)) < 1e-12:
            return Qtable
        V = new_V
    raise ValueError(f"the values never settle at gamma={gamma}: take a smaller gamma")


def step_limit(env: Env, max_steps: int) -> int:
    """After how many steps an episode ends: max_steps, or the environment's own limit."""
    own = env.spec.max_episode_steps if env.spec else None
    return min(max_steps, own or max_steps)


def exact_score(
    env: Env, max_steps: int, Qtable: list[list[float]] | None = None
) -> float:
    """The expected score within max_steps, computed from the rules and not sampled.

    Of the table's greedy policy; without a table, of the best play there can be, which
    may also count the steps that are left. ValueError if there are no rules, or if it
    is not settled after 10,000 steps.
    """
    P, starts = rules(env), rules(env, "initial_state_distrib")
    steps = step_limit(env, max_steps)
    V, old_V = [0.0] * len(P), [math.nan]
    policy = None if Qtable is None else [argmax(row) for row in Qtable]
    for _ in range(min(steps, 10_000)):  # from the last step backwards
        Q, old_V = bellman_backup(P, V, gamma=1), V
        V = [row[policy[s]] if policy else max(row) for s, row in enumerate(Q)]
        if V == old_V:  # then more steps change nothing
            break
    if steps > 10_000 and V != old_V:
        raise ValueError("the score still changes after 10,000 steps")
    return sum(float(probability) * value for probability, value in zip(starts, V))


# ------------------ The hyperparameters, and the games with theirs --------------------
# The one home of each: the course's value, lowest, highest, meaning.
HYPERPARAMETERS: dict[str, tuple[Any, float, float, str]] = {
    "n_training_episodes": (10_000, 1, 10**9, "how many episodes to learn from"),
    "learning_rate": (0.7, 1e-6, 1.0, "alpha, the share of the TD error to correct"),
    "min_learning_rate": (None, 1e-6, 1.0, "what alpha decays to; None: it stays"),
    "gamma": (0.95, 0.0, 1.0, "what a reward is worth one step later"),
    "max_steps": (99, 1, 10**6, "after so many steps an episode is cut short"),
    "max_epsilon": (1.0, 0.0, 1.0, "share of random actions in the first episode"),
    "min_epsilon": (0.05, 0.0, 1.0, "what that share decays to"),
    "decay_rate": (0.0005, 0.0, 1000.0, "how fast epsilon decays, and alpha"),
    "initial_value": (0.0, -1e9, 1e9, "what every cell of the Q-table starts at"),
    "n_eval_episodes": (100, 1, 10**9, "how many episodes to evaluate"),
    "seed": (0, 0, 2**32 - 1, "where all chance in training starts from"),
}
COURSE: dict[str, Any] = {
    "env_id": "FrozenLake-v1",
    "env_kwargs": {"map_name": "4x4", "is_slippery": False},
    "eval_seed": [],
    **{name: value for name, (value, *_) in HYPERPARAMETERS.items()},
}
TAXI_SEEDS = """
    16 54 165 177 191 191 120 80 149 178 48 38 6 125 174 73 50 172 100 148 146 6 25 40 68
    148 49 167 9 97 164 176 61 7 54 55 161 131 184 51 170 12 120 113 95 126 51 98 36 135
    54 82 45 95 89 59 95 124 9 113 58 85 51 134 121 169 105 21 30 11 50 65 12 43 82 145
    152 97 106 55 31 85 38 112 102 168 123 97 21 83 158 26 80 63 5 81 32 11 28 148"""
TAXI = COURSE | {  # the course's as well
    "env_id": "Taxi-v3",
    "env_kwargs": {},
    "n_training_episodes": 25_000,
    "decay_rate": 0.005,
    "eval_seed": [int(seed) for seed in TAXI_SEEDS.split()],
}
ICE = COURSE | {  # where luck plays along, only a shrinking alpha averages it out
    "env_kwargs": {"map_name": "4x4", "is_slippery": True},
    "learning_rate": 0.5,
    "min_learning_rate": 0.01,
    "gamma": 0.99,
}
RECIPES = {
    "frozenlake": COURSE,
    "taxi": TAXI,
    "frozenlake-8x8": COURSE
    | {"env_kwargs": {"map_name": "8x8", "is_slippery": False}},
    "frozenlake-slippery": ICE,
    "frozenlake-8x8-slippery": ICE
    | {"env_kwargs": {"map_name": "8x8", "is_slippery": True}, "initial_value": 1.0}
    | {"n_training_episodes": 12_500, "min_learning_rate": 0.005, "decay_rate": 0.0006},
    # No action is worth more than the fare of 20. So what was not tried yet looks best,
    # and being greedy is exploring. Without luck one look tells the truth: alpha = 1.
    "taxi-exact": TAXI
    | {"n_training_episodes": 7_000, "learning_rate": 1.0, "initial_value": 20.0}
    | {"max_epsilon": 0.0, "min_epsilon": 0.0},
    "cliffwalking": COURSE
    | {"env_id": "CliffWalking-v1", "env_kwargs": {}, "n_training_episodes": 500}
    | {"learning_rate": 0.5, "gamma": 0.99, "decay_rate": 0.01},
}
LESSONS = {
    "frozenlake": "the course's lake: value spreads back from the goal",
    "taxi": "the course's taxi: 500 states, soon good, not everywhere exact",
    "frozenlake-8x8": "a goal hard to find: why equal values are broken at random",
    "frozenlake-slippery": "luck: why alpha must shrink, and why 0.74 is the optimum",
    "frozenlake-8x8-slippery": "luck and a far goal: an optimistic start finds it sooner",
    "taxi-exact": "perfect from every start in a third of the steps, by optimism",
    "cliffwalking": "the cliff: random steps fall off, the greedy policy does not",
}
SAME_GAMES = {"Taxi-v3": "Taxi-v4", "CliffWalking-v0": "CliffWalking-v1"}
SAME_GAMES |= {new: old for old, new in SAME_GAMES.items()}


def check_numbers(
    numbers: Mapping[str, Any], called: Callable[[str], str] = str
) -> None:
    """ValueError for the first of these that its home does not allow.

    `called` tells how to call a hyperparameter in the message.
    """
    for name, (_, lowest, highest, _) in HYPERPARAMETERS.items():
        may_be_none = name in ("min_learning_rate", "seed")
        if name in numbers and not (may_be_none and numbers[name] is None):
            check_range(called(name), numbers[name], lowest, highest)
    pairs = {"min_epsilon": "max_epsilon", "min_learning_rate": "learning_rate"}
    for low, high in pairs.items():
        if (numbers.get(low) or 0) > numbers.get(high, 1):
            above, below = (f"{called(name)} {numbers[name]}" for name in (low, high))
            raise ValueError(f"{below} is below {above}")


@functools.cache
def say_once(note: str) -> None:
    """Print a note on stderr, the first time only."""
    print(note, file=sys.stderr)


def make_env(env_id: str, **kwargs: Any) -> Env:
    """`gym.make`, and for an id that Gymnasium has retired the game by its new id."""
    import gymnasium as gym  # only here: all above runs without it

    if env_id in SAME_GAMES and env_id not in gym.registry:
        say_once(f"note: {env_id} is called {SAME_GAMES[env_id]} in this Gymnasium")
        env_id = SAME_GAMES[env_id]
    return gym.make(env_id, **kwargs)


def learn(env: Env, recipe: Mapping[str, Any], **more: Any) -> list[list[float]]:
    """A new Q-table, trained with all the numbers of a recipe."""
    Qtable = initialize_q_table(*table_size(env), recipe["initial_value"])
    numbers = {name: recipe[name] for name in HYPERPARAMETERS}
    del numbers["initial_value"], numbers["n_eval_episodes"]
    return train(env=env, Qtable=Qtable, **numbers, **more)


def evaluation_seeds(model: Mapping[str, Any]) -> list[int]:
    """The reset seeds of the episodes that are scored; the first is told and filmed."""
    return list(model["eval_seed"]) or list(range(model["n_eval_episodes"]))


def evaluate_model(env: Env, model: Mapping[str, Any]) -> tuple[float, float]:
    """`evaluate_agent` as the model asks for it, the same episodes every time."""
    steps, episodes = model["max_steps"], model["n_eval_episodes"]
    return evaluate_agent(
        env, steps, episodes, model["qtable"], evaluation_seeds(model)
    )


# ------------------ What a game is about, and how it looks ----------------------------
GAMES = {  # by class: what it is about, the actions, the map (a lake brings its own)
    "FrozenLakeEnv": (
        """Walk from S over frozen F to the goal G; a hole H ends the walk.
Reward: 1 for reaching G, else 0.""",
        "LEFT DOWN RIGHT UP",
        "",
    ),
    "CliffWalkingEnv": (
        """Walk from S to the goal G along the cliff C.
Reward: -1 a step; -100 for falling off the cliff, which leads back to S.""",
        "UP RIGHT DOWN LEFT",
        "FFFFFFFFFFFF FFFFFFFFFFFF FFFFFFFFFFFF SCCCCCCCCCCG",
    ),
    "TaxiEnv": (
        """Fetch a passenger at one of R, G, Y, B and bring them to another one.
Reward: -1 a step; +20 for arriving; -10 for a wrong pickup or dropoff.
25 places x 5 (passenger at R, G, Y, B or in the taxi) x 4 destinations = 500
states. 400 of them occur while driving: nobody waits where they want to go.
328 (3,1) Y to R is state 328: taxi in row 3, column 1, passenger from Y to R.""",
        "south north east west pickup dropoff",
        "R...G ..... ..... ..... Y..B.",
    ),
}


def describe(env: Env) -> tuple[str, list[str], list[str]]:
    """What the game is about, its actions, and its map if there is one that fits."""
    game = type(env.unwrapped).__name__
    n_actions = table_size(env)[1]
    names = list(getattr(env.unwrapped, "action_names", []))
    if len(names) != n_actions:
        names = [f"action{action}" for action in range(n_actions)]
    text, actions, letters = GAMES.get(game, ("", "", ""))
    rows = letters.split()
    if game == "FrozenLakeEnv":
        rows = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
    if max(map(len, rows), default=0) > 15:  # too wide for a terminal
        rows = []
    return text, actions.split() or names, rows


def is_taxi(env: Env) -> bool:
    """Whether a state is more than a place: taxi, passenger and destination."""
    return type(env.unwrapped).__name__ == "TaxiEnv"


def state_name(env: Env, state: int) -> str:
    """The number of a state, and what it stands for where that is more than a place."""
    if not is_taxi(env):
        return str(getattr(env.unwrapped, "state_name", str)(state))
    row, column, passenger, destination = env.unwrapped.decode(state)
    where = ("R", "G", "Y", "B", "taxi")[passenger]
    return f"{state} ({row},{column}) {where} to {'RGYB'[destination]}"


def printable(pretty: str, plain: str) -> str:
    """The pretty text, or the plain one where the output cannot encode it."""
    try:
        pretty.encode(sys.stdout.encoding or "ascii")
        return pretty
    except UnicodeEncodeError:
        return plain


def show_map(rows: Sequence[str], text: Callable[[int, str, int], str]) -> None:
    """Print text(place, letter, room) for each place of the map, in columns."""
    width = min(8, 79 // max(map(len, rows), default=1))
    for y, row in enumerate(rows):
        places = enumerate(row, start=y * len(row))
        print("".join(f"{text(i, letter, width - 1):>{width}}" for i, letter in places))


def show_values(
    rows: Sequence[str], Qtable: list[list[float]], start: float, arrows: Sequence[str]
) -> None:
    """Print V(s) = max Q(s,a) on the map, behind an arrow for the greedy action."""

    def text(state: int, letter: str, room: int) -> str:
        row = Qtable[state]
        if letter in "HCG" or all(value == start for value in row):
            return letter if letter in "HCG" else "."
        texts = [f"{arrows[argmax(row)]}{max(row):.{n}f}" for n in (3, 2, 1, 0)]
        return next((fits for fits in texts if len(fits) <= room), texts[-1])

    show_map(rows, text)


# ------------------ The story: what happened, with its numbers ------------------------
def show_world(env: Env, model: Mapping[str, Any]) -> None:
    """Print what the game is, how many states and actions it has, and its map."""
    text, names, rows = describe(env)
    print(f"THE WORLD: {model['env_id']} {model.get('env_kwargs') or ''}".rstrip())
    numbered = ", ".join(f"{action} {name}" for action, name in enumerate(names))
    sizes = f"{table_size(env)[0]} states, {len(names)} actions: {numbered}"
    print(*filter(None, [text, textwrap.fill(sizes, 79)]), sep="\n")
    if model.get("env_kwargs", {}).get("is_slippery"):
        print("Slippery: a step may go to one side of where it was meant to go.")
    if is_taxi(env):  # its own drawing has the walls
        drawing = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
        print(*drawing, sep="\n")
    elif rows:
        print("The states are numbered row by row, from 0 at the top left.\n")
        show_map(rows, lambda _, letter, __: letter)


class Diary:
    """An environment that writes down its first 100,000 steps and changes nothing."""

    def __init__(self, env: Env) -> None:
        self.env, self.episode, self.state = env, 0, 0
        self.steps: list[tuple[int, Step]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, **options: Any) -> Any:
        self.episode += 1
        self.state, info = self.env.reset(**options)
        return self.state, info

    def step(self, action: int) -> Any:
        result = new_state, reward, terminated, _, _ = self.env.step(action)
        if len(self.steps) < 100_000:
            step = self.state, action, reward, new_state, terminated
            self.steps.append((self.episode, step))
        self.state = new_state
        return result


def show_beginning(diary: Diary, recipe: Mapping[str, Any]) -> None:
    """Print the first updates with their arithmetic, and how value spreads from a goal.

    The updates are made once more from the diary: the same steps, the same numbers.
    """
    _, names, rows = describe(diary)
    start, rate, gamma = (recipe[n] for n in ("initial_value", "decay_rate", "gamma"))
    high, low = recipe["learning_rate"], recipe["min_learning_rate"]
    Qtable = initialize_q_table(*table_size(diary), start)
    lessons = ["the first value that changes", "the first built on a learned value"]
    goals = 0
    print("\nFIRST LESSONS: Q(s,a) = Q + alpha * (r + gamma * max Q(s',a') - Q)")
    for episode, (state, action, reward, new_state, terminated) in diary.steps:
        old, future = Qtable[state][action], 0 if terminated else max(Qtable[new_state])
        alpha = exponential_decay(episode - 1, low or high, high, rate)
        about = reward, new_state, alpha, gamma
        new = td_update(Qtable, state, action, *about, terminated)
        if lessons and new != old and (len(lessons) == 2 or future not in (0, start)):
            name = state_name(diary, state)
            print(f"\nEpisode {episode}, state {name}, {lessons.pop(0)}:")
            then, before = (
                f"({q:.4g})" if q < 0 else f"{q:.4g}" for q in (future, old)
            )
            error = f"({reward:g} + {gamma:g} * {then} - {before})"
            print(f"  Q({state}, {names[action]}) = {old:.4g} + {alpha:.4g}", end=" * ")
            print(f"{error} = {new:.4g}")
        reached = bool(rows) and terminated and reward > 0 and not is_taxi(diary)
        goals += reached
        if reached and goals in (1, 3, 10, 30):
            print(
                f"\nHOW VALUE SPREADS: V(s) in episode {episode}, goal reached {goals}x"
            )
            show_values(rows, Qtable, start, [""] * len(names))


def show_learning(history: Sequence[tuple[int, float, int, float]]) -> None:
    """Print how the episodes went, as `on_episode` was told it: finer lines first."""
    ends = sorted({math.ceil(len(history) / 2**k) for k in range(10)})
    parts = [history[start:end] for start, end in zip([0, *ends], ends)]
    means = [statistics.fmean(score for *_, score in part) for part in parts]
    low, high = min(0, *means), max(0, *means)
    print("episodes  epsilon  mean score since the line above, exploring included")
    for end, part, mean in zip(ends, parts, means):
        bar = printable("█", "#") * round(40 * (mean - low) / (high - low or 1))
        print(f"{end:>8}{part[-1][1]:>9.3f}{mean:>11.2f}  {bar}".rstrip())


def show_table(env: Env, model: Mapping[str, Any], states: Iterable[int]) -> None:
    """Print these rows of the Q-table."""
    print("\nTHE Q-TABLE: * the greedy action, . a state of which nothing is known")
    names = describe(env)[1]
    width = min(10, 59 // len(names))
    print(f"{'state':<19}" + "".join(f"{name:>{width}} " for name in names).rstrip())
    for state in states:
        row, cells = model["qtable"][state], f"{'.':>{width}}"
        if is_known(model, state):
            marks = ["*" if a == argmax(row) else " " for a in range(len(row))]
            cells = "".join(f"{q:>{width}.4f}{mark}" for q, mark in zip(row, marks))
        print(f"{state_name(env, state):<19}{cells}".rstrip())


def is_known(model: Mapping[str, Any], state: int) -> bool:
    """Whether learning has changed the row of a state."""
    start = model.get("initial_value", 0.0)
    return any(value != start for value in model["qtable"][state])


def show_episode(env: Env, model: Mapping[str, Any], steps: Sequence[Step]) -> None:
    """Print the steps of a greedy episode: what was expected of each, and what came."""
    _, names, rows = describe(env)
    Qtable, gamma = model["qtable"], model["gamma"]
    print("step state               action    reward   Q(s,a)    target  TD error")
    for i, (state, action, reward, new_state, terminated) in enumerate(steps):
        if len(steps) > 20 and i == 4:
            print(f"     ... {len(steps) - 7} steps left out ...")
        if len(steps) > 20 and 4 <= i < len(steps) - 3:
            continue
        q = Qtable[state][action]
        target = reward + gamma * (0.0 if terminated else max(Qtable[new_state]))
        error = round(target - q, 4) + 0.0  # + 0.0: no minus before a zero
        told = (
            f"{i + 1:>4} {state_name(env, state):<19} {names[action]:<8} {reward:>7g}"
        )
        print(f"{told}{q:>9.4f}{target:>10.4f}{error:>+10.4f}")
    score = sum(reward for _, _, reward, _, _ in steps)
    states = [steps[0][0], *(new_state for _, _, _, new_state, _ in steps)]
    places = [state // 20 if is_taxi(env) else state for state in states]
    letter = "".join(rows)[places[-1]] if rows else ""
    ends = {"G": "the goal is reached", "H": "it fell into a hole"}
    end = "the passenger has arrived" if is_taxi(env) else ends.get(letter, "it ended")
    if not steps[-1][-1]:
        end = "it was cut short"
    falls = sum(reward == -100 for _, _, reward, _, _ in steps)
    end += f", after {falls} falls off the cliff" if falls else ""
    print(f"After {len(steps)} steps {end}. Score {score:g}.")
    if rows:
        print("The route, with the step that first reached a place:")
    show_map(rows, lambda i, c, _: str(places.index(i)) if i in places else c)


def show_agent(
    env: Env, model: Mapping[str, Any], episode: int = 1, proof: bool = True
) -> None:
    """Print what an agent has learned: its table, policy, an episode, score and proof.

    `episode` says which one of those that are scored is told, from 1.
    """
    _, names, rows = describe(env)
    Qtable, seed = model["qtable"], evaluation_seeds(model)[episode - 1]
    start, _ = env.reset(seed=seed)
    steps = list(rollout(env, Qtable, int(start), model["max_steps"]))
    visited = list(dict.fromkeys(state for state, *_ in steps))
    show_table(env, model, range(len(Qtable)) if len(Qtable) <= 64 else visited[:6])
    if len(Qtable) > 64:
        print("(only the first states of the episode below)")
    if rows and not is_taxi(env):
        print("\nTHE POLICY: the greedy actions, with V(s), the value of the best one")
        arrows = dict(zip(["LEFT", "DOWN", "RIGHT", "UP"], printable("←↓→↑", "<v>^")))
        signs = [arrows[name] for name in names]
        show_values(rows, Qtable, model.get("initial_value", 0.0), signs)
    print(f"\nONE EPISODE: number {episode} of the scored ones (reset seed {seed})")
    show_episode(env, model, steps)

    mean, std = evaluate_model(env, model)
    n_episodes = model["n_eval_episodes"]
    print(f"\nTHE SCORE: {n_episodes} greedy episodes, mean +/- standard deviation")
    print(f"Mean_reward={mean:.2f} +/- {std:.2f}")
    if is_taxi(env):
        print(f"mean - std = {mean - std:.2f} (4.5 or more passes the course)")
    if proof:
        show_proof(env, model)


def show_proof(env: Env, model: Mapping[str, Any]) -> None:
    """Print how far the table is from the exact one in all states that it knows."""
    print("\nTHE PROOF: beside the exact table, solved from the game's own rules")
    try:
        exact = value_iteration(env, model["gamma"])
    except ValueError as error:
        print(f"There is no exact table: {error}.")
        return
    Qtable, P, steps = model["qtable"], rules(env), step_limit(env, model["max_steps"])
    known = [state for state in range(len(P)) if is_known(model, state)]
    outcomes = [o for s in known for a in range(len(P[s])) for o in P[s][a]]
    ends = {int(new_state) for _, new_state, _, terminated in outcomes if terminated}
    # The row of an end is never updated: it must be as it was at the start.
    untouched = [model.get("initial_value", 0.0)] * len(Qtable[0])
    answers = {s: exact[s] for s in known} | {s: untouched for s in ends}
    gaps = [abs(q - x) for s in answers for q, x in zip(Qtable[s], answers[s])]
    equal = sum(gap < 5e-9 for gap in gaps)
    wrong = [s for s in known if exact[s][argmax(Qtable[s])] < max(exact[s]) - 1e-9]
    mean, std = evaluate_model(env, {**model, "qtable": exact})
    at_ends = len(ends) * len(untouched)
    print(f"States that a value has reached: {len(known)} of {len(P)}", end="")
    print(f"; ends beside them: {len(ends)}")
    print(f"Cells there that are exact to 8 decimals: {equal} of {len(gaps)}", end="")
    print(f" ({at_ends} at ends)")
    print(f"States with a best action: {len(known) - len(wrong)} of {len(known)}")
    print(f"Mean_reward of the exact table, same episodes: {mean:.2f} +/- {std:.2f}")
    own = key = best = math.nan  # where it is not said how episodes start
    with contextlib.suppress(ValueError):
        tables = (Qtable, exact, None)
        own, key, best = (exact_score(env, steps, table) for table in tables)
        print(f"Expected score in {steps} steps, by the rules: {own:.4f}")
        print(f"Of the exact table: {key:.4f}; of the best possible play: {best:.4f}")
    verdict = "not exact"
    if not known:
        verdict = "nothing learned: no reward has reached the table yet"
    elif own < key - 1e-9:
        where = ", ".join(state_name(env, state) for state in wrong[:3])
        verdict = f"{key - own:.4f} below the exact table"
        verdict += f"; not the best action in states such as {where}" if where else ""
    elif own < best - 1e-9:
        verdict = f"no worse than the exact table, {best - own:.4f} below the best play"
    elif equal == len(gaps):
        verdict = "exact"
    elif own > best - 1e-9:
        verdict = "the best possible score is reached"
    print(textwrap.fill(f"VERDICT: {verdict}.", 79))


def tell_story(recipe: Mapping[str, Any], episode: int = 1) -> None:
    """Learn the recipe's game and print all of it, from the world to the proof."""
    env = Diary(make_env(recipe["env_id"], **recipe["env_kwargs"]))
    show_world(env, recipe)
    numbers = [f"{name}={recipe[name]}" for name in HYPERPARAMETERS]
    print("\nLEARNING\n" + textwrap.fill(", ".join(numbers), 79))
    history: list[tuple[int, float, int, float]] = []
    start = time.perf_counter()
    Qtable = learn(env, recipe, on_episode=lambda *told: history.append(told))
    seconds = time.perf_counter() - start
    show_learning(history)
    show_beginning(env, recipe)
    show_agent(env, {**recipe, "qtable": Qtable}, episode)
    total_steps = sum(steps for _, _, steps, _ in history)
    print(f"\n{total_steps:,} environment steps in {seconds:.1f} seconds.")
    print("Next: another game (see --list) or other numbers (see --help).")


# ------------------ The command line --------------------------------------------------
class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def option(name: str) -> str:
    """How a hyperparameter is called on the command line."""
    return "--" + name.removeprefix("n_training_").removeprefix("n_").replace("_", "-")


def add_recipe(parser: Parser, argv: Sequence[str], **more: Any) -> None:
    """Let the parser take a recipe and an option for each hyperparameter.

    The help tells the values of the recipe that `argv` names.
    """
    recipe = RECIPES[next((word for word in argv if word in RECIPES), "frozenlake")]
    text = f"a game with its numbers: {', '.join(RECIPES)}"
    parser.add_argument("recipe", help=text, **more)
    for name, (_, lowest, _, meaning) in HYPERPARAMETERS.items():
        text = f"{meaning} ({recipe[name]})"
        kind = type(lowest)
        parser.add_argument(option(name), dest=name, type=kind, metavar="N", help=text)
    text = "which of the scored episodes to tell or film (1)"
    parser.add_argument("--show-episode", type=int, default=1, metavar="N", help=text)


def chosen_recipe(parser: Parser, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe with the given options in it; a bad one ends the program, code 2."""
    if args.recipe not in RECIPES:
        parser.error(f"no recipe {args.recipe!r}: choose from {', '.join(RECIPES)}")
    options = {name: getattr(args, name) for name in HYPERPARAMETERS}
    given = {name: value for name, value in options.items() if value is not None}
    recipe = RECIPES[args.recipe] | given
    try:
        check_numbers(
            recipe, lambda n: option(n) if n in given else f"the recipe's {n}"
        )
        n_shown = len(evaluation_seeds(recipe))
        check_range("--show-episode", args.show_episode, 1, n_shown)
    except ValueError as error:
        parser.error(str(error))
    return recipe


def one_line(error: BaseException) -> str:
    """What an error says, fit for a terminal whatever a stranger's file put into it."""
    return "".join(c if c.isprintable() else " " for c in str(error)[:300])


def exit_code(prog: str, command: Callable[[], object]) -> int:
    """The exit code of a command, of which whatever happens becomes one line at most.

    0, or what argparse says; 1 for a failure, 130 after Ctrl-C.
    """
    sys.stdout = sys.stdout or io.StringIO()  # a shell can close them: `>&-`, `2>&-`
    sys.stderr = sys.stderr or io.StringIO()
    try:
        command()
        sys.stdout.flush()
        return 0
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
        return 1
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return 1
    finally:
        for name in ("stdout", "stderr"):  # what cannot be written is dropped
            try:
                getattr(sys, name).flush()
            except OSError:
                setattr(sys, name, io.StringIO())


def command_line(argv: Sequence[str]) -> None:
    """Do what one command line says."""
    parser = Parser(
        prog="qlearning.py",
        description="Learn a game by tabular Q-learning, and show how it went. "
        "A recipe is a game with all its numbers; the options replace some of them.",
    )
    add_recipe(parser, argv, nargs="?", default="frozenlake")
    parser.add_argument("--list", action="store_true", help="list the recipes and exit")
    args = parser.parse_args(argv)
    if not args.list:
        return tell_story(chosen_recipe(parser, args), args.show_episode)
    for name, recipe in RECIPES.items():
        game = f"{recipe['env_id']} {recipe['env_kwargs'].get('map_name', '')}".rstrip()
        print(f"{name:25}{recipe['n_training_episodes']:>6} episodes of {game}")
        print(f"    {LESSONS[name]}")
    print("They are seven settings of three games: lake, taxi and cliff.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return exit_code("qlearning.py", lambda: command_line(given))


if __name__ == "__main__":
    sys.exit(main())
