"""A data set with hints drawn for it: pictures, captions and one hint a condition, laid out as a
training set.

OUT/images/NAME.png        the picture (a file of a folder keeps its suffix and its bytes)
OUT/CONDITION/NAME.png     its hint; OUT/pose/NAME.json the joints, where they are known
OUT/metadata.jsonl         file_name, text, conditioning_image (of the first condition), a column a
                           condition
OUT/broken.json            what could not be done, and why

A journal beside them says what each picture's files were made from. A second run does what is
missing or was made from something else, and nothing else; killed at any moment and run again, it
leaves the same files as one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.conditions.openpose import to_openpose
from zeroconv.data.annotating.folder import (
    JOURNAL,
    begin,
    check_ours,
    claims,
    finish,
    is_done,
    read_journal,
    stems,
)
from zeroconv.data.annotating.jobs import Job, check, draw_hints
from zeroconv.data.annotating.processes import on_cores, with_ray
from zeroconv.data.fitting import BrokenExample
from zeroconv.data.reading.names import shown
from zeroconv.data.reading.regular import open_regular
from zeroconv.data.reading.scan import SUFFIXES
from zeroconv.data.sources.imagefolder import Folder
from zeroconv.files import atomic_write, check_output, lock_folder
from zeroconv.machine import cores

__all__ = [
    "JOURNAL",
    "Job",
    "Report",
    "annotate_dataset",
    "annotate_one",
    "check",
    "read_journal",
    "with_ray",
]

Map = Callable[[Callable[[int], dict], Sequence[int]], Iterator[dict]]


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
    """Draw every hint that is missing. `run` maps a function over numbers in any order (None: local
    processes).

    Raises UserError before any work where a condition cannot be drawn (`check`), two pictures would
    become one file, OUT cannot be written, holds the pictures, or has files of somebody else's
    where ours would be, and where another process works in OUT.
    """
    names = stems(job.dataset)
    check(job)
    check_output(job.out, "into")
    with lock_folder(job.out, "annotating"):
        return _annotate(
            replace(job, stems=tuple(names)),
            run or partial(on_cores, workers=workers or cores()),
            progress,
        )


def _annotate(job: Job, run: Map, progress: Callable[[int, int], None]) -> Report:
    names, out = job.stems, job.out
    known = read_journal(out / JOURNAL)
    keys = [job.key(i) for i in range(len(names))]
    done = {
        name: known[name]
        for name, key in zip(names, keys, strict=True)
        if is_done(out, known.get(name), key)
    }
    todo = [i for i, name in enumerate(names) if name not in done]
    check_ours(out, (names[i] for i in todo), job.conditions)

    report = Report(kept=len(done))
    begin(out, (names[i] for i in todo), job.conditions)
    with open(out / JOURNAL, "a", encoding="utf-8") as journal:
        for number, line in enumerate(run(partial(annotate_one, job), todo), start=1):
            line = _journalled(names[line["i"]], keys[line["i"]], line, known)
            journal.write(json.dumps(line, ensure_ascii=False) + "\n")
            journal.flush()
            done[line["name"]] = line
            progress(number, len(todo))

    report.drawn = len(todo)
    report.broken = _broken(job, done)
    asked = set(names)
    others = [line for name, line in known.items() if name not in asked]
    finish(out, [done[name] for name in names], others, report.broken)
    return report


def _journalled(
    name: str,
    key: str,
    line: dict[str, Any],
    known: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """A picture's line for the journal, with what earlier runs wrote for it: that stays ours to
    replace.
    """
    made = {"name": name, "key": key, **{k: v for k, v in line.items() if k != "i"}}
    before = sorted(claims(known.get(name)) - claims(made))
    return made | ({"before": before} if before else {})


def _broken(job: Job, done: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Example → why it was set aside; two of one name are both there."""
    reasons: dict[str, str] = {}
    for i, stem in enumerate(job.stems):
        if "broken" in done[stem]:
            name = shown(job.dataset.name(i))
            reasons[name if name not in reasons else f"{name} ({stem})"] = done[stem]["broken"]
    return reasons


# ---------------------------------------------------------------- one example


def annotate_one(job: Job, i: int) -> dict[str, Any]:
    """Write one example's picture and hints; returns its line: number, caption and files, or why
    there are none.

    Raises UserError where it is not the picture's fault: the storage fails, or OUT cannot be
    written.
    """
    try:
        example, hints, people = draw_hints(job, i)
    except BrokenExample as error:
        return {"i": i, "broken": str(error).encode("utf-8", "backslashreplace").decode()}

    stem = job.stems[i] if job.stems else stems(job.dataset)[i]
    line: dict[str, Any] = {"i": i, "text": list(example.text)}
    original = _original(job, i)
    if original is not None:
        line["file_name"] = f"images/{stem}{original.suffix.lower()}"
        _copy(original, job.out / line["file_name"])
    else:
        line["file_name"] = f"images/{stem}.png"
        _save(example.image, job.out / line["file_name"])
    line["hints"] = {name: f"{name}/{stem}.png" for name in job.conditions}
    for name in job.conditions:
        _save(hints[name], job.out / line["hints"][name])
    if people is not None and "pose" in job.conditions:
        line["pose"] = f"pose/{stem}.json"
        with atomic_write(job.out / line["pose"], follow=False) as temporary:
            temporary.write_text(
                json.dumps(to_openpose(people, example.image.size)) + "\n", encoding="utf-8"
            )
    return line


def _original(job: Job, i: int) -> Path | None:
    """The file to copy, where the picture is a file that keeps its size and is called as a
    picture.
    """
    source, index = job.dataset.rows[i]
    made_from = job.dataset.sources[source]
    if not isinstance(made_from, Folder) or job.dataset.size is not None:
        return None
    path = made_from.file(made_from.rows[index].image)
    return path if path.suffix.lower() in SUFFIXES else None


def _copy(source: Path, target: Path) -> None:
    with (
        atomic_write(target, follow=False) as temporary,
        open_regular(source) as original,
        open(temporary, "wb") as copy,
    ):
        shutil.copyfileobj(original, copy, 1 << 20)


def _save(picture: Image.Image, target: Path) -> None:
    with atomic_write(target, follow=False) as temporary:
        picture.save(temporary, "PNG", compress_level=4)
