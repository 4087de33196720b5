"""POST /annotate, /pose/render and /settings: small answers, computed at once."""

from __future__ import annotations

from fastapi import APIRouter

from zeroconv.serving.errors import JsonRoute
from zeroconv.serving.v1.answers import ERRORS

router = APIRouter(route_class=JsonRoute, tags=["annotate"], responses=ERRORS)
