"""What a generation answers: pictures, and `info` and `parameters` with A1111's fields."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from zeroconv import __version__
from zeroconv.generation.metadata import infotext
from zeroconv.serving.a1111.mapping import Wanted
from zeroconv.serving.a1111.routing import finite
from zeroconv.serving.a1111.schemas import Generating

# never sent back: pictures, and what may be of any shape and size
PICTURES = ("init_images", "mask", "alwayson_scripts", "override_settings")
NO_SEED = -1


def stamp(moment: float) -> str:
    """A1111's: 20260131235959."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(moment))


def parameters_of(body: Generating) -> dict[str, Any]:
    """The request as it was read, without its pictures."""
    return {**body.model_dump(exclude=set(PICTURES)), **dict.fromkeys(PICTURES)}


def info_of(
    body: Generating,
    wanted: Wanted,
    texts: Sequence[str],
    created: float,
    notes: Sequence[str],
    interrupted: bool,
) -> str:
    """JSON with A1111's fields, and `notes`, ours: sentences on what is other than was asked for.

    texts: A1111's text of each picture that is done.
    """
    request = wanted.request
    seeds = [request.seed + i for i in range(request.count)]
    strength = getattr(body, "denoising_strength", None)
    used = request.image is not None or request.hires is not None
    info = {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * request.count,
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [body.negative_prompt] * request.count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": NO_SEED,
        "all_subseeds": [NO_SEED] * request.count,
        "subseed_strength": 0.0,
        "width": wanted.size[0],
        "height": wanted.size[1],
        "sampler_name": infotext.SAMPLERS.get(request.sampler, request.sampler),
        "cfg_scale": request.cfg,
        "steps": request.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": request.base,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": strength if used else None,
        "extra_generation_params": _extra(wanted),
        "index_of_first_image": 0,
        "infotexts": [*texts],
        "styles": [],
        "job_timestamp": stamp(created),
        "clip_skip": wanted.skip,
        "is_using_inpainting_conditioning": False,
        "version": f"zeroconv {__version__}",
        "notes": [*notes],
        "interrupted": interrupted,
    }
    return json.dumps(finite(info), allow_nan=False)


def _extra(wanted: Wanted) -> dict[str, Any]:
    """What the extension adds: each unit in words."""
    extra: dict[str, Any] = {}
    for number, unit in enumerate(wanted.units):
        extra[f"ControlNet {number}"] = ", ".join(
            [
                f"Module: {unit.module.name}",
                f"Model: {unit.control}",
                f"Weight: {unit.weight}",
                f"Resize Mode: {infotext.RESIZES[unit.resize]}",
                f"Guidance Start: {unit.start}",
                f"Guidance End: {unit.end}",
                f"Pixel Perfect: {unit.pixel_perfect}",
                f"Control Mode: {infotext.MODES[unit.mode]}",
            ]
        )
    if wanted.request.schedule is not None:
        schedule = wanted.request.schedule
        extra["Schedule type"] = infotext.SCHEDULES.get(schedule, schedule)
    return extra
