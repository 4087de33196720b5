"""LoRA on the attention of the frozen UNet, the hint concatenated to its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.errors import UserError
from zeroconv.rivals.base import Embedding, HintChannels, Rival, adopt_trained, share

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def add_low_rank(network: nn.Module, targets: Sequence[str], rank: int) -> None:
    """Give the named layers of `network` (linear or convolution) low-rank updates W + B A that begin at zero and are
    all that trains (Hu et al. 2021); by peft. `targets`: whole names or their ends. Raises UserError."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("low-rank updates need peft: pip install 'zeroconv[rivals]'.") from error
    if rank < 1:
        raise UserError(f"rank is {rank}; a low-rank update has a rank of at least 1, usually 4 to 128.")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), network)


class Lora(Rival):
    """Low-rank updates of all attention projections, and input channels for the hint, as in `Concat`.

    The form of Black Forest Labs' FLUX.1 Canny and Depth LoRAs (2024): a conditioned model's concatenated input,
    learned with an adapter's few parameters. The scale α / r is 1.
    """

    kind = "lora"
    _whole: UNetBackbone

    def __init__(self, backbone: UNetBackbone, *, rank: int = 16, hint_form: str = "unshuffle") -> None:
        super().__init__()
        unet = cast(nn.Module, share(backbone.unet))
        self._hide("_whole", UNetBackbone(unet, scheduler_config=backbone.scheduler_config, name=backbone.name))
        add_low_rank(unet, ATTENTION, rank)
        adopt_trained(self, unet)
        self.hint_in = HintChannels(backbone.connections[0].channels, backbone.latent_scale, hint_form)

    def embed_hint(self, hint: Tensor) -> Embedding:
        return (self.hint_in(hint),)

    def predict_embedded(
        self, backbone: UNetBackbone, z: Tensor, embedding: Embedding, t: Tensor | int, text: TextStates
    ) -> Tensor:
        return self._whole.decode(self._whole.encoder(z, t, text, added=embedding[0]), t, text)
