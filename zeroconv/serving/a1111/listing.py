"""What A1111 lists: samplers, models, options and the like; and what a picture's file says."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request

from zeroconv.generation.metadata.infotext import NEGATIVE, split_settings
from zeroconv.pictures import picture_size
from zeroconv.pictures.carried import carried
from zeroconv.serving.a1111 import names
from zeroconv.serving.a1111.routing import Answer, Route, in_few_threads, studio_of
from zeroconv.serving.a1111.schemas import PngInfo
from zeroconv.serving.a1111.state import state_of
from zeroconv.serving.holding import count_pixels
from zeroconv.serving.pixels import picture_bytes

PREFIX = "/sdapi/v1"
# clients of the ControlNet extension look for its second script to know that it is there
SCRIPTS = ["controlnet", "controlnet m2m"]
LONGEST = 1_000_000  # characters of a text that is read

router = APIRouter(route_class=Route, include_in_schema=False)


@router.get(f"{PREFIX}/options")
async def options(request: Request) -> Answer:
    return Answer(state_of(request).shown())


@router.post(f"{PREFIX}/options")
async def set_options(request: Request, given: dict[str, Any]) -> Answer:
    state_of(request).set(given)
    return Answer(None)


@router.get(f"{PREFIX}/samplers")
async def samplers() -> Answer:
    return Answer(names.samplers())


@router.get(f"{PREFIX}/schedulers")
async def schedulers() -> Answer:
    return Answer(names.schedulers())


@router.get(f"{PREFIX}/upscalers")
async def upscalers() -> Answer:
    return Answer(names.upscalers())


@router.get(f"{PREFIX}/latent-upscale-modes")
async def latent_upscale_modes() -> Answer:
    return Answer(names.latent_modes())


@router.get(f"{PREFIX}/sd-models")
async def sd_models(request: Request) -> Answer:
    """Names alone: neither paths nor hashes, which would need whole files to be read."""
    none = {"hash": None, "sha256": None, "config": None}
    bases = studio_of(request).catalogue.bases
    return Answer([{"title": n, "model_name": n, "filename": n, **none} for n in bases])


@router.get(f"{PREFIX}/loras")
async def loras(request: Request) -> Answer:
    listed = studio_of(request).catalogue.loras
    return Answer([{"name": n, "alias": n, "path": n, "metadata": {}} for n in listed])


@router.get(f"{PREFIX}/scripts")
async def scripts() -> Answer:
    return Answer({"txt2img": SCRIPTS, "img2img": SCRIPTS})


@router.get(f"{PREFIX}/script-info")
async def script_info() -> Answer:
    entry = {"name": SCRIPTS[0], "is_alwayson": True, "args": []}
    return Answer([{**entry, "is_img2img": is_img2img} for is_img2img in (False, True)])


@router.get(f"{PREFIX}/embeddings")
async def embeddings() -> Answer:
    return Answer({"loaded": {}, "skipped": {}})


@router.get(f"{PREFIX}/memory")
async def memory(request: Request) -> Answer:
    """Bytes: `total` is the budget of loaded models."""
    models = studio_of(request).models
    used = models.held()
    ram = {"free": max(0, models.budget - used), "used": used, "total": models.budget}
    return Answer({"ram": ram, "cuda": {"error": "unavailable"}})


@router.get(f"{PREFIX}/cmd-flags")
async def cmd_flags(request: Request) -> Answer:
    settings = studio_of(request).settings
    return Answer({"api": True, "listen": not settings.loopback, "port": settings.port})


@router.get("/login_check")
async def login_check() -> Answer:
    return Answer(True)


async def nothing() -> Answer:
    return Answer([])


async def unchanged() -> Answer:
    """What there is was listed when the server started."""
    return Answer(None)


for _name in (
    "sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles",
):  # fmt: skip
    router.add_api_route(f"{PREFIX}/{_name}", nothing, methods=["GET"])
for _name in ("refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings"):
    router.add_api_route(f"{PREFIX}/{_name}", unchanged, methods=["POST"])


@router.post(f"{PREFIX}/png-info")
async def png_info(body: PngInfo, request: Request) -> Answer:
    """What a picture's file says on its making; nothing where it says nothing."""
    pixels = studio_of(request).settings.limits.pixels

    def read() -> dict[str, Any]:
        content = picture_bytes(body.image.strip(), "image", pixels)
        count_pixels(math.prod(picture_size(content, "image", pixels)))
        texts = carried(content, "image")
        text = texts.get("parameters", "")
        items = {key: value for key, value in texts.items() if key in ("parameters", "prompt")}
        return {"info": text, "items": items, "parameters": parameters_of(text)}

    with studio_of(request).room.request():
        return Answer(await in_few_threads(request, read))


def parameters_of(text: str) -> dict[str, Any]:
    """A1111's names and values of its text."""
    if not text or len(text) > LONGEST:
        return {}
    lines = text.strip().split("\n")
    settings = split_settings(lines[-1])
    if "Steps" in settings:
        lines.pop()
    else:
        settings = {}
    at = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:])[len(NEGATIVE) :].strip()
    read: dict[str, Any] = {"Prompt": "\n".join(lines[:at]).strip(), "Negative prompt": negative}
    read |= settings
    width, cross, height = settings.get("Size", "").partition("x")
    if cross:
        read |= {"Size-1": width, "Size-2": height}
    return read
