"""Examples that a program makes: the playroom's scenes, and stickers laid on random backgrounds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np
from PIL import Image

from zeroconv.conditions import annotate, maps
from zeroconv.conditions.pose import draw_people
from zeroconv.data.example import Example, true_in_mirror
from zeroconv.data.reading.names import escapes, inside, shown
from zeroconv.data.reading.regular import check_regular
from zeroconv.data.reading.texts import check_caption
from zeroconv.data.storage.signatures import signature
from zeroconv.errors import UserError
from zeroconv.inputs import at_home
from zeroconv.playroom import CLASSES, KINDS, SPLITS, Scene, render, render_image, sample_scene
from zeroconv.playroom.scene import SIZES
from zeroconv.playroom.stickers import (
    Sticker,
    compose_caption,
    compose_sticker,
    load_stickers,
    mirrorable,
    sample_background,
    sample_folder,
)
from zeroconv.playroom.styles import find_style, style_image

DEFAULT_SIZE = 128
_TEXTS = (
    "file_name",
    "text",
    "concept",
    "name",
    "style",
    "group",
    "subgroup",
    "source",
    "licence",
    "split",
)


@dataclass(frozen=True)
class Scenes:
    """Rendered rooms. Hints that pixels alone do not tell are exact; the others are drawn from the
    picture.
    """

    seeds: Sequence[int]
    condition: str | None = None
    generated: bool = True
    # one of playroom.styles; the hints are of the plain scene, which has the same geometry
    style: str | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, i: int) -> str:
        return f"scene-{self.seeds[i]}"

    def key(self, i: int) -> str:
        return f"playroom {_renderer()} {self.seeds[i]}" + (
            f" {_styling(self.style)}" if self.style else ""
        )

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        seed = self.seeds[i]
        size = next((s for s in SIZES if s >= (size or DEFAULT_SIZE)), SIZES[-1])
        people = hint = None
        if condition in EXACT:
            scene = render(seed, size)
            image, text, hint = scene.image, scene.caption, exact_hint(scene, condition)
            people = tuple(scene.keypoints) if condition == "pose" else None
        else:
            pixels, text = render_image(seed, size)
            image = Image.fromarray(pixels)
        if self.style is not None:
            if condition is not None and hint is None:
                hint = annotate(condition, image)
            image = Image.fromarray(style_image(seed, self.style, size)[0])
        return Example(self.name(i), image, (text,), hint, true_in_mirror([text]), people)

    def shape(self, i: int) -> None:
        return None


EXACT: dict[str, Callable[[Scene], np.ndarray]] = {
    "depth": lambda scene: maps.depth_to_hint(scene.depth),
    "normal": lambda scene: maps.normal_to_hint(scene.normal),
    "segmentation": lambda scene: maps.classes_to_hint(scene.segmentation),
    "pose": lambda scene: draw_people(scene.keypoints, (scene.size, scene.size)),
    "person": lambda scene: np.where(scene.segmentation == CLASSES.index("person"), 255, 0).astype(
        np.uint8
    ),
}


def exact_hint(scene: Scene, condition: str) -> Image.Image:
    """A scene's own map of one of `EXACT`, as an RGB hint."""
    return Image.fromarray(EXACT[condition](scene)).convert("RGB")


@lru_cache
def _renderer() -> str:
    """Names the renderer by what it draws, so that a change of it, and of it alone, makes new
    pictures.
    """
    digest = hashlib.sha256()
    for seed in (0, 1, 2, 3):
        pixels, text = render_image(seed, 64)
        digest.update(pixels.tobytes() + text.encode() + repr(sample_scene(seed)).encode())
    return digest.hexdigest()[:16]


@lru_cache
def _styling(style: str) -> str:
    """Names a style, by what it draws too."""
    drawn = b"".join(style_image(seed, style, 64)[0].tobytes() for seed in (0, 1))
    return f"{style} {hashlib.sha256(drawn).hexdigest()[:16]}"


def open_scenes(
    split: str,
    count: int | None = None,
    start: int = 0,
    only: str | None = None,
    condition: str | None = None,
    style: str | None = None,
) -> Scenes:
    """`count` scenes of a split (1000 where nothing is said); `only`: those that hold a thing of
    that kind; `style`: drawn so.
    """
    if split not in SPLITS:
        raise UserError(f"the playroom has no split {split!r}; choose from {', '.join(SPLITS)}.")
    if only is not None and only not in KINDS:
        raise UserError(f"the playroom has no {only!r}; choose only from {', '.join(KINDS)}.")
    if style is not None:
        find_style(style)
    rest, count = SPLITS[split][start:], 1000 if count is None else count
    if only is None:
        seeds: Sequence[int] = rest[:count]
    else:
        holding = (
            seed for seed in rest if any(thing.kind == only for thing in sample_scene(seed).objects)
        )
        seeds = tuple(islice(holding, count))
    if len(seeds) < count:
        raise UserError(
            f"split {split!r} has {len(SPLITS[split])} scenes; {count} from number {start} were "
            "asked for."
        )
    return Scenes(seeds, condition, style=style)


@dataclass(frozen=True)
class Stickers:
    """Emoji art. A sticker without a background of its own, or one of several views, is laid on a
    random one.
    """

    records: tuple[Sticker, ...]
    views: int | None = None  # None: one, as the file is where it has a background
    seed: int = 0
    condition: str | None = None
    generated: bool = True

    def __len__(self) -> int:
        return len(self.records) * (self.views or 1)

    def name(self, i: int) -> str:
        # every sticker once before any comes again: a limit then cuts views, not stickers
        view, index = divmod(i, len(self.records))
        return f"{self.records[index].file_name}#{view}"

    def key(self, i: int) -> str:
        view, index = divmod(i, len(self.records))
        record = self.records[index]
        return json.dumps(
            [_signature(record), record.text, self.views is None, self.seed, view, self._composer]
        )

    @cached_property
    def _composer(self) -> str:
        """Names the way stickers are laid down, by its result."""
        rng, disc = np.random.default_rng(0), np.full((16, 16, 4), 200, np.uint8)
        return hashlib.sha256(compose_sticker(disc, rng, 32).tobytes()).hexdigest()[:16]

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        view, index = divmod(i, len(self.records))
        record = self.records[index]
        _check_files(record)
        sides = mirrorable(record)
        if self.views is None and record.background_rgb is not None:
            return Example(self.name(i), record.image().convert("RGB"), (record.text,), None, sides)
        digest = hashlib.sha256(
            f"{self.seed} {view} {record.source} {record.concept}".encode()
        ).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        ground = sample_background(rng)
        pixels = compose_sticker(record.rgba(), rng, size or DEFAULT_SIZE, ground, mirror=sides)
        # the sample's captions name theirs
        bare = record.text.removesuffix(f", on a {record.background} background")
        bare = bare.removesuffix(f", on an {record.background} background")
        text = compose_caption(record, ground).replace(record.text, bare)
        return Example(self.name(i), Image.fromarray(pixels), (text,), None, sides)

    def shape(self, i: int) -> None:  # the few files that are taken as they are are square
        return None


def _check_files(record: Sticker) -> None:
    """Raises UserError where a sticker's files lie outside of its folder, or are no ordinary
    files.
    """
    for name in (record.file_name, record.mask_file_name):
        if name is not None:
            check_regular(inside(record.folder, name))


def _signature(record: Sticker) -> str:
    try:
        _check_files(record)
    except UserError:  # said when it is read
        return "refused"
    return signature(record.path)


def _check_record(record: Sticker) -> None:
    """Raises UserError for a line of metadata that says something else than a sticker's does."""
    texts = [getattr(record, name) for name in _TEXTS]
    names = [name for name in (record.file_name, record.mask_file_name) if name is not None]
    rgb = record.background_rgb
    if not all(
        isinstance(text, str) for text in (*texts, *names, *record.tags, record.background or "")
    ):
        raise UserError(
            f"a sticker in {record.folder} has something else than text for a name or a caption."
        )
    if rgb is not None and not (
        len(rgb) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in rgb)
    ):
        raise UserError(
            f"the sticker {shown(record.file_name)} in {record.folder} has no colour for a "
            "background."
        )
    for name in names:
        if os.path.isabs(name) or escapes(name):
            inside(record.folder, name)
    try:
        check_caption(record.text)
    except ValueError as error:
        raise UserError(
            f"the sticker {shown(record.file_name)} in {record.folder}: {error}."
        ) from error


def open_stickers(
    folder: str | None,
    split: str | None,
    limit: int | None = None,
    views: int | None = None,
    seed: int = 0,
    start: int = 0,
    condition: str | None = None,
) -> Stickers:
    """Stickers of a folder (None: the sample in the package); `limit` of them, spread evenly over
    the folder.
    """
    if folder is not None and not at_home(folder).is_dir():
        raise UserError(
            f"there is no sticker folder {folder}; make it with `zeroconv playroom stickers "
            f"{folder}`."
        )
    records = load_stickers(sample_folder() if folder is None else at_home(folder), split=split)[
        start:
    ]
    for record in records:
        _check_record(record)
    if limit is not None and limit < len(records):
        records = [records[i * len(records) // limit] for i in range(limit)]
    return Stickers(tuple(records), views, seed, condition)
