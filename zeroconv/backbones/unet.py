"""Stable Diffusion 1.x, 2.x and XL as a backbone, driving diffusers' own UNet modules in two
halves.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import autoencoder
from zeroconv.backbones.encoder import UNetEncoder, check_latents, check_supported
from zeroconv.backbones.frozen import FrozenModules
from zeroconv.backbones.offload import Offload
from zeroconv.backbones.process import Diffusion
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread
from zeroconv.backbones.text import TextOptions, embed_prompts
from zeroconv.checkpoints.lora import LCM_UNET, FewSteps
from zeroconv.errors import UserError
from zeroconv.prompts import Prompt


class UNetBackbone(FrozenModules):
    """A frozen Stable Diffusion. See `zeroconv.backbones.Backbone` for the shapes.

    Nothing here trains: every parameter has requires_grad False and every module is in eval mode.
    Any component may be None in a partial backbone; using it then raises UserError.
    zero_empty_negative: an empty negative prompt is states of zeros (SDXL; diffusers'
    `force_zeros_for_empty_prompt`).
    """

    def __init__(
        self,
        unet: nn.Module | None,
        vae: nn.Module | None = None,
        text_encoders: Sequence[nn.Module] = (),
        tokenizers: Sequence[Any] = (),
        scheduler_config: dict | None = None,
        name: str = "backbone",
        defaults: Defaults | None = None,
        zero_empty_negative: bool = False,
    ) -> None:
        self._unet, self._vae = unet, vae
        self.text_encoders, self.tokenizers = list(text_encoders or ()), list(tokenizers or ())
        self.name, self.defaults = name, defaults or Defaults()
        self.zero_empty_negative = zero_empty_negative
        for module in self._modules():
            module.requires_grad_(False).eval()
        if unet is not None:
            check_latents(cast(Any, unet).config, name)
            check_supported(dict(cast(Any, unet).config))
        self._encoder = UNetEncoder(unet).eval() if unet is not None else None
        self.scheduler_config = dict(scheduler_config or DEFAULT_SCHEDULER)
        self.process = Diffusion.from_config(self.scheduler_config, name)
        self.offload: Offload | None = None  # `load_backbone` gives it
        self.quantised: str | None = None  # what the UNet's weights are held in
        self.vae_tiling = False
        # how pictures are made in few steps: of a distilled UNet, or of a LoRA in it
        self.few_steps: FewSteps | None = LCM_UNET if self.reads_guidance else None

    # ---------------------------------------------------------------- the UNet, in two halves

    def encode(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        features: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """z (N, C, H, W), t (N,) or scalar → 12 skips and the middle, (N, C_i, H / scale_i, W /
        scale_i). `features`: added within, one a level and one for the middle (T2I-Adapter).
        """
        return self.encoder(z, t, text, features=features)

    def decode(self, skips: Sequence[Tensor], t: Tensor | int, text: TextStates) -> Tensor:
        """The tensors of `encode`, residuals added → ε or v, (N, C, H, W). Differentiable in the
        skips.
        """
        unet = self.unet
        *rest, x = skips  # the middle, (N, C, H / 8, W / 8)
        emb = self.encoder.embed_time(x.shape[0], t, text)
        for block in unet.up_blocks:
            rest, skipped = rest[: -len(block.resnets)], rest[-len(block.resnets) :]
            # sizes that do not halve evenly come back as they were
            size = rest[-1].shape[2:] if rest else None
            kwargs = (
                {"encoder_hidden_states": text.hidden}
                if getattr(block, "has_cross_attention", False)
                else {}
            )
            x = block(
                x, res_hidden_states_tuple=tuple(skipped), temb=emb, upsample_size=size, **kwargs
            )
        if unet.conv_norm_out is not None:
            x = unet.conv_act(unet.conv_norm_out(x))
        return unet.conv_out(x)  # (N, C, H, W)

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """z (N, C, H, W), t (N,) or scalar, one residual a connection → ε or v, (N, C, H, W)."""
        skips = self.encode(z, t, text)
        if residuals is not None:
            pairs = zip(skips, residuals, strict=True)
            skips = [skip if r is None else skip + r for skip, r in pairs]
        return self.decode(skips, t, text)

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """One residual a connection already."""
        return spread(residuals, rule or "identity", len(self.connections))

    def copy_encoder(self) -> UNetEncoder:
        """The trainable copy: the encoder's weights, all of which may train. UserError for a base
        that reads a picture beside its latent.
        """
        if (reads := self.encoder.conv_in.in_channels) != self.latent_channels:
            raise UserError(
                f"{self.name} reads {reads} channels, but a new ControlNet reads the "
                f"{self.latent_channels} of a latent; make it on the base that this one was made "
                "from."
            )
        made = copy.deepcopy(self.encoder).requires_grad_(True)
        if made.guidance_channels is not None:
            made.time_embedding.cond_proj = None  # no ControlNet reads the guidance scale
        return made

    # ---------------------------------------------------------------- text

    @torch.no_grad()
    def embed_text(
        self,
        prompts: Sequence[str | Prompt],
        size: tuple[int, int] | None = None,
        *,
        prompts_2: Sequence[str | Prompt] | None = None,
        options: TextOptions | None = None,
        chunks: int = 1,
    ) -> TextStates:
        """Prompts of any length → text states (N, k · L, D), k chunks; see `embed_prompts`.

        A str is read as it stands, a `zeroconv.prompts.Prompt` with its weights. `size` (height,
        width) is read by SDXL only.
        """
        if not self.text_encoders:
            raise UserError(
                f"{self.name} has no text encoder, so it cannot read a prompt; load a complete "
                "model."
            )
        if not prompts:
            raise UserError(
                "there is no prompt to embed; give at least one, the empty string if need be."
            )
        self._enter("text")
        states = embed_prompts(self, prompts, prompts_2, options, chunks)
        if not self.is_xl:
            return states
        height, width = size or (self.default_size, self.default_size)
        ids = torch.tensor(
            [height, width, 0, 0, height, width], device=self.device, dtype=self.dtype
        )
        return replace(states, time_ids=ids.repeat(len(prompts), 1))

    @property
    def is_xl(self) -> bool:
        """Whether its text is read by SDXL's rules."""
        if self._unet is None:
            return len(self.text_encoders) > 1
        return hasattr(self.encoder, "add_embedding")

    # ---------------------------------------------------------------- pictures and latents

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w): mean ‖ log-variance, not
        scaled.
        """
        self._enter("vae")
        return autoencoder.encode(self.vae, images, self.name, self.vae_tiling)

    def latents_from_moments(
        self, moments: Tensor, generator: torch.Generator | None = None, sample: bool = True
    ) -> Tensor:
        """Moments (N, 2C, h, w) → latents (N, C, h, w): a sample of the posterior, or its mean;
        scaled to unit size.
        """
        return autoencoder.latents(self.vae, moments, generator, sample)

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1]; a few at a time to bound
        the memory.
        """
        self._enter("vae")
        return autoencoder.decode(self.vae, z, self.name, self.dtype, self.vae_tiling)

    # ---------------------------------------------------------------- what it is

    @property
    def unet(self) -> Any:
        if self._unet is None:
            raise UserError(f"{self.name} has no UNet; load a complete model.")
        return self._unet

    @property
    def denoiser(self) -> Any:
        """The module that predicts: the UNet."""
        return self.unet

    @property
    def encoder(self) -> UNetEncoder:
        """The frozen encoder; it shares the UNet's modules."""
        if self._encoder is None:
            raise UserError(f"{self.name} has no UNet; load a complete model.")
        return self._encoder

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self.encoder.connections

    @property
    def prediction_type(self) -> str:
        """What `predict` gives: "epsilon" or "v_prediction"."""
        return self.process.prediction_type

    @property
    def reads_guidance(self) -> bool:
        return self._unet is not None and self.encoder.guidance_channels is not None

    @property
    def latent_channels(self) -> int:
        return self.unet.config.out_channels

    @property
    def latent_scale(self) -> int:
        return autoencoder.scale_of(self.vae) if self._vae is not None else 8

    @property
    def default_size(self) -> int:
        return (self.unet.config.sample_size or 64) * self.latent_scale

    @property
    def dtype(self) -> torch.dtype:
        return next(self._modules()[0].parameters()).dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        super().to(device, dtype)
        if dtype == torch.float16 and self._vae is not None and self._overflows_in_half():
            warnings.warn(
                f"the VAE of {self.name} gives no numbers in float16 (its activations exceed "
                "65504), so it computes in float32; a fixed one, such as "
                "madebyollin/sdxl-vae-fp16-fix given as the VAE, takes half the memory.",
                stacklevel=2,
            )
            self._vae.to(dtype=torch.float32)
        return self

    def _overflows_in_half(self) -> bool:
        """SDXL's autoencoder gives NaN in float16; the models of one text encoder do not."""
        return len(self.text_encoders) > 1 and bool(getattr(self.vae.config, "force_upcast", False))

    def _modules(self) -> list[nn.Module]:
        return [m for m in (self._unet, self._vae, *self.text_encoders) if m is not None]


# Stable Diffusion's noise schedule (1.x), for a backbone that was given none
DEFAULT_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
