"""What the backbones of all families of diffusion transformers have in common.

A family's class adds how diffusers' transformer is called (`predict`), where residuals are added
(`connections`, `spread`), and how its text encoders read a prompt (`_embed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroconv.backbones import autoencoder
from zeroconv.backbones.flow.sentences import as_texts
from zeroconv.backbones.frozen import FrozenModules
from zeroconv.backbones.offload import Offload
from zeroconv.backbones.process import Flow
from zeroconv.backbones.protocol import Connection, Defaults, TextStates
from zeroconv.errors import UserError


class TransformerBackbone(FrozenModules):
    """A frozen transformer of flow matching. See `zeroconv.backbones.Backbone` for the shapes.

    transformer: diffusers' own. Nothing here trains: every parameter has requires_grad False and
    every module is in eval mode. Text encoders and VAE may be missing; using one then raises
    UserError.
    """

    family: ClassVar[str]  # as people call it
    scheduler: ClassVar[dict[str, Any]]  # the noise schedule of a backbone that was given none
    usual: ClassVar[Defaults] = Defaults()
    patch: ClassVar[int] = 2  # latents a side of a token
    connections: tuple[Connection, ...]

    def __init__(
        self,
        transformer: Any,
        vae: nn.Module | None = None,
        scheduler_config: Mapping[str, Any] | None = None,
        name: str = "backbone",
        defaults: Defaults | None = None,
        text_encoders: Sequence[nn.Module] = (),
        tokenizers: Sequence[Any] = (),
    ) -> None:
        self.transformer, self._vae = transformer, vae
        self.text_encoders: list[Any] = list(text_encoders)
        self.tokenizers = list(tokenizers)
        self.name, self.defaults = name, defaults or self.usual
        for module in self._modules():
            module.requires_grad_(False).eval()
        self.scheduler_config = dict(scheduler_config or self.scheduler)
        self.process = Flow.from_config(self.scheduler_config, name)
        self.offload: Offload | None = None  # `load_backbone` gives it
        self.quantised: str | None = None  # what the transformer's weights are held in
        self.vae_tiling = False

    def sigmas(self, steps: int) -> list[float] | None:
        """Noise levels of the steps before the shift, falling, as the family's pipeline has them:
        1, 1 − 1/n, … 1/n. None: those of diffusers' scheduler.
        """
        return torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()

    def guided(self, without: Tensor, within: Tensor, cfg: float) -> Tensor:
        """Classifier-free guidance of the outputs without and with the prompt, (N, C, H, W)."""
        return without + cfg * (within - without)

    def forget(self) -> None:
        """Drop what diffusers' modules keep of the shapes they have seen: after a step without
        numbers that has none either.
        """

    # ---------------------------------------------------------------- text

    @torch.no_grad()
    def embed_text(
        self,
        prompts: Sequence[Any],
        size: tuple[int, int] | None = None,
        *,
        prompts_2: Sequence[Any] | None = None,
        options: Any = None,
        chunks: int = 1,
    ) -> TextStates:
        """Prompts → text states, a row each. Weights of words are not read, with a note.

        Raises UserError for a model without text encoders, and for options that this family lacks.
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
        if getattr(options, "clip_skip", None) or getattr(options, "embeddings", ()):
            raise UserError(
                f"{self.name} ({self.family}) reads prompts without clip skip and without "
                "embeddings of textual inversion; leave them out."
            )
        self._enter("text")
        texts = as_texts(prompts, self.family)
        seconds = texts if prompts_2 is None else as_texts(prompts_2, self.family)
        return self._embed(texts, seconds).to(self.device, self.dtype)

    def _embed(self, prompts: list[str], seconds: list[str]) -> TextStates:
        raise NotImplementedError

    @property
    def reads_guidance(self) -> bool:
        return False

    # ---------------------------------------------------------------- pictures and latents

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w), not scaled."""
        self._enter("vae")
        return autoencoder.encode(self.vae, images, self.name, self.vae_tiling)

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
        self._enter("vae")
        return autoencoder.decode(self.vae, z, self.name, self.dtype, self.vae_tiling)

    # ---------------------------------------------------------------- what it is

    @property
    def denoiser(self) -> Any:
        """The module that predicts: the transformer."""
        return self.transformer

    @property
    def prediction_type(self) -> str:
        return self.process.prediction_type

    @property
    def latent_channels(self) -> int:
        return self.transformer.config.in_channels

    @property
    def latent_scale(self) -> int:
        return autoencoder.scale_of(self._vae) if self._vae is not None else 8

    @property
    def default_size(self) -> int:
        """The VAE's, 1024 for FLUX.1 and Z-Image; 128 latents where its config holds none."""
        config: Any = None if self._vae is None else self._vae.config
        sample = None if config is None else config.get("sample_size")
        return sample if isinstance(sample, int) else 128 * self.latent_scale

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.transformer)

    def _modules(self) -> list[nn.Module]:
        parts = (self.transformer, self._vae, *self.text_encoders)
        return [module for module in parts if module is not None]

    def _pooled(self, text: TextStates) -> Tensor:
        if text.pooled is None:
            raise UserError(f"{self.name} ({self.family}) needs pooled text states.")
        return text.pooled

    def _check_size(self, z: Tensor, most: int | None = None) -> None:
        """Raise UserError for latents that give no whole patches, or more than `most` a side."""
        height, width = z.shape[-2:]
        pixels = f"{width * self.latent_scale} × {height * self.latent_scale} pixels"
        if height % self.patch or width % self.patch:
            raise UserError(
                f"{self.name} makes pictures whose sides divide by "
                f"{self.patch * self.latent_scale}, not {pixels}."
            )
        if most is not None and max(height, width) > most * self.patch:
            raise UserError(
                f"{self.name} makes pictures of at most {most * self.patch * self.latent_scale} "
                f"pixels a side, not {pixels}."
            )


def dtype_of(module: nn.Module) -> torch.dtype:
    """What a module computes in: float32 where some weights are, of which others may be held in
    bfloat16 and cast by their own layers.
    """
    known = [p.dtype for p in module.parameters() if p.is_floating_point()]
    return torch.float32 if torch.float32 in known else known[0]


def by_block(residuals: Sequence[Tensor | None], like: Tensor) -> list[Tensor]:
    """A tensor for every block: with as many tensors as blocks diffusers' rules of spreading are
    one residual a block.
    """
    nothing = like.new_zeros(())
    return [nothing if residual is None else residual for residual in residuals]
