"""Reward fine-tuning of a control against the same steps without a reward.

python -m benchmarks.quality.reward runs/reward [--condition canny] [--steps 60] [--count 48]

Both runs begin with the shipped control and make the same batches. Then pictures of test scenes are
made by the old control and both new ones, with the scenes' own captions and equal seeds, and their
hints are read back.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from zeroconv.evaluation import evaluate
from zeroconv.training.recipes.recipe import load_recipe
from zeroconv.training.run import train

RECIPE = "recipes/playroom-canny-reward.yaml"


def main() -> None:
    arguments = _parser().parse_args()
    rows: list[list[str]] = []
    common: dict[Any, Any] = {}
    for name in ("shipped", "without", "with"):
        began = time.monotonic()
        control = arguments.condition if name == "shipped" else _trained(name, arguments)
        seconds = time.monotonic() - began
        report = evaluate(
            f"playroom-{control}" if name == "shipped" else str(control),
            count=arguments.count,
            count_none=0,
            data=arguments.data,
            varied=0,
            common=common,
        )
        row = [name, f"{seconds:.0f} s"]
        rows.append(row + [_span(columns["own"]) for columns in report["metrics"].values()])
        ceiling = {m: columns["ceiling"]["mean"] for m, columns in report["metrics"].items()}
        print(name, {m: _span(c["own"]) for m, c in report["metrics"].items()}, ceiling, flush=True)

    rows.append(["ceiling", "", *(f"{value:.3f}" for value in ceiling.values())])
    columns = [f"{arguments.condition}, {arguments.steps} steps", "training", *ceiling]
    note = f"n = {arguments.count} test scenes, own captions; 95% bootstrap intervals."
    command = f"python -m benchmarks.quality.reward FOLDER --steps {arguments.steps}"
    write_result(f"reward-{arguments.condition}", columns, rows, command, note, arguments.out)


def _trained(name: str, arguments: argparse.Namespace) -> Path:
    """The control of a run with or without the recipe's reward."""
    changes = [
        f"out={arguments.folder / name}",
        f"control.init=playroom-{arguments.condition}",
        f"data.condition={arguments.condition}",
        f"training.steps={arguments.steps}",
        *arguments.set,
    ]
    recipe = load_recipe(RECIPE, changes)
    if name == "without":
        plain = recipe.training.model_copy(update={"reward": None})
        recipe = recipe.model_copy(update={"training": plain})
    return train(recipe) / "control"


def _span(interval: dict[str, Any]) -> str:
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of both runs")
    parser.add_argument("--condition", default="canny")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--count", type=int, default=48, help="test scenes")
    parser.add_argument("--data", default="playroom:test")
    parser.add_argument("--set", action="append", default=[], help="changes to the recipe")
    parser.add_argument("--out", type=Path, help="of the table, in place of benchmarks/results")
    return parser


if __name__ == "__main__":
    main()
