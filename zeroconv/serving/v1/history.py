"""Pictures that were made: their files, search, favourites, what they were made from."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from zeroconv.serving.errors import ApiError, JsonRoute
from zeroconv.serving.jobs.history import MOST, History
from zeroconv.serving.v1.answers import ERRORS, PNG
from zeroconv.serving.v1.schemas import ChangeBody

router = APIRouter(route_class=JsonRoute, tags=["history"], responses=ERRORS)
WEBP: dict[int | str, dict[str, Any]] = {200: {"content": {"image/webp": {}}}, **ERRORS}
# a picture's address names its content for good
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def _history(request: Request) -> History:
    return request.app.state.studio.history


@router.get("/pictures/{id}.png", response_class=FileResponse, responses=PNG)
def picture(id: str, request: Request) -> FileResponse:
    """With its metadata."""
    return _file(_history(request), id, ".png", "image/png")


@router.get("/pictures/{id}.thumb.webp", response_class=FileResponse, responses=WEBP)
def thumb(id: str, request: Request) -> FileResponse:
    return _file(_history(request), id, ".webp", "image/webp")


def _file(history: History, id: str, suffix: str, kind: str) -> FileResponse:
    path = history.path(id, suffix)
    if not path.is_file():
        raise ApiError(404, "There is no such picture.")
    return FileResponse(path, media_type=kind, headers=FOREVER)


@router.get("/history")
def search(
    request: Request,
    query: Annotated[str, Query(max_length=1000)] = "",
    before: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    favourite: bool = False,
) -> dict[str, Any]:
    """The newest first. before: the `number` of the last entry of the answer before."""
    return {"items": _history(request).search(query, before, limit, favourite)}


@router.get("/history/{id}")
def entry(id: str, request: Request) -> dict[str, Any]:
    return _history(request).entry(id)


@router.delete("/history/{id}")
def delete(id: str, request: Request) -> dict[str, Any]:
    """Its file too."""
    _history(request).delete(id)
    return {"deleted": id}


@router.patch("/history/{id}")
def change(id: str, body: ChangeBody, request: Request) -> dict[str, Any]:
    return _history(request).change(id, body.favourite, body.keep)


@router.get("/history/{id}/hints/{number}.png", response_class=Response, responses=PNG)
def hint(id: str, number: int, request: Request) -> Response:
    return _input(request, id, f"hint {number}")


@router.get("/history/{id}/regions/{number}.png", response_class=Response, responses=PNG)
def region(id: str, number: int, request: Request) -> Response:
    return _input(request, id, f"region {number}")


@router.get("/history/{id}/image.png", response_class=Response, responses=PNG)
def image(id: str, request: Request) -> Response:
    return _input(request, id, "image")


@router.get("/history/{id}/mask.png", response_class=Response, responses=PNG)
def mask(id: str, request: Request) -> Response:
    return _input(request, id, "mask")


def _input(request: Request, id: str, name: str) -> Response:
    content = _history(request).input_png(id, name)
    return Response(content, media_type="image/png", headers=FOREVER)
