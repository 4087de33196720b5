"""Approximate modes (`--fast`): operations saved, and the fidelity that is lost.

python -m benchmarks.quality.fast [--count 8] [--alone 4] [--conditions canny,pose]
python -m benchmarks.quality.fast --search [--count 8] [--grid deep=1/2/3 vae=full/tiny]

Each mode alone and the presets; or combinations of modes (--search), of which those are shown that
no other one beats in operations, or in time, and in fidelity. Operations are counted at Stable
Diffusion 1.5's size. Pictures are the playroom's, of held-out pairs with their own captions, as
`zeroconv evaluate` makes and scores them; a mode and the exact pictures have the same seeds.
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
from benchmarks.quality.fast_operations import Loop, decodings
from benchmarks.quality.fast_search import GRID, Point, best, grid, rows
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.tiny_vae import embedded_tiny_vae, load_tiny_vae
from zeroconv.baselines import load_net
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.evaluation.making import Maker
from zeroconv.evaluation.metrics import paired_interval, summarise
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.evaluation.reading import make_read
from zeroconv.generation.guidance import settled
from zeroconv.generation.saving import EXACT, Fast, parse_fast, presets

DATA = "playroom:test"
ALONE = {
    "residuals of the control every 2nd step": "branch=2",
    "residuals of the control every 4th step": "branch=4",
    "deep features every 2nd step": "deep=2",
    "deep features every 3rd step": "deep=3",
    "difference of guidance every 2nd step": "difference=2",
    "guidance left out after 70%": "guidance_end=0.7",
    "half of the tokens merged": "merge=0.5",
    "small decoder": "vae=tiny",
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

    def worst(self) -> str:
        name = max(self.losses, key=lambda condition: self.losses[condition]["mean"])
        return f"{name} {self.losses[name]['mean']:.1f}"


def main() -> None:
    arguments = parse()
    if arguments.search:
        arguments.alone = arguments.count
        modes = {fast.words(): fast.words() for fast in grid(arguments.grid)}
    else:
        modes = {**ALONE, **BY_CHANGE, **{f"preset {name}": name for name in presets()}}
    backbone = load_backbone("playroom")
    modes = with_decoder(backbone, modes, arguments.tiny_vae)
    measured = {name: Mode() for name in modes}
    for condition in arguments.conditions:
        measure(backbone, condition, modes, measured, arguments)
        print(condition, {k: round(m.losses[condition]["mean"], 2) for k, m in measured.items()},
              flush=True)  # fmt: skip
    write = write_search if arguments.search else write_modes
    write(modes, measured, Operations(arguments.steps), arguments)


def with_decoder(backbone: Any, modes: dict[str, str], path: str | None) -> dict[str, str]:
    """The modes that can be measured: without a small decoder those that use it are left out, since
    the VAE would decode their pictures.
    """
    backbone.tiny_vae = load_tiny_vae(path, backbone) if path else embedded_tiny_vae(backbone)
    if backbone.tiny_vae is not None:
        return modes
    kept = {name: words for name, words in modes.items() if parse_fast(words).vae != "tiny"}
    if len(kept) < len(modes):
        print(f"{len(modes) - len(kept)} modes with vae=tiny are left out; give --tiny-vae PATH")
    return kept


class Operations:
    """How many times fewer of a picture's operations a mode computes, at Stable Diffusion 1.5's
    size, 512 px.
    """

    def __init__(self, steps: int) -> None:
        self.loop, self.steps = Loop(), steps
        self.decode = dict(zip(("full", "tiny"), decodings(), strict=True))
        self.exact = self.loop.count(EXACT, steps)

    def of_loop(self, fast: Fast) -> float:
        return self.exact / self.loop.count(fast, self.steps)

    def decoded(self, fast: Fast) -> float:
        """Of the loop and the decoding of its result."""
        counted = self.loop.count(fast, self.steps) + self.decode[fast.vae]
        return (self.exact + self.decode["full"]) / counted


def write_modes(
    modes: dict[str, str],
    measured: dict[str, Mode],
    operations: Operations,
    arguments: argparse.Namespace,
) -> None:
    """The table of every mode alone and of the presets."""
    table = []
    for name, mode in measured.items():
        fast = parse_fast(modes[name])
        less = ["", ""]
        if not fast.change:
            less = [f"{operations.of_loop(fast):.2f}×", f"{operations.decoded(fast):.2f}×"]
        mean, half = average(list(mode.losses.values()))
        table.append([
            name, fast.words().replace(",", ", "), *less, mode.less_time(),
            round(float(np.mean(mode.distances)), 1), f"{mean:.1f} ± {half:.1f}", mode.worst(),
        ])  # fmt: skip
    columns = ["", "settings", "fewer operations", "with decoding", "less CPU time",
               "distance of 255", "fidelity lost, %", "worst, %"]  # fmt: skip
    note = _note(
        arguments,
        f"{arguments.count} pictures each of the presets and {arguments.alone} of the others",
    )
    command = (
        f"python -m benchmarks.quality.fast --count {arguments.count} --alone {arguments.alone}"
    )
    write_result("fast", columns, table, command, note, arguments.out)


def write_search(
    modes: dict[str, str],
    measured: dict[str, Mode],
    operations: Operations,
    arguments: argparse.Namespace,
) -> None:
    """The table of the combinations that no other one beats, and which the best preset would be."""
    points = []
    for name, mode in measured.items():
        fast, (mean, half) = parse_fast(modes[name]), average(list(mode.losses.values()))
        saved = operations.decoded(fast), mode.exact / mode.seconds
        points.append(Point(fast, *saved, mean, half, mode.worst()))
    columns = ["settings", "fewer operations", "less CPU time", "fidelity lost, %", "worst, %",
               "on the front of"]  # fmt: skip
    note = f"{len(points)} combinations of {', '.join(arguments.grid)}. "
    note += _note(arguments, f"{arguments.count} pictures each")
    command = f"python -m benchmarks.quality.fast --search --count {arguments.count}"
    write_result("fast_search", columns, rows(points), command, note, arguments.out)
    print("best of at most 1% lost, by operations:", best(points), "by time:", best(points, "time"))


def _note(arguments: argparse.Namespace, pictures: str) -> str:
    return (
        f"{arguments.steps} UniPC steps. Operations: Stable Diffusion 1.5, 512 px, one ControlNet "
        "on both halves; with decoding: by its VAE, or TAESD. Pictures: the playroom at 128 px, "
        f"{len(arguments.conditions)} conditions, own captions, {pictures}, beside other work on "
        "the machine. Distance: mean difference to the exact pictures. Fidelity lost: of each "
        "condition's main figure, mean over conditions with a 95% interval over pictures. "
        "Intervals of so few pictures are rough."
    )


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
    parser.add_argument("--search", action="store_true", help="combinations, in place of the modes")
    parser.add_argument("--grid", nargs="+", default=list(GRID), metavar="NAME=VALUE/VALUE")
    parser.add_argument("--tiny-vae", help="the small decoder; by default the embedded one")
    parser.add_argument("--out", type=Path, help="the result's file; by default of the repository")
    return parser.parse_args()


if __name__ == "__main__":
    main()
