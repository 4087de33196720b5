"""Sheets of pictures that a run draws of itself, on the way and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.baselines import Net
from zeroconv.training.checkpoint import random_state, set_random_state
from zeroconv.training.reporting.prompted import validation_sheet
from zeroconv.training.state import RunState


class Sheets(RunState):
    """What every trainer does around its sheets: of training.validation, else of held-out
    pictures.
    """

    backbone: Any

    def _samples(self) -> bool:
        """Whether this process makes pictures on the way."""
        return bool(self.prompts or self.settings.sample_count) and self.runs_validation

    def _sheet_path(self) -> Path:
        kind = "validation" if self.prompts else "step"
        return self.folder / "samples" / f"{kind}-{self.step:08d}.png"

    def _prompted(self, path: Path | None, control: Net | None) -> None:
        """The sheet of training.validation. Random numbers of training are not used up."""
        state = random_state()
        validation_sheet(path, self.backbone, control, self.prompts, self.settings)
        set_random_state(state)

    def _tell_sheet(self, path: Path) -> None:
        self.show_line(f"step {self.step}/{self.settings.steps}  pictures: {path}")
        if self.prompts:
            prompts = [one.entry.prompt for one in self.prompts]
            self.log.write(self.step, sheet=path.name, prompts=prompts)
        self._show(path)

    def _show(self, sheet: Path) -> None:
        for reporter in self.reporters:
            reporter.sheet(self.step, sheet)
