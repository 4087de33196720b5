"""LoRA on the attention of the frozen UNet, the hint concatenated to its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from zeroconv.backbones import UNetBackbone
from zeroconv.baselines.base import adopt_trained, share
from zeroconv.baselines.concat import Concatenated
from zeroconv.errors import UserError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def add_low_rank(network: nn.Module, targets: Sequence[str], rank: int) -> None:
    """Give the named layers of `network` (linear or convolution) low-rank updates W + B A that
    begin at zero and are all that trains (Hu et al. 2021); by peft. `targets`: whole names or their
    ends. Raises UserError.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise UserError(
            f"rank is {rank}; a low-rank update has a rank of at least 1, usually 4 to 128."
        )
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), network
    )


class Lora(Concatenated):
    """Low-rank updates of all attention projections, and input channels for the hint, as in
    `Concat`.

    The form of Black Forest Labs' FLUX.1 Canny and Depth LoRAs (2024): a conditioned model's
    concatenated input, learned with an adapter's few parameters. The scale α / r is 1.
    """

    kind = "lora"

    def __init__(
        self, backbone: UNetBackbone, *, rank: int = 16, hint_form: str = "unshuffle"
    ) -> None:
        super().__init__()
        unet = cast(nn.Module, share(backbone.unet))
        self._reads_hints(unet, backbone, hint_form)
        add_low_rank(unet, ATTENTION, rank)
        adopt_trained(self, unet)
