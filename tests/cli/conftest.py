"""A tiny base model and a tiny control, saved as users meet them: folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.helpers.tiny import randomise_
from tests.helpers.tiny_folder import save_backbone
from zeroconv.cli import app


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, a pipeline of 64-pixel pictures, and canny/ and depth/, controls that
    are not zero.
    """
    from zeroconv.control import ControlNet

    folder = tmp_path_factory.mktemp("models")
    backbone = save_backbone(folder / "base")
    for condition in ("canny", "depth"):
        randomise_(ControlNet.from_backbone(backbone, condition=condition)).save(folder / condition)
    return folder


@pytest.fixture
def zeroconv() -> Callable[..., object]:
    """Run the command line in this process: `zeroconv("info", folder)` → result with exit_code,
    stdout, stderr.
    """

    def run(*words: object):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture with edges, wider than high."""
    picture = Image.new("RGB", (96, 64), "white")
    picture.paste((200, 30, 30), (20, 10, 60, 50))
    picture.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def once(models: Path) -> Iterator[None]:
    """Bases and controls are loaded once for many requests."""
    from zeroconv.cli.generate.making import Models

    shared = Models()
    with pytest.MonkeyPatch.context() as patch:
        base, control = Models.backbone, Models.control
        patch.setattr(Models, "backbone", lambda self, *words, **how: base(shared, *words, **how))
        patch.setattr(Models, "control", lambda self, *words: control(shared, *words))
        yield
