"""The autoencoder in tiles: the picture of the whole pass, in the memory of a tile.

A group norm takes its mean and variance over the whole picture. If every tile took its own, tiles
would differ in colour (diffusers' `enable_tiling`: up to 27 of 255 on the playroom's autoencoder).
So all tiles go from one group norm to the next, the numbers of all are put together, and then they
go on; those that wait are out of the device's memory (`layers.parking`). The middle block, whose
attention looks at the whole picture, sees all latents at once: it is the smallest part.

Each tile has a margin that convolutions at its edge spoil, which is thrown away. There is nothing
to blend: with 8 latents of margin tiles differ from the whole pass by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.layers.parking import Parked

TILE = 64  # latents a side, without margins
MARGIN = 8  # latents at every side

# what a tile goes through between two group norms: (x, the residual that waits) → the same
Step = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass
class Segment:
    """Steps, and the group norm behind them; None at the end. `scale`: pixels a latent there."""

    steps: list[Step]
    norm: nn.GroupNorm | None
    scale: int


@dataclass(frozen=True)
class Tile:
    """In latents: what it is for, and with its margins, (top, bottom, left, right)."""

    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]

    def begin(self, x: Tensor, scale: int) -> Tensor:
        """The part of x, at `scale` pixels a latent, with its margins."""
        up, down, before, after = (side * scale for side in self.outer)
        return x[..., up:down, before:after]

    def cut(self, x: Tensor, scale: int) -> Tensor:
        """The inner part of what was computed of it, at `scale` pixels a latent."""
        top, bottom, left, right = self.inner
        up, _, before, _ = self.outer
        rows = slice((top - up) * scale, (bottom - up) * scale)
        return x[..., rows, slice((left - before) * scale, (right - before) * scale)]


def decode(vae: Any, z: Tensor) -> Tensor:
    """Latents (N, C, h, w) as the decoder reads them → pictures (N, 3, H, W)."""
    decoder = vae.decoder
    if vae.post_quant_conv is not None:
        z = vae.post_quant_conv(z)
    x = decoder.mid_block(decoder.conv_in(z))

    flat = _Flat(1)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            flat.resnet(resnet)
        for upsampler in block.upsamplers or ():
            flat.plain(upsampler)
            flat.scale *= 2
    flat.norm(decoder.conv_norm_out)
    flat.plain(decoder.conv_act)
    flat.plain(decoder.conv_out)
    return _run(x, flat.finished(), x.shape[-2:], 1)


def encode(vae: Any, images: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w)."""
    encoder = vae.encoder
    scale = 2 ** sum(block.downsamplers is not None for block in encoder.down_blocks)

    flat = _Flat(scale)
    flat.plain(encoder.conv_in)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            flat.resnet(resnet)
        for downsampler in block.downsamplers or ():
            flat.plain(downsampler)
            flat.scale //= 2
    size = torch.Size(side // scale for side in images.shape[-2:])
    x = encoder.mid_block(_run(images, flat.finished(), size, scale))

    x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return x if vae.quant_conv is None else vae.quant_conv(x)


def is_one(vae: Any, height: int, width: int) -> bool:
    """Whether latents of this size are one tile, or the VAE has parts that are not known here."""
    known = all(
        type(block).__name__ in ("UpDecoderBlock2D", "DownEncoderBlock2D")
        for block in (*vae.decoder.up_blocks, *vae.encoder.down_blocks)
    )
    return not known or max(height, width) <= TILE + 2 * MARGIN


class _Flat:
    """Writes blocks down as segments."""

    def __init__(self, scale: int) -> None:
        self.scale, self.segments, self.steps = scale, list[Segment](), list[Step]()

    def plain(self, module: nn.Module) -> None:
        self.steps.append(lambda x, kept: (module(x), kept))

    def norm(self, layer: nn.GroupNorm) -> None:
        self.segments.append(Segment(self.steps, layer, self.scale))
        self.steps = []

    def resnet(self, block: Any) -> None:
        self.steps.append(lambda x, kept: (x, x))
        self.norm(block.norm1)
        self.plain(block.nonlinearity)
        self.plain(block.conv1)
        self.norm(block.norm2)
        self.plain(block.nonlinearity)
        self.plain(block.conv2)

        def join(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
            assert kept is not None
            if block.conv_shortcut is not None:
                kept = block.conv_shortcut(kept)
            return (kept + x) / block.output_scale_factor, None

        self.steps.append(join)

    def finished(self) -> list[Segment]:
        return [*self.segments, Segment(self.steps, None, self.scale)]


def _run(x: Tensor, segments: Sequence[Segment], size: torch.Size, scale: int) -> Tensor:
    """All tiles of x, which has `scale` pixels a latent, through all segments, put together."""
    tiles = list(_tiles(*size))
    waiting = [(Parked(), Parked()) for _ in tiles]
    moments: _Moments | None = None
    resumed = False  # whether a residual waits
    out: Tensor | None = None
    try:
        for number, segment in enumerate(segments):
            gathered = _Moments()

            for tile, (first, second) in zip(tiles, waiting, strict=True):
                y, kept = tile.begin(x, scale), None
                if moments is not None:
                    norm = segments[number - 1].norm
                    assert norm is not None
                    y = moments.applied(norm, first.get())
                    kept = second.get() if resumed else None

                for step in segment.steps:
                    y, kept = step(y, kept)

                inner = tile.cut(y, segment.scale)
                if segment.norm is None:
                    out = _pasted(out, inner, tile, size, segment.scale)
                    continue
                gathered.add(inner, segment.norm.num_groups)
                first.put(y)
                if kept is not None:
                    second.put(kept)
            moments, resumed = gathered, kept is not None
    finally:
        for pair in waiting:
            for parked in pair:
                parked.close()
    assert out is not None
    return out


def _pasted(out: Tensor | None, inner: Tensor, tile: Tile, size: torch.Size, scale: int) -> Tensor:
    if out is None:
        out = inner.new_empty(*inner.shape[:2], *(side * scale for side in size))
    top, bottom, left, right = (side * scale for side in tile.inner)
    out[..., top:bottom, left:right] = inner
    return out


def _tiles(height: int, width: int) -> Iterator[Tile]:
    """Tiles of latents that cover height × width."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(height, top + TILE), min(width, left + TILE)
            outer = (
                max(0, top - MARGIN),
                min(height, bottom + MARGIN),
                max(0, left - MARGIN),
                min(width, right + MARGIN),
            )
            yield Tile((top, bottom, left, right), outer)


class _Moments:
    """Mean and variance of groups of channels, over all tiles (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None  # (N, groups), float64
        self.spread: Tensor | None = None  # sums of squared distances from the mean

    def add(self, x: Tensor, groups: int) -> None:
        """x (N, C, h, w)."""
        rows = x.reshape(x.shape[0], groups, -1).float()
        count = rows.shape[2]
        variance, mean = (part.double() for part in torch.var_mean(rows, dim=2, correction=0))

        if self.mean is None or self.spread is None:
            self.count, self.mean, self.spread = count, mean, variance * count
            return
        total, gap = self.count + count, mean - self.mean
        self.mean = self.mean + gap * (count / total)
        self.spread = self.spread + variance * count + gap.square() * (self.count * count / total)
        self.count = total

    def applied(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        """What the norm makes of a part (N, C, h, w) of the picture."""
        assert self.mean is not None and self.spread is not None
        inverse = (self.spread / self.count + norm.eps).rsqrt()
        share = norm.num_channels // norm.num_groups
        mean, inverse = (
            part.repeat_interleave(share, dim=1)[..., None, None] for part in (self.mean, inverse)
        )
        weight, bias = (part.double()[:, None, None] for part in (norm.weight, norm.bias))
        factor = inverse * weight  # (N, C, 1, 1)
        offset = bias - mean * factor
        return torch.addcmul(offset.float(), x.float(), factor.float()).to(x.dtype)
