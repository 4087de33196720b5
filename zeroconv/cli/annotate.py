"""What `zeroconv annotate` does: one hint, or a training set with hints, in parallel, nothing done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zeroconv.conditions import find
from zeroconv.errors import UserError
from zeroconv.files import atomic_write


def parse_params(texts: Sequence[str]) -> dict[str, float]:
    """`["low=50", "high=150"]` → `{"low": 50, "high": 150}`."""
    params: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            params[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            raise UserError(f"--set {text!r} is not understood: write NAME=NUMBER, for example --set low=50") from None
    return params


def parse_conditions(text: str, params: dict[str, float]) -> tuple[str, ...]:
    """ "canny,depth" → their registry names; parameters must be the condition's own."""
    names = tuple(dict.fromkeys(find(name.strip()).name for name in text.split(",") if name.strip()))
    if not names:
        raise UserError("no condition is named; write for example canny, or canny,softedge,pose")
    if params and len(names) > 1:
        raise UserError("--set is for one condition: annotate them one after the other")
    if unknown := sorted(set(params) - set(find(names[0]).defaults)):
        known = ", ".join(find(names[0]).defaults) or "none"
        raise UserError(f"a {names[0]} hint has no parameter {unknown[0]!r}; known: {known}")
    return names


def one(condition: str, source: Path, out: Path, params: dict[str, float], backend: str | None) -> dict[str, Any]:
    """Draw the hint of a picture; a single one is simply drawn again."""
    from zeroconv import annotators

    target = out / f"{source.stem}.png" if out.is_dir() else out
    if target.suffix.lower() not in (".png", ".webp"):
        raise UserError(f"{target}: hints are saved as .png, because JPEG blurs their lines")
    hint = annotators.draw(condition, source, backend, **params)
    with atomic_write(target) as temporary:
        hint.save(temporary)
    return {"conditions": [condition], "drawn": 1, "kept": 0, "broken": {}, "out": str(target)}


def many(names: tuple[str, ...], source: str, out: Path, params: dict[str, float], options: dict[str, Any]) -> dict:
    """Draw the hints of a data set into `out`; packed into shards where a format is named."""
    from zeroconv.cli.progress import progress
    from zeroconv.data.annotating import Job, annotate_dataset, with_ray
    from zeroconv.data.packed import pack

    if options["engine"] not in ("local", "ray"):
        raise UserError(f"there is no engine {options['engine']!r}; choose local or ray")
    if options["format"] not in ("imagefolder", "parquet", "tar"):
        raise UserError(f"there is no format {options['format']!r}; choose imagefolder, parquet or tar")
    dataset = open_source(source, options["size"], options["limit"])
    if Path(source).is_dir() and out.resolve() == Path(source).resolve():
        raise UserError(f"{out} is the folder of the pictures: name another one for the training set")
    job = Job(dataset, names, out, params, options["backend"])
    with progress("annotating") as callback:
        run = with_ray if options["engine"] == "ray" else None
        report = annotate_dataset(job, options["workers"] or None, callback, run)
    shards = [] if options["format"] == "imagefolder" else pack(out, out / "data", options["format"], options["shard"])
    answer = {"conditions": list(names), "drawn": report.drawn - len(report.broken), "kept": report.kept}
    return {**answer, "broken": report.broken, "out": str(out), "shards": [str(path) for path in shards]}


def open_source(source: str, size: int | None, limit: int | None) -> Any:
    """A data spec or an imagefolder; a folder without a list is taken with all its pictures, captions or none."""
    from zeroconv.data import Dataset, open_dataset
    from zeroconv.data.folders import Folder, Row, open_folder
    from zeroconv.data.pairs import captions_of, pictures_in

    folder = Path(source)
    if not folder.is_dir() or open_folder(folder) is not None:
        return open_dataset(source, size=size, limit=limit)
    rows = [Row(str(path.relative_to(folder)), captions_of(path)) for path in pictures_in(folder)[:limit]]
    if not rows:
        raise UserError(f"the folder {folder} holds no pictures")
    return Dataset((Folder(folder, tuple(rows)),), size)
