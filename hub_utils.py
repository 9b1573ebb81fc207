"""Film an agent, package it, push it to the Hugging Face Hub, load anybody's model safely.

    python hub_utils.py record frozenlake replay.gif          an episode as a video
    python hub_utils.py package taxi --folder my-taxi         all that a push would upload
    python hub_utils.py push taxi --repo-id NAME/q-taxi       upload it (after `hf auth login`)
    python hub_utils.py load NAME/REPO                        fetch, evaluate, show: any model

Vocabulary
    model      the dictionary of the course: hyperparameters, env_id and the `qtable`
    repo_id    NAME/REPO on the Hub: whose it is, and what it is called
    card       the README.md of a repo: for people below, for the Hub's search on top
    mark       the line in a card below which everything is its owner's
"""

import sys

try:
    import argparse
    import contextlib
    import hashlib
    import inspect
    import io
    import json
    import math
    import os
    import pickle
    import platform
    import re
    import shutil
    import struct
    import subprocess
    import tempfile
    import time
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from dataclasses import dataclass
    from numbers import Real
    from pathlib import Path
    from typing import Any

    import gymnasium as gym
    import huggingface_hub as hf
    import imageio.v2 as imageio
    import imageio_ffmpeg  # type: ignore[import-untyped, unused-ignore]
    from gymnasium.envs.toy_text.frozen_lake import MAPS
    from huggingface_hub import constants, errors, utils

    import qlearning
    from qlearning import Env, check_numbers, check_table, make_env, one_line
except KeyboardInterrupt:  # Ctrl-C in the second that importing takes
    if __name__ != "__main__":
        raise
    print("\nStopped by Ctrl-C.", file=sys.stderr)
    sys.exit(130)

Model = dict[str, Any]
hf_utils: Any = utils  # which does not tell mypy what is in it
AnyPath = str | os.PathLike[str]


def require(condition: object, message: str, kind: Any = ValueError) -> None:
    """An error of this kind, with this message, unless the condition holds."""
    if not condition:
        raise kind(message)


def note(text: str) -> None:
    """Tell something on stderr, if anything can be written there."""
    with contextlib.suppress(OSError):
        print(f"note: {text}", file=sys.stderr)


# ------------------ Film an episode ---------------------------------------------------
def record_video(
    env: Env,
    Qtable: list[list[float]],
    out_directory: AnyPath,
    fps: float = 1,
    *,
    max_steps: int = 99,
    seed: int | None = None,
) -> Path:
    """The path of a new .mp4 or .gif: one greedy episode, a frame before it and per step.

    `out_directory` is the course's name for the path of the file. An older film stays until
    the new one is whole. ValueError: this cannot be filmed. RuntimeError: no renderer, or
    a broken encoder. OSError: the disk.
    """
    path = Path(out_directory).expanduser()
    check_numbers({"max_steps": max_steps, "seed": seed})
    check_table(env, Qtable)
    check_film(path, fps, env)

    state, _ = env.reset(seed=seed)
    pictures = [picture(env)]
    for _ in qlearning.rollout(env, Qtable, int(state), max_steps):
        pictures.append(picture(env))
    with arriving_whole(path.parent, path.name) as new:
        write_film(new / path.name, pictures, float(fps))
    return path


def film_episode(
    model: Model, env: Env, path: Path, fps: float, episode: int = 1
) -> None:
    """Film one of the episodes that are scored, counted from 1."""
    seed, steps = qlearning.evaluation_seeds(model)[episode - 1], model["max_steps"]
    record_video(env, model["qtable"], path, fps, max_steps=steps, seed=seed)


def check_film(path: Path, fps: float, env: Env) -> None:
    """ValueError or RuntimeError if there can be no such film; draws a frame to know."""
    is_film = path.suffix.lower() in (".mp4", ".gif") and not path.is_dir()
    require(is_film, f"a video is a file that ends in .mp4 or .gif, not {path.name!r}")
    in_range = isinstance(fps, Real) and type(fps) is not bool and 0.01 <= fps <= 100
    require(in_range, f"fps must be from 0.01 to 100, not {fps!r}")
    drawn = env.render_mode == "rgb_array"
    require(drawn, 'to film, make the game with render_mode="rgb_array"')
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # SDL would swallow SIGTERM
    has_screen = os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}
    if sys.platform == "linux" and not has_screen:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or SDL asks for a screen
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # and for a sound card
    env.reset()
    picture(env)


def picture(env: Env) -> Any:
    """The environment as height x width x 3 bytes, in even sizes as yuv420p asks."""
    try:
        frame = env.render()
    except gym.error.DependencyNotInstalled as error:
        text = "the renderer is missing: pip install 'gymnasium[toy-text]'"
        raise RuntimeError(text) from error
    kind: Any = getattr(frame, "dtype", type(frame))
    shape: list[int] = list(getattr(frame, "shape", []))
    is_picture = kind == "uint8" and shape[2:] == [3] and min(shape) > 1
    require(is_picture, f"render() gives no picture of bytes, but {kind} {shape}")
    return frame[: shape[0] // 2 * 2, : shape[1] // 2 * 2]


def write_film(path: Path, pictures: list[Any], fps: float) -> None:
    """Write the pictures as one film; RuntimeError if what was written is not whole."""
    sizes = {picture.shape for picture in pictures}
    require(len(sizes) == 1, "render() changes the picture's size")
    if path.suffix.lower() == ".gif":
        how: Any = {"format": "GIF", "duration": 1000 / fps, "loop": 0}
        gif: Any = imageio.mimwrite("<bytes>", pictures, **how)
        path.write_bytes(gif)
        return
    height, width, _ = sizes.pop()
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    # H.264 in yuv420p is what every browser plays.
    codec = "-v error -c:v libx264 -pix_fmt yuv420p -movflags +faststart"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, *f"{raw} {codec}".split(), f"file:{path}"]
    content = b"".join(picture.tobytes() for picture in pictures)
    # Not by imageio, which does not look at how ffmpeg ended.
    ended = subprocess.run(command, check=False, input=content, capture_output=True)
    said = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    reason = said or f"exit code {ended.returncode}"
    if ended.returncode == 0:
        reason, written = "pictures are missing", None
        with contextlib.suppress(RuntimeError):  # it cannot even be read
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        if written == len(pictures):
            return
    raise RuntimeError(f"ffmpeg did not finish {path.name}: {reason}")


@contextlib.contextmanager
def arriving_whole(folder: Path, name: str) -> Iterator[Path]:
    """A new folder to write in; at the end all that is in it moves to `folder`, or nothing.

    Whoever writes the same `name` meanwhile waits. One renaming decides: after a kill the
    next to come here removes what was not ready, and moves what was.
    """

    def move_in() -> None:
        for file in ready.iterdir() if ready.is_dir() else ():
            os.replace(file, folder / file.name)
        for left in (ready, unfinished):
            shutil.rmtree(left, ignore_errors=True)

    folder.mkdir(parents=True, exist_ok=True)
    unfinished, ready = folder / f".{name}.unfinished", folder / f".{name}.ready"
    here = hashlib.sha256(os.fsencode(f"{Path.home()} {ready.resolve()}")).hexdigest()
    with hf_utils.WeakFileLock(Path(tempfile.gettempdir(), f"{here}.lock")):
        move_in()
        unfinished.mkdir()
        try:
            yield unfinished
            os.replace(unfinished, ready)
        finally:
            move_in()


# ------------------ Read a pickle without running it ----------------------------------
# A pickle is a program for a small machine with a stack of values and a memo of values to
# use again. Its instructions push numbers and texts and gather them into lists; they may
# also import any function and call it. `pickle.load` obeys, so a stranger's model could
# delete your files. Here is Python's own machine (as pickle.py spells it out) without its
# hands: it knows only the instructions that a model needs, an import leaves no more than a
# name on the stack, and the few calls that make NumPy's arrays are done in plain Python.
MAX_BYTES, MAX_VALUES = 10_000_000, 550_000  # of a pickle
MAX_DEPTH, MAX_TEXT, MAX_KEY = 6, 10_000, 100  # of what is in it
# What the machine says of a program that it cannot obey.
DAMAGES = (pickle.UnpicklingError, struct.error, LookupError, TypeError, AttributeError)


def read_pickle(data: bytes) -> Any:
    """What a pickle holds, in plain Python; ValueError for all that no model needs."""
    require(len(data) <= MAX_BYTES, "more bytes than any Q-table needs")
    is_pointer = data.startswith(b"version https://git-lfs")
    require(not is_pointer, "a Git LFS pointer, not the file itself")
    try:
        return plain(Machine(Program(data)).load())
    except DAMAGES as error:
        kind = type(error).__name__
        text = f"a damaged pickle, or one with what no model needs ({kind})"
        raise ValueError(text) from None


class Program(io.BytesIO):
    """The bytes of a pickle, and an error where more are asked for than there are."""

    def read(self, size: Any = None) -> bytes:
        data = super().read(size)
        require(len(data) == size, "not a pickle, or one that is cut off")
        return data


@dataclass(eq=False)
class Part:
    """What stands for a part of NumPy's arrays: a function, a dtype or an array."""

    kind: str
    content: Any = None  # a dtype's letters for `struct`, an array's numbers
    size: int = 0  # of an array with its numbers: what work it is


NUMPY_NAMES = r"numpy (dtype|ndarray)|numpy\._?core\.multiarray (_reconstruct|scalar)"
NUMPY_NAMES += r"|numpy\._?core\.numeric _frombuffer|_codecs encode"  # _core: NumPy 2


class Machine(pickle._Unpickler):
    """Python's machine for pickles; its table `dispatch` says what an instruction does."""

    left = MAX_VALUES

    def work(self, amount: int) -> None:
        """Count what has been done: instructions, numbers, or what is as much work."""
        self.left -= amount
        if self.left < 0:
            raise ValueError("more values than any Q-table needs")

    def find_class(self, module: str, name: str) -> Part:
        """What stands for a part of NumPy's arrays; any other import is refused."""
        self.work(10)
        is_part = re.fullmatch(NUMPY_NAMES, f"{module} {name}")
        text = ascii(f"{module[:80]}.{name[:80]}")[1:-1]  # fit for a terminal
        require(is_part, f"it would import {text}")
        return Part(name)


INSTRUCTIONS = """
    PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4
    FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE
    TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL STACK_GLOBAL REDUCE BUILD
"""
NUMBERS = dict.fromkeys(["GET", "PUT"], rb"\d{1,9}\n")  # where a line is a number
NUMBERS |= dict.fromkeys(["INT", "LONG"], rb"-?\d{1,20}L?\n")
NUMBERS["FLOAT"] = rb"-?\d{1,17}(\.\d{1,17})?(e-\d{1,3}|e\+\d\d)?\n"
KEYS = {"SETITEM": slice(-2, -1)}  # where on the stack the keys of a dictionary are
KEYS |= dict.fromkeys(["SETITEMS", "DICT"], slice(None, None, 2))


def bounded(name: str) -> Callable[[Any], None]:
    """An instruction as Python obeys it, once its keys, numbers and work are checked."""
    obey = pickle._Unpickler.dispatch[ord(getattr(pickle, name))]

    def instruction(machine: Any) -> None:
        machine.work(1)
        if name in KEYS:
            keys = machine.stack[KEYS[name]]  # to look up nested ones can take ages
            short = all(type(key) is str and len(key) <= MAX_KEY for key in keys)
            require(short, "a dictionary with a key that is not a short text")
        if name in NUMBERS:  # of which to read a long one could take ages
            line, readline = machine.readline(), machine.readline
            require(re.fullmatch(NUMBERS[name], line), "a number that is none")
            machine.readline = lambda: line
            obey(machine)
            machine.readline = readline
        elif name in ("REDUCE", "BUILD"):
            given = machine.stack.pop()
            made = machine.stack[-1] = called(name, machine.stack[-1], given)
            machine.work(10 + (made.size if type(made) is Part else len(made) // 8))
        else:
            obey(machine)

    return instruction


Machine.dispatch = {ord(getattr(pickle, n)): bounded(n) for n in INSTRUCTIONS.split()}
Machine.dispatch[ord(pickle.BYTEARRAY8)] = bounded("BINBYTES8")  # bytes will do


DTYPES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i"}
DTYPES |= {"i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}  # NumPy's: struct's
ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}


def called(name: str, what: Any, given: Any) -> Any:
    """What a call makes (REDUCE), or what is told about it after that (BUILD)."""
    exact = type(given) is tuple and float not in map(type, given)  # 1.0 is no 1
    require(exact, "a call with arguments that it cannot have")
    match name, what, *given:
        case "REDUCE", Part("encode"), str() as text, "latin1":
            return text.encode("latin1")  # bytes, as protocols 0 to 2 write them
        case "REDUCE", Part("dtype"), str() as code, False | 0, True | 1:
            return Part("letter", DTYPES[code])
        case "BUILD", Part("letter"), 3, str() as order, None, None, None, -1, -1, 0:
            what.kind, what.content = "letters", ORDERS[order] + "{}" + what.content
            return what
        case "REDUCE", Part("_reconstruct"), Part("ndarray"), (int(0),), b"b":
            return Part("array")
        case "BUILD", Part("array", None), 1, shape, dtype, order, bytes() as data:
            return filled(what, shape, dtype, order, data)
        case "REDUCE", Part("scalar"), dtype, bytes() as data:
            return filled(Part("array"), (), dtype, False, data)
        case "REDUCE", Part("_frombuffer"), data, dtype, shape, "C" | "F" as order:
            return filled(Part("array"), shape, dtype, order == "F", data)
    raise ValueError("a call that makes no part of an array")


def filled(array: Part, shape: Any, dtype: Any, by_columns: Any, data: Any) -> Part:
    """The array with its numbers, in rows, read from the bytes with `struct`."""
    kinds = [type(part) for part in (shape, dtype, by_columns)]
    require(kinds == [tuple, Part, bool], "an array of unknown parts")
    sizes = [size for size in shape if type(size) is int and 0 <= size <= MAX_VALUES]
    require(len(sizes) == len(shape) <= 2, "an array of an unknown or too large shape")
    array.size = math.prod(size + 1 for size in sizes)  # empty rows are work as well
    numbers = struct.unpack(dtype.content.format(math.prod(sizes)), data)
    array.content = numbers if sizes else numbers[0]
    if len(sizes) == 2:
        rows, columns = sizes
        cuts = [slice(row * columns, (row + 1) * columns) for row in range(rows)]
        if by_columns:
            cuts = [slice(row, None, rows) for row in range(rows)]
        array.content = [numbers[cut] for cut in cuts]
    return array


def plain(value: Any) -> Any:
    """A copy in plain Python, small enough for a model; ValueError for anything else."""
    left = MAX_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:  # also what ends a list in itself
            raise ValueError("more values, or deeper nested, than a model needs")
        if type(value) is Part and value.size:
            value = value.content
        elif hasattr(value, "tolist"):
            value = value.tolist()
        match value:
            case None | bool():
                return value
            case float() if math.isfinite(value):
                return value
            case int() if value.bit_length() <= 64:
                return value
            case str() if len(value) <= MAX_TEXT:
                return value
            case list() | tuple():
                return [copy(item, depth + 1) for item in value]
            case dict():
                return {key: copy(item, depth + 1) for key, item in value.items()}
        raise ValueError(f"a {type(value).__name__} that no model needs")

    return copy(value, 0)


# ------------------ Save and load -----------------------------------------------------
def checked_model(model: Any) -> Model:
    """The one door: a model, ours or a stranger's, of plain values; or ValueError."""
    model = plain(model)
    is_model = type(model) is dict and type(model.get("env_id")) is str
    require(is_model, "not a model: a dictionary with env_id and qtable is needed")
    seeds, table = model.get("eval_seed", []), model.get("qtable")
    whole = type(seeds) is list and all(type(n) is int and n >= 0 for n in seeds)
    require(whole, "its eval_seed is not a list of whole numbers of 0 or more")
    is_dict = type(model.get("env_kwargs", {})) is dict
    require(is_dict, "its env_kwargs are no dictionary")
    check_numbers(model)
    is_table = type(table) is list and {type(row) for row in table} == {list}
    require(is_table, "its qtable is not a list of rows")
    even = len({len(row) for row in table}) == 1 and all(table)
    require(even, "the rows of its qtable are not of one length")
    numbers = {type(cell) for row in table for cell in row} <= {int, float}
    require(numbers, "its qtable has a cell that is not a number")
    return {**model, "qtable": [[float(cell) for cell in row] for row in table]}


def save_model(model: Model, path: AnyPath) -> Path:
    """The path of the new file: a pickle of plain lists and numbers that imports nothing.

    ValueError: this is no model, or larger than `load_model` reads. OSError: the disk.
    """
    path, data = Path(path).expanduser(), pickle.dumps(checked_model(model), 4)
    read_pickle(data)
    with arriving_whole(path.parent, path.name) as new:
        (new / path.name).write_bytes(data)
    return path


def load_model(path: AnyPath, *, name: str = "") -> Model:
    """The model in a file, by whomever: read, and never run.

    ValueError: it is no model, and why (`name` is how to call it). OSError: the disk.
    """
    file = Path(path).expanduser()
    try:  # the end of a pipe or a device may never come
        require(file.is_file() or not file.exists(), "a folder, a device or a pipe")
        with open(file, "rb") as content:
            return checked_model(read_pickle(content.read(MAX_BYTES + 1)))
    except ValueError as error:
        text = f"{name or path} is not a Q-learning model: {one_line(error)}"
        raise ValueError(text) from None


GAME_ARGUMENTS = {"map_name", "desc", "is_slippery", "success_rate", "is_rainy"}
GAME_ARGUMENTS |= {"fickle_passenger", "max_episode_steps"}


def game_arguments(model: Model) -> dict[str, Any]:
    """What `make_env` needs besides the id: our env_kwargs, or the course's two keys."""
    course = {"map_name": model.get("map_name"), "is_slippery": model.get("slippery")}
    given = model.get("env_kwargs", course)
    unread = "map_name" if given.get("desc") else ""  # Gymnasium looks at desc alone
    return {k: v for k, v in given.items() if v is not None and k != unread}


def is_ice_unknown(model: Model) -> bool:
    """Whether it may be either lake, as in models that keep only the course's keys."""
    is_lake, keys = model["env_id"] == "FrozenLake-v1", model.keys()
    return is_lake and "env_kwargs" not in keys and model.get("slippery") is None


def make_env_from_model(model: Model, render_mode: str | None = None) -> Env:
    """The environment that the model was trained in; ValueError if its table cannot fit.

    Only games that this Gymnasium knows, with harmless arguments: an id from a stranger
    like "module:Game-v0" would import that module. What the model does not say is guessed
    and told on stderr: the map by the size of the table, and ice, Gymnasium's default.
    """
    env_id, arguments, table = model["env_id"], game_arguments(model), model["qtable"]
    known = env_id in gym.registry or env_id in qlearning.SAME_GAMES
    require(known, f"this Gymnasium has no game {env_id[:80]!r}")
    unknown = str(sorted(arguments.keys() - GAME_ARGUMENTS))[:200]
    require(unknown == "[]", f"{env_id} cannot be made with {unknown}")
    guess = {"is_slippery": True} if is_ice_unknown(model) else {}
    if env_id == "FrozenLake-v1" and not arguments.keys() & {"map_name", "desc"}:
        maps: Any = {len("".join(rows)): name for name, rows in MAPS.items()}
        require(len(table) in maps, f"no map of Gymnasium's has {len(table)} states")
        guess["map_name"] = maps[len(table)]
    try:
        letters = "".join(arguments.get("desc") or "S")
        is_map = {"S"} <= set(letters) <= set("SFHG")
        require(is_map, "a map is made of S, F, H and G, and has an S")
        fits = letters == "S" or 4 * len(letters) <= sum(map(len, table))
        require(fits, "its map is too large for its table")
        env = make_env(env_id, render_mode=render_mode, **arguments | guess)
    except Exception as error:  # what comes of a stranger's arguments can be any
        raise ValueError(f"{env_id} cannot be made: {one_line(error)}") from error
    check_table(env, table)
    if guess:
        note(f"not said in the model, but guessed: {guess}")
    return env


# ------------------ Package: all that a push uploads, without a network ---------------
FILES = ("q-learning.pkl", "params.json", "results.json", "README.md", "replay.mp4")
PICKLE, PARAMS, RESULTS, CARD, FILM = FILES
SCORE = "{:.2f} +/- {:.2f}"  # as the course's readers split it


def package_model(
    model: Model,
    env: Env,
    folder: AnyPath,
    video_fps: float = 1,
    *,
    repo_id: str | None = None,
) -> Path:
    """The folder, now with the FILES that a push uploads; needs no network.

    Other files stay, and so do the owner's words on this agent's card. ValueError: this
    is no model of this environment, cannot be filmed, or would replace a README.md that
    is nobody's card. RuntimeError: no renderer, or a broken encoder. OSError: the disk.
    """
    checked, place = packable(model, env, video_fps, repo_id), Path(folder).expanduser()
    old = check_folder(place)
    _, above, _ = split_card(old.get(CARD, b""), CARD)
    if loader(repo_id) not in above or game_call(checked) not in above:
        old = {}  # another agent's
    return build_package(checked, env, place, video_fps, repo_id, old)


def packable(model: Model, env: Env, fps: float, repo_id: Any) -> Model:
    """The model as it is packaged; ValueError for all that can be known to be wrong."""
    checked = checked_model(model)
    for name in ("max_steps", "n_eval_episodes", "eval_seed", "gamma"):
        require(name in checked, f"the model lacks {name}")
    seeds, episodes = len(checked["eval_seed"]), checked["n_eval_episodes"]
    require(not 0 < seeds < episodes, f"{episodes} episodes, but only {seeds} seeds")
    if repo_id is not None:
        check_repo_id(repo_id)
    check_same_game(checked, env)
    check_table(env, checked["qtable"])
    check_film(Path(FILM), fps, env)
    if env.spec is not None:
        checked.setdefault("env_kwargs", env_arguments(env))
    arguments = game_arguments(checked)
    if "map_name" in arguments:  # where the course's readers look for it
        checked["map_name"] = arguments["map_name"]
        if arguments.get("is_slippery") is False:
            checked["slippery"] = False
    return checked


def env_arguments(env: Env) -> dict[str, Any]:
    """The env_kwargs of an environment: what `make_env` makes it again with."""
    given, limit = dict(env.spec.kwargs), env.spec.max_episode_steps
    given.pop("render_mode", None)
    if given.get("map_name", "") is None and not given.get("desc"):  # a map at random
        given["desc"] = [b"".join(row).decode() for row in env.unwrapped.desc.tolist()]
    registered = gym.registry.get(env.spec.id)
    if registered and limit != registered.max_episode_steps:
        given["max_episode_steps"] = limit
    return game_arguments({"env_kwargs": plain(given)})


def check_same_game(model: Model, env: Env) -> None:
    """ValueError if the environment says that it is another game than the model's."""
    if env.spec is None:
        return
    plays, says, env_id = env_arguments(env), game_arguments(model), model["env_id"]
    parameters = inspect.signature(type(env.unwrapped)).parameters.values()
    default = {parameter.name: parameter.default for parameter in parameters}
    if env.spec.id in gym.registry:
        default |= gym.registry[env.spec.id].kwargs
    default, played, said = map(in_rows, (default, plays, says))
    # What a model leaves open is by default; with the course's, it is as it was played.
    unsaid = default if "env_kwargs" in model else default | played
    same = env.spec.id in (env_id, qlearning.SAME_GAMES.get(env_id))
    same = same and unsaid | said == default | played
    text = f"the model is of {env_id} {says}, and the environment is"
    text = f"{text} {env.spec.id} {plays}".replace(" {}", "")
    require(same, one_line(ValueError(text)))


def in_rows(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments, with its rows in the place of a map's name."""
    rows = MAPS.get(str(arguments.get("map_name")))
    return arguments | {"map_name": None, "desc": rows} if rows else arguments


def check_folder(folder: Path) -> dict[str, bytes]:
    """The card and the results in a folder, unless no package may go there."""
    check_place(folder)
    for name in FILES:
        require(not (folder / name).is_dir(), f"{folder / name} is a folder, no file")
    there = [name for name in (CARD, RESULTS) if (folder / name).exists()]
    old = {name: (folder / name).read_bytes() for name in there}
    block, above, words = split_card(old.get(CARD, b""), str(folder / CARD))
    is_card = above or not words.strip() or "q-learning" in str(metadata_of(block))
    require(is_card, f"{folder / CARD} is no agent's card: take another folder")
    return old


def check_place(folder: Path) -> None:
    """OSError if nothing can be written in this folder, which may not be there yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    with tempfile.TemporaryFile(dir=there):
        pass


def build_package(
    model: Model, env: Env, folder: Path, fps: float, repo_id: str | None, old: Any
) -> Path:
    """The folder with the five files; `old`: the earlier card and results, by name."""
    mean, std = qlearning.evaluate_model(env, model)
    versions = {"python": platform.python_version(), "gymnasium": gym.__version__}
    results = {
        "env_id": model["env_id"],
        "mean_reward": mean,
        "std_reward": std,
        "result": mean - std,
        "n_eval_episodes": model["n_eval_episodes"],
        "eval_datetime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
    }
    with contextlib.suppress(ValueError, TypeError):
        earlier = json.loads(old.get(RESULTS, b""))
        if earlier | {"eval_datetime": results["eval_datetime"]} == results:
            results = earlier  # nothing is new, so neither is the time
    params = {n: v for n, v in model.items() if n != "qtable"} | {"versions": versions}
    score = SCORE.format(mean, std)
    card = model_card(model, env, score, repo_id, old.get(CARD, b""))
    with arriving_whole(folder, "package") as new:
        save_model(model, new / PICKLE)
        for name, content in ((PARAMS, params), (RESULTS, results)):
            (new / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        (new / CARD).write_bytes(card.encode())
        film_episode(model, env, new / FILM, fps)
        replaced = (folder / CARD).read_bytes() if (folder / CARD).exists() else b""
        words = split_card(replaced, CARD)[2].strip()
        if words not in card:  # they are another agent's, or were not pushed
            aside = f"README-{hashlib.sha256(words.encode()).hexdigest()[:8]}.md"
            (new / aside).write_bytes(replaced)
            note(f"what {CARD} said is kept in {aside}")
    return folder


# ------------------ The card ----------------------------------------------------------
OWNER_MARK = "<!-- What you write below this line stays with every new push. -->"
METADATA = re.compile(r"\s*---(?:\r\n?|\n)([\S\s]*?)(?:\r\n?|\n)---[ \t]*(?:\r?\n|$)")
GYMNASIUMS = set(gym.registry)  # the games that are there before anybody registers one


def split_card(card: bytes, name: str) -> tuple[str, str, str]:
    """A card's metadata, what stands above its mark, and its owner's words below it.

    Without a mark all of the text is the owner's. ValueError for what cannot be read.
    """
    text = card.decode("utf-8-sig", errors="replace")
    unread = {"\0", "\N{REPLACEMENT CHARACTER}"} & set(text)
    require(not unread, f"{name} is not written in UTF-8: save it in UTF-8 first")
    found = METADATA.match(text)
    block, body = (found[1], text[found.end() :]) if found else ("", text)
    metadata_of(block, name)
    above, mark, words = body.partition("\n" + OWNER_MARK)  # a line of its own
    return (block, above, words) if mark else (block, "", "\n\n" + body)


def metadata_of(block: str, name: str = "the card") -> dict[str, Any]:
    """What the first lines of a card say in YAML; ValueError if they are none."""
    try:
        card: Any = hf.RepoCard(f"---\n{block}\n---\n")
        return dict(card.data.to_dict())
    except Exception as error:  # PyYAML's errors are no ValueErrors
        text = f"the metadata on top of {name} is broken ({one_line(error)[:99]})"
        raise ValueError(text) from error


def dumped(metadata: dict[str, Any]) -> str:
    """Metadata as YAML."""
    return str(hf_utils.yaml_dump(metadata, sort_keys=False)).strip()


def merged_metadata(block: str, ours: dict[str, Any]) -> str:
    """The owner's metadata that we do not write, letter for letter, and then ours."""
    old = metadata_of(block)
    tags = old.get("tags") or []
    tags = list(tags) if isinstance(tags, list) else [tags]
    with contextlib.suppress(LookupError, TypeError, ValueError):  # of an earlier game
        tags.remove(old["model-index"][0]["results"][0]["dataset"]["type"])
    ours["tags"] = list(dict.fromkeys([*ours["tags"], *tags]))
    entries = re.split(r"(?m)^(?=[^\s-])", block.strip("\r\n"))
    kept = [e for e in entries if e.partition(":")[0].strip(" \"'") not in ours]
    text = "".join(kept).rstrip("\r\n")
    merged = f"{text}\n{dumped(ours)}" if text else dumped(ours)
    with contextlib.suppress(ValueError):  # in braces it cannot be cut into lines
        if metadata_of(merged) == old | ours:
            return merged
    return dumped(old | ours)


def game_name(model: Model) -> str:
    """What the course's tools call the game: with its map, and whether it has no ice."""
    arguments, name = game_arguments(model), model["env_id"]
    if "map_name" in arguments:
        name += f"-{arguments['map_name']}"
    if arguments.get("is_slippery") is False:
        name += "-no_slippery"
    return "".join(c if c.isprintable() else "?" for c in name)


def game_call(model: Model) -> str:
    """The call that makes the game, in characters that cannot end a block of code."""
    given = [f"{ascii(k)[1:-1]}={v!a}" for k, v in game_arguments(model).items()]
    return f"make_env({', '.join([ascii(model['env_id']), *given])})"


def loader(repo_id: str | None) -> str:
    """The call that loads the model: from the Hub, or from the package."""
    return f'load_from_hub("{repo_id}")' if repo_id else f'load_model("{PICKLE}")'


def table_rows(rows: Iterable[Iterable[Any]]) -> str:
    """The rows of a table in Markdown."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def model_card(
    model: Model, env: Env, score: str, repo_id: str | None, old: bytes
) -> str:
    """The card: metadata by which the Hub and the course find the model, the text, and
    what the owner wrote on the old one."""
    game, task = game_name(model), "reinforcement-learning"
    block, _, words = split_card(old, CARD)
    result = {
        "task": {"type": task, "name": task},
        "dataset": {"name": game, "type": game},
        "metrics": [{"type": "mean_reward", "value": score, "name": "mean_reward"}],
    }
    name = repo_id.split("/")[1] if repo_id else f"q-{game}"
    metadata = {
        "tags": [game, "q-learning", task, "custom-implementation"],
        "pipeline_tag": task,
        "model-index": [{"name": name, "results": [result]}],
    }
    from_gymnasium = type(env.unwrapped).__module__.startswith("gymnasium.")
    known = from_gymnasium and env.spec and env.spec.id in GYMNASIUMS
    registered = "" if known else ", and the game registered first"
    table, steps = model["qtable"], model["max_steps"]
    episodes = model["n_eval_episodes"]
    scores = [(f"mean +/- standard deviation over {episodes} episodes", score)]
    with contextlib.suppress(ValueError):  # no rules, or values that never settle
        exact = {**model, "qtable": qlearning.value_iteration(env, model["gamma"])}
        label = f"the exact table (value iteration) in the same {episodes} episodes"
        scores.append((label, SCORE.format(*qlearning.evaluate_model(env, exact))))
    with contextlib.suppress(ValueError):
        label = f"exact mean of this agent within {steps} steps, over all starts"
        scores.append((label, f"{qlearning.exact_score(env, steps, table):.4f}"))
        label = "exact mean of the best possible policy, likewise"
        scores.append((label, f"{qlearning.exact_score(env, steps):.4f}"))
    homes = qlearning.HYPERPARAMETERS.items()
    numbers = [(n, model[n], meaning) for n, (*_, meaning) in homes if n in model]
    seeds = f"{len(model['eval_seed'])} fixed" if model["eval_seed"] else "0, 1, 2, ..."
    numbers.append(("eval_seed", seeds, "what each evaluated episode starts from"))
    # As Markdown shows it, whatever characters are in it.
    title = re.sub(r"[^\w .,:+/-]", lambda c: f"&#{ord(c[0])};", game)
    return f"""---
{merged_metadata(block, metadata)}
---

# Q-learning agent for {title}

This agent plays **{title}** by tabular Q-learning: it has a table with a value for each of
{len(table[0])} actions in each of {len(table)} states, improved after every step of its training, and
takes the action of the highest value. The video shows one episode.

## Score

| | score |
|---|---|
{table_rows(scores)}

## Hyperparameters

| name | value | what it means |
|---|---|---|
{table_rows(numbers)}

## Use it

With `qlearning.py` and `hub_utils.py` beside your script{registered}:

```python
from hub_utils import {loader(repo_id).partition("(")[0]}
from qlearning import evaluate_model, make_env

model = {loader(repo_id)}
env = {game_call(model)}
mean, std = evaluate_model(env, model)
print(f"{{mean:.2f}} +/- {{std:.2f}}")
```

{how_to_reproduce(model)}

{OWNER_MARK}{words}"""


def how_to_reproduce(model: Model) -> str:
    """The command that trains this very table again, or that there is none."""
    commands = []
    numbers = sorted(qlearning.HYPERPARAMETERS.keys() - {"n_eval_episodes"})
    game = model["env_id"], game_arguments(model)
    for name, recipe in qlearning.RECIPES.items():
        given = {n: model.get(n) for n in numbers if model.get(n) != recipe[n]}
        if (
            game == (recipe["env_id"], recipe["env_kwargs"])
            and None not in given.values()
        ):
            options = [f"{qlearning.option(n)} {value}" for n, value in given.items()]
            commands.append(" ".join(["python hub_utils.py package", name, *options]))
    if not commands:
        return "No command makes this table again: train it with the numbers above."
    return f"The same table again, bit for bit:\n\n```sh\n{min(commands, key=len)}\n```"


# ------------------ Push and load: the Hub --------------------------------------------
PATIENCE = 10  # seconds to wait for an answer, wherever the client lets us say so
LOGIN = "run notebook_login()" if hf_utils.is_notebook() else "run `hf auth login`"
ANSWERS: dict[Any, tuple[type[OSError], str]] = {  # what the Hub answers: what we say
    "gated": (PermissionError, "{repo} is gated: ask for access on its page"),
    "none": (FileNotFoundError, "there is no model {repo} on the Hub for your token"),
    401: (PermissionError, f"the Hub does not know this token: {LOGIN} again"),
    403: (PermissionError, "your token may not {do} {repo}: it lacks the {do} role"),
    404: (FileNotFoundError, "{repo} has no {what}"),
    409: (ConnectionError, "{repo} is there already, and your token cannot see it"),
    412: (ConnectionError, "{repo} has just been changed: nothing is lost, push again"),
    429: (ConnectionError, "the Hub has had too many requests: try again later"),
    400: (ConnectionError, "the Hub answers {status}: {said}"),
    500: (ConnectionError, "the Hub answers {status}: try again later"),
    None: (ConnectionError, "no connection to the Hub, or no answer of it ({kind})"),
}


def status_of(error: Any) -> Any:
    """The HTTP status behind an error, or None if the Hub has not answered."""
    while error and getattr(error, "response", None) is None:
        error = error.__cause__ or error.__context__
    return error and error.response.status_code


@contextlib.contextmanager
def in_plain_words(
    repo: str, what: str = "branch main", do: str = "read", advice: str = ""
) -> Iterator[None]:
    """Turn what can go wrong between here and the Hub into one sentence each.

    PermissionError, FileNotFoundError: the Hub says no. ConnectionError: all else. What
    the disk did stays the OSError that it is.
    """
    xet, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    hidden = hf_utils.are_progress_bars_disabled()
    hf_utils.disable_progress_bars()  # some of them show in a pipe as well
    try:  # by plain HTTP: Xet, the other way, takes three minutes to say no
        yield
    except Exception as error:  # the client lets the errors of many libraries pass
        by_network = isinstance(error, (ConnectionError, TimeoutError))
        if getattr(error, "errno", None) is not None and not by_network:
            raise
        status = key = status_of(error)
        if isinstance(error, errors.RepositoryNotFoundError):
            key = "gated" if isinstance(error, errors.GatedRepoError) else "none"
        if key not in ANSWERS:
            key = 500 if str(status).startswith("5") else 400
        kind, text = ANSWERS[key]
        about = {"repo": repo, "what": what, "do": do, "said": one_line(error)[:150]}
        about |= {"status": status, "kind": type(error.__cause__ or error).__name__}
        raise kind(text.format(**about) + advice) from None
    finally:
        constants.HF_HUB_DISABLE_XET = xet
        if not hidden:
            hf_utils.enable_progress_bars()


def check_repo_id(repo_id: Any) -> None:
    """ValueError for a name that the Hub would not allow; asks nobody."""
    is_name = isinstance(repo_id, str) and repo_id.count("/") == 1
    require(is_name, f"a repo id is NAME/REPO, not {repo_id!r}")
    try:
        hf_utils.validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"the Hub allows no name like {repo_id!r}: {error}") from None


def client(token: str | None) -> hf.HfApi:
    """A client with this token, with the one that login has left here, or with none."""
    token = (token or hf.get_token() or "").strip()
    is_word = token.isascii() and token.isprintable() and " " not in token
    require(is_word, f"the token is damaged, for it is not one word: {LOGIN} again")
    return hf.HfApi(token=token or None)


def look_at(
    repo_id: str, private: bool | None, token: str | None
) -> tuple[hf.HfApi, str | None, dict[str, bytes] | None]:
    """A client that may write to the repo, its last commit, and its card and results.

    None instead of these two: there is no such repo yet. All else is an error, as of
    `push_to_hub`: a card that is not seen could get lost.
    """
    check_repo_id(repo_id)
    api, old = client(token), {}
    info: Any = None
    require(api.token, f"there is no token to push with: {LOGIN}", PermissionError)
    with in_plain_words(repo_id), tempfile.TemporaryDirectory() as folder:
        try:
            info = api.model_info(repo_id, revision="main", timeout=PATIENCE)
        except errors.RepositoryNotFoundError as error:
            if status_of(error) != 404:  # 401 or 403: it may be there
                raise
        user = api.whoami()
        role = user.get("auth", {}).get("accessToken", {}).get("role")
        owners = [user["name"]] + [group["name"] for group in user.get("orgs", [])]
        for file in [file.rfilename for file in info.siblings] if info else []:
            if file in (CARD, RESULTS):
                api.hf_hub_download(repo_id, file, local_dir=folder)
                old[file] = Path(folder, file).read_bytes()
    text = "your token can only read: make one with the write role"
    require(role != "read", text, PermissionError)
    text = f"{repo_id} is not yours: you can push to {', '.join(owners)}"
    require(repo_id.split("/")[0] in owners, text, PermissionError)
    if info is None:
        return api, None, None
    require(info.id == repo_id, f"{repo_id} is called {info.id} now: push to that")
    now, wanted = ("private" if p else "public" for p in (info.private, private))
    text = f"{repo_id} is {now}: make it {wanted} in its settings on the Hub first"
    require(private is None or now == wanted, text)
    split_card(old.get(CARD, b""), f"{CARD} of {repo_id}")
    return api, info.sha, old


def push_to_hub(
    repo_id: str,
    model: Model,
    env: Env,
    video_fps: float = 1,
    local_repo_path: AnyPath = "hub",
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """The URL of the model's page, after packaging it and uploading the five FILES.

    A push of what is there already makes no commit, and the card's owner's words stay.
    Errors are those of `package_model`; ValueError also for a repo of another name or
    visibility, PermissionError for a token or repo that will not do, FileNotFoundError
    for what the Hub does not have, ConnectionError for all that keeps it from answering.
    """
    message = "Upload a Q-learning agent" if commit_message is None else commit_message
    is_text = isinstance(message, str) and message.strip()
    require(is_text, f"a commit message is a text, not {message!r}")
    checked = packable(model, env, video_fps, repo_id)
    folder = Path(local_repo_path).expanduser()
    check_folder(folder)
    api, parent, old = look_at(repo_id, private, token)
    build_package(checked, env, folder, video_fps, repo_id, old or {})
    files = [hf.CommitOperationAdd(file, folder / file) for file in FILES]
    advice = f"; the package is ready in {folder}"
    with in_plain_words(repo_id, do="write", advice=advice):
        if old is None:
            api.create_repo(repo_id, private=private)
        api.create_commit(repo_id, files, commit_message=message, parent_commit=parent)
    return f"{api.endpoint}/{repo_id}"


def load_from_hub(
    repo_id: str, filename: str = PICKLE, *, token: str | None = None
) -> Model:
    """The model dictionary from a repo on the Hub: read, and never run.

    Without a connection it is the copy of an earlier download, if there is one.
    ValueError: no model. PermissionError, FileNotFoundError, ConnectionError: the Hub.
    OSError: the disk.
    """
    check_repo_id(repo_id)
    api, what, name = client(token), f"file {filename}", f"{repo_id}: {filename}"
    size = -1  # there is no answer
    with in_plain_words(repo_id, what):
        try:
            url = hf.hf_hub_url(repo_id, filename)
            size = api.get_hf_file_metadata(url=url, timeout=PATIENCE).size or 0
        except Exception as error:
            if status_of(error) is not None:
                raise
    text = f"{name} is not a Q-learning model: more bytes than any Q-table needs"
    require(size <= MAX_BYTES, text)
    with in_plain_words(repo_id, what):
        path = api.hf_hub_download(repo_id, filename, local_files_only=size < 0)
    return load_model(path, name=name)


# ------------------ The command line --------------------------------------------------
MAX_STEPS, MAX_OUTCOMES = 200_000, 10_000_000  # of an evaluation; to look at in a proof


def show_model(model: Model) -> None:
    """Print all about a stranger's model, in some ten seconds whatever it claims."""
    course = {**qlearning.RECIPES["frozenlake"]}
    del course["env_kwargs"]
    needed = sorted({"max_steps", "n_eval_episodes", "gamma"} - model.keys())
    notes = [f"{name} is not in the model: taken for {course[name]}" for name in needed]
    model = course | model
    is_unknown = is_ice_unknown(model)
    worlds = [make_env_from_model(model | {"slippery": False} if is_unknown else model)]
    if is_unknown:
        ice = env_arguments(worlds[0]) | {"is_slippery": True}
        worlds.append(make_env_from_model(model | {"env_kwargs": ice}))

    allowed = qlearning.step_limit(worlds[0], model["max_steps"])
    steps = min(allowed, 10_000)
    if steps < allowed:
        notes.append(f"{allowed} steps take too long: an episode ends after {steps}")
    claimed, seeds = model["n_eval_episodes"], model["eval_seed"]
    seeded = min(claimed, len(seeds) or claimed)
    if seeded < claimed:
        text = f"{claimed} episodes, but only {seeded} seeds"
        notes.append(f"{text}: scored in the first {seeded}")
    episodes = min(seeded, MAX_STEPS // steps)
    if episodes < seeded:
        notes.append(f"{seeded} episodes are too many: scored in the first {episodes}")
    rules = [getattr(env.unwrapped, "P", {}) for env in worlds]
    outcomes = sum(len(P[s][a]) for P in rules for s in P for a in P[s])
    sweeps = 30 / (1.001 - model["gamma"]) + 3 * steps
    proof = outcomes * sweeps <= MAX_OUTCOMES
    if not proof:
        notes.append("the proof is left out, as it would take too long")
    for text in notes:
        note(text)
    for env, word in zip(worlds, ("not ", "")):
        if is_unknown:
            print(f"\n====== If the lake is {word}slippery ======\n")
        shown = {"max_steps": steps, "n_eval_episodes": episodes}
        shown = model | shown | {"env_kwargs": env_arguments(env)}
        qlearning.show_world(env, shown)
        qlearning.show_agent(env, shown, proof=proof)


def load_anywhere(source: str) -> Model:
    """The model in a file, in a folder, or in a repo on the Hub."""
    path = Path(source).expanduser()
    if path.exists():
        return load_model(path / PICKLE if path.is_dir() else path)
    is_repo = source.count("/") == 1
    require(is_repo, f"{source!r} is no file, no folder and no NAME/REPO on the Hub")
    return load_from_hub(source)


def train_and(args: argparse.Namespace, recipe: Model) -> None:
    """Train a recipe, then record, package or push it; first comes what can be wrong."""
    env = make_env(recipe["env_id"], render_mode="rgb_array", **recipe["env_kwargs"])
    records, place = args.command == "record", Path(args.place).expanduser()
    check_film(place if records else Path(FILM), args.fps, env)
    if records:
        check_place(place.parent)
    else:
        text = "a package shows the first episode: --show-episode is of record"
        require(args.show_episode == 1, text)
        check_folder(place)
    if args.command == "push":
        look_at(args.repo_id, args.private, None)
    model = {**recipe, "qtable": qlearning.learn(env, recipe)}
    done = f"The {'video' if records else 'package'} is in {place}"
    if records:
        score = qlearning.evaluate_model(env, model)
        film_episode(model, env, place, args.fps, args.show_episode)
    elif args.command == "package":
        package_model(model, env, place, args.fps)
    else:
        url = push_to_hub(
            args.repo_id, model, env, args.fps, place, private=args.private
        )
        done = f"Your model is on the Hub: {url}"
    if not records:
        results = json.loads((place / RESULTS).read_bytes())
        score = results["mean_reward"], results["std_reward"]
    print(f"Mean_reward={SCORE.format(*score)}\n{done}")


def command_line(argv: Sequence[str]) -> None:
    """Do what one command line says."""
    about = "Film, package, push and load Q-learning agents."
    parser = qlearning.Parser(prog="hub_utils.py", description=about)
    names = "record|package|push|load"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    for name, text in {
        "record": "train a recipe and film an episode",
        "package": "train a recipe and build all that a push would upload",
        "push": "train a recipe and upload it to the Hugging Face Hub",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        add = command.add_argument
        qlearning.add_recipe(command, argv)
        add("--fps", type=float, default=1, help="frames a second (1)")
        if name == "record":
            add("place", metavar="file", help="the video to write, .mp4 or .gif")
            continue
        where = "where to build it (hub)"
        add("--folder", dest="place", default="hub", metavar="FOLDER", help=where)
        if name == "push":
            add("--repo-id", required=True, metavar="NAME/REPO")
            # None where it is not given: a new repo is as the account has it by default.
            add("--private", action="store_const", const=True, help="for you alone")
    text = "load a model from a repo, a folder or a file, evaluate and show it"
    command = commands.add_parser("load", help=text, description=text)
    command.add_argument("source", metavar="NAME/REPO", help="or a folder, or a file")
    args = parser.parse_args(argv)
    if args.command == "load":
        show_model(load_anywhere(args.source))
    else:
        train_and(args, qlearning.chosen_recipe(parser, args))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    given = sys.argv[1:] if argv is None else argv
    return qlearning.exit_code("hub_utils.py", lambda: command_line(given))


if __name__ == "__main__":
    sys.exit(main())
