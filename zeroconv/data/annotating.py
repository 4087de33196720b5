"""A data set with hints drawn for it: pictures, captions and one hint a condition, laid out as a training set.

OUT/images/NAME.png        the picture (a file of a folder keeps its suffix and its bytes)
OUT/CONDITION/NAME.png     its hint; OUT/pose/NAME.json the joints, where they are known
OUT/metadata.jsonl         file_name, text, conditioning_image (of the first condition), a column a condition
OUT/broken.json            what could not be done, and why

A journal beside them says what each picture's files were made from. A second run does what is missing or was made from
something else, and nothing else; killed at any moment and run again, it leaves the same files as one that was not.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zeroconv import annotators, conditions
from zeroconv.conditions.pose import to_openpose
from zeroconv.data.cache_keys import drawing_key
from zeroconv.data.datasets import Dataset, Example
from zeroconv.data.fitting import BrokenExample, fit
from zeroconv.data.folders import Folder
from zeroconv.data.generated import EXACT, Scenes, exact_hint
from zeroconv.data.shards import content_key
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.machine import cores
from zeroconv.playroom import render

JOURNAL = ".annotated.jsonl"
Map = Callable[[Callable[[int], dict], Sequence[int]], Iterator[dict]]


@dataclass(frozen=True)
class Job:
    """What is done to every example of a data set; small, and the same in every process."""

    dataset: Dataset
    conditions: tuple[str, ...]
    out: Path
    params: dict[str, float] = field(default_factory=dict)
    backend: str | None = None

    def key(self, i: int) -> str:
        """Names what the files of example i are made from."""
        drawn = [(name, drawing_key(name)) for name in self.conditions]
        return content_key(self.dataset.key(i), self.dataset.size, drawn, self.params, self.backend)


@dataclass
class Report:
    drawn: int = 0
    kept: int = 0
    broken: dict[str, str] = field(default_factory=dict)


def annotate_dataset(
    job: Job,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    run: Map | None = None,
) -> Report:
    """Draw every hint that is missing. `run` maps a function over numbers in any order (None: local processes).

    Raises UserError where two pictures would become one file, or OUT cannot be written.
    """
    names = _stems(job.dataset)
    job.out.mkdir(parents=True, exist_ok=True)
    _sweep(job.out)
    known = read_journal(job.out / JOURNAL)
    keys = [job.key(i) for i in range(len(job.dataset))]
    done = {names[i]: known[names[i]] for i in range(len(keys)) if _is_done(job.out, known.get(names[i]), keys[i])}
    todo = [i for i, name in enumerate(names) if name not in done]
    report = Report(kept=len(done))
    run = run or partial(_local, workers=workers or cores())
    with open(job.out / JOURNAL, "a", encoding="utf-8") as journal:
        for number, line in enumerate(run(partial(annotate_one, job), todo), start=1):
            line = {"name": names[line["i"]], "key": keys[line["i"]], **{k: v for k, v in line.items() if k != "i"}}
            journal.write(json.dumps(line, ensure_ascii=False) + "\n")
            journal.flush()
            done[line["name"]] = line
            progress(number, len(todo))
    report.drawn = len(todo)
    report.broken = {job.dataset.name(i): done[n]["broken"] for i, n in enumerate(names) if "broken" in done[n]}
    _finish(job, [done[name] for name in names], report.broken)
    return report


def annotate_one(job: Job, i: int) -> dict[str, Any]:
    """Write one example's picture and hints; returns its line: number, caption and files, or why there are none."""
    stem = _stem(job.dataset, i)
    try:
        example, hints = draw_hints(job, i)
    except UserError as error:
        return {"i": i, "broken": str(error)}
    source, index = job.dataset.rows[i]
    made_from = job.dataset.sources[source]
    line: dict[str, Any] = {"i": i, "text": list(example.text)}
    if isinstance(made_from, Folder) and job.dataset.size is None:
        original = made_from.folder / made_from.rows[index].image
        line["file_name"] = f"images/{stem}{original.suffix.lower()}"
        _copy(original, job.out / line["file_name"])
    else:
        line["file_name"] = f"images/{stem}.png"
        _save(example.image, job.out / line["file_name"])
    line["hints"] = {name: f"{name}/{stem}.png" for name in job.conditions}
    for name in job.conditions:
        _save(hints[name], job.out / line["hints"][name])
    if example.people is not None and "pose" in job.conditions:
        line["pose"] = f"pose/{stem}.json"
        with atomic_write(job.out / line["pose"]) as temporary:
            temporary.write_text(json.dumps(to_openpose(example.people, example.image.size)) + "\n", encoding="utf-8")
    return line


def draw_hints(job: Job, i: int) -> tuple[Example, dict[str, Image.Image]]:
    """An example and a hint a condition: exact where the playroom knows it, read by a network where one is asked for,
    else drawn. A scene is rendered once for all of them."""
    dataset = job.dataset
    source, index = dataset.rows[i]
    made_from, exact = dataset.sources[source], {}
    if isinstance(made_from, Scenes) and (asked := [name for name in job.conditions if name in EXACT]):
        scene = render(made_from.seeds[index], dataset.size or 128)
        people = tuple(scene.keypoints) if "pose" in asked else None
        example = Example(dataset.name(i), scene.image, (scene.caption,), people=people)
        exact = {name: exact_hint(scene, name) for name in asked}
    else:
        try:
            example = fit(made_from.example(index, dataset.size, None), dataset.size, None)
        except UserError as error:
            raise BrokenExample(str(error)) from error
    hints, people = {}, example.people
    for name in job.conditions:
        if name in exact:
            hints[name] = exact[name]
        elif name == "pose":
            found = annotators.read("pose", example.image, job.backend)
            people = tuple(person.keypoints for person in found)
            hints[name] = annotators.draw_pose(people, example.image.size)
        else:
            needs = conditions.find(name).draw is None or (job.backend is not None and len(job.conditions) == 1)
            backend = job.backend if needs else None
            hints[name] = annotators.draw(name, example.image, backend, **job.params)
    return Example(example.key, example.image, example.text, people=people), hints


# ---------------------------------------------------------------- names and files


def _stem(dataset: Dataset, i: int) -> str:
    """The name of example i's files: its own, without suffix; views of one picture keep their number."""
    name, _, view = dataset.name(i).partition("#")
    stem = str(Path(name).with_suffix("")).removeprefix("images/")
    return f"{stem}-{view}" if view else stem


def _stems(dataset: Dataset) -> list[str]:
    seen: dict[str, str] = {}
    for i in range(len(dataset)):
        stem, name = _stem(dataset, i), dataset.name(i)
        if stem in seen:
            raise UserError(f"{seen[stem]} and {name} would both become {stem}.png: rename one of them.")
        seen[stem] = name
    return list(seen)


def _is_done(out: Path, line: dict[str, Any] | None, key: str) -> bool:
    if line is None or line.get("key") != key:
        return False
    files = [line.get("file_name"), *line.get("hints", {}).values(), line.get("pose")]
    return "broken" not in line and all((out / name).is_file() for name in files if name)


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Name → its last line; a line cut short by a kill is passed over."""
    lines: dict[str, dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
            lines[line["name"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def _sweep(out: Path) -> None:
    """Remove what a killed run left half written; end a journal's torn last line, so that the next starts afresh."""
    for path in out.rglob(".*.*"):
        if (
            path.name != JOURNAL
            and path.suffix in (".png", ".json", ".jsonl", ".jpg", ".jpeg", ".webp")
            and path.is_file()
        ):
            path.unlink(missing_ok=True)
    journal = out / JOURNAL
    if journal.is_file() and not journal.read_bytes().endswith(b"\n"):
        with open(journal, "ab") as file:
            file.write(b"\n")


def _finish(job: Job, lines: list[dict[str, Any]], broken: dict[str, str]) -> None:
    """metadata.jsonl and the journal in the data set's order, whatever order the work was done in."""
    rows = []
    for line in lines:
        if "broken" in line:
            continue
        text = line["text"][0] if len(line["text"]) == 1 else line["text"]
        row = {"file_name": line["file_name"], "text": text, "conditioning_image": next(iter(line["hints"].values()))}
        row |= line["hints"] | ({"pose": line["pose"]} if "pose" in line else {})
        if "pose" in line["hints"]:
            row["pose_image"] = line["hints"]["pose"]
        rows.append(row)
    for name, content in (("metadata.jsonl", rows), (JOURNAL, lines)):
        with atomic_write(job.out / name) as temporary:
            temporary.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in content), encoding="utf-8")
    if broken:
        with atomic_write(job.out / "broken.json") as temporary:
            temporary.write_text(json.dumps(broken, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        (job.out / "broken.json").unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _save(picture: Image.Image, target: Path) -> None:
    with atomic_write(target) as temporary:
        picture.save(temporary, "PNG", compress_level=4)


# ---------------------------------------------------------------- processes


def _local(work: Callable[[int], dict], numbers: Sequence[int], workers: int) -> Iterator[dict]:
    if workers < 2 or len(numbers) < 2 * workers:
        yield from map(work, numbers)
        return
    # spawn: a fork of a process with threads (torch has some) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
        chunk = max(1, min(16, len(numbers) // (4 * workers)))
        yield from pool.map(work, numbers, chunksize=chunk)


def _alone() -> None:
    """One thread a process: the processes share the cores already."""
    import cv2

    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def with_ray(work: Callable[[int], dict], numbers: Sequence[int]) -> Iterator[dict]:
    """The same work on a Ray cluster, by Ray Data; OUT must be a place that every node sees. Raises UserError."""
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'zeroconv[cluster]'.") from error
    if not numbers:
        return

    def some(batch: dict[str, np.ndarray]) -> dict[str, list]:
        return {"line": [json.dumps(work(int(i))) for i in batch["item"]]}

    rows = ray.data.from_items([int(i) for i in numbers]).map_batches(some, batch_size=16)
    for row in rows.iter_rows():
        yield json.loads(row["line"])
