"""One job: what was asked for, how far it is, what came of it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zeroconv.serving.holding import Holding

OPEN = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "lost")


class Cancelled(Exception):
    """Raised inside of work that nobody wants any more."""


@dataclass(eq=False)
class Job:
    """work: what the worker is to do, of a type that its kind says. progress: in [0, 1]. step,
    steps: of what is computed now. results: entries of the history. result: what else came of it.
    kept: whether it is listed and recorded. waited: somebody waits for its small `answer`, which
    nobody else gets; it is listed while it is open, so that it can be cancelled, and recorded
    nowhere. holding: the memory of its pictures, given back at its end.
    """

    kind: str
    work: Any
    request: dict[str, Any] = field(default_factory=dict)
    kept: bool = True
    waited: bool = False
    answer: Any = None
    holding: Holding | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "queued"
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    progress: float = 0.0
    step: int = 0
    steps: int = 0
    preview: int = 0  # its number; 0 while there is none
    results: list[dict[str, Any]] = field(default_factory=list)
    result: Any = None
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    cancelling: bool = False
    draw_preview: Callable[[], bytes] | None = None  # the newest preview, a JPEG
    pictured: float = 0.0  # when there was something new to draw
    told: float = 0.0  # when listeners last heard of it
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def listed(self) -> bool:
        return self.kept or (self.waited and self.is_open)

    def check(self) -> None:
        """Raise Cancelled where nobody wants it any more."""
        if self.cancelling:
            raise Cancelled

    def eta(self) -> float | None:
        """Seconds that are left, from what the part so far took."""
        if self.state != "running" or self.started is None or self.progress <= 0:
            return None
        return (time.time() - self.started) * (1 - self.progress) / self.progress

    def to_json(self) -> dict[str, Any]:
        eta = self.eta()
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
            "progress": round(self.progress, 4),
            "step": self.step,
            "steps": self.steps,
            "eta_s": None if eta is None else round(eta, 2),
            "preview": self.preview,
            "results": list(self.results),
            "result": self.result,
            "notes": list(self.notes),
            "error": self.error,
        }
