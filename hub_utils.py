"""Film an agent, package it, push it to the Hugging Face Hub, load anybody's model safely.

    python hub_utils.py record frozenlake replay.gif          an episode as a video
    python hub_utils.py package taxi --folder my-taxi         all that a push would upload
    python hub_utils.py push taxi --repo-id NAME/q-taxi       upload it (after `hf auth login`)
    python hub_utils.py load NAME/REPO                        download, evaluate, show

Vocabulary
    model      the dictionary of the course: hyperparameters, env_id and the `qtable`
    repo_id    NAME/REPO on the Hub: whose it is, and what it is called
    card       the README.md of a repo: for people below, for the Hub's search on top
"""

import argparse
import contextlib
import json
import math
import os
import pickle
import pickletools
import platform
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import huggingface_hub
import imageio.v2 as imageio
from huggingface_hub import (
    CommitOperationAdd,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

import qlearning
from qlearning import (
    LIMITS,
    RECIPES,
    Env,
    Row,
    check_numbers,
    check_table,
    make_env,
    rollout,
)

Model = dict[str, Any]


# ------------------ Film an episode ---------------------------------------------------
def record_video(
    env: Env,
    Qtable: Sequence[Row],
    out_directory: str | os.PathLike[str],
    fps: float = 1,
    *,
    max_steps: int = 99,
    seed: int | None = None,
) -> Path:
    """The path of a new .mp4 or .gif: one greedy episode, a frame before it and per step.

    `out_directory` is the course's name for the path of the file. The same `seed` gives
    the same episode. Errors: ValueError for an ending or an environment that cannot be
    filmed, RuntimeError where the renderer is not installed.
    """
    path = Path(out_directory)
    check_numbers({"max_steps": max_steps, "seed": seed})
    check_table(env, Qtable)
    options = video_options(path, fps, env.render_mode)
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # SDL would swallow SIGTERM
    has_screen = os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}
    if sys.platform == "linux" and not has_screen:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or SDL asks for a screen
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # and for a sound card
    with arriving_whole(path) as unfinished:
        film: Any
        with imageio.get_writer(unfinished, **options) as film:
            for _ in rollout(env, Qtable, max_steps, seed):
                film.append_data(rendered(env))
    return path


def video_options(path: Path, fps: float, render_mode: str | None) -> dict[str, Any]:
    """What imageio needs to know for this kind of file; ValueError if it cannot be."""
    if render_mode != "rgb_array":
        raise ValueError('to film, make the game with render_mode="rgb_array"')
    if not 0.01 <= fps <= 100:
        raise ValueError(f"fps must be from 0.01 to 100, not {fps}")
    if path.suffix.lower() == ".gif":
        return {"format": "GIF", "duration": 1000 / fps, "loop": 0}
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"a video ends in .mp4 or .gif, and {path.name!r} does not")
    return {  # H.264 in yuv420p is what every browser plays
        "format": "FFMPEG",
        "fps": fps,
        "codec": "libx264",
        "pixelformat": "yuv420p",
        "macro_block_size": 1,  # or imageio would change the size
        "ffmpeg_log_level": "error",
        "output_params": ["-movflags", "+faststart"],
    }


def rendered(env: Env) -> Any:
    """A picture of the environment: height x width x 3, in even sizes as yuv420p asks."""
    try:
        frame = env.render()
    except gym.error.DependencyNotInstalled as error:
        missing = "the renderer is missing: pip install 'gymnasium[toy-text]'"
        raise RuntimeError(missing) from error
    height, width = frame.shape[:2]
    return frame[: height // 2 * 2, : width // 2 * 2]


@contextlib.contextmanager
def arriving_whole(path: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end moves to `path` in one step, or never."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder, path.name)
        unfinished.touch()  # a name that cannot be is found out here
        yield unfinished
        os.replace(unfinished, path)


# ------------------ Read a pickle without running it ----------------------------------
# A pickle is a program for a small machine with a stack of values and a memo of values to
# use again. Its instructions push numbers and texts and gather them into lists; they may
# also import any function and call it. `pickle.load` obeys, so a stranger's model could
# delete your files. Here is that machine without its hands: an import leaves only a name
# on the stack, a call only a note of who would be called with what. The nine names that
# NumPy's arrays are made of are then read for what they mean; any other is refused.
MAX_BYTES, MAX_INSTRUCTIONS, MAX_VALUES = 10_000_000, 550_000, 400_000
MAX_CALLS, MAX_MARKS, MAX_KEY = 10_000, 50, 100
NUMPY_NAMES = {"numpy.dtype", "numpy.ndarray", "_codecs.encode"} | {
    f"numpy.{core}.{name}"  # core: NumPy 1; _core: NumPy 2
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
DTYPES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i"}
DTYPES |= {"i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}  # NumPy's: struct's
BYTE_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
LITERALS = {  # the instructions that push the number, text or bytes which they carry
    code.name
    for code in pickletools.opcodes
    if code.arg and code.stack_after and not code.stack_before
    if code.stack_after[0] not in (pickletools.anyobject, pickletools.pybytes_or_str)
}
TAKES = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # so many,
TAKES |= {"STACK_GLOBAL": 2, "REDUCE": 2, "BUILD": 1}
MAKERS = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
TAKES_TO_MARK = {"APPENDS", "SETITEMS", "TUPLE", "LIST", "DICT"}  # or all above a mark


class Name(str):
    """What the pickle would import."""

    __slots__ = ()


class Call:
    """What the pickle would make: a name to call, its arguments, what BUILD gives it."""

    def __init__(self, name: Name, arguments: Any) -> None:
        if type(name) is not Name:
            raise ValueError("a call of something without a name")
        self.name, self.arguments = name, arguments
        self.state: Any = ()


def read_pickle(data: bytes) -> Any:
    """What a pickle holds, in plain Python; ValueError for all that no model needs."""
    if len(data) > MAX_BYTES:
        raise ValueError("more bytes than any Q-table needs")
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("a Git LFS pointer, not the file itself")
    try:
        return plain_values(run_without_hands(data))
    except (struct.error, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"a damaged pickle ({type(error).__name__})") from None


def run_without_hands(data: bytes) -> Any:
    """The value that the program leaves on its stack, of plain values and Calls."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lies below each mark
    memo: dict[int, Any] = {}
    calls = 0
    program: Iterator[tuple[Any, Any, Any]] = pickletools.genops(data)
    for _ in range(MAX_INSTRUCTIONS):
        try:
            instruction, argument, position = next(program)
        except (ValueError, Warning):
            raise ValueError("not a pickle, or one that is cut off") from None
        name, items = instruction.name, []
        if name in TAKES:
            items = stack[-TAKES[name] :]
            del stack[-TAKES[name] :]
        elif name in TAKES_TO_MARK:
            stack, items = below.pop(), stack

        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name.startswith("TUPLE"):
            stack.append(tuple(items))
        elif name == "LIST":
            stack.append(items)
        elif name == "DICT":
            stack.append(dictionary(items))
        elif name.startswith("APPEND"):
            stack[-1].extend(items)
        elif name.startswith("SETITEM"):
            stack[-1].update(dictionary(items))
        elif name == "MARK" and len(below) < MAX_MARKS:
            below.append(stack)
            stack = []
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in MAKERS and calls < MAX_CALLS:
            calls += 1
            if name == "REDUCE":
                stack.append(Call(*items))
            elif name == "BUILD":
                stack[-1].state = items[0]
            else:
                stack.append(known_name(*(items or argument.split(" ", 1))))
        elif name == "STOP" and position + 1 == len(data):
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"a pickle with a {name} that no model needs there")
    raise ValueError("more instructions than any Q-table needs")


def dictionary(items: Sequence[Any]) -> dict[str, Any]:
    """A dictionary of keys and values in turn. Short texts only: others can take ages."""
    if not all(type(key) is str and len(key) <= MAX_KEY for key in items[::2]):
        raise ValueError("a dictionary with a key that is not a short text")
    return dict(zip(items[::2], items[1::2]))


def known_name(module: str, name: str) -> Name:
    """The name of a part of NumPy's arrays; any other import is refused."""
    whole = module[:80] + "." + name[:80]
    if whole not in NUMPY_NAMES:
        raise ValueError(f"it would import {ascii(whole)[1:-1]}")
    return Name(whole)


def plain_values(value: Any) -> Any:
    """A copy in plain Python, small enough for a model; ValueError for anything else."""
    left = MAX_VALUES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 4:  # also what ends a list that holds itself
            raise ValueError("more values, or deeper nested, than a model needs")
        if isinstance(value, Call):
            left -= 50  # an array is more work than a number
            value = array_values(value)
        elif hasattr(value, "tolist"):  # NumPy's, when a model is on its way out
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            return [plain(item, depth + 1) for item in value]
        if isinstance(value, dict):
            dictionary([part for item in value.items() for part in item])  # its keys
            return {key: plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number that is not finite")
        small_int = type(value) is int and value.bit_length() <= 64
        small_text = type(value) is str and len(value) <= 10_000
        if value is None or small_int or small_text or isinstance(value, (bool, float)):
            return value
        raise ValueError(f"a {type(value).__name__} that no model needs")

    return plain(value, 0)


def array_values(call: Call) -> Any:
    """The numbers of a NumPy array (in rows) or of a NumPy number, read with `struct`."""
    shape: Any
    match call.name.rpartition(".")[2], call.arguments, call.state:
        case "_reconstruct", _, (_, shape, dtype, columns_first, data):
            pass
        case "_frombuffer", (data, dtype, shape, order), _:
            columns_first = order == "F"
        case "scalar", (dtype, data), _:
            shape, columns_first = (), False
        case _:
            raise ValueError("a part of an array where a number or a table should be")
    if isinstance(data, Call):  # protocols 0 to 2 say encode(text, "latin1") for bytes
        data = data.arguments[0].encode("latin1")
    sizes_are_numbers = type(shape) is tuple and {type(size) for size in shape} <= {int}
    if not sizes_are_numbers or len(shape) > 2 or min(shape, default=0) < 0:
        raise ValueError("an array of an unknown shape")
    if max(shape, default=0) > MAX_VALUES or (size := math.prod(shape)) > MAX_VALUES:
        raise ValueError("an array that is larger than any Q-table")
    code, byte_order = dtype.arguments[0], dtype.state[1]
    if {type(code), type(byte_order)} != {str}:
        raise ValueError("an array of unknown numbers")
    layout = BYTE_ORDERS[byte_order] + str(size) + DTYPES[code]
    numbers = struct.unpack(layout, data)
    if len(shape) < 2:
        return list(numbers) if shape else numbers[0]
    rows, columns = shape
    if columns_first:
        return [numbers[row::rows] for row in range(rows)]
    return [numbers[row * columns : (row + 1) * columns] for row in range(rows)]


# ------------------ Save and load -----------------------------------------------------
def checked_model(model: Any) -> Model:
    """The model, made of plain values, with a table of floats; ValueError if it is none."""
    if type(model) is not dict or type(model.get("env_id")) is not str:
        raise ValueError("not a model: a dictionary with env_id and qtable is needed")
    if type(model.get("eval_seed", [])) is not list:
        raise ValueError("its eval_seed is not a list")
    table = model.get("qtable")
    if type(table) is not list or {type(row) for row in table} != {list}:
        raise ValueError("its qtable is not a list of rows")
    if len({len(row) for row in table}) > 1 or not table[0]:
        raise ValueError("the rows of its qtable are not of one length")
    if not {type(cell) for row in table for cell in row} <= {int, float}:
        raise ValueError("its qtable has a cell that is not a number")
    return model | {"qtable": [[float(cell) for cell in row] for row in table]}


def short(error: Exception) -> str:
    """What an error says, fit for a terminal whatever a stranger's file put into it."""
    return "".join(c if c.isprintable() else "?" for c in str(error)[:300])


def save_model(model: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """The path of the new file: a pickle of plain lists and numbers that imports nothing."""
    plain = checked_model(plain_values(dict(model)))
    with arriving_whole(Path(path)) as unfinished:
        unfinished.write_bytes(pickle.dumps(plain, protocol=4))
    return Path(path)


def load_model(path: str | os.PathLike[str]) -> Model:
    """The model in a file, by whomever: read, and never run. ValueError says why not."""
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise ValueError("more bytes than any Q-table needs")
        return checked_model(read_pickle(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is not a Q-learning model: {short(error)}") from None


GAME_ARGUMENTS = {"map_name", "desc", "is_slippery", "success_rate", "is_rainy"}
GAME_ARGUMENTS |= {"fickle_passenger", "max_episode_steps"}
UNMAKEABLE: tuple[type[Exception], ...]  # Gymnasium's answers to bad arguments
UNMAKEABLE = (gym.error.Error, ImportError, LookupError, TypeError, ValueError)
UNMAKEABLE += (AssertionError,)


def game_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """What `make_env` needs besides the id: our env_kwargs, or the course's two keys."""
    if "env_kwargs" in model:
        if not isinstance(model["env_kwargs"], dict):
            raise ValueError("the env_kwargs of the model are no dictionary")
        return dict(model["env_kwargs"])
    course = {"map_name": model.get("map_name"), "is_slippery": model.get("slippery")}
    return {name: value for name, value in course.items() if value is not None}


def make_env_from_model(
    model: Mapping[str, Any], render_mode: str | None = None
) -> Env:
    """The environment that the model was trained in; ValueError if its table cannot fit.

    Only games that this Gymnasium knows, with harmless arguments: an id from a stranger
    like "module:Game-v0" would import that module.
    """
    env_id, arguments = model["env_id"], game_arguments(model)
    same_games = [ids for ids in qlearning.SAME_GAMES if env_id in ids]
    if env_id not in gym.registry and not same_games:
        raise ValueError(f"this Gymnasium has no game {env_id[:80]!r}")
    if unknown := arguments.keys() - GAME_ARGUMENTS:
        raise ValueError(f"{env_id} cannot be made with {str(sorted(unknown))[:200]}")
    try:
        letters = "".join(arguments.get("desc") or "")
        table_cells = len(model["qtable"]) * len(model["qtable"][0])
        if letters and not {"S"} <= set(letters) <= set("SFHG"):
            raise ValueError("a map is made of S, F, H and G, and has an S")
        if 4 * len(letters) > table_cells:
            raise ValueError("its map is too large for its table")
        env = make_env(env_id, render_mode=render_mode, **arguments)
    except UNMAKEABLE as error:
        raise ValueError(f"{env_id} cannot be made: {short(error)}") from error
    check_table(env, model["qtable"])
    return env


# ------------------ Package: all that a push uploads, without a network ---------------
FILES = ("q-learning.pkl", "params.json", "results.json", "README.md", "replay.mp4")
OWNER_MARK = b"<!-- What you write below this line stays with every new push. -->"
CARD = """
# Q-learning agent for {game}

This agent plays **{game}** by tabular Q-learning: it has a table with a value for each of
{actions} actions in each of {states} states, improved after every step of its training, and
takes the action of the highest value. The video shows one episode.

The game is made by `{call}`.

## Score

| | score |
|---|---|
| mean +/- standard deviation over {n_eval_episodes} episodes | {score} |
{best}
## Hyperparameters

| name | value |
|---|---|
{table}

## Use it

With `qlearning.py` and `hub_utils.py` beside your script:

```python
from hub_utils import {loader}, make_env_from_model
from qlearning import evaluate_model

model = {loader}("{source}")
env = make_env_from_model(model)
mean, std = evaluate_model(env, model)
print(f"{{mean:.2f}} +/- {{std:.2f}}")
```

{reproduce}
"""


def package_model(
    model: Mapping[str, Any],
    env: Env,
    folder: str | os.PathLike[str],
    video_fps: float = 1,
    *,
    repo_id: str | None = None,
) -> Path:
    """The folder, now with the FILES that a push uploads; needs no network.

    Other files in the folder stay, and so does the owner's part of a card in it.
    """
    return build_package(model, env, Path(folder), video_fps, repo_id, Path(folder))


def build_package(
    model: Mapping[str, Any],
    env: Env,
    folder: Path,
    video_fps: float,
    repo_id: str | None,
    earlier: Path,
) -> Path:
    """`package_model`, with the folder of an earlier package whose owner's part to keep."""
    plain = checked_model(plain_values(dict(model)))
    if missing := {"max_steps", "n_eval_episodes", "eval_seed"} - plain.keys():
        raise ValueError(f"the model lacks {', '.join(sorted(missing))}")
    check_numbers(plain)
    check_table(env, plain["qtable"])
    video_options(Path(FILES[-1]), video_fps, env.render_mode)
    if repo_id is not None:
        check_repo_id(repo_id)
    if "env_kwargs" not in plain and env.spec is not None:
        arguments = {k: v for k, v in env.spec.kwargs.items() if k != "render_mode"}
        plain["env_kwargs"] = plain_values(arguments)
    if "map_name" in game_arguments(plain):  # as the course's readers look for them
        plain["map_name"] = game_arguments(plain)["map_name"]
        if game_arguments(plain).get("is_slippery") is False:
            plain["slippery"] = False

    mean, std = qlearning.evaluate_model(env, plain)
    versions = {"python": platform.python_version(), "gymnasium": gym.__version__}
    results = {
        "env_id": plain["env_id"],
        "mean_reward": mean,
        "std_reward": std,
        "result": mean - std,
        "n_eval_episodes": plain["n_eval_episodes"],
        "eval_datetime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
    }
    with contextlib.suppress(OSError, ValueError, TypeError):
        old = json.loads((earlier / "results.json").read_bytes())
        if old | {"eval_datetime": ""} == results | {"eval_datetime": ""}:
            results = old  # nothing is new, so neither is the time
    hyperparameters = {name: plain[name] for name in plain if name != "qtable"}
    owner = b"\n\n"
    with contextlib.suppress(OSError):
        _, mark, text = (earlier / "README.md").read_bytes().partition(OWNER_MARK)
        owner = text if mark else owner

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        new = Path(name)
        save_model(plain, new / "q-learning.pkl")
        record_video(
            env,
            plain["qtable"],
            new / "replay.mp4",
            video_fps,
            max_steps=plain["max_steps"],
            seed=qlearning.shown_seed(plain),
        )
        write_json(new / "params.json", hyperparameters | {"versions": versions})
        write_json(new / "results.json", results)
        card = model_card(plain, env, mean, std, repo_id)
        (new / "README.md").write_bytes(card.encode() + b"\n\n" + OWNER_MARK + owner)
        for file in FILES:
            os.replace(new / file, folder / file)
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary as readable JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def model_card(
    model: Model, env: Env, mean: float, std: float, repo_id: str | None
) -> str:
    """The card: metadata by which the Hub and the course find the model, then the text."""
    arguments, score = game_arguments(model), f"{mean:.2f} +/- {std:.2f}"
    game = model["env_id"]
    if "map_name" in arguments:
        game += f"-{arguments['map_name']}"
    if arguments.get("is_slippery") is False:
        game += "-no_slippery"
    result = EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=game,
        dataset_name=game,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=score,
    )
    given = [f"{name}={value!r}" for name, value in arguments.items()]
    data = ModelCardData(
        tags=[game, "q-learning", "reinforcement-learning", "custom-implementation"],
        pipeline_tag="reinforcement-learning",
        model_name=repo_id.split("/")[1] if repo_id else f"q-{game}",
        eval_results=[result],
    )
    text = CARD.format(
        game=game,
        call=f"make_env({', '.join([repr(model['env_id']), *given])})",
        states=len(model["qtable"]),
        actions=len(model["qtable"][0]),
        n_eval_episodes=model["n_eval_episodes"],
        score=score,
        best=best_scores(model, env),
        table="\n".join(
            f"| {name} | {value} |" for name, value in shown_numbers(model)
        ),
        loader="load_from_hub" if repo_id else "load_model",
        source=repo_id or "q-learning.pkl",
        reproduce=how_to_reproduce(model),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def best_scores(model: Model, env: Env) -> str:
    """Lines of the card's table that say what is possible, where the rules tell it."""
    if not hasattr(env.unwrapped, "P"):
        return ""
    steps, n_eval_episodes = model["max_steps"], model["n_eval_episodes"]
    answer = qlearning.value_iteration(env, model["gamma"])
    mean, std = qlearning.evaluate_model(env, model | {"qtable": answer})
    own = qlearning.exact_score(env, steps, model["qtable"])
    best = qlearning.exact_score(env, steps)
    return (
        f"| the exact table (value iteration) in the same {n_eval_episodes} episodes "
        f"| {mean:.2f} +/- {std:.2f} |\n"
        f"| exact mean of this agent within {steps} steps, over all starts | {own:.4f} |\n"
        f"| exact mean of the best possible policy, likewise | {best:.4f} |\n"
    )


def shown_numbers(model: Model) -> Iterator[tuple[str, Any]]:
    """The hyperparameters as the card shows them."""
    for name, value in model.items():
        if name == "eval_seed":
            yield name, f"{len(value)} fixed seeds" if value else "none"
        elif name in LIMITS:
            yield name, value


def how_to_reproduce(model: Model) -> str:
    """The command that trains this very table again, or that there is none."""
    game = (model["env_id"], game_arguments(model))
    commands = []
    for name, recipe in RECIPES.items():
        changed = {
            number: model.get(number)
            for number in LIMITS
            if number != "n_eval_episodes" and model.get(number) != recipe[number]
        }
        if (
            game == (recipe["env_id"], recipe["env_kwargs"])
            and None not in changed.values()
        ):
            options = [f"{qlearning.option(k)} {value}" for k, value in changed.items()]
            commands.append(" ".join(["python hub_utils.py package", name, *options]))
    if not commands:
        return "It was trained without a seed or a recipe: no command makes it again."
    return f"The same table again, bit for bit:\n\n```sh\n{min(commands, key=len)}\n```"


# ------------------ Push and load: the Hub --------------------------------------------
# huggingface_hub speaks through requests, httpx or httpx2, by its version; its own error
# class tells whose errors to expect. RuntimeError is what some of its versions end in
# when they try again on a connection that they have closed.
NETWORK_ERRORS: tuple[Any, ...]
NETWORK_ERRORS = (HfHubHTTPError.__bases__[0], OSError, RuntimeError)


@contextlib.contextmanager
def in_plain_words(repo_id: str, file: str = "", advice: str = "") -> Iterator[None]:
    """Turn what can go wrong between here and the Hub into one sentence each."""
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"the Hub allows no name like {repo_id!r}: {error}") from None
    except NETWORK_ERRORS as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(error, RepositoryNotFoundError):
            text = (
                f"there is no model {repo_id} on the Hub, or your token cannot see it"
            )
            raise FileNotFoundError(text + advice) from None
        if status == 404:
            raise FileNotFoundError(f"{repo_id} has no file {file}{advice}") from None
        if status == 401:
            text = "the Hub does not know this token: run `hf auth login` again"
            raise PermissionError(text + advice) from None
        if status == 403:
            text = (
                f"your token may not write to {repo_id}: make one with the write role"
            )
            raise PermissionError(text + advice) from None
        text = f"the Hub answers {status}"
        if status is None:
            text = f"no connection to the Hub ({type(cause).__name__})"
        raise ConnectionError(f"{text}: try again later{advice}") from None


def check_repo_id(repo_id: str) -> None:
    """ValueError for a name that the Hub would not allow; asks nobody."""
    with in_plain_words(repo_id):
        huggingface_hub.hf_hub_url(repo_id, FILES[0])
    if repo_id.count("/") != 1:
        raise ValueError(f"a repo id is NAME/REPO, not {repo_id!r}")


def check_access(repo_id: str, token: str | None = None) -> HfApi:
    """A client that may write to the repo, as far as can be told before trying."""
    check_repo_id(repo_id)
    token = token or huggingface_hub.get_token()
    if not token:
        raise PermissionError("there is no token to push with: run `hf auth login`")
    api = HfApi(token=token)
    with in_plain_words(repo_id):
        user = api.whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError("your token can only read: make one with the write role")
    names = [user["name"]] + [group["name"] for group in user.get("orgs", [])]
    if repo_id.split("/")[0] not in names:
        yours = ", ".join(names)
        raise PermissionError(f"{repo_id} is not yours: you can push to {yours}")
    return api


def push_to_hub(
    repo_id: str,
    model: Mapping[str, Any],
    env: Env,
    video_fps: float = 1,
    local_repo_path: str | os.PathLike[str] = "hub",
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """The URL of the model's page, after packaging it and uploading the five FILES.

    First comes all that can fail here, so that nothing half done gets to the Hub. A push
    of what is there already makes no commit. Errors are ValueError or OSError, one
    sentence each; the package in `local_repo_path` outlasts them.
    """
    api, folder = check_access(repo_id, token), Path(local_repo_path)
    with tempfile.TemporaryDirectory() as earlier:
        for file in ("README.md", "results.json"):  # the owner's text, the last results
            with contextlib.suppress(FileNotFoundError), in_plain_words(repo_id, file):
                api.hf_hub_download(repo_id, file, local_dir=earlier)
        is_new = not (Path(earlier) / "README.md").exists()
        build_package(
            model, env, folder, video_fps, repo_id, folder if is_new else Path(earlier)
        )
    with in_plain_words(repo_id, advice=f"; the package is ready in {folder}"):
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        api.create_commit(
            repo_id,
            [CommitOperationAdd(file, folder / file) for file in FILES],
            commit_message=commit_message or "Upload a Q-learning agent",
        )
    print(f"Your model is on the Hub: {url}")
    return url


def load_from_hub(
    repo_id: str, filename: str = "q-learning.pkl", *, token: str | None = None
) -> Model:
    """The model dictionary from a repo on the Hub: read, and never run."""
    with in_plain_words(repo_id, filename):
        path = HfApi(token=token).hf_hub_download(repo_id, filename)
    return load_model(path)


# ------------------ The command line --------------------------------------------------
def train_agent(recipe: Mapping[str, Any]) -> tuple[Env, Model]:
    """A recipe's environment, ready to be filmed, and the model trained in it."""
    env = make_env(recipe["env_id"], render_mode="rgb_array", **recipe["env_kwargs"])
    table = qlearning.initialize_q_table(env.observation_space.n, env.action_space.n)
    return env, {**recipe, "qtable": qlearning.learn(env, table, recipe)}


def carry_out(args: argparse.Namespace, recipe: Mapping[str, Any]) -> None:
    """Do what one command line says; `load` is the only one without a recipe."""
    if args.command == "load":
        model = load_from_hub(args.repo_id)
        model = {**RECIPES["frozenlake"], **model, "env_kwargs": game_arguments(model)}
        check_numbers({name: model[name] for name in LIMITS if name != "seed"})
        qlearning.check_seeds(model["eval_seed"], model["n_eval_episodes"])
        cells = len(model["qtable"]) * len(model["qtable"][0])
        if model["max_steps"] * (model["n_eval_episodes"] + cells) > 1_000_000:
            raise ValueError("to evaluate and prove this model would take too long")
        env = make_env_from_model(model)
        qlearning.show_world(env, model)
        qlearning.show_agent(env, model)
        return
    # First what can be wrong, then the training, which takes its time.
    path = Path(args.file if args.command == "record" else FILES[-1])
    video_options(path, args.fps, "rgb_array")
    if args.command == "push":
        check_access(args.repo_id)
    env, model = train_agent(recipe)
    if args.command == "record":
        seed, steps = qlearning.shown_seed(model), model["max_steps"]
        path = record_video(
            env, model["qtable"], args.file, args.fps, max_steps=steps, seed=seed
        )
        print(f"The video is in {path}")
    elif args.command == "package":
        print(f"The package is in {package_model(model, env, args.folder, args.fps)}")
    else:
        private = args.private or None  # None: as the account has it by default
        push_to_hub(args.repo_id, model, env, args.fps, args.folder, private=private)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for a failure, 130 after Ctrl-C."""
    parser = qlearning.Parser(
        description="Film, package, push and load Q-learning agents."
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="record|package|push|load"
    )
    for name, text in {
        "record": "train a recipe and film an episode",
        "package": "train a recipe and build all that a push would upload",
        "push": "train a recipe and upload it to the Hugging Face Hub",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        qlearning.add_recipe(command)
        command.add_argument("--fps", type=float, default=1, help="frames a second (1)")
        if name == "record":
            command.add_argument("file", help="the video to write, .mp4 or .gif")
        else:
            command.add_argument(
                "--folder", default="hub", help="where to build it (hub)"
            )
        if name == "push":
            command.add_argument("--repo-id", required=True, metavar="NAME/REPO")
            command.add_argument("--private", action="store_true", help="for you alone")
    text = "download a model, evaluate it and show it"
    command = commands.add_parser("load", help=text, description=text)
    command.add_argument("repo_id", metavar="NAME/REPO")
    args = parser.parse_args(argv)
    recipe = {} if args.command == "load" else qlearning.chosen_recipe(parser, args)
    try:
        carry_out(args, recipe)
    except KeyboardInterrupt:
        print("\nStopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        print(f"{parser.prog}: {short(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
