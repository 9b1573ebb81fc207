"""Film an agent, see it learn, package it, push it to the Hugging Face Hub, load any model.

    python hub_utils.py record frozenlake replay.gif              film an episode
    python hub_utils.py record frozenlake learning.gif --learning film how it learns
    python hub_utils.py record frozenlake values.png              draw its Q-table
    python hub_utils.py package taxi                              build what a push uploads
    python hub_utils.py push taxi --repo-id NAME/q-taxi           after `hf auth login`
    python hub_utils.py load NAME/REPO                            fetch any model, and show it

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
import reprlib
import statistics
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
    With `values` the map of the Q-values is beside the game (see `draw_values`), and
    `initial_value` is what each of them was before the training.
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
        for i, s in enumerate(states):
            picture = draw(env, shown_values(env, Qtable, s, tried))
            frames[i] = pixels(beside(frames[i], picture))
    write_film(path, frames, fps)
    return path


def filmed_game(recipe: Model) -> Env:
    """The game of one of qlearning's RECIPES, made with pictures."""
    return make_env(recipe["env_id"], render_mode="rgb_array", **recipe["env_kwargs"])


def check_film(path: Path, fps: float, env: Env) -> None:
    """ValueError if there can be no such film: to be called before a long training."""
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise ValueError(f"a film is a file that ends in .mp4 or .gif, not {path.name}")
    if not 0.01 <= fps <= 100:
        raise ValueError(f"fps must be from 0.01 to 100, not {fps}")
    if getattr(env, "render_mode", None) != "rgb_array":
        raise ValueError('to film, make the game with render_mode="rgb_array"')


def write_film(path: Path, frames: list[Any], fps: float) -> None:
    """Write a film whole or not at all: an older one stays until the new one is there."""
    # In a GIF imageio makes one frame of equal ones in a row, and none can be shown for
    # more than 655 seconds: so the whole film must be shorter than that.
    if path.suffix.lower() == ".gif" and len(frames) / fps > 655:
        raise ValueError("a .gif of over 655 seconds: take a larger --fps, or an .mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the film, since only on the same disk can `replace` swap it in one step.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
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
            # ffmpeg may stop before the end, on a full disk say, and say nothing.
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(film))
            if written != len(frames):
                raise RuntimeError(f"ffmpeg wrote {written} of {len(frames)} frames")
        film.replace(path)


def check_writable(folder: Path) -> None:
    """Make the folder if need be; OSError if no file can be written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


# ------------------ Draw a Q-table: what is shown -------------------------------------
# With pygame, which gymnasium[toy-text] brings to draw its games. Before it is imported:
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
has_screen = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
if sys.platform == "linux" and not has_screen:  # a server: look for no screen or sound
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
import pygame
from pygame import Surface


class Values(NamedTuple):
    """What a picture shows of a Q-table."""

    state: int  # the state of the moment
    rows: dict[int, list[float]]  # the rows of all states in the picture
    tried: set[tuple[int, int]]  # the pairs of state and action that were tried
    low: float  # the value of the palest shade
    high: float  # and of the darkest


def draw_values(
    env: Env, Qtable: Table, *, state: int | None = None, initial_value: float = 0.0
) -> Any:
    """A Q-table as a picture, height x width x 3 bytes: on the map if there is one.

    A taxi's map is that of the passenger and destination in `state`; a game without a map
    shows the Q-values of that state as bars. By default it is the first learned one.
    """
    check_table(env, Qtable)
    tried = tried_pairs(Qtable, initial_value)
    if state is None:
        state = min((s for s, _ in tried), default=0)
    return pixels(draw(env, shown_values(env, Qtable, state, tried)))


def tried_pairs(Qtable: Table, initial_value: float = 0.0) -> set[tuple[int, int]]:
    """The pairs of state and action that were tried, as far as a table can tell.

    A cell that has left its initial value was tried. But 0 can be a learned value as well
    (a step into a hole): so if all began at 0, one changed cell stands for its whole row.
    """
    tried = set()
    for state, row in enumerate(Qtable):
        counts_whole = initial_value == 0 and any(row)
        for action, q in enumerate(row):
            if counts_whole or q != initial_value:
                tried.add((state, action))
    return tried


def shown_values(
    env: Env, Qtable: Table, state: int, tried: set[tuple[int, int]]
) -> Values:
    """What a picture shows: the rows of the map, or of this state alone, and its shades.

    The shades go from the lowest value that was learned, or 0 if that is lower, to the
    highest. On a map these are the V(s), without one the Q(s,a) of this state.
    """
    # pygame takes Python's own numbers only, and not those of a NumPy array.
    rows = {s: [float(q) for q in Qtable[s]] for s in shown_states(env, state)}
    compared: list[float] = []
    for s, row in rows.items():
        learned = [q for action, q in enumerate(row) if (s, action) in tried]
        if learned and len(rows) > 1:  # a map: of each place only V(s)
            learned = [max(learned)]
        compared += learned
    low, high = min([0.0, *compared]), max(compared, default=0.0)
    return Values(state, rows, tried, low, high)


def shown_states(env: Env, state: int) -> list[int]:
    """The states of the places of the map, row by row; without a map this state alone."""
    n_places = len("".join(qlearning.places_of(env)))
    if qlearning.known_game(env) == "taxi":
        # A taxi has 20 states in each place: for 5 places of the passenger and 4
        # destinations. All places are shown with those of `state`.
        return [20 * place + state % 20 for place in range(n_places)]
    return list(range(n_places)) or [state]


# ------------------ Draw a Q-table: the picture ---------------------------------------
# Each place of a map is a square of four triangles, one for each move. Its shade and its
# number say Q(s,a), a small arrow marks the greedy action. A triangle that was never
# tried has neither shade nor number.
MOVES = {"LEFT": (-1, 0), "RIGHT": (1, 0), "UP": (0, -1), "DOWN": (0, 1)}  # (x, y)
MOVES |= {name: MOVES[move] for name, move in qlearning.COMPASS.items()}  # WEST: LEFT
Color = tuple[int, int, int]  # red, green and blue, from 0 to 255
PAPER, INK = (252, 252, 249), (38, 42, 50)
GREY, WHITE = (150, 152, 156), (255, 255, 255)
ORANGE, BLUE = (213, 94, 0), (44, 127, 184)
# From bad to good, from pale to dark: told apart by colour-blind eyes as well.
SHADES = [(255, 247, 200), (161, 218, 180), (65, 182, 196), BLUE, (37, 52, 148)]
# Places where no action is chosen: holes, the cliff and walls are grey, the goal golden.
NO_CHOICE = dict.fromkeys("HCW", (205, 205, 205)) | {"G": (240, 200, 90)}


class Cell(NamedTuple):
    """How the value of an action is drawn."""

    text: str  # its number, or nothing if it was never tried
    share: float  # where it lies from the lowest value, 0.0, to the highest, 1.0
    color: Color
    is_greedy: bool


def draw(env: Env, values: Values) -> Surface:
    """The map with a row of the table in each place; bars for a game without a map."""
    names, rows = qlearning.action_names(env), qlearning.places_of(env)
    is_taxi = qlearning.known_game(env) == "taxi"
    if rows and not is_taxi:
        return draw_map(values, names, rows, NO_CHOICE)
    about = f"state {qlearning.state_name(env, values.state)}"
    if not is_taxi:
        return stacked(draw_bars(values, names), line_of_text(about, 600))
    image = draw_map(values, names, rows, no_choice={})  # a taxi's G is a stop
    draw_walls(image, qlearning.game_of(env).desc)
    return stacked(image, line_of_text(f"{about};  p pickup, d dropoff", 600))


def draw_map(
    values: Values, names: list[str], rows: list[str], no_choice: dict[str, Color]
) -> Surface:
    """A square for each state: its values, or the letter of a place without a choice."""
    columns = len(rows[0])
    size = 120 if columns <= 5 else 100
    image = canvas(columns * size, len(rows) * size)
    for place, (state, letter) in enumerate(zip(values.rows, "".join(rows))):
        x, y = place % columns, place // columns
        square = image.subsurface((x * size, y * size, size, size))
        if letter in no_choice:
            square.fill(no_choice[letter])
            write(square, letter, (0.5, 0.5), size // 2)
        else:
            draw_place(square, cells_of(values, state), names)
            if letter not in "F.":  # not on plain ground
                write(square, letter, (0.1, 0.12), size // 5, background=PAPER)
        color, thick = (ORANGE, 3) if state == values.state else (GREY, 1)
        pygame.draw.rect(square, color, square.get_rect(), thick)
    return image


def cells_of(values: Values, state: int) -> list[Cell]:
    """How to draw each action of a state; where all are equal, none is greedy."""
    row = values.rows[state]
    cells = []
    for action, value in enumerate(row):
        share = share_of(value, values.low, values.high)
        is_greedy = value == max(row) and value > min(row)
        text, color = "", PAPER
        if (state, action) in values.tried:
            text, color = number_text(value), shade(share)
        cells.append(Cell(text, share, color, is_greedy))
    return cells


def share_of(value: float, low: float, high: float) -> float:
    """Where a value lies from low, 0.0, to high, 1.0; one outside counts as the end."""
    if low == high:
        return 0.0
    return min(max((value - low) / (high - low), 0.0), 1.0)


def shade(share: float) -> Color:
    """The colour at a share of the way from the first of the SHADES to the last."""
    position = share * (len(SHADES) - 1)  # 1.5: in the middle between 1 and 2
    i = min(int(position), len(SHADES) - 2)
    pale, dark = pygame.Color(SHADES[i]), pygame.Color(SHADES[i + 1])
    mixed = pale.lerp(dark, position - i)
    return mixed.r, mixed.g, mixed.b


def number_text(value: float) -> str:
    """A number with two decimals; with fewer if it is large, to fit into a triangle."""
    value = round(value, 2)
    if value == 0:
        return "0"
    if abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def draw_place(square: Surface, cells: list[Cell], names: list[str]) -> None:
    """The values of one state: its moves as triangles, its other actions as buttons."""
    buttons = []
    for cell, name in zip(cells, names):
        if name.upper() in MOVES:
            draw_move(square, cell, *MOVES[name.upper()])
        else:
            buttons.append((cell, name))
    for i, (cell, name) in enumerate(buttons):  # one below the other, in the middle
        draw_button(square, cell, name, top=0.5 + 0.15 * (i - len(buttons) / 2))


def draw_move(square: Surface, cell: Cell, dx: int, dy: int) -> None:
    """A triangle with a number, and with an arrow if the move is greedy."""
    size = square.get_width()

    def point(ahead: float, aside: float) -> tuple[float, float]:
        # From the middle of the square `ahead` in the direction of the move, (dx, dy),
        # and `aside` at a right angle to it, (dy, dx); both in shares of the square.
        x = 0.5 + ahead * dx + aside * dy
        y = 0.5 + ahead * dy + aside * dx
        return x * size, y * size

    triangle = [point(0, 0), point(0.5, 0.5), point(0.5, -0.5)]
    pygame.draw.polygon(square, cell.color, triangle)
    pygame.draw.aalines(square, GREY, True, triangle)
    if cell.is_greedy:
        arrow = [point(0.2, 0), point(0.145, 0.06), point(0.145, -0.06)]
        pygame.draw.polygon(square, ink_on(cell.color), arrow)
    center = 0.5 + 0.34 * dx, 0.5 + 0.34 * dy
    write(square, cell.text, center, size // 6, ink_on(cell.color))


def draw_button(square: Surface, cell: Cell, name: str, top: float) -> None:
    """A box with a letter and a number."""
    size = square.get_width()
    box = pygame.Rect(0.35 * size, top * size, 0.3 * size, 0.15 * size)
    draw_box(square, cell, box)
    text = f"{name[0]} {cell.text}"
    write(square, text, (0.5, top + 0.075), size // 8, ink_on(cell.color))


def draw_box(image: Surface, cell: Cell, box: pygame.Rect) -> None:
    """A button or a bar, with a thick frame if its action is greedy."""
    pygame.draw.rect(image, cell.color, box)
    color, thick = (INK, 2) if cell.is_greedy else (GREY, 1)
    pygame.draw.rect(image, color, box, thick)


def draw_walls(image: Surface, desc: Any) -> None:
    """The walls of a taxi's map, each a | between two places of |R: | : :G|."""
    size = image.get_width() // 5
    for y in range(5):
        for x in range(4):
            if desc[y + 1, 2 * x + 2] == b"|":  # right of place (x, y)
                wall = (x + 1) * size - 3, y * size, 6, size
                pygame.draw.rect(image, INK, wall)


def draw_bars(values: Values, names: list[str]) -> Surface:
    """The values of the state of the moment: a name, a bar and a number for each."""
    image = canvas(600, 40 * len(names))
    for i, (cell, name) in enumerate(zip(cells_of(values, values.state), names)):
        row = image.subsurface((0, 40 * i, 600, 40))
        write(row, name[:12], (0.12, 0.5), 24)
        bar = pygame.Rect(140, 6, 40 + 320 * cell.share, 28)  # the lowest is still seen
        draw_box(row, cell, bar)
        write(row, cell.text, (0.92, 0.5), 24)
    return image


# ------------------ Draw a Q-table: small tools of pygame -----------------------------
def write(
    image: Surface,
    text: str,
    center: tuple[float, float],
    size: int,
    color: Color = INK,
    background: Color | None = None,
) -> None:
    """The text in the picture, its middle at a share of width and height."""
    letters = font(size).render(text, True, color, background)
    x, y = center[0] * image.get_width(), center[1] * image.get_height()
    image.blit(letters, letters.get_rect(center=(x, y)))


def ink_on(color: Color) -> Color:
    """Dark ink on pale colours, white ink on dark ones."""
    return INK if sum(color) / 3 > 130 else WHITE


@functools.cache
def font(size: int) -> pygame.font.Font:
    """The font that pygame brings, so that pictures look the same everywhere."""
    pygame.font.init()
    return pygame.font.Font(None, size)


def canvas(width: int, height: int) -> Surface:
    """An empty picture."""
    image = Surface((width, height))
    image.fill(PAPER)
    return image


def pixels(image: Surface) -> Any:
    """A picture as height x width x 3 bytes."""
    return pygame.surfarray.array3d(image).swapaxes(0, 1)


def line_of_text(text: str, width: int) -> Surface:
    """A line of a picture."""
    image = canvas(width, 40)
    image.blit(font(26).render(text, True, INK), (8, 12))
    return image


def stacked(*images: Surface) -> Surface:
    """Pictures, one below the other."""
    whole = canvas(images[0].get_width(), sum(image.get_height() for image in images))
    top = 0
    for image in images:
        whole.blit(image, (0, top))
        top += image.get_height()
    return whole


def beside(frame: Any, image: Surface) -> Surface:
    """The game's own frame left of a picture, or above it where the picture is wide."""
    frame_height, frame_width, _ = frame.shape
    game = pygame.image.frombuffer(frame.tobytes(), (frame_width, frame_height), "RGB")
    width, height = image.get_size()
    if width > 1.5 * height:
        size = width, width * frame_height // frame_width
        return stacked(pygame.transform.scale(game, size), image)
    game = pygame.transform.scale(game, (height * frame_width // frame_height, height))
    left = game.get_width() + 12  # where the picture begins, after a gap
    whole = canvas(left + width, height)
    whole.blit(game, (0, 0))
    whole.blit(image, (left, 0))
    return whole


# ------------------ Film the learning itself ------------------------------------------
class Snapshot(NamedTuple):
    """What is kept of the learning after an episode."""

    episode: int
    epsilon: float
    rows: dict[int, list[float]]  # the rows of the states in the picture


def record_learning(recipe: Model, path: AnyPath, fps: float = 2) -> Path:
    """Film how a recipe's table is learned, with the game and the mean score so far.

    The table is the same, bit for bit, as without a film.
    """
    path = Path(path).expanduser()
    camera = filmed_game(recipe)
    check_film(path, fps, camera)
    check_writable(path.parent)
    sizes = qlearning.table_size(camera)
    Qtable = qlearning.initialize_q_table(*sizes, recipe["initial_value"])
    state = first_state(camera, recipe)
    states = shown_states(camera, state)
    snapshots, means, first_tried = watch_learning(recipe, Qtable, states)

    # Only now the pictures: the shades of all are those of the end.
    end = shown_values(camera, Qtable, state, set(first_tried))
    game = camera.render()  # always its first picture: nothing is played here
    frames = []
    for snapshot in qlearning.progress_bar(spread(snapshots), " frames"):
        tried = {p for p, first in first_tried.items() if first <= snapshot.episode}
        values = end._replace(rows=snapshot.rows, tried=tried)
        picture = beside(game, draw(camera, values))
        frames.append(pixels(with_captions(picture, snapshot, means)))
    write_film(path, frames, fps)
    return path


def watch_learning(
    recipe: Model, Qtable: Table, states: list[int]
) -> tuple[list[Snapshot], list[float], dict[tuple[int, int], int]]:
    """Fill the Q-table; the snapshots, the mean scores, and when each pair was first tried.

    There is a snapshot whenever one of the V(s) has changed in its second decimal, and
    each time that a twentieth of the training is over, so that the curve is seen to grow.
    """
    env = qlearning.StepRecorder(make_env(recipe["env_id"], **recipe["env_kwargs"]))
    n_episodes = recipe["n_training_episodes"]
    window, twentieth = mean_window(n_episodes), max(1, n_episodes // 20)
    snapshots: list[Snapshot] = []
    scores: list[float] = []
    means: list[float] = []
    first_tried: dict[tuple[int, int], int] = {}  # (state, action): episode
    last_V: list[float] = []

    def watch(episode: int, epsilon: float, steps: int, score: float) -> None:
        # `train` calls this after each episode. It only reads, and changes nothing.
        nonlocal last_V
        scores.append(score)
        means.append(statistics.fmean(scores[-window:]))
        for state, action, *_ in env.steps:  # those of the episode that has just ended
            first_tried.setdefault((state, action), episode)  # keeps the earliest
        V = [round(max(Qtable[s]), 2) for s in states]
        # Counted from the end, so that the last episode always has its snapshot.
        is_twentieth = (n_episodes - 1 - episode) % twentieth == 0
        if V != last_V or is_twentieth:
            rows = {s: list(Qtable[s]) for s in states}  # copies, as learning goes on
            snapshots.append(Snapshot(episode, epsilon, rows))
            last_V = V

    qlearning.learn(env, recipe, Qtable, on_episode=watch)
    return snapshots, means, first_tried


def mean_window(n_episodes: int) -> int:
    """Of how many episodes the curve shows the mean: a fiftieth of all, at most 200."""
    return min(max(1, n_episodes // 50), 200)


def spread(snapshots: list[Snapshot], most: int = 60) -> list[Snapshot]:
    """At most so many of them: all of the first ones, then farther and farther apart."""
    if len(snapshots) <= most:
        return snapshots
    left_out = len(snapshots) - most
    chosen = []
    for k in range(most):
        share = k / (most - 1)  # from 0 to 1; its cube stays near 0 for long
        skipped = round(left_out * share**3)  # how many are left out before the k-th
        chosen.append(snapshots[k + skipped])
    return chosen


def with_captions(picture: Surface, snapshot: Snapshot, means: list[float]) -> Surface:
    """The picture, and under it the numbers of the moment and the curve so far."""
    episode, epsilon, _ = snapshot
    width = picture.get_width()
    window = min(mean_window(len(means)), episode + 1)  # at first there are fewer
    moment = f"episode {episode + 1:,} of {len(means):,}"
    share = f"epsilon {epsilon:.2f}: {epsilon:.0%} of the steps are random"
    score = f"mean score of the last {window} episodes: {means[episode]:.2f}"
    captions = [line_of_text(text, width) for text in (f"{moment}   {share}", score)]
    return stacked(picture, *captions, draw_curve(means, episode, width))


def draw_curve(means: list[float], episode: int, width: int) -> Surface:
    """The mean scores up to an episode, which has a dot; one scale for all episodes."""
    left, right, top, bottom, height = 70, width - 12, 14, 96, 110
    start = mean_window(len(means)) - 1  # before it a mean is of few episodes: luck
    low, high = min(means[start:]), max(means[start:])

    def point(i: int) -> tuple[float, float]:
        x = left + i / len(means) * (right - left)
        return x, bottom - share_of(means[i], low, high) * (bottom - top)

    image = canvas(width, height)
    for value, level in (low, bottom), (high, top):
        pygame.draw.line(image, GREY, (left, level), (right, level))
        write(image, number_text(value), (left / 2 / width, level / height), 22)
    if episode > start:
        curve = [point(i) for i in range(start, episode + 1)]
        pygame.draw.lines(image, BLUE, False, curve, 3)
    pygame.draw.circle(image, ORANGE, point(episode), 5)
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
MAX_VALUES = 500_000  # counted at each use: one list may be used many times
MAX_DEPTH = 8  # a model is a dictionary of lists of lists
# All that an array of NumPy's imports. (NumPy 2 says numpy._core for numpy.core.)
NUMPY_NAMES = {
    "numpy dtype",
    "numpy ndarray",
    "numpy.core.multiarray _reconstruct",
    "numpy.core.multiarray scalar",
    "numpy.core.numeric _frombuffer",
    "_codecs encode",
}


@dataclass(repr=False)  # to print one could take for ever: its arguments may be nested
class Call:
    """A call that a pickle asks for, and that nobody makes."""

    function: str
    arguments: list[Any]
    state: Any = None  # what the new object would be told about itself


def text_key(key: Any) -> str:
    """The key of a dictionary, if it is a text."""
    # Numbers can be chosen that all have the same hash: very slow in a dictionary.
    if not isinstance(key, str):
        raise ValueError("a dictionary with keys that are no texts")
    return key


def allowed(name: str) -> str:
    """A name that a pickle imports, if it is one of NUMPY_NAMES."""
    name = name.replace("numpy._core", "numpy.core")
    if name not in NUMPY_NAMES:
        raise ValueError(f"it would import {short(name.replace(' ', '.'))}")
    return name


def read_pickle(data: bytes) -> Any:
    """What a pickle builds, with a Call where it would have called something."""
    stack: list[Any] = []
    marks: list[int] = []  # how high the stack was when a list or dictionary began
    memo: dict[int, Any] = {}  # values to use again

    def pop_from(start: int) -> list[Any]:  # from -2: the two on top
        items = stack[start:]
        del stack[start:]
        return items

    program: Any = pickletools.genops(data)
    for number, (instruction, argument, _) in enumerate(program):
        if number > MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            # Numbers, texts and bytes
            case "BINFLOAT" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BYTEARRAY8":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            # Tuples (for which a list will do), lists and dictionaries
            case "EMPTY_TUPLE" | "EMPTY_LIST":
                stack.append([])
            case "TUPLE1":
                stack.append(pop_from(-1))
            case "TUPLE2":
                stack.append(pop_from(-2))
            case "TUPLE3":
                stack.append(pop_from(-3))
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(pop_from(marks.pop()))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_from(marks.pop())
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                key, item = pop_from(-2)
                stack[-1][text_key(key)] = item
            case "SETITEMS":
                items = pop_from(marks.pop())
                for key, item in zip(items[::2], items[1::2]):
                    stack[-1][text_key(key)] = item
            # Values to use again
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            # What would be dangerous: here only names and notes
            case "GLOBAL":
                stack.append(allowed(argument))
            case "STACK_GLOBAL":
                stack.append(allowed(" ".join(pop_from(-2))))
            case "REDUCE":
                function, arguments = pop_from(-2)
                stack.append(Call(function, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name:
                raise ValueError(f"a model needs no {name} (protocols 2 to 5 are read)")


# NumPy writes the array [[0.5, 1.0]] as two instructions, here with their arguments:
#     REDUCE  _reconstruct(ndarray, (0,), b"b")              make an empty array, and
#     BUILD   (1, (1, 2), dtype("f8"), False, b"...")        tell it what it is:
# a version, the shape, the kind of number (floats of 8 bytes), whether the numbers come
# column by column, and their 16 bytes. Two other forms need no BUILD:
#     REDUCE  _frombuffer(b"...", dtype("f8"), (1, 2), "C")  protocol 5 ("F": by columns)
#     REDUCE  scalar(dtype("f8"), b"...")                    a single number
# Each dtype is a call as well, and its BUILD says the byte order, "<":
#     REDUCE  dtype("f8", ...)     BUILD  (3, "<", ...)
# NumPy's names of numbers, and the letters that `struct` has for them:
LETTERS = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i"}
LETTERS |= {"i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}  # |: a byte alone has no order


def array_of_call(call: Call) -> Any:
    """The rows, the row or the number that a note of one of NumPy's calls describes."""
    match call.function:
        case "numpy.core.multiarray _reconstruct":
            _, shape, dtype, by_columns, data = call.state
        case "numpy.core.numeric _frombuffer":
            data, dtype, shape, order = call.arguments
            by_columns = order == "F"
        case "numpy.core.multiarray scalar":
            dtype, data = call.arguments
            shape, by_columns = [], False
        case name:
            raise ValueError(f"it would call {short(name)}")
    if isinstance(data, Call):  # protocol 2 has no bytes, but a call of encode(text)
        data = data.arguments[0].encode("latin1")
    return in_shape(numbers_in(data, dtype), shape, by_columns)


def in_shape(numbers: list[Any], shape: list[int], by_columns: bool) -> Any:
    """A number for the shape (), a row for (n,), a list of rows for (rows, columns)."""
    are_lengths = all(isinstance(length, int) and length > 0 for length in shape)
    if len(shape) > 2 or not are_lengths or math.prod(shape) != len(numbers):
        raise ValueError("an array that is no table")  # (the product of () is 1)
    if len(shape) == 0:
        return numbers[0]
    if len(shape) == 1:
        return numbers
    rows, columns = shape
    if by_columns:  # the next number of a row comes a whole column later
        return [numbers[row::rows] for row in range(rows)]
    return [numbers[row * columns : (row + 1) * columns] for row in range(rows)]


def numbers_in(data: bytes, dtype: Call) -> list[Any]:
    """The numbers in these bytes, of the kind and byte order that a dtype's note says."""
    kind, byte_order = dtype.arguments[0], dtype.state[1]  # ("f8", ...), (3, "<", ...)
    if kind not in LETTERS:
        raise ValueError(f"numbers of the kind {short(kind)} are not read")
    letter = LETTERS[kind]
    count = len(data) // struct.calcsize("=" + letter)
    if count > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    layout = f"{BYTE_ORDERS[byte_order]}{count}{letter}"  # "<2d": two floats
    return list(struct.unpack(layout, data))


def plain(value: Any) -> Any:
    """A copy in plain Python, arrays as lists; ValueError for what no model needs.

    The value is from a file (notes of arrays) or from an author (arrays themselves).
    """
    copied = 0  # values so far, at each use; each letter of a text counts as one

    def copy(value: Any, depth: int) -> Any:
        nonlocal copied
        if isinstance(value, Call):
            value = array_of_call(value)
        elif hasattr(value, "tolist"):  # an array, or one of NumPy's numbers
            value = value.tolist()
        if isinstance(value, bytes):  # a letter of a lake's map, also out of its array
            value = value.decode("ascii")
        copied += 1 + (len(value) if isinstance(value, str) else 0)
        if copied > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("more values, or deeper nested, than a model needs")
        if isinstance(value, (list, tuple)):
            return [copy(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {
                copy(text_key(key), depth): copy(item, depth + 1)
                for key, item in value.items()
            }
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float and math.isfinite(value):
            return value
        raise ValueError(f"a model needs nothing like {short(value)}")

    return copy(value, 0)


def short(value: object) -> str:
    """A value as a text that fits into a sentence, whatever it is."""
    return reprlib.repr(value)[:100]


def one_line(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    return " ".join(str(error)[:1000].split())[:200]


# ------------------ Save and load -----------------------------------------------------
def checked_model(anything: Any) -> Model:
    """A copy of a model in plain values; ValueError if it is no model.

    Whether its table fits its game is seen when the game is made.
    """
    model: Model = plain(anything)
    if not (isinstance(model, dict) and isinstance(model.get("env_id"), str)):
        raise ValueError("a model is a dictionary with env_id and qtable")
    table = model.get("qtable")
    if not (isinstance(table, list) and all(isinstance(row, list) for row in table)):
        raise ValueError("its qtable is not a list of rows")
    if not all(isinstance(q, (int, float)) for row in table for q in row):
        raise ValueError("its qtable has a cell that is no number")
    # What a model of the course leaves out is as for the lake.
    said = qlearning.LAKE | model
    # An evaluation needs three of the numbers: any other may be None.
    kinds: dict[str, Any] = dict.fromkeys(HYPERPARAMETERS, int | float | None)
    kinds |= {"max_steps": int, "n_eval_episodes": int, "gamma": int | float}
    kinds |= {"eval_seed": list, "env_kwargs": dict}
    for name, kind in kinds.items():
        if not isinstance(said[name], kind):
            raise ValueError(f"its {name} cannot be {short(said[name])}")
    qlearning.check_counts(said["n_eval_episodes"], said["max_steps"])
    if not 0 <= said["gamma"] <= 1:
        raise ValueError(f"its gamma must be from 0 to 1, not {short(said['gamma'])}")
    seeds = said["eval_seed"]
    if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ValueError("its eval_seed is no list of whole numbers from 0")
    if 0 < len(seeds) < said["n_eval_episodes"]:  # without any they are 0, 1, 2, ...
        raise ValueError(f"its eval_seed has only {len(seeds)} seeds")
    model["qtable"] = [[float(q) for q in row] for row in table]
    return model


def save_model(model: Model, path: AnyPath) -> Path:
    """Pickle a model in plain lists and numbers: the file imports nothing."""
    path = Path(path).expanduser()
    data = pickle.dumps(checked_model(model), protocol=4)
    model_in(data)  # what load_model would refuse is not written
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# What reading a damaged pickle may raise, besides our own ValueErrors
READING_ERRORS = (LookupError, TypeError, AttributeError, OverflowError, struct.error)


def load_model(path: AnyPath) -> Model:
    """The model in a file or in a package's folder: its pickle is read and never run."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "q-learning.pkl"
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return model_in(data)
    except (ValueError, *READING_ERRORS) as error:
        text = f"{path} is not a Q-learning model: {one_line(error)}"
        raise ValueError(text) from None


def model_in(data: bytes) -> Model:
    """The model in the bytes of a file."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("a Git LFS pointer, not the file itself")
    if not data.endswith(b"."):  # the last instruction of a pickle, STOP
        raise ValueError("no pickle, or one that was cut off")
    return checked_model(read_pickle(data))


# ------------------ Which game? -------------------------------------------------------
# A model of the course has no env_kwargs: it may have these arguments under these keys.
COURSE_KEYS = {"map_name": "map_name", "is_slippery": "slippery"}


def game_arguments(model: Model) -> dict[str, Any]:
    """The arguments to make the game of a model with."""
    if "env_kwargs" in model:
        return dict(model["env_kwargs"])
    given = {name: model.get(key) for name, key in COURSE_KEYS.items()}
    return {name: value for name, value in given.items() if value is not None}


def make_env_from_model(model: Model, render_mode: str | None = None) -> Env:
    """The game that a model was trained in: a registered one, with plain arguments."""
    env_id, arguments = model["env_id"], game_arguments(model)
    # An unknown id is not tried: for "module:Game-v0" gym.make would import a module.
    if env_id not in gym.registry and env_id not in qlearning.OTHER_ID:
        raise ValueError(
            f"this Gymnasium has no game {short(env_id)}: register it first"
        )
    try:
        # A lake makes rules for each place of its `desc`: for a huge map for minutes.
        desc = arguments.get("desc")
        if isinstance(desc, list) and sum(map(len, desc)) > len(model["qtable"]):
            raise ValueError("its map is larger than its table")
        env = make_env(env_id, render_mode=render_mode, **arguments)
        check_table(env, model["qtable"])
    except Exception as error:  # what a class makes of such arguments can be any error
        given = f"with {short(arguments)} " if arguments else ""
        text = f"{short(env_id)} cannot be made {given}for this model"
        raise ValueError(f"{text}: {one_line(error)}") from error
    return env


def env_arguments(env: Env) -> dict[str, Any]:
    """The arguments that `env` was made with; ValueError if one cannot be published."""
    given = dict(env.spec.kwargs)
    given.pop("render_mode", None)  # how a game is shown is no part of it
    if qlearning.known_game(env) == "lake":
        # Gymnasium prefers rows, `desc`, to a name; with neither it draws a random map.
        # In both cases only the rows say which map it is.
        desc, map_name = given.pop("desc", None), given.get("map_name")
        if desc is not None or map_name is None:
            given.pop("map_name", None)
            given["desc"] = env.unwrapped.desc
    limit = env.spec.max_episode_steps
    if limit != gym.spec(env.spec.id).max_episode_steps:
        given["max_episode_steps"] = -1 if limit is None else limit  # -1: no limit
    arguments = {}
    for name, value in given.items():
        try:
            arguments[name] = plain(value)
        except ValueError as error:
            raise ValueError(f"cannot publish the argument {name}: {error}") from None
    return arguments


ADVICE = "register a game of your own, with its wrappers, under an env_id of its own"


def model_to_publish(model: Model, env: Env) -> Model:
    """The model, which now says how to make its game as `env` was made."""
    env_id, spec = model["env_id"], getattr(env, "spec", None)
    made_as = spec.id if spec else "no registered game"
    renamed = qlearning.OTHER_ID.get(env_id)  # Taxi-v4 for Taxi-v3, say
    if made_as not in (env_id, renamed):
        raise ValueError(
            f"the environment was made as {made_as}, the model is for {env_id}: {ADVICE}"
        )
    arguments = env_arguments(env)
    model = model | {"env_kwargs": arguments}
    for name, key in COURSE_KEYS.items():  # for the course's own code
        model.pop(key, None)
        if name in arguments:
            model[key] = arguments[name]
    return model


def game_name(model: Model) -> str:
    """What the course's leaderboard calls a game: with its map, and `-no_slippery`.

    Any other argument is in the name too, and its value if that is a number.
    """
    name, arguments = model["env_id"], game_arguments(model)
    if "map_name" in arguments:
        name += f"-{arguments.pop('map_name')}"
    if arguments.pop("is_slippery", True) is False:
        name += "-no_slippery"
    for argument, value in sorted(arguments.items()):
        name += f"-{argument}"
        if isinstance(value, (int, float)):
            name += f"={value}"
    return str(name)


def first_state(env: Env, model: Model, episode: int = 1) -> int:
    """The state in which one of the scored episodes begins, counted from 1."""
    state, _ = env.reset(seed=evaluation_seeds(model)[episode - 1])
    return int(state)


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
    hub_card: Any = None,
) -> Path:
    """Evaluate, film and describe a model: prints its score, and returns the folder.

    Nothing is replaced before all of the FILES are there. What the owner wrote on this
    agent's card, in the folder or on the Hub, stays.
    """
    folder = Path(folder).expanduser()
    model = model_to_publish(model, env)
    old_card = card_to_keep(folder, hub_card, model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        new = Path(temporary)
        # From here on model and env are those that others get, not the author's.
        model, env, mean, std = round_trip(model, env, new / "q-learning.pkl")
        score = f"{mean:.2f} +/- {std:.2f}"
        model_card(model, env, score, repo_id, old_card).save(new / "README.md")
        draw_and_film(model, env, new, video_fps)
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
        for name in FILES:  # only now, when all of them are there
            (new / name).replace(folder / name)
    print(f"Mean_reward={score}")
    return folder


def round_trip(model: Model, env: Env, file: Path) -> tuple[Model, Env, float, float]:
    """What others get: the model read from its file, its game made from it, its score.

    ValueError if that is another score than the author's environment gives.
    """
    model = load_model(save_model(model, file))
    mean, std = evaluate_model(env, model)
    try:
        their_env = make_env_from_model(model, render_mode="rgb_array")
    except ValueError as error:
        raise ValueError(f"others cannot use this model: {error}; {ADVICE}") from None
    their_mean, their_std = evaluate_model(their_env, model)
    if (mean, std) != (their_mean, their_std):
        raise ValueError(
            f"your environment gives {mean:.2f} +/- {std:.2f}, the one that others make "
            f"from this model {their_mean:.2f} +/- {their_std:.2f}: {ADVICE}"
        )
    return model, their_env, mean, std


def draw_and_film(model: Model, env: Env, folder: Path, fps: float) -> None:
    """Write values.png and replay.mp4, both of the first episode that is scored."""
    Qtable, initial_value = model["qtable"], model.get("initial_value", 0.0)
    state = first_state(env, model)
    picture = draw_values(env, Qtable, state=state, initial_value=initial_value)
    imageio.imwrite(folder / "values.png", picture)
    steps, seed = model["max_steps"], evaluation_seeds(model)[0]
    record_video(env, Qtable, folder / "replay.mp4", fps, max_steps=steps, seed=seed)


# ------------------ The card ----------------------------------------------------------
OWNER_MARK = "<!-- What you write below this line stays with every new push. -->"
CARD = """---
{metadata}
---

# Q-learning agent for {game}

This agent plays **{game}** by tabular Q-learning: it has a table with a value for each of
{actions} actions in each of {states} states, and takes the action of the highest value.

![The values that it has learned](values.png)

## Score

{scores}

## Hyperparameters

| name | value | what it means |
|---|---|---|
{numbers}

{training}## Use it

With `qlearning.py` and `hub_utils.py` beside your script:

```python
{register}from hub_utils import {load}, make_env_from_model
from qlearning import evaluate_model

model = {load}("{source}")
env = make_env_from_model(model)
mean, std = evaluate_model(env, model)
print(f"{{mean:.2f}} +/- {{std:.2f}}")
```

{mark}{words}"""


def model_card(
    model: Model, env: Env, score: str, repo_id: str | None, old_card: Any
) -> hf.ModelCard:
    """The card: metadata by which the Hub and the course find the model, and the text."""
    rows = [
        f"| {name} | {model[name]} | {meaning} |"
        for name, (_, meaning) in HYPERPARAMETERS.items()
        if name in model
    ]
    training, register = "", ""
    if command := command_to_train(model):
        training = f"To train it once more:\n\n```sh\n{command}\n```\n\n"
    if not qlearning.known_game(env):
        register = "# First import the author's own code, which registers the game.\n"
    text = CARD.format(
        metadata=metadata(model, score, repo_id, old_card).to_yaml(),
        game=game_name(model),
        actions=len(model["qtable"][0]),
        states=len(model["qtable"]),
        scores=score_lines(model, env, score),
        numbers="\n".join(rows),
        training=training,
        register=register,
        load="load_from_hub" if repo_id else "load_model",
        source=repo_id or "q-learning.pkl",
        mark=OWNER_MARK,
        words=owners_words(old_card) or "\n",
    )
    return hf.ModelCard(text)


def metadata(
    model: Model, score: str, repo_id: str | None, old_card: Any
) -> hf.ModelCardData:
    """What the Hub and the course's leaderboard read, and the owner's own metadata."""
    game = game_name(model)
    result = hf.EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=game,
        dataset_name=game,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=score,  # the leaderboard splits it at the +/-
    )
    our_tags = [game, "q-learning", "reinforcement-learning", "custom-implementation"]
    # Changed in place, so that all else in it stays: a licence, a language, own tags.
    data = old_card.data if old_card else hf.ModelCardData()
    # A tag that names the game of an old score was ours as well: it goes.
    old_games = [old_result.dataset_name for old_result in data.eval_results or []]
    own_tags = [tag for tag in data.tags or [] if tag not in our_tags + old_games]
    data.tags = our_tags + own_tags
    data.pipeline_tag = "reinforcement-learning"
    data.model_name = repo_id.split("/")[-1] if repo_id else f"q-{game}"
    data.eval_results = [result]
    return data


def score_lines(model: Model, env: Env, score: str) -> str:
    """The measured score, and the exact ones where the game publishes its rules."""
    steps = model["max_steps"]
    lines = [f"- {score} mean +/- deviation over {model['n_eval_episodes']} episodes"]
    with contextlib.suppress(ValueError):  # it publishes none
        exact = qlearning.exact_score(env, steps, model["qtable"])
        best = qlearning.exact_score(env, steps)
        lines.append(f"- {exact:.4f} exact mean of this agent within {steps} steps")
        lines.append(f"- {best:.4f} exact mean of the best possible play")
    return "\n".join(lines)


def command_to_train(model: Model) -> str:
    """The shortest command that makes the model again, or nothing.

    (Nothing if no recipe is of its game, or if a number to change is None.)
    """
    game = model["env_id"], game_arguments(model)
    # What a model of the course leaves out is as for the lake.
    numbers = qlearning.LAKE | model
    commands = []
    for recipe_name, recipe in qlearning.RECIPES.items():
        changed = [name for name in HYPERPARAMETERS if numbers[name] != recipe[name]]
        can_be_said = all(numbers[name] is not None for name in changed)
        if game == (recipe["env_id"], recipe["env_kwargs"]) and can_be_said:
            command = f"python hub_utils.py package {recipe_name}"
            for name in changed:
                command += f" {qlearning.option(name)} {numbers[name]}"
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
    """The owner's text: all below OWNER_MARK."""
    if card is None:
        return ""
    _, mark, words = card.text.partition(OWNER_MARK)
    # A card without the mark was not written by us: all of it is the owner's.
    return str(words if mark else f"\n\n{card.text.strip()}\n")


def card_to_keep(folder: Path, hub_card: Any, model: Model) -> Any:
    """The card whose words and metadata stay in the new one.

    That is the Hub's card; without one the folder's, if it is of this game; else none.
    ValueError if the folder's card is not kept, and words in it would get lost.
    """
    folder_card = card_in(folder)
    if folder_card is None:
        return hub_card
    if hub_card is None and game_name(model) in (folder_card.data.tags or []):
        return folder_card
    # The new card replaces it. Nothing gets lost if both of these hold:
    we_wrote_it = OWNER_MARK in folder_card.text
    hub_has_its_words = owners_words(folder_card).strip() in owners_words(hub_card)
    if we_wrote_it and hub_has_its_words:
        return hub_card
    raise ValueError(
        "the README.md in this folder would get lost, or words in it: take another folder"
    )


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
    api = hf.HfApi(token=token)
    last_commit, card = fetch_repo(api, repo_id, private)
    folder = package_model(
        model, env, local_repo_path, video_fps, repo_id=repo_id, hub_card=card
    )
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


def check_token(api: hf.HfApi, repo_id: str) -> None:
    """PermissionError if the token cannot write to such a repo."""
    with hub_errors(repo_id):
        user = api.whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError("your token can only read: make one with the write role")
    owners = [user["name"], *(group["name"] for group in user.get("orgs", []))]
    owner, slash, _ = repo_id.partition("/")
    if not slash or owner not in owners:
        names = " or ".join(f"{name}/" for name in owners)
        raise PermissionError(
            f"you cannot push to {repo_id}: it must begin with {names}"
        )


def fetch_repo(
    api: hf.HfApi, repo_id: str, private: bool | None
) -> tuple[str | None, Any]:
    """A repo's last commit and its card, each None if there is no such thing yet.

    To be called before training: it raises what would make a push fail.
    """
    check_token(api, repo_id)
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
            # The client's cache keeps the file's name, by which `card_in` finds it.
            path = api.hf_hub_download(repo_id, "README.md", revision=info.sha)
            card = card_in(Path(path).parent)
    if private is not None and private != info.private:
        now = "private" if info.private else "public"
        raise ValueError(f"{repo_id} is {now}: change that in its settings on the Hub")
    return info.sha, card


def load_from_hub(
    repo_id: str, filename: str = "q-learning.pkl", *, token: str | None = None
) -> Model:
    """The model of a repo on the Hub: its pickle is read and never run.

    Without a connection it is the copy of an earlier download, if there is one.
    """
    api = hf.HfApi(token=token)
    try:
        with hub_errors(repo_id):
            url = hf.hf_hub_url(repo_id, filename, endpoint=api.endpoint)
            size = api.get_hf_file_metadata(url=url).size or 0
    except ConnectionError:  # below, the client looks for an earlier download
        size = 0
    if size > MAX_BYTES:
        raise ValueError(f"{filename} of {repo_id} is larger than a Q-table can be")
    with hub_errors(repo_id):
        file = api.hf_hub_download(repo_id, filename)
    return load_model(file)


# When nobody answers, the client's HTTP library raises: requests, in older versions, an
# OSError; httpx, in newer ones, its own error, which is a base class of HfHubHTTPError.
# (A failing disk is an OSError too, but one with an errno.)
CLIENT_ERRORS: Any = (OSError, *errors.HfHubHTTPError.__bases__)
NO_CONNECTION = "no connection to the Hub (HF_ENDPOINT can name a mirror of it)"


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Around calls of the client: a sentence of ours where its own would not help."""
    try:
        yield
    except errors.LocalTokenNotFoundError:
        text = "there is no token: run `hf auth login`, in a notebook notebook_login()"
        raise PermissionError(text) from None
    # This one is an EntryNotFoundError as well, so it comes before it.
    except errors.LocalEntryNotFoundError:
        raise ConnectionError(NO_CONNECTION) from None
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError):
        text = f"no {repo_id} on the Hub, for your token, or no such file in it"
        raise FileNotFoundError(text) from None
    except CLIENT_ERRORS as error:
        hub_answered = getattr(error, "response", None) is not None
        disk_failed = getattr(error, "errno", None) is not None
        if hub_answered or disk_failed:
            raise  # its own text says what is wrong
        raise ConnectionError(NO_CONNECTION) from None


# ------------------ The command line --------------------------------------------------
# What `load` plays and proves at most, whatever a model claims
MOST_STEPS, MOST_EPISODES, MOST_STATES = 1_000, 200, 1_000


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
    # What a model of the course lacks, such as an initial value, is as for the lake.
    shown = qlearning.LAKE | {"env_kwargs": game_arguments(model)} | model
    if shown["max_steps"] > MOST_STEPS or shown["n_eval_episodes"] > MOST_EPISODES:
        shown["max_steps"] = min(shown["max_steps"], MOST_STEPS)
        shown["n_eval_episodes"] = min(shown["n_eval_episodes"], MOST_EPISODES)
        text = f"at most {MOST_EPISODES} episodes of {MOST_STEPS} steps are played"
        print(f"note: {text}", file=sys.stderr)
    if len(str(shown["env_kwargs"])) > 300:  # from here on they are only printed
        shown["env_kwargs"] = short(shown["env_kwargs"])
    qlearning.show_world(env, shown)
    qlearning.show_agent(env, shown)
    if len(shown["qtable"]) <= MOST_STATES:  # of a large game it would take minutes
        qlearning.show_proof(env, shown)


def record(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and film or draw what it has learned, or film the training."""
    path = Path(args.file).expanduser()
    if args.learning:
        print(record_learning(recipe, path, args.fps))
        return
    env = filmed_game(recipe)
    is_picture = path.suffix.lower() == ".png"
    if not is_picture:
        check_film(path, args.fps, env)
    check_writable(path.parent)

    Qtable = qlearning.learn(env, recipe)
    model, initial_value = recipe | {"qtable": Qtable}, recipe["initial_value"]
    if is_picture:
        state = first_state(env, model, args.show_episode)
        picture = draw_values(env, Qtable, state=state, initial_value=initial_value)
        imageio.imwrite(path, picture)
    else:
        record_video(
            env,
            Qtable,
            path,
            args.fps,
            max_steps=model["max_steps"],
            seed=evaluation_seeds(model)[args.show_episode - 1],
            values=args.values,
            initial_value=initial_value,
        )
    mean, std = evaluate_model(env, model)
    print(f"Mean_reward={mean:.2f} +/- {std:.2f}\n{path}")


def train_to_package(
    args: argparse.Namespace, recipe: Model, hub_card: Any = None
) -> tuple[Model, Env]:
    """Train a recipe; its model and game."""
    env = filmed_game(recipe)
    folder = Path(args.folder).expanduser()
    # Before the training, three calls for their errors alone: what would fail after it
    check_film(folder / "replay.mp4", args.fps, env)
    check_writable(folder)
    card_to_keep(folder, hub_card, recipe)
    return recipe | {"qtable": qlearning.learn(env, recipe)}, env


def package(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and build all that a push would upload."""
    model, env = train_to_package(args, recipe)
    print(package_model(model, env, args.folder, args.fps))


def push(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, and upload it to the Hugging Face Hub."""
    # To fail early; push_to_hub looks again, for the last commit of that moment.
    _, hub_card = fetch_repo(hf.HfApi(), args.repo_id, args.private)
    model, env = train_to_package(args, recipe, hub_card)
    push_to_hub(args.repo_id, model, env, args.fps, args.folder, private=args.private)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    about = "Film, package, push and load Q-learning agents."
    parser = argparse.ArgumentParser(prog="hub_utils.py", description=about)
    commands = parser.add_subparsers(dest="command", required=True)

    to_record = add_command(commands, record, argv)
    to_record.usage = "%(prog)s recipe file [options]"
    to_record.add_argument("file", help="a film .mp4 or .gif, or a picture .png")
    films = to_record.add_mutually_exclusive_group()
    films.add_argument("--learning", action="store_true", help="film the training")
    films.add_argument("--values", action="store_true", help="film the Q-values too")
    qlearning.add_show_episode(to_record)

    where = "where to build it (hub)"
    to_package = add_command(commands, package, argv)
    to_push = add_command(commands, push, argv)
    for command in to_package, to_push:
        command.add_argument("--folder", default="hub", metavar="FOLDER", help=where)
    to_push.add_argument("--repo-id", required=True, metavar="NAME/REPO")
    # None if it is not given: a new repo is then what your account has as default.
    whom = "for you alone"
    to_push.add_argument("--private", action="store_true", default=None, help=whom)

    what = "Load a model from a repo, a folder or a file, evaluate and show it."
    to_load = commands.add_parser("load", help=what, description=what)
    to_load.add_argument("source", metavar="NAME/REPO", help="or a folder, or a file")

    args = parser.parse_args(argv)
    if args.command == "load":
        return qlearning.run(lambda: show_model(load_anywhere(args.source)))
    recipe = qlearning.chosen_recipe(parser, args)
    return qlearning.run(lambda: args.function(args, recipe))


def add_command(
    commands: Any, function: Callable[..., None], argv: Sequence[str]
) -> Any:
    """A command that trains a recipe, named and described like the function it calls.

    Its help shows the numbers of the recipe that is named in `argv`.
    """
    about, name = function.__doc__, function.__name__
    usage = "%(prog)s recipe [options]"
    options = commands.add_parser(
        name, usage=usage, help=about, description=about, allow_abbrev=False
    )
    options.set_defaults(function=function)
    qlearning.add_recipe(options, argv)
    speed = "frames a second (1)"
    options.add_argument("--fps", type=float, default=1, metavar="N", help=speed)
    return options


if __name__ == "__main__":
    sys.exit(main())
