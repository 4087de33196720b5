"""ControlNet units: what a request says of each, as a control and the hint it is to follow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import ValidationError

from zeroconv.conditions import known, open_hint, resize_hint
from zeroconv.errors import UserError
from zeroconv.pictures import open_mask, open_picture
from zeroconv.serving.a1111 import names
from zeroconv.serving.a1111.modules import Module, find_module, union_kind_of
from zeroconv.serving.a1111.schemas import Unit
from zeroconv.serving.pixels import read_picture

Decode = Callable[[str, str], Image.Image]  # (base64, what messages call it) → the picture
SCRIPT = "controlnet"


@dataclass(frozen=True)
class Asked:
    """An enabled unit, its words read and its pictures decoded.

    image: as its file has it; None: the picture that img2img starts from. mask: L, white is the
    hole. a, b: the thresholds as they were sent. connection_scales: one number a connection.
    """

    control: str
    module: Module
    image: Image.Image | None
    mask: Image.Image | None
    weight: float
    start: float
    end: float
    mode: str
    resize: str
    passes: str
    kind: str | None
    region: Image.Image | None
    connection_scales: list[float] | None
    pixel_perfect: bool
    resolution: float
    a: float
    b: float
    shown: bool  # whether its hint is among the pictures of the answer


def decoder(pixels: int) -> Decode:
    """Base64 → the picture as its file has it, of so many pixels at most."""
    return lambda text, name: read_picture(text.strip(), name, pixels)


def units_of(scripts: Mapping[str, Any]) -> list[Unit]:
    """The enabled units of `alwayson_scripts`, whatever the case of the script's name.

    Raises UserError for scripts that are not here, and for units that are none.
    """
    units = []
    for name, script in scripts.items():
        if name.strip().lower() != SCRIPT:
            raise UserError(f"always on script {name[:60]} not found")
        for number, entry in enumerate(script.args):
            if not isinstance(entry, dict):
                raise UserError(f"ControlNet unit {number} is no object; send its fields by name.")
            if not entry.get("enabled"):  # what is not used may be incomplete
                continue
            units.append(_valid(entry, number))
    return [unit for unit in units if unit.enabled]


def _valid(entry: Mapping[str, Any], number: int) -> Unit:
    try:
        return Unit.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise UserError(f"ControlNet unit {number}, {where}: {first['msg']}.") from None


def read_unit(
    unit: Unit, number: int, controls: Sequence[str], decode: Decode, starts: bool
) -> Asked:
    """controls: names that there are. starts: whether there is a picture to start from, which a
    unit without an image reads. Raises UserError.
    """
    called = f"ControlNet unit {number}"
    if unit.ipadapter_input is not None:
        raise UserError(f"{called}: ipadapter_input is never read; it could run code.")
    module = find_module(unit.module)
    if module is None:
        raise UserError(f"{called}: Module not available: {unit.module[:60]}")
    if unit.model.strip().lower() in ("", "none"):
        raise UserError(f"{called}: no model is chosen; see /controlnet/model_list.")
    control = names.listed(unit.model, controls, "ControlNet model")
    image, mask = _pictures(unit, called, decode)
    if image is None and not starts:
        raise UserError(f"{called} has no image; send it as base64.")
    painted = mask is not None and mask.getextrema()[0] < 250  # type: ignore[operator]
    if painted and module.condition != "inpaint":
        # A1111 takes a painted mask for the drawing itself
        warnings.warn(
            f"{called}: its mask is taken as its hint, and {module.name} draws nothing, as in "
            "A1111; leave the mask out to have the image read.",
            stacklevel=2,
        )
        image, mask, module = mask, None, _none()
    region = unit.effective_region_mask
    return Asked(
        control=control,
        module=module,
        image=image,
        mask=mask,
        weight=unit.weight,
        start=unit.guidance_start,
        end=unit.guidance_end,
        mode=names.control_mode_of(unit.control_mode),
        resize=names.resize_mode_of(unit.resize_mode),
        passes=names.passes_of(unit.hr_option),
        kind=union_kind_of(unit.union_control_type, module),
        region=_mask(decode, region, f"{called}: its region"),
        connection_scales=unit.advanced_weighting,
        pixel_perfect=unit.pixel_perfect,
        resolution=unit.processor_res,
        a=unit.threshold_a,
        b=unit.threshold_b,
        shown=unit.save_detected_map,
    )


def _none() -> Module:
    module = find_module("none")
    assert module is not None
    return module


def _pictures(
    unit: Unit, called: str, decode: Decode
) -> tuple[Image.Image | None, Image.Image | None]:
    """Image and mask of its forms: base64, {image, mask}, [image, mask]; "" stands for none."""
    image: Any = unit.image
    mask = unit.mask or None
    if isinstance(image, dict):
        image, mask = image.get("image"), mask or image.get("mask")
    elif isinstance(image, list):
        if len(image) > 2:
            raise UserError(f"{called} has {len(image)} images; send an image, or image and mask.")
        image, mask = (*image, None, None)[0], mask or (*image, None, None)[1]
    read = decode(image, f"{called}: its image") if image else None
    masked = _mask(decode, mask, f"{called}: its mask")
    if masked is not None and masked.getextrema()[1] <= 5:  # type: ignore[operator]
        masked = None  # a black one masks nothing, which clients send for none
    return read, masked


def _mask(decode: Decode, text: str | None, name: str) -> Image.Image | None:
    return open_mask(decode(text, name), name) if text else None


# ---------------------------------------------------------------- hints


def hint_of(
    asked: Asked, size: tuple[int, int], condition: str | None, default: int, most: int
) -> Image.Image:
    """The hint at `size` (width, height): finished, or drawn from the unit's image.

    condition: that the control reads, where it says so. default: the resolution that modules have
    where none is asked for. most: pixels of a picture that is read. Raises UserError.
    """
    assert asked.image is not None
    module, mode = asked.module, asked.resize
    if module.condition is None:
        hint, read = open_hint(asked.image, condition), known(condition)
        rule = None if read is None else read.resize
    elif module.condition == "inpaint":
        hint, rule = holed(asked.image, asked.mask), "nearest"
    else:
        picture = open_picture(asked.image)
        resolution = module.resolution(asked.resolution, default)
        if asked.pixel_perfect:
            resolution = perfect(picture.size, size, mode)
        hint = drawn(picture, module, resolution, (asked.a, asked.b), most)
        entry = known(module.condition)
        rule = None if entry is None else entry.resize
    return resize_hint(hint, size, rule, mode)  # type: ignore[arg-type]


def holed(image: Image.Image, mask: Image.Image | None) -> Image.Image:
    """An inpaint hint: the picture, transparent where the mask is white. Raises UserError."""
    if mask is None:
        if "A" in image.getbands() and image.getchannel("A").getextrema()[0] < 128:  # type: ignore
            return open_hint(image, "inpaint")
        raise UserError("an inpaint unit needs a mask: send one, or the picture with a hole.")
    picture = open_picture(image).convert("RGBA")
    grey = mask.resize(picture.size, Image.Resampling.BILINEAR)
    picture.putalpha(grey.point(lambda level: 0 if level >= 128 else 255))
    return picture


def perfect(picture: tuple[int, int], size: tuple[int, int], mode: str) -> int:
    """The shorter side that a picture has when it is scaled into `size`: A1111's pixel perfect."""
    scales = size[0] / picture[0], size[1] / picture[1]
    return max(1, round((min if mode == "fill" else max)(scales) * min(picture)))


def drawn(
    picture: Image.Image,
    module: Module,
    resolution: int,
    thresholds: tuple[float, float],
    most: int,
) -> Image.Image:
    """The hint of a picture (RGB), read at `resolution` pixels of its shorter side."""
    from zeroconv.annotators import annotate

    scaled = scaled_to(picture, resolution, most) if module.has_resolution else picture
    parameters: dict[str, Any] = module.parameters(*thresholds, min(scaled.size))
    return annotate(module.name, scaled, **parameters)


def scaled_to(picture: Image.Image, resolution: int, most: int) -> Image.Image:
    """The picture with a shorter side of so many pixels.

    Raises UserError where that is more than `most` pixels, as for long strips.
    """
    scale = resolution / min(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if width * height > most:
        raise UserError(
            f"the image is {picture.width}×{picture.height} pixels and would be read at "
            f"{width}×{height}; crop it, or ask for a smaller resolution."
        )
    return picture.resize((width, height), Image.Resampling.LANCZOS)
