"""What a run writes into its log, for TensorBoard, Weights & Biases or Trackio too, through
accelerate's trackers.
"""

from __future__ import annotations

import importlib.util
import math
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.jsonfile import to_json, write_json
from zeroconv.pictures import open_picture
from zeroconv.training.folder import read_object
from zeroconv.training.recipes.recipe import AnyRecipe
from zeroconv.training.reporting.reporter import Reporter

if TYPE_CHECKING:
    from accelerate import Accelerator

# the log's names of what a validation measures → a tracker's
_VALIDATION = {
    "true": "validation/loss_true_hint",
    "shuffled": "validation/loss_anothers_hint",
    "none": "validation/loss_no_control",
    "loss": "validation/loss",  # of a LoRA, which has no hints
    "gain": "validation/hint_gain",
    "gain_error": "validation/hint_gain_error",
}
# seconds that a run waits at its end for Weights & Biases' server; what is left `wandb sync`
# sends
_PATIENCE = 60.0


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises UserError for a tracker whose package is not installed; accelerate would leave it out
    in silence.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"training.report_to names {name}, which is not installed: pip install "
                f"'zeroconv[{name}]', or take it out of the recipe."
            )


class Tracking(Reporter):
    """Passes figures and sheets of pictures on to the trackers of `training.report_to`; silent
    where there are none.

    TensorBoard writes to out/tensorboard/PROJECT, Weights & Biases to out/wandb and its server,
    Trackio to its own folder. A run that goes on from step k goes on there as well, under the same
    name. What was told of later steps is taken back (TensorBoard), or told again as far as it is
    not there: a kill takes some of the last lines with it, also of steps before the checkpoint, so
    these are told again from the run's log. Weights & Biases without its server begins a new file,
    which is told everything.

    A tracker that fails in the middle of a run is left out from there on: it must not end what it
    only watches.
    """

    def __init__(self, recipe: AnyRecipe, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.trackers: list[Any] = []  # of the main process; the others have none
        self.known: dict[str, int] = {}  # by name, the first step that a tracker has not heard of

    def start(self, step: int, lines: Sequence[dict[str, Any]] = ()) -> None:
        """`step`: where the run begins or goes on; `lines`: of its log up to there.

        Raises UserError where a tracker cannot start: no key, no server.
        """
        settings = self.recipe.training
        if not settings.report_to:
            return

        options = self._options(step)
        try:
            with _hub_left_alone():
                self.accelerator.init_trackers(
                    settings.project,
                    init_kwargs={name: options[name] for name in settings.report_to},
                )
        except Exception as error:  # whatever their packages raise
            reason = " ".join(str(error).split())
            raise UserError(
                f"a tracker of training.report_to ({', '.join(settings.report_to)}) cannot be "
                f"started ({reason}); mend that, or take it out of the recipe; WANDB_MODE=offline "
                "needs neither key nor server."
            ) from error
        self.trackers = list(self.accelerator.trackers)
        self.known = {tracker.name: _known(tracker, step) for tracker in self.trackers}
        self._tell_again(step, lines)

    def _options(self, step: int) -> dict[str, dict[str, Any]]:
        """What each tracker needs to know of a run that begins or goes on at `step`."""
        out = Path(self.recipe.out)
        named = (
            {"name": out.name, "id": _run_id(out)}
            if self.accelerator.is_main_process
            else {"name": "", "id": ""}
        )
        return {
            "tensorboard": {"purge_step": step + 1 if step else None},
            "wandb": {
                **named,
                "resume": "allow",
                "dir": str(out),
                "settings": {"finish_timeout": _PATIENCE},
            },
            # Trackio knows a run by its name alone: runs/a/canny and runs/b/canny
            # must not become one
            "trackio": {"name": f"{named['name']}-{named['id'][:6]}", "resume": "allow"},
        }

    def _tell_again(self, step: int, lines: Sequence[dict[str, Any]]) -> None:
        """The recipe, and of the log what a tracker has not heard."""
        values = flatten(self.recipe.model_dump(mode="json"))
        # TensorBoard adds another sheet of settings each time, Trackio forgets those that
        # it is not told again
        self._tell(
            lambda t: (
                None if step and t.name == "tensorboard" else t.store_init_configuration(values)
            )
        )
        for line in lines:
            self.figures(
                line["step"], {name: value for name, value in line.items() if name != "step"}
            )
        self.known["tensorboard"] = 0

    def figures(self, step: int, values: dict[str, Any]) -> None:
        """A line of the log."""
        if numbers := scalars(values):
            self._tell(lambda tracker: tracker.log(numbers, step=step), step)

    def sheet(self, step: int, path: Path) -> None:
        """A sheet of pictures."""
        if not self.trackers:
            return
        kind = path.stem.partition("-")[0]
        name = kind if kind in ("evaluation", "validation") else "samples"
        picture = open_picture(path)
        self._tell(lambda tracker: _show(tracker, name, picture, step), step)

    def finish(self) -> None:
        """Wait until everything is written or sent; for a server that does not answer, no longer
        than a minute.
        """
        self._tell(lambda tracker: tracker.finish())

    def _tell(self, tell: Callable[[Any], None], step: int | None = None) -> None:
        for tracker in list(self.trackers):
            if step is not None and step < self.known[tracker.name]:
                continue
            try:
                tell(tracker)
            # a full disk of theirs, a server, a mistake in their package
            except Exception as error:
                self.trackers.remove(tracker)
                warnings.warn(
                    f"{tracker.name} no longer takes what the run says ({error}); the run goes on "
                    "without it, and log.jsonl holds everything.",
                    stacklevel=2,
                )


@contextmanager
def _hub_left_alone() -> Iterator[None]:
    """Trackio asks the hub who owns the token on this machine, and waits for the answer without
    end. A store on this machine needs no name; one on the hub does.
    """
    from huggingface_hub import constants

    if os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL"):
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _known(tracker: Any, step: int) -> int:
    """The first step that a tracker of a run that goes on from `step` has not heard of, or not
    every figure.
    """
    if tracker.name == "tensorboard":
        return step + 1  # accelerate writes every line through
    if tracker.name == "trackio":
        return max(0, getattr(tracker.tracker, "_next_step", 0) - 1)  # there is no public way
    first = getattr(tracker.tracker, "starting_step", 0)
    # WANDB_MODE=disabled answers anything with an object
    return first if isinstance(first, int) else 0


def _show(tracker: Any, name: str, picture: Image.Image, step: int) -> None:
    if tracker.name == "tensorboard":
        tracker.log_images({name: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":  # accelerate passes it no pictures
        import trackio

        tracker.log({name: trackio.Image(picture)}, step=step)
    else:
        tracker.log_images({name: [picture]}, step=step)


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log, by a tracker's names; an event counts 1 where it
    happened.
    """
    checked, scored = values.get("validation") or {}, values.get("evaluation") or {}
    named = {_VALIDATION[name]: value for name, value in checked.items() if name in _VALIDATION}
    for metric, columns in scored.get("metrics", {}).items():
        named |= {
            f"evaluation/{metric}_{column}": interval["mean"]
            for column, interval in columns.items()
        }
    if "event" in values:
        named[f"events/{values['event'].replace(' ', '_')}"] = 1.0
    elif not named:
        named = {f"train/{name}": value for name, value in values.items()}
    numbers = {name: value for name, value in named.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings → "training.steps": 600; lists as text, what is not set left out."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = (
                value if isinstance(value, str | int | float | bool) else to_json(value)
            )
    return flat


def _run_id(out: Path) -> str:
    """A name for the run that a tracker's server knows it by; made once and kept in the run's
    folder.
    """
    path = out / "tracking.json"
    name = read_object(path).get("id")
    if isinstance(name, str) and name:
        return name
    name = uuid.uuid4().hex[:12]
    write_json(path, {"id": name})
    return name
