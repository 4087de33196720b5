"""What a request of A1111's asks for, in the words of our own: pure functions.

What changes the picture and cannot be done is refused with a sentence; what changes it little is
left out with a note.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zeroconv.errors import UserError
from zeroconv.prompts import loras_of, parse, write
from zeroconv.serving.a1111 import names
from zeroconv.serving.a1111.schemas import Generating, Img2Img, Txt2Img
from zeroconv.serving.a1111.second_pass import UNIT, rounded, second_pass
from zeroconv.serving.a1111.starting import given_picture
from zeroconv.serving.a1111.units import Asked, Decode, read_unit, units_of
from zeroconv.serving.generation import Generation

SEEDS = 2**32  # a seed by chance is below


@dataclass(frozen=True)
class Known:
    """What requests may name, and what the server's options are now.

    bases: names and their sizes in pixels. side, units: how many pixels a
    side and enabled units a request may have.
    """

    bases: Mapping[str, int]
    controls: Sequence[str]
    loras: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    side: int = 2048
    units: int = 8


@dataclass(frozen=True)
class Wanted:
    """A request, read. request: in our terms, without its controls, which `units` says."""

    request: Generation
    units: list[Asked]
    skip: int  # A1111's clip skip: 1 leaves nothing out

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        assert self.request.width is not None and self.request.height is not None
        return self.request.width, self.request.height

    @property
    def hint_size(self) -> tuple[int, int]:
        """Of the hints: with only_masked that of the given picture, else of the largest pass."""
        request = self.request
        if request.only_masked and request.image is not None:
            return request.image.size
        width, height = (max(1, round(side * (request.hires or 1))) for side in self.size)
        return width, height


def read_txt2img(body: Txt2Img, known: Known, decode: Decode, chance: int) -> Wanted:
    """chance: the seed of requests that ask for none. Raises UserError."""
    base = base_of(body, known)
    size, hires = second_pass(body, size_of(body, known.bases[base], known.side))
    return _read(body, known, decode, chance, base, size, hires)


def read_img2img(body: Img2Img, known: Known, decode: Decode, chance: int) -> Wanted:
    """Raises UserError."""
    base = base_of(body, known)
    size = size_of(body, known.bases[base], known.side)
    return _read(body, known, decode, chance, base, size, given_picture(body, size, decode))


def _read(
    body: Generating,
    known: Known,
    decode: Decode,
    chance: int,
    base: str,
    size: tuple[int, int],
    more: Mapping[str, Any],
) -> Wanted:
    refuse(body)
    sampler, schedule, notes = names.sampler_of(
        body.sampler_name or body.sampler_index, body.scheduler
    )
    for sentence in notes:
        warnings.warn(sentence, stacklevel=2)
    skip = clip_skip_of(body, known.options)
    asked = units_of(body.alwayson_scripts)
    if len(asked) > known.units:
        raise UserError(f"{len(asked)} units are enabled; this server allows {known.units}.")
    units = [
        read_unit(unit, number, known.controls, decode, "image" in more)
        for number, unit in enumerate(asked)
    ]
    request = Generation(
        prompt=prompt_of(body, known.loras),
        negative=body.negative_prompt,
        base=base,
        steps=body.steps,
        cfg=body.cfg_scale,
        seed=body.seed if body.seed >= 0 else chance,
        count=body.batch_size * body.n_iter,
        width=size[0],
        height=size[1],
        sampler=sampler,
        schedule=schedule,
        guidance="both",  # A1111's "Balanced": residuals in both halves of guidance
        clip_skip=skip - 1 or None,
        eta=body.eta if sampler in names.TAKING_ETA else None,
        previews=True,
        **more,
    )
    return Wanted(request, units, skip)


# ---------------------------------------------------------------- settings


OVERRIDES = ("sd_model_checkpoint", "CLIP_stop_at_last_layers", "sd_vae")


def base_of(body: Generating, known: Known) -> str:
    """The base that override_settings or the server's options name. Raises UserError."""
    title = body.override_settings.get("sd_model_checkpoint")
    title = title or known.options.get("sd_model_checkpoint") or next(iter(known.bases))
    if not isinstance(title, str):
        raise UserError("override_settings.sd_model_checkpoint is a name; see /sdapi/v1/sd-models.")
    return names.listed(title, list(known.bases), "checkpoint")


def clip_skip_of(body: Generating, options: Mapping[str, Any]) -> int:
    """A1111's number, from 1 on. Raises UserError; a note on overrides that are not read."""
    unread = [name[:40] for name in body.override_settings if name not in OVERRIDES]
    if unread:
        warnings.warn(
            f"override_settings {', '.join(unread[:20])} are not read here.", stacklevel=3
        )
    check_vae(body.override_settings.get("sd_vae"))
    name = "CLIP_stop_at_last_layers"
    return checked_skip(body.override_settings.get(name) or options.get(name) or 1)


def checked_skip(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 12:
        raise UserError(
            f"CLIP_stop_at_last_layers is {str(value)[:40]}; give a whole number from 1 to 12."
        )
    return int(value)


def check_vae(name: Any) -> None:
    """Raises UserError for a VAE that is not the base's own."""
    if str(name or "None").strip().lower() not in ("none", "automatic"):
        raise UserError(
            f"sd_vae {str(name)[:60]!r} is not here: each base has its own VAE; send Automatic."
        )


def size_of(body: Generating, default: int, most: int) -> tuple[int, int]:
    """Width and height, multiples of `UNIT`; a note where they are rounded down.

    Raises UserError beyond `most`: before pictures are brought to that size.
    """
    asked = body.width or default, body.height or default
    for name, side in zip(("width", "height"), asked, strict=True):
        if side > most:
            raise UserError(f"{name} is {side}; this server allows {most} at most")
    sides = [rounded(side) for side in asked]
    if tuple(sides) != asked:
        warnings.warn(
            f"{asked[0]}×{asked[1]} pixels were rounded to {sides[0]}×{sides[1]}, multiples of "
            f"{UNIT}.",
            stacklevel=3,
        )
    return sides[0], sides[1]


def refuse(body: Generating) -> None:
    """Raise UserError for what would change the picture and is not here."""
    refused = {
        "subseed_strength": body.subseed_strength != 0,
        "seed_resize_from_w and _h": min(body.seed_resize_from_w, body.seed_resize_from_h) > 0,
        "restore_faces": body.restore_faces,
        "tiling": body.tiling,
        "refiner_checkpoint": bool(body.refiner_checkpoint),
        "s_churn": body.s_churn != 0,
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise UserError(f"{name} is not here; leave it out.")
    if body.script_name:
        raise UserError(f"Script '{body.script_name[:60]}' not found")
    if body.styles:
        listed = ", ".join(style[:40] for style in body.styles[:20])
        warnings.warn(f"styles {listed} are not here and were left out.", stacklevel=3)
    if body.s_noise != 1:
        warnings.warn("s_noise is not read here; noise has its usual strength.", stacklevel=3)


def prompt_of(body: Generating, loras: Sequence[str]) -> str:
    """The prompt, whose `<lora:name:weight>` have the names that are listed; without them where
    they are not wanted. Raises UserError for a LoRA that is not listed.
    """
    if body.disable_extra_networks:
        return write(replace(parse(body.prompt), loras=()))
    prompt = body.prompt
    for name in dict.fromkeys(tag.name for tag in loras_of(prompt)):
        known = names.listed(name, loras, "LoRA")
        if known != name:
            tag = re.compile(rf"(<\s*(?i:lora|lyco)\s*:\s*){re.escape(name)}(?=\s*[:>])")
            prompt = tag.sub(lambda match, known=known: match[1] + known, prompt)  # type: ignore
    return prompt
