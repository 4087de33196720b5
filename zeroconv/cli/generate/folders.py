"""`zeroconv generate` with a folder in place of a picture, a mask or a hint: one picture for each
file, by its name; what is done already is kept.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zeroconv.cli.generate.adapters import AdapterSpec
from zeroconv.cli.generate.controls import ControlSpec
from zeroconv.cli.generate.making import SUFFIXES, BadPicture, Making
from zeroconv.cli.generate.run import describe, output_paths
from zeroconv.cli.generate.run import run as run_one
from zeroconv.errors import UserError
from zeroconv.files import check_not_input, check_output
from zeroconv.jsonfile import to_json
from zeroconv.pictures import PICTURE_SUFFIXES
from zeroconv.pictures.carried import carried
from zeroconv.words import exists, expand

READ = PICTURE_SUFFIXES | {".json"}  # OpenPose's
PICTURES = ("image", "mask")  # of a request, where it has them
MOST_FILES = 1_000_000


def run(
    prompts: list[str],
    specs: list[ControlSpec],
    base: str,
    out: Path,
    device: str,
    dtype: str,
    request: dict[str, Any],
    lora: Sequence[str],
    report: dict[str, Any],
    saved: Callable[[str], None],
    files: Mapping[str, str | None],
    vary: Sequence[str],
    making: Making,
) -> None:
    """`cli.generate.run.run`, once for each picture of the folders, where there are any.

    The report then has `kept`, how many pictures were there, and `broken`: name → reason. Raises
    UserError for what is wrong with the request.
    """
    folders = folders_of(specs, request, making)
    if not folders:
        where = (base, out, device, dtype, request, lora)
        run_one(prompts, specs, *where, report, saved, files, vary, making)
        return
    if vary:
        raise UserError("--vary draws one sheet of one hint; give a picture, not a folder.")
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise UserError(f"--out {out} is one picture, and there will be several: name a folder.")
    check_output(out, "into")
    check_not_input(out, folders)

    broken: dict[str, str] = {}
    pictures: list[Any] = []
    report |= {"pictures": pictures, "kept": 0, "broken": broken, "finished": False}
    for name, some, asked in items(specs, request, folders, broken):
        work = work_of(prompts, some, base, dtype, asked, lora, files, making)
        paths = names_in(out, name, len(prompts) * request["count"])
        if all(done_already(path, work) for path in paths):
            report["kept"] += len(paths)
            continue
        one: dict[str, Any] = {}
        way = replace(making, work=work)
        where = (base, out / f"{name}.png", device, dtype, asked, lora)
        try:
            run_one(prompts, some, *where, one, saved, files, (), way)
        except BadPicture as error:
            broken[name] = str(error)
        finally:
            pictures += one.get("pictures", [])
    report["finished"] = True


def folders_of(
    specs: Sequence[ControlSpec], request: Mapping[str, Any], making: Making
) -> list[Path]:
    """The folders among the pictures and masks that a call names; those that a picture made again
    brings are none.
    """
    named = [Path(str(request[key])).expanduser() for key in PICTURES
             if request.get(key) is not None and key not in _kept(making)]  # fmt: skip
    for spec in specs:
        named += [] if spec.kept is not None else [spec.picture]
        named += [] if spec.mask is None or spec.kept_mask is not None else [spec.mask]
    return list(dict.fromkeys(path for path in named if path.is_dir()))


def _kept(making: Making) -> Mapping[str, Any]:
    return getattr(making, "pictures", {})


def items(
    specs: Sequence[ControlSpec],
    request: Mapping[str, Any],
    folders: Sequence[Path],
    broken: dict[str, str],
) -> Iterator[tuple[str, list[ControlSpec], dict[str, Any]]]:
    """Name → the controls and the request with their pictures of that name, in the names' order.

    What has no partner in another folder, or shares its name, is set aside into `broken`. Raises
    UserError for folders without pictures.
    """
    by_folder = {folder: pictures_in(folder, broken) for folder in folders}
    names = sorted(set().union(*by_folder.values()))
    for name in names:
        without = [folder for folder in folders if name not in by_folder[folder]]
        if without:
            broken[name] = f"there is no picture of that name in {without[0]}"
            continue
        files = {folder: by_folder[folder][name] for folder in folders}
        asked = dict(request)
        for key in PICTURES:
            folder = Path(str(request.get(key))).expanduser()
            if folder in files:
                asked[key] = str(files[folder])
        yield name, [_with_pictures(spec, files) for spec in specs], asked


def _with_pictures(spec: ControlSpec, files: Mapping[Path, Path]) -> ControlSpec:
    picture = files.get(spec.picture, spec.picture)
    mask = None if spec.mask is None else files.get(spec.mask, spec.mask)
    return replace(spec, picture=picture, mask=mask)


def pictures_in(folder: Path, broken: dict[str, str]) -> dict[str, Path]:
    """Name without suffix → file, of the pictures in a folder, not in folders within it."""
    names: dict[str, Path] = {}
    inner = 0
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        inner += entry.is_dir()
        if path.suffix.lower() not in READ or entry.is_dir() or entry.name.startswith("."):
            continue
        if path.stem in names:
            broken[path.name] = f"its picture would have the name of that of {names[path.stem]}"
            continue
        names[path.stem] = path
    if inner:
        warnings.warn(f"the {inner} folders in {folder} are not looked into.", stacklevel=3)
    if not names:
        raise UserError(f"the folder {folder} holds no picture; name one that does.")
    if len(names) > MOST_FILES:
        raise UserError(f"the folder {folder} holds more than {MOST_FILES:,} pictures; split it.")
    return names


def names_in(out: Path, name: str, count: int) -> list[Path]:
    """Where the pictures of one file go."""
    return output_paths(out / f"{name}.png", count)


def work_of(
    prompts: Sequence[str],
    specs: Sequence[ControlSpec],
    base: str,
    dtype: str,
    request: Mapping[str, Any],
    lora: Sequence[str],
    files: Mapping[str, str | None],
    making: Making,
) -> str:
    """The sign of a piece of work: settings, the bytes of its pictures, and of local models their
    sizes and times.
    """
    about = {
        "prompts": list(prompts),
        "request": dict(request),
        "options": dict(making.options),
        "base": [base, dtype, list(lora), dict(files)],
        "models": [
            _stamp(Path(expand(name)))
            for name in models_of(prompts, specs, base, lora, files, request, making)
        ],
        "controls": [describe(spec) for spec in specs],
        "pictures": [_digest(p) for spec in specs for p in (spec.picture, spec.mask)],
        "adapters": [_adapter(spec) for spec in making.adapters],
        "given": [_digest(Path(str(request.get(key)))) for key in PICTURES],
    }
    return hashlib.sha256(to_json(about, sort_keys=True).encode()).hexdigest()


def models_of(
    prompts: Sequence[str],
    specs: Sequence[ControlSpec],
    base: str,
    lora: Sequence[str],
    files: Mapping[str, Any],
    request: Mapping[str, Any],
    making: Making,
) -> list[str]:
    """The names of all that is loaded, without the weights and kinds that are written behind
    them. Raises UserError for a LoRA's tag without a file.
    """
    from zeroconv.checkpoints.lora import find_lora
    from zeroconv.checkpoints.lora.strength import parse_lora
    from zeroconv.control.naming import split_kind
    from zeroconv.prompts.grammar import loras_of

    names = [base, *(str(files.get(name) or "") for name in ("vae", "tiny_vae"))]
    names += [parse_lora(text)[0] for text in lora]
    names += map(str, files.get("parts") or ())
    names += [split_kind(spec.name)[0] for spec in specs]
    names += [spec.adapter for spec in making.adapters if spec.adapter is not None]
    names += [
        text if exists(text) else text.partition("=")[2] for text in request.get("embeddings", [])
    ]
    if making.lora_folders and not request.get("plain_prompt"):
        tags = [tag.name for text in prompts for tag in loras_of(text)]
        names += [str(find_lora(name, making.lora_folders)) for name in dict.fromkeys(tags)]
    return [name for name in names if name]


def done_already(path: Path, work: str) -> bool:
    """Whether a picture of ours is there that came from the same work."""
    if not path.is_file():
        return False
    try:
        text = carried(path).get("zeroconv", "")
    except UserError:
        return False
    return f'"work": "{work}"' in text


def _adapter(spec: AdapterSpec) -> list[Any]:
    """Its settings and the contents of its pictures."""
    named = ((spec.picture, spec.kept), (spec.region, spec.kept_region))
    digests = [
        _digest(path) if kept is None else hashlib.sha256(kept.tobytes()).hexdigest()
        for path, kept in named
    ]
    return [spec.described(), *digests]


def _digest(path: Path | None) -> str | None:
    if path is None or not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> list[Any]:
    try:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        states = [(str(file), file.stat()) for file in inside if file.is_file()]
    except (OSError, ValueError):
        return []
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]
