"""What a ControlNet may ask of a frozen text-to-image model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Connection:
    """One place of the backbone where a residual may be added.

    `scale` is the latent's size over the size here: 1, 2, 4 or 8 in Stable Diffusion (paper,
    section 3.2).
    """

    name: str  # "down.0" … "down.11", "mid"
    channels: int
    scale: int


@dataclass
class TextStates:
    """What the text encoders give for N prompts. It is cut and joined along N like a tensor."""

    hidden: Tensor  # (N, L, D), one state a token
    pooled: Tensor | None = None  # (N, P), SDXL only
    # (N, 6), SDXL only: height, width, top, left, target height, target width
    time_ids: Tensor | None = None
    guidance: Tensor | None = None  # (N,), the guidance scale; read by distilled models only (LCM)

    def __len__(self) -> int:
        return self.hidden.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> TextStates:
        """The states of some prompts. An int keeps the axis: `states[0]` is a batch of one."""
        if isinstance(index, int):
            index = [index]
        return self._map(lambda part: part[index])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> TextStates:
        return self._map(lambda part: part.to(device=device, dtype=dtype))

    @staticmethod
    def cat(states: Sequence[TextStates]) -> TextStates:
        """Join along N; all of one kind of backbone."""
        parts = {f.name: [getattr(state, f.name) for state in states] for f in fields(TextStates)}
        joined: dict[str, Any] = {
            k: None if part[0] is None else torch.cat(part) for k, part in parts.items()
        }
        return TextStates(**joined)

    def _map(self, change: Callable[[Tensor], Tensor]) -> TextStates:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {
            k: None if part is None else change(part) for k, part in parts.items()
        }
        return TextStates(**changed)


@dataclass(frozen=True)
class Defaults:
    """How pictures of a model are made where nothing else is asked: as diffusers and A1111 do
    it.
    """

    guidance: str = "both"  # a name of `zeroconv.generation.MODES`
    cfg: float = 7.5


class Encoder(Protocol):
    """A trainable copy of a backbone's encoder: an `nn.Module` that is called like
    `Backbone.encode`.

    `added` (N, C, H, W) is the hint embedding, added once after the first convolution. `config`
    names, in diffusers' terms, everything that is needed to build the module again.
    """

    config: dict
    connections: tuple[Connection, ...]

    def __call__(
        self, z: Tensor, t: Tensor, text: TextStates, added: Tensor | None = None
    ) -> list[Tensor]: ...


@runtime_checkable
class Backbone(Protocol):
    """A frozen latent diffusion model. `decode(encode(z, t, text), t, text)` is its whole forward
    pass.
    """

    name: str
    prediction_type: Literal["epsilon", "v_prediction"]
    alphas_cumprod: Tensor  # (T,) float32, on the CPU
    scheduler_config: dict
    defaults: Defaults

    @property
    def connections(self) -> tuple[Connection, ...]: ...

    @property
    def latent_channels(self) -> int: ...

    @property
    def latent_scale(self) -> int:
        """Pixels per latent, 8 for Stable Diffusion."""

    @property
    def default_size(self) -> int:
        """Pixels on a side the model was trained for."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode(self, z: Tensor, t: Tensor | int, text: TextStates) -> list[Tensor]:
        """z (N, C, H, W), t (N,) or a scalar → one tensor a connection, (N, C_i, H / scale_i, W /
        scale_i).
        """

    def decode(self, skips: Sequence[Tensor], t: Tensor | int, text: TextStates) -> Tensor:
        """The tensors of `encode`, residuals added → the model's output (N, C, H, W)."""

    @property
    def reads_guidance(self) -> bool:
        """Whether the guidance scale is an input of the model (`TextStates.guidance`), which then
        needs no second, unconditional pass.
        """

    def embed_text(self, prompts: Sequence[str]) -> TextStates: ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w): mean ‖ log-variance of the
        latent, unscaled.
        """

    def latents_from_moments(
        self, moments: Tensor, generator: torch.Generator | None = None, sample: bool = True
    ) -> Tensor: ...

    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1]."""

    def copy_encoder(self) -> nn.Module:
        """A trainable deep copy of the encoder; see `Encoder` for how it is called."""

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self: ...
