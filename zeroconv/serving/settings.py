"""What a server is started with. Nothing of it comes from a request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zeroconv.errors import UserError

SHORTEST_TOKEN = 8  # characters
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """Bounds of what requests may ask for."""

    body: int = 64 << 20  # bytes of a request
    bodies: int = 512 << 20  # bytes of all requests that are being received
    body_seconds: float = 30.0  # for a body, and as much more as `body_rate` needs
    body_rate: int = 50_000  # bytes a second, the slowest that is waited for
    pixels: int = 16_000_000  # of a picture in a request
    held: int = 1 << 30  # bytes of decoded pictures, of all requests and of jobs that wait
    side: int = 2048  # pixels of a generated picture, also after the second pass
    steps: int = 150
    count: int = 16  # pictures of a request
    controls: int = 8
    prompt: int = 20_000  # characters
    queue: int = 200  # jobs that wait
    streams: int = 200  # clients that listen to events
    kept: int = 500  # jobs of each kind that have ended, which are listed; the newest
    kept_days: float = 90.0  # after which such a job is dropped
    annotate_seconds: float = 120.0  # that an answer is waited for
    evaluated: int = 1000  # pictures of a measurement
    train_steps: int = 100_000
    uploaded: int = 200  # pictures of an uploaded data set
    sets: int = 100  # uploaded data sets


@dataclass(frozen=True)
class ServerSettings:
    """data: the folder that everything is written into. bases, controls: what may be used
    beside the embedded ones: folders, files, hub ids. loras, datasets: folders whose content is
    listed at start. files: what else the first base is read from, see `load_backbone`. hosts:
    further names by which browsers may call the server. memory: bytes of loaded models; None is
    half of the machine's.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    data: Path = Path("studio")
    base: str = "playroom"
    files: Mapping[str, Any] = field(default_factory=dict)
    bases: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    loras: tuple[Path, ...] = ()
    datasets: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    allow_training: bool = True
    device: str = "auto"
    dtype: str = "auto"
    memory: int | None = None
    fast: str = "off"  # of requests that name none
    engine: str = "torch"  # of all requests
    batch: int | None = None  # pictures that are computed at once; None chooses by size
    warm: bool = True  # whether the default base is loaded at start
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port {self.port} is none; give a number from 0 to 65535.")
        if self.token is not None and not _is_token(self.token):
            raise UserError(
                f"the token must be {SHORTEST_TOKEN} or more letters, digits or signs of ASCII "
                "without spaces; give another."
            )
        for name in self.hosts:
            if not _HOST.fullmatch(name):
                raise UserError(f"--allow-host {name[:80]!r} is no name of a host; give one.")
        if not self.loopback and self.token is None:
            raise UserError(
                f"--host {self.host[:80]!r} can be reached by other machines, so --token is "
                f"needed: a secret of {SHORTEST_TOKEN} or more characters that clients must know."
            )

    @property
    def loopback(self) -> bool:
        """Whether this machine alone can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address stands for this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_token(token: str) -> bool:
    return bool(re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},200}}", token))
