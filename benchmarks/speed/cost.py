"""What a training step costs: a ControlNet, the base's decoder, or the whole UNet.

    python -m benchmarks.speed.cost                           the playroom, 32 pictures of 128 px
    python -m benchmarks.speed.cost --base sd15 --json FILE   Stable Diffusion 1.5's size, random
                                                              weights, 2 pictures of 256 px

The paper (section 3.3) says that training with ControlNet took 34% more time a step and 23% more
memory than optimising Stable Diffusion without it, on an A100. It does not say which part was
optimised, so both are here. All three compute the trainer's own loss and gradient on one batch,
clip, and step AdamW (fused), in float32. Averages of weights are left out. Every measurement is a
process of its own, as a peak of memory cannot be reset. The three take turns, so that other work
on the machine affects all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import RESULTS, write_result
from tools.reports import read_json, write_json
from zeroconv.backbones import TextStates, UNetBackbone, load_backbone
from zeroconv.backbones.unet import DEFAULT_SCHEDULER
from zeroconv.control import ControlNet
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.training import TrainingSettings
from zeroconv.training.unlock import unlock_

SIZES = {"playroom": (32, 128), "sd15": (2, 256)}  # pictures a batch, pixels
KINDS = {"control": "a ControlNet", "decoder": "the decoder alone", "whole": "the whole UNet"}
COLUMNS = [
    "what trains",
    "parameters, M",
    "steps",
    "a step, s",
    "25–75%",
    "peak memory, GiB",
    "TFLOP",
]
RATIOS = ["ControlNet ÷ this: time", "memory", "TFLOP"]
GIB = 2**30


def make_backbone(base: str) -> UNetBackbone:
    """ "sd15": its UNet with random weights and nothing else; or what `load_backbone` knows."""
    if base != "sd15":
        return load_backbone(base)
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return UNetBackbone(unet, scheduler_config=DEFAULT_SCHEDULER, name="sd15")


def make_step(
    kind: str, backbone: UNetBackbone, batch: int, size: int
) -> tuple[list[torch.nn.Parameter], Any]:
    """What trains, and a function that makes one step of it on a fixed batch of random numbers."""
    control, side = None, size // backbone.latent_scale
    if kind == "control":
        control = ControlNet.from_backbone(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = control.requires_grad_(True).parameters()
    elif kind == "decoder":
        trained = unlock_(backbone, control).parameters()  # type: ignore[arg-type]
        # torch's group norm crashes in channels_last on a CPU where its weight wants a
        # gradient and its input none, as in the decoder's first block; beside a control
        # the input wants one. The middle's last bias costs nothing
        backbone.unet.mid_block.resnets[-1].conv2.bias.requires_grad_(True)
    else:
        trained = backbone.unet.requires_grad_(True).parameters()
    backbone.unet.to(memory_format=torch.channels_last)
    parameters, settings = list(trained), TrainingSettings(steps=1)
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-6, weight_decay=settings.weight_decay, fused=True
    )
    loss = ControlledLoss(backbone, control)
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, batch, backbone.latent_channels, side, side, generator=generator)
    hints = torch.randint(0, 256, (batch, 1, size, size), generator=generator, dtype=torch.uint8)
    t = loss.process.draw(batch, generator, "cpu")
    width = backbone.unet.config.cross_attention_dim
    text = TextStates(torch.randn(batch, 77, width, generator=generator))

    def step() -> None:
        loss.errors(z, noise, t, hints if control is not None else None, text).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return parameters, step


def measure(kind: str, base: str, batch: int, size: int, steps: int) -> dict[str, Any]:
    """In this process. The first step, which also makes the optimiser's state, is not timed; memory
    is the most that the process held, less what its imports took; operations are counted in a last
    step, which is not timed either.
    """
    import diffusers
    import transformers

    assert diffusers.__version__ and transformers.__version__  # loaded before memory is looked at
    with FlopCounterMode(display=False):
        pass
    before = _peak()
    parameters, step = make_step(kind, make_backbone(base), batch, size)
    times = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    memory = _peak() - before
    with FlopCounterMode(display=False) as counter:
        step()
    trained = sum(p.numel() for p in parameters)
    return {
        "times": times[1:],
        "memory": memory,
        "flop": counter.get_total_flops(),
        "parameters": trained,
    }


def _peak() -> int:
    """Bytes, the most that this process has held. `ru_maxrss` would begin at what the process above
    holds.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure_apart(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a process of its own."""
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.speed.cost",
        "--kind",
        kind,
        "--base",
        arguments.base,
    ]
    for name in ("batch", "size", "steps", "threads"):
        words += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{KINDS[kind]}: the measuring process ended with {done.returncode} (−9: no memory is "
            "left)"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Median and quartiles of all timed steps, medians of the peaks."""
    summary = {}
    for kind, rounds in runs.items():
        times = sorted(seconds for one in rounds for seconds in one["times"])
        low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        summary[kind] = {
            "steps": len(times),
            "seconds": statistics.median(times),
            "low": low,
            "high": high,
            "memory": statistics.median(one["memory"] for one in rounds),
            "flop": rounds[0]["flop"],
            "parameters": rounds[0]["parameters"],
        }
    return summary


def table(where: str, summary: dict[str, dict[str, float]]) -> list[list[Any]]:
    """A row a kind; the last columns hold what the ControlNet costs relative to it."""
    rows = []
    for kind, label in KINDS.items():
        one = summary[kind]
        row = [
            f"{where}: {label}",
            f"{one['parameters'] / 1e6:.1f}",
            str(one["steps"]),
            f"{one['seconds']:.3g}",
        ]
        row += [
            f"{one['low']:.3g}–{one['high']:.3g}",
            f"{one['memory'] / GIB:.2f}",
            f"{one['flop'] / 1e12:.3g}",
        ]
        for name in ("seconds", "memory", "flop"):
            row.append("" if kind == "control" else f"{summary['control'][name] / one[name]:.2f}")
        rows.append(row)
    return rows


def kept_rows(where: str) -> list[list[Any]]:
    """What the result file holds of other bases and sizes."""
    path = RESULTS / "cost.json"
    old = read_json(path)["rows"] if path.is_file() else []
    return [row for row in old if not row[0].startswith(f"{where}:")]


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="playroom", help="playroom, sd15, or a base's folder")
    parser.add_argument("--batch", type=int, help="pictures a step")
    parser.add_argument("--size", type=int, help="pixels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes a kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where every time goes")
    parser.add_argument("--kind", choices=KINDS, help="measure this one here and print it")
    arguments = parser.parse_args(words)
    batch, size = SIZES.get(arguments.base, (2, 64))
    arguments.batch, arguments.size = arguments.batch or batch, arguments.size or size
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    torch.set_num_threads(arguments.threads)
    if arguments.kind:
        print(
            json.dumps(
                measure(
                    arguments.kind, arguments.base, arguments.batch, arguments.size, arguments.steps
                )
            )
        )
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds):
        for kind in KINDS:
            runs[kind].append(measure_apart(kind, arguments))
            print(
                f"round {number + 1}/{arguments.rounds} {kind}: {json.dumps(runs[kind][-1])}",
                flush=True,
            )
    summary = summarise(runs)
    if arguments.json:
        settings = {**vars(arguments), "json": str(arguments.json)}
        write_json(
            arguments.json, {"settings": settings, "runs": runs, "summary": summary}, indent=None
        )
    where = f"{arguments.base}, {arguments.batch} × {arguments.size} px"
    write_result(
        "cost",
        [*COLUMNS, *RATIOS],
        sorted(
            [*kept_rows(where), *table(where, summary)], key=lambda row: row[0].partition(":")[0]
        ),
        "python -m benchmarks.speed.cost [--base sd15]",
        "float32, AdamW, CPU; every kind in processes of its own, by turns. Memory is beyond what "
        "the imports took. sd15: random weights of its size.",
    )


if __name__ == "__main__":
    main()
