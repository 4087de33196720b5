"""The picture that img2img starts from, and its mask."""

from __future__ import annotations

import warnings
from typing import Any

from PIL import Image, ImageChops, ImageFilter

from zeroconv.errors import UserError
from zeroconv.pictures import fit_into, open_mask, open_picture
from zeroconv.serving.a1111.schemas import Img2Img
from zeroconv.serving.a1111.units import Decode

RESIZES = ("stretch", "crop", "fill", "stretch")  # by img2img's resize_mode; 3 resizes latents
CONTENTS = ("fill", "original", "noise")  # by inpainting_fill


def given_picture(body: Img2Img, size: tuple[int, int], decode: Decode) -> dict[str, Any]:
    """The fields of picture, mask and strength. Raises UserError."""
    if len(body.init_images) > 1:
        raise UserError("init_images has several pictures; send one a request.")
    if body.initial_noise_multiplier != 1:
        raise UserError("initial_noise_multiplier is not here; leave it at 1.")
    if body.image_cfg_scale != 1.5:
        warnings.warn("image_cfg_scale is not read here; it stays 1.5.", stacklevel=3)
    if body.resize_mode == 3:
        warnings.warn("resize_mode 3 resizes the picture, not its latents.", stacklevel=3)
    picture = open_picture(decode(body.init_images[0], "init_images"), "init_images")
    options: dict[str, Any] = {"strength": body.denoising_strength}
    if body.mask is None:
        return options | {"image": fitted(picture, size, RESIZES[body.resize_mode])}

    mask = mask_of(body, picture.size, decode)
    if body.inpainting_fill == 3:
        raise UserError("inpainting_fill 3 (latent nothing) is not here; send 0, 1 or 2.")
    options["masked_content"] = CONTENTS[body.inpainting_fill]
    options["mask_blur"] = blur_of(body)
    if body.inpaint_full_res:
        if mask.getextrema()[1] < 128:  # type: ignore[operator]
            raise UserError("the mask is black, so there is nothing to paint; paint it.")
        options |= {"only_masked": True, "padding": body.inpaint_full_res_padding}
        return options | {"image": picture, "mask": mask}
    mode = RESIZES[body.resize_mode]
    return options | {"image": fitted(picture, size, mode), "mask": fitted(mask, size, mode)}


def mask_of(body: Img2Img, size: tuple[int, int], decode: Decode) -> Image.Image:
    """The mask (L) at the size of its picture, white where it is painted."""
    assert body.mask is not None
    mask = open_mask(decode(body.mask, "mask"), "mask")
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    return ImageChops.invert(mask) if body.inpainting_mask_invert else mask


def blur_of(body: Img2Img) -> float:
    """σ in pixels; a note where it is not the same in both directions."""
    if body.mask_blur is not None:
        return body.mask_blur
    if body.mask_blur_x != body.mask_blur_y:
        warnings.warn(
            f"mask_blur_x {body.mask_blur_x:g} and mask_blur_y {body.mask_blur_y:g} are one "
            "number here: the larger one.",
            stacklevel=4,
        )
    return max(body.mask_blur_x, body.mask_blur_y)


def fitted(picture: Image.Image, size: tuple[int, int], mode: str) -> Image.Image:
    """A picture or a mask (RGB or L) at `size` (width, height): stretch, crop, or fill, where what
    surrounds a picture is its border, blurred outwards, and what surrounds a mask is black.
    """
    fit = fit_into(picture.size, size, mode)  # type: ignore[arg-type]
    scaled = picture.crop(fit.box).resize(fit.size, Image.Resampling.LANCZOS)
    if fit.size == size:
        return scaled
    frame = Image.new(picture.mode, size)
    if mode == "fill" and picture.mode == "RGB":
        frame = picture.resize(size, Image.Resampling.BOX).filter(
            ImageFilter.GaussianBlur(max(size) / 16)
        )
    frame.paste(scaled, fit.corner)
    return frame
