"""Operations of a denoising loop at Stable Diffusion 1.5's size, counted without computing them.

python -m benchmarks.quality.fast_operations [--seconds]

The table is that of merged tokens at three sizes; of the other modes, benchmarks.quality.fast's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import write_result
from benchmarks.speed.memory import SD15, UNETS
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.control import ControlNet
from zeroconv.generation.sampling import Guide
from zeroconv.generation.saving import Fast, predict
from zeroconv.generation.saving.state import Saving
from zeroconv.layers.merging import Merging

SIZES, SHARES = (512, 768, 1024), (0.25, 0.5, 0.75)
LATENT, TOKENS, WIDTH = 64, 77, 768  # of 512 px, and of the text


class Loop:
    """One picture of `size` px with a ControlNet on both halves of guidance. All tensors are on the
    meta device; torch counts products of matrices and convolutions.
    """

    def __init__(self, size: int = 8 * LATENT) -> None:
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            self.backbone = UNetBackbone(UNet2DConditionModel(**UNETS[SD15]))
            net: Any = ControlNet.from_backbone(self.backbone).to("meta")
            side = size // 8
            self.z = torch.empty(1, 4, side, side)
            self.cond = TextStates(torch.empty(1, TOKENS, WIDTH))
            self.uncond = TextStates(torch.empty(1, TOKENS, WIDTH))
            first = self.backbone.connections[0].channels
            embedding = torch.empty(1, first, side, side)
        scales = [1.0] * len(self.backbone.connections)
        self.guide = Guide(net, embedding.expand(1, -1, -1, -1), scales, 0.0, 1.0, uncond=True)
        self.counted: dict[Any, tuple[int, dict[str, Any]]] = {}

    def count(self, fast: Fast, steps: int) -> int:
        """Of `steps` calls of the networks, 2 a multiplication and addition."""
        side = self.z.shape[-1]
        merging = Merging(fast.merge, [0], (side, side)) if fast.merge else None
        saving = Saving(fast, fast.layers, merging)
        with saving.attached(self.backbone, [self.guide]):
            return sum(self._step(saving, step, steps) for step in range(steps))

    def _step(self, saving: Saving, step: int, steps: int) -> int:
        """Steps that compute the same are counted once."""
        saving.begin(step, steps, self.z, [self.guide])
        kept = [None if saving.deep is None else len(saving.deep)]
        kept += [entry.rows for entry in saving.residuals.values()]
        flags = (saving.guided, saving.fresh_deep, saving.fresh_branch, saving.fresh_difference)
        merged = saving.fast.merge if saving.merging and saving.merging.on else 0.0
        key = (
            merged,
            *flags,
            saving.difference is None,
            saving.layers,
            saving.fast.reuses_deep,
            *kept,
        )
        if key not in self.counted:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                t, acting = torch.empty((), device="meta"), [(self.guide, 1.0)]
                predict(saving, self.backbone, self.z, t, self.cond, self.uncond, acting, 7.5)
            left = {"deep": saving.deep, "difference": saving.difference}
            left["residuals"] = dict(saving.residuals)
            self.counted[key] = counter.get_total_flops(), left
        operations, left = self.counted[key]
        vars(saving).update(left, residuals=dict(left["residuals"]))
        return operations


def decodings() -> tuple[int, int]:
    """Operations of a decode of 512 px by Stable Diffusion 1.5's VAE, and by TAESD."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    widths = (128, 256, 512, 512)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4}
    levels["up_block_types"] = ("UpDecoderBlock2D",) * 4
    with torch.device("meta"):
        large = AutoencoderKL(block_out_channels=widths, layers_per_block=2, **levels)
        made = [large, AutoencoderTiny()]
        z = torch.empty(1, 4, LATENT, LATENT)
    counted = []
    for vae in made:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            vae.decode(z)
        counted.append(counter.get_total_flops())
    return counted[0], counted[1]


@torch.no_grad()
def seconds(size: int, share: float) -> float:
    """Of one attention block of the highest resolution, float32, one row; the second of two."""
    from diffusers.models.attention import BasicTransformerBlock

    side = size // 8
    block = BasicTransformerBlock(320, 8, 40, cross_attention_dim=WIDTH)
    net = torch.nn.Module()
    net.down_blocks = torch.nn.ModuleList([block])
    x, text = torch.randn(1, side * side, 320), torch.randn(1, TOKENS, WIDTH)
    with Merging(share, [0], (side, side)).attached(net):
        for _ in range(2):
            began = time.process_time()
            block(x, encoder_hidden_states=text)
            taken = time.process_time() - began
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", action="store_true", help="also of one block; takes minutes")
    parser.add_argument("--out", type=Path, help="the result's file; by default of the repository")
    arguments = parser.parse_args()
    rows = []
    for size in SIZES:
        loop = Loop(size)
        exact, plain = loop.count(Fast(), 1), seconds(size, 0.0) if arguments.seconds else 0.0
        for share in SHARES:
            fewer = exact / loop.count(Fast(merge=share), 1)
            row = [f"{size} px", share, round(exact / 1e12, 2), f"{fewer:.2f}×"]
            if arguments.seconds:
                row.append(f"{plain / seconds(size, share):.2f}×")
            rows.append(row)
    columns = ["", "merge", "TFLOP a step", "fewer operations"]
    columns += ["one block, less CPU time"] if arguments.seconds else []
    note = "Stable Diffusion 1.5 with one ControlNet, both halves of guidance."
    command = "python -m benchmarks.quality.fast_operations"
    command += " --seconds" if arguments.seconds else ""
    write_result("fast_merge", columns, rows, command, note, arguments.out)


if __name__ == "__main__":
    main()
