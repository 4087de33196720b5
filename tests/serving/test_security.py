"""Who may call the server, and what bodies it reads."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from functools import cache

import pytest

from tests.helpers.tiny_server import ADDRESS, QUICK, as_base64, picture, running, settings_for
from zeroconv.serving import security
from zeroconv.serving.app import create_app
from zeroconv.serving.security import COOKIE
from zeroconv.serving.settings import Limits, ServerSettings
from zeroconv.serving.v1 import about

TOKEN = "a-long-secret"


@pytest.fixture(scope="module")
def guarded(server_models, tmp_path_factory):
    """A client of a server that other machines reach; its calls bring no token."""
    limits = Limits(body=200_000, pixels=100_000)
    settings = settings_for(
        server_models, tmp_path_factory.mktemp("guarded"), host="0.0.0.0", token=TOKEN,
        hosts=("studio.example",), limits=limits,
    )  # fmt: skip
    with running(settings) as client, pytest.MonkeyPatch.context() as patch:
        for module in (security, about):
            patch.setattr(module, "WRONG_TOKEN_SECONDS", 0.01)
        yield client


# ---------------------------------------------------------------- Host and Origin


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:7860", "[::1]:80", "LOCALHOST", "127.1.2.3"]
)
def test_host_of_this_machine_is_served(client, host) -> None:
    assert client.get("/api/v1/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "8.8.8.8", "",
     "a@localhost", "localhost/x", "localhost:x", "[::1", "0.0.0.0", "127.0.0.1, evil.example"],
)  # fmt: skip
def test_host_of_another_name_is_refused(client, host) -> None:
    answer = client.get("/api/v1/info", headers={"Host": host})
    assert answer.status_code == 403 and set(answer.json()) == {"error"}


def test_host_names_are_those_that_the_server_was_given(guarded) -> None:
    for host, code in (("studio.example", 200), ("10.0.0.7", 200), ("evil.example", 403)):
        assert guarded.get("/api/v1/info", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:7860.evil.example"},
    ],
)
def test_origin_of_another_page_is_refused(client, headers) -> None:
    for method, path in (("POST", "/api/v1/generate"), ("GET", "/api/v1/history")):
        body = {"json": QUICK} if method == "POST" else {}
        answer = client.request(method, path, headers=headers, **body)
        assert answer.status_code == 403 and set(answer.json()) == {"error"}


def test_origin_of_our_own_page_is_served(client) -> None:
    headers = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/v1/login", json={"token": ""}, headers=headers).status_code == 200
    # somebody follows a link to the page
    opening = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/api/v1/info", headers=opening).status_code == 200
    assert client.post("/api/v1/login", json={"token": ""}, headers=opening).status_code == 403


# ---------------------------------------------------------------- token


def test_token_is_needed_where_others_reach_the_server(guarded) -> None:
    assert guarded.get("/api/v1/info").json()["token_needed"] is True
    for path in ("/api/v1/models", "/api/v1/jobs", "/api/v1/openapi.json", "/api/v1/events", "/x"):
        answer = guarded.get(path)
        assert answer.status_code == 401 and set(answer.json()) == {"error"}, path
    assert guarded.post("/api/v1/generate", json=QUICK).status_code == 401


def test_token_comes_as_bearer_or_as_password(guarded) -> None:
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for value in (f"Bearer {TOKEN}", f"Basic {basic}"):
        assert guarded.get("/api/v1/jobs", headers={"Authorization": value}).status_code == 200


@pytest.mark.parametrize(
    "value", ["Bearer", f"Bearer {TOKEN}x", "Basic !", "Bearer ä", f"x {TOKEN}"]
)
def test_token_that_is_wrong_is_refused(guarded, value) -> None:
    answer = guarded.get("/api/v1/jobs", headers={"Authorization": value.encode("latin-1")})
    assert answer.status_code == 401


def test_token_is_changed_for_a_cookie(guarded) -> None:
    assert guarded.post("/api/v1/login", json={"token": "wrong"}).status_code == 401
    answer = guarded.post("/api/v1/login", json={"token": TOKEN})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in cookie
    guarded.cookies.clear()
    value = answer.cookies[COOKIE]
    assert guarded.get("/api/v1/jobs", headers={"Cookie": f"{COOKIE}={value}"}).status_code == 200
    assert guarded.get("/api/v1/jobs", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "studio.example"])
def test_token_is_demanded_for_another_host(host) -> None:
    with pytest.raises(ValueError, match="--token is needed"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("token", ["", "short", "with a space", "ümlaut-long", "a" * 201])
def test_token_must_be_hard_to_guess(token) -> None:
    with pytest.raises(ValueError, match="the token must be"):
        ServerSettings(token=token)


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_body_of_another_type_is_refused(client, kind) -> None:
    content = json.dumps(QUICK).encode()
    answer = client.post("/api/v1/generate", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 415


def test_body_that_is_compressed_is_refused(client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert client.post("/api/v1/generate", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"{", b"[" * 100_000, b'{"steps": NaN}', b'{"cfg": Infinity}', b'{"cfg": 1e999}', b"\xff\xfe",
     b'{"seed": ' + b"9" * 5000 + b"}", b'{"a":' * 3000 + b"1" + b"}" * 3000, b"nonsense"],
    ids=["cut", "deep", "nan", "infinity", "huge float", "no text", "huge int", "deeper", "words"],
)  # fmt: skip
def test_body_that_is_no_json_is_refused(client, body) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/v1/generate", content=body, headers=headers)
    assert answer.status_code == 400 and set(answer.json()) == {"error"}, answer.text[:200]


def bearing(client):
    return {"Authorization": f"Bearer {TOKEN}"}


def test_body_that_is_too_large_is_refused(guarded) -> None:
    headers = bearing(guarded) | {"Content-Type": "application/json"}
    answer = guarded.post("/api/v1/generate", content=b"x" * 200_001, headers=headers)
    assert answer.status_code == 413

    def parts():  # no length is told beforehand
        for _ in range(30):
            yield b"x" * 10_000

    assert guarded.post("/api/v1/generate", content=parts(), headers=headers).status_code == 413
    assert guarded.app.state.studio is not None
    assert guarded.get("/api/v1/jobs", headers=bearing(guarded)).status_code == 200


def call(app, messages, headers) -> list:
    """Answers of an application to a request whose body comes in these messages; a number waits."""
    sent: list = []
    left = list(messages)

    async def receive():
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/generate", "query_string": b"",
        "headers": headers, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "raw_path": b"/api/v1/generate", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


SENDING = [
    (b"host", b"localhost"),
    (b"content-type", b"application/json"),
    (b"transfer-encoding", b"chunked"),
]


def test_body_that_comes_too_slowly_is_given_up(server_models, tmp_path) -> None:
    limits = Limits(body_seconds=0.2, body_rate=1_000_000)
    app = create_app(settings_for(server_models, tmp_path / "data", limits=limits))
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent = call(app, [part, 5.0, part], SENDING)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_bodies_together_are_bounded(server_models, tmp_path) -> None:
    limits = Limits(bodies=100)
    app = create_app(settings_for(server_models, tmp_path / "data", limits=limits))
    part = {"type": "http.request", "body": b"x" * 60, "more_body": True}
    sent = call(app, [part, part], SENDING)
    assert sent[0]["status"] == 429
    # what was refused takes no room any more
    small = {"type": "http.request", "body": b"x" * 60, "more_body": False}
    assert call(app, [small], SENDING)[0]["status"] == 400


# ---------------------------------------------------------------- pictures


def bomb(width: int, height: int) -> str:
    """A small PNG that says it has so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()


@cache
def text_bomb() -> str:
    """A PNG whose text unpacks to a hundred times its size."""
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a" * 10_000_000, zip=True)
    buffer = io.BytesIO()
    picture().save(buffer, "PNG", pnginfo=info)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("path", ["annotate", "settings", "generate"])
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(lambda: bomb(60_000, 60_000), id="many pixels"),
        pytest.param(lambda: bomb(2**31 - 1, 2**31 - 1), id="absurd"),
        pytest.param(lambda: as_base64(picture(), "GIF"), id="another format"),
        pytest.param(lambda: as_base64(picture())[:-40], id="cut"),
        pytest.param(lambda: base64.b64encode(b"<svg/>").decode(), id="svg"),
        pytest.param(lambda: "data:text/html," + "x" * 30, id="no base64"),
        pytest.param(text_bomb, id="text"),
    ],
)
def test_picture_that_is_a_bomb_or_none_is_refused(client, path, image) -> None:
    text = image()
    body = {"annotate": {"condition": "canny", "picture": text}, "settings": {"picture": text}}
    body |= {"generate": {**QUICK, "image": text}}
    answer = client.post(f"/api/v1/{path}", json=body[path])
    assert answer.status_code == 422 and set(answer.json()) == {"error"}, answer.text[:300]


def test_picture_of_many_pixels_is_refused_by_the_servers_own_bound(guarded) -> None:
    body = {"condition": "canny", "picture": as_base64(picture((400, 400)))}
    answer = guarded.post("/api/v1/annotate", json=body, headers=bearing(guarded))
    assert answer.status_code == 422 and "100000" in answer.json()["error"]


# ---------------------------------------------------------------- answers


def test_answers_bear_headers_against_framing_and_sniffing(client) -> None:
    for path in ("/api/v1/info", "/api/v1/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_an_internal_error_has_an_id_and_no_trace(client, monkeypatch, caplog) -> None:
    studio = client.app.state.studio
    monkeypatch.setattr(studio.history, "search", lambda *a, **k: 1 / 0)
    answer = client.get("/api/v1/history")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error.startswith("Internal error, id ") and "ZeroDivision" not in error
    number = error.split("id ")[1].split(":")[0]
    assert any(number in record.getMessage() for record in caplog.records)


def test_an_unknown_path_or_method_gets_a_sentence(client) -> None:
    assert client.get("/api/v1/nothing").json() == {"error": "There is nothing at this address."}
    answer = client.put("/api/v1/info")
    assert answer.status_code == 405 and set(answer.json()) == {"error"}
