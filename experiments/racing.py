"""How figure 9 trains: every network by one recipe, as a run in a process of its own, with its own
best optimiser, for as many steps as ControlNet and for as many as take its time. What is there
already stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tools.reports import ROOT, read_json, write_json
from zeroconv.files import atomic_folder

WIDTHS = [8, 16, 48, 128]  # of hint encoders, as in the recipe
# so short a race tells nothing of lower rates: they would lose it
CANDIDATES = (("muon", 1e-3), ("adamw", 1e-3))
# steps that tell a network's pace where no --gauge did; the fewest that any is trained for
GAUGED = 40
LEVEL = 0.05  # paces that differ by less are as good as equal


@dataclass(frozen=True)
class Entry:
    label: str
    source: str
    control: dict[str, Any] = field(default_factory=dict)


def baseline(label: str, source: str, kind: str, **options: Any) -> Entry:
    return Entry(label, source, {"kind": kind, "options": options})


ENTRIES = {
    "controlnet": Entry("ControlNet", "this paper", {"hint_widths": WIDTHS}),
    "controlnet-gaussian": Entry(
        "ControlNet, Gaussian", "figure 8", {"hint_widths": WIDTHS, "connections": "gaussian"}
    ),
    "controlnet-lite": Entry(
        "ControlNet-lite", "figure 8", {"hint_widths": WIDTHS, "connections": "lite"}
    ),
    "concat": baseline("whole UNet, hint concatenated", "SD depth, InstructPix2Pix", "concat"),
    "lora": baseline("LoRA, hint concatenated", "Hu 2021, FLUX.1 Canny LoRA", "lora", rank=16),
    "control_lora": baseline(
        "Control-LoRA", "Stability AI 2023", "control_lora", rank=16, hint_widths=WIDTHS
    ),
    "t2i_adapter": baseline("T2I-Adapter", "Mou 2023", "t2i_adapter"),
    "controlnet_xs": baseline(
        "ControlNet-XS", "Zavadski 2023", "controlnet_xs", ratio=0.25, hint_widths=WIDTHS
    ),
    "hypernetwork": baseline(
        "hypernetwork", "Ha 2017, Kurumuz 2022", "hypernetwork", hint_widths=WIDTHS
    ),
    "side": baseline("side network", "Zhang 2020, side-tuning", "side", ratio=0.5),
}

# Kinds that came after figure 9 was run; they race when it is run again.
LATER = {"lllite"}


def settings_of(
    folder: Path, arguments: argparse.Namespace, name: str, chosen: tuple[str, float], steps: int
) -> dict[str, Any]:
    """What a run changes of recipes/playroom-canny.yaml, by the settings' places."""
    settings = {
        "out": str(folder),
        "control": ENTRIES[name].control,
        "data.train": [arguments.data],
        "data.validation": [arguments.validation],
        "training.steps": steps,
        "training.batch_size": arguments.batch,
        "training.optimizer": chosen[0],
        "training.learning_rate": chosen[1],
        "training.schedule": "constant",
        "training.warmup": min(20, arguments.steps // 4),
        "training.seed": arguments.seed,
        "training.checkpoint_every": 40,
        "training.keep": 1,
        "training.validate_every": 100_000,
        "training.sample_count": 0,
        "training.log_every": 10,
    }
    if steps <= settings["training.warmup"]:
        settings["training.warmup"] = 0
    return settings


def recipe_of(settings: dict[str, Any]) -> Any:
    from zeroconv.training.recipes.recipe import load_recipe

    values = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return load_recipe(ROOT / "recipes" / "playroom-canny.yaml", values)


def leg(
    folder: Path, arguments: argparse.Namespace, name: str, chosen: tuple[str, float], steps: int
) -> dict[str, Any]:
    """Train in a process of its own, so that its peak memory is its own, or go on; returns the
    run's summary.
    """
    settings = settings_of(folder, arguments, name, chosen, steps)
    command = [
        sys.executable,
        "-m",
        "experiments.fig09_baselines",
        "--worker",
        json.dumps(settings),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    if subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode:
        sys.exit(f"zeroconv: training {name} failed; the same command goes on")
    summary = read_json(folder / "summary.json")
    if summary["status"] != "finished":
        sys.exit("zeroconv: interrupted; the same command goes on")
    return summary


def train_leg(settings: dict[str, Any]) -> None:
    """The worker's part: one run of the trainer."""
    from zeroconv.training import train

    train(recipe_of(settings))


def gauge(runs: Path, names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Seconds a step of every network with each optimiser, kept in files. By turns in one process,
    so that whatever slows the machine for a while slows all alike: medians of gradients, and of
    what each optimiser makes of them.
    """
    from accelerate import Accelerator

    from zeroconv.layers.allocator import keep_pages
    from zeroconv.training.assembling import assemble
    from zeroconv.training.execution.choice import Launch
    from zeroconv.training.optimizer import make_optimizer

    keep_pages()
    networks = {}
    for name in names:
        recipe = recipe_of(
            settings_of(runs / "gauge", arguments, name, CANDIDATES[0], arguments.steps)
        )
        trainer = assemble(recipe, Launch(Accelerator(cpu=True)), lambda line: None)
        kinds = {
            c: recipe.training.model_copy(update={"optimizer": c[0], "learning_rate": c[1]})
            for c in CANDIDATES
        }
        optimisers = {c: make_optimizer(trainer.control, kind) for c, kind in kinds.items()}
        networks[name] = trainer, trainer.plan.from_step(0), optimisers
    seconds: dict[tuple[str, Any], list[float]] = {}
    for _ in range(1 + arguments.gauge):
        for name, (trainer, batches, optimisers) in networks.items():
            began = time.perf_counter()
            trainer._gradients([next(batches)])
            timings: list[tuple[Any, float]] = [("gradients", time.perf_counter() - began)]
            for chosen, optimiser in optimisers.items():
                began = time.perf_counter()
                optimiser.step()
                timings.append((chosen, time.perf_counter() - began))
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.step += 1
            for what, taken in timings:
                seconds.setdefault((name, what), []).append(taken)
    # the first one warms up
    middle = {key: statistics.median(values[1:]) for key, values in seconds.items()}
    for name in names:
        for chosen in CANDIDATES:
            write_json(
                pace_file(runs, name, chosen), middle[name, "gradients"] + middle[name, chosen]
            )
        print(
            f"{name}: {middle[name, 'gradients']:.2f} s",
            *(f"{c[0]} {middle[name, c]:.2f}" for c in CANDIDATES),
        )


def pace_file(runs: Path, name: str, chosen: tuple[str, float]) -> Path:
    return runs / name / f"pace-{chosen[0]}-{chosen[1]:g}.json"


def choose(runs: Path, name: str, arguments: argparse.Namespace) -> tuple[str, float]:
    """The optimiser and rate with the lowest validation loss after a few steps, kept in a file; the
    winner's run becomes the network's.
    """
    if not arguments.tune:
        return CANDIDATES[0]
    path = runs / f"tune-{arguments.tune}" / f"{name}.json"
    if not path.is_file():
        losses = []
        for kind, rate in CANDIDATES:
            summary = leg(
                path.parent / f"{name}-{kind}", arguments, name, (kind, rate), arguments.tune
            )
            losses.append({"optimizer": kind, "rate": rate, **summary["validation"]})
        write_json(path, losses)
    best = min(read_json(path), key=lambda line: line["true"])
    run = runs / name / "run"
    if arguments.tune <= arguments.steps and not run.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f"{name}-{best['optimizer']}").rename(run)
    for kind, _ in CANDIDATES:
        shutil.rmtree(path.parent / f"{name}-{kind}", ignore_errors=True)
    return best["optimizer"], best["rate"]


def train_both(
    runs: Path,
    arguments: argparse.Namespace,
    name: str,
    chosen: tuple[str, float],
    pace_of_first: float | None,
) -> dict[str, Any]:
    """Weights after `steps` steps and after as many as take ControlNet's time, in order; what is
    there stays.

    Returns "steps" and "time", each with the run's summary there. `pace_of_first`: ControlNet's
    median seconds a step; None: this is that run. Equal time is reckoned with medians, so that
    neither a pause nor another program counts.
    """
    folder, gauged = runs / name, pace_file(runs, name, chosen)
    done = {which: folder / f"at-{which}.json" for which in ("steps", "time")}
    if not all(path.is_file() for path in done.values()):
        if not gauged.is_file():
            leg(folder / "run", arguments, name, chosen, min(GAUGED, arguments.steps))
            write_json(gauged, pace(folder / "run" / "log.jsonl"))
        measured_pace = read_json(gauged)
        fewest = min(max(GAUGED, arguments.tune), arguments.steps)
        equal = arguments.steps
        if pace_of_first is not None and abs(pace_of_first / measured_pace - 1) > LEVEL:
            equal = max(fewest, round(arguments.steps * pace_of_first / measured_pace))
        for steps in sorted({arguments.steps, equal}):
            names = [
                which
                for which, wanted in (("steps", arguments.steps), ("time", equal))
                if wanted == steps
            ]
            if not all(done[which].is_file() for which in names):
                keep(
                    folder,
                    {
                        **leg(folder / "run", arguments, name, chosen, steps),
                        "seconds_a_step": measured_pace,
                    },
                    names,
                )
    return {which: read_json(path) for which, path in done.items()}


def keep(folder: Path, summary: dict[str, Any], names: Sequence[str]) -> None:
    """Set the run's weights and summary aside under these names, weights first."""
    for which in names:
        with atomic_folder(folder / f"at-{which}") as temporary:
            shutil.copytree(folder / "run" / "control", temporary, dirs_exist_ok=True)
        write_json(folder / f"at-{which}.json", summary)


def pace(log: Path) -> float | None:
    """Median seconds a step between lines of the log, validation and checkpoints aside."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    points = [(line["step"], line["seconds"]) for line in lines if "seconds" in line]
    spans = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points) if b[0] > a[0])
    return spans[len(spans) // 2] if spans else None
