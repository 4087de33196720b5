"""Approximate modes (`--fast`): operations saved, and the fidelity that is lost.

python -m benchmarks.quality.fast [--count 8] [--alone 4] [--conditions canny,pose]

Each mode alone and the presets. Operations are counted at Stable Diffusion 1.5's size. Pictures are
the playroom's, of held-out pairs with their own captions, as `zeroconv evaluate` makes and scores
them; a mode and the exact pictures have the same seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write_result
from benchmarks.quality.family import MAIN
from benchmarks.quality.fast_operations import Loop
from zeroconv.backbones import load_backbone
from zeroconv.baselines import load_net
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.evaluation.making import Maker
from zeroconv.evaluation.metrics import paired_interval, summarise
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.evaluation.reading import make_read
from zeroconv.generation.guidance import settled
from zeroconv.generation.saving import parse_fast, presets

DATA = "playroom:test"
ALONE = {
    "residuals of the control every 2nd step": "branch=2",
    "residuals of the control every 4th step": "branch=4",
    "deep features every 2nd step": "deep=2",
    "deep features every 3rd step": "deep=3",
    "difference of guidance every 2nd step": "difference=2",
    "guidance left out after 70%": "guidance_end=0.7",
}
# of change the operations depend on the pictures
BY_CHANGE = {"deep features where latents changed by 15%": "change=0.15"}


@dataclass
class Mode:
    """Its sums over conditions."""

    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    exact: float = 0.0  # seconds of the same pictures, all computed
    distances: list[float] = field(default_factory=list)

    def less_time(self) -> str:
        return f"{self.exact / self.seconds:.2f}×" if self.seconds else ""


def main() -> None:
    arguments = parse()
    modes = {**ALONE, **BY_CHANGE, **{f"preset {name}": name for name in presets()}}
    measured = {name: Mode() for name in modes}
    backbone = load_backbone("playroom")
    for condition in arguments.conditions:
        measure(backbone, condition, modes, measured, arguments)
        print(condition, {k: round(m.losses[condition]["mean"], 2) for k, m in measured.items()},
              flush=True)  # fmt: skip
    loop = Loop()
    whole = loop.count(parse_fast("off"), arguments.steps)
    rows = []
    for name, mode in measured.items():
        fast = parse_fast(modes[name])
        less = "" if fast.change else f"{whole / loop.count(fast, arguments.steps):.2f}×"
        mean, half = average(list(mode.losses.values()))
        worst = max(mode.losses, key=lambda c: mode.losses[c]["mean"])
        rows.append([
            name, fast.words().replace(",", ", "), less, mode.less_time(),
            round(float(np.mean(mode.distances)), 1), f"{mean:.1f} ± {half:.1f}",
            f"{worst} {mode.losses[worst]['mean']:.1f}",
        ])  # fmt: skip
    columns = ["", "settings", "fewer operations", "less CPU time", "distance of 255",
               "fidelity lost, %", "worst, %"]  # fmt: skip
    note = (
        f"{arguments.steps} UniPC steps. Operations: Stable Diffusion 1.5, 512 px, one ControlNet "
        "on both halves. Pictures: the playroom at 128 px, "
        f"{len(arguments.conditions)} conditions, own captions, {arguments.count} pictures each of "
        f"the presets and {arguments.alone} of the others, beside other work on the machine. "
        "Distance: mean difference to the exact pictures. Fidelity lost: of each condition's main "
        "figure, mean over conditions with a 95% interval over pictures. Intervals of so few "
        "pictures are rough."
    )
    command = (
        f"python -m benchmarks.quality.fast --count {arguments.count} --alone {arguments.alone}"
    )
    write_result("fast", columns, rows, command, note, arguments.out)


def measure(
    backbone: Any,
    condition: str,
    modes: dict[str, str],
    measured: dict[str, Mode],
    arguments: argparse.Namespace,
) -> None:
    """Make and score one condition's pictures, exact and by every mode."""
    net = load_net(f"playroom-{condition}", backbone)
    pairs = load_pairs(DATA, condition, arguments.count, backbone.default_size)
    texts, seeds = [pair.caption for pair in pairs], list(range(len(pairs)))
    read, _ = make_read(condition, "auto", DATA)
    metric = MAIN[condition][0]
    guidance, cfg = settled(backbone, None, None)

    def make(fast: str, count: int) -> tuple[list[np.ndarray], list[Any], float]:
        options = {"steps": arguments.steps, "batch_size": 16, "cfg": cfg, "plain_prompt": True}
        options["fast"] = fast
        maker = Maker(backbone, net, pairs, texts, seeds, guidance, options)
        began = time.process_time()
        images = maker.controlled(count)
        spent = time.process_time() - began
        truths = [pair.truth for pair in pairs[:count]]
        score = CONDITIONS[condition].score
        scores = [score(t, r)[metric] for t, r in zip(truths, read(images), strict=True)]
        return [np.asarray(image, np.float32) for image in images], scores, spent

    exact, scores, spent = make("off", max(arguments.count, arguments.alone))
    for name, fast in modes.items():
        count = arguments.count if name.startswith("preset") else arguments.alone
        images, others, taken = make(fast, count)
        mode = measured[name]
        if count == len(exact):  # fewer pictures at once take longer each
            mode.exact, mode.seconds = mode.exact + spent, mode.seconds + taken
        mode.distances.append(float(np.mean([np.abs(a - b).mean() for a, b in
                                             zip(images, exact, strict=False)])))  # fmt: skip
        mode.losses[condition] = lost(scores[:count], others, metric)


def lost(exact: list[Any], made: list[Any], metric: str) -> dict[str, float]:
    """By how much a figure is worse than that of the exact pictures, % of it: mean, low, high."""
    kind, sign = METRICS[metric].kind, 1 if METRICS[metric].better == "higher" else -1
    figure = abs(summarise(exact, kind)["mean"])
    values = paired_interval(exact, made, kind)
    scaled = {key: sign * 100 * value / figure for key, value in values.items()}
    low, high = sorted((scaled["low"], scaled["high"]))
    return {"mean": scaled["mean"], "low": low, "high": high}


def average(losses: list[dict[str, float]]) -> tuple[float, float]:
    """Mean over conditions, and half of its 95% interval; their pictures are independent."""
    halves = [(one["high"] - one["low"]) / 2 for one in losses]
    return float(np.mean([one["mean"] for one in losses])), math.hypot(*halves) / len(halves)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="pictures a condition of presets")
    parser.add_argument("--alone", type=int, default=4, help="pictures a condition of other modes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--conditions", type=lambda text: text.split(","), default=list(MAIN))
    parser.add_argument("--out", type=Path, help="the result's file; by default of the repository")
    return parser.parse_args()


if __name__ == "__main__":
    main()
