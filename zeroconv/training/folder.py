"""The folder of a run: one process writes it, what it is to hold is tried first, and it belongs to
one recipe.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError
from zeroconv.files import DESKTOP, LOCK, check_output, is_temporary, lock_folder
from zeroconv.jsonfile import read_json, write_json
from zeroconv.training.checkpoint import checkpoints, step_of
from zeroconv.training.recipes.recipe import AnyRecipe
from zeroconv.training.recipes.settings import check_recipe

_FILES = "recipe.json log.jsonl broken.json summary.json tracking.json report.html".split()
_INTO = "checkpoints samples tensorboard".split()
_SHAPE = "kind options hint_encoder hint_widths hint_init connections".split()
_SHAPE += [
    "only_mid_control",
    "global_average_pooling",
]  # settings of `control` that control.init cannot change


@contextmanager
def run_folder(recipe: AnyRecipe, resume: bool = True, accelerator: Any = None) -> Iterator[None]:
    """Hold the folder of a run: inside `with`, no other run writes into it, however it was started.

    Of several processes the main one holds it; the others wait for its word and end with code 2
    where it may not. Raises UserError for whatever keeps the run from its folder, before any work.
    """
    main = accelerator is None or accelerator.is_main_process
    with ExitStack() as held:
        refused: UserError | None = None
        if main:
            try:
                check_folder(recipe, resume)
                held.enter_context(lock_folder(recipe.out, "training"))
                open_run(recipe, resume)
            except UserError as error:
                refused = error
        if accelerator is not None and accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            word = [refused is not None]
            broadcast_object_list(word)
            if word[0] and not main:
                raise SystemExit(2)  # the main process says why
        if refused is not None:
            raise refused
        yield


def check_folder(recipe: AnyRecipe, resume: bool = True) -> None:
    """Raise UserError where the folder is no run's, or what the run leaves there cannot be written.

    Nothing is changed.
    """
    out = Path(recipe.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"out is {out}, which is a file; name a folder for the run.")
    check_output(out, "into")
    if not out.is_dir():
        return

    ours = (LOCK, *DESKTOP)
    held = [name for name in os.listdir(out) if name not in ours and not is_temporary(name)]
    if held and "recipe.json" not in held and not checkpoints(out / "checkpoints"):
        raise UserError(f"{out} is not empty and holds no run; name another out folder.")
    for path in (*(out / name for name in _FILES), *(out / "samples").glob("*.png")):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to a file that is gone; remove it, or mend it.")
        check_output(path, "file")
        if path.is_fifo():  # which would wait for a reader
            raise UserError(f"{path} is no regular file; remove it, or name another out folder.")
    for name in _INTO:
        check_output(out / name, "into")
    for name in results_of(recipe):
        check_output(out / name, "folder")


def results_of(recipe: AnyRecipe) -> list[str]:
    """Folders that are written as a whole when a run ends."""
    if not hasattr(recipe, "control"):
        return ["lora"]
    names = ["control", "best"]
    return [*names, "base", "best-base"] if recipe.control.unlock_decoder else names


def open_run(recipe: AnyRecipe, resume: bool = True) -> None:
    """Note the recipe in its folder, or check that the folder holds a run of the same one.

    Raises UserError, with what can be done, where it holds another one.
    """
    check_folder(recipe, resume)
    out = Path(recipe.out)
    path, identity = out / "recipe.json", recipe.identity()
    saved = checkpoints(out / "checkpoints")
    if not saved:  # nothing to go on from: a first try that failed may be mended
        write_json(path, {"recipe": recipe.model_dump(mode="json")})
        return
    if not resume:
        raise UserError(f"{out} holds a run already; go on with it, or name another out folder.")
    if not path.exists():
        warnings.warn(f"{path} is gone; the recipe given is taken for the run's.", stacklevel=2)
        write_json(path, {"recipe": recipe.model_dump(mode="json")})

    before = _recipe_of(recipe, path)
    if before != identity:
        changed = "; ".join(_differences(before, identity)[:3])
        raise UserError(
            f"{out} holds the run of another recipe ({changed}); put it back to go on with that "
            f"run, or name another out folder{_from_there(recipe, before, step_of(saved[0]))}."
        )
    if step_of(saved[0]) > recipe.training.steps:
        done = step_of(saved[0])
        raise UserError(
            f"{out} holds a run of {done} steps already, and training.steps is "
            f"{recipe.training.steps}; training.steps={done} ends it where it stands, more goes on."
        )


def _recipe_of(recipe: AnyRecipe, path: Path) -> dict[str, Any]:
    """The identity of the recipe that a run's folder holds."""
    values: Any = None

    try:
        # read anew, so that settings which did not exist then have their defaults
        values = read_json(path)["recipe"]
        return check_recipe(type(recipe), values, str(path)).identity()
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError) and _other_kind(recipe, values):
            raise UserError(
                f"{path.parent} holds a run of another kind; name another out folder."
            ) from error
        reason = str(error).rstrip(".") if isinstance(error, UserError) else "it is damaged"
        raise UserError(
            f"{path} cannot be read ({reason}); if the recipe given is the run's own, remove that "
            "file and give the same command again, or name another out folder."
        ) from error


def _other_kind(recipe: AnyRecipe, values: Any) -> bool:
    return isinstance(values, dict) and ("lora" in values) != hasattr(recipe, "lora")


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    """What was changed between two values of JSON, a line each."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a == b else [f"{path} was {a}, is {b}"]
    names = sorted(set(a) | set(b))
    inner = (_differences(a.get(n), b.get(n), f"{path}.{n}" if path else n) for n in names)
    return [line for lines in inner for line in lines]


def _from_there(recipe: AnyRecipe, before: dict[str, Any], step: int) -> str:
    """How a new run may begin with what the old one has learned, where it may."""
    now = recipe.identity()
    if any(before[name] != now[name] for name in ("base", "base_files")):
        return ""
    if "lora" in now:
        word, result = "base", recipe.out / "lora"
    elif any(before["control"][name] != now["control"][name] for name in _SHAPE):
        return ""
    else:
        word, result = "control.init", recipe.out / "control"
    begun = f" with {word}={result}, which begins with what this run has learned"
    if result.is_dir():
        return begun
    end = f"its own recipe with training.steps={step} ends it"
    return f"{begun} (it is there once the run has ended: {end})"


def list_broken(out: Path, broken: dict[str, str], show_line: Callable[[str], None]) -> None:
    """Name the pictures that were set aside in out/broken.json, if there are any."""
    if broken:
        write_json(out / "broken.json", broken)
        name, reason = next(iter(broken.items()))
        first = f"{len(broken)} pictures were set aside, {name} the first ({reason})"
        show_line(f"{first}; all are in {out / 'broken.json'}")


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file of a run says; {} where it is not there, and, with a note, where it holds
    anything else.
    """
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        value = error
    if isinstance(value, dict):
        return value
    warnings.warn(f"{path} is damaged; what it said is left out.", stacklevel=2)
    return {}
