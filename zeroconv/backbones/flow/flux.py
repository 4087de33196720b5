"""FLUX.1 (dev, schnell) as a backbone, driving diffusers' own transformer.

Residuals are tokens of the picture, added after each double block and after each single block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroconv.backbones.flow.packing import PATCH, pack, positions, unpack
from zeroconv.backbones.flow.sentences import clip_pooled, t5_states
from zeroconv.backbones.flow.transformer import TransformerBackbone, by_block
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread
from zeroconv.errors import UserError


class FluxBackbone(TransformerBackbone):
    """A frozen FLUX.1. transformer: diffusers' FluxTransformer2DModel.

    FLUX.1 dev reads the guidance scale as an input (`TextStates.guidance`, 3.5 where it is None);
    schnell has none, and its defaults guide nothing. text_encoders: CLIP for the pooled vector,
    and T5.
    """

    family = "FLUX.1"
    scheduler: ClassVar[dict[str, Any]] = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "base_shift": 0.5,
        "max_shift": 1.15,
    }
    usual = Defaults(cfg=3.5)
    unguided: ClassVar[Defaults] = Defaults(cfg=1.0)  # of a transformer without guidance embedding

    def __init__(self, transformer: Any, vae: nn.Module | None = None, *args: Any, **more: Any):
        super().__init__(transformer, vae, *args, **more)
        self.beside = self._channels_beside()
        if self.beside and not self.reads_hint and more.get("defaults") is None:
            self.defaults = Defaults(cfg=30.0)  # of FLUX Fill's pipeline
        if not self.reads_guidance and more.get("defaults") is None:
            self.defaults = self.unguided
        self.doubles = len(transformer.transformer_blocks)
        names = [f"double.{i}" for i in range(self.doubles)]
        names += [f"single.{i}" for i in range(len(transformer.single_transformer_blocks))]
        width = transformer.inner_dim
        self.connections = tuple(Connection(name, width, PATCH, "tokens") for name in names)

    def _channels_beside(self) -> int:
        """Channels that it reads beside its latent: of a hint's latent (FLUX Control), or of a
        picture's latent and its mask, pixel by pixel (FLUX Fill). Raises UserError for others.
        """
        more = self.transformer.config.in_channels // PATCH**2 - self.latent_channels
        if more not in (0, self.latent_channels, self.latent_channels + self.latent_scale**2):
            raise UserError(
                f"{self.name} reads {more} channels beside the {self.latent_channels} of its "
                "latent; zeroconv knows FLUX.1, FLUX Fill and FLUX Control."
            )
        return more

    @property
    def reads_hint(self) -> bool:
        """Whether it reads a hint's latent beside its own (FLUX Control)."""
        return self.beside == self.latent_channels

    @property
    def picture_channels(self) -> int:
        """Channels of a picture and its mask that it reads beside its latent (FLUX Fill)."""
        return 0 if self.reads_hint else self.beside

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The velocity ε − z (N, C, H, W) of latents z (N, C, H, W).

        t (N,) or a scalar in (0, 1000]; text: hidden (N, L, D), pooled (N, P), and guidance (N,)
        or None; residuals: (N, H·W / 4, width), one a connection, or None. z has further channels
        behind its own where the transformer reads a hint or a picture beside it.
        """
        self._check_size(z)
        if z.shape[1] != self.latent_channels + self.beside:
            raise UserError(
                f"{self.name} is a FLUX Control, which needs a hint in every step and for both "
                f"halves of guidance: --control {self.name}=hint.png."
            )
        doubles = singles = None
        if residuals is not None:
            if len(residuals) != len(self.connections):
                raise ValueError(
                    f"{len(residuals)} residuals for {len(self.connections)} connections"
                )
            doubles = added(residuals[: self.doubles], z)
            singles = added(residuals[self.doubles :], z)
        output = self.transformer(
            hidden_states=pack(z),
            controlnet_block_samples=doubles,
            controlnet_single_block_samples=singles,
            return_dict=False,
            **self.inputs(z, t, text),
            **({"guidance": self.guidance_of(text, z)} if self.reads_guidance else {}),
        )[0]
        return unpack(output, (z.shape[-2], z.shape[-1]))

    def inputs(self, z: Tensor, t: Tensor | int, text: TextStates) -> dict[str, Any]:
        """What the transformer and its controls read beside the tokens of latents z."""
        return {
            "timestep": torch.as_tensor(t, device=z.device).expand(len(z)) / 1000,
            "encoder_hidden_states": text.hidden,
            "pooled_projections": self._pooled(text),
            "img_ids": positions((z.shape[-2], z.shape[-1]), z.device),
            "txt_ids": torch.zeros(text.hidden.shape[1], 3, device=z.device),
        }

    def guidance_of(self, text: TextStates, z: Tensor) -> Tensor:
        """The guidance scale (N,) that distilled weights read."""
        if text.guidance is not None:
            return text.guidance.to(z.device)
        return torch.full((len(z),), self.defaults.cfg, device=z.device)

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """Residuals of a control → one a connection. rule: None, or a name, is for residuals of
        double blocks alone ("ceil"); a control with others has a mapping.
        """
        if rule is None or isinstance(rule, str):
            every: list[Tensor | None] = list(spread(residuals, rule or "ceil", self.doubles))
            return every + [None] * (len(self.connections) - self.doubles)
        return spread(residuals, rule, len(self.connections))

    @property
    def reads_guidance(self) -> bool:
        return bool(self.transformer.config.get("guidance_embeds"))

    @property
    def latent_channels(self) -> int:
        config = self.transformer.config
        return (config.out_channels or config.in_channels) // PATCH**2

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        """`prompts` for CLIP, `seconds` for T5, as diffusers' prompt and prompt_2."""
        pooled = clip_pooled(self.text_encoders[0], self.tokenizers[0], prompts)
        hidden = t5_states(self.text_encoders[1], self.tokenizers[1], seconds)
        return TextStates(hidden, pooled)


def added(residuals: Sequence[Tensor | None], like: Tensor) -> list[Tensor] | None:
    """A tensor for every block; None where no block gets one."""
    return None if all(r is None for r in residuals) else by_block(residuals, like)
