"""Draw the pictures of README.md: PYTHONPATH=. python .ci/pictures.py (all of them anew).

A test draws those that no command of README makes once more, and compares them.
"""

import contextlib
import io
import re
from pathlib import Path
from unittest import mock

import imageio.v2 as imageio
import pygame

import hub_utils
import qlearning
from hub_utils import BLUE, GREY, INK, ORANGE, PAPER, canvas, draw, pixels
from qlearning import RECIPES, evaluate_agent, learn, make_env, rollout

GITHUB = Path(__file__).parents[1] / ".github"
README = (GITHUB.parent / "README.md").read_text(encoding="utf-8")


def game(name, **more):
    """The environment of a recipe."""
    return make_env(RECIPES[name]["env_id"], **RECIPES[name]["env_kwargs"], **more)


def captioned(image, text):
    """A picture with a line of text above it."""
    return hub_utils.stacked(hub_utils.line_of_text(text, image.get_width()), image)


def draw_spreading():
    """The lake after the goal was reached 1, 3, 10 and 30 times, as the story tells it."""
    env, recipe, steps, goals = game("frozenlake"), RECIPES["frozenlake"], [], 0
    recorder, images = qlearning.StepRecorder(env), []
    learn(
        recorder,
        recipe | {"n_training_episodes": 600},
        on_episode=lambda *_: steps.append(recorder.steps),
    )
    table, tried = qlearning.initialize_q_table(16, 4), set()
    for update in qlearning.replayed_updates(recipe, table, steps):
        state, action, reward, _, _ = update.step
        tried.add((state, action))
        goals += reward > 0
        if reward > 0 and goals in (1, 3, 10, 30):
            values = hub_utils.shown_values(env, table, 0, tried)
            text = f"goal reached {goals}x, episode {update.episode + 1}"
            images.append(
                captioned(draw(env, values._replace(low=0.0, high=1.0)), text)
            )
    whole = canvas(980, 1060)
    for i, image in enumerate(images):
        whole.blit(image, (i % 2 * 500, i // 2 * 535))
    return pixels(whole)


def draw_ice():
    """Where a step to the RIGHT may end on slippery ice: a third of the time each."""
    env, size, right = game("frozenlake-slippery"), 120, 2
    image = canvas(4 * size, 4 * size)
    for state, letter in enumerate("".join(qlearning.map_of(env))):
        square = image.subsurface((state % 4 * size, state // 4 * size, size, size))
        square.fill(hub_utils.NO_CHOICE.get(letter, PAPER))
        pygame.draw.rect(square, GREY, square.get_rect(), 1)
        hub_utils.write(square, letter, (0.12, 0.14), size // 5)
    for probability, new_state, _, _ in env.unwrapped.P[9][right]:
        (x, y), (to_x, to_y) = (
            ((s % 4 + 0.5) * size, (s // 4 + 0.5) * size) for s in (9, new_state)
        )
        color = ORANGE if new_state == 10 else BLUE
        pygame.draw.line(image, color, (x, y), (to_x, to_y), 8)
        pygame.draw.circle(image, color, (to_x, to_y), 14)
        text, place = f"{probability:.2f}", ((to_x + 38) / size / 4, to_y / size / 4)
        hub_utils.write(image, text, place, 26)
    pygame.draw.circle(image, INK, (1.5 * size, 2.5 * size), 20)
    return pixels(image)


def draw_paths():
    """What README's Q-learning and SARSA have learned on the cliff, with their paths."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (code,) = [code for code in blocks if '"sarsa":' in code]
    env, tables, images = game("cliffwalking"), [], []
    keep = lambda *args: tables.append(args[3]) or evaluate_agent(*args)
    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, mock.patch.object(qlearning, "evaluate_agent", keep):
        exec(code, {"__name__": "__main__"})  # noqa: S102
    for name, table in zip(["Q-learning: along the edge", "SARSA: a detour"], tables):
        tried = hub_utils.tried_pairs(table)
        image = draw(env, hub_utils.shown_values(env, table, 36, tried))
        steps = rollout(env, table, env.reset()[0], 99)
        path = [36, *(new_state for _, _, _, new_state, _ in steps)]
        for x, y in ((s % 12 * 100, s // 12 * 100) for s in path):
            pygame.draw.rect(image, ORANGE, (x, y, 100, 100), 3)
        images.append(captioned(image, name))
    return pixels(hub_utils.stacked(*images))


def draw_other_pictures(folder):
    """The pictures of README that none of its commands makes, into a folder."""
    taxi, recipe = game("taxi", render_mode="rgb_array"), RECIPES["taxi-exact"]
    table = learn(taxi, recipe)
    seed = qlearning.evaluation_seeds(recipe)[0]
    hub_utils.record_video(taxi, table, folder / "taxi.gif", fps=2, seed=seed)
    imageio.imwrite(folder / "spreading.png", draw_spreading())
    imageio.imwrite(folder / "ice.png", draw_ice())
    imageio.imwrite(folder / "cliff.png", draw_paths())


if __name__ == "__main__":
    draw_other_pictures(GITHUB)
    hub_utils.record_learning(RECIPES["frozenlake"], GITHUB / "learning.gif")
    camera = game("frozenlake", render_mode="rgb_array")
    learned = learn(camera, RECIPES["frozenlake"])
    hub_utils.record_video(camera, learned, GITHUB / "frozenlake.gif", fps=2, seed=0)
    imageio.imwrite(
        GITHUB / "values.png", hub_utils.draw_values(camera, learned, state=0)
    )
