"""Operations of a training step of Stable Diffusion 1.5 at 512 px, for docs/scale.md.

python -m benchmarks.speed.scale
Counted with torch's FlopCounterMode on the meta device, so that it needs neither weights nor
memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import write_result
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.backbones.unet import DEFAULT_SCHEDULER
from zeroconv.control import ControlNet
from zeroconv.training.objective import predict

SIZE = 512


def counted(work: Callable[[], object]) -> float:
    """GFLOP, 2 × multiply-adds."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def main() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **ends)
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
        )

    # the noise schedule is computed, so it stays off the meta device
    backbone = UNetBackbone(unet, scheduler_config=DEFAULT_SCHEDULER, name="sd15")
    with torch.device("meta"):
        control = ControlNet.from_backbone(backbone)
        side = SIZE // 8
        z, hint, t = (
            torch.randn(1, 4, side, side),
            torch.rand(1, 3, SIZE, SIZE),
            torch.zeros(1, dtype=torch.long),
        )
        text, image = TextStates(torch.randn(1, 77, 768)), torch.rand(1, 3, SIZE, SIZE)
        tokens = torch.zeros(1, 77, dtype=torch.long)
        forward = counted(lambda: predict(backbone, control, z, hint, t, text))
        both = counted(lambda: predict(backbone, control, z, hint, t, text).sum().backward())
        encode = counted(lambda: vae.encode(image))
        words = counted(lambda: clip(tokens))
    rows = [
        ["forward, GFLOP", f"{forward:,.0f}"],
        ["backward, GFLOP", f"{both - forward:,.0f}"],
        ["a step on cached moments and text, GFLOP", f"{both:,.0f}"],
        ["VAE's encoder, GFLOP", f"{encode:,.0f}"],
        ["text encoder, GFLOP", f"{words:,.0f}"],
        ["parameters that train", f"{sum(p.numel() for p in control.parameters()):,}"],
        ["bytes a picture: moments", f"{2 * z.numel() * 4:,}"],
        ["bytes a picture: grey hint", f"{SIZE * SIZE:,}"],
        ["bytes a caption: text states", f"{text.hidden.numel() * 4:,}"],
    ]
    write_result(
        "scale",
        ["Stable Diffusion 1.5, a picture of 512 px", ""],
        rows,
        "python -m benchmarks.speed.scale",
    )


if __name__ == "__main__":
    main()
