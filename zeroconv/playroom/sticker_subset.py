"""The small real data set that stays in the repository: about 150 stickers of MIT and Apache-2.0
sources.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.playroom.sticker_cards import write_card
from zeroconv.playroom.sticker_compose import BACKGROUND_COLOURS, colour, compose_caption
from zeroconv.playroom.sticker_records import (
    Sticker,
    family,
    load_stickers,
    write_metadata,
    write_text,
)
from zeroconv.playroom.sticker_sources import NAME_PACKAGES, read_json

SAMPLE_SOURCES = ("fluent-emoji-flat", "fluent-emoji", "noto")  # MIT and Apache-2.0 alone
# pictures a group gives to the train and to the held-out part: 90 + 60
_QUOTAS = {
    "smileys-emotion": (11, 8),
    "people-body": (10, 6),
    "animals-nature": (18, 12),
    "food-drink": (16, 8),
    "travel-places": (12, 8),
    "activities": (8, 3),
    "objects": (15, 15),
}
# nothing a school would not hang on its wall, and nothing white on white or too thin to follow
_LEFT_OUT = (
    "middle-finger",
    "cigarette",
    "coffin",
    "pile-of-poo",
    "bomb",
    "dagger",
    "kiss",
    "syringe",
    "urn",
    "headstone",
)


def sample_folder() -> Path:
    """Where the sample lies inside the package: an imagefolder with `metadata.jsonl`, `images/` and
    `masks/`.
    """
    return Path(__file__).parent / "sticker_sample"


def build_sample(out: str | os.PathLike, stickers_folder: str | os.PathLike) -> Path:
    """Choose 150 stickers of `stickers_folder` (made by build_stickers) and write them to `out`;
    returns `out`.

    90 are of train concepts, 60 of test concepts, one style a concept. `images/` holds RGB pictures
    on a plain coloured background that the caption names, so that any loader shows them right;
    `masks/` the alpha as grey pictures. The choice is by hash: the same folder gives the same
    sample, byte for byte. Raises UserError if there are too few.
    """
    folder = Path(out)
    chosen = choose(load_stickers(stickers_folder))
    flat = [_flatten(sticker, folder) for sticker in chosen]
    write_metadata(folder, flat)
    settings = Path(stickers_folder) / ".stickers.json"
    versions = (
        read_json(settings, "build the sticker folder again")["versions"]
        if settings.is_file()
        else {}
    )
    write_card(folder, flat, {name: versions.get(name) for name in SAMPLE_SOURCES}, None, _ABOUT)
    for package in NAME_PACKAGES:
        licence = Path(stickers_folder) / "licences" / f"{package}.txt"
        if licence.is_file():
            write_text(folder / "licences" / licence.name, licence.read_text(encoding="utf-8"))
    return folder


_ABOUT = """Emoji drawings of openly licensed art projects (MIT and Apache-2.0), rendered from
their SVGs: the real data set of tests, docs and demo. `images/` are RGB, the drawing at 85 % of
its size on a plain background that the caption names (`background`, and its colour
`background_rgb`); `masks/` (`mask_file_name`) are the alpha of the drawing. Train and test have no
concept in common, and no test concept is in the train split of the big set either. Made by
`zeroconv.playroom.stickers.build_sample` from the folder that `zeroconv playroom stickers`
renders."""


def choose(stickers: Sequence[Sticker]) -> list[Sticker]:
    """The sample's stickers, in the order of a hash of the concept, the three sources taking
    turns.
    """
    by_key = {(s.concept, s.source): s for s in stickers}
    chosen: list[Sticker] = []
    for group, quotas in _QUOTAS.items():
        for split, quota in zip(("train", "test"), quotas, strict=True):
            fitting = {s.concept for s in stickers if (s.group, s.split) == (group, split)}
            concepts = [
                c for c in sorted(fitting, key=_rank) if not any(word in c for word in _LEFT_OUT)
            ]
            taken: list[Sticker] = []
            for concept in concepts:
                source = SAMPLE_SOURCES[(len(chosen) + len(taken)) % len(SAMPLE_SOURCES)]
                new = family(concept) not in {family(t.concept) for t in taken}
                if len(taken) < quota and new and (concept, source) in by_key:
                    taken.append(by_key[concept, source])
            if len(taken) < quota:
                raise UserError(
                    f"too few {split} stickers of {group} for the sample; build all of "
                    f"{SAMPLE_SOURCES} first"
                )
            chosen += taken
    return chosen


def _rank(text: str) -> bytes:
    return hashlib.sha256(f"sample {text}".encode()).digest()


def _flatten(sticker: Sticker, folder: Path) -> Sticker:
    rgba = _shrink(sticker.rgba(), 0.85)
    name, rgb = _visible_background(rgba, _rank(sticker.file_name))
    alpha = rgba[..., 3:].astype(np.float32) / 255
    flat = rgba[..., :3] * alpha + np.array(rgb, np.float32) * (1 - alpha)
    stem = f"{sticker.source}-{sticker.concept}.png"
    _save(folder / "images" / stem, Image.fromarray(np.rint(flat).astype(np.uint8), "RGB"))
    _save(folder / "masks" / stem, Image.fromarray(rgba[..., 3], "L"))
    return replace(
        sticker,
        file_name=f"images/{stem}",
        mask_file_name=f"masks/{stem}",
        text=compose_caption(sticker, name),
        background=name,
        background_rgb=rgb,
    )


def _shrink(rgba: np.ndarray, share: float) -> np.ndarray:
    """Give the drawing a border: scaled to `share` of its frame and centred, size unchanged."""
    size = rgba.shape[0]
    inner = round(size * share)
    layer = rgba.astype(np.float32)
    layer[..., :3] *= layer[..., 3:] / 255
    layer = cv2.resize(layer, (inner, inner), interpolation=cv2.INTER_AREA)
    layer[..., :3] *= 255 / np.maximum(layer[..., 3:], 1)
    border = (size - inner) // 2
    rest = size - inner - border
    layer = cv2.copyMakeBorder(
        layer, border, rest, border, rest, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0)
    )
    return np.clip(np.rint(layer), 0, 255).astype(np.uint8)


def _visible_background(rgba: np.ndarray, seed: bytes) -> tuple[str, tuple[int, int, int]]:
    """The first of twelve random plain colours that is far enough from the drawing's rim for its
    outline to be seen.

    Far enough: nine tenths of the rim's pixels are 110 or more away in RGB; if no colour is, the
    farthest one.
    """
    rng = np.random.default_rng(list(seed[:8]))
    solid = (rgba[..., 3] > 200).astype(np.uint8)
    rim = (solid - cv2.erode(solid, np.ones((5, 5), np.uint8), borderValue=0)).astype(bool)
    edge = rgba[..., :3][rim].astype(np.float32) if rim.any() else np.zeros((1, 3), np.float32)
    names = list(BACKGROUND_COLOURS)
    seen: list[tuple[float, str, tuple[int, int, int]]] = []
    for _ in range(12):
        name = names[rng.integers(len(names))]
        r, g, b = (round(value) for value in colour(name, rng))
        distance = float(
            np.percentile(np.linalg.norm(edge - np.array((r, g, b), np.float32), axis=1), 10)
        )
        seen.append((min(distance, 110.0), name, (r, g, b)))
    _, name, rgb = max(seen, key=lambda entry: entry[0])  # max keeps the first of equals
    return name, rgb


def _save(path: Path, picture: Image.Image) -> None:
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
