"""From the body of /generate to a `Generation`: its pictures decoded."""

from __future__ import annotations

from typing import Any

from zeroconv.errors import UserError
from zeroconv.serving.annotating import check_pose
from zeroconv.serving.generation import Generation, Unit
from zeroconv.serving.pixels import read_loaded, read_mask, read_rgb
from zeroconv.serving.settings import Limits
from zeroconv.serving.v1.schemas import ControlBody, GenerateBody


def generation_of(body: GenerateBody, limits: Limits) -> Generation:
    """Raises UserError for a picture that is none."""
    special = {"image", "mask", "hires", "controls", "loras", "expand"}
    plain = body.model_dump(exclude=special)
    request = Generation(**plain)
    request.loras = [(lora.name, lora.scale) for lora in body.loras]
    if body.expand is not None:
        request.expand = {k: v for k, v in body.expand.model_dump().items() if v} or None
    if body.image is not None:
        request.image = read_rgb(body.image, "image", limits.pixels)
    if body.mask is not None:
        request.mask = read_mask(body.mask, "mask", limits.pixels)
    if body.hires is not None:
        request.hires, request.hires_strength = body.hires.factor, body.hires.strength
        request.hires_steps, request.hires_upscaler = body.hires.steps, body.hires.upscaler
    if len(body.controls) > limits.controls:
        raise UserError(f"controls has {len(body.controls)} entries; send {limits.controls}.")
    request.controls = [unit_of(c, f"controls.{i}", limits) for i, c in enumerate(body.controls)]
    return request


def unit_of(body: ControlBody, name: str, limits: Limits) -> Unit:
    given = [k for k in ("hint", "source", "pose_json") if getattr(body, k) is not None]
    if len(given) > 1:
        raise UserError(f"{name} has {' and '.join(given)}; send one of them.")
    if body.source is None and (body.options or body.condition) and given:
        raise UserError(f"{name}.condition and options are about a source; send source.")
    special = {"hint", "source", "pose_json", "region"}
    unit = Unit(**body.model_dump(exclude=special))
    pixels = limits.pixels
    pictures: dict[str, Any] = {}
    if body.hint is not None:
        pictures["hint"] = read_loaded(body.hint, f"{name}.hint", pixels)
    if body.source is not None:
        pictures["source"] = read_rgb(body.source, f"{name}.source", pixels)
    if body.region is not None:
        pictures["region"] = read_mask(body.region, f"{name}.region", pixels)
    if body.pose_json is not None:
        check_pose(body.pose_json, pixels)
        pictures["pose"] = body.pose_json
    for field, value in pictures.items():
        setattr(unit, field, value)
    return unit
