"""A run killed 20 times at random moments against one that was never stopped (python -m benchmarks.crash)."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from benchmarks.common import write_result
from zeroconv.training.state import checkpoints

RECIPE = {
    "base": "playroom",
    "device": "cpu",
    "control": {"hint_widths": [8, 16, 48, 128]},
    "data": {"train": "stickers?split=train", "condition": "canny", "size": 64},
    "training": {
        "steps": 300, "batch_size": 4, "optimizer": "muon", "learning_rate": 1e-3, "warmup": 20, "threads": 1,
        "checkpoint_every": 7, "keep": 2, "validate_every": 50, "sample_count": 0, "log_every": 5,
    },
}  # fmt: skip


def start(folder: Path, name: str, steps: int) -> subprocess.Popen:
    values = {**RECIPE, "out": str(folder / name), "training": {**RECIPE["training"], "steps": steps}}  # type: ignore[dict-item]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    code = f"from zeroconv.training import train_command; train_command({str(path)!r})"
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    folder, rng = Path(tempfile.mkdtemp()), random.Random(0)
    assert start(folder, "straight", arguments.steps).wait() == 0
    kills, steps = 0, []
    while True:
        process = start(folder, "killed", arguments.steps)
        if kills < arguments.kills:
            seen = step_of(folder / "killed")
            ahead = rng.uniform(0.2, 1.8) * (arguments.steps - seen) / (arguments.kills - kills + 1)
            while process.poll() is None and step_of(folder / "killed") < min(seen + ahead, arguments.steps - 8):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1.0))  # in the middle of a step, or of writing
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                steps.append(step_of(folder / "killed"))
                continue
        assert process.wait() == 0
        break
    states = [torch.load(checkpoints(folder / n / "checkpoints")[0], weights_only=True) for n in ("straight", "killed")]
    logs = [(folder / n / "log.jsonl").read_text().splitlines() for n in ("straight", "killed")]
    losses = [[(x["step"], x["loss"]) for x in map(json.loads, log) if "loss" in x] for log in logs]
    rows = [
        ["kills", kills],
        ["steps of the run", arguments.steps],
        ["checkpoints they fell back to", " ".join(map(str, steps))],
        ["weights bit for bit the same", same(states[0]["control"], states[1]["control"])],
        ["averaged weights", same(states[0]["ema"], states[1]["ema"])],
        ["optimiser", same(states[0]["optimizer"], states[1]["optimizer"])],
        ["place in the data", same(states[0]["micro"], states[1]["micro"])],
        ["every logged loss", same(losses[0], losses[1])],
    ]
    shutil.rmtree(folder)
    write_result(
        "crash", ["", "measured"], rows, f"python -m benchmarks.crash --kills {arguments.kills}", "kill -9, one thread."
    )


def step_of(run: Path) -> int:
    found = checkpoints(run / "checkpoints")
    return int(found[0].name[5:13]) if found else 0


def same(a: object, b: object) -> str:
    return "yes" if _equal(a, b) else "NO"


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b


if __name__ == "__main__":
    main()
