"""Requests made from the server's own OpenAPI schema, right and wrong ones, and what must hold of
every answer.

python -m tests.helpers.api_fuzz [--count 10000] [--seed 0] [--only WORD]

No answer is a server's error; a refusal is {"error": "one sentence"} with a status that the schema
names; nothing is written outside of the data folder; memory stays flat.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis import GenerationMode

from tests.helpers.snapshots import snapshot
from tests.helpers.tiny_server import (
    as_base64,
    ended,
    picture,
    settings_for,
    write_models,
)
from zeroconv.serving.running import serve_forever
from zeroconv.serving.settings import Limits

ENDLESS = ("/api/v1/events",)
# so that a right request is a quick one
SMALL = Limits(side=64, steps=2, count=2, queue=20, pixels=4096, body=200_000, train_steps=1)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
_PICTURE = as_base64(picture())
GOOD = dict.fromkeys(("image", "mask", "picture", "hint", "source", "region"), _PICTURE)
GOOD |= {"base": "base", "control": "tiny_canny", "condition": "canny", "data": "stickers"}
GOOD |= {"sampler": "euler", "schedule": "karras"}
# fields that seldom fit together
QUIET: dict[str, Any] = {"loras": [], "width": 64, "height": 64, "steps": 2, "count": 1}
QUIET |= {"hires": None, "expand": None, "clip_skip": None, "controls": [], "strength": 1.0}
ROUNDS, MOST_ROUNDS = 2, 20  # operations without parameters have one request a round


@dataclass
class Report:
    """statuses: how many answers had one. wrong: sentences on answers that may not be."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)  # MiB, over time
    process: int | str = "self"
    warm: int = 0  # how many of `memory` come before it is to stay flat


def fuzz(
    client: Any,
    schema: dict[str, Any],
    count: int,
    seed: int = 0,
    only: str = "",
    process: int | str = "self",
) -> Report:
    """About `count` requests, as many of every operation, half of them against the schema.
    process: whose memory is read.
    """
    report = Report(process=process)
    operations = list(_operations(schema, only))
    each = max(1, count // (len(operations) * len(MODES) * ROUNDS))
    for number in range(MOST_ROUNDS):
        if number >= ROUNDS and report.requests >= count:
            break
        if number == 1:
            report.warm = len(report.memory)  # everything was done once
        for operation in operations:
            for mode in MODES:
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                    _send_all(client, strategy, each, seed + number, report)
                except Exception as error:  # of the maker of requests: nothing can be wrong there
                    if "negat" not in str(error).lower() and "Unsatisfiable" not in repr(error):
                        raise
    return report


def make_once(client: Any) -> None:
    """A picture of each kind of work, as random requests seldom get so far: what is imported and
    loaded for it is no growth.
    """
    unit = {"control": "tiny_canny", "hint": _PICTURE}
    size = {"width": 64, "height": 64, "steps": 2}
    hires = {"factor": 2.0, "strength": 0.5}
    for more in ({}, {"controls": [unit]}, {"image": _PICTURE}, {"sampler": "dpm++2m_sde"}):
        ended(client, client.post("/api/v1/generate", json={"prompt": "a", **size, **more}).json())
    small = {**size, "width": 32, "height": 32, "hires": hires}
    ended(client, client.post("/api/v1/generate", json={"prompt": "a", **small}).json())
    measured = {"control": "tiny_canny", "data": "stickers", "base": "base"}  # 16 pictures
    ended(client, client.post("/api/v1/evaluate", json={**measured, "steps": 2}).json())
    plan = {"base": "base", "condition": "canny", "data": "stickers", "training": {"steps": 1}}
    client.post("/api/v1/train/plan", json=plan).raise_for_status()


def _operations(schema: dict[str, Any], only: str) -> Iterator[Any]:
    for result in schemathesis.openapi.from_dict(schema).get_all_operations():
        operation = result.ok()
        if operation.path not in ENDLESS and only in operation.path:
            yield operation


def _send_all(client: Any, strategy: Any, count: int, seed: int, report: Report) -> None:
    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def send(case: Any) -> None:
        _send(client, case, report)

    send()


def _send(client: Any, case: Any, report: Report) -> None:
    words = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
    request: dict[str, Any] = {
        key: words[key] for key in ("method", "url", "params", "json") if words.get(key)
    }
    if words.get("data") is not None:
        request["content"] = words["data"]
    if report.requests % 2 and isinstance(request.get("json"), dict | list):
        request["json"] = mended(request["json"])
        if report.requests % 4 == 1 and isinstance(request["json"], dict):
            request["json"] |= {k: v for k, v in QUIET.items() if k in request["json"]}
    headers = {k: v for k, v in (words.get("headers") or {}).items() if k.lower() != "user-agent"}
    try:
        answer = client.request(**request, headers=headers, follow_redirects=False)
    except (ValueError, TypeError, UnicodeError):  # what no client could send
        return
    report.requests += 1
    report.statuses[answer.status_code] += 1
    if report.requests % 50 == 0:
        report.memory.append(memory_mb(report.process))
    reason = wrong(case, answer)
    if reason:
        sent = str(request)[:400]
        report.wrong.setdefault(f"{case.method} {case.operation.path}: {reason}", sent)


def mended(value: Any, name: str = "") -> Any:
    """The same body with pictures that are some and names that are listed, so that requests come
    further than the first check.
    """
    if isinstance(value, dict):
        return {key: mended(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [mended(inner, name) for inner in value]
    if isinstance(value, str) and name in GOOD:
        return GOOD[name]
    return value


def wrong(case: Any, answer: Any) -> str:
    """What may not be of an answer; an empty text where all is well."""
    status = answer.status_code
    if status >= 500 and status != 503:
        return f"status {status}: {answer.text[:200]}"
    if "Traceback" in answer.text[:2000]:
        return "a traceback"
    documented = set(case.operation.definition.raw["responses"])
    if status >= 400 and answer.request.url.path.startswith("/api/v1"):
        if str(status) not in documented:
            return f"status {status} is not in the schema"
        try:
            body = answer.json()
        except ValueError:
            return f"status {status} without JSON"
        if set(body) != {"error"} or not isinstance(body["error"], str) or "\n" in body["error"]:
            return f"status {status} without a sentence: {str(body)[:100]}"
    return ""


def memory_mb(process: int | str) -> float:
    """What a process holds now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def grown(report: Report) -> float:
    """MiB that memory has grown by after the first round: the last tenth over the first."""
    warm = report.memory[report.warm :]
    part = max(1, len(warm) // 10)
    return sum(warm[-part:]) / part - sum(warm[:part]) / part if len(warm) > 1 else 0.0


@contextmanager
def server_process(folder: Path) -> Iterator[tuple[Any, int]]:
    """A client of a server that is a process of its own, and its number; so that the memory of what
    makes requests is not counted.
    """
    words = [sys.executable, "-W", "ignore", "-m", "tests.helpers.api_fuzz", "--serve", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()  # type: ignore[union-attr]
        with httpx2.Client(base_url=address, timeout=300) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(60)


def serve(folder: Path) -> None:
    serve_forever(
        settings_for(folder / "models", folder / "data", limits=SMALL, port=0),
        page=False,
        started=lambda address: print(address, flush=True),
        note=lambda line: None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations whose path holds this")
    parser.add_argument("--growth", type=float, default=100, help="MiB that are allowed")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder) / "models")
        before, began = snapshot(Path(folder)), time.monotonic()
        with server_process(Path(folder)) as (client, process):
            schema = client.get("/api/v1/openapi.json").json()
            make_once(client)
            report = fuzz(client, schema, asked.count, asked.seed, asked.only, process)
        after = {k: v for k, v in snapshot(Path(folder)).items() if not k.startswith("data")}
        outside = sorted(k for k in after if k not in before and k not in ("", "."))
    print(f"{report.requests} requests in {time.monotonic() - began:.0f} s: {report.statuses}")
    shown = report.memory[:: max(1, len(report.memory) // 20)]
    print(f"memory in MiB: {[round(m) for m in shown]}")
    print(f"memory grew by {grown(report):.1f} MiB after it was warm")
    for reason, sent in report.wrong.items():
        print(f"{reason}\n    {sent}")
    print(f"outside of the data folder: {outside or 'nothing'}")
    sys.exit(1 if report.wrong or outside or grown(report) > asked.growth else 0)


if __name__ == "__main__":
    main()
