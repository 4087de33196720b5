"""What grows with a data set: time of a step, waiting for data, start-up, memory, cache.

    python -m benchmarks.speed.growth [--sizes 1000,10000,100000] [--rendered 1000,10000]
                                      [--json FILE] [--scratch FOLDER]

Folders of N pictures of 64 px with a metadata.jsonl and a caption each, and rendered scenes, under
a Stable Diffusion a few channels wide: the model is as small as it can be because the data path is
what is measured. Every figure is the median of runs of their own process on a cache that is filled
already, with the files in the machine's page cache.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from PIL import Image

from benchmarks.common import RESULTS, write_result
from tools.reports import ROOT

SIZE, BATCH, WARM = 64, 16, 20  # pixels; pictures a step; steps before the clock runs
COLUMNS = (
    "pictures",
    "filling, CPU ms a picture",
    "start to first step, s",
    "of it CPU",
    "of that the data",
    "step, ms",
    "of it CPU",
    "waiting for data",
    "memory, MB",
    "cache, bytes a picture",
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        default="1000,10000,100000",
        help="pictures in a folder; the first is compared with",
    )
    parser.add_argument("--rendered", default="1000,10000", help="rendered scenes; nothing: none")
    parser.add_argument("--steps", type=int, default=220)
    parser.add_argument("--repeats", type=int, default=3, help="runs a size")
    parser.add_argument("--json", type=Path, default=RESULTS / "growth.json")
    parser.add_argument(
        "--scratch", type=Path, help="a folder for pictures and caches, kept; else a temporary one"
    )
    options = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join(["python", "-m", "benchmarks.speed.growth", *words])
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        return measure(scratch, _numbers(options.sizes), _numbers(options.rendered), options)
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch)


def measure(
    scratch: Path, sizes: list[int], rendered: list[int], options: argparse.Namespace
) -> dict[str, Any]:
    from tests.helpers.tiny_folder import save_backbone

    base = scratch / "base"
    if not base.is_dir():
        save_backbone(base)
    draw_pictures(scratch / "pictures", max(sizes, default=0))
    rows, results = [], {}
    for kind, n in [*(("folder", n) for n in sizes), *(("rendered", n) for n in rendered)]:
        data = f"playroom:train:{n}"
        if kind == "folder":
            # the lists share pictures that lie beside their folders
            data = f"{list_pictures(scratch / f'folder-{n}', n)}?links=true"
        cache = scratch / f"cache-{kind}-{n}"
        recipe = {"base": str(base), "data": {"train": data, "cache": str(cache)}}
        cold = run(recipe, scratch / "run", 2)
        warm = [run(recipe, scratch / "run", options.steps) for _ in range(options.repeats)]
        medians = {name: median(one[name] for one in warm) for name in warm[0]}
        medians["bytes"] = sum(file.stat().st_size for file in cache.rglob("*.safetensors")) / n
        medians["fill"] = 1000 * (cold["data"] - medians["data"]) / n
        results[kind, n] = medians
        rows.append(row(kind, n, medians))
        print(" | ".join(rows[-1]), flush=True)
    note = " ".join(
        verdict(kind, results)
        for kind in ("folder", "rendered")
        if sum(k == kind for k, _ in results) > 1
    )
    write_result("growth", COLUMNS, rows, options.command, note, options.json)
    return {"rows": rows, "note": note}


def row(kind: str, n: int, medians: dict[str, float]) -> list[str]:
    return [
        f"{n:,} {'rendered' if kind == 'rendered' else 'in a folder'}",
        f"{medians['fill']:.2f}",
        f"{medians['start']:.2f}",
        f"{medians['start_cpu']:.2f}",
        f"{medians['data']:.2f}",
        f"{medians['step']:.1f}",
        f"{medians['step_cpu']:.1f}",
        f"{100 * medians['wait']:.2f}%",
        f"{medians['memory']:.0f}",
        f"{medians['bytes']:,.0f}",
    ]


def verdict(kind: str, results: dict[tuple[str, int], dict[str, float]]) -> str:
    """From the fewest to the most pictures of a kind."""
    (low, few), *_, (high, many) = sorted(
        (n, medians) for (k, n), medians in results.items() if k == kind
    )
    more = high - low
    return (
        f"{'Rendered' if kind == 'rendered' else 'Folders'}, {low:,} → {high:,}: a step's CPU time "
        f"× {many['step_cpu'] / few['step_cpu']:.2f}, start + "
        f"{1e6 * (many['data'] - few['data']) / more:.1f} µs and memory + "
        f"{2**20 * (many['memory'] - few['memory']) / more:.0f} bytes a picture."
    )


# ---------------------------------------------------------------- pictures


def draw_pictures(folder: Path, count: int) -> None:
    """JPEGs of a few rectangles, so that there are edges to draw; those that are there stay."""
    for i in range(count):
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            blocks = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(np.kron(blocks, np.ones((SIZE // 4, SIZE // 4, 1), np.uint8))).save(
                path
            )


def list_pictures(folder: Path, count: int) -> Path:
    """An imagefolder of the first `count` pictures, each with a caption of its own."""
    folder.mkdir(exist_ok=True)
    with (folder / "metadata.jsonl").open("w") as lines:
        for i in range(count):
            name = f"../pictures/{i // 1000:03d}/{i:06d}.jpg"
            lines.write(
                json.dumps({"file_name": name, "text": f"sixteen coloured squares, number {i}"})
                + "\n"
            )
    return folder


# ---------------------------------------------------------------- a run, in a process of its own


def run(recipe: dict[str, Any], out: Path, steps: int) -> dict[str, float]:
    """Train so many steps from nothing; returns seconds, shares and megabytes."""
    shutil.rmtree(out, ignore_errors=True)
    training = {
        "steps": steps,
        "batch_size": BATCH,
        "threads": 1,
        "validate_every": 0,
        "sample_count": 0,
        "log_every": 1000,
        "checkpoint_every": 1_000_000,
        "learning_rate": 1e-5,
    }
    data = {**recipe["data"], "condition": "canny", "size": SIZE, "workers": 1}
    values = {**recipe, "out": str(out), "device": "cpu", "data": data, "training": training}
    values["control"] = {"hint_widths": [4, 8, 8, 8]}
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    code = f"from benchmarks.speed.growth import child; child({str(path)!r}, {time.time()})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, cwd=ROOT, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(path: str, began: float) -> None:
    """`zeroconv train` with a look at the clock at every step; prints what `run` returns."""
    from zeroconv.data.cache import fill as cache
    from zeroconv.training import assembling, train_command
    from zeroconv.training.reporting.log import Meter
    from zeroconv.training.trainer import Trainer

    seconds: dict[str, float] = {}  # of the processor: other programs do not count
    assembling.open_data = timed(assembling.open_data, seconds)  # type: ignore[assignment]
    cache.cache_examples = timed(cache.cache_examples, seconds)
    ends, cpu, waits = [], [], []
    step, add = Trainer._train_step, Meter.add

    def watched(self: Trainer, micro: list) -> tuple[float, float]:
        figures = step(self, micro)
        ends.append(time.time())
        cpu.append(time.process_time())
        return figures

    def noted(self: Meter, loss: float, waited: float, batches: int) -> None:
        waits.append(waited)
        add(self, loss, waited, batches)

    Trainer._train_step, Meter.add = watched, noted  # type: ignore[method-assign]
    train_command(path)
    first = min(WARM, len(ends) - 2)
    figures = {
        "start": ends[0] - began,
        "start_cpu": cpu[0],
        "data": sum(seconds.values()),
        "step": 1000 * float(np.median(np.diff(ends[first:]))),
        "step_cpu": 1000 * float(np.median(np.diff(cpu[first:]))),
        "wait": sum(waits[first + 1 :]) / (ends[-1] - ends[first]),
        "memory": anonymous_memory() / 2**20,
    }
    print(json.dumps(figures))


def timed(function: Callable, seconds: dict[str, float]) -> Callable:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            name = function.__name__
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - began

    return wrapped


def anonymous_memory() -> int:
    """Bytes that are this process's own; pages of mapped files, which the system takes back when it
    likes, are not.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status does not tell RssAnon: this benchmark needs Linux.")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


if __name__ == "__main__":
    main()
