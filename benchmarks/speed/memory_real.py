"""The estimate of `benchmarks.speed.memory` beside what a process takes, for its word `real`.

Peak resident memory of one step in float32 on the CPU, less what the process held before: the
playroom at 128 px and Stable Diffusion 1.5 at full size, random weights, 256 px.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.common import write_result
from benchmarks.speed.memory import SD15, UNETS
from tools.reports import ROOT
from zeroconv.backbones import TextStates, UNetBackbone, load_backbone
from zeroconv.control import ControlNet
from zeroconv.layers.checkpointing import recompute_
from zeroconv.layers.fake import held_by, make_fake_
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.training.execution.memory import activations, chosen, micro_batch
from zeroconv.training.objective import ControlledLoss

CASES = [
    ("playroom", 16, 16, "none"),
    ("playroom", 16, 16, "full"),
    (SD15, 1, 32, "none"),
    (SD15, 1, 32, "full"),
]


def backbone_of(base: str) -> UNetBackbone:
    from diffusers import UNet2DConditionModel

    return (
        load_backbone(base)
        if base not in UNETS
        else UNetBackbone(UNet2DConditionModel(**UNETS[base]), name=base)
    )


def resident(most: bool = False) -> int:
    """Bytes this process holds, or the most since it was last set back."""
    name = "VmHWM:" if most else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def step(base: str, n: int, side: int, setting: str, fake: bool) -> int:
    """Bytes that weights, gradients and one micro-batch of n latents of side × side take at their
    highest.
    """
    before = resident()
    with torch.device("meta" if fake and base in UNETS else "cpu"):
        backbone = backbone_of(base)
    control = ControlNet.from_backbone(backbone).requires_grad_(True)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    if fake:
        for module in (backbone.unet, control):
            make_fake_(module, mode)
    loss = ControlledLoss(backbone, control)
    if not fake:
        ledger_and_recompute(loss, n, side, setting)
        micro_batch(loss, n, (side, side), text(backbone, n))().backward()
        return resident(most=True) - before
    with mode:
        ledger_and_recompute(loss, n, side, setting)
        with LiveBytes() as live:
            micro_batch(loss, n, (side, side), text(backbone, n))().backward()
    held = backbone._modules() if base not in UNETS else [backbone.unet]
    return live.most + held_by(control) + sum(map(held_by, held))


def ledger_and_recompute(loss: ControlledLoss, n: int, side: int, setting: str) -> None:
    ledger = activations(loss, n, (side, side), text(loss.backbone, n))
    for i in chosen(ledger, setting):
        recompute_(ledger.parts[i].module)


def text(backbone: Any, n: int) -> TextStates:
    return TextStates(torch.zeros(n, 77, backbone.unet.config.cross_attention_dim))


def measured(case: tuple[str, int, int, str]) -> int:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.memory_real", json.dumps(case)]
    return int(
        subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout.split()[-1]
    )


def main() -> None:
    rows = []
    for base, n, side, setting in CASES:
        reckoned, real = step(base, n, side, setting, fake=True), measured((base, n, side, setting))
        what = (
            f"{base.rpartition('/')[2]}, batch {n}, latents {side} × {side}, checkpointing "
            f"{setting}"
        )
        rows.append(
            [what, f"{reckoned / 1e9:.2f}", f"{real / 1e9:.2f}", f"{real / reckoned - 1:+.0%}"]
        )
        print(*rows[-1], flush=True)
    note = (
        "Weights, gradients and one step without an optimiser, float32, CPU; the process's peak "
        "above its start."
    )
    write_result(
        "memory_real",
        ["", "reckoned, GB", "taken, GB", "more"],
        rows,
        "python -m benchmarks.speed.memory real",
        note,
    )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        # what libraries take for themselves is there before
        step("playroom", 1, 4, "none", fake=False)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
        print(step(*json.loads(sys.argv[1]), fake=False))
