"""Film an agent, see it learn, package it, push it to the Hugging Face Hub, load any model.

    python hub_utils.py record frozenlake replay.gif              film an episode
    python hub_utils.py record frozenlake learning.gif --learning film how it learns
    python hub_utils.py record frozenlake values.png              draw its Q-table
    python hub_utils.py package taxi                  build all that a push would upload
    python hub_utils.py push taxi --repo-id NAME/q-taxi    upload it, after `hf auth login`
    python hub_utils.py load NAME/REPO                     fetch any model and show it

A *model* is the dictionary of the Hugging Face course: hyperparameters, `env_id`, `qtable`.
One principle holds everywhere: publish only what loads back. A model is written to its
file first; what is scored, filmed and described is what anybody else gets from that file.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import pickle
import pickletools
import platform
import re
import reprlib
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import huggingface_hub as hf
import imageio.v2 as imageio
import imageio_ffmpeg  # type: ignore[import-untyped,unused-ignore]
import yaml  # type: ignore[import-untyped,unused-ignore]  # huggingface_hub brings it
from huggingface_hub import errors

import qlearning
from qlearning import (
    HYPERPARAMETERS,
    Env,
    Table,
    check_table,
    evaluate_model,
    evaluation_seeds,
    make_env,
    rollout,
)

Model = dict[str, Any]
AnyPath = str | Path


# ------------------ Film an episode ---------------------------------------------------
def record_video(
    env: Env,
    Qtable: Table,
    out_directory: AnyPath,
    fps: float = 1,
    *,
    max_steps: int = 99,
    seed: int | None = None,
    values: bool = False,
    initial_value: float = 0.0,
) -> Path:
    """Film one greedy episode: a frame before the first step, and one after each.

    `out_directory` is the course's name for the path of the file, an .mp4 or a .gif.
    With `values` the map of the Q-values is beside the game (see `draw_values`).
    """
    path = Path(out_directory).expanduser()
    check_film(path, fps, env)
    check_table(env, Qtable)
    state, _ = env.reset(seed=seed)
    frames, states = [env.render()], [int(state)]
    for _, _, _, new_state, _ in rollout(env, Qtable, state, max_steps):
        frames.append(env.render())
        states.append(new_state)
    if values:
        tried = tried_pairs(Qtable, initial_value)
        maps = [draw(env, shown_values(env, Qtable, s, tried)) for s in states]
        frames = [pixels(beside(game, map_)) for game, map_ in zip(frames, maps)]
    write_film(path, frames, fps)
    return path


def check_film(path: Path, fps: float, env: Env) -> None:
    """ValueError if there can be no such film: to be known before training for it."""
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise ValueError(f"a film is a file that ends in .mp4 or .gif, not {path.name}")
    if not 0.01 <= fps <= 100:
        raise ValueError(f"fps must be from 0.01 to 100, not {fps}")
    if getattr(env, "render_mode", None) != "rgb_array":
        raise ValueError('to film, make the game with render_mode="rgb_array"')
    draw_without_a_screen()
    env.reset()
    frame = env.render()  # without pygame Gymnasium says here what to install
    if getattr(frame, "dtype", None) != "uint8" or frame.shape[2:] != (3,):
        raise ValueError("render() must give a picture of height x width x 3 bytes")


def write_film(path: Path, frames: list[Any], fps: float) -> None:
    """Write a film whole or not at all: an older one stays until the new one is there."""
    # A GIF cannot show one picture for longer than 655 seconds (equal ones are one).
    if path.suffix.lower() == ".gif" and len(frames) / fps > 655:
        raise ValueError("a .gif of over 655 seconds: take a larger --fps, or an .mp4")
    with tempfile.TemporaryDirectory(dir=nearest_folder(path.parent)) as folder:
        film = Path(folder, "film" + path.suffix.lower())
        if film.suffix == ".gif":
            imageio.mimwrite(film, frames, duration=1000 / fps, loop=0)
        else:
            imageio.mimwrite(
                film,
                frames,
                fps=fps,
                macro_block_size=2,  # H.264 needs even sizes
                output_params=["-movflags", "+faststart"],  # to play while it loads
                ffmpeg_log_level="error",
            )
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(film))
            if written != len(frames):
                raise RuntimeError(f"ffmpeg wrote {written} of {len(frames)} frames")
        path.parent.mkdir(parents=True, exist_ok=True)
        film.replace(path)


def nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists; OSError if it takes no files."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        return folder.resolve()


# ------------------ Draw a Q-table ----------------------------------------------------
# Each place of a map is a square of four triangles, one for each move. Its shade and its
# number say Q(s,a), a small arrow marks the greedy action. A triangle that was never
# tried has no shade.
class Move(NamedTuple):
    """Where a move is drawn, in shares of the square: (0, 0) is its top left corner."""

    triangle: list[tuple[float, float]]
    number: tuple[float, float]  # the middle of the number
    room: float  # how wide the number may be
    arrow: list[tuple[float, float]]


LEFT = Move(
    triangle=[(0, 0), (0, 1), (0.5, 0.5)],
    number=(0.165, 0.5),
    room=0.27,
    arrow=[(0.295, 0.5), (0.35, 0.44), (0.35, 0.56)],
)
RIGHT = Move(
    triangle=[(1, 0), (1, 1), (0.5, 0.5)],
    number=(0.835, 0.5),
    room=0.27,
    arrow=[(0.705, 0.5), (0.65, 0.44), (0.65, 0.56)],
)
UP = Move(
    triangle=[(0, 0), (1, 0), (0.5, 0.5)],
    number=(0.5, 0.12),
    room=0.5,
    arrow=[(0.5, 0.22), (0.44, 0.275), (0.56, 0.275)],
)
DOWN = Move(
    triangle=[(0, 1), (1, 1), (0.5, 0.5)],
    number=(0.5, 0.88),
    room=0.5,
    arrow=[(0.5, 0.78), (0.44, 0.725), (0.56, 0.725)],
)
MOVES = {"LEFT": LEFT, "RIGHT": RIGHT, "UP": UP, "DOWN": DOWN}
MOVES |= {name: MOVES[same] for name, same in qlearning.COMPASS.items()}
PAPER, INK, GREY, ORANGE = (252, 252, 249), (38, 42, 50), (150, 152, 156), (213, 94, 0)
WHITE, BLUE = (255, 255, 255), (44, 127, 184)
# From bad to good, from pale to dark: told apart by colour-blind eyes as well.
SHADES = [(255, 247, 200), (161, 218, 180), (65, 182, 196), BLUE, (37, 52, 148)]
ENDS = {"H": (205, 205, 205), "C": (205, 205, 205), "G": (240, 200, 90)}


class Place(NamedTuple):
    """A place of the map, and the state that it stands for."""

    x: int
    y: int
    letter: str
    state: int


class Cell(NamedTuple):
    """How the value of an action is drawn."""

    value: float
    color: Any  # None if the action was never tried
    is_greedy: bool


class Values(NamedTuple):
    """What a picture shows of a Q-table."""

    state: int  # the state of the moment
    rows: dict[int, list[float]]  # the rows of all states in the picture
    tried: set[tuple[int, int]]  # the pairs of state and action that were tried
    low: float  # the value of the palest shade
    high: float  # and of the darkest


def cells_of(values: Values, state: int) -> list[Cell]:
    """How to draw each action of a state; where all are equal, none is greedy."""
    row = values.rows[state]
    all_equal = max(row) - min(row) < 1e-9
    cells = []
    for action, value in enumerate(row):
        was_tried = (state, action) in values.tried
        color = shade(values, value) if was_tried else None
        is_greedy = not all_equal and value > max(row) - 1e-9
        cells.append(Cell(value, color, is_greedy))
    return cells


def shade(values: Values, value: float) -> list[int]:
    """The colour of a value, between two of the SHADES."""
    share = (value - values.low) / (values.high - values.low)
    position = min(max(share, 0.0), 1.0) * (len(SHADES) - 1)
    i = min(int(position), len(SHADES) - 2)
    pale, dark = SHADES[i], SHADES[i + 1]
    return [round(p + (d - p) * (position - i)) for p, d in zip(pale, dark)]


def draw_values(
    env: Env, Qtable: Table, *, state: int | None = None, initial_value: float = 0.0
) -> Any:
    """A Q-table as a picture, height x width x 3 bytes: on the map if there is one.

    A taxi's map is that of the passenger and destination in `state`; a game without a map
    shows the Q-values of that state as bars. By default it is the state of the moment, or
    the first one that was learned if nothing was learned of that (at an end, say).
    """
    check_table(env, Qtable)
    tried = tried_pairs(Qtable, initial_value)
    if state is None:
        learned = {s for s, _ in tried}
        state = int(getattr(qlearning.game_of(env), "s", 0))
        if learned and state not in learned:
            state = min(learned)
    return pixels(draw(env, shown_values(env, Qtable, state, tried)))


def tried_pairs(Qtable: Table, initial_value: float = 0.0) -> set[tuple[int, int]]:
    """The pairs of state and action that were tried, as far as a table can tell.

    0 may have been learned (a step into a hole), so of a table that starts at 0 all of a
    row counts once one of its cells has changed. No one learns an optimistic start.
    """
    return {
        (state, action)
        for state, row in enumerate(Qtable)
        for action, q in enumerate(row)
        if q != initial_value or (initial_value == 0 and any(row))
    }


def shown_values(
    env: Env, Qtable: Table, state: int, tried: set[tuple[int, int]]
) -> Values:
    """The rows of the map, or of this state alone, and shades that suit them."""
    states = [place.state for place in places(env, state)] or [state]
    rows = {s: [float(q) for q in Qtable[s]] for s in states}
    values = []  # V(s) of each place; of a single state all its values; if tried
    for s, row in rows.items():
        known = [q for action, q in enumerate(row) if (s, action) in tried]
        if known and len(states) > 1:
            known = [max(known)]
        values += known
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high > 0:
        low = min(low, 0.0)
    elif len(states) == 1:
        high = 0.0  # costs: the bar of the best one is the longest, and none is empty
    return Values(state, rows, tried, low, high if high > low else low + 1)


def places(env: Env, state: int) -> list[Place]:
    """All places of the map; for a taxi with the passenger and destination of `state`."""
    rows, is_taxi = qlearning.map_of(env), qlearning.known_game(env) == "taxi"
    if is_taxi:
        taxi, rows = qlearning.game_of(env), qlearning.TAXI_MAP
        _, _, passenger, destination = taxi.decode(state)
    all_places: list[Place] = []
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            here = len(all_places)  # the states are numbered row by row
            if is_taxi:
                here = int(taxi.encode(y, x, passenger, destination))
            all_places.append(Place(x, y, letter, here))
    return all_places


def draw(env: Env, values: Values) -> Any:
    """The map with a row of the table in each place; bars for a game without a map."""
    names, all_places = qlearning.action_names(env), places(env, values.state)
    if not all_places:
        return draw_bars(values, names)
    is_taxi = qlearning.known_game(env) == "taxi"
    columns, rows = all_places[-1].x + 1, all_places[-1].y + 1
    size = 120 if columns <= 5 else 100
    image = canvas(columns * size, rows * size)
    for x, y, letter, state in all_places:
        square = image.subsurface((x * size, y * size, size, size))
        if letter in ENDS and not is_taxi:
            square.fill(ENDS[letter])
            write(square, letter, (0.5, 0.5), size // 2)
        else:
            draw_place(square, cells_of(values, state), names)
            if letter not in "F.":
                write(square, letter, (0.1, 0.12), size // 5, background=PAPER)
        color, thick = (ORANGE, 4) if state == values.state else (GREY, 1)
        pygame().draw.rect(square, color, square.get_rect(), thick)
    return draw_taxi(env, image, values.state) if is_taxi else image


def draw_place(square: Any, cells: list[Cell], names: list[str]) -> None:
    """The values of one state: its moves as triangles, its other actions as buttons."""
    buttons = []
    for cell, name in zip(cells, names):
        if name.upper() in MOVES:
            draw_move(square, cell, MOVES[name.upper()])
        else:
            buttons.append((cell, name))
    for i, (cell, name) in enumerate(buttons):  # one below the other, in the middle
        draw_button(square, cell, name, top=0.5 + 0.15 * (i - len(buttons) / 2))


def draw_move(square: Any, cell: Cell, move: Move) -> None:
    """A triangle with a number, and with an arrow if the move is greedy."""
    size = square.get_width()
    color = cell.color or PAPER
    triangle = [(x * size, y * size) for x, y in move.triangle]
    pygame().draw.polygon(square, color, triangle)
    pygame().draw.aalines(square, GREY, True, triangle)
    if cell.is_greedy:
        arrow = [(x * size, y * size) for x, y in move.arrow]
        pygame().draw.polygon(square, ink_on(color), arrow)
    write_value(square, cell, move.number, move.room)


def draw_button(square: Any, cell: Cell, name: str, top: float) -> None:
    """A box with a letter and a number, and with a thick frame if the action is greedy."""
    size = square.get_width()
    box = [round(share * size) for share in (0.36, top, 0.28, 0.15)]
    frame, thick = (INK, 2) if cell.is_greedy else (GREY, 1)
    pygame().draw.rect(square, cell.color or PAPER, box)
    pygame().draw.rect(square, frame, box, thick)
    write_value(square, cell, (0.5, top + 0.075), 0.27, name[0] + " ")


def write_value(
    square: Any, cell: Cell, center: tuple[float, float], room: float, before: str = ""
) -> None:
    """The number with as many decimals as fit; of what was never tried none, or grey.

    (Grey is an optimistic start: nothing was learned there, but it is not 0.)
    """
    if cell.color is None and cell.value == 0:
        return
    color, size = ink_on(cell.color) if cell.color else GREY, square.get_width()
    for decimals, letters in (
        (2, size // 6),
        (1, size // 6),
        (0, size // 6),
        (0, size // 8),
    ):
        if cell.value == 0:
            decimals = 0
        text = f"{before}{cell.value:.{decimals}f}"
        if font(letters).size(text)[0] <= room * size:
            break
    write(square, text, center, letters, color)


def draw_taxi(env: Env, image: Any, state: int) -> Any:
    """A taxi's map with its walls, and under it who wants to go where."""
    taxi, size = qlearning.game_of(env), image.get_width() // 5
    for y in range(5):
        for x in range(4):
            if taxi.desc[y + 1, 2 * x + 2] == b"|":
                wall = (x + 1) * size - 3, y * size, 6, size
                pygame().draw.rect(image, INK, wall)
    _, _, passenger, destination = taxi.decode(state)
    where = ["at R", "at G", "at Y", "at B", "in the taxi"][passenger]
    about = f"passenger {where}, to {'RGYB'[destination]};  p pickup, d dropoff"
    return stacked(image, line_of_text(about, image.get_width()))


def draw_bars(values: Values, names: list[str]) -> Any:
    """The values of the state of the moment as bars, for a game that has no map."""
    cells = cells_of(values, values.state)
    best = sorted(range(len(cells)), key=lambda action: -cells[action].value)[:12]
    image = canvas(480, 40 * len(best))
    for i, action in enumerate(sorted(best)):
        cell = cells[action]
        row = image.subsurface((0, 40 * i, 480, 40))
        write(row, names[action][:12], (0.15, 0.5), 24)
        share = (cell.value - values.low) / (values.high - values.low)
        if cell.color:
            bar = 140, 6, 240 * min(max(share, 0.01), 1.0), 28
            pygame().draw.rect(row, cell.color, bar)
            pygame().draw.rect(row, INK if cell.is_greedy else GREY, bar, 2)
        write(row, f"{cell.value:.2f}" if cell.color else "?", (0.9, 0.5), 24)
    return image


def write(
    image: Any,
    text: str,
    center: tuple[float, float],
    size: int,
    color: Any = INK,
    background: Any = None,
) -> None:
    """The text in the picture, its middle at a share of width and height."""
    letters = font(size).render(text, True, color, background)
    x, y = center[0] * image.get_width(), center[1] * image.get_height()
    image.blit(letters, letters.get_rect(center=(x, y)))


def ink_on(color: Sequence[int]) -> Any:
    """Dark ink on pale colours, white ink on dark ones."""
    return INK if sum(color) > 390 else WHITE


def draw_without_a_screen() -> None:
    """Let pygame draw on a server, where it would look for a screen and a sound card."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


@functools.cache
def pygame() -> Any:
    """pygame, which comes with gymnasium[toy-text]; imported once somebody draws."""
    draw_without_a_screen()
    import pygame

    pygame.font.init()
    return pygame


@functools.cache
def font(size: int) -> Any:
    """The font that pygame brings, so that pictures look the same everywhere."""
    return pygame().font.Font(None, size)


def canvas(width: int, height: int) -> Any:
    """An empty picture."""
    image = pygame().Surface((width, height))
    image.fill(PAPER)
    return image


def pixels(image: Any) -> Any:
    """A picture as height x width x 3 bytes."""
    return pygame().surfarray.array3d(image).swapaxes(0, 1)


def line_of_text(text: str, width: int) -> Any:
    """A line of a picture."""
    image = canvas(width, 40)
    image.blit(font(26).render(text, True, INK), (8, 12))
    return image


def stacked(*images: Any) -> Any:
    """Pictures, one below the other."""
    whole = canvas(images[0].get_width(), sum(image.get_height() for image in images))
    top = 0
    for image in images:
        whole.blit(image, (0, top))
        top += image.get_height()
    return whole


def beside(frame: Any, picture: Any) -> Any:
    """The game's own frame left of a picture, or above it where the picture is wide."""
    height, width, _ = frame.shape
    game = pygame().image.frombuffer(frame.tobytes(), (width, height), "RGB")
    across, down = picture.get_size()
    if across > 1.5 * down:
        size = across, height * across // width
        return stacked(pygame().transform.scale(game, size), picture)
    size = width * down // height, down
    whole = canvas(size[0] + 12 + across, down)
    whole.blit(pygame().transform.scale(game, size), (0, 0))
    whole.blit(picture, (size[0] + 12, 0))
    return whole


# ------------------ Film the learning itself ------------------------------------------
class Snapshot(NamedTuple):
    """What is kept of the learning after an episode."""

    episode: int
    epsilon: float
    rows: dict[int, list[float]]  # the rows of the states in the picture
    tried: set[tuple[int, int]]  # the pairs of state and action tried so far


def record_learning(recipe: Model, path: AnyPath, fps: float = 2) -> Path:
    """Film how a recipe's table is learned, with the game and the mean score so far.

    It is the very learning that is not filmed: the same seed, the same table, bit for bit.
    """
    path = Path(path).expanduser()
    camera = make_env(recipe["env_id"], render_mode="rgb_array", **recipe["env_kwargs"])
    check_film(path, fps, camera)
    state = int(camera.reset(seed=evaluation_seeds(recipe)[0])[0])
    states = [place.state for place in places(camera, state)] or [state]
    Qtable, snapshots, scores = watch_learning(recipe, states)

    # Only now the pictures: the shades of all are those of the end.
    end = shown_values(camera, Qtable, state, snapshots[-1].tried)
    window = max(1, len(scores) // 50)
    game, means, frames = camera.render(), moving_means(scores, window), []
    for snapshot in qlearning.progress_bar(spread(snapshots), " frames"):
        values = end._replace(rows=snapshot.rows, tried=snapshot.tried)
        picture = beside(game, draw(camera, values))
        episode, epsilon, width = (
            snapshot.episode,
            snapshot.epsilon,
            picture.get_width(),
        )
        about = (
            f"episode {episode + 1:,}   epsilon {epsilon:.2f}: so many steps are random"
        )
        score = f"mean score of the last {window} episodes: {means[episode]:.2f}"
        caption = line_of_text(about, width)
        draw_scale(caption, values)
        curve = draw_curve(means, episode, width)
        frames.append(
            pixels(stacked(picture, caption, line_of_text(score, width), curve))
        )
    write_film(path, frames, fps)
    return path


def watch_learning(
    recipe: Model, states: list[int]
) -> tuple[Table, list[Snapshot], list[float]]:
    """Learn: the Q-table, what was seen of it in these states, the score of each episode.

    There is a snapshot whenever one of the V(s) has changed by as much as one can see, and
    each time that a twentieth of the training is over, so that the curve is seen to grow.
    """
    env = qlearning.StepRecorder(make_env(recipe["env_id"], **recipe["env_kwargs"]))
    Qtable = qlearning.initialize_q_table(
        *qlearning.table_size(env), recipe["initial_value"]
    )
    n_episodes = recipe["n_training_episodes"]
    milestones = {math.ceil(n_episodes * k / 20) for k in range(1, 21)}
    snapshots: list[Snapshot] = []
    scores: list[float] = []
    tried: set[tuple[int, int]] = set()
    last_V: list[float] = []

    def watch(episode: int, epsilon: float, steps: int, score: float) -> None:
        nonlocal tried, last_V
        scores.append(score)
        new = {(s, a) for s, a, *_ in env.steps if s in states} - tried
        if new:
            tried = tried | new  # another set: earlier snapshots keep theirs
        V = [round(max(Qtable[s]), 2) for s in states]
        if V != last_V or episode + 1 in milestones:
            rows = {s: [float(q) for q in Qtable[s]] for s in states}
            snapshots.append(Snapshot(episode, epsilon, rows, tried))
            last_V = V

    qlearning.learn(env, recipe, Qtable, on_episode=watch)
    return Qtable, snapshots, scores


def spread(snapshots: list[Snapshot], most: int = 60) -> list[Snapshot]:
    """At most so many of them: all of the first ones, then farther and farther apart."""
    if len(snapshots) <= most:
        return snapshots
    left_out = len(snapshots) - most
    chosen = []
    for k in range(most):
        share = k / (most - 1)  # from 0 to 1; its cube stays near 0 for long
        chosen.append(snapshots[k + round(left_out * share**3)])
    return chosen


def moving_means(scores: list[float], window: int) -> list[float]:
    """After each episode the mean score of the last ones, so many of them."""
    means, total = [], 0.0
    for i, score in enumerate(scores):
        total += score
        if i >= window:
            total -= scores[i - window]
        means.append(total / min(i + 1, window))
    return means


def draw_scale(caption: Any, values: Values) -> None:
    """What the shades mean, at the right end of a line."""
    width = caption.get_width()
    left, right = width - 170, width - 70
    for x in range(left, right):
        value = values.low + (values.high - values.low) * (x - left) / 99
        pygame().draw.line(caption, shade(values, value), (x, 10), (x, 30))
    write(caption, f"{values.low:.4g}", ((left - 35) / width, 0.5), 22)
    write(caption, f"{values.high:.4g}", ((right + 35) / width, 0.5), 22)


def draw_curve(means: list[float], episode: int, width: int) -> Any:
    """The mean scores up to an episode; the scale is that of the whole training."""
    image, left, right = canvas(width, 110), 70, width - 12
    low, high = min(means), max(means)

    def point(i: int) -> tuple[float, float]:
        share = (means[i] - low) / (high - low or 1)
        return left + (right - left) * i / len(means), 96 - 82 * share

    for value, y in (low, 96), (high, 14):
        pygame().draw.line(image, GREY, (left, y), (right, y))
        write(image, f"{value:.4g}", (left / 2 / width, y / 110), 22)
    shown = [*range(0, episode, max(1, len(means) // 400)), episode]
    points = [point(i) for i in shown]
    pygame().draw.lines(image, BLUE, False, [points[0], *points], 3)
    pygame().draw.circle(image, ORANGE, points[-1], 5)
    return image


# ------------------ Read a pickle without running it ----------------------------------
# A pickle is a program for a small machine with a stack. Most of its instructions push a
# number or a text, or gather what lies on the stack into a list or a dictionary. Two are
# dangerous: GLOBAL imports any function, REDUCE calls it. `pickle.load` obeys, so the
# file of somebody you do not know could delete yours. Here is the same machine without
# hands: an import pushes no more than a name, and instead of a call it pushes a note of
# the call. Notes of NumPy's arrays become lists afterwards, all others are refused.
# To look at such a program yourself: python -m pickletools -a q-learning.pkl
MAX_BYTES = 5_000_000  # a table of 65,536 x 4 has 2,800,000, Taxi's 34,000
MAX_INSTRUCTIONS = 600_000  # that table has 530,000
MAX_VALUES = (
    500_000  # numbers and letters: "ten of ten of ten ..." takes few instructions
)
MAX_DEPTH = 8
PUSHES = {"BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BYTEARRAY8"}
PUSHES |= {"BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
SHORT_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# All that an array of NumPy's imports. (NumPy 2 says numpy._core for numpy.core.)
NUMPY_NAMES = {
    "numpy dtype",
    "numpy ndarray",
    "numpy.core.multiarray _reconstruct",
    "numpy.core.multiarray scalar",
    "numpy.core.numeric _frombuffer",
    "_codecs encode",
}


@dataclass
class Call:
    """A call that a pickle asks for, and that nobody makes."""

    function: str
    arguments: list[Any]
    state: Any = None  # what the new object would be told about itself


def read_pickle(data: bytes) -> Any:
    """What a pickle builds, with a Call where it would have called something."""
    stack: list[Any] = []
    marks: list[int] = []  # how high the stack was when a list or dictionary began
    memo: dict[int, Any] = {}  # values to use again

    def pop(size: int) -> list[Any]:
        start = len(stack) - size
        items = stack[start:]
        del stack[start:]
        return items

    def pop_to_mark() -> list[Any]:
        return pop(len(stack) - marks.pop())

    def allowed(name: str) -> str:
        name = name.replace("numpy._core", "numpy.core")
        if name not in NUMPY_NAMES:
            raise ValueError(f"it would import {short(name.replace(' ', '.'))}")
        return name

    program: Any = pickletools.genops(data)
    for number, (instruction, argument, _) in enumerate(program):
        if number > MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in PUSHES:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case name if name in SHORT_TUPLES:  # for a tuple a list will do
                stack.append(pop(SHORT_TUPLES[name]))
            case "TUPLE":
                stack.append(pop_to_mark())
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_to_mark()
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                key, item = pop(2)
                stack[-1][key] = item
            case "SETITEMS":
                items = pop_to_mark()
                stack[-1].update(zip(items[::2], items[1::2]))
            case "MARK":
                marks.append(len(stack))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(allowed(argument))
            case "STACK_GLOBAL":
                stack.append(allowed(" ".join(pop(2))))
            case "REDUCE":
                function, arguments = pop(2)
                stack.append(Call(function, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(f"a model needs no {name} (protocols 2 to 5 are read)")


# NumPy writes the array [[0.5, 1.0]] as two instructions, here with their arguments:
#     REDUCE  _reconstruct(ndarray, (0,), b"b")              make an empty array, and
#     BUILD   (1, (1, 2), dtype("f8"), False, b"...")        tell it what it is:
# a version, 1 row x 2 columns, numbers of 8 bytes, not column by column, the 16 bytes.
# NumPy's names of numbers, and the letters that `struct` has for them:
LETTERS = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i"}
LETTERS |= {"i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}


def array_of_call(call: Call) -> Any:
    """The rows, the row or the number that a note of one of NumPy's calls describes."""
    name, shape, by_columns = call.function.split()[1], [], False
    if name == "_reconstruct":
        _, shape, dtype, by_columns, data = call.state
    elif name == "_frombuffer":
        data, dtype, shape, order = call.arguments
        by_columns = order == "F"
    elif name == "scalar":
        dtype, data = call.arguments
    else:
        raise ValueError(f"it would call {short(name)}")
    if isinstance(data, Call):  # protocol 2 has a text in place of the bytes
        data = data.arguments[0].encode("latin1")
    kind, byte_order = dtype.arguments[0], dtype.state[1]  # "f8" and "<", say
    count = len(data) // int(kind[1])
    if count > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    numbers = struct.unpack(f"{BYTE_ORDERS[byte_order]}{count}{LETTERS[kind]}", data)
    match shape:
        case [] if count == 1:
            return numbers[0]
        case [length] if length == count:
            return list(numbers)
        case [rows, columns] if rows * columns == count > 0:
            if by_columns:
                return [list(numbers[row::rows]) for row in range(rows)]
            starts = range(0, count, columns)
            return [list(numbers[start : start + columns]) for start in starts]
    raise ValueError("an array that is no table")


def plain(value: Any) -> Any:
    """A copy in plain Python, arrays as lists; ValueError for what no model needs."""
    left = MAX_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1 + (len(value) if isinstance(value, (str, bytes)) else 0)
        if left < 0 or depth > MAX_DEPTH:
            raise ValueError("more values, or deeper nested, than a model needs")
        match value:
            case None | bool():
                return value
            case float() if math.isfinite(value):
                return float(value)  # NumPy's become Python's
            case int() if value.bit_length() <= 64:
                return value
            case str():
                return str(value)
            case bytes():  # the letters of a map that was copied from a lake
                return value.decode("ascii")
            case list() | tuple():
                return [copy(item, depth + 1) for item in value]
            case dict() if all(isinstance(key, str) for key in value):
                left -= len("".join(value))
                return {str(key): copy(item, depth + 1) for key, item in value.items()}
            case Call():
                return copy(array_of_call(value), depth)
            case _ if hasattr(value, "tolist"):  # an array, or one of NumPy's numbers
                return copy(value.tolist(), depth)
        raise ValueError(f"a model needs nothing like {short(value)}")

    return copy(value, 0)


def short(value: object) -> str:
    """A value as a text that fits into a sentence, whatever it is."""
    return reprlib.repr(value)[:100]


def one_line(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return " ".join(str(error).split())[:200]


# ------------------ Save and load -----------------------------------------------------
def checked_model(model: Any) -> Model:
    """A copy of a model in plain values; ValueError if it is no model.

    Whether its table fits its game is seen when the game is made.
    """
    model = plain(model)
    if not (isinstance(model, dict) and isinstance(model.get("env_id"), str)):
        raise ValueError("a model is a dictionary with env_id and qtable")
    table = model.get("qtable")
    if not (isinstance(table, list) and all(isinstance(row, list) for row in table)):
        raise ValueError("its qtable is not a list of rows")
    if len({len(row) for row in table}) != 1 or not table[0]:
        raise ValueError("the rows of its qtable are not of one length")
    if not all(isinstance(q, (int, float)) for row in table for q in row):
        raise ValueError("its qtable has a cell that is no number")
    check_hyperparameters(model)
    return {**model, "qtable": [[float(q) for q in row] for row in table]}


def check_hyperparameters(model: Model) -> None:
    """ValueError if one that the model has is of another kind, or cannot be."""
    kinds: dict[str, Any] = {
        **dict.fromkeys(HYPERPARAMETERS, (int, float, type(None))),
        "max_steps": int,
        "n_eval_episodes": int,
        "gamma": (int, float),
        "eval_seed": list,
        "env_kwargs": dict,
    }
    for name in kinds.keys() & model.keys():
        if not isinstance(model[name], kinds[name]):
            raise ValueError(f"its {name} cannot be {short(model[name])}")
    qlearning.check_counts(model.get("n_eval_episodes", 1), model.get("max_steps", 1))
    if not 0 <= model.get("gamma", 0) <= 1:
        raise ValueError(f"its gamma must be from 0 to 1, not {short(model['gamma'])}")
    if not all(isinstance(n, int) and n >= 0 for n in model.get("eval_seed", [])):
        raise ValueError("its eval_seed is no list of whole numbers from 0")


def save_model(model: Model, path: AnyPath) -> Path:
    """Pickle a model in plain lists and numbers: the file imports nothing."""
    path = Path(path).expanduser()
    data = pickle.dumps(checked_model(model), protocol=4)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes, and load_model reads {MAX_BYTES:,}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def load_model(path: AnyPath) -> Model:
    """The model in a file or in a package's folder: its pickle is read and never run."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "q-learning.pkl"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
        if data.startswith(b"version https://git-lfs"):
            raise ValueError("a Git LFS pointer, not the file itself")
        if not data.endswith(b"."):  # the last instruction of a pickle, STOP
            raise ValueError("no pickle, or one that was cut off")
        return checked_model(read_pickle(data))
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        reason = one_line(error)
        if type(error) is not ValueError:
            reason = f"damaged ({type(error).__name__}: {reason})"
        raise ValueError(f"{path} is not a Q-learning model: {reason}") from None


# ------------------ Which game? -------------------------------------------------------
def is_registered(env_id: str) -> bool:
    """Whether this Gymnasium can make the game."""
    return env_id in gym.registry or env_id in qlearning.OTHER_ID


def game_arguments(model: Model) -> dict[str, Any]:
    """The arguments of `make_env`: our env_kwargs, or the two keys that the course has."""
    course = {"map_name": model.get("map_name"), "is_slippery": model.get("slippery")}
    arguments = model.get("env_kwargs", course)
    return {name: value for name, value in arguments.items() if value is not None}


def make_env_from_model(model: Model, render_mode: str | None = None) -> Env:
    """The game that a model was trained in: a registered one, with plain arguments.

    (An unknown id is not tried: for "module:Game-v0" `gym.make` would import a module.)
    """
    env_id, arguments = model["env_id"], game_arguments(model)
    if not is_registered(env_id):
        raise ValueError(
            f"this Gymnasium has no game {short(env_id)}: register it first"
        )
    try:
        # A lake makes rules for each of its places: for a huge map that takes minutes.
        if sum(len(row) for row in arguments.get("desc", [])) > len(model["qtable"]):
            raise ValueError("its map is larger than its table")
        env = make_env(env_id, render_mode=render_mode, **arguments)
        check_table(env, model["qtable"])
    except Exception as error:  # what a class makes of such arguments can be any error
        given = f"with {short(arguments)} " if arguments else ""
        reason = one_line(error)
        text = f"{short(env_id)} cannot be made {given}for this model: {reason}"
        raise ValueError(text) from error
    return env


def env_arguments(env: Env) -> dict[str, Any]:
    """What `make_env` makes this environment again with: all but how it is looked at."""
    arguments = {k: v for k, v in env.spec.kwargs.items() if k != "render_mode"}
    # A lake with desc=None and map_name=None draws a map at random: publish what it drew.
    if arguments.get("desc") is None and arguments.get("map_name", "4x4") is None:
        arguments["desc"] = env.unwrapped.desc
    if arguments.get("desc") is not None:
        arguments.pop("map_name", None)  # it does not look at the name then
    limit = env.spec.max_episode_steps
    if limit != gym.spec(env.spec.id).max_episode_steps:
        arguments["max_episode_steps"] = limit or -1  # -1: none
    for name, value in arguments.items():
        try:
            arguments[name] = plain(value)
        except ValueError as error:
            raise ValueError(f"cannot publish the argument {name}: {error}") from None
    return arguments


OWN_NAME = "register a game of your own, with its wrappers, under an env_id of its own"


def with_its_game(model: Model, env: Env) -> Model:
    """A checked copy of the model that says how its game is made, namely as `env` was.

    A game that no registry knows is packaged under its own name, and says nothing.
    """
    model = checked_model(model)
    missing = {"max_steps", "n_eval_episodes", "gamma", "eval_seed"} - model.keys()
    if missing:
        raise ValueError(f"the model lacks {', '.join(sorted(missing))}")
    if not isinstance(env, gym.Env):
        raise ValueError("to package a game, make it a gymnasium.Env")
    check_table(env, model["qtable"])
    env_id = model["env_id"]
    if not is_registered(env_id):
        return model
    spec_id = env.spec.id if env.spec else None
    if spec_id not in (env_id, qlearning.OTHER_ID.get(env_id)):
        made = f"was made as {spec_id}" if spec_id else "was not made by gym.make"
        text = f"the model is of {env_id}, and the environment {made}"
        raise ValueError(f"{text}: make it by make_env({env_id!r}), or {OWN_NAME}")
    arguments = env_arguments(env)
    model["env_kwargs"] = arguments
    if "map_name" in arguments:  # where the course's own code looks for it
        model["map_name"] = arguments["map_name"]
    if arguments.get("is_slippery") is False:
        model["slippery"] = False
    return model


def game_name(model: Model) -> str:
    """What the course's leaderboard calls a game: with its map, and `-no_slippery`.

    Any other argument is in the name too, since it makes another game.
    """
    name, arguments = model["env_id"], game_arguments(model)
    if is_registered(name):
        if "map_name" in arguments:
            name += f"-{arguments.pop('map_name')}"
        if arguments.pop("is_slippery", True) is False:
            name += "-no_slippery"
        for argument, value in sorted(arguments.items()):
            name += f"-{argument}"
            if isinstance(value, (int, float, str)):
                name += f"={str(value)[:20]}"
    return "".join(c for c in name if c.isprintable())


# ------------------ Package: all that a push uploads, without a network ---------------
FILES = ["q-learning.pkl", "params.json", "results.json", "README.md"]
FILES += ["replay.mp4", "values.png"]


def package_model(
    model: Model,
    env: Env,
    folder: AnyPath,
    video_fps: float = 1,
    *,
    repo_id: str | None = None,
) -> Path:
    """Evaluate, film and describe a model: the folder with its FILES, all or none.

    What the owner wrote on this agent's card in the folder stays.
    """
    folder = Path(folder).expanduser()
    build_package(model, env, folder, video_fps, repo_id, hub_card=None)
    return folder


def round_trip(model: Model, env: Env, file: Path) -> tuple[Model, Env, float, float]:
    """What others get of a model: read from its file, its game made again, and scored.

    ValueError if that is another score than the author's environment gives.
    """
    model = load_model(save_model(model, file))
    mean, std = evaluate_model(env, model)
    if not is_registered(model["env_id"]):
        return model, env, mean, std
    try:
        env = make_env_from_model(model, render_mode="rgb_array")
    except ValueError as error:
        raise ValueError(f"others cannot use this model: {error}; {OWN_NAME}") from None
    others_mean, others_std = evaluate_model(env, model)
    same_mean = math.isclose(mean, others_mean, abs_tol=1e-9)
    if not (same_mean and math.isclose(std, others_std, abs_tol=1e-9)):
        yours, theirs = (
            f"{mean:.2f} +/- {std:.2f}",
            f"{others_mean:.2f} +/- {others_std:.2f}",
        )
        text = (
            f"your environment gives {yours}, the one that others make from this model"
        )
        raise ValueError(f"{text} {theirs}: {OWN_NAME}")
    return model, env, mean, std


def build_package(
    model: Model, env: Env, folder: Path, fps: float, repo_id: str | None, hub_card: Any
) -> None:
    """Fill the folder with the FILES, all or none; prints the score that is in them."""
    model = with_its_game(model, env)
    check_film(Path("replay.mp4"), fps, env)
    check_folder(folder)
    card = kept_card(card_in(folder), hub_card, model)
    with tempfile.TemporaryDirectory(dir=nearest_folder(folder)) as temporary:
        new = Path(temporary)
        model, env, mean, std = round_trip(model, env, new / "q-learning.pkl")
        score = f"{mean:.2f} +/- {std:.2f}"
        model_card(model, env, score, repo_id, card).save(new / "README.md")
        draw_and_film(model, env, new, fps)
        params = {name: value for name, value in model.items() if name != "qtable"}
        results = {
            "env_id": model["env_id"],
            "mean_reward": mean,
            "std_reward": std,
            "n_eval_episodes": model["n_eval_episodes"],
            "eval_datetime": datetime.now(timezone.utc).isoformat(),
            "python": platform.python_version(),
            "gymnasium": gym.__version__,
        }
        (new / "params.json").write_text(json.dumps(params, indent=2), "utf-8")
        (new / "results.json").write_text(json.dumps(results, indent=2), "utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # only now, when all of them are there
            (new / name).replace(folder / name)
    print(f"Mean_reward={score}")


def draw_and_film(model: Model, env: Env, folder: Path, fps: float) -> None:
    """Write values.png and replay.mp4, both of the first episode that is scored."""
    seed, start = evaluation_seeds(model)[0], model.get("initial_value", 0.0)
    state = int(env.reset(seed=seed)[0])
    picture = draw_values(env, model["qtable"], state=state, initial_value=start)
    imageio.imwrite(folder / "values.png", picture)
    steps, film = model["max_steps"], folder / "replay.mp4"
    record_video(env, model["qtable"], film, fps, max_steps=steps, seed=seed)


def check_folder(folder: Path) -> None:
    """OSError if no package can be put into this folder: known before training for it."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: take a folder")
    nearest_folder(folder)
    for name in FILES:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name} is a folder: take another one")


# ------------------ The card ----------------------------------------------------------
OWNER_MARK = "<!-- What you write below this line stays with every new push. -->"
CARD = """---
{metadata}
---

# Q-learning agent for {title}

This agent plays **{title}** by tabular Q-learning: it has a table with a value for each of
{actions} actions in each of {states} states, and takes the action of the highest value.

![The values that it has learned](values.png)

## Score

{scores}

## Hyperparameters

| name | value | what it means |
|---|---|---|
{numbers}

## Use it

With `qlearning.py` and `hub_utils.py` beside your script{needed}:

```python
{register}from hub_utils import {load}, make_env_from_model
from qlearning import evaluate_model

model = {load}("{source}")
env = {make}
mean, std = evaluate_model(env, model)
print(f"{{mean:.2f}} +/- {{std:.2f}}")
```

{training}

{mark}{words}"""


def model_card(
    model: Model, env: Env, score: str, repo_id: str | None, old_card: Any
) -> hf.ModelCard:
    """The card: metadata by which the Hub and the course find the model, and the text."""
    game, is_made = game_name(model), is_registered(model["env_id"])
    known = qlearning.known_game(env)
    rows = [
        f"| {name} | {model[name]} | {meaning} |"
        for name, (_, meaning) in HYPERPARAMETERS.items()
        if name in model
    ]
    training, command = (
        "It was trained with the numbers above.",
        command_to_train(model),
    )
    if command:
        training = f"These numbers train a table, the same one each time:\n\n```sh\n{command}\n```"
    text = CARD.format(
        metadata=metadata(game, score, repo_id, old_card).to_yaml(),
        title=re.sub(r"[^\w .,:+/-]", lambda c: f"&#{ord(c[0])};", game),  # no Markdown
        actions=len(model["qtable"][0]),
        states=len(model["qtable"]),
        scores=scores(model, env, score),
        numbers="\n".join(rows),
        needed="" if known else ", and the game's own code",
        load="load_from_hub" if repo_id else "load_model",
        source=repo_id or "q-learning.pkl",
        make="make_env_from_model(model)"
        if is_made
        else "...  # by the game's own code",
        register=""
        if known or not is_made
        else "import ...  # what registers the game\n",
        training=training,
        mark=OWNER_MARK,
        words=owners_words(old_card) or "\n",
    )
    return hf.ModelCard(text)


def metadata(game: str, score: str, repo_id: str | None, old: Any) -> hf.ModelCardData:
    """What the Hub and the course's leaderboard read, and the owner's own metadata."""
    result = hf.EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=game,
        dataset_name=game,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=score,  # the leaderboard splits it at the +/-
    )
    tags = [game, "q-learning", "reinforcement-learning", "custom-implementation"]
    kept = old.data.to_dict() if old else {}  # licence, language, the owner's own tags
    for ours in ("model-index", "model_name", "pipeline_tag"):
        kept.pop(ours, None)
    tags += [tag for tag in kept.pop("tags", None) or [] if tag not in tags]
    return hf.ModelCardData(
        tags=tags,
        pipeline_tag="reinforcement-learning",
        model_name=repo_id.split("/")[1] if repo_id else f"q-{game}",
        eval_results=[result],
        **kept,
    )


def scores(model: Model, env: Env, score: str) -> str:
    """The measured score, and the exact ones where the game publishes its rules."""
    lines = [f"- {score} mean +/- deviation over {model['n_eval_episodes']} episodes"]
    if is_registered(model["env_id"]):
        steps = model["max_steps"]
        with contextlib.suppress(ValueError):  # it publishes none
            exact = qlearning.exact_score(env, steps, model["qtable"])
            best = qlearning.exact_score(env, steps)
            lines.append(f"- {exact:.4f} exact mean of this agent within {steps} steps")
            lines.append(f"- {best:.4f} exact mean of the best possible play")
    return "\n".join(lines)


def command_to_train(model: Model) -> str:
    """The command that trains this very table again, or nothing if no recipe does."""
    names = [name for name in HYPERPARAMETERS if name != "n_eval_episodes"]
    commands = []
    for recipe_name, recipe in qlearning.RECIPES.items():
        if recipe["env_id"] != model["env_id"]:
            continue
        if recipe["env_kwargs"] != game_arguments(model):
            continue
        command = f"python hub_utils.py package {recipe_name}"
        for name in names:
            if model.get(name) != recipe[name]:
                command += f" {qlearning.option(name)} {model.get(name)}"
        if "None" not in command:  # what no option can say
            commands.append(command)
    return min(commands, key=len, default="")


def card_in(folder: Path) -> Any:
    """The card in a folder, or None; ValueError if its metadata cannot be read."""
    path = folder / "README.md"
    if not path.exists():
        return None
    try:
        return hf.ModelCard(path.read_text("utf-8-sig"), ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from None


def owners_words(card: Any) -> str:
    """The owner's text: all below OWNER_MARK; of a card without the mark all of it."""
    if card is None:
        return ""
    _, mark, words = card.text.partition(OWNER_MARK)
    return str(words if mark else f"\n\n{card.text.strip()}\n")


def kept_card(local_card: Any, hub_card: Any, model: Model) -> Any:
    """The card whose words and metadata stay: that on the Hub, or else the local one.

    ValueError if words in the folder would get lost: they are not on the Hub, or belong
    to another game, or its README.md is no agent's card at all.
    """
    card = hub_card
    if card is None and local_card and game_name(model) in (local_card.data.tags or []):
        card = local_card
    if owners_words(local_card).strip() not in owners_words(card):
        text = "the README.md in this folder has words that would get lost"
        raise ValueError(f"{text}: take another folder")
    return card


# ------------------ Push and load: the Hub --------------------------------------------
def push_to_hub(
    repo_id: str,
    model: Model,
    env: Env,
    video_fps: float = 1,
    local_repo_path: AnyPath = "hub",
    *,
    commit_message: str = "Upload a Q-learning agent",
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Package a model and upload it as one commit; prints the score, and returns the URL.

    Nothing is written on the Hub before all is evaluated, filmed and packaged. What the
    owner wrote on the card there stays.
    """
    folder, api = Path(local_repo_path).expanduser(), hf.HfApi(token=token)
    last_commit, card = fetch_repo(api, repo_id, private)
    build_package(model, env, folder, video_fps, repo_id, card)
    with hub_errors(repo_id):
        if last_commit is None:
            api.create_repo(repo_id, private=private)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=FILES,
            commit_message=commit_message,
            parent_commit=last_commit,  # refused if somebody has pushed meanwhile
        )
    url = f"{api.endpoint}/{repo_id}"
    print(f"Your model is on the Hub: {url}")
    return url


def fetch_repo(
    api: hf.HfApi, repo_id: str, private: bool | None
) -> tuple[str | None, Any]:
    """A repo's last commit and its card, each None if there is no such thing yet.

    Refused here, before any training: a token that can only read, the repo of somebody
    else, another visibility than the wanted one.
    """
    with hub_errors(repo_id):
        user = api.whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError("your token can only read: make one with the write role")
    owners = [user["name"], *(group["name"] for group in user.get("orgs", []))]
    owner, slash, _ = repo_id.partition("/")
    if not slash or owner not in owners:
        raise PermissionError(f"{repo_id} is not NAME/REPO of {' or '.join(owners)}")

    with hub_errors(repo_id):
        try:
            info = api.model_info(repo_id)
        except errors.RepositoryNotFoundError as error:
            # Only 404 says that it is not there; 401 says that it may not be seen.
            if error.response.status_code == 404:
                return None, None
            raise
        card = None
        if "README.md" in [file.rfilename for file in info.siblings or []]:
            path = api.hf_hub_download(repo_id, "README.md", revision=info.sha)
            card = card_in(Path(path).parent)
    if private is not None and private != info.private:
        now = "private" if info.private else "public"
        raise ValueError(f"{repo_id} is {now}: change that in its settings on the Hub")
    return info.sha, card


# What the client raises when nobody answers: an error of the HTTP library below it, which
# differs by version. The client's own HTTP error is derived from that library's.
NO_ANSWER: Any = (OSError, *errors.HfHubHTTPError.__bases__)
NO_CONNECTION = "no connection to the Hub (HF_ENDPOINT can name a mirror of it)"


def is_offline(error: Exception) -> bool:
    """Whether nobody answered: the error has no answer of the Hub, and none of a disk."""
    has_answer = getattr(error, "response", None) is not None
    return not (has_answer or getattr(error, "errno", None))


def load_from_hub(
    repo_id: str, filename: str = "q-learning.pkl", *, token: str | None = None
) -> Model:
    """The model of a repo on the Hub: its pickle is read and never run.

    Without a connection it is the copy of an earlier download, if there is one.
    """
    api, take_earlier_copy = hf.HfApi(token=token), False
    with hub_errors(repo_id):
        url = hf.hf_hub_url(repo_id, filename, endpoint=api.endpoint)
        try:
            size = api.get_hf_file_metadata(url=url).size or 0
        except NO_ANSWER as error:
            if not is_offline(error):
                raise
            size, take_earlier_copy = 0, True
        if size > MAX_BYTES:
            text = f"{filename} of {repo_id} is too large for a Q-learning model"
            raise ValueError(text)
        file = api.hf_hub_download(
            repo_id, filename, local_files_only=take_earlier_copy
        )
    return load_model(file)


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Around calls of the client: a sentence of ours where its own would not help."""
    try:
        yield
    except errors.LocalTokenNotFoundError:
        text = "there is no token: run `hf auth login`, in a notebook notebook_login()"
        raise PermissionError(text) from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(f"no {repo_id} on the Hub, for your token") from None
    except errors.LocalEntryNotFoundError:  # nor an earlier copy
        raise ConnectionError(NO_CONNECTION) from None
    except errors.EntryNotFoundError:
        raise FileNotFoundError(f"{repo_id} has no such file") from None
    except NO_ANSWER as error:
        if is_offline(error):
            raise ConnectionError(NO_CONNECTION) from None
        raise  # what the Hub has answered, in the client's words


# ------------------ The command line --------------------------------------------------
# What `load` plays and proves at most, whatever a model claims
MOST_STEPS, MOST_EPISODES, MOST_STATES = 1_000, 1_000, 1_000


def load_anywhere(source: str) -> Model:
    """The model in a file, in a folder, or in a repo on the Hub."""
    if Path(source).expanduser().exists():
        return load_model(source)
    if source.count("/") != 1 or source.startswith(".") or source.endswith(".pkl"):
        raise FileNotFoundError(f"{source} is no file, and no NAME/REPO on the Hub")
    return load_from_hub(source)


def show_model(model: Model) -> None:
    """Print what a model plays and how well, in seconds whatever it claims."""
    env = make_env_from_model(model)
    model = qlearning.LAKE | {"env_kwargs": game_arguments(model)} | model
    steps = min(qlearning.step_limit(env, model["max_steps"]), MOST_STEPS)
    seeds = len(model["eval_seed"]) or MOST_EPISODES
    episodes = min(model["n_eval_episodes"], seeds, MOST_EPISODES, 200_000 // steps)
    if (episodes, steps) != (model["n_eval_episodes"], model["max_steps"]):
        print(f"note: {episodes} episodes of at most {steps} steps", file=sys.stderr)
    model |= {"n_eval_episodes": episodes, "max_steps": steps}
    if len(str(model["env_kwargs"])) > 300:
        model["env_kwargs"] = short(model["env_kwargs"])
    qlearning.show_world(env, model)
    qlearning.show_agent(env, model, proof=len(model["qtable"]) <= MOST_STATES)


def film_before(args: argparse.Namespace, recipe: Model, film: Path) -> Env:
    """The game with its picture; what can be wrong with a film is said before training."""
    env = make_env(recipe["env_id"], render_mode="rgb_array", **recipe["env_kwargs"])
    check_film(film, args.fps, env)
    return env


def record(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and film or draw what it has learned, or film the training."""
    path = Path(args.file).expanduser()
    is_picture = path.suffix.lower() == ".png"
    env = film_before(args, recipe, Path("replay.mp4") if is_picture else path)
    nearest_folder(path.parent)
    if args.learning:
        record_learning(recipe, path, args.fps)
        print(path)
        return
    Qtable, start = qlearning.learn(env, recipe), recipe["initial_value"]
    model = recipe | {"qtable": Qtable}
    seed = evaluation_seeds(model)[args.show_episode - 1]
    if is_picture:
        state = int(env.reset(seed=seed)[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = draw_values(env, Qtable, state=state, initial_value=start)
        imageio.imwrite(path, picture)
    else:
        record_video(
            env,
            Qtable,
            path,
            args.fps,
            max_steps=model["max_steps"],
            seed=seed,
            values=args.values,
            initial_value=start,
        )
    mean, std = evaluate_model(env, model)
    print(f"Mean_reward={mean:.2f} +/- {std:.2f}\n{path}")


def package(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and build all that a push would upload."""
    folder = Path(args.folder).expanduser()
    env = film_before(args, recipe, Path("replay.mp4"))
    check_folder(folder)
    kept_card(card_in(folder), None, recipe)
    model = recipe | {"qtable": qlearning.learn(env, recipe)}
    print(package_model(model, env, folder, args.fps))


def push(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and upload it to the Hugging Face Hub."""
    folder = Path(args.folder).expanduser()
    env = film_before(args, recipe, Path("replay.mp4"))
    check_folder(folder)
    _, hub_card = fetch_repo(hf.HfApi(), args.repo_id, args.private)
    kept_card(card_in(folder), hub_card, recipe)
    model = recipe | {"qtable": qlearning.learn(env, recipe)}
    push_to_hub(args.repo_id, model, env, args.fps, folder, private=args.private)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    about = "Film, package, push and load Q-learning agents."
    parser = argparse.ArgumentParser(prog="hub_utils.py", description=about)
    commands = parser.add_subparsers(dest="command", required=True)

    options = add_command(commands, record, argv)
    options.add_argument("file", help="a film .mp4 or .gif, or a picture .png")
    options.add_argument("--learning", action="store_true", help="film the training")
    options.add_argument("--values", action="store_true", help="film the Q-values too")
    qlearning.add_show_episode(options)

    options = add_command(commands, package, argv)
    text = "where to build it (hub)"
    options.add_argument("--folder", default="hub", metavar="FOLDER", help=text)

    options = add_command(commands, push, argv)
    options.add_argument("--folder", default="hub", metavar="FOLDER", help=text)
    options.add_argument("--repo-id", required=True, metavar="NAME/REPO")
    # None if it is not given: a new repo is then what your account has as default.
    text = "for you alone"
    options.add_argument("--private", action="store_const", const=True, help=text)

    text = "Load a model from a repo, a folder or a file, evaluate and show it."
    options = commands.add_parser("load", help=text, description=text)
    options.add_argument("source", metavar="NAME/REPO", help="or a folder, or a file")

    args = parser.parse_args(argv)
    if args.command == "load":
        return qlearning.run(lambda: show_model(load_anywhere(args.source)))
    recipe = qlearning.chosen_recipe(parser, args)
    return qlearning.run(lambda: args.function(args, recipe))


def add_command(
    commands: Any, function: Callable[..., None], argv: Sequence[str]
) -> Any:
    """A command that trains a recipe, named and described like the function it calls."""
    text, name = function.__doc__, function.__name__
    usage = f"%(prog)s recipe {'file ' if name == 'record' else ''}[options]"
    options = commands.add_parser(
        name, usage=usage, help=text, description=text, allow_abbrev=False
    )
    options.set_defaults(function=function)
    qlearning.add_recipe(options, argv)
    text = "frames a second (1)"
    options.add_argument("--fps", type=float, default=1, metavar="N", help=text)
    return options


if __name__ == "__main__":
    sys.exit(main())
