"""Control-LoRA: a ControlNet whose copy is the frozen encoder itself plus low-rank updates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding, adopt_trained, share
from zeroconv.baselines.lora import add_low_rank
from zeroconv.control import ControlNet, ReleasedHintEncoder


class ControlLora(Baseline):
    """Stability AI's Control-LoRA (2023): all linear layers and convolutions of the copied encoder
    are the frozen weights plus trained low-rank updates; hint encoder and zero convolutions are
    trained as in ControlNet.

    hint_widths: of the hint encoder, None for the released ones.
    """

    kind = "control_lora"
    _net: ControlNet

    def __init__(
        self, backbone: UNetBackbone, *, rank: int = 16, hint_widths: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        encoder = share(backbone.encoder)
        layers = [
            name for name, m in encoder.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)
        ]
        add_low_rank(encoder, layers, rank)
        widths = {"conditioning_embedding_out_channels": hint_widths}
        ours = {"hint_encoder": "released", "connections": "zero", "only_mid_control": False}
        net = ControlNet(
            encoder, {**encoder.config, **widths, "zeroconv": ours}, backbone.latent_scale
        )
        assert isinstance(net.hint_encoder, ReleasedHintEncoder)
        net.hint_encoder.keep_contrast_()
        self._hide("_net", net)
        adopt_trained(self, net)

    def embed_hint(self, hint: Tensor) -> Embedding:
        return (self._net.embed_hint(hint),)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        with torch.no_grad():
            skips = backbone.encode(z, t, text)
        residuals = self._net.forward_embedded(z, embedding[0], t, text)
        return backbone.decode([s + r for s, r in zip(skips, residuals, strict=True)], t, text)
