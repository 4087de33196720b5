"""A folder of stickers as it lies on disk: pictures, one line of metadata each, split by
concept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.pictures import load

MAX_LIST = 1 << 28  # bytes of metadata.jsonl
SPLITS = ("train", "val", "test")
_FAMILIES = {
    "clock": r".*(-o-clock|-thirty)$",
    "family": r"family(-.*)?$",
    "keycap": r"keycap-.*",
    "kiss": r"kiss(-.*)?$",
}


@dataclass(frozen=True)
class Sticker:
    """One picture and what is known of it; the pixels are read when asked for.

    `file_name` is relative to `folder`. In the big set the file is RGBA; in the sample it is RGB on
    the plain colour `background_rgb`, with the alpha in `mask_file_name`.
    """

    file_name: str
    text: str
    concept: str
    name: str
    style: str
    group: str
    subgroup: str
    source: str
    licence: str
    split: str
    tags: tuple[str, ...] = ()
    mask_file_name: str | None = None
    background: str | None = None
    background_rgb: tuple[int, int, int] | None = None
    folder: Path = field(default=Path(), compare=False)

    @property
    def path(self) -> Path:
        return self.folder / self.file_name

    def image(self) -> Image.Image:
        """The file as it is: RGBA in the big set, RGB in the sample."""
        try:
            return load(self.path).image
        except UserError as error:
            raise UserError(
                f"cannot read the sticker {self.path} ({error}); build the folder again"
            ) from error

    def rgba(self) -> np.ndarray:
        """uint8 (H, W, 4) in 0–255, alpha not premultiplied; a flattened sticker is lifted off its
        background.
        """
        if self.mask_file_name is None:
            return np.asarray(self.image().convert("RGBA"))
        flat = np.asarray(self.image().convert("RGB"), dtype=np.float32)
        mask = self.folder / self.mask_file_name
        try:
            alpha = np.asarray(load(mask).image.convert("L"))
        except UserError as error:
            raise UserError(
                f"cannot read the mask {mask} ({error}); build the folder again"
            ) from error
        if alpha.shape != flat.shape[:2]:
            raise UserError(
                f"the mask {mask} has another size than its sticker; build the folder again"
            )
        ground = np.asarray(self.background_rgb or (255, 255, 255), dtype=np.float32)
        a = alpha[..., None].astype(np.float32) / 255
        # flat = a * colour + (1 - a) * ground, solved for the colour; where nothing
        # shows, any colour is right
        colour = ground + (flat - ground) / np.maximum(a, 1 / 255)
        return np.dstack([np.clip(np.rint(colour), 0, 255).astype(np.uint8), alpha])

    def row(self) -> dict[str, Any]:
        """The line of metadata.jsonl."""
        row = asdict(replace(self, folder=Path()))
        del row["folder"]
        return {key: value for key, value in row.items() if value is not None}


def family(concept: str) -> str:
    """What the split is decided on: concepts that differ in gender, direction or hour alone look
    too much alike.

    "woman-firefighter" and "man-firefighter" → "firefighter"; all clock faces → "clock".
    """
    for name, pattern in _FAMILIES.items():
        if re.match(pattern, concept):
            return name
    words = [w for w in concept.removesuffix("-facing-right").split("-") if w not in _GENDERED]
    return "-".join(words) or concept


_GENDERED = {"man", "woman", "person", "men", "women", "people"}


def split_of(concept: str) -> str:
    """train / val / test = 90 / 5 / 5 % by a stable hash of the concept's family, the same for
    every style.
    """
    fraction = int.from_bytes(hashlib.sha256(family(concept).encode()).digest()[:8], "big") / 2**64
    return "train" if fraction < 0.90 else "val" if fraction < 0.95 else "test"


def write_metadata(folder: Path, stickers: Iterable[Sticker]) -> None:
    """Write metadata.jsonl, unless it already says the same."""
    write_text(
        folder / "metadata.jsonl",
        "".join(json.dumps(s.row(), ensure_ascii=False) + "\n" for s in stickers),
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; one that already holds the text keeps its time stamp."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_stickers(folder: str | os.PathLike, split: str | None = None) -> list[Sticker]:
    """Every sticker of a folder (or of one split of it), in the order of metadata.jsonl; no picture
    is opened.

    Raises UserError if the folder has no metadata.jsonl, a line of it is broken, or `split` is
    unknown.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    path = Path(folder) / "metadata.jsonl"
    if not path.is_file():
        raise UserError(
            f"{folder} holds no stickers (no metadata.jsonl); make it with `zeroconv playroom "
            "stickers`"
        )
    stickers = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        try:
            stickers.append(_from_row(json.loads(line), Path(folder)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a sticker's metadata ({error})") from error
    return [s for s in stickers if split is None or s.split == split]


def _read(path: Path) -> str:
    """Raises UserError: too large for a list of stickers, or no UTF-8."""
    if path.stat().st_size > MAX_LIST:
        raise UserError(f"{path} is larger than {MAX_LIST >> 20} MiB, so it is no list of stickers")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); save it as UTF-8") from error


def _from_row(row: Mapping[str, Any], folder: Path) -> Sticker:
    known = {key: value for key, value in row.items() if key in Sticker.__dataclass_fields__}
    known["tags"] = tuple(known.get("tags", ()))
    if known.get("background_rgb"):
        known["background_rgb"] = tuple(known["background_rgb"])
    return Sticker(**{**known, "folder": folder})
