"""Web servers that lie, drip, lead elsewhere or never end are given up in a bounded time, with a
sentence.
"""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zeroconv.data import open_dataset
from zeroconv.data.fitting import StorageError
from zeroconv.data.remote import copies as remote
from zeroconv.data.remote import stores
from zeroconv.errors import UserError

pytest.importorskip("aiohttp")
from zeroconv.data.remote import web

Answer = Callable[[str], Iterator[bytes]]  # of a path, in the pieces that are sent

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest.fixture(autouse=True)
def small_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZEROCONV_SHARD_GB", "0.002")
    monkeypatch.setattr("zeroconv.data.fitting.PAUSES", (0.0,))
    monkeypatch.setattr(web, "SECONDS", 0.5)
    monkeypatch.setattr(web, "MOST_ANSWER", 1 << 20)
    monkeypatch.setattr(stores, "SECONDS", 0.5)
    monkeypatch.setattr(stores, "LISTING", 1.0)
    monkeypatch.setattr(stores, "WINDOW", 0.3)
    web.Web.clear_instance_cache()
    yield
    web.Web.clear_instance_cache()


class Server:
    """Answers HEAD and GET by two functions, over bare sockets: no library keeps it from lying."""

    def __init__(self, head: Answer, get: Answer) -> None:
        self.head, self.get, self.asked = head, get, list[str]()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.closed = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while not self.closed.is_set():
                client, _ = self.socket.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += client.recv(4096)
            method, path, *_ = asked.decode("latin-1").split()
            self.asked.append(f"{method} {path}")
            for piece in (self.head if method == "HEAD" else self.get)(path):
                client.sendall(piece)
                if self.closed.is_set():
                    return

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.socket.close()


def with_length(length: object, more: bytes = b"") -> Answer:
    return lambda path: iter([OK + more + f"Content-Length: {length}\r\n\r\n".encode()])


def body(length: int | None, *pieces: bytes, more: bytes = b"") -> Answer:
    """An answer with that Content-Length (None: in chunks without end)."""
    if length is None:
        return lambda path: itertools.chain(
            [OK + more + b"Transfer-Encoding: chunked\r\n\r\n"], itertools.repeat(CHUNK)
        )
    return lambda path: iter([OK + more + f"Content-Length: {length}\r\n\r\n".encode(), *pieces])


def slowly(begin: bytes, piece: bytes = b"x", pause: float = 0.05) -> Answer:
    def answer(path: str) -> Iterator[bytes]:
        yield begin
        while True:
            time.sleep(pause)
            yield piece

    return answer


def silent(path: str) -> Iterator[bytes]:
    time.sleep(5)
    return iter([])


def leading(to: str) -> Answer:
    return lambda path: iter(
        [f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()]
    )


HEADERS = b"HTTP/1.1 200 OK\r\nX-Name: "
COPIES: dict[str, tuple[Answer, Answer, str]] = {
    "never ends": (with_length(1000), body(None), r"more than the 1,000 bytes came"),
    "never ends, and tells no size": (body(None), body(None), "more than 2,000,000 bytes came"),
    "tells too little": (
        with_length(1000),
        body(2000, b"x" * 2000),
        "more than the 1,000 bytes came",
    ),
    "tells too much": (with_length(2000), body(1000, b"x" * 1000), "1,000 of 2,000 bytes came"),
    "stops half-way": (with_length(2000), body(2000, b"x" * 1000), "cannot be fetched"),
    "tells 10^18 bytes": (
        with_length(10**18),
        body(10**18),
        "has 1,000,000,000,000,000,000 bytes, and a shard may have",
    ),
    "tells a negative size": (with_length(-5), body(-5), "cannot be fetched"),
    "tells no number": (with_length("many"), body(5), "cannot be fetched"),
    "drips its file": (
        with_length(1000),
        slowly(OK + b"Content-Length: 1000\r\n\r\n"),
        "bytes came in 0.3 seconds",
    ),
    "drips its headers": (slowly(HEADERS), slowly(HEADERS), "cannot be fetched"),
    "drips the headers of the file": (
        with_length(1000),
        slowly(HEADERS),
        "0 bytes came in 0.3 seconds",
    ),
    "says nothing": (silent, silent, "cannot be fetched"),
    "says nothing when the file is asked for": (
        with_length(1000),
        silent,
        "0 bytes came in 0.3 seconds",
    ),
    "sends no HTTP": (
        lambda p: iter([b"220 ftp\r\n"]),
        lambda p: iter([b"220 ftp\r\n"]),
        "cannot be fetched",
    ),
    "sends headers without end": (
        slowly(OK, b"X: y\r\n" * 50, 0),
        slowly(OK, b"X: y\r\n" * 50, 0),
        "cannot be fetched",
    ),
    "compresses": (
        with_length(1000, b"Content-Encoding: gzip\r\n"),
        body(1000, b"x" * 1000, more=b"Content-Encoding: gzip\r\n"),
        "compressed .'gzip'., though asked not to",
    ),
    "compresses only the file": (
        with_length(1000),
        body(1000, b"x" * 1000, more=b"Content-Encoding: br\r\n"),
        "compressed .'br'., though asked not to",
    ),
    "leads to a file": (
        leading("file:///etc/passwd"),
        leading("file:///etc/passwd"),
        "cannot be fetched",
    ),
    "leads to ftp": (leading("ftp://h/a.tar"), leading("ftp://h/a.tar"), "cannot be fetched"),
    "leads in a circle": (leading("/a.tar"), leading("/a.tar"), "cannot be fetched"),
    "leads to a file when the file is asked for": (
        with_length(10),
        leading("file:///etc/passwd"),
        "cannot be fetched",
    ),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_from_a_server_is_given_up(kind: str, tmp_path: Path) -> None:
    head, get, message = COPIES[kind]
    kept = tmp_path / "cache" / "copies" / "another.tar"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"kept")
    began = time.monotonic()

    with Server(head, get) as server, pytest.raises(UserError, match=message) as caught:
        open_dataset(f"http://me:s3cret@{server.address}/a.tar", condition="depth")

    assert time.monotonic() - began < 6
    assert "s3cret" not in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert [path.name for path in kept.parent.iterdir() if path.suffix == ".tar"] == ["another.tar"]


LISTS: dict[str, tuple[Answer, str]] = {
    "never ends": (
        body(None, more=b"Content-Type: text/html\r\n"),
        "its answer has more than 1,048,576 bytes",
    ),
    "drips": (slowly(OK + b"Content-Type: text/html\r\n\r\n", b"<a "), "cannot be fetched"),
    "is a bomb for patterns": (body(900_000, b"<a " * 300_000), "holds no parquet"),
    "is a bomb of spaces": (body(900_000, b"href" + b" " * 899_996), "holds no parquet"),
    "is compressed": (
        body(10, b"x" * 10, more=b"Content-Encoding: gzip\r\n"),
        "though asked not to",
    ),
    "leads elsewhere": (
        body(66, b'<a href="http://127.0.0.1:1/x.tar"><a href="/../b.tar"><a href=..>'.ljust(66)),
        "holds no parquet",
    ),
    "lists folders without end": (
        body(24, b"<a href=data/><a href=x/>"[:24]),
        "holds no parquet|no answer came",
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_page_of_links_is_given_up(kind: str) -> None:
    page, message = LISTS[kind]
    began = time.monotonic()
    with Server(with_length(0), page) as server, pytest.raises(UserError, match=message):
        open_dataset(f"http://{server.address}/set", condition="depth")
    assert time.monotonic() - began < 8
    assert all("b.tar" not in asked for asked in server.asked)


def test_a_server_that_leads_from_https_to_http_is_refused() -> None:
    import asyncio
    from types import SimpleNamespace

    from yarl import URL

    def led(start: str, to: str) -> None:
        response = SimpleNamespace(headers={"Location": to})
        asyncio.run(
            web._stays_encrypted(None, None, SimpleNamespace(url=URL(start), response=response))
        )  # type: ignore[arg-type]

    led("https://h/a", "https://other/b")
    led("https://h/a", "/b")
    led("http://h/a", "https://h/b")
    with pytest.raises(web.Refused):
        led("https://h/a", "http://h/b")


def test_a_look_at_many_shards_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOKS", (0.5, 0.0))
    monkeypatch.setattr(web, "SECONDS", 5.0)
    monkeypatch.setattr(stores, "SECONDS", 5.0)

    def late(path: str) -> Iterator[bytes]:
        time.sleep(0.2)
        return with_length(100)(path)

    began = time.monotonic()
    with (
        Server(late, late) as server,
        pytest.raises(UserError, match="looking at its shards took more"),
    ):
        remote.find(f"http://{server.address}/{{0..5000}}.tar")
    assert time.monotonic() - began < 8


def test_what_a_server_says_moves_no_terminal() -> None:
    def answer(path: str) -> Iterator[bytes]:
        return iter(
            [b"HTTP/1.1 500 \x1b[2J\x07\xff" + b"y" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"]
        )

    with Server(answer, answer) as server, pytest.raises(StorageError) as caught:
        remote.find(f"http://u:s3cret@{server.address}/a.tar")
    message = str(caught.value)
    assert re.fullmatch(r"[ -~]*", message) and len(message) < 600 and "s3cret" not in message
