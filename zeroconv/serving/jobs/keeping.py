"""How long jobs are kept that have ended, and the sheets of measurements with them.

Of each kind the newest `most` stay, and none that is older than `days`. Pictures of the history
stay without their job.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHEET = re.compile(r"([0-9a-f]{16})-\d{1,6}-(hint|read|made|real)\.png")
_ENDED = "state NOT IN ('queued', 'running')"
Run = Callable[[str, Sequence[Any]], list[Any]]  # a statement and its values → rows


@dataclass(frozen=True)
class Bounds:
    """Of jobs that have ended."""

    most: int = 500
    days: float = 90.0


BOUNDS = Bounds()


def prune(run: Run, kind: str, bounds: Bounds) -> list[str]:
    """Drop rows of jobs beyond the bounds; returns the ids of measurements among them. kind: that
    of which one has ended.
    """
    older = f"DELETE FROM jobs WHERE created < ? AND {_ENDED} RETURNING id, kind"
    more = (
        "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE kind = ? AND "
        f"{_ENDED} ORDER BY created DESC LIMIT -1 OFFSET ?) RETURNING id, kind"
    )
    rows = run(older, (time.time() - bounds.days * 86400,)) + run(more, (kind, bounds.most))
    return [row["id"] for row in rows if row["kind"] == "evaluate"]


def measured_folder(data: Path) -> Path:
    return data / "measured"


def sheets(data: Path) -> Iterable[tuple[str, Path]]:
    """The job and the file of each sheet."""
    folder = measured_folder(data)
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := SHEET.fullmatch(path.name)) is not None:
            yield match[1], path


def drop_sheets(data: Path, dropped: Callable[[str], bool]) -> None:
    """Remove the sheets of those jobs."""
    for job, path in sheets(data):
        if dropped(job):
            path.unlink(missing_ok=True)


def drop_lost_sheets(data: Path, jobs: Collection[str]) -> None:
    """Those of no job, as a kill between both leaves them. jobs: all that there are."""
    drop_sheets(data, lambda job: job not in jobs)
