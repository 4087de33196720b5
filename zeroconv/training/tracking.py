"""What a run writes into its log, for TensorBoard, Weights & Biases or Trackio too, through accelerate's trackers."""

from __future__ import annotations

import importlib.util
import json
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

# the log's names of what a validation measures → a tracker's
_VALIDATION = {
    "true": "validation/loss_true_hint",
    "shuffled": "validation/loss_anothers_hint",
    "none": "validation/loss_no_control",
    "gain": "validation/hint_gain",
    "gain_error": "validation/hint_gain_error",
}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises UserError for a tracker whose package is not installed; accelerate would leave it out in silence."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"training.report_to names {name}, which is not installed: pip install 'zeroconv[{name}]', or take it "
                "out of the recipe."
            )


class Tracking:
    """Passes figures and sheets of pictures on to the trackers of `training.report_to`; silent where there are none.

    TensorBoard writes to out/tensorboard/PROJECT. A run that goes on from step k goes on there as well: what was told
    of later steps is taken back (TensorBoard) or kept under the same run's id (the others).
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator, step: int) -> None:
        """`step`: where the run begins or goes on."""
        self.accelerator = accelerator
        settings, out = recipe.training, Path(recipe.out)
        if not settings.report_to:
            return
        named = {"name": out.name, "id": _run_id(out)} if accelerator.is_main_process else {}
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"purge_step": step + 1 if step else None},
            "wandb": {**named, "resume": "allow", "dir": str(out)},
            "trackio": {"name": out.name, "resume": "allow"},
        }
        accelerator.init_trackers(
            settings.project,
            config=flatten(recipe.model_dump(mode="json")) if step == 0 else None,
            init_kwargs={name: options[name] for name in settings.report_to},
        )

    def figures(self, step: int, values: dict[str, Any]) -> None:
        """A line of the log."""
        if told := scalars(values):
            self.accelerator.log(told, step=step)

    def sheet(self, step: int, path: Path) -> None:
        """A sheet of pictures, where the tracker shows pictures."""
        name = "evaluation" if path.stem.startswith("evaluation") else "samples"
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                with Image.open(path) as opened:
                    pixels = np.asarray(opened.convert("RGB"))
                tracker.log_images({name: pixels[None]}, step=step, dataformats="NHWC")
            elif hasattr(tracker, "log_images"):
                with Image.open(path) as opened:
                    tracker.log_images({name: [opened.convert("RGB")]}, step=step)

    def finish(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log, by a tracker's names; an event counts 1 where it happened."""
    told = {_VALIDATION[name]: value for name, value in values.get("validation", {}).items() if name in _VALIDATION}
    for metric, columns in values.get("evaluation", {}).get("metrics", {}).items():
        told |= {f"evaluation/{metric}_{column}": interval["mean"] for column, interval in columns.items()}
    if "event" in values:
        told[f"events/{values['event'].replace(' ', '_')}"] = 1.0
    elif not told:
        told = {f"train/{name}": value for name, value in values.items()}
    numbers = {name: value for name, value in told.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def flatten(values: dict[str, Any], place: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings → "training.steps": 600; lists as text, what is not set left out."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{place}{name}.")
        elif value is not None:
            flat[place + name] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    return flat


def _run_id(out: Path) -> str:
    """A name for the run that a tracker's server knows it by; made once and kept in the run's folder."""
    path = out / "tracking.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError):
        name = uuid.uuid4().hex[:12]
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"id": name}) + "\n", encoding="utf-8")
        return name
