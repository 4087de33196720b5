"""What the server adds to a picture: processor time beside that of `generate`.

python -m benchmarks.speed.serving_cost [--pictures 6] [--steps 20] [--json FILE]

A server on playroom runs in this process. One client asks for a picture after the other and
listens to its events. Times are those of threads, so other work on the machine changes them little:
of the event loop, which answers, and of the worker inside of `generate` and beside it. Torch
computes in one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import uvicorn

from benchmarks.common import write_result
from benchmarks.speed.studio import Counts, picture
from zeroconv import generation
from zeroconv.serving.app import create_app
from zeroconv.serving.connections import Protocol
from zeroconv.serving.running import address_of, open_socket
from zeroconv.serving.settings import ServerSettings


class Timed:
    """A function with the seconds of the calling thread that it took."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.seconds = work, 0.0

    def __call__(self, *words: Any, **named: Any) -> Any:
        began = time.thread_time()
        try:
            return self.work(*words, **named)
        finally:
            self.seconds += time.thread_time() - began


def clock(thread: threading.Thread) -> float:
    """Seconds of processor time of a thread."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    timed = generation.generate = Timed(generation.generate)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as data:
        app = create_app(ServerSettings(data=Path(data), device="cpu"), page=False)
        opened = open_socket("127.0.0.1", 0)
        config = uvicorn.Config(app, http=Protocol, log_level="warning", ws="none")
        server = uvicorn.Server(config)
        loop = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        loop.start()
        host, _, port = address_of(opened)[len("http://") : -1].rpartition(":")
        while not server.started:
            time.sleep(0.02)
        counts = Counts()
        for number in range(2):
            picture((host, int(port)), number, asked.steps, counts)
        worker = app.state.studio.worker._thread
        before = clock(loop), clock(worker), timed.seconds
        for number in range(asked.pictures):
            picture((host, int(port)), 2 + number, asked.steps, counts)
        after = clock(loop), clock(worker), timed.seconds
        server.should_exit = True
        loop.join()
    answers, all_of_worker, made = (
        1000 * (b - a) / asked.pictures for a, b in zip(before, after, strict=True)
    )
    # events are drawn and pictures kept from inside of `generate`, so their time is in its own
    rows = [
        ["generate, with what it calls back (ms)", round(made)],
        ["the worker beside it (ms)", round(all_of_worker - made, 1)],
        ["the event loop (ms)", round(answers, 1)],
        ["pictures", len(counts.seconds)],
    ]
    note = f"playroom, {asked.steps} steps, load {os.getloadavg()[0]:.1f} at the end"
    command = "python -m benchmarks.speed.serving_cost"
    write_result("serving_cost", ["", "processor time a picture"], rows, command, note, asked.json)


if __name__ == "__main__":
    main()
