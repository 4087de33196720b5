"""One tiny server for tests that leave its settings as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.helpers.tiny_server import running, settings_for, write_models


@pytest.fixture(scope="session")
def server_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("server_models"))


@pytest.fixture(scope="session")
def server_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "data"


@pytest.fixture(scope="session")
def client(server_models: Path, server_data: Path) -> Iterator[TestClient]:
    with running(settings_for(server_models, server_data)) as client:
        yield client
