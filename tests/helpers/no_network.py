"""Sockets that reach no other machine: whoever tries is noted and gets an error, in children too.

A child loads this file as its `sitecustomize`; see `blocked`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOTE = "TESTS_NO_NETWORK"  # the file in which attempts are noted
_REAL = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto", "bind")}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NAMES = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")
_LOOK_UP = {name: getattr(socket, name) for name in _NAMES}


def block() -> None:
    """Let every socket of this process fail, but for those between processes of this machine and
    for listening at loopback.
    """

    def note(what: str) -> OSError:
        with open(os.environ[NOTE], "a", encoding="utf-8") as file:
            file.write(what + "\n")
        return OSError(101, f"the network is blocked: {what}")

    def method(name: str) -> Any:
        def call(self: socket.socket, *arguments: Any) -> Any:
            listens = name == "bind" and arguments[0][0] in _LOOPBACK
            if self.family == socket.AF_UNIX or listens:
                return _REAL[name](self, *arguments)
            raise note(f"{name} {arguments[-1]!r}")

        return call

    def look_up(name: str) -> Any:
        def call(host: Any, *arguments: Any, **more: Any) -> Any:
            if host in _LOOPBACK:
                return _LOOK_UP[name](host, *arguments, **more)
            raise note(f"{name} {host!r}")

        return call

    for name in _REAL:
        setattr(socket.socket, name, method(name))
    for name in _LOOK_UP:
        setattr(socket, name, look_up(name))


def release() -> None:
    for name, function in _REAL.items():
        setattr(socket.socket, name, function)
    for name, function in _LOOK_UP.items():
        setattr(socket, name, function)


@contextmanager
def blocked(folder: Path) -> Iterator[Path]:
    """Block this process and its children; yields the file in which attempts stand, if any."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_bytes(Path(__file__).read_bytes())
    before = {name: os.environ.get(name) for name in (NOTE, "PYTHONPATH")}
    os.environ[NOTE] = str(folder / "attempts")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), before["PYTHONPATH"])))
    block()
    try:
        yield folder / "attempts"
    finally:
        release()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "sitecustomize":
    block()
