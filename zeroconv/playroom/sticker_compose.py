"""Stickers as training pictures: scaled, placed and laid on a coloured background, with a caption
that may name it.
"""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass

import cv2
import numpy as np

from zeroconv.playroom.sticker_records import Sticker

# colour name → ranges of hue (turns), saturation and value, a choice of them with equal chance:
# full, pastel, dark
BACKGROUND_COLOURS: dict[
    str, tuple[tuple[tuple[float, float], tuple[float, float], tuple[float, float]], ...]
] = {
    "red": (((-0.02, 0.015), (0.75, 1.0), (0.70, 1.0)), ((-0.02, 0.01), (0.75, 1.0), (0.40, 0.6))),
    "orange": (((0.06, 0.095), (0.75, 1.0), (0.90, 1.0)), ((0.06, 0.09), (0.50, 0.7), (0.95, 1.0))),
    "yellow": (
        ((0.14, 0.165), (0.70, 1.0), (0.92, 1.0)),
        ((0.14, 0.165), (0.35, 0.6), (0.97, 1.0)),
    ),
    "green": (
        ((0.29, 0.38), (0.60, 1.0), (0.60, 0.9)),
        ((0.29, 0.38), (0.25, 0.5), (0.85, 1.0)),
        ((0.29, 0.40), (0.60, 1.0), (0.25, 0.5)),
    ),
    "cyan": (((0.48, 0.52), (0.60, 1.0), (0.80, 1.0)), ((0.48, 0.52), (0.25, 0.5), (0.92, 1.0))),
    "blue": (
        ((0.58, 0.65), (0.65, 1.0), (0.70, 1.0)),
        ((0.57, 0.63), (0.30, 0.5), (0.90, 1.0)),
        ((0.60, 0.66), (0.65, 1.0), (0.30, 0.6)),
    ),
    "purple": (
        ((0.74, 0.79), (0.55, 0.9), (0.55, 0.9)),
        ((0.74, 0.78), (0.25, 0.45), (0.88, 1.0)),
        ((0.74, 0.79), (0.60, 1.0), (0.28, 0.5)),
    ),
    "pink": (((0.89, 0.95), (0.30, 0.65), (0.92, 1.0)), ((0.90, 0.96), (0.15, 0.3), (0.96, 1.0))),
    "white": (((0.0, 1.0), (0.0, 0.02), (0.96, 1.0)),),
    "black": (((0.0, 1.0), (0.0, 0.15), (0.0, 0.09)),),
    "grey": (((0.0, 1.0), (0.0, 0.05), (0.35, 0.72)),),
}


@dataclass(frozen=True)
class Background:
    """A plain, softly graded or two-tone ground: its name for captions and its end colours as RGB
    in 0–255.

    `sharpness` 0 is plain, 1 grades from edge to edge, more is steeper, up to a clean line between
    two tones.
    """

    name: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    angle: float = 0.0
    sharpness: float = 0.0

    def paint(self, size: int) -> np.ndarray:
        """float32 (size, size, 3), RGB in 0–255."""
        start, end = np.array(self.start, np.float32), np.array(self.end, np.float32)
        if self.sharpness == 0:
            return np.broadcast_to(start, (size, size, 3)).copy()
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        ramp = (
            axis * np.float32(np.cos(self.angle)) + (axis * np.float32(np.sin(self.angle)))[:, None]
        )
        ramp = np.clip(ramp * np.float32(self.sharpness) + np.float32(0.5), 0, 1)
        return start + (end - start) * ramp[..., None]


def colour(name: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A shade of a named background colour, RGB in 0–255."""
    ranges = BACKGROUND_COLOURS[name]
    hue, saturation, value = (rng.uniform(*pair) for pair in ranges[rng.integers(len(ranges))])
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (255 * r, 255 * g, 255 * b)


def sample_background(rng: np.random.Generator, name: str | None = None) -> Background:
    """A random background: half plain, a third softly graded within its colour, the rest two-tone
    ("red and blue").

    A given `name` is kept; such a background is never two-tone.
    """
    names, style, angle = list(BACKGROUND_COLOURS), rng.random(), float(rng.uniform(0, 2 * np.pi))
    first = name or names[rng.integers(len(names))]
    start = colour(first, rng)
    if style < 0.5:
        return Background(first, start, start)
    if style < 0.85 or name:
        gain = float(rng.uniform(0.82, 0.94))
        dimmed = (start[0] * gain, start[1] * gain, start[2] * gain)
        return Background(first, start, dimmed, angle, sharpness=1.0)
    second = [n for n in names if n != first][rng.integers(len(names) - 1)]
    return Background(
        f"{first} and {second}",
        start,
        colour(second, rng),
        angle,
        sharpness=float(rng.choice([1.0, 64.0])),
    )


def compose_sticker(
    rgba: np.ndarray,
    rng: np.random.Generator,
    size: int,
    background: Background | None = None,
    mirror: bool = False,
    scale: tuple[float, float] = (0.45, 0.95),
) -> np.ndarray:
    """Lay a sticker, uint8 (H, W, 4), on a background: uint8 (size, size, 3), the same for the same
    state of `rng`.

    The sticker's longer side takes a share of the frame drawn from `scale`, its place is anywhere
    it fits, and with `mirror` it is flipped half the time (pass `mirrorable(record)`). Without
    `background` one is drawn; draw it with `sample_background` where the caption is to name it.
    Colours are premultiplied before scaling, so that the colour hidden in transparent pixels never
    bleeds into the edge.
    """
    if background is None:
        background = sample_background(rng)
    share, across, down, flip = rng.uniform(*scale), rng.random(), rng.random(), rng.random() < 0.5
    longest = max(rgba.shape[:2])
    h, w = (max(1, round(side / longest * share * size)) for side in rgba.shape[:2])
    layer = rgba.astype(np.float32)
    layer[..., :3] *= layer[..., 3:] * np.float32(1 / 255)
    layer = cv2.resize(
        layer, (w, h), interpolation=cv2.INTER_AREA if w <= rgba.shape[1] else cv2.INTER_LINEAR
    )
    if mirror and flip:
        layer = layer[:, ::-1]
    picture = background.paint(size)
    top, left = round(down * (size - h)), round(across * (size - w))
    patch = picture[top : top + h, left : left + w]
    patch *= 1 - layer[..., 3:] * np.float32(1 / 255)
    patch += layer[..., :3]
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)


def compose_caption(record: Sticker, background: Background | str | None = None) -> str:
    """The sticker's caption, with the background where one is given: "a red apple, noto style, on a
    red background".
    """
    if background is None:
        return record.text
    name = background if isinstance(background, str) else background.name
    return f"{record.text}, on {'an' if name[0] in 'aeiou' else 'a'} {name} background"


# pictures with writing, a hand of a clock, a map or a direction in them read wrong in a mirror
_READABLE_GROUPS = {"symbols"}
_READABLE_SUBGROUPS = set(
    "time arrow keycap alphanum math punctuation currency zodiac hotel place-map "
    "book-paper office money mail writing award-medal music phone hand-single-finger "
    "emotion".split()
)
_READABLE = re.compile(
    r"\b(left|right|leftwards|rightwards|facing|clock|zzz|atm|post-office|hospital|bank|hotel|convenience-store|"
    r"department-store|bus-stop|stop-sign|police-car|ambulance|taxi|school|fire-engine|symbols-on-mouth|ok|no|"
    r"playing-cards|joker|pool|game-die|mahjong|slot-machine|keyboard|calendar|identification|placard|quarter|"
    r"crescent|gibbous|thermometer|radio|television|dvd|floppy|videocassette|barber|love-letter|100|fuel-pump|"
    r"receipt|film|soon|abacus|ruler|racing-car|station|motorway)\b"
)


def mirrorable(record: Sticker) -> bool:
    """Whether a mirrored picture still shows what the caption says: not for text, symbols, clocks,
    arrows, maps.
    """
    return not (
        record.group in _READABLE_GROUPS
        or record.subgroup in _READABLE_SUBGROUPS
        or _READABLE.search(record.concept)
    )
