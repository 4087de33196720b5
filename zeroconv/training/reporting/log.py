"""What a run writes down: one JSON object a line, and running means."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from zeroconv.errors import UserError
from zeroconv.files import atomic_write, cannot_write, is_disk_full
from zeroconv.jsonfile import parse_json, to_json

_BEGINS = b'{"step": '  # of a line that a crash cut short
Number = float | None  # None: it was no number


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Interval(_Part):
    """A figure with its 95% interval."""

    mean: Number
    low: Number = None
    high: Number = None


class Round(_Part):
    """Pictures that were read back, see `zeroconv.training.measuring.rounds.figures`."""

    n: int
    metrics: dict[str, dict[str, Interval]] = Field(min_length=1)


class Line(_Part):
    """What is known of a line; a line that is not so was not written by a run."""

    step: int = Field(ge=0, le=10**12)
    event: str | None = None
    loss: float | str | None = None  # text in events
    lr: Number = None
    converged: dict[str, Number] | None = None
    validation: dict[str, Number] | None = None
    evaluation: Round | None = None


class Listener(Protocol):
    def figures(self, step: int, values: dict[str, Any]) -> None: ...


class RunLog:
    """`log.jsonl`. A run that goes on from step k first drops what was written after k, so every
    step stands once.
    """

    def __init__(self, path: Path, active: bool = True, listeners: Sequence[Listener] = ()) -> None:
        """active: whether this process writes it. listeners: hear every line too."""
        self.path, self.active, self.listeners = path, active, list(listeners)

    def write(self, step: int, **values: Any) -> None:
        """Append a line; what is no finite number becomes null. Raises UserError where the file
        cannot be written."""
        if not self.active:
            return
        for listener in self.listeners:
            listener.figures(step, values)
        text = to_json({"step": step, **values}) + "\n"

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise cannot_write(self.path, error) from error

    def read(self) -> list[dict[str, Any]]:
        """Every line that a run has written; others are passed over."""
        return self._sorted()[0]

    def count_bad(self) -> int:
        """How many lines `read` passes over, a last one that a crash cut short left out."""
        return len(self._sorted()[1])

    def cut(self, step: int) -> None:
        """Keep the lines up to `step`; nothing at all for step 0.

        Lines that cannot be read are put into `log.unread` beside the log, with a note.
        """
        if not self.active or not self.path.is_file():
            return
        lines, bad = self._sorted()
        if bad:
            aside = self.path.with_suffix(".unread")
            with aside.open("ab") as file:
                file.writelines(line + b"\n" for line in bad)
            warnings.warn(
                f"{len(bad)} lines of {self.path} cannot be read as a run's; they are kept in "
                f"{aside}, and the run goes on without them.",
                stacklevel=2,
            )

        kept = [line for line in lines if line["step"] <= step] if step else []
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(to_json(line) + "\n" for line in kept), encoding="utf-8")

    def _sorted(self) -> tuple[list[dict[str, Any]], list[bytes]]:
        """What the lines say, and those that are no line of a run."""
        try:
            content = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{self.path} cannot be read ({reason}); mend that.") from error
        *ended, last = content.split(b"\n")
        lines, bad = [], []
        for text in (*ended, last):
            if not text.strip():
                continue
            try:
                value = parse_json(text)
                Line.model_validate(value)
                lines.append(value)
            except ValueError:  # pydantic's too
                if text is not last or not _BEGINS.startswith(text[: len(_BEGINS)]):
                    bad.append(text)
        return lines, bad


class Meter:
    """Means since it was last asked. The sum of the losses is part of a run's state, the clock is
    not.
    """

    def __init__(self, samples: int) -> None:
        """`samples`: of one batch, in all processes; a step may take several batches, and later
        more than at first.
        """
        self.samples = samples
        self.losses, self.count = 0.0, 0
        self.start()

    def start(self) -> None:
        self.began, self.batches, self.waited = time.monotonic(), 0, 0.0

    def add(self, loss: float, waited: float, batches: int) -> None:
        """A step. A loss that is no number counts in no mean: the step changed nothing."""
        if math.isfinite(loss):
            self.losses, self.count = self.losses + loss, self.count + 1
        self.batches, self.waited = self.batches + batches, self.waited + waited

    def figures(self) -> dict[str, float]:
        """Mean loss (NaN where no step had one), samples a second, and the share of the time that
        was spent waiting for data."""
        seconds = max(1e-9, time.monotonic() - self.began)
        figures = {
            "loss": self.losses / self.count if self.count else math.nan,
            "samples_per_second": round(self.batches * self.samples / seconds, 2),
            "wait": round(self.waited / seconds, 4),
        }
        self.losses, self.count = 0.0, 0
        self.start()
        return figures
