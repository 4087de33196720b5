"""`upscale`: a picture made larger, tile by tile, with detail that the base adds.

Each tile of the enlarged picture is noised in part and denoised again (SDEdit, Meng et al. 2022),
under a control that holds it to what is there, such as a tile control.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from PIL import Image

from zeroconv.backbones import Backbone
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.control import Control
from zeroconv.generation.pipeline import generate
from zeroconv.generation.tiles import Canvas, Pixels, noise_at, starts
from zeroconv.pictures import max_pixels, open_picture

MOST_FACTOR = 16
OVERLAP = 0.25  # of a tile


def upscale(
    backbone: Backbone,
    picture: Any,
    factor: float = 4.0,
    *,
    prompt: str = "",
    controls: Sequence[Control] = (),
    strength: float = 0.35,
    tile: int | None = None,
    overlap: int | None = None,
    keep_colours: bool = True,
    seed: int = 0,
    callback: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Image.Image:
    """`picture` at `factor` times its size, RGB.

    picture: whatever `pictures.load` reads. controls: their hints are drawn from each tile, so give
    None as hint; those of the condition "tile" see the tile coarsened. strength: in (0, 1], the
    share of the steps that is taken again. tile: its side in pixels, by default the base's own
    size; overlap: pixels that neighbours share, by default a quarter. keep_colours: what is coarser
    than two pixels of the picture stays the picture's. options: of `generate`: steps, cfg,
    negative, scheduler and the like; cfg is 1 by default, and the base's own with a tile control or
    a negative prompt. callback(done, total) is called after each tile.

    Beside the enlarged picture and the result, each 3 bytes a pixel, one row of tiles is in memory.
    Raises UserError for what is no picture, numbers out of range, and a result of more pixels than
    `pictures.max_pixels` allows; TypeError for wrong types.
    """
    source = open_picture(picture, "the picture to upscale")
    unit = backbone.latent_scale
    side, shared = _check(backbone, factor, strength, tile, overlap, source.size)
    size = max(1, round(source.width * factor)), max(1, round(source.height * factor))
    enlarged = source.resize(size, Image.Resampling.LANCZOS)
    high, wide = (_covered(length, side, backbone) for length in size[::-1])
    canvas = Canvas(high, wide)
    rows = starts(high, min(side, high), shared, unit)
    columns = starts(wide, min(side, wide), shared, unit)
    if options.get("cfg") is None and len(rows) * len(columns) > 1:
        options["cfg"] = _default_cfg(controls, options.get("negative"))
    done = 0
    for top in rows:
        row = canvas.row(top)
        for left in columns:
            box = (left, top, left + min(side, wide), top + min(side, high))
            before = cut(enlarged, box)
            made = _made(backbone, before, box, prompt, controls, strength, seed, options)
            row.put(left, matched(made, np.asarray(before), 2 * factor) if keep_colours else made)
            done += 1
            if callback is not None:
                callback(done, len(rows) * len(columns))
        row.close()
    return Image.fromarray(canvas.pixels[: size[1], : size[0]])


def _default_cfg(controls: Sequence[Control], negative: Any) -> float | None:
    """1 where no tile control holds a tile to what it shows: guidance would draw all of the prompt
    into every tile. None, the base's own, otherwise.
    """
    held = any(control.net.condition == "tile" for control in controls)
    return None if held or negative else 1.0


def _covered(length: int, tile: int, backbone: Backbone) -> int:
    """The pixels that tiles cover: a multiple of a latent's; of a picture smaller than a tile, what
    the encoder halves evenly.
    """
    unit = backbone.latent_scale if length > tile else _unit(backbone)
    return -(-length // unit) * unit


def _unit(backbone: Backbone) -> int:
    return backbone.latent_scale * max(connection.scale for connection in backbone.connections)


def cut(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The part in `box` (left, top, right, bottom); beyond the edge its last pixels go on."""
    inside = picture.crop((*box[:2], min(box[2], picture.width), min(box[3], picture.height)))
    beyond = (0, box[3] - box[1] - inside.height), (0, box[2] - box[0] - inside.width), (0, 0)
    if not any(map(any, beyond)):
        return inside
    return Image.fromarray(np.pad(np.asarray(inside), beyond, "edge"))


def matched(made: Pixels, source: Pixels, sigma: float) -> Pixels:
    """`made` (H, W, 3) with what is coarser than `sigma` pixels, a Gaussian's, of `source`."""
    difference = source.astype(np.float32) - made
    coarse = cv2.GaussianBlur(difference, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.rint(np.clip(made + coarse, 0, 255)).astype(np.uint8)


def _made(
    backbone: Backbone,
    before: Image.Image,
    box: tuple[int, int, int, int],
    prompt: str,
    controls: Sequence[Control],
    strength: float,
    seed: int,
    options: dict[str, Any],
) -> Pixels:
    """A tile after the base has gone over it."""
    from zeroconv.annotators import annotate

    scale = backbone.latent_scale
    corner = (box[1] // scale, box[0] // scale, before.height // scale)
    noise = noise_at(seed, backbone.latent_channels, (*corner, before.width // scale))
    hinted = [
        replace(control, hint=annotate(_condition(control), before), resize="stretch")
        for control in controls
    ]
    asked: dict[str, Any] = {"image": before, "strength": strength, "latents": noise[None]}
    asked |= {"height": before.height, "width": before.width, "seed": seed, **options}
    (made,) = generate(backbone, prompt, hinted, **asked)
    return np.asarray(made)


def _condition(control: Control) -> str:
    condition = control.net.condition
    if not condition:
        raise UserError(
            "a control does not say what its hints show, so none can be drawn from tiles; give one "
            "whose config names its condition, such as tile."
        )
    return condition


def _check(
    backbone: Backbone,
    factor: float,
    strength: float,
    tile: int | None,
    overlap: int | None,
    size: tuple[int, int],
) -> tuple[int, int]:
    """The side of a tile and the overlap, in pixels. Raises UserError."""
    arguments.number("factor", factor, 1, MOST_FACTOR, "how many times larger each side becomes")
    arguments.number("strength", strength, 0.01, 1, "the share of the steps that is taken again")
    unit = _unit(backbone)
    side = backbone.default_size if tile is None else tile
    arguments.integer("tile", side, unit, arguments.LARGEST, "pixels a side")
    if side % unit:
        raise UserError(f"tile is {side}; it must be a multiple of {unit} pixels.")
    shared = round(side * OVERLAP) if overlap is None else overlap
    arguments.integer("overlap", shared, 0, side // 2, "pixels, at most half a tile")
    if shared < (least := 2 * backbone.latent_scale):
        warnings.warn(
            f"tiles overlap by {shared} pixels only: seams can show; give {least} or more.",
            stacklevel=3,
        )
    pixels = round(size[0] * factor) * round(size[1] * factor)
    if pixels > max_pixels():
        raise UserError(
            f"the result would have {pixels:,} pixels, and {max_pixels():,} are allowed; give a "
            f"smaller factor, or set ZEROCONV_MAX_PIXELS={pixels}."
        )
    return side, shared
