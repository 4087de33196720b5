"""The hint concatenated to the UNet's input; and the UNet fine-tuned whole, which came before
adapters.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.baselines.base import Baseline, Embedding, HintChannels


class Concatenated(Baseline):
    """A UNet of the baseline's own whose first convolution reads the hint as well, with weights
    that start at zero.
    """

    _widened: UNetBackbone

    def _reads_hints(self, unet: nn.Module, backbone: UNetBackbone, hint_form: str) -> None:
        """Take `unet` in the frozen one's place, and the hint beside its input."""
        self._hide(
            "_widened",
            UNetBackbone(unet, scheduler_config=backbone.scheduler_config, name=backbone.name),
        )
        self.hint_in = HintChannels(
            backbone.connections[0].channels, backbone.latent_scale, hint_form
        )

    def embed_hint(self, hint: Tensor) -> Embedding:
        return (self.hint_in(hint),)

    def predict_embedded(
        self,
        backbone: UNetBackbone,
        z: Tensor,
        embedding: Embedding,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        return self._widened.decode(self._widened.encoder(z, t, text, added=embedding[0]), t, text)


class Concat(Concatenated):
    """A copy of the whole UNet, all of it trained.

    The practice of Stable Diffusion's depth-to-image and inpainting models and of InstructPix2Pix
    (Brooks et al. 2023). `hint_form`: see `HintChannels`; "downsample" is those models' form,
    "unshuffle", the default, keeps lines that are thinner than a latent.
    """

    kind = "concat"

    def __init__(self, backbone: UNetBackbone, *, hint_form: str = "unshuffle") -> None:
        super().__init__()
        self.unet = cast(nn.Module, copy.deepcopy(backbone.unet))
        self._reads_hints(self.unet, backbone, hint_form)
        self.unet.requires_grad_(True)  # a backbone freezes what it is given
