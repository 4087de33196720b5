"""A run killed 20 times against one that was never stopped: the same bit for bit?

    python -m benchmarks.robustness.crash                     one process
    python -m benchmarks.robustness.crash --processes 2       two (torchrun, gloo): both are killed,
    or one alone
    python -m benchmarks.robustness.crash --unlock-decoder    one, with the base's decoder training
                                                              too
    python -m benchmarks.robustness.crash --flow              one, of a small FLUX with new weights

Each writes its own column of benchmarks/results/crash.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from benchmarks.common import RESULTS, write_result
from benchmarks.flow_base import write_untrained
from tools.reports import ROOT, read_json
from zeroconv.training.checkpoint import checkpoints, step_of

RECIPE: dict[str, Any] = {
    "base": "playroom",
    "device": "cpu",
    "control": {"hint_widths": [8, 16, 48, 128]},
    "data": {"train": "stickers?split=train", "condition": "canny", "size": 64},
    "training": {
        "batch_size": 4, "optimizer": "muon", "learning_rate": 1e-3, "warmup": 20, "threads": 1,
        "checkpoint_every": 7, "keep": 2, "validate_every": 50, "sample_count": 0, "log_every": 5,
    },
}  # fmt: skip
FLOW: dict[str, Any] = {"blocks": 2, "single_blocks": 1}
COLUMNS = {
    (1, False, False): "one process",
    (2, False, False): "two processes",
    (1, True, False): "one, decoder unlocked",
    (1, False, True): "one, a flow base",
}
NOTE = (
    "kill -9 at a random moment, one thread a process, {steps} steps. Of two processes (torchrun, "
    "gloo) both were killed at once, or one alone, after which the other must end too. The "
    "tolerance is none in every column: a gradient of two processes is the sum of two numbers, the "
    "same in either order."
)
PATIENCE = 180  # seconds that a process whose partner is dead may live on
TICK = 0.1


@dataclass(frozen=True)
class Run:
    """One training of the recipe in a folder, which may be started again and again."""

    folder: Path
    name: str
    processes: int = 1
    unlock: bool = False
    steps: int = 150
    flow: bool = False

    def start(self) -> subprocess.Popen:
        values = {
            **RECIPE,
            "out": str(self.folder / self.name),
            "control": self._control(),
            "training": {**RECIPE["training"], "steps": self.steps},
        }
        if self.flow:
            values["base"] = str(self.folder / "base")
            values["training"]["timesteps"] = "logit_normal"
        path = self.folder / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(values))
        words = [sys.executable]
        if self.processes > 1:
            launcher = (
                "-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node"
            )
            words += [*launcher.split(), str(self.processes)]
        words += [
            "-m",
            "benchmarks.robustness.crash_worker",
            str(path),
            str(self.folder / f"{self.name}-taken"),
        ]
        quiet = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "ignore"}
        with (self.folder / f"{self.name}.err").open("w") as errors:
            return subprocess.Popen(
                words,
                cwd=ROOT,
                env={**os.environ, **quiet},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def _control(self) -> dict[str, Any]:
        return FLOW if self.flow else {**RECIPE["control"], "unlock_decoder": self.unlock}

    def finish(self, process: subprocess.Popen) -> None:
        """Raises RuntimeError, with what it said, where the run fails."""
        if process.wait() != 0:
            raise RuntimeError((self.folder / f"{self.name}.err").read_text()[-4000:])

    def reached(self) -> int:
        """The step of the newest checkpoint."""
        paths = checkpoints(self.folder / self.name / "checkpoints")
        return step_of(paths[0]) if paths else 0

    def state(self) -> dict[str, Any]:
        return torch.load(
            checkpoints(self.folder / self.name / "checkpoints")[0], weights_only=True
        )

    def losses(self) -> list[tuple[int, float]]:
        lines = map(json.loads, (self.folder / self.name / "log.jsonl").read_text().splitlines())
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    def taken(self) -> set[tuple[int, int, tuple[int, ...]]]:
        """(process, step, examples) of every time that a step was taken."""
        batches = set()
        for rank in range(self.processes):
            for line in (self.folder / f"{self.name}-taken-{rank}").read_text().splitlines():
                with suppress(ValueError):  # empty, or cut short by a kill
                    step, examples = json.loads(line)
                    batches.add((rank, step, tuple(examples)))
        return batches


@dataclass
class Kills:
    """What was done to a run."""

    rng: random.Random
    # step of the checkpoint that it went on from
    fell_back: list[int] = field(default_factory=list)
    alone: int = 0  # kills of one process of two
    survived: float = 0.0  # most seconds that its partner lived on

    def kill(self, process: subprocess.Popen) -> None:
        """kill -9 of every process of a run, or now and then of one of two alone."""
        launcher = psutil.Process(process.pid)
        # none of one process; torchrun gives each of two a session of its own
        workers = launcher.children()
        if len(workers) == 2 and self.rng.random() < 0.5:
            end(self.rng.choice(workers))
            lived = 0.0  # in ticks of our own: a machine that is stopped for a while stops both
            while process.poll() is None or any(map(lives, workers)):
                time.sleep(TICK)
                lived += TICK
                if lived > PATIENCE:
                    raise RuntimeError("one process of two was killed, and the other went on")
            self.alone, self.survived = self.alone + 1, max(self.survived, lived)
            return
        everything = [launcher, *launcher.children(recursive=True)]
        for one in everything:
            end(one)
        process.wait()
        while any(map(lives, everything)):
            time.sleep(TICK)


def end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def to_the_end_with_kills(run: Run, count: int, rng: random.Random) -> Kills:
    """Start the run, kill it, start it again, `count` times; then let it finish."""
    done = Kills(rng)
    while True:
        process = run.start()
        if len(done.fell_back) < count:
            seen = run.reached()
            ahead = rng.uniform(0.2, 1.8) * (run.steps - seen) / (count - len(done.fell_back) + 1)
            while process.poll() is None and run.reached() < min(seen + ahead, run.steps - 8):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1.0))  # in the middle of a step, or of writing
            if process.poll() is None:
                done.kill(process)
                done.fell_back.append(run.reached())
                print(
                    f"killed {len(done.fell_back)} of {count}, at step {run.reached()} or later",
                    flush=True,
                )
                continue
        run.finish(process)
        return done


def compare(straight: Run, killed: Run, kills: Kills) -> dict[str, Any]:
    """Facts for a column of the table."""
    a, b = straight.state(), killed.state()
    held = [part for part in ("control", "decoder", "ema", "optimizer") if part in a]
    return {
        "kills": len(kills.fell_back),
        "of these, of one process alone": kills.alone if killed.processes > 1 else None,
        "its partner ended within, s": round(kills.survived, 1) if killed.processes > 1 else None,
        "checkpoints they fell back to": " ".join(map(str, kills.fell_back)),
        "weights bit for bit the same": same(a["control"], b["control"]),
        "the base's decoder": same(a["decoder"], b["decoder"]) if killed.unlock else None,
        "averaged weights": same(a["ema"], b["ema"]),
        "optimiser": same(a["optimizer"], b["optimizer"]),
        "largest difference in these": max(difference(a[part], b[part]) for part in held),
        "examples of every step, each time it was taken": same(straight.taken(), killed.taken()),
        "every logged loss": same(straight.losses(), killed.losses()),
    }


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


def difference(a: Any, b: Any) -> float:
    """The largest between two numbers of two trees of tensors."""
    if isinstance(a, torch.Tensor):
        return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
    if isinstance(a, dict):
        return max((difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list | tuple):
        return max((difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    return 0.0


def add_column(name: str, facts: dict[str, Any], steps: int) -> None:
    """Put a column into the result beside those of the other runs."""
    path = RESULTS / "crash.json"
    old = read_json(path) if path.is_file() else {"columns": [""], "rows": []}
    columns = {
        c: {row[0]: row[i] for row in old["rows"]} for i, c in enumerate(old["columns"]) if i
    }
    columns[name] = facts
    names = [c for c in COLUMNS.values() if c in columns]
    rows = [[fact, *(columns[c].get(fact) for c in names)] for fact in facts]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
    command = "python -m benchmarks.robustness.crash [--processes 2 | --unlock-decoder | --flow]"
    write_result("crash", ["", *names], rows, command, NOTE.format(steps=steps))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--unlock-decoder", action="store_true")
    parser.add_argument("--flow", action="store_true")
    given = parser.parse_args()
    kind = (given.processes, given.unlock_decoder, given.flow)
    if kind not in COLUMNS:
        parser.error("--processes 2, --unlock-decoder and --flow are measured one at a time")
    folder = Path(tempfile.mkdtemp())
    if given.flow:
        write_untrained(folder / "base")
    shape = {"processes": given.processes, "unlock": given.unlock_decoder, "steps": given.steps}
    shape["flow"] = given.flow
    straight, killed = Run(folder, "straight", **shape), Run(folder, "killed", **shape)
    straight.finish(straight.start())
    kills = to_the_end_with_kills(killed, given.kills, random.Random(0))
    facts = compare(straight, killed, kills)
    shutil.rmtree(folder)
    add_column(COLUMNS[kind], facts, given.steps)


if __name__ == "__main__":
    main()
