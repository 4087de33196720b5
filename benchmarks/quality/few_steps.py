"""Pictures in 2, 4 and 8 steps, with and without a LoRA for few steps; controls as they are.

    python -m benchmarks.quality.few_steps --lora runs/playroom-lcm/lora

The LoRA is what `zeroconv train recipes/playroom-lcm.yaml` leaves. Captions, hints and seeds are
the same in every row. The first row has 20 steps, and fidelity is said in per cent of its own.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import write_result
from benchmarks.quality.base2 import FIRST
from benchmarks.quality.family import MAIN
from tools.reports import span
from zeroconv import playroom
from zeroconv.backbones import Backbone, load_backbone
from zeroconv.baselines import load_net
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.scores import METRICS
from zeroconv.evaluation.counting import count_scenes
from zeroconv.evaluation.making import Maker
from zeroconv.evaluation.metrics import interval, summarise
from zeroconv.evaluation.pairs import load_pairs
from zeroconv.evaluation.reading import make_read
from zeroconv.generation import generate
from zeroconv.generation.guidance import settled

DATA = "playroom:test"
USUAL = ("unipc", 20)
PLAIN = ("ddim_trailing", "dpm++2m_trailing", "unipc_trailing")  # with the base's own guidance
DISTILLED = ("lcm", "tcd", "ddim_trailing")  # with the LoRA, without guidance
FIGURES = {"named": "things read back", "exact": "exact scenes"}


@dataclass(frozen=True)
class Way:
    """How the pictures of a row are made."""

    scheduler: str
    steps: int
    distilled: bool = False

    @property
    def words(self) -> list[Any]:
        return [self.scheduler, self.steps, "with" if self.distilled else "without"]


def ways(steps: Sequence[int]) -> list[Way]:
    """The usual one first, by whose figures the others are divided."""
    plain = [Way(name, n) for name in PLAIN for n in steps]
    return [Way(*USUAL), *plain, *(Way(name, n, True) for name in DISTILLED for n in steps)]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse(words)
    bases = {False: load_backbone("playroom")}
    bases[True] = load_backbone("playroom", lora=arguments.lora)
    rows, fidelities = [], list[dict[str, float]]()
    for way in ways(arguments.steps):
        with warnings.catch_warnings():  # of samplers that a LoRA is not made for
            warnings.simplefilter("ignore", UserWarning)
            seen = scenes(bases[way.distilled], way, arguments.count)
            fidelities.append({
                condition: fidelity(bases[way.distilled], way, condition, arguments.pairs)
                for condition in arguments.conditions
            })  # fmt: skip
        rows.append([*way.words, *seen, *shares(fidelities[-1], fidelities[0])])
        print(rows[-1], flush=True)

    columns = ["sampler", "steps", "LoRA", *FIGURES.values()]
    columns += [f"{condition}, %" for condition in arguments.conditions]
    note = (
        f"The playroom at 128 px, {arguments.count} captions of the test split without control, "
        f"{arguments.pairs} held-out hints a condition with own captions and the shipped controls. "
        "Without the LoRA the base's own guidance of scale 4, with it none. Intervals of 95%. "
        f"Fidelity: each condition's main figure, in per cent of that of {USUAL[1]} steps."
    )
    command = (
        f"python -m benchmarks.quality.few_steps --lora {arguments.lora} --count "
        f"{arguments.count} --pairs {arguments.pairs}"
    )
    write_result("few_steps", columns, rows, command, note, arguments.out)


def scenes(backbone: Backbone, way: Way, count: int) -> list[str]:
    """Figures of `FIGURES` of pictures by their captions alone, with their intervals."""
    specs = [playroom.sample_scene(s) for s in playroom.split_seeds("test", count, start=FIRST)]
    texts, seeds = [playroom.caption_of(spec) for spec in specs], list(range(count))
    counted = count_scenes(generate(backbone, texts, seed=seeds, **options(backbone, way)), specs)
    return [span(interval(counted[name])) for name in FIGURES]


def fidelity(backbone: Backbone, way: Way, condition: str, count: int) -> float:
    """Mean of the condition's main figure over pictures by its shipped control."""
    net = load_net(f"playroom-{condition}", backbone)
    pairs = load_pairs(DATA, condition, count, backbone.default_size)
    texts, seeds = [pair.caption for pair in pairs], list(range(count))
    settings = {**options(backbone, way), "plain_prompt": True}
    maker = Maker(backbone, net, pairs, texts, seeds, settled(backbone, None, None)[0], settings)
    read, _ = make_read(condition, "auto", DATA)
    metric = MAIN[condition][0]
    score = CONDITIONS[condition].score
    made = zip(pairs, read(maker.controlled(count)), strict=True)
    scores = [score(pair.truth, seen)[metric] for pair, seen in made]
    return float(summarise(scores, METRICS[metric].kind)["mean"])


def options(backbone: Backbone, way: Way) -> dict[str, Any]:
    """Of `generate`. A LoRA's own guidance scale is the base's when it is loaded."""
    cfg = settled(backbone, None, None)[1]
    return {"steps": way.steps, "scheduler": way.scheduler, "cfg": cfg, "batch_size": 16}


def shares(figures: dict[str, float], usual: dict[str, float]) -> list[str]:
    """Each in per cent of the usual one; a dash where that is zero."""
    return [f"{100 * figures[c] / usual[c]:.0f}" if usual[c] else "–" for c in figures]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lora", required=True, help="folder or file of the LoRA")
    parser.add_argument("--count", type=int, default=64, help="captions a row")
    parser.add_argument("--pairs", type=int, default=32, help="hints a condition and row")
    split = {"type": lambda text: text.split(",")}
    parser.add_argument("--conditions", **split, default=["canny", "depth", "pose"])
    numbers = {"type": lambda text: [int(n) for n in text.split(",")]}
    parser.add_argument("--steps", **numbers, default=[2, 4, 8])
    parser.add_argument("--out", type=Path, help="the result's file; by default of the repository")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
