"""The application: with the page and without it."""

from __future__ import annotations

import pytest

from tests.helpers.tiny_server import running, settings_for
from zeroconv.serving import app as application


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page's folder in place of the package's."""
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>studio</title>")
    (folder / "main.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(application, "PAGE", folder)
    return folder


def test_app_serves_the_page(server_models, tmp_path, page) -> None:
    with running(settings_for(server_models, tmp_path / "data")) as client:
        assert "studio" in client.get("/").text
        script = client.get("/static/main.js")
        assert "javascript" in script.headers["content-type"]
        assert script.headers["cache-control"] == "no-cache"
        again = client.get("/static/main.js", headers={"If-None-Match": script.headers["etag"]})
        assert again.status_code == 304
        for path in ("..%2fsecret.txt", "%2e%2e/secret.txt", "x.js", "..%5csecret.txt"):
            assert client.get(f"/static/{path}").status_code == 404


def test_app_without_the_page_has_none(server_models, tmp_path, page) -> None:
    with running(settings_for(server_models, tmp_path / "data"), page=False) as client:
        assert client.get("/").status_code == 404
        assert client.get("/api/v1/info").status_code == 200


def test_app_lets_a_browser_ask_for_the_token(server_models, tmp_path, page) -> None:
    settings = settings_for(server_models, tmp_path / "data", token="a-long-secret")
    with running(settings) as client:
        for path in ("/", "/static/main.js", "/api/v1/info"):
            assert client.get(path).status_code == 200
        assert client.get("/api/v1/models").status_code == 401
