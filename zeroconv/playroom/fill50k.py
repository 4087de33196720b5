"""fill50k: the circles of the ControlNet repository's training tutorial, drawn anew from a seed at
any size.

A filled circle of one named colour on a ground of another; the hint is its outline, white on black.
The layout is the tutorial's: OUT/source/N.png (hint), OUT/target/N.png (picture), OUT/prompt.json
with a line a picture.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import ImageColor

from zeroconv.errors import UserError
from zeroconv.files import atomic_write, check_begun, check_output
from zeroconv.machine import cores, leave_ctrl_c

# the colour names of CSS level 3, as words; their values are Pillow's
_WORDS = """
    alice blue, antique white, aqua, aquamarine, azure, beige, bisque, black, blanched almond,
    blue, blue violet, brown, burly wood, cadet blue, chartreuse, chocolate, coral, cornflower
    blue, cornsilk, crimson, cyan, dark blue, dark cyan, dark golden rod, dark gray, dark green,
    dark khaki, dark magenta, dark olive green, dark orange, dark orchid, dark red, dark salmon,
    dark sea green, dark slate blue, dark slate gray, dark turquoise, dark violet, deep pink, deep
    sky blue, dim gray, dodger blue, fire brick, floral white, forest green, fuchsia, gainsboro,
    ghost white, gold, golden rod, gray, green, green yellow, honey dew, hot pink, indian red,
    indigo, ivory, khaki, lavender, lavender blush, lawn green, lemon chiffon, light blue, light
    coral, light cyan, light golden rod yellow, light gray, light green, light pink, light salmon,
    light sea green, light sky blue, light slate gray, light steel blue, light yellow, lime, lime
    green, linen, magenta, maroon, medium aqua marine, medium blue, medium orchid, medium purple,
    medium sea green, medium slate blue, medium spring green, medium turquoise, medium violet red,
    midnight blue, mint cream, misty rose, moccasin, navajo white, navy, old lace, olive, olive
    drab, orange, orange red, orchid, pale golden rod, pale green, pale turquoise, pale violet
    red, papaya whip, peach puff, peru, pink, plum, powder blue, purple, red, rosy brown, royal
    blue, saddle brown, salmon, sandy brown, sea green, sea shell, sienna, silver, sky blue, slate
    blue, slate gray, snow, spring green, steel blue, tan, teal, thistle,
    tomato, turquoise, violet, wheat, white, white smoke, yellow, yellow green"""
NAMES = tuple(" ".join(name.split()) for name in _WORDS.split(","))
# least distance of the two colours in CIE Lab: less, and neither eye nor network can tell the
# circle
CONTRAST = 20.0
RADIUS = (1 / 12, 1 / 3)  # of a circle, as a share of the picture's side
# flat areas: run lengths are as fast as the lightest compression and take half the room
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
_SHIFT = 4  # bits of a pixel's fraction in OpenCV's coordinates


@dataclass(frozen=True)
class Circle:
    """What a picture shows; lengths are shares of its side."""

    colour: str
    ground: str
    x: float
    y: float
    radius: float

    @property
    def prompt(self) -> str:
        return f"{self.colour} circle with {self.ground} background"


def rgb(name: str) -> tuple[int, int, int]:
    """The colour of a name in `NAMES`."""
    return ImageColor.getrgb(name.replace(" ", ""))[:3]


def lab(colours: ndarray) -> ndarray:
    """sRGB (…, 3), uint8 or 0–255 → CIE Lab (…, 3) under D65 (OpenCV's float conversion)."""
    flat = np.asarray(colours, np.float32).reshape(1, -1, 3) / 255
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(np.shape(colours))


@cache
def _labs() -> ndarray:
    return lab(np.array([rgb(name) for name in NAMES]))


def sample_circle(number: int, seed: int = 0) -> Circle:
    """Draw circle `number` of the data set `seed`: the same on every machine, at every size."""
    rng = np.random.default_rng([seed, number, 50])
    while True:
        colour, ground = rng.integers(len(NAMES), size=2)
        if np.linalg.norm(_labs()[colour] - _labs()[ground]) >= CONTRAST:
            break
    radius = rng.uniform(*RADIUS)
    x, y = rng.uniform(radius + 0.02, 0.98 - radius, size=2)
    return Circle(NAMES[colour], NAMES[ground], float(x), float(y), float(radius))


def draw_circle(circle: Circle, size: int) -> tuple[ndarray, ndarray]:
    """Picture and hint of a circle, both (size, size, 3) uint8 RGB with smooth edges."""
    target = np.full((size, size, 3), rgb(circle.ground), np.uint8)
    source = np.zeros((size, size, 3), np.uint8)
    centre, radius = (
        [_fixed(v * size - 0.5) for v in (circle.x, circle.y)],
        _fixed(circle.radius * size),
    )
    # measured: OpenCV's smooth discs reach so far beyond their radius
    smaller = radius - _fixed(0.6)
    cv2.circle(target, centre, smaller, rgb(circle.colour), -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(
        source, centre, radius, (255, 255, 255), max(1, round(size / 256)), cv2.LINE_AA, _SHIFT
    )
    return target, source


def disc(circle: Circle, size: int) -> ndarray:
    """Which pixels the circle covers (size, size) bool."""
    centres = (np.arange(size) + 0.5) / size
    return (centres[None, :] - circle.x) ** 2 + (
        centres[:, None] - circle.y
    ) ** 2 <= circle.radius**2


def _fixed(value: float) -> int:
    return round(value * (1 << _SHIFT))


# ---------------------------------------------------------------- the folder


def build_fill50k(
    out: Path,
    count: int = 50_000,
    size: int = 512,
    seed: int = 0,
    first: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Draw circles `first` … `first + count` into the folder `out`; returns how many were not there
    yet.

    Killed and run again, it draws what is missing; another seed or size in the same folder raises
    UserError. prompt.json appears last, so that a folder which has one is whole.
    """
    if size < 32:
        raise UserError(
            f"circles of {size} pixels are too small to be seen; give a size of at least 32."
        )
    _same_set(out, {"seed": seed, "size": size})
    numbers = range(first, first + count)
    missing = [number for number in numbers if not _is_there(out, number)]
    done = count - len(missing)
    for folder in ("source", "target"):
        (out / folder).mkdir(exist_ok=True)
    for number in _over(partial(_write, out, size, seed), missing, workers or cores()):
        done += number
        progress(done, count)
    with atomic_write(out / "prompt.json") as temporary:
        temporary.write_text("".join(_line(number, seed) for number in numbers), encoding="utf-8")
    return len(missing)


def _line(number: int, seed: int) -> str:
    names = {"source": f"source/{number}.png", "target": f"target/{number}.png"}
    return json.dumps({**names, "prompt": sample_circle(number, seed).prompt}) + "\n"


def _same_set(out: Path, made: dict[str, int]) -> None:
    """Note in the folder what it is made from, or check that it is made from the same."""
    note = out / "fill50k.json"
    if note.is_file():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
            circles = f"circles of seed {before.get('seed')} at {before.get('size')} pixels"
        except (ValueError, AttributeError) as error:
            raise UserError(f"{note} is damaged ({error}); name another folder.") from error
        if before != made:
            raise UserError(f"{out} holds {circles}; name another folder.")
        return
    check_output(out, "into")
    check_begun(out, "circles")
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps(made) + "\n", encoding="utf-8")


def _is_there(out: Path, number: int) -> bool:
    """Both pictures, to their last bytes: they are renamed into place, but not each flushed to the
    disk.
    """
    return all(_ends_well(out / folder / f"{number}.png") for folder in ("source", "target"))


def _ends_well(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read(4) == b"IEND"
    except OSError:
        return False


def _write(out: Path, size: int, seed: int, number: int) -> int:
    target, source = draw_circle(sample_circle(number, seed), size)
    for folder, picture in (("source", source), ("target", target)):
        done, data = cv2.imencode(".png", picture[..., ::-1], _PNG)
        assert done
        with atomic_write(out / folder / f"{number}.png", False, follow=False) as temporary:
            temporary.write_bytes(data.tobytes())
    return 1


def _alone() -> None:
    """The processes share the cores already."""
    leave_ctrl_c()
    cv2.setNumThreads(1)


def _over(work: Callable[[int], int], numbers: list[int], workers: int) -> Iterator[int]:
    if workers < 2 or len(numbers) < 64:
        yield from map(work, numbers)
        return
    # spawn: a fork of a process with threads (torch has some) may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
        yield from pool.map(work, numbers, chunksize=max(1, min(64, len(numbers) // (4 * workers))))
