"""One server, one browser and one context a test, for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web.driving import SECONDS, Driver, chromium, serving
from zeroconv.serving.settings import ServerSettings


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("studio")
    with serving(ServerSettings(data=folder, device="cpu", dtype="float32")) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # a sandbox needs rights that containers do not give
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"], timeout=SECONDS * 1000
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def studio(page: Any, server: tuple[str, Any]) -> Iterator[Driver]:
    """The page after its first visit; a script's error fails the test."""
    driver = Driver(page, server[0]).open()
    yield driver
    driver.check()
