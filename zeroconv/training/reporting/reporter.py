"""What hears of a run while it goes on: trackers, and the run's page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zeroconv.training.folder import read_object
from zeroconv.training.reporting.report import write_report


class Reporter:
    """Hears of a run, in its main process. A subclass overrides what it wants to hear."""

    def start(self, step: int, lines: Sequence[dict[str, Any]]) -> None:
        """The run begins or goes on at `step`; `lines` of its log up to there."""

    def figures(self, step: int, values: dict[str, Any]) -> None:
        """A line of the log."""

    def sheet(self, step: int, path: Path) -> None:
        """A sheet of pictures has been written."""

    def saved(self, folder: Path) -> None:
        """A checkpoint has been written; `folder`: the run's."""

    def failed(self, folder: Path) -> None:
        """A user's mistake has ended the run."""

    def finish(self) -> None:
        """The run is over, however it ended."""


class Page(Reporter):
    """The report of a run that goes on, written anew with every checkpoint. What its summary says
    of an earlier stop is past, and is removed.
    """

    def saved(self, folder: Path) -> None:
        with suppress(OSError):
            summary = folder / "summary.json"
            if read_object(summary).get("status") == "interrupted":
                summary.unlink()
            write_report(folder)

    def failed(self, folder: Path) -> None:
        self.saved(folder)
