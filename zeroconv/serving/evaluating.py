"""Measuring how well a control is followed: the report as a table, its best, median and worst
pictures as files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.conditions import find
from zeroconv.conditions.union import find_kind
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.serving.catalogue import Catalogue
from zeroconv.serving.errors import ApiError
from zeroconv.serving.jobs.job import Job
from zeroconv.serving.jobs.keeping import SHEET, measured_folder
from zeroconv.serving.jobs.queue import Jobs
from zeroconv.serving.models import Models
from zeroconv.serving.settings import ServerSettings

EACH = 3  # pictures a group
BATCH, VARIED = 8, 8  # pictures at once; pairs that are made with three more seeds


@dataclass(frozen=True)
class Measured:
    """A control, by its name of the catalogue; of a Union the kind that is measured; condition:
    what the hints show, where that is asked for.
    """

    name: str
    kind: str | None = None
    condition: str | None = None

    @property
    def shown(self) -> str:
        """As a report calls it."""
        words = self.kind or self.condition
        return self.name if words is None else f"{self.name}:{words}"


@dataclass(frozen=True)
class Evaluation:
    """What a job of the kind "evaluate" is to do. data: a spec. fast: as `Fast.words` has it."""

    control: Measured
    base: str
    data: str
    count: int
    steps: int
    prompts: str
    seed: int
    fast: str = "off"
    engine: str = "torch"


class Evaluator:
    def __init__(self, settings: ServerSettings, models: Models, jobs: Jobs) -> None:
        self.settings, self.models, self.jobs = settings, models, jobs

    def evaluate(self, batch: Sequence[Job]) -> None:
        """Raises UserError, and Cancelled where the job is not wanted any more."""
        from zeroconv.evaluation import evaluate
        from zeroconv.evaluation.fidelity import Shown
        from zeroconv.generation.joining import bind_kind

        (job,) = batch
        asked: Evaluation = job.work
        backbone = self.models.base(asked.base)
        net = bind_kind(self.models.control(asked.control.name, asked.base), asked.control.kind)
        shown: list[Shown] = []
        varied = min(VARIED, asked.count)
        pictures = 2 * asked.count + 3 * varied
        done = 0

        def heard(step: int, steps: int, latents: Any) -> None:
            nonlocal done
            job.check()
            done += len(latents)
            job.step, job.steps = step, steps
            job.progress = min(0.98, done / (pictures * steps))
            self.jobs.changed(job)

        report = evaluate(
            net, base=backbone, data=asked.data, count=asked.count, prompts=asked.prompts,
            steps=asked.steps, seed=asked.seed, batch_size=BATCH, varied=varied, pictures=shown,
            callback=heard, condition=asked.control.condition, fast=asked.fast,
            engine=asked.engine,
        )  # fmt: skip
        report["control"] = asked.control.shown
        job.result = {
            **_table(report),
            "pictures": self._pictures(job, report, shown[0]),
            "report": report,
        }

    def _pictures(self, job: Job, report: dict[str, Any], shown: Any) -> dict[str, Any]:
        from zeroconv.evaluation.page import picture_value, ranked

        metric = next(iter(report["metrics"]))
        order = ranked(shown, metric)
        middle = max(0, len(order) // 2 - EACH // 2)
        groups = {
            "best": order[:EACH],
            "median": order[middle : middle + EACH],
            "worst": order[::-1][:EACH],
        }
        folder = measured_folder(self.settings.data)
        for row in sorted({row for rows in groups.values() for row in rows}):
            for name, image in _four(report["condition"], shown, row).items():
                with atomic_write(folder / f"{job.id}-{row}-{name}.png", sync=False) as temporary:
                    image.save(temporary, format="PNG")

        def entry(row: int) -> dict[str, Any]:
            return {
                "row": row,
                "caption": shown.pairs[row].caption,
                "metric": metric,
                "value": picture_value(shown.scores[row][metric]),
                **{
                    name: f"/api/v1/measured/{job.id}-{row}-{name}.png"
                    for name in ("hint", "read", "made", "real")
                },
            }

        return {name: [entry(row) for row in rows] for name, rows in groups.items()}


def measured_control(names: Catalogue, word: str, condition: str | None) -> Measured:
    """`NAME` or `NAME:KIND` of a request. Raises UserError for what is not here, and for a Union
    whose folder lists its kinds, without one of them. The worker checks the rest.
    """
    name, kind = word, None
    if word not in names.controls:
        before, _, after = word.rpartition(":")
        if before in names.controls:
            name, kind = before, after
    if kinds := names.control(name).facts.get("union_kinds"):
        if kind is None and condition is None:
            raise UserError(
                f"{name} is a Union control, of which one kind is measured: send {name}:KIND, or "
                f"condition; one of {', '.join(kinds)}."
            )
        find_kind(kind or condition or "", len(kinds))
    elif condition is not None:
        find(condition)
    return Measured(name, kind, condition)


def measured_file(settings: ServerSettings, name: str) -> Path:
    """Raises ApiError 404."""
    path = measured_folder(settings.data) / name
    if not SHEET.fullmatch(name) or not path.is_file():
        raise ApiError(404, "There is no such picture.")
    return path


def _four(condition: str, shown: Any, row: int) -> dict[str, Image.Image]:
    """Hint, what was read back, the picture made, the real one."""
    from zeroconv.evaluation.reading import as_picture

    pair = shown.pairs[row]
    return {
        "hint": pair.hint.convert("RGB"),
        "read": as_picture(condition, shown.reads[row], pair.image.size).convert("RGB"),
        "made": shown.made[row],
        "real": pair.image.convert("RGB"),
    }


def _table(report: dict[str, Any]) -> dict[str, Any]:
    """A row a metric: the floor is another pair's hint, the ceiling the real pictures through the
    autoencoder.
    """
    from zeroconv.conditions.scores import METRICS

    names = {"floor": "shuffled", "control": "own", "none": "none", "ceiling": "ceiling"}
    rows = []
    for metric, columns in report["metrics"].items():
        row = {name: columns.get(column) for name, column in names.items()}
        about = METRICS[metric]
        rows.append(
            {
                "metric": metric,
                "meaning": about.meaning,
                "better": about.better,
                "lift": report["lift"][metric].get("over shuffled"),
                **row,
            }
        )
    return {"control": report["control"], "n": report["n"], "table": rows}
