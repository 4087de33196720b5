"""Controls that an experiment trains: by one recipe, resumable, each under the name of all that
decides it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from benchmarks.quality.convergence import recipe_of
from experiments.common import RUNS
from experiments.memory import weights_mark
from tools.reports import read_json, write_json
from zeroconv.training import train
from zeroconv.training.assembling import assemble
from zeroconv.training.execution.choice import Launch
from zeroconv.training.folder import open_run
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.log import RunLog
from zeroconv.training.trainer import Trainer


def prepare(figure: str, name: str, seed: int, steps: int, **settings: Any) -> Recipe:
    """The recipe of a run in runs/paper/FIGURE/NAME-HASH: runs of other settings never meet in one
    folder.
    """
    recipe = recipe_of(
        RUNS / figure / name, seed, steps, **{"training__sample_count": 0, **settings}
    )
    identity_text = (
        f"{json.dumps(identity(recipe), sort_keys=True)} {steps} "
        f"{weights_mark('playroom', recipe.base)}"
    )
    mark = hashlib.sha256(identity_text.encode()).hexdigest()[:8]
    return recipe.model_copy(update={"out": RUNS / figure / f"{name}-{mark}"})


def identity(recipe: Recipe) -> dict[str, Any]:
    """The recipe's, without what has its default: a setting that is new to the package makes no run
    another one.
    """
    settings = recipe.model_dump(mode="json", exclude_defaults=True)
    return {
        part: {name: value for name, value in settings[part].items() if name in kept}
        if isinstance(kept, dict)
        else kept
        for part, kept in recipe.identity().items()
        if part in settings
    }


def trained(recipe: Recipe) -> Path:
    """The folder of the recipe's control, trained unless it is there already."""
    summary = read_summary(recipe.out)
    if summary.get("status") != "finished":
        train(recipe)
        summary = read_summary(recipe.out)
    if summary.get("status") != "finished":
        raise SystemExit(f"{recipe.out} was interrupted; the same command goes on")
    return Path(recipe.out) / "control"


def read_summary(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "summary.json"
    return read_json(path) if path.is_file() else {}


def stages(
    recipe: Recipe, marks: Iterable[int], print_line: Callable[[str], None] = print
) -> Iterator[tuple[int, Trainer]]:
    """Train up to each of `marks` in turn and yield the trainer there; goes on from the last mark
    that was saved.

    With a constant rate a run that pauses is the run that does not: batches and noise are functions
    of the step.
    """
    open_run(recipe)
    trainer = assemble(recipe, Launch(Accelerator(cpu=True)), print_line)
    trainer.resume()
    for mark in marks:
        if trainer.step > mark:
            continue
        trainer.settings = trainer.settings.model_copy(update={"steps": mark})
        if trainer.step < mark and trainer.run() == "interrupted":
            raise SystemExit(
                f"{recipe.out} was interrupted at step {trainer.step}; the same command goes on"
            )
        yield mark, trainer


def looks(
    recipe: Recipe,
    marks: list[int],
    look: Callable[[int, Trainer], dict[str, Any]],
    enough: Callable[[int], bool] = lambda mark: False,
) -> dict[int, dict[str, Any]]:
    """Train to every mark and `look` at the control there, with averaged weights; `enough` of a
    mark ends the training there.

    What a look tells is kept in the run's folder: what is past cannot be looked at any more.
    """
    path = Path(recipe.out) / "looks.json"
    known = read_json(path) if path.is_file() else {}
    last = known.pop("last", None)

    if last is None and not all(str(mark) in known for mark in marks):
        for mark, trainer in stages(recipe, marks):
            if str(mark) in known:
                continue
            with trainer.ema.swapped():
                trainer.control.eval()
                known[str(mark)] = look(mark, trainer)
                trainer.control.train()
            last = mark if enough(mark) else None
            write_json(path, known if last is None else {**known, "last": last}, indent=None)
            if last is not None:
                break

    return {mark: known[str(mark)] for mark in marks if last is None or mark <= last}


def gains(folder: Path) -> list[tuple[int, float, float]]:
    """(step, hint gain, its standard error) of a run's validations."""
    lines = [line for line in RunLog(Path(folder) / "log.jsonl").read() if "validation" in line]
    return [
        (line["step"], line["validation"]["gain"], line["validation"]["gain_error"])
        for line in lines
    ]
