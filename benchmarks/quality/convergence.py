"""From nothing to a followed hint: time, step and gain over seeds; and shuffled hints.

python -m benchmarks.quality.convergence [--seeds 3] [--steps 150]
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from benchmarks.common import PICTURES, RESULTS, write_result
from tools.reports import ROOT, write_json
from zeroconv.data.cache.examples import Table
from zeroconv.training.assembling import assemble
from zeroconv.training.execution.choice import Launch
from zeroconv.training.recipes.recipe import Recipe, load_recipe

OUT = Path("runs/convergence")


def recipe_of(folder: Path, seed: int, steps: int, **more: Any) -> Recipe:
    """recipes/playroom-canny.yaml on rendered scenes alone, at a constant rate; also what
    `experiments/` trains.

    `more`: settings by their path, dots as two underscores: `training__batch_size=8`.
    """
    settings = {
        "out": str(folder),
        "device": "cpu",
        "training.steps": steps,
        "training.seed": seed,
        "training.validate_every": 5,
        "training.schedule": "constant",
        "training.warmup": min(20, steps - 1),
        "training.checkpoint_every": 10_000,
        "data.validation_count": 64,
        "training.sample_count": 4,
        "data.train": '["playroom:train:3072"]',
        "data.validation": '["playroom:val:64"]',
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return load_recipe(
        ROOT / "recipes" / "playroom-canny.yaml", [f"{k}={v}" for k, v in settings.items()]
    )


def run(name: str, seed: int, steps: int, shuffled: bool) -> dict[str, Any]:
    """Train until a little after detection (or for `steps` where the hints are another
    picture's).
    """
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    action = {} if shuffled else {"training__on_convergence": "stop_after=20"}
    recipe = recipe_of(folder, seed, steps, **action)
    trainer = assemble(recipe, Launch(Accelerator(cpu=True)), print)
    # every picture keeps another one's hint, the same one for ever: there is nothing to
    # follow
    if shuffled:
        hints = trainer.data.hints[np.roll(np.arange(len(trainer.data)), 1)]
        trainer.data = replace(trainer.data, hints=Table([hints]))
        trainer.first_plan = replace(trainer.first_plan, examples=trainer.data)
    trainer._sample()
    trainer.run()
    seen = trainer.converged["seen"] if trainer.converged else None
    lines = trainer.log.read()
    began = next(
        (
            line["seconds"]
            for line in lines
            if seen and line.get("seconds") and line["step"] >= seen
        ),
        None,
    )
    history = [(int(line["step"]), line["gain"]) for line in trainer.history]
    return {
        "converged": trainer.converged,
        "seconds": began,
        "steps": trainer.step,
        "history": history,
        "folder": folder,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    rows, curves = [], {}
    for seed in range(arguments.seeds):
        result = run(f"seed-{seed}", seed, arguments.steps, shuffled=False)
        if (when := result["converged"]) is None:
            rows.append([f"seed {seed}", "not detected", "–", "–", "–"])
            continue
        minutes = None if result["seconds"] is None else round(result["seconds"] / 60, 2)
        rows.append([f"seed {seed}", when["step"], when["seen"], f"{when['gain']:.4f}", minutes])
        curves[f"seed {seed}"] = result["history"]
    blind = run("shuffled", 0, arguments.steps, shuffled=True)
    alarm = "none" if blind["converged"] is None else f"FALSE ALARM at {blind['converged']['seen']}"
    rows.append(
        [
            f"hints of other pictures, {blind['steps']} steps",
            alarm,
            "–",
            f"{blind['history'][-1][1]:.4f}",
            "–",
        ]
    )
    curves["shuffled"] = blind["history"]
    sheets = sorted((OUT / "seed-0" / "samples").glob("*.png"))
    pictures = [Image.open(path).convert("RGB") for path in (sheets[0], sheets[-1])]
    both = Image.new("RGB", (sum(p.width for p in pictures) + 8, pictures[0].height), "white")
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (pictures[0].width + 8, 0))
    both.save(PICTURES / "convergence.jpg", quality=85)
    write_json(RESULTS / "convergence-curves.json", curves, indent=None)
    columns = [
        "canny, batch 32",
        "began at step",
        "detected at step",
        "hint gain there",
        "minutes of training",
    ]
    note = (
        "Two CPU cores, Muon 1e-3, 3,072 scenes, latents cached; measured every 5 steps on 64 "
        "held-out scenes."
    )
    command = f"python -m benchmarks.quality.convergence --steps {arguments.steps}"
    write_result("convergence", columns, rows, command, note)


if __name__ == "__main__":
    main()
