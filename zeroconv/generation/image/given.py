"""The picture that a generation starts from, and its mask: as they are given → as sampling takes
them, and the result back into them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroconv import pictures
from zeroconv.backbones import Backbone
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation.hints import mask_tensor
from zeroconv.generation.image.inpaint import (
    Box,
    check_expand,
    expanded,
    filled,
    of_shape,
    paste_weight,
    pasted,
    region_of,
)
from zeroconv.generation.image.latents import (
    Start,
    channels_beside,
    encoded,
    inpainting_channels,
    mask_at,
    moments_of,
)
from zeroconv.generation.image.options import ImageOptions
from zeroconv.generation.samplers.noise import Source, draw
from zeroconv.generation.sizes import of_area, unit_of

BLUR = 4.0  # pixels, of the edge of what is pasted with only_masked (A1111's default)
LARGE = 4  # times the base's own area: pictures of it repeat what the prompt says


@dataclass
class Given:
    """One picture and its mask as given, decoded. `box`: what of them is generated."""

    picture: Image.Image
    mask: Image.Image | None = None
    box: Box | None = None
    weight: Tensor | None = None  # (1, H, W), of what is pasted
    tensor: Tensor = field(default_factory=lambda: torch.empty(0))  # (3, h, w), as encoded
    mask_tensor: Tensor | None = None  # (1, h, w)


class ImageInputs:
    """The pictures of one call, one a generated picture; equal ones are one `Given`."""

    def __init__(
        self, options: ImageOptions, backbone: Backbone, total: int, count: int, steps: int
    ) -> None:
        self.options, self.backbone = options, backbone
        self.beside = channels_beside(backbone)
        self.strength = self._strength(steps)
        images = arguments.per_picture(options.image, total, count, "image")
        masks = arguments.per_picture(options.mask, total, count, "mask")
        known: dict[tuple[int, int], Given] = {}
        for image, mask in zip(images, masks, strict=True):
            if (id(image), id(mask)) not in known:
                known[id(image), id(mask)] = self._read(image, mask)
        self.given = [known[id(i), id(m)] for i, m in zip(images, masks, strict=True)]
        self.different = list(known.values())

    def size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels that are generated: asked for, else the picture's own, of
        only_masked the region's shape at the base's own area.
        """
        first, unit = self.different[0], unit_of(self.backbone)
        if self.options.only_masked and first.mask is not None:
            left, top, right, bottom = region_of(first.mask, self.options.padding)
            default = of_area(right - left, bottom - top, self.backbone)
        else:
            wide, high = first.picture.size
            default = max(unit, high // unit * unit), max(unit, wide // unit * unit)
        size = arguments.size_of(default, self.backbone.latent_scale, height, width, None)
        if height is None and size[0] * size[1] > LARGE * self.backbone.default_size**2:
            warnings.warn(
                f"the picture of {size[1]}×{size[0]} pixels is far larger than the "
                f"{self.backbone.default_size}×{self.backbone.default_size} of {self.backbone.name}"
                ": it takes much memory, and what is new may repeat itself; give height and width, "
                "or only_masked.",
                stacklevel=4,
            )
        return size

    def fit(self, size: tuple[int, int]) -> None:
        """Bring all to `size` (height, width)."""
        high, wide = size
        for one in self.different:
            if self.options.only_masked and one.mask is not None:
                region = region_of(one.mask, self.options.padding)
                one.box = of_shape(region, (wide, high), one.picture.size)
            elif one.picture.size != (wide, high):
                warnings.warn(
                    f"the picture is {one.picture.width}×{one.picture.height} pixels and was "
                    f"resized to {wide}×{high}; give one whose sides are multiples of "
                    f"{unit_of(self.backbone)}, or height and width.",
                    stacklevel=4,
                )
                one.picture = one.picture.resize((wide, high), Image.Resampling.LANCZOS)
                if one.mask is not None:
                    one.mask = one.mask.resize((wide, high), Image.Resampling.BILINEAR)
            self._prepare(one, (wide, high))

    def start(
        self, part: slice, sources: Sequence[Source], noise: Tensor | None, shape: Sequence[int]
    ) -> Start:
        """What sampling begins with, of some pictures at latents of `shape` (C, h, w).

        Each picture's source gives, in diffusers' order, the sample of the picture's posterior, the
        noise, and the sample of the masked picture's.
        """
        given = self.given[part]
        tensors = [one.tensor for one in given]
        pure = self.options.masks and self.strength == 1
        needed = self.beside == 0 or not pure
        edits = self.beside == self.backbone.latent_channels
        clean = encoded(self.backbone, tensors, sources).cpu() if needed and not edits else None
        if edits and self.strength < 1:
            clean = encoded(self.backbone, tensors, sources).cpu()
        if noise is None:
            noise = torch.stack([draw(source, shape) for source in sources])
        masks = None
        if given[0].mask_tensor is not None:
            masks = torch.stack([one.mask_tensor for one in given if one.mask_tensor is not None])
        mask = None if masks is None else mask_at(masks, tuple(shape[1:]))  # type: ignore[arg-type]
        if self.options.masked_content == "noise" and clean is not None and mask is not None:
            clean = torch.where(mask > 0, noise, clean)
        beside = None
        if edits:  # not scaled, as InstructPix2Pix was trained
            beside = moments_of(self.backbone, tensors).chunk(2, dim=1)[0]
        elif self.beside:
            size = (int(shape[1]), int(shape[2]))
            beside = inpainting_channels(self.backbone, tensors, masks, sources, size)
        guidance = self.image_guidance
        return Start(noise, clean, self.strength, pure, mask, beside, edits, guidance)

    def result(self, number: int, made: Tensor) -> Tensor:
        """A generated picture (3, h, w) in [0, 1] as it is handed out, pasted where it was
        masked.
        """
        one = self.given[number]
        if one.weight is None or not (self.options.paste_back or one.box is not None):
            return made
        original = _tensor(one.picture).to(made)
        return pasted(made, original, one.weight.to(made), one.box)

    @property
    def image_guidance(self) -> float:
        """1.5 by default, as diffusers has it."""
        given = self.options.image_guidance
        return 1.5 if given is None else float(given)

    def inpaint_hint(self, number: int, size: tuple[int, int]) -> Tensor:
        """The hint of an inpaint control, (3, *size): the picture, −1 in the hole."""
        one = self.given[number]
        if one.mask_tensor is None:
            raise UserError(
                "an inpaint control without a hint takes the given picture and mask; give mask."
            )
        picture, mask = (
            torch.nn.functional.interpolate(x[None], size, mode="bilinear")[0]
            for x in (one.tensor, one.mask_tensor)
        )
        return torch.where(mask >= 0.5, -1.0, picture)

    def edited(self, start: Start, part: slice, size: tuple[int, int]) -> None:
        """Give the start of a second pass what an editing base reads, at another size."""
        known: dict[int, Tensor] = {}
        for one in self.given[part]:
            if id(one) not in known:
                larger = torch.nn.functional.interpolate(one.tensor[None], size, mode="bilinear")
                known[id(one)] = larger[0]
        tensors = [known[id(one)] for one in self.given[part]]
        start.beside = moments_of(self.backbone, tensors).chunk(2, dim=1)[0]
        start.edits, start.image_guidance = True, self.image_guidance

    # ---------------------------------------------------------------- reading

    def _strength(self, steps: int) -> float:
        """The default is diffusers': 1 where a part is kept, or the base reads the picture beside
        its latent to edit it, else 0.8.
        """
        edits = self.beside == self.backbone.latent_channels
        usual = 1.0 if self.options.masks or edits else 0.8
        strength = usual if self.options.strength is None else float(self.options.strength)
        if int(steps * strength) < 1:
            raise UserError(
                f"strength {strength:g} of {steps} steps is no step; give more of one of them."
            )
        if self.options.image_guidance is not None and not edits:
            warnings.warn(
                f"image_guidance is read by bases that edit (InstructPix2Pix), not by "
                f"{self.backbone.name}; leave it out.",
                stacklevel=5,
            )
        return strength

    def _read(self, image: Any, mask: Any) -> Given:
        picture = pictures.open_picture(image, _name(image, "the image"))
        pictures.note_transparent(image, _name(image, "the image"))
        if isinstance(mask, Tensor) and mask.is_floating_point() and mask.ndim == 2:
            weights = mask_tensor(mask, (mask.shape[1], mask.shape[0]))
            levels = (weights[0, 0] * 255).round().byte().numpy()  # type: ignore[index]
            grey: Any = pictures.open_mask(levels, "the mask")
        else:
            grey = None if mask is None else pictures.open_mask(mask, _name(mask, "the mask"))
        if grey is not None and grey.size != picture.size:
            warnings.warn(
                f"the mask is {grey.width}×{grey.height} pixels and was resized to its picture's "
                f"{picture.width}×{picture.height}.",
                stacklevel=5,
            )
            grey = grey.resize(picture.size, Image.Resampling.BILINEAR)
        sides = check_expand(self.options.expand)
        if sides:
            unit = 1 if self.options.only_masked else unit_of(self.backbone)
            picture, grey = expanded(picture, grey, sides, unit)
        return Given(picture, grey)

    def _prepare(self, one: Given, size: tuple[int, int]) -> None:
        picture, mask = one.picture, one.mask
        if mask is not None:
            usual = BLUR if self.options.only_masked else 0.0
            blur = usual if self.options.mask_blur is None else self.options.mask_blur
            one.weight = paste_weight(mask, blur)
            if self.options.masked_content == "fill":
                picture = Image.fromarray(filled(np.asarray(picture), np.asarray(mask) < 128))
        if one.box is not None:
            picture = picture.resize(size, Image.Resampling.LANCZOS, box=one.box)
            mask = mask and mask.resize(size, Image.Resampling.BILINEAR, box=one.box)
        one.tensor = _tensor(picture)
        if mask is not None:
            one.mask_tensor = torch.from_numpy(np.asarray(mask).astype(np.float32) / 255)[None]
            self._note_thin(one.mask_tensor)

    def _note_thin(self, mask: Tensor) -> None:
        """A note where nothing is masked, or much of the mask is lost at the latent's size."""
        if 0 < mask.max() < 0.5:  # of a black mask `open_mask` says so
            warnings.warn(
                f"no level of the mask reaches 128 (the largest is {float(mask.max()) * 255:.0f}), "
                "so nothing is repainted; paint it white and wider.",
                stacklevel=5,
            )
        scale = self.backbone.latent_scale
        size = mask.shape[1] // scale, mask.shape[2] // scale
        small = mask_at(mask[None], size).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        masked = mask[None] >= 0.5
        kept = (masked & (small[:, :, : mask.shape[1], : mask.shape[2]] > 0)).sum()
        if masked.any() and kept < 0.75 * masked.sum():
            mend = "a larger height and width" if self.options.only_masked else "only_masked"
            warnings.warn(
                f"{1 - float(kept / masked.sum()):.0%} of the mask is lost, as it is thinner than "
                f"a latent of {scale} pixels; paint it wider, or give {mend}.",
                stacklevel=5,
            )


def _tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255).permute(2, 0, 1)


def _name(source: Any, otherwise: str) -> str | None:
    """What messages call it: a path is its own name."""
    return None if isinstance(source, str) or hasattr(source, "__fspath__") else otherwise
