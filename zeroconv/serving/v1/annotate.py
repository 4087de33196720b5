"""POST /annotate, /pose/render and /settings: small answers, computed at once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from zeroconv.errors import UserError
from zeroconv.serving.annotating import draw, pose_picture
from zeroconv.serving.errors import JsonRoute
from zeroconv.serving.pixels import data_url, picture_bytes, read_rgb
from zeroconv.serving.reading import settings_of
from zeroconv.serving.studio import Studio
from zeroconv.serving.v1.answers import ERRORS
from zeroconv.serving.v1.schemas import AnnotateBody, PictureBody, PoseBody

router = APIRouter(route_class=JsonRoute, tags=["annotate"], responses=ERRORS)


@router.post("/annotate")
async def annotate(body: AnnotateBody, request: Request) -> dict[str, Any]:
    """The hint of a picture; of a pose also the people, as OpenPose's JSON. With width and height
    the picture is brought to that size first, as /generate does.
    """
    studio: Studio = request.app.state.studio
    limits = studio.settings.limits

    def work() -> dict[str, Any]:
        picture = read_rgb(body.picture, "picture", limits.pixels)
        size = body.width or picture.width, body.height or picture.height
        if size[0] * size[1] > limits.pixels:
            raise UserError(
                f"a hint of {size[0]}×{size[1]} pixels is too large; this server draws "
                f"{limits.pixels:,} pixels at most"
            )
        hint, pose = draw(body.condition, picture, body.options, size, body.resize)
        return {"hint": data_url(hint), "pose": pose}

    answer, notes = await studio.call(work, request.is_disconnected)
    return {**answer, "notes": notes}


@router.post("/pose/render")
async def render(body: PoseBody, request: Request) -> dict[str, Any]:
    """OpenPose's JSON as a pose hint, at its canvas' size."""
    studio: Studio = request.app.state.studio
    pixels = studio.settings.limits.pixels
    draw_pose = partial(pose_picture, body.root, pixels)
    hint, notes = await studio.call(draw_pose, request.is_disconnected)
    return {"hint": data_url(hint), "notes": notes}


@router.post("/settings")
async def settings(body: PictureBody, request: Request) -> dict[str, Any]:
    """What a picture's file says of its making, by zeroconv, A1111 or ComfyUI: `settings`, a body
    of /generate, and `notes` on what is not read.
    """
    studio: Studio = request.app.state.studio

    def read() -> dict[str, Any]:
        pixels = studio.settings.limits.pixels
        content = picture_bytes(body.picture, "the picture", pixels)
        with studio.room.request():
            return settings_of(content, studio.catalogue, pixels)

    return await asyncio.to_thread(read)
