"""The server under load: many clients at once against one after the other.

python -m benchmarks.speed.studio [--clients 50] [--seconds 120] [--steps 20] [--json FILE]

A server on playroom is started as a process of its own. First one client asks for a picture after
the other, for a quarter of the time. Then all clients do so at once. Each waits on the events of
its job, so that nobody asks in vain. At the end every job must be done and every picture there.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from tools.reports import ROOT

PROMPTS = ("a red ball", "a blue cube on a wooden floor", "a person", "a green cone")


@dataclass
class Counts:
    """What clients saw. seconds: from the request to the picture's address."""

    seconds: list[float] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def server(data: str) -> Iterator[tuple[str, int]]:
    """Host and port of a server on playroom, which has made its first picture."""
    words = [sys.executable, "-m", "zeroconv.cli", "serve", "--port", "0", "--data", data]
    process = subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        for line in process.stderr or ():
            if match := re.search(r"http://(\S+):(\d+)/", line):
                # what it says later is shown: a full pipe would stop it
                threading.Thread(target=_show, args=(process.stderr,), daemon=True).start()
                yield match[1], int(match[2])
                return
        raise SystemExit("zeroconv: the server did not start; see above.")
    finally:
        process.terminate()
        process.wait(60)


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, end="", file=sys.stderr)


def ask(address: tuple[str, int], method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=600)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def picture(address: tuple[str, int], number: int, steps: int, counts: Counts) -> None:
    """Ask for one and wait for it."""
    began = time.perf_counter()
    body = {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number, "steps": steps}
    status, content = ask(address, "POST", "/api/v1/generate", body)
    if status != 202:
        with counts.lock:
            counts.wrong.append(f"{status}: {content[:200]!r}")
        return
    job = json.loads(content)
    events = ask(address, "GET", f"/api/v1/jobs/{job['id']}/events")[1].decode()
    last = json.loads(events.rstrip().rpartition("data: ")[2])
    with counts.lock:
        if last["state"] == "done" and last["results"]:
            counts.seconds.append(time.perf_counter() - began)
            counts.pictures.append(last["results"][0]["picture"])
        else:
            counts.wrong.append(f"{last['state']}: {last['error']}")


def load(
    address: tuple[str, int], clients: int, seconds: float, steps: int
) -> tuple[Counts, float]:
    """What so many clients see, each asking again until the time is over; and the seconds until the
    last picture.
    """
    counts, began = Counts(), time.perf_counter()

    def client(first: int) -> None:
        number = first
        while time.perf_counter() - began < seconds:
            picture(address, number, steps, counts)
            number += clients

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, time.perf_counter() - began


def lost(address: tuple[str, int], counts: Counts) -> int:
    """How many pictures cannot be had."""
    return sum(ask(address, "GET", path)[0] != 200 for path in counts.pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as data, server(data) as address:
        began = time.perf_counter()
        first, again = Counts(), Counts()
        picture(address, 0, asked.steps, first)
        after = time.perf_counter() - began
        picture(address, 1, asked.steps, again)
        alone, one_took = load(address, 1, asked.seconds / 4, asked.steps)
        many, took = load(address, asked.clients, asked.seconds, asked.steps)
        missing = lost(address, alone) + lost(address, many)
    rates = len(alone.seconds) / one_took, len(many.seconds) / took
    ordered = sorted(many.seconds)
    wrong = first.wrong + again.wrong + alone.wrong + many.wrong
    if not alone.seconds or not ordered:
        raise SystemExit(f"zeroconv: no picture was made: {wrong[:5]}")
    rows = [
        ["first picture, from the server's first answer (s)", round(after, 2)],
        ["second picture (s)", round(again.seconds[0], 2) if again.seconds else None],
        ["pictures a second, one client", round(rates[0], 2)],
        [f"pictures a second, {asked.clients} clients", round(rates[1], 2)],
        ["times as many", round(rates[1] / rates[0], 2)],
        ["median latency (s)", round(statistics.median(ordered), 2)],
        ["p95 latency (s)", round(ordered[int(0.95 * (len(ordered) - 1))], 2)],
        ["pictures", len(many.seconds)],
        ["failed or lost", len(wrong) + missing],
    ]
    command = "python -m benchmarks.speed.studio"
    note = f"playroom, {asked.steps} steps, load {os.getloadavg()[0]:.1f} at the end"
    write_result("studio", ["", "measured"], rows, command, note, asked.json)
    for reason in wrong[:5]:
        print(reason)
    sys.exit(1 if wrong or missing else 0)


if __name__ == "__main__":
    main()
