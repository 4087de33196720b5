"""Overlapping tiles of a large picture: where they stand, the noise they share, and how they are
put together without seams, one row of tiles in memory at a time.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]

BLOCK = 16  # latents a side that one generator draws


def starts(length: int, tile: int, overlap: int, unit: int) -> list[int]:
    """Where tiles begin, multiples of `unit`, so that they cover `length` and overlap by `overlap`
    pixels or more. All four are pixels; `length` and `tile` are multiples of `unit`.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    last = length - tile
    return [i * last // (count - 1) // unit * unit for i in range(count - 1)] + [last]


def noise_at(seed: int, channels: int, box: tuple[int, int, int, int]) -> Tensor:
    """Normal numbers (C, h, w) of the latents in `box` (top, left, h, w) of an endless field.

    Where two boxes overlap they have the same numbers, so that the same picture comes out there.
    """
    top, left, high, wide = box
    rows = range(top // BLOCK, (top + high - 1) // BLOCK + 1)
    columns = range(left // BLOCK, (left + wide - 1) // BLOCK + 1)
    blocks = [torch.cat([_block(seed, channels, y, x) for x in columns], 2) for y in rows]
    y, x = top - rows[0] * BLOCK, left - columns[0] * BLOCK
    return torch.cat(blocks, 1)[:, y : y + high, x : x + wide]


def _block(seed: int, channels: int, y: int, x: int) -> Tensor:
    digest = hashlib.blake2b(f"{seed} {y} {x}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randn(channels, BLOCK, BLOCK, generator=generator)


class Canvas:
    """A picture (H, W, 3) that is filled with tiles, row after row, each from left to right.

    Two tiles are cross-faded linearly over what they have in common. Columns are joined within a
    row of tiles and rows afterwards, so that corners, which four tiles share, have no edge.
    """

    def __init__(self, high: int, wide: int) -> None:
        self.pixels: Pixels = np.zeros((high, wide, 3), np.uint8)
        self._below = 0  # the first line that no row has filled yet

    def row(self, top: int) -> Row:
        """A row of tiles that begins at the line `top`."""
        return Row(self, top)

    def put(self, top: int, strip: Pixels) -> None:
        shared = max(0, self._below - top)
        target = self.pixels[top : top + len(strip)]
        _fade(target[:shared], strip[:shared], _ramp(shared)[:, None, None])
        target[shared:] = strip[shared:]
        self._below = top + len(strip)


class Row:
    """One row of tiles, as `Canvas.row` gives it; `close` puts it into the picture."""

    def __init__(self, canvas: Canvas, top: int) -> None:
        self._canvas, self._top, self._right = canvas, top, 0
        self._strip: Pixels | None = None

    def put(self, left: int, tile: Pixels) -> None:
        """A tile (h, w, 3) whose first column is `left`; tiles come from left to right."""
        if self._strip is None:
            self._strip = np.zeros((len(tile), self._canvas.pixels.shape[1], 3), np.uint8)
        shared = max(0, self._right - left)
        target = self._strip[:, left : left + tile.shape[1]]
        _fade(target[:, :shared], tile[:, :shared], _ramp(shared)[None, :, None])
        target[:, shared:] = tile[:, shared:]
        self._right = left + tile.shape[1]

    def close(self) -> None:
        assert self._strip is not None
        self._canvas.put(self._top, self._strip)


def _ramp(length: int) -> NDArray[np.float32]:
    """From 0 to 1 within `length` pixels, neither of them reached."""
    return ((np.arange(length) + 0.5) / max(1, length)).astype(np.float32)


def _fade(target: Pixels, new: Pixels, weight: NDArray[np.float32]) -> None:
    mixed = target + weight * (new.astype(np.float32) - target)
    target[...] = np.rint(mixed).astype(np.uint8)
