"""Stable Diffusion 3 and 3.5 as a backbone, driving diffusers' own transformer.

Residuals are tokens, added to those of the picture after each joint block but the last. Prompts are
not read yet: give `TextStates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from zeroconv.backbones import autoencoder
from zeroconv.backbones.process import Flow
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.backbones.spread import Rule, spread
from zeroconv.errors import UserError

# the noise schedule of SD 3, for a backbone that was given none
DEFAULT_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}


class SD3Backbone:
    """A frozen Stable Diffusion 3. See `zeroconv.backbones.Backbone` for the shapes.

    transformer: diffusers' SD3Transformer2DModel. Nothing here trains: every parameter has
    requires_grad False and every module is in eval mode.
    """

    reads_guidance = False

    def __init__(
        self,
        transformer: Any,
        vae: nn.Module | None = None,
        scheduler_config: dict | None = None,
        name: str = "backbone",
        defaults: Defaults | None = None,
    ) -> None:
        self.transformer = transformer
        self._vae = vae
        self.text_encoders: list[nn.Module] = []
        self.tokenizers: list[Any] = []
        self.name, self.defaults = name, defaults or Defaults(cfg=7.0)
        for module in self._modules():
            module.requires_grad_(False).eval()
        self.scheduler_config = dict(scheduler_config or DEFAULT_SCHEDULER)
        self.process = Flow.from_config(self.scheduler_config, name)

        blocks, config = transformer.transformer_blocks, transformer.config
        # numbers of the blocks that a residual may be added after
        self._taking = [i for i, block in enumerate(blocks) if not block.context_pre_only]
        self.connections = tuple(
            Connection(f"block.{i}", transformer.inner_dim, config.patch_size, "tokens")
            for i in self._taking
        )

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The velocity ε − z (N, C, H, W) of latents z (N, C, H, W).

        t (N,) or a scalar in (0, 1000]; text: hidden (N, L, D) and pooled (N, P); residuals:
        (N, H·W / patch², width), one a connection, or None. Raises UserError for a size that gives
        no number of patches, or more than there are positions for.
        """
        self._check_size(z)
        t = torch.as_tensor(t, device=z.device).expand(len(z))
        return self.transformer(
            hidden_states=z,
            encoder_hidden_states=text.hidden,
            pooled_projections=self._pooled(text),
            timestep=t,
            block_controlnet_hidden_states=self._by_block(residuals, z),
            return_dict=False,
        )[0]

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """Residuals of a control → one a connection, by "interval" over all blocks (diffusers)."""
        blocks = len(self.transformer.transformer_blocks)
        every = spread(residuals, rule or "interval", blocks)
        return [every[i] for i in self._taking]

    def embed_text(
        self,
        prompts: Sequence[Any],
        size: tuple[int, int] | None = None,
        *,
        prompts_2: Sequence[Any] | None = None,
        options: Any = None,
        chunks: int = 1,
    ) -> TextStates:
        """Not yet. Raises UserError."""
        raise UserError(
            f"{self.name} is a Stable Diffusion 3, whose prompts zeroconv does not read yet."
        )

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w), not scaled."""
        return autoencoder.encode(self.vae, images, self.name)

    def latents_from_moments(
        self,
        moments: Tensor,
        generator: torch.Generator | None = None,
        sample: bool = True,
        shifted: bool = True,
    ) -> Tensor:
        """Moments (N, 2C, h, w) → latents (N, C, h, w). shifted: less the VAE's shift factor, as
        the transformer reads them.
        """
        return autoencoder.latents(self.vae, moments, generator, sample, shifted)

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1]."""
        return autoencoder.decode(self.vae, z, self.name, self.dtype)

    @property
    def vae(self) -> Any:
        if self._vae is None:
            raise UserError(
                f"{self.name} has no VAE, so it cannot read or write pictures; load a complete "
                "model."
            )
        return self._vae

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels

    @property
    def latent_scale(self) -> int:
        return autoencoder.scale_of(self.vae) if self._vae is not None else 8

    @property
    def default_size(self) -> int:
        return self.transformer.config.sample_size * self.latent_scale

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.transformer.parameters()).dtype

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        for module in self._modules():
            # diffusers' own .to warns of every dtype
            nn.Module.to(module, device=device, dtype=dtype)
        return self

    def _modules(self) -> list[nn.Module]:
        return [module for module in (self.transformer, self._vae) if module is not None]

    def _pooled(self, text: TextStates) -> Tensor:
        if text.pooled is None:
            raise UserError(f"{self.name} (Stable Diffusion 3) needs pooled text states.")
        return text.pooled

    def _check_size(self, z: Tensor) -> None:
        """Its patch embedding drops a row that fills no patch; what is too large raises inside."""
        patch, most = self.transformer.config.patch_size, self.transformer.config.pos_embed_max_size
        height, width = z.shape[-2:]
        pixels = f"{width * self.latent_scale} × {height * self.latent_scale} pixels"
        if height % patch or width % patch:
            raise UserError(
                f"{self.name} makes pictures whose sides divide by {patch * self.latent_scale}, "
                f"not {pixels}."
            )
        if max(height, width) > most * patch:
            raise UserError(
                f"{self.name} makes pictures of at most {most * patch * self.latent_scale} pixels "
                f"a side, not {pixels}."
            )

    def _by_block(
        self, residuals: Sequence[Tensor | None] | None, z: Tensor
    ) -> list[Tensor] | None:
        """A tensor for every block, as diffusers counts them: with as many tensors as blocks its
        rule int(i / (B / K)) is i.
        """
        if residuals is None:
            return None
        nothing = z.new_zeros(())
        by_block = [nothing] * len(self.transformer.transformer_blocks)
        for i, residual in zip(self._taking, residuals, strict=True):
            by_block[i] = nothing if residual is None else residual
        return by_block
