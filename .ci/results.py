"""Measure README's tables of results anew: PYTHONPATH=. python .ci/results.py

It prints the rows on ties, and a row for every recipe with seeds 0 to 9, as README has
them; that takes some minutes.
"""

import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import qlearning
from qlearning import RECIPES, argmax, exact_score, learn, make_env

# In how many environment steps each of the ten agents must have learned
MOST_STEPS = {"taxi-exact": 112_000, "frozenlake-8x8-slippery": 790_000}


def game(name):
    """The environment of a recipe, without Gymnasium's wrappers, which take time.

    They change nothing here: no recipe's `max_steps` goes beyond the game's own limit.
    """
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"]).unwrapped


def without_luck(env):
    """A lake without ice that takes a tenth of the time for a step.

    Gymnasium draws a random number for each step, also where only one thing can happen.
    """

    def step(action):
        ((_, env.s, reward, terminated),) = env.P[env.s][action]
        return env.s, reward, terminated, False, {}

    env.step = step
    return env


def first_of_equals(Qtable, state, epsilon, rng):
    """What `epsilon_greedy_policy` would be if it did not break ties at random."""
    if rng.random() > epsilon:
        return argmax(Qtable[state])
    return int(rng.random() * len(Qtable[state]))


def is_solved(policy, decay_rate, seed):
    """Whether an agent that learns by this policy solves the lake without ice."""
    env, recipe = without_luck(game("frozenlake")), RECIPES["frozenlake"]
    with mock.patch.object(qlearning, "epsilon_greedy_policy", policy):
        table = learn(env, recipe | {"decay_rate": decay_rate, "seed": seed})
    return exact_score(env, 99, table) == 1


def measured(name, seed):
    """Mean_reward, the expected score and the environment steps of an agent."""
    env, recipe, steps = game(name), RECIPES[name] | {"seed": seed}, []
    assert qlearning.step_limit(env, recipe["max_steps"]) == recipe["max_steps"]
    table = learn(env, recipe, on_episode=lambda *told: steps.append(told[2]))
    mean, std = qlearning.evaluate_model(env, recipe | {"qtable": table})
    expected = exact_score(env, recipe["max_steps"], table)
    return f"{mean:.2f} +/- {std:.2f}", expected, sum(steps)


def measure_results():
    """Print the rows."""
    policies = {
        "the first of equal values": first_of_equals,
        "one of them at random": qlearning.epsilon_greedy_policy,
    }
    with ProcessPoolExecutor() as pool:
        for label, policy in policies.items():
            cells = [
                str(sum(pool.map(is_solved, [policy] * 5, [rate] * 5, range(5))))
                for rate in (0.0005, 0.005, 0.05, 1.0)
            ]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)
        jobs = {
            name: [pool.submit(measured, name, seed) for seed in range(10)]
            for name in RECIPES
        }
        for name, runs in jobs.items():
            runs = [job.result() for job in runs]
            score, _, steps = runs[0]
            expected = [score for _, score, _ in runs]
            print(f"| `{name}` | {steps:,} | {score} | {min(expected):.4f}, ", end="")
            best = exact_score(game(name), RECIPES[name]["max_steps"])
            print(f"{statistics.fmean(expected):.4f} | {best:.4f} |", flush=True)
            assert max(steps for *_, steps in runs) <= MOST_STEPS.get(name, math.inf)


if __name__ == "__main__":
    measure_results()
