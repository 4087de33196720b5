"""Real pictures for the playroom: openly licensed emoji art, rendered into an imagefolder with
captions and masks.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write, check_begun, check_output
from zeroconv.machine import cores, leave_ctrl_c
from zeroconv.pictures import load
from zeroconv.playroom.sticker_captions import caption, noun_phrase
from zeroconv.playroom.sticker_cards import write_card
from zeroconv.playroom.sticker_compose import (
    Background,
    compose_caption,
    compose_sticker,
    mirrorable,
    sample_background,
)
from zeroconv.playroom.sticker_records import (
    SPLITS,
    Sticker,
    load_stickers,
    split_of,
    write_metadata,
    write_text,
)
from zeroconv.playroom.sticker_sources import (
    SOURCES,
    Concept,
    Icon,
    find_packages,
    installed_version,
    read_concepts,
    read_icons,
    read_json,
)
from zeroconv.playroom.sticker_subset import build_sample, sample_folder

__all__ = [
    "SOURCES",
    "SPLITS",
    "Background",
    "BuildSummary",
    "Sticker",
    "build_sample",
    "build_stickers",
    "compose_caption",
    "compose_sticker",
    "load_stickers",
    "mirrorable",
    "render_svg",
    "sample_background",
    "sample_folder",
    "split_of",
    "stickers_command",
]

_MARGIN = 0.02  # of the picture's side, left free on each side of the drawing's longer side
_JOBS_A_WORKER = 16  # a process costs a second to start: fewer drawings than this are not worth one


@dataclass
class BuildSummary:
    """What a run of build_stickers did: pictures in the folder, how many of them this run drew, and
    their kinds.
    """

    pictures: int
    rendered: int
    seconds: float
    by_source: dict[str, int]
    by_split: dict[str, int]
    by_group: dict[str, int]
    failed: list[str] = field(default_factory=list)


def build_stickers(
    out: str | os.PathLike,
    sources: Sequence[str] = tuple(SOURCES),
    size: int = 128,
    packages: str | os.PathLike | None = None,
    workers: int | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildSummary:
    """Render the emoji art of `sources` as RGBA PNGs of `size` × `size` pixels into the imagefolder
    `out`.

    `out` gets `images/<source>/<concept>.png`, `metadata.jsonl`, `README.md` and `licences/`. No
    flags, no skin-tone variants, no two equal drawings of one source. A second run draws only what
    is missing. `packages` is a folder with the npm packages (else npm fetches them), `limit` the
    most pictures a source gives, `progress` hears (done, total). Raises UserError for a wrong
    option, packages that cannot be had or read, or an `out` built with another size.
    """
    began = time.perf_counter()
    sources = list(dict.fromkeys(sources))
    _check_options(sources, size, limit)
    folder, modules = Path(out), find_packages(sources, packages)
    versions = {name: installed_version(modules, SOURCES[name].package) or "?" for name in sources}
    _same_settings(folder, size, versions)
    concepts, slugs = read_concepts(modules)
    icons = [
        icon
        for source in sources
        for icon in _limited(read_icons(modules, source, concepts, slugs), limit)
    ]
    if not icons:
        raise UserError(
            f"the packages in {modules} hold no icon with a Unicode name; install them again"
        )
    missing = [icon for icon in icons if not _picture(folder, icon).is_file()]
    failed = set(_render_all(missing, folder, size, workers, len(icons), progress))
    records = [_record(icon, concepts[icon.concept]) for icon in icons if icon not in failed]
    write_metadata(folder, records)
    write_card(folder, records, versions, modules)
    return BuildSummary(
        pictures=len(records),
        rendered=len(missing) - len(failed),
        seconds=time.perf_counter() - began,
        by_source=dict(Counter(r.source for r in records)),
        by_split={split: sum(r.split == split for r in records) for split in SPLITS},
        by_group=dict(Counter(r.group for r in records)),
        failed=[f"{icon.source}/{icon.concept}" for icon in icons if icon in failed],
    )


stickers_command = build_stickers


def _check_options(sources: Sequence[str], size: int, limit: int | None) -> None:
    if not 8 <= size <= 2048:
        raise UserError(f"size is {size}; give a picture size between 8 and 2048 pixels")
    if limit is not None and limit < 1:
        raise UserError(
            f"limit is {limit}; give a positive number of pictures a source, or leave it out"
        )
    if not sources:
        raise UserError(f"no sticker source named; choose from {', '.join(SOURCES)}")


def _same_settings(folder: Path, size: int, versions: dict[str, str]) -> None:
    """Note size and versions in `out`; refuse to mix two sizes, or two versions of a source, in one
    folder.
    """
    path = folder / ".stickers.json"
    check_output(folder, "into")
    check_begun(folder, "stickers", [path.name])
    before: dict[str, Any] = {"size": size, "versions": {}}
    if path.is_file():
        before = read_json(path, "choose another folder")
    if before["size"] != size:
        raise UserError(
            f"{folder} holds stickers of {before['size']} pixels, not {size}; choose another "
            "folder or size"
        )
    for name, version in versions.items():
        old = before["versions"].setdefault(name, version)
        if old != version:
            raise UserError(
                f"{folder} holds {name} {old}, the packages have {version}; choose another folder"
            )
    write_text(path, json.dumps(before) + "\n")


def _limited(icons: list[Icon], limit: int | None) -> list[Icon]:
    """At most `limit` icons, chosen by a hash so that every group is there and all sources keep the
    same concepts.
    """
    chosen = {
        i.concept
        for i in sorted(icons, key=lambda i: hashlib.sha256(i.concept.encode()).digest())[:limit]
    }
    return [icon for icon in icons if icon.concept in chosen]


def _picture(folder: Path, icon: Icon) -> Path:
    return folder / "images" / icon.source / f"{icon.concept}.png"


def _record(icon: Icon, concept: Concept) -> Sticker:
    name, source = noun_phrase(concept.label, concept.subgroup), SOURCES[icon.source]
    text = caption(
        name, source.style, concept.group, concept.subgroup, key=f"{icon.source}/{icon.concept}"
    )
    return Sticker(
        file_name=f"images/{icon.source}/{icon.concept}.png",
        text=text,
        concept=icon.concept,
        name=name,
        style=source.style,
        group=concept.group,
        subgroup=concept.subgroup,
        source=icon.source,
        licence=source.licence,
        split=split_of(icon.concept),
        tags=concept.tags,
    )


def _render_all(
    icons: list[Icon],
    folder: Path,
    size: int,
    workers: int | None,
    total: int,
    progress: Callable | None,
) -> Iterable[Icon]:
    """Render every icon to its file, in processes (resvg holds the GIL); yields the icons that
    could not be drawn.
    """
    workers = min(workers or cores(), max(1, len(icons) // _JOBS_A_WORKER))
    jobs = [(icon, str(_picture(folder, icon)), size) for icon in icons]
    done = total - len(icons)
    if workers <= 1:
        results = map(_render_to_file, jobs)
        yield from _failures(icons, results, done, total, progress)
        return
    # spawn: a fork of a process with threads (torch has some) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=leave_ctrl_c) as pool:
        yield from _failures(
            icons, pool.map(_render_to_file, jobs, chunksize=8), done, total, progress
        )


def _failures(
    icons: list[Icon], results: Iterable[bool], done: int, total: int, progress: Callable | None
) -> Iterable[Icon]:
    for number, (icon, good) in enumerate(zip(icons, results, strict=True), start=done + 1):
        if progress:
            progress(number, total)
        if not good:
            yield icon


def _render_to_file(job: tuple[Icon, str, int]) -> bool:
    icon, path, size = job
    rgba = render_svg(icon.body, icon.box, size)
    if rgba is None:
        return False
    with atomic_write(path, follow=False) as temporary:
        Image.fromarray(rgba, "RGBA").save(temporary, format="PNG", optimize=False)
    return True


def render_svg(body: str, box: tuple[float, float, float, float], size: int) -> np.ndarray | None:
    """Draw SVG markup with view box (x, y, w, h), tight and centred, as uint8 (size, size, 4),
    alpha not premultiplied.

    Drawn small first to find where there is ink, then again with the view box on it, so nothing is
    resampled. None if the markup is broken or draws nothing.
    """
    try:
        probe = 64
        ink = np.argwhere(_rasterise(body, box, probe)[..., 3] > 8)
        if not len(ink):
            return None
        x, y, w, h = box
        scale = max(w, h) / probe  # resvg fits the box into the square and centres it
        left, top = x + w / 2 - max(w, h) / 2, y + h / 2 - max(w, h) / 2
        (y0, x0), (y1, x1) = ink.min(axis=0), ink.max(axis=0) + 1
        side = max(y1 - y0, x1 - x0) / (1 - 2 * _MARGIN)
        tight = (
            left + scale * ((x0 + x1) / 2 - side / 2),
            top + scale * ((y0 + y1) / 2 - side / 2),
            scale * side,
            scale * side,
        )
        return _rasterise(body, tight, size)
    except ValueError:
        return None


def _rasterise(body: str, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    import resvg_py

    view = " ".join(f"{value:.6g}" for value in box)
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view}" width="{size}" height="{size}">{body}</svg>'
    )
    png = bytes(
        resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    )
    return np.array(load(png, "a drawn sticker").image.convert("RGBA"))
