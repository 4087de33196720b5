"""A1111's second pass ("hires fix"): its size, and what else it asks for."""

from __future__ import annotations

import warnings
from typing import Any

from zeroconv.errors import UserError
from zeroconv.serving.a1111 import names
from zeroconv.serving.a1111.schemas import Txt2Img

UNIT = 8  # pixels; sides are rounded down to multiples of it, as in A1111


def rounded(side: int) -> int:
    return max(UNIT, side // UNIT * UNIT)


def second_pass(body: Txt2Img, size: tuple[int, int]) -> tuple[tuple[int, int], dict[str, Any]]:
    """The size of the first pass, and the fields of the second. Raises UserError."""
    if not body.enable_hr:
        return size, {}
    target = body.hr_resize_x, body.hr_resize_y
    if body.firstphase_width and body.firstphase_height:  # the older way: both sizes
        target = size
        first = body.firstphase_width, body.firstphase_height
        size = rounded(first[0]), rounded(first[1])
    for name, given, same in (
        ("hr_checkpoint_name", body.hr_checkpoint_name, ("use same checkpoint",)),
        ("hr_sampler_name", body.hr_sampler_name, ("use same sampler", _lower(body.sampler_name))),
        ("hr_scheduler", body.hr_scheduler, ("use same scheduler", body.scheduler.lower())),
        ("hr_prompt", body.hr_prompt, (body.prompt.lower(),)),
        ("hr_negative_prompt", body.hr_negative_prompt, (body.negative_prompt.lower(),)),
    ):
        if given and given.lower() not in same:
            raise UserError(f"{name} is not here: the second pass has the first's; leave it out.")
    upscaler, notes = names.upscaler_of(body.hr_upscaler)
    for sentence in notes:
        warnings.warn(sentence, stacklevel=3)
    return size, {
        "hires": factor_of(size, target, body.hr_scale),
        "hires_strength": body.denoising_strength,
        "hires_steps": body.hr_second_pass_steps or None,
        "hires_upscaler": upscaler,
    }


def factor_of(size: tuple[int, int], target: tuple[int, int], scale: float) -> float:
    """How much larger the second pass is; target: its sides, 0 for what is not asked for.

    Raises UserError for a target of another shape.
    """
    factors = [wanted / side for wanted, side in zip(target, size, strict=True) if wanted]
    if not factors:
        return scale
    if len(factors) == 2 and abs(factors[0] - factors[1]) > UNIT / min(size):
        raise UserError(
            f"hr_resize_x and hr_resize_y ask for {target[0]}×{target[1]}, another shape than "
            f"{size[0]}×{size[1]}; give one of them, or hr_scale."
        )
    return factors[0]


def _lower(name: str | None) -> str:
    return (name or "").lower()
