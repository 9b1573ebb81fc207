"""Tabular Q-learning in plain Python. Down to `evaluate_agent` this is the complete
algorithm; the rest only checks its input, names the games, draws, and reads options.

    python qlearning.py            learn to cross a frozen lake, prove the result right
    python qlearning.py --list     the other games

Vocabulary (book: Sutton & Barto, 2nd ed.; course: Hugging Face Deep RL Course, Unit 2)
    state s, action a, reward r, new_state s'    one step of an episode
    terminated       the game itself has ended: nothing follows, the future is worth 0
    truncated        a step limit cut the episode short: the future keeps its value
    return G         the rewards from now on, times gamma for each step of waiting
    score            the same without gamma: what an episode's rewards add up to
    V[s]             value of a state: the return to expect from there
    Qtable[s][a]     value of an action in a state: a row of floats for each state
    learning_rate    alpha, the share of the TD error that one update corrects
    epsilon          the probability of a random action while learning
    TD target        r + gamma * (value of what follows);  TD error = target - estimate
"""

import argparse
import functools
import math
import random
import signal
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from types import ModuleType
from typing import Any, NoReturn

import gymnasium as gym

try:
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
except ImportError:  # a progress bar is a comfort; only gymnasium is a need

    def tqdm(iterable: Any, **_: Any) -> Any:
        return iterable


Env = Any  # a gymnasium.Env, whose type does not tell that there are `n` states
Row = Sequence[float]
Values = list[float]
QTable = list[Values]


# ------------------ Before the algorithm: what is a state worth? ----------------------
def discounted_return(rewards: Row, gamma: float) -> float:
    """G = r1 + gamma r2 + gamma^2 r3 + ..., summed from the end. [book, eq. 3.8]

    >>> discounted_return([-1, -1, -1, -1], gamma=1)
    -4.0
    """
    G = 0.0
    for reward in reversed(rewards):
        G = reward + gamma * G
    return G


def monte_carlo_update(V: Values, state: int, G: float, learning_rate: float) -> float:
    """The new V(s) <- V(s) + alpha [G - V(s)], once the episode is over. [eq. 6.1]

    >>> round(monte_carlo_update([0.0], state=0, G=3, learning_rate=0.1), 8)
    0.3
    """
    V[state] += learning_rate * (G - V[state])
    return V[state]


def td0_update(
    V: Values,
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


def bellman_backup(P: Any, V: Row, gamma: float) -> QTable:
    """Q(s,a) = the expected r + gamma V(s') over all that can happen. [eq. 4.6]

    P[s][a] lists the outcomes as (probability, new_state, reward, terminated).
    """

    def expected(outcomes: Sequence[tuple[float, int, float, bool]]) -> float:
        return sum(
            p * (r + (0.0 if end else gamma * V[s])) for p, s, r, end in outcomes
        )

    return [[expected(P[s][a]) for a in range(len(P[s]))] for s in range(len(P))]


def value_iteration(env: Env, gamma: float) -> QTable:
    """The exact Q-table: the Bellman equation solved from the game's own rules. [4.4]

    This is the answer key: a learner never sees the rules, `env.unwrapped.P`.
    ValueError if there are none, or if the values never settle (at gamma = 1).
    """
    if not hasattr(env.unwrapped, "P"):
        raise ValueError(f"{env} does not publish its rules as env.unwrapped.P")
    V = [0.0] * len(env.unwrapped.P)
    for _ in range(10_000):
        Qtable = bellman_backup(env.unwrapped.P, V, gamma)
        new_V = [max(row) for row in Qtable]
        if max(abs(new - old) for new, old in zip(new_V, V)) < 1e-12:
            return Qtable
        V = new_V
    raise ValueError(f"the values never settle at gamma={gamma}: take a smaller gamma")


# ------------------ Step 1: initialize the Q-table ------------------------------------
def initialize_q_table(state_space: int, action_space: int) -> QTable:
    """A row of zeros for every state, with a column for every action.

    >>> initialize_q_table(state_space=3, action_space=2)
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    # A new list for each row: [[0.0] * 2] * 3 would be one row, seen three times.
    return [[0.0 for _ in range(action_space)] for _ in range(state_space)]


# ------------------ Step 2: choose an action ------------------------------------------
# Off-policy: the epsilon-greedy policy acts, and the greedy policy is learned about.
def argmax(values: Row) -> int:
    """The index of the largest value, the first one where several are equal.

    >>> argmax([0.0, 0.95, 0.9025, 0.95])
    1
    """
    return max(range(len(values)), key=lambda index: values[index])


def greedy_policy(Qtable: Sequence[Row], state: int) -> int:
    """The best action known: the policy that is learned about, and the final one."""
    return argmax(Qtable[state])


def epsilon_greedy_policy(
    Qtable: QTable, state: int, epsilon: float, rng: random.Random | ModuleType = random
) -> int:
    """With probability epsilon any action (a best one among them), else a best one. [2.2]

    Equal best values are broken at random: whoever always takes the first of them walks
    into the same wall for ever, as long as nothing is known.
    """
    row = Qtable[state]
    if rng.random() > epsilon:  # exploit
        best = max(row)
        if row.count(best) == 1:
            return row.index(best)
        ties = [action for action, value in enumerate(row) if value == best]
        return ties[int(rng.random() * len(ties))]
    return int(rng.random() * len(row))  # explore


def exponential_decay(
    episode: int, minimum: float, maximum: float, decay_rate: float
) -> float:
    """minimum + (maximum - minimum) e^(-decay_rate * episode). [course]

    >>> exponential_decay(0, minimum=0.05, maximum=1.0, decay_rate=0.0005)
    1.0
    """
    return minimum + (maximum - minimum) * math.exp(-decay_rate * episode)


# ------------------ Steps 3 and 4: take the action, observe, update Q(s,a) ------------
def td_update(
    Qtable: QTable,
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
    Qtable: QTable,
    learning_rate: float = 0.7,
    gamma: float = 0.95,
    *,
    min_learning_rate: float | None = None,
    seed: int | None = None,
    on_episode: Callable[[int, float, int, float], object] | None = None,
) -> QTable:
    """The same Qtable, improved in place by Q-learning. [book, 6.5; course]

    `min_learning_rate` lets alpha decay by the formula of epsilon. The same `seed`
    gives the same table, bit for bit. `on_episode(episode, epsilon, steps, total_reward)`
    is called after each episode. Bad input raises ValueError or TypeError beforehand.
    """
    check_numbers(locals())  # at this point these are just the arguments, by name
    check_table(env, Qtable)
    rng = random.Random(seed)
    alpha = learning_rate

    for episode in tqdm(range(n_training_episodes), unit=" episodes", disable=None):
        epsilon = exponential_decay(episode, min_epsilon, max_epsilon, decay_rate)
        if min_learning_rate is not None:
            low, high = min_learning_rate, learning_rate
            alpha = exponential_decay(episode, low, high, decay_rate)
        # Seeded once: the same seed at every reset would replay one and the same luck.
        state, _ = env.reset(seed=seed if episode == 0 else None)
        total_reward = 0.0

        for step in range(1, max_steps + 1):
            # Step 2: choose an action
            action = epsilon_greedy_policy(Qtable, state, epsilon, rng)
            # Step 3: take it and observe
            new_state, reward, terminated, truncated, _ = env.step(action)
            reward = float(reward)  # NumPy's numbers would spread in the table
            # Step 4: update Q(s,a); where it was only truncated, a future remains
            td_update(
                Qtable, state, action, reward, new_state, alpha, gamma, terminated
            )
            total_reward += reward
            if terminated or truncated:
                break
            state = new_state

        if on_episode is not None:
            on_episode(episode, epsilon, step, total_reward)
    return Qtable


# ------------------ Evaluation: the greedy policy plays, nothing is learned -----------
def rollout(
    env: Env, Qtable: Sequence[Row], max_steps: int, seed: int | None = None
) -> Iterator[tuple[int | None, float, int]]:
    """One greedy episode: (None, 0.0, start), then each (action, reward, new_state).

    The start comes first so that a film can begin before the first move.
    """
    state, _ = env.reset(seed=seed)
    yield None, 0.0, int(state)
    for _ in range(max_steps):
        action = greedy_policy(Qtable, state)
        state, reward, terminated, truncated, _ = env.step(action)
        yield action, float(reward), int(state)
        if terminated or truncated:
            return


def evaluate_agent(
    env: Env,
    max_steps: int,
    n_eval_episodes: int,
    Q: Sequence[Row],
    seed: Sequence[int],
) -> tuple[float, float]:
    """Mean and (population) standard deviation of the greedy policy's scores. [course]

    `seed` holds one reset seed for each episode, or nothing.
    """
    check_numbers({"max_steps": max_steps, "n_eval_episodes": n_eval_episodes})
    check_table(env, Q)
    check_seeds(seed, n_eval_episodes)
    seeds = seed[:n_eval_episodes] if len(seed) else [None] * n_eval_episodes
    episodes = (rollout(env, Q, max_steps, reset_seed) for reset_seed in seeds)
    scores = [sum(reward for _, reward, _ in episode) for episode in episodes]
    return statistics.fmean(scores), statistics.pstdev(scores)


# ------------------ Checks: one clear sentence, before anything is changed ------------
COUNT = (Integral, lambda n: 1 <= n <= 10**9, "a whole number from 1 to 1000000000")
SHARE = (Real, lambda x: 0 <= x <= 1, "a number from 0 to 1")
ALPHA = (Real, lambda x: 0 < x <= 1, "a number above 0 and up to 1")
LIMITS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "n_training_episodes": COUNT,
    "n_eval_episodes": COUNT,
    "max_steps": COUNT,
    "learning_rate": ALPHA,
    "min_learning_rate": ALPHA,
    "gamma": SHARE,
    "max_epsilon": SHARE,
    "min_epsilon": SHARE,
    "decay_rate": (Real, lambda x: 0 <= x < math.inf, "a finite number of 0 or more"),
    "seed": (Integral, lambda n: n >= 0, "a whole number of 0 or more"),
}


def check_numbers(numbers: Mapping[str, Any]) -> None:
    """TypeError or ValueError for the first of these that LIMITS does not allow."""
    for name in [name for name in LIMITS if name in numbers]:
        value, (kind, in_range, wanted) = numbers[name], LIMITS[name]
        if value is None and name in ("seed", "min_learning_rate"):
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(f"{name} must be {wanted}, not {value!r}")
        if not in_range(value):
            raise ValueError(f"{name} must be {wanted}, not {value}")
    ranges = {"min_epsilon": "max_epsilon", "min_learning_rate": "learning_rate"}
    for low, high in ranges.items():
        if (numbers.get(low) or 0) > numbers.get(high, 1):
            raise ValueError(f"{low} {numbers[low]} is above {high} {numbers[high]}")


def check_seeds(seeds: Sequence[int], n_eval_episodes: int) -> None:
    """TypeError or ValueError unless there is a seed for each episode, or none at all."""
    if not isinstance(seeds, Sequence):
        raise TypeError(f"seed must be a list with one for each episode, not {seeds!r}")
    if 0 < len(seeds) < n_eval_episodes:
        raise ValueError(f"{n_eval_episodes} episodes, but only {len(seeds)} seeds")
    for seed in seeds:
        check_numbers({"seed": seed})


def check_table(env: Env, Qtable: Sequence[Row]) -> None:
    """ValueError unless the table has a row of its own for every state."""
    for space in (env.observation_space, env.action_space):
        if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
            raise ValueError(f"a Q-table needs Discrete spaces from 0, not {space}")
    needed = f"{env.observation_space.n} x {env.action_space.n}"
    try:
        widths = sorted({len(row) for row in Qtable})
        found = " or ".join(f"{len(Qtable)} x {width}" for width in widths)
    except TypeError:
        kind = type(Qtable).__name__
        raise TypeError(f"a Q-table is a list of lists of numbers, no {kind}") from None
    if found != needed:
        raise ValueError(f"the Q-table is {found or 'empty'}, this game needs {needed}")
    lists = [id(row) for row in Qtable if isinstance(row, list)]
    if len(set(lists)) < len(lists):
        raise ValueError("the Q-table repeats a row: take one from initialize_q_table")
    if not all(
        isinstance(q, Real) and not math.isnan(q) for row in Qtable for q in row
    ):
        raise ValueError("the Q-table has a cell that is not a number")


# ------------------ The games, with all their hyperparameters -------------------------
LAKE: dict[str, Any] = {  # the course's numbers, to the letter
    "env_id": "FrozenLake-v1",
    "env_kwargs": {"map_name": "4x4", "is_slippery": False},
    "n_training_episodes": 10_000,
    "learning_rate": 0.7,
    "min_learning_rate": None,  # None: alpha stays where it is
    "gamma": 0.95,
    "max_steps": 99,
    "max_epsilon": 1.0,
    "min_epsilon": 0.05,
    "decay_rate": 0.0005,
    "n_eval_episodes": 100,
    "eval_seed": [],
    "seed": 0,
}
TAXI_SEEDS = """
    16 54 165 177 191 191 120 80 149 178 48 38 6 125 174 73 50 172 100 148 146 6 25 40 68
    148 49 167 9 97 164 176 61 7 54 55 161 131 184 51 170 12 120 113 95 126 51 98 36 135
    54 82 45 95 89 59 95 124 9 113 58 85 51 134 121 169 105 21 30 11 50 65 12 43 82 145
    152 97 106 55 31 85 38 112 102 168 123 97 21 83 158 26 80 63 5 81 32 11 28 148"""
TAXI = LAKE | {  # the course's as well
    "env_id": "Taxi-v3",
    "env_kwargs": {},
    "n_training_episodes": 25_000,
    "decay_rate": 0.005,
    "eval_seed": [int(seed) for seed in TAXI_SEEDS.split()],
}
SLIPPERY = LAKE | {  # where luck plays along, only a shrinking alpha averages it out
    "env_kwargs": {"map_name": "4x4", "is_slippery": True},
    "learning_rate": 0.5,
    "min_learning_rate": 0.01,
    "gamma": 0.99,
    "eval_seed": list(range(100)),
}
RECIPES = {
    "frozenlake": LAKE,
    "taxi": TAXI,
    "frozenlake-8x8": LAKE | {"env_kwargs": {"map_name": "8x8", "is_slippery": False}},
    "frozenlake-slippery": SLIPPERY,
    "frozenlake-8x8-slippery": SLIPPERY
    | {"env_kwargs": {"map_name": "8x8", "is_slippery": True}}
    | {"n_training_episodes": 25_000, "min_learning_rate": 0.005, "decay_rate": 0.0003},
    # Without luck, one look tells the whole truth: alpha = 1 believes it at once.
    "taxi-exact": TAXI
    | {"n_training_episodes": 10_000, "learning_rate": 1.0, "decay_rate": 0.0003},
    "cliffwalking": LAKE
    | {"env_id": "CliffWalking-v1", "env_kwargs": {}, "n_training_episodes": 500}
    | {"learning_rate": 0.5, "gamma": 0.99, "decay_rate": 0.01},
}
SAME_GAMES = ("Taxi-v3", "Taxi-v4"), ("CliffWalking-v0", "CliffWalking-v1")
say_once = functools.cache(lambda note: print(note, file=sys.stderr))


def make_env(env_id: str, **kwargs: Any) -> Env:
    """`gym.make`, and for an id that Gymnasium has retired the game by its new id."""
    for ids in SAME_GAMES:
        if env_id in ids and env_id not in gym.registry:
            (other_id,) = set(ids) - {env_id}
            say_once(f"note: {env_id} is called {other_id} in this Gymnasium")
            return gym.make(other_id, **kwargs)
    return gym.make(env_id, **kwargs)


def learn(env: Env, Qtable: QTable, recipe: Mapping[str, Any], **more: Any) -> QTable:
    """The same Qtable, trained with all the numbers of a recipe."""
    numbers = {name: recipe[name] for name in LIMITS if name != "n_eval_episodes"}
    return train(env=env, Qtable=Qtable, **numbers, **more)


def evaluate_model(env: Env, model: Mapping[str, Any]) -> tuple[float, float]:
    """`evaluate_agent` as the model asks for it, with the same luck every time."""
    env.reset(seed=0)  # for a model without evaluation seeds
    steps, episodes = model["max_steps"], model["n_eval_episodes"]
    return evaluate_agent(env, steps, episodes, model["qtable"], model["eval_seed"])


def shown_seed(model: Mapping[str, Any]) -> int:
    """The reset seed of the episode that is told or filmed: the first one evaluated."""
    return int(next(iter(model["eval_seed"]), 0))


def exact_score(env: Env, max_steps: int, Qtable: Sequence[Row] | None = None) -> float:
    """The expected score within max_steps, computed from the rules and not sampled.

    Of the table's greedy policy; without a table, of the best play there can be, which
    may also look at how many steps are left.
    """
    V = [0.0] * len(env.unwrapped.P)
    for _ in range(max_steps):  # from the last step backwards
        Q = bellman_backup(env.unwrapped.P, V, gamma=1)
        old_V = V
        if Qtable is None:
            V = [max(row) for row in Q]
        else:
            V = [row[greedy_policy(Qtable, state)] for state, row in enumerate(Q)]
        if V == old_V:  # then more steps change nothing
            break
    starts = enumerate(env.unwrapped.initial_state_distrib)
    return sum(float(probability) * V[state] for state, probability in starts)


# ------------------ Drawing -----------------------------------------------------------
def about_game(env: Env) -> tuple[str, list[str], list[str]]:
    """What the game is, its actions, and its map: a letter for each state, or no rows."""
    game = type(env.unwrapped).__name__
    if game == "FrozenLakeEnv":
        text = "Walk from S over frozen F to G; holes H are the end. Reward: 1 at G, else 0."
        rows = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
        return text, ["LEFT", "DOWN", "RIGHT", "UP"], rows
    if game == "CliffWalkingEnv":
        text = "Walk from S to G. Reward: -1 a step, -100 at the cliff C and back to S."
        rows = ["F" * 12, "F" * 12, "F" * 12, "SCCCCCCCCCCG"]
        return text, ["UP", "RIGHT", "DOWN", "LEFT"], rows
    if game == "TaxiEnv":
        text = "Fetch and bring somebody. Reward: -1 a step, +20, -10 for a wrong stop."
        return text, ["south", "north", "east", "west", "pickup", "dropoff"], []
    return "", [f"action {action}" for action in range(env.action_space.n)], []


def show_map(rows: Sequence[str], texts: Sequence[str]) -> None:
    """Print the map, with a state's text wherever there is something to decide."""
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            text = letter if letter in "HCG" else texts[y * len(row) + x]
            print(f"{text:>7}", end="")
        print()


def printable(pretty: str, plain: str) -> str:
    """The pretty text, or the plain one where the output cannot encode it."""
    try:
        pretty.encode(sys.stdout.encoding or "ascii")
        return pretty
    except UnicodeEncodeError:
        return plain


def show_world(env: Env, model: Mapping[str, Any]) -> None:
    """Print what the game is, how many states and actions it has, and its map."""
    text, names, rows = about_game(env)
    print(f"THE WORLD: {model['env_id']} {model.get('env_kwargs') or ''}".rstrip())
    print(text)
    numbered = ", ".join(f"{action} {name}" for action, name in enumerate(names))
    print(f"{env.observation_space.n} states, {len(names)} actions: {numbered}")
    if rows:
        print("The states are numbered row by row, from 0 at the top left.\n")
    show_map(rows, "".join(rows))


def show_learning(history: Sequence[tuple[float, float]]) -> None:
    """Print in ten lines how the (epsilon, score) of the episodes went."""
    size = math.ceil(len(history) / 10)
    parts = [history[start : start + size] for start in range(0, len(history), size)]
    means = [statistics.fmean(G for _, G in part) for part in parts]
    low, high = min(0, *means), max(0, *means)
    print("episodes  epsilon  mean score since the line above, exploring included")
    for i, (part, mean) in enumerate(zip(parts, means)):
        bar = printable("█", "#") * round(40 * (mean - low) / (high - low or 1))
        print(f"{i * size + len(part):>8}{part[-1][0]:>9.3f}{mean:>8.2f}  {bar}")


def show_agent(env: Env, model: Mapping[str, Any]) -> None:
    """Print the Q-table, the policy, the score, and how far they are from exact."""
    Qtable, max_steps = model["qtable"], model["max_steps"]
    _, names, rows = about_game(env)
    mean, std = evaluate_model(env, model)
    episode = list(rollout(env, Qtable, max_steps, shown_seed(model)))

    print("\nTHE Q-TABLE: * the greedy action, . a state of which nothing is known")
    if not rows:
        print("(the first states of the episode below)")
    print("  state" + "".join(f"{name:>10} " for name in names))
    for state in range(len(Qtable)) if rows else [state for _, _, state in episode[:6]]:
        best = greedy_policy(Qtable, state)
        cells = [f"{q:>10.4f}" for q in Qtable[state]]
        cells = [text + ("*" if a == best else " ") for a, text in enumerate(cells)]
        print(f"{state:>7}" + ("".join(cells) if any(Qtable[state]) else "         ."))

    print("\nTHE POLICY: the greedy actions" + (", with V(s)" if rows else ""))
    arrows = dict(zip(["LEFT", "DOWN", "RIGHT", "UP"], printable("←↓→↑", "<v>^")))
    signs = [arrows.get(names[argmax(row)], "") if any(row) else "." for row in Qtable]
    values = [f"{max(row):.3g}" if any(row) else "" for row in Qtable]
    show_map(rows, [sign + value for sign, value in zip(signs, values)])
    told = " ".join(names[action] for action, _, _ in episode if action is not None)
    score = sum(reward for _, reward, _ in episode)
    print(textwrap.fill(f"One episode: {told}. Its score is {score:g}.", 79))

    episodes = model["n_eval_episodes"]
    print(f"\nTHE SCORE: {episodes} greedy episodes, mean +/- standard deviation")
    print(f"Mean_reward={mean:.2f} +/- {std:.2f}")
    if "pickup" in names:
        print(f"mean - std = {mean - std:.2f} (4.5 or more passes the course)")
    if hasattr(env.unwrapped, "P"):
        show_proof(env, model)


def show_proof(env: Env, model: Mapping[str, Any]) -> None:
    """Print the exact answers, solved from the game's own rules, beside the learned."""
    Qtable, steps = model["qtable"], model["max_steps"]
    exact = value_iteration(env, model["gamma"])
    known = [state for state, row in enumerate(Qtable) if any(row)]
    right = sum(exact[s][argmax(Qtable[s])] > max(exact[s]) - 1e-9 for s in known)
    both = [pair for rows in zip(Qtable, exact) for pair in zip(*rows)]
    gaps = [abs(learned - answer) for learned, answer in both]
    mean, std = evaluate_model(env, {**model, "qtable": exact})
    own, best = exact_score(env, steps, Qtable), exact_score(env, steps)
    print(
        "\nTHE PROOF: beside the exact table, by value iteration from the game's rules"
    )
    print(f"Largest difference of a cell: {max(gaps):.1e}")
    print(f"{sum(gap < 5e-9 for gap in gaps)} of {len(gaps)} cells agree to 8 decimals")
    print(f"The greedy action is a best one in {right} of {len(known)} known states")
    print(f"The exact table scores {mean:.2f} +/- {std:.2f} in the same episodes")
    print(f"Exact mean score within {steps} steps (on a lake: success rate): {own:.4f}")
    print(f"Best possible, the optimum that no policy can beat: {best:.4f}")


# ------------------ The command line --------------------------------------------------
class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def option(name: str) -> str:
    """How a hyperparameter is called on the command line."""
    return "--" + name.replace("n_training_", "").replace("_", "-")


def add_recipe(parser: argparse.ArgumentParser, **more: Any) -> None:
    """Let the parser take a recipe, and an option for each number it trains with."""
    parser.add_argument("recipe", choices=RECIPES, help="the game to learn", **more)
    for name, (kind, _, wanted) in LIMITS.items():
        if name != "n_eval_episodes":
            number = int if kind is Integral else float
            parser.add_argument(
                option(name), dest=name, type=number, metavar="N", help=wanted
            )


def chosen_recipe(parser: argparse.ArgumentParser, args: Any) -> dict[str, Any]:
    """The recipe with the given options in it; a bad one ends the program, code 2."""
    given = {name: value for name, value in vars(args).items() if name in LIMITS}
    chosen = {name: value for name, value in given.items() if value is not None}
    recipe = RECIPES[args.recipe] | chosen
    try:
        check_numbers(recipe)
    except ValueError as error:
        text = str(error)
        for name in sorted(LIMITS, key=len, reverse=True):
            text = text.replace(name, option(name))
        parser.error(text)
    return recipe


def tell_story(recipe: Mapping[str, Any]) -> None:
    """Learn the recipe's game and print all of it, from the world to the proof."""
    env = make_env(recipe["env_id"], **recipe["env_kwargs"])
    Qtable = initialize_q_table(env.observation_space.n, env.action_space.n)
    history: list[tuple[float, float]] = []
    goals: list[tuple[int, list[float]]] = []  # (episode, V) when the goal was reached
    total_steps = 0

    def on_episode(episode: int, epsilon: float, steps: int, G: float) -> None:
        nonlocal total_steps
        total_steps += steps
        history.append((epsilon, G))
        if G > 0 and len(goals) < 30:
            goals.append((episode, [max(row) for row in Qtable]))

    show_world(env, recipe)
    numbers = [f"{name}={recipe[name]}" for name in LIMITS if recipe[name] is not None]
    print("\nLEARNING\n" + textwrap.fill(", ".join(numbers), 79))
    start = time.perf_counter()
    learn(env, Qtable, recipe, on_episode=on_episode)
    seconds = time.perf_counter() - start
    show_learning(history)

    rows = about_game(env)[2]
    for times in (1, 3, 10, 30) if rows else ():
        for episode, V in goals[times - 1 : times]:
            print(
                f"\nHOW VALUE SPREADS: V(s) in episode {episode}, the goal reached {times}x"
            )
            show_map(rows, [f"{value:.3g}" if value else "." for value in V])

    show_agent(env, {**recipe, "qtable": Qtable})
    print(f"\n{total_steps:,} environment steps in {seconds:.1f} seconds.")
    print("Next: another game (see --list) or other numbers (see --help).")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, or 130 after Ctrl-C."""
    parser = Parser(
        description="Learn a game by tabular Q-learning, and show how it went. "
        "A recipe is a game with all its numbers; the options replace some of them."
    )
    add_recipe(parser, nargs="?", default="frozenlake")
    parser.add_argument("--list", action="store_true", help="list the recipes and exit")
    args = parser.parse_args(argv)
    if args.list:
        for name, recipe in RECIPES.items():
            line = f"{name:25}{recipe['n_training_episodes']:>6} episodes of "
            print(line + f"{recipe['env_id']:17}{recipe['env_kwargs'] or ''}".rstrip())
        return 0
    recipe = chosen_recipe(parser, args)
    try:
        tell_story(recipe)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # let `python qlearning.py | head` end in silence
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
