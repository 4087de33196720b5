"""How well a reader reads held-out scenes, beside the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.data.sources.generated import open_scenes
from zeroconv.evaluation.metrics import summarise
from zeroconv.evaluation.reader import Reader, load_reader, open_reader, read
from zeroconv.playroom import Scene, render

READ = ("depth", "normal", "segmentation", "pose")
START = 50_000  # of the test scenes: where the judge was measured


def accuracy(reader: Reader, scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """Condition → metric → mean over the scenes; poses over those with a person."""
    images = [scene.image for scene in scenes]
    readings = read(images, reader)
    table: dict[str, dict[str, float]] = {}

    for condition in READ:
        kept = [i for i, s in enumerate(scenes) if condition != "pose" or s.keypoints]
        scores = [
            CONDITIONS[condition].score(
                _truth(scenes[i], condition), _reading(readings, i, condition)
            )
            for i in kept
        ]
        table[condition] = {
            metric: float(summarise([s[metric] for s in scores], METRICS[metric].kind)["mean"])
            for metric in (scores[0] if scores else ())
        }
    return table


def compare(path: Path, count: int) -> list[str]:
    """Lines of a table: the reader of `path` and the judge on `count` test scenes."""
    scenes = [render(seed) for seed in open_scenes("test", count, START).seeds]
    new, judge = accuracy(open_reader(path), scenes), accuracy(load_reader(), scenes)

    return [
        f"{condition} {metric}: {new[condition][metric]:.4f} (the judge {value:.4f})"
        for condition, metrics in judge.items()
        for metric, value in metrics.items()
    ]


def _truth(scene: Scene, condition: str) -> Any:
    return scene.keypoints if condition == "pose" else getattr(scene, condition)


def _reading(readings: Any, i: int, condition: str) -> Any:
    return getattr(readings, condition)[i]
