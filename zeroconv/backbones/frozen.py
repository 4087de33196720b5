"""The frozen modules of a backbone as one thing that is on a device."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from zeroconv.backbones import autoencoder
from zeroconv.backbones.offload import Offload
from zeroconv.errors import UserError


class FrozenModules:
    """What backbones of every family do with their modules, of which all but the first may be
    missing.
    """

    name: str
    offload: Offload | None
    vae_tiling: bool
    _vae: nn.Module | None
    tiny_vae: Any = None  # a small decoder of the same latents, an AutoencoderTiny

    def _modules(self) -> list[nn.Module]:
        """Those that are there: the one that predicts, VAE, text encoders."""
        raise NotImplementedError

    @property
    def vae(self) -> Any:
        if self._vae is None:
            raise UserError(
                f"{self.name} has no VAE, so it cannot read or write pictures; load a complete "
                "model."
            )
        return self._vae

    @property
    def device(self) -> torch.device:
        if self.offload is not None:  # where it computes
            return self.offload.device
        return next(self._modules()[0].parameters()).device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Moved in place. Raises UserError for one whose parts are moved when they are needed."""
        if self.offload is not None:
            raise UserError(
                f"{self.name} is offloaded: give load_backbone the device and dtype, and leave "
                "them as they are."
            )
        for module in self._modules():
            # diffusers' own .to warns of every dtype
            nn.Module.to(module, device=device, dtype=dtype)
        return self

    def decode_with_gradient(self, z: Tensor) -> Tensor:
        """See `zeroconv.backbones.protocol`."""
        self._enter("vae")
        return autoencoder.decode_with_gradient(self.vae, z)

    @torch.no_grad()
    def decode_tiny(self, z: Tensor) -> Tensor:
        """`decode_latents` by `tiny_vae`: about the same pictures, sooner. Raises UserError where
        there is none.
        """
        if self.tiny_vae is None:
            raise UserError(
                f"{self.name} has no tiny VAE; load it with one (tiny_vae=, --tiny-vae PATH)."
            )
        tiny = self.tiny_vae.to(z.device)
        return autoencoder.decode(tiny, z, self.name, z.dtype, self.vae_tiling)

    def _enter(self, part: str) -> None:
        if self.offload is not None:
            self.offload.enter(part)
