"""What a run's folder tells: curves from its log, sample sheets, how it ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zeroconv.jsonfile import read_json
from zeroconv.serving.errors import ApiError
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training.recipes import RUN, read_recipe_file, recipe_file, runs_folder
from zeroconv.training.reporting.log import RunLog

SAMPLE = re.compile(r"[A-Za-z0-9._-]{1,80}\.png")
MOST_POINTS = 2000  # of a curve
STATES = {"finished": "done", "interrupted": "stopped"}


def names_of_runs(settings: ServerSettings) -> list[str]:
    """The newest first."""
    files = runs_folder(settings).glob("*.json")
    known = [path for path in files if RUN.fullmatch(path.stem)]
    return [p.stem for p in sorted(known, key=lambda p: p.stat().st_mtime, reverse=True)]


def describe_run(settings: ServerSettings, name: str) -> dict[str, Any]:
    """Raises ApiError 404. `state` is "stopped" where nothing says that it is done."""
    recipe = read_recipe_file(recipe_file(settings, name))
    folder = runs_folder(settings) / name
    lines = RunLog(folder / "log.jsonl").read()
    summary = summary_of(folder)
    losses = _points(lines, lambda line: None if "event" in line else line.get("loss"))
    gains = _points(lines, lambda line: (line.get("validation") or {}).get("gain"))
    step = max((line["step"] for line in lines), default=0)
    return {
        "name": name,
        "state": STATES.get(str(summary.get("status")), "stopped"),
        "base": _named(recipe.base),
        "condition": recipe.data.condition,
        "step": step,
        "steps": recipe.training.steps,
        "loss": losses,
        "hint_gain": gains,
        "detected_step": _detected(lines),
        "samples": [
            f"/api/v1/train/runs/{name}/samples/{path.name}" for path in samples_of(folder)
        ],
        "time_left_s": None,
        "summary": summary,
        "recipe": _shown(recipe.model_dump(mode="json")),
    }


def summary_of(folder: Path) -> dict[str, Any]:
    """How a run ended, in its own words; empty while it has not."""
    try:
        summary = read_json(folder / "summary.json")
    except (OSError, ValueError):
        return {}
    if not isinstance(summary, dict):
        return {}
    return {k: v for k, v in summary.items() if k != "control"}  # a path of this machine


def last_step(settings: ServerSettings, name: str) -> tuple[int, int]:
    """The step that the log has reached, and of how many; cheap enough for every second."""
    recipe = read_recipe_file(recipe_file(settings, name))
    lines = RunLog(runs_folder(settings) / name / "log.jsonl").read()
    return max((line["step"] for line in lines), default=0), recipe.training.steps


def samples_of(folder: Path) -> list[Path]:
    """Sheets of pictures, in the order of their steps."""
    sheets = (folder / "samples").glob("*.png")
    return sorted(path for path in sheets if SAMPLE.fullmatch(path.name) and path.is_file())


def sample_file(settings: ServerSettings, name: str, file: str) -> Path:
    """Raises ApiError 404."""
    recipe_file(settings, name)
    for path in samples_of(runs_folder(settings) / name):
        if path.name == file:
            return path
    raise ApiError(404, "There is no such picture.")


def _points(lines: list[dict[str, Any]], value: Any) -> list[tuple[int, float]]:
    """(step, value) of lines that have one, thinned out to `MOST_POINTS`."""
    points = [(line["step"], value(line)) for line in lines]
    points = [(step, one) for step, one in points if isinstance(one, int | float)]
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::every] + (points[-1:] if (len(points) - 1) % every else [])


def _detected(lines: list[dict[str, Any]]) -> int | None:
    """The step at which the hints began to be followed."""
    for line in lines:
        if line.get("event") == "converged" and line.get("converged"):
            step = line["converged"].get("step")
            return None if step is None else int(step)
    return None


def _shown(recipe: dict[str, Any]) -> dict[str, Any]:
    """Without this machine's paths: of bases, controls and data sets their names."""
    recipe.pop("out", None)
    recipe.pop("base_files", None)
    recipe["data"].pop("cache", None)
    data, control = recipe["data"], recipe["control"]
    for part, name in ((recipe, "base"), (control, "init"), (data, "train"), (data, "validation")):
        if part.get(name) is not None:
            part[name] = _named(part[name])
    return recipe


def _named(path: Any) -> Any:
    """The last part of a path; of a run's control the run. Of a list all of its own."""
    if not isinstance(path, str):
        return [_named(one) for one in path]
    parts = path.partition("?")[0].split("/")
    if len(parts) > 1 and parts[-1] == "control":
        return f"runs/{parts[-2]}"
    return parts[-1]
