"""The application: routes, security before them, and the worker's life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from zeroconv.serving import errors, v1
from zeroconv.serving.security import Security
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.studio import Studio

PAGE = Path(__file__).resolve().parent / "page"


class Static(StaticFiles):
    """The page's files; a browser asks whether they have changed, as there is no build that would
    name them anew.
    """

    def file_response(self, *args: Any, **named: Any) -> Response:
        response = super().file_response(*args, **named)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response


def create_app(settings: ServerSettings, *, page: bool = True) -> FastAPI:
    """The server of `settings`; with `page` also the studio's page, where it is installed.

    `app.state.studio` is its `Studio`. Raises UserError for what the server is started with and
    cannot be used.
    """
    from zeroconv import __version__

    studio = Studio(settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        studio.start()
        yield
        studio.stop()

    app = FastAPI(
        title="zeroconv",
        version=__version__,
        lifespan=life,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.studio = studio
    app.add_middleware(Security, settings=settings)
    errors.install(app)
    for router in v1.routers:
        app.include_router(router, prefix="/api/v1")
    _add_a1111(app)
    if page and (PAGE / "index.html").is_file():
        app.mount("/static", Static(directory=PAGE), name="static")

        @app.get("/", include_in_schema=False)
        async def index() -> FileResponse:
            return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return app


def _add_a1111(app: FastAPI) -> None:
    """A1111's interface, where it is installed."""
    if find_spec("zeroconv.serving.a1111") is not None:
        for router in import_module("zeroconv.serving.a1111").routers:
            app.include_router(router)
