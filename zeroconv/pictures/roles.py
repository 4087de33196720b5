"""What a picture is opened for decides what its alpha and its numbers mean. One rule a role,
wherever it comes from.

picture  RGB; transparent pixels become white.
hint     RGB on its condition's ground; RGBA where its hole is meant; 16-bit grey ("I;16") keeps its
         levels.
mask     grey; painted alpha acts where it is painted, an opaque mask by its luminance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from PIL import Image

from zeroconv.pictures.arrays import by_rows, to_bytes
from zeroconv.pictures.classes import class_map
from zeroconv.pictures.levels import DIM, Values, alpha_of, colours_of, grey_numbers, to_levels
from zeroconv.pictures.loading import Loaded, Note, load, warn
from zeroconv.pictures.sources import Source

_MARK = "zeroconv hint"  # in PIL's `info`: the rule by which it was opened


@dataclass(frozen=True)
class HintRule:
    """What is known of a condition's hints.

    ground: what shows through transparent pixels; "unlike": black below light pixels and white
    below dark ones. values: what grey numbers of an unknown range mean. strokes: dark lines on
    transparent ground are lines too. hole: transparent pixels are a hole to fill; None: not known.
    colours: of classes, (N, 3) uint8, the first for class 0; their maps must be exact. `classes`:
    how many of them have numbers.
    """

    ground: Literal["black", "white", "unlike"] = "black"
    values: Values = "levels"
    strokes: bool = False
    hole: bool | None = False
    colours: Callable[[], ndarray] | None = None
    classes: int = 0


UNKNOWN = HintRule(ground="unlike", hole=None)


def open_picture(
    source: Source, name: object = None, *, max_pixels: int | None = None, note: Note = warn
) -> Image.Image:
    """A picture as RGB, upright, on white. Sources and errors: see `load`."""
    loaded = load(source, name, max_pixels, note)
    if loaded.image.mode == "RGB" and "transparency" not in loaded.image.info:
        _check_dark_colours(loaded, note)
        return loaded.image
    colours, alpha = _colours(loaded, "levels", note), alpha_of(loaded)
    return Image.fromarray(_as_rgb(colours if alpha is None else _over(colours, alpha, 255)))


def note_transparent(source: Source, name: object = None) -> None:
    """A note where `open_picture` fills transparent pixels, for callers who read one picture. Of
    data sets it would be one a picture. Sources and errors: see `load`.
    """
    loaded = load(source, name, None, _silent)
    alpha = alpha_of(loaded)
    if alpha is not None:
        share = float((alpha < 255).mean())
        warn(loaded.name, f"is transparent in {max(share, 0.001):.1%} of its pixels: they are "
             "filled with white")  # fmt: skip


def open_mask(
    source: Source, name: object = None, *, max_pixels: int | None = None, note: Note = warn
) -> Image.Image:
    """A mask as grey ("L"), 255 where it acts fully. Sources and errors: see `load`."""
    loaded = load(source, name, max_pixels, note)
    alpha = alpha_of(loaded)
    painted = alpha is not None and bool((alpha < 128).any())
    levels = _luminance(_colours(loaded, "levels", _silent if painted else note))
    if alpha is not None and painted:
        _check_one_paint(loaded, levels, alpha, note)
        levels = alpha
    if not levels.any():
        kind = "transparent" if painted else "black"
        note(loaded.name, f"is a mask that acts nowhere: it is {kind}")
    return Image.fromarray(levels)


def open_alpha(
    source: Source, name: object = None, *, max_pixels: int | None = None, note: Note = warn
) -> Image.Image | None:
    """The opacity of a picture as grey ("L"), 255 where it is opaque; None where all of it is.
    Sources and errors: see `load`.
    """
    alpha = alpha_of(load(source, name, max_pixels, note))
    return None if alpha is None else Image.fromarray(alpha)


def _silent(name: str, what: str) -> None:
    """Of a painted mask the colours do not matter."""


def _check_one_paint(loaded: Loaded, levels: ndarray, alpha: ndarray, note: Note) -> None:
    """Black beside white on transparent ground may be meant to be left out."""
    seen = levels[alpha >= 128]
    if len(seen) and (seen < 64).mean() > 0.02 and (seen > 191).mean() > 0.02:
        note(
            loaded.name,
            "shows black and white on transparent ground: the mask acts wherever it is painted; "
            "put it on black for its black to be left out",
        )


def open_hint(
    source: Source,
    rule: HintRule = UNKNOWN,
    name: object = None,
    *,
    max_pixels: int | None = None,
    note: Note = warn,
) -> Image.Image:
    """A finished hint as its control is to see it.

    RGB, or RGBA with a hole (alpha 0 there, else 255), or grey of 16 bits ("I;16"). What was opened
    so once is given back as it is. Sources and errors: see `load`; also UserError for class maps
    that are not exact.
    """
    if isinstance(source, Image.Image) and source.mode in ("RGB", "RGBA", "I;16"):
        known = source.info.get(_MARK)
        holed = source.mode == "RGBA"
        if known is not None and rule in (known, UNKNOWN) and not (holed and known.hole is False):
            return source
    loaded = load(source, name, max_pixels, note)
    if rule.colours is None:
        hint = _levels_hint(loaded, rule, note)
    else:
        if loaded.bits == 16:  # of 8 bits, dark colours may be class numbers
            _check_dark_colours(loaded, note)
        hint = Image.fromarray(class_map(loaded, rule.colours(), rule.classes, note))
    hint.info[_MARK] = rule
    return hint


def opened_hint(hint: Image.Image, rule: HintRule) -> Image.Image:
    """A hint that `open_hint` gave and a file kept, marked so that it is taken as it is."""
    hint.info[_MARK] = rule
    return hint


def hint_to_rgb(hint: Image.Image) -> Image.Image:
    """A hint of any mode at 8 bits a channel, RGB or RGBA. Pillow's own `convert` clips 16 bits at
    255."""
    if hint.mode in ("RGB", "RGBA"):
        return hint
    if not hint.mode.startswith("I;16"):
        return hint_to_rgb(open_hint(hint, UNKNOWN, "the hint"))
    return Image.fromarray(_as_rgb(np.asarray(hint).astype(np.uint16)))


# ---------------------------------------------------------------- numbers


def _colours(loaded: Loaded, values: Values, note: Note) -> ndarray:
    """Grey (H, W) uint8 or uint16, or colours (H, W, 3) uint8; alpha is left out."""
    numbers = grey_numbers(loaded)
    if numbers is not None:
        return to_levels(numbers, loaded, values, note)
    _check_dark_colours(loaded, note)
    return colours_of(loaded.image)


def _check_dark_colours(loaded: Loaded, note: Note) -> None:
    if loaded.bits != 16:
        _check_dark_levels(loaded, note)
    elif not np.asarray(loaded.image)[..., :3].any():
        note(
            loaded.name,
            "is black at 8 bits: of 16-bit colours the upper 8 bits are read, multiply them by 256",
        )


def _check_dark_levels(loaded: Loaded, note: Note) -> None:
    """Of RGB and RGBA alone: a palette's colours are what its file says."""
    if loaded.image.mode not in ("RGB", "RGBA"):
        return
    brightest = max(most for _, most in loaded.image.getextrema()[:3])  # type: ignore[misc]
    if 0 < brightest < 255 // DIM:
        note(
            loaded.name,
            f"is nearly black (its largest value is {brightest} of 255); colours of 0 to 1 are "
            "floats, and class numbers hints of segmentation alone",
        )


def _luminance(colours: ndarray) -> ndarray:
    """uint8 (H, W)."""
    if colours.ndim == 3:
        return np.asarray(Image.fromarray(colours).convert("L"))  # Rec. 601
    return to_bytes(colours) if colours.dtype == np.uint16 else colours


def _as_rgb(colours: ndarray) -> ndarray:
    plain = to_bytes(colours) if colours.dtype == np.uint16 else colours
    return np.repeat(plain[..., None], 3, -1) if plain.ndim == 2 else np.ascontiguousarray(plain)


def _over(colours: ndarray, alpha: ndarray, ground: int) -> ndarray:
    """Composed over a ground of 0 (black) or 255 (white), in the numbers' own type."""
    wide: Any = np.uint16 if colours.dtype == np.uint8 else np.uint32
    level = wide(np.iinfo(colours.dtype).max * ground // 255)

    def mix(rows: slice) -> ndarray:
        share = alpha[rows].astype(wide)
        if colours.ndim == 3:
            share = share[..., None]
        return (colours[rows] * share + level * (255 - share) + 127) // 255

    return by_rows(mix, colours.shape, colours.dtype)


# ---------------------------------------------------------------- hints


def _levels_hint(loaded: Loaded, rule: HintRule, note: Note) -> Image.Image:
    colours, alpha = _colours(loaded, rule.values, note), alpha_of(loaded)
    hole = rule.hole
    if hole is None and alpha is not None:
        hole = _is_holed(colours, alpha)
        note(
            loaded.name,
            "has transparent pixels, and its control does not say what its hints show: they are "
            "taken " + ("as a hole to fill" if hole else "as the ground of a drawing"),
        )
    if hole:
        return _holed(loaded, colours, alpha, note)
    if alpha is not None:
        colours = _grounded(loaded, colours, alpha, rule, note)
    elif rule.strokes and _is_dark_on_light(colours):
        note(
            loaded.name,
            "is mostly white, and its control knows white lines on black; invert it where it is a "
            "drawing",
        )
    if colours.dtype == np.uint16:
        return Image.fromarray(colours)
    return Image.fromarray(_as_rgb(colours))


def _is_dark_on_light(colours: ndarray) -> bool:
    """A grey drawing, dark strokes on white paper."""
    if colours.ndim == 3 and (np.ptp(colours[::4, ::4].astype(np.int16), axis=-1) > 16).any():
        return False
    grey = _luminance(colours)
    return int(grey.min()) < 96 and float(np.mean(grey > 200)) > 0.6


def _is_holed(colours: ndarray, alpha: ndarray) -> bool:
    """A drawing shows black or white alone on its transparent ground, a picture with a hole shows
    more."""
    seen = _luminance(colours)[alpha >= 128]
    return bool(len(seen)) and bool(((seen > 16) & (seen < 239)).mean() > 0.01)


def _holed(loaded: Loaded, colours: ndarray, alpha: ndarray | None, note: Note) -> Image.Image:
    rgb = _as_rgb(colours)
    if alpha is None or not (alpha < 128).any():
        note(loaded.name, "has no transparent pixels, so there is no hole to fill")
        return Image.fromarray(rgb if alpha is None else _over(rgb, alpha, 255))
    return Image.fromarray(np.dstack([rgb, np.where(alpha < 128, 0, 255).astype(np.uint8)]))


def _grounded(
    loaded: Loaded, colours: ndarray, alpha: ndarray, rule: HintRule, note: Note
) -> ndarray:
    if not alpha.any():
        note(loaded.name, "is transparent everywhere, so its hint is empty")
    shown = alpha >= 128
    seen = _luminance(colours)[shown]
    dark = bool(len(seen)) and float(np.mean(seen)) < 128
    # nothing light is shown, and too little for the black ground of a finished map
    if rule.strokes and dark and int(seen.max()) < 128 and float(shown.mean()) < 0.5:
        note(
            loaded.name,
            "shows dark lines on transparent ground: they are taken as white lines on black",
        )
        return alpha
    ground = {"black": 0, "white": 255}.get(rule.ground, 255 if dark else 0)
    if ground == 0 and dark and not _over(colours, alpha, 0).any():
        note(loaded.name, "shows black on transparent ground, which is black: its hint is empty")
    return _over(colours, alpha, ground)
