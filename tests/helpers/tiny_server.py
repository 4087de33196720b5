"""A server on a tiny base with two tiny controls, without a socket; and pictures for requests."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from tests.helpers.tiny import randomise_
from tests.helpers.tiny_folder import save_backbone
from zeroconv.serving.app import create_app
from zeroconv.serving.settings import ServerSettings

ADDRESS = "http://127.0.0.1:7860"
QUICK = {"prompt": "a cat", "steps": 2, "sampler": "euler", "seed": 3}


def write_models(folder: Path) -> Path:
    """base/, a pipeline of 64-pixel pictures, and tiny_canny/ and tiny_depth/, controls that are
    not zero.
    """
    from zeroconv.control import ControlNet

    backbone = save_backbone(folder / "base")
    for name in ("canny", "depth"):
        control = ControlNet.from_backbone(backbone, condition=name)
        randomise_(control).save(folder / f"tiny_{name}")
    return folder


def settings_for(models: Path, data: Path, **more: Any) -> ServerSettings:
    """Of a server whose default base is the tiny one, named "base"."""
    controls = tuple(str(models / f"tiny_{name}") for name in ("canny", "depth"))
    given: dict[str, Any] = {"base": str(models / "base"), "controls": controls, "data": data}
    given |= {"warm": False, "device": "cpu", "dtype": "float32"}
    return ServerSettings(**(given | more))


@contextmanager
def running(settings: ServerSettings, **options: Any) -> Iterator[TestClient]:
    """A client of a server that runs while inside; other exceptions than answers are not raised."""
    app = create_app(settings, **options)
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
        yield client


def ended(client: TestClient, job: dict[str, Any], seconds: float = 300) -> dict[str, Any]:
    """The job when it has ended."""
    until = time.monotonic() + seconds
    while job["state"] in ("queued", "running") and time.monotonic() < until:
        time.sleep(0.01)
        job = client.get(f"/api/v1/jobs/{job['id']}").json()
    assert job["state"] not in ("queued", "running"), job
    return job


def made(client: TestClient, **body: Any) -> dict[str, Any]:
    """The job of a request for pictures, done."""
    answer = client.post("/api/v1/generate", json={**QUICK, **body})
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json())
    assert job["state"] == "done", job
    return job


def picture(size: tuple[int, int] = (64, 64), colour: Any = (200, 30, 30)) -> Image.Image:
    """A box on white."""
    image = Image.new("RGB", size, "white")
    image.paste(colour, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] * 3 // 4))
    return image


def as_base64(image: Image.Image, format: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return base64.b64encode(buffer.getvalue()).decode()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))
