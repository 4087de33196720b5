"""What `zeroconv annotate` does: one hint, or a folder of them, in parallel and without doing anything twice."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from zeroconv.cli.generate import open_picture
from zeroconv.errors import UserError
from zeroconv.files import atomic_write

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


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


def run(condition: str, source: Path, out: Path, params: dict[str, float], workers: int) -> dict[str, Any]:
    """Draw the hint of a picture, or of every picture under a folder (same names, as .png)."""
    if source.is_dir():
        pairs = [
            (path, (out / path.relative_to(source)).with_suffix(".png"))
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in SUFFIXES and out not in path.parents
        ]
        if not pairs:
            raise UserError(f"the folder {source} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        _no_collisions(pairs)
    else:
        pairs = [(source, out / f"{source.stem}.png" if out.is_dir() else out)]
    # a folder may be long work, so it is taken up where it stopped; a single hint is simply drawn again
    todo = [pair for pair in pairs if not (source.is_dir() and pair[1].exists())]
    draw = partial(_draw, condition, params)
    workers = workers or os.cpu_count() or 1
    if workers > 1 and len(todo) > 16:
        # spawn: a fork of a process with threads (torch has some) may hang
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(draw, todo, chunksize=8))
    else:
        list(map(draw, todo))
    return {"condition": condition, "drawn": len(todo), "kept": len(pairs) - len(todo), "out": str(out)}


def _no_collisions(pairs: list[tuple[Path, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for source, target in pairs:
        if target in seen:
            raise UserError(f"{seen[target]} and {source} would both become {target}: rename one of them")
        seen[target] = source


def _draw(condition: str, params: dict[str, float], pair: tuple[Path, Path]) -> None:
    from zeroconv.conditions import annotate, find

    source, target = pair
    unknown = sorted(set(params) - set(find(condition).defaults))
    if unknown:
        known = ", ".join(find(condition).defaults) or "none"
        raise UserError(f"a {condition} hint has no parameter {unknown[0]!r}; known: {known}")
    hint = annotate(condition, open_picture(source), **params)
    if target.suffix.lower() not in (".png", ".webp"):
        raise UserError(f"{target}: hints are saved as .png, because JPEG blurs their lines")
    with atomic_write(target) as temporary:
        hint.save(temporary)
