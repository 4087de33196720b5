"""What `zeroconv annotate` does: one hint, or a training set with hints, in parallel, nothing done
twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from zeroconv.conditions import Condition, find, to_draw
from zeroconv.conditions.figure import Figure
from zeroconv.conditions.hints import pose_parts
from zeroconv.conditions.hints import shown as parts_shown
from zeroconv.conditions.openpose import is_openpose, open_openpose, to_openpose
from zeroconv.conditions.parameters import check
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, check_not_input, check_output, lock_folder, shown
from zeroconv.jsonfile import write_json
from zeroconv.words import assignment, number

_PLAIN = {
    "size": None,
    "limit": None,
    "format": "imagefolder",
    "shard": 1000,
    "workers": 0,
    "engine": "local",
}
_SHARDS = (".tar", ".parquet")


def parse_params(texts: Sequence[str]) -> dict[str, float]:
    """`["low=50", "high=150"]` → `{"low": 50, "high": 150}`."""
    params: dict[str, float] = {}
    for text in texts:
        name, digits = assignment(text) or ("", "")
        value = number(digits)
        if not name or value is None:
            raise UserError(
                f"--set {text[:80]!r} is not understood: write NAME=NUMBER, for example --set "
                "low=50"
            )
        if name in params:
            raise UserError(f"--set names {name} twice; give it once")
        params[name] = int(digits) if digits.strip().lstrip("+-").isdigit() else value
    return params


def parse_conditions(text: str, params: dict[str, float], quiet: bool = False) -> tuple[str, ...]:
    """ "canny,depth" → their registry names; parameters must be the condition's own.

    Parameters that a name itself says (`openpose_full`) are added to `params`. quiet: no note where
    a name of another program promises more than is drawn.
    """
    asked = [to_draw(name.strip(), quiet) for name in text.split(",") if name.strip()]
    names = tuple(dict.fromkeys(condition.name for condition, _ in asked))
    if len(names) == 1:
        for _, settings in asked:
            params |= {name: value for name, value in settings.items() if name not in params}
    elif lost := [c.name for c, settings in asked if settings != _plain(c, settings)]:
        raise UserError(f"{text} asks for a {lost[0]} hint with parameters: annotate it alone")
    if not names:
        raise UserError("no condition is named; write for example canny, or canny,softedge,pose")
    if params and len(names) > 1:
        raise UserError("--set is for one condition: annotate them one after the other")
    if unknown := sorted(set(params) - {*find(names[0]).defaults, *find(names[0]).settings}):
        known = ", ".join({**find(names[0]).defaults, **find(names[0]).settings}) or "none"
        raise UserError(f"a {names[0]} hint has no parameter {unknown[0]!r}; known: {known}")
    if params and (draw := find(names[0]).draw) is not None:  # before any picture is opened
        check(names[0], params, draw)
    return names


def _plain(condition: Condition, settings: dict[str, float]) -> dict[str, float]:
    return {name: {**condition.defaults, **condition.settings}[name] for name in settings}


def run(
    names: tuple[str, ...],
    source: str,
    out: Path,
    params: dict[str, float],
    backend: str | None,
    options: dict[str, Any],
    pose_json: Path | None = None,
) -> dict[str, Any]:
    """One hint where `source` names a picture, else a training set. Raises UserError.

    pose_json: a folder for the people of a single picture's pose, as OpenPose's JSON.
    """
    if pose_json is not None and names != ("pose",):
        raise UserError("--pose-json is for the condition pose alone; leave it out.")
    if not _is_picture(source):
        if pose_json is not None:
            raise UserError(
                "a data set's poses are written as JSON anyway, to OUT/pose; leave --pose-json out."
            )
        return many(names, source, out, params, {**options, "backend": backend})
    if len(names) > 1:
        raise UserError(
            f"{source} is one picture, and {', '.join(names)} are several hints: draw one after "
            "the other."
        )
    if given := [
        f"--{name}" for name, value in options.items() if value != _PLAIN.get(name, value)
    ]:
        raise UserError(
            f"{source} is one picture, so {', '.join(given)} would do nothing; leave it out."
        )
    return one(names[0], Path(source), out, params, backend, pose_json)


def _is_picture(source: str) -> bool:
    """A file that is no shard, or a name with a suffix that is no folder and no spec."""
    path = Path(source)
    if path.suffix.lower() in _SHARDS or os.path.isdir(path):
        return False
    return os.path.isfile(path) or bool(path.suffix and ":" not in source and "?" not in source)


def one(
    condition: str,
    source: Path,
    out: Path,
    params: dict[str, float],
    backend: str | None,
    pose_json: Path | None = None,
) -> dict[str, Any]:
    """Draw the hint of a picture; a single one is simply drawn again."""
    from zeroconv import annotators

    if not os.path.lexists(source):
        raise UserError(f"there is no picture at {shown(source)}")
    target = out / f"{source.stem}.png" if os.path.isdir(out) else out
    if target.suffix.lower() not in (".png", ".webp") and not os.path.exists(target):
        raise UserError(f"{target}: hints are saved as .png, because JPEG blurs their lines")
    check_not_input(target, [source])
    check_output(target, "file", (".png", ".webp"), ours=True)
    if backend is not None and params and condition != "pose":
        raise UserError("--set is for hints that are drawn; a backend has no parameters.")

    report: dict[str, Any] = {
        "conditions": [condition],
        "drawn": 1,
        "kept": 0,
        "broken": {},
        "out": str(target),
    }
    if pose_json is not None:
        report["json"] = str(_json_target(pose_json, source))
        hint, people, size = _pose(source, backend, params)
        write_json(report["json"], {"zeroconv": "pose", **to_openpose(people, size)}, indent=None)
    else:
        hint = annotators.annotate(condition, source, backend, **params)
    with atomic_write(target) as temporary:
        _save(hint, temporary, target.suffix.lower())
    return report


def _json_target(folder: Path, source: Path) -> Path:
    """DIR/NAME.json. Raises UserError where a file that zeroconv did not write is there."""
    target = folder / f"{source.stem}.json"
    check_not_input(target, [source])
    check_output(target, "file", (".json",), ours=True)
    folder.mkdir(parents=True, exist_ok=True)
    return target


def _pose(
    source: Path, backend: str | None, params: dict[str, float]
) -> tuple[Image.Image, list[Figure], tuple[int, int]]:
    """A picture's people, read once for the hint and for the JSON."""
    from zeroconv import annotators
    from zeroconv.pictures import open_picture

    if is_openpose(source):
        people, size = open_openpose(source)
        hint = annotators.annotate("pose", source, None, **params)
        return hint, people, size
    asked = pose_parts(params)
    image = open_picture(source)
    figures = annotators.read("pose", image, backend, hands=asked["hands"], face=asked["face"])
    people = [parts_shown(person.figure, asked) for person in figures]
    return annotators.draw_pose(people, image.size), people, image.size


def _save(hint: Image.Image, path: Path, suffix: str) -> None:
    """Without loss, and with the name of the program, by which it knows its own files again."""
    if suffix == ".webp":
        about = Image.Exif()
        about[0x0131] = "zeroconv"
        hint.save(path, "WEBP", lossless=True, exact=True, exif=about)
        return
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", "zeroconv")
    hint.save(path, "PNG", pnginfo=note)


def many(
    names: tuple[str, ...],
    source: str,
    out: Path,
    params: dict[str, float],
    options: dict[str, Any],
) -> dict:
    """Draw the hints of a data set into `out`; packed into shards where a format is named."""
    from zeroconv.cli.terminal.progress import progress
    from zeroconv.data import open_dataset
    from zeroconv.data.annotating.packing import check_shards, pack
    from zeroconv.data.annotating.run import Job, annotate_dataset, with_ray

    if options["engine"] not in ("local", "ray"):
        raise UserError(f"there is no engine {options['engine']!r}; choose local or ray")
    if options["format"] not in ("imagefolder", "parquet", "tar"):
        raise UserError(
            f"there is no format {options['format']!r}; choose imagefolder, parquet or tar"
        )
    packed = options["format"] != "imagefolder"
    if packed and len(names) > 1:
        raise UserError(
            f"a {options['format']} shard holds one hint a picture, and {', '.join(names)} are "
            "several: annotate one condition at a time, or keep the imagefolder."
        )
    if packed:
        check_output(out / "data", "into")
        check_shards(out / "data", options["format"])

    dataset = open_dataset(source, size=options["size"], limit=options["limit"], wordless=True)
    job = Job(dataset, names, out, params, options["backend"])
    with progress("annotating") as callback:
        engine = with_ray if options["engine"] == "ray" else None
        report = annotate_dataset(job, options["workers"] or None, callback, engine)
    shards = []
    if packed:
        with lock_folder(out, "packing"):
            shards = pack(out, out / "data", options["format"], options["shard"])
    answer = {
        "conditions": list(names),
        "drawn": report.drawn - len(report.broken),
        "kept": report.kept,
    }
    return {
        **answer,
        "broken": report.broken,
        "out": str(out),
        "shards": [str(path) for path in shards],
    }
