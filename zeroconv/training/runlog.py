"""What a run writes down: one JSON object a line, and running means."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroconv.files import atomic_write


class RunLog:
    """`log.jsonl`. A run that goes on from step k first drops what was written after k, so every step stands once."""

    def __init__(self, path: Path, active: bool = True) -> None:
        self.path, self.active = path, active
        self.tell: Callable[[int, dict[str, Any]], None] | None = None  # hears every line too

    def write(self, step: int, **values: Any) -> None:
        if not self.active:
            return
        if self.tell is not None:
            self.tell(step, values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; a line cut short by a crash is passed over."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def cut(self, step: int) -> None:
        """Keep the lines up to `step`; nothing at all for step 0."""
        if not self.active or not self.path.is_file():
            return
        kept = [line for line in self.read() if line["step"] <= step] if step else []
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


class Meter:
    """Means since it was last asked. The sum of the losses is part of a run's state, the clock is not."""

    def __init__(self, samples: int) -> None:
        """`samples`: of one batch, in all processes; a step may take several batches, and later more than at first."""
        self.samples = samples
        self.losses, self.count = 0.0, 0
        self.start()

    def start(self) -> None:
        self.began, self.batches, self.waited = time.monotonic(), 0, 0.0

    def add(self, loss: float, waited: float, batches: int) -> None:
        self.losses, self.count = self.losses + loss, self.count + 1
        self.batches, self.waited = self.batches + batches, self.waited + waited

    def figures(self) -> dict[str, float]:
        """Mean loss, samples a second, and the share of the time that was spent waiting for data."""
        seconds = max(1e-9, time.monotonic() - self.began)
        figures = {
            "loss": self.losses / max(1, self.count),
            "samples_per_second": round(self.batches * self.samples / seconds, 2),
            "wait": round(self.waited / seconds, 4),
        }
        self.losses, self.count = 0.0, 0
        self.start()
        return figures
