"""GET /info and /models, POST /login."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from zeroconv.serving.errors import ApiError, JsonRoute
from zeroconv.serving.names import conditions, fast_presets, samplers, schedules
from zeroconv.serving.security import COOKIE, WRONG_TOKEN_SECONDS, cookie_value, same
from zeroconv.serving.studio import Studio
from zeroconv.serving.v1.answers import ERRORS
from zeroconv.serving.v1.schemas import LoginBody

router = APIRouter(route_class=JsonRoute, tags=["about"], responses=ERRORS)
DAYS = 30


@router.get("/info")
def info(request: Request) -> dict[str, Any]:
    """Needs no token."""
    from zeroconv import __version__

    studio: Studio = request.app.state.studio
    settings = studio.settings
    return {
        "version": __version__,
        "base": studio.catalogue.default,
        "fast": settings.fast,
        "engine": settings.engine,
        "training_allowed": settings.allow_training,
        "token_needed": settings.token is not None,
        "limits": asdict(settings.limits),
    }


@router.get("/models")
def models(request: Request) -> dict[str, Any]:
    """What may be named in requests."""
    studio: Studio = request.app.state.studio
    names = studio.catalogue
    return {
        "bases": [{"name": e.name, **e.facts} for e in names.bases.values()],
        "controls": [{"name": e.name, **e.facts} for e in names.controls.values()],
        "loras": [{"name": e.name} for e in names.loras.values()],
        "datasets": [{"name": e.name} for e in names.datasets.values()],
        "samplers": samplers(),
        "schedules": schedules(),
        "fast": fast_presets(),
        "conditions": conditions(),
    }


@router.post("/login")
async def login(body: LoginBody, request: Request) -> JSONResponse:
    """Set a cookie in place of the token."""
    token = request.app.state.studio.settings.token
    if token is None:
        return JSONResponse({"token_needed": False})
    if not same(body.token, token):
        await asyncio.sleep(WRONG_TOKEN_SECONDS)
        raise ApiError(401, "This is not the token; look where the server was started.")
    response = JSONResponse({"token_needed": True})
    response.set_cookie(
        COOKIE, cookie_value(token), httponly=True, samesite="strict", max_age=DAYS * 86400,
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return response
