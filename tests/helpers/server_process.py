"""A server as a process of its own, and plain calls of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`zeroconv serve` with these words more, on a port that is free."""

    def __init__(self, *words: object, command: str = "serve", seconds: float = 120) -> None:
        line = [sys.executable, "-m", "zeroconv.cli", command, "--port", "0", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
        )
        self.lines: list[str] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.lines.append(self.process.stderr.readline())  # type: ignore[union-attr]
            if match := re.search(r"http://\S+:\d+/", self.lines[-1]):
                self.address = match[0].rstrip("/")
                return
            if not self.lines[-1] and self.process.poll() is not None:
                break
        raise AssertionError("".join(self.lines))

    def call(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
        """Status and content: JSON, or bytes of anything else."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                content, kind, status = answer.read(), answer.headers["Content-Type"], answer.status
        except urllib.error.HTTPError as error:
            content, kind, status = error.read(), error.headers["Content-Type"], error.code
        return status, json.loads(content) if "json" in (kind or "") else content

    def ended(self, job: dict[str, Any], seconds: float = 120) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while job["state"] in ("queued", "running") and time.monotonic() < until:
            time.sleep(0.02)
            job = self.call(f"/api/v1/jobs/{job['id']}")[1]
        return job

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def options_of(models: Path, data: Path) -> Sequence[object]:
    """A server on the tiny base."""
    controls = ("--control", models / "tiny_canny", "--control", models / "tiny_depth")
    return ("--base", models / "base", *controls, "--data", data, "--device", "cpu")
