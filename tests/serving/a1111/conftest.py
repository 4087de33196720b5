"""A server with A1111's interface whose pictures are made without a model."""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from zeroconv.serving.app import create_app
from zeroconv.serving.settings import Limits, ServerSettings

ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="session")
def encoded() -> Callable[[Image.Image], str]:
    def encode(image: Image.Image) -> str:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return base64.b64encode(buffer.getvalue()).decode()

    return encode


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill="navy")
    return image


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """`client.made` are the last requests that reached the worker; `client.app.state.studio`."""
    folder: Path = tmp_path_factory.mktemp("server") / "data"
    limits = Limits(pixels=500_000, side=512, steps=60, count=4)
    app = create_app(ServerSettings(data=folder, warm=False, limits=limits), page=False)
    studio, made = app.state.studio, deque[Any](maxlen=10)

    def make(jobs: Any) -> None:
        for job in jobs:
            made.append(job.work)
            for number in range(job.work.count):
                seed = job.work.seed + number
                image = Image.new("RGB", (job.work.width, job.work.height), (seed % 256, 0, 0))
                about = {"prompt": job.work.prompt, "steps": job.work.steps, "seed": seed}
                about |= {"scheduler": job.work.sampler, "cfg": job.work.cfg}
                job.results.append(studio.history.add(job.id, image, about, {}))

    studio.worker.kinds["generate"] = make
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as session:
        session.made = made  # type: ignore[attr-defined]
        session.folder = folder  # type: ignore[attr-defined]
        yield session
