"""`/controlnet/…`: what A1111's ControlNet extension answers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from PIL import Image

from zeroconv.annotators import annotate, draw_pose, read
from zeroconv.conditions import to_draw
from zeroconv.conditions.hints import pose_parts, shown
from zeroconv.conditions.openpose import read_openpose, to_openpose
from zeroconv.errors import UserError
from zeroconv.pictures import open_mask, open_picture
from zeroconv.serving.a1111.hints import of_network
from zeroconv.serving.a1111.modules import Module, control_types, find_module, modules
from zeroconv.serving.a1111.routing import (
    Answer,
    Route,
    drawn_beside,
    in_few_threads,
    refused,
    studio_of,
    with_notes,
)
from zeroconv.serving.a1111.schemas import Detect
from zeroconv.serving.a1111.state import FIXED, state_of
from zeroconv.serving.a1111.units import decoder, drawn, holed, scaled_to
from zeroconv.serving.annotating import MOST_PEOPLE
from zeroconv.serving.pixels import png_base64
from zeroconv.stopping import stop_if_asked

VERSION = 3
MOST_CANVASES = 32
NO_POSE = "No pose data detected."

router = APIRouter(route_class=Route, include_in_schema=False, prefix="/controlnet")


@router.get("/version")
async def version() -> Answer:
    return Answer({"version": VERSION})


@router.get("/settings")
async def settings() -> Answer:
    name = "control_net_unit_count"
    return Answer({name: FIXED[name]})


@router.get("/model_list")
async def model_list(request: Request) -> Answer:
    return Answer({"model_list": list(studio_of(request).catalogue.controls)})


@router.get("/module_list")
async def module_list(request: Request) -> Answer:
    """The same with alias_names: what is listed holds A1111's names and its labels."""
    able, default = modules(), state_of(request).resolution
    details = {name: module.detail(default) for name, module in able.items()}
    return Answer({"module_list": list(able), "module_detail": details})


@router.get("/control_types")
async def types(request: Request) -> Answer:
    controls = studio_of(request).catalogue.controls
    read_by = {name: entry.facts.get("condition") for name, entry in controls.items()}
    return Answer({"control_types": control_types(read_by)})


@router.post("/detect")
async def detect(body: Detect, request: Request) -> Answer:
    module = find_module(body.controlnet_module)
    if module is None:
        return refused(422, "Module not available")
    if not body.pictures:
        return refused(422, "No image selected")
    studio, theirs = studio_of(request), state_of(request).jobs
    limits = studio.settings.limits
    if len(body.pictures) > limits.count:
        raise UserError(f"{len(body.pictures)} images are more than {limits.count}, the limit.")
    default = state_of(request).resolution

    def work() -> tuple[list[str], list[Any]]:
        return _detected(body, module, default, limits.pixels)

    notes: list[str] = []
    if of_network(module):
        (images, poses), notes = await studio.call(work, request.is_disconnected, theirs=theirs)
    else:
        with studio.room.request():
            images, poses = await drawn_beside(request, theirs, with_notes(work, notes))
    more = {"notes": notes} if notes else {}
    return Answer({"images": images, "info": "Success", "poses": poses, **more})


def _detected(body: Detect, module: Module, default: int, most: int) -> tuple[list[str], list[Any]]:
    """The hint of each picture as base64, and of poses their OpenPose JSON."""
    images, poses = [], []
    decode = decoder(most)
    for number, text in enumerate(body.pictures):
        stop_if_asked()
        picture = decode(text, f"image {number}")
        mask = (body.controlnet_masks + [None] * (number + 1))[number]
        resolution = module.resolution(body.controlnet_processor_res, default)
        a, b = body.controlnet_threshold_a, body.controlnet_threshold_b
        if module.condition is None:
            hint = open_picture(picture)
        elif module.condition == "inpaint":
            hole = open_mask(decode(mask, f"mask {number}")) if mask else None
            hint = holed(picture, hole)
        elif module.condition == "pose":
            hint, pose = _posed(open_picture(picture), module, resolution, most)
            poses.append(pose)
        else:
            hint = drawn(open_picture(picture), module, resolution, (a, b), most)
        images.append(png_base64(hint))
    return images, poses


def _posed(
    picture: Image.Image, module: Module, resolution: int, most: int
) -> tuple[Image.Image, dict[str, Any]]:
    """The people of a picture, drawn and as OpenPose's JSON."""
    scaled = scaled_to(picture, resolution, most)
    asked = pose_parts(to_draw(module.name)[1])
    persons = read("pose", scaled, hands=asked["hands"], face=asked["face"])
    people = [shown(person.figure, asked) for person in persons]
    return draw_pose(people, scaled.size), to_openpose(people, scaled.size)


@router.post("/render_openpose_json")
async def render_openpose_json(poses: list[dict[str, Any]], request: Request) -> Answer:
    """A list of OpenPose's objects, one a picture."""
    if not poses:
        return Answer({"info": NO_POSE})
    pixels = studio_of(request).settings.limits.pixels
    if len(poses) > MOST_CANVASES:
        raise UserError(f"{len(poses)} canvases are more than {MOST_CANVASES}, the limit.")
    images = await in_few_threads(request, lambda: [_rendered(pose, pixels) for pose in poses])
    return Answer({"images": images, "info": "Success"})


def _rendered(pose: dict[str, Any], pixels: int) -> str:
    people, size = read_openpose(pose)
    if len(people) > MOST_PEOPLE:
        raise UserError(f"{len(people)} people are more than {MOST_PEOPLE}, the limit.")
    if size[0] * size[1] > pixels:
        raise UserError(f"a canvas of {size[0]}×{size[1]} pixels is too large: {pixels:,} at most.")
    return png_base64(annotate("pose", pose))
