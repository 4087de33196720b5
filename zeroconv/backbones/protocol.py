"""What a ControlNet may ask of a frozen text-to-image model, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, Self, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from zeroconv.backbones.process import Process
from zeroconv.backbones.spread import Rule


@dataclass(frozen=True)
class Connection:
    """One point of the backbone where a residual may be added.

    kind: "map", residuals (N, C, H, W), or "tokens", residuals (N, L, C) of a transformer.
    scale: the latent's size over the size here: 1, 2, 4 or 8 in Stable Diffusion (paper, section
    3.2), the size of a patch in a transformer.
    stream: which tokens a residual is added to, "image" for those of the picture.
    """

    name: str  # "down.0" … "down.11", "mid"; "block.0" …
    channels: int
    scale: int
    kind: Literal["map", "tokens"] = "map"
    stream: str = "image"


@dataclass
class TextStates:
    """What the text encoders give for N prompts. It is cut and joined along N like a tensor."""

    hidden: Tensor  # (N, L, D), one state a token
    pooled: Tensor | None = None  # (N, P), SDXL only
    # (N, 6), SDXL only: height, width, top, left, target height, target width
    time_ids: Tensor | None = None
    guidance: Tensor | None = None  # (N,), the guidance scale; read by distilled models only
    mask: Tensor | None = None  # (N, L), True where a token is there; None: everywhere

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
        def moved(part: Tensor) -> Tensor:
            return part.to(device, None if part.dtype == torch.bool else dtype)

        return self._map(moved)

    def lengthened(self, length: int) -> TextStates:
        """With so many tokens, zeros behind that are not there."""
        more = length - self.hidden.shape[1]
        if more <= 0:
            return self
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.hidden.shape[:2], dtype=torch.bool, device=self.hidden.device)
        hidden = nn.functional.pad(self.hidden, (0, 0, 0, more))
        return replace(self, hidden=hidden, mask=nn.functional.pad(mask, (0, more)))

    @staticmethod
    def cat(states: Sequence[TextStates]) -> TextStates:
        """Join along N; all of one kind of backbone. Shorter ones that have a mask are filled up
        with zeros.
        """
        states = _equally_long(states)
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


def _equally_long(states: Sequence[TextStates]) -> list[TextStates]:
    """Where some have a mask, all get one and the length of the longest."""
    if all(state.mask is None for state in states):
        return list(states)
    longest = max(state.hidden.shape[1] for state in states)
    filled = [state.lengthened(longest) for state in states]
    rows = [state.hidden.shape[:2] for state in filled]
    return [
        state
        if state.mask is not None
        else replace(state, mask=torch.ones(shape, dtype=torch.bool, device=state.hidden.device))
        for state, shape in zip(filled, rows, strict=True)
    ]


@dataclass(frozen=True)
class Defaults:
    """How pictures of a model are made where nothing else is asked: as diffusers and A1111 do
    it.
    """

    guidance: str = "both"  # a name of `zeroconv.generation.MODES`
    cfg: float = 7.5


class Encoder(Protocol):
    """A trainable copy of a backbone's encoder: an `nn.Module` that is called like
    `SplitBackbone.encode`.

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
    """A frozen text-to-image model on latents, of diffusion or flow matching."""

    name: str
    scheduler_config: dict
    defaults: Defaults

    @property
    def process(self) -> Process:
        """How noise is added and what is predicted; on the CPU."""

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

    def predict(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        residuals: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """The model's output (N, C, H, W): ε, v, or a flow's velocity.

        z (N, C, H, W), t (N,) or a scalar, in the unit of `process`. residuals: one a connection,
        shaped as `Connection` says, or None; of a map also (N, C, 1, 1), the same everywhere.
        """

    def spread(self, residuals: Sequence[Tensor], rule: Rule | None = None) -> list[Tensor | None]:
        """A control's residuals → one for each of `connections`, as `predict` takes them.

        rule: which goes where, see `zeroconv.backbones.spread`; None is the model's own.
        """

    @property
    def reads_guidance(self) -> bool:
        """Whether the guidance scale is an input of the model (`TextStates.guidance`), which then
        needs no second, unconditional pass.
        """

    def embed_text(
        self,
        prompts: Sequence[Any],
        size: tuple[int, int] | None = None,
        *,
        prompts_2: Sequence[Any] | None = None,
        options: Any = None,
        chunks: int = 1,
    ) -> TextStates:
        """Texts, or `zeroconv.prompts.Prompt`s with weights → states of `chunks` chunks at least;
        `options` are `backbones.text.TextOptions`.
        """

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [−1, 1] → moments (N, 2C, h, w): mean ‖ log-variance of the
        latent, unscaled.
        """

    def latents_from_moments(
        self, moments: Tensor, generator: torch.Generator | None = None, sample: bool = True
    ) -> Tensor: ...

    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → images (N, 3, H, W), float32 in [0, 1]."""

    def decode_with_gradient(self, z: Tensor) -> Tensor:
        """The same in one piece, for a gradient with respect to z; numbers are not checked."""

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self: ...


class SplitBackbone(Backbone, Protocol):
    """A UNet: all residuals enter between its encoder and its decoder.

    predict(z, t, text, residuals) is decode([s + r …], t, text) of s in encode(z, t, text). Halves
    of guidance share the encoder's outputs. In a transformer block i + 1 reads what was added after
    block i, so only `predict` exists there.
    """

    def encode(
        self,
        z: Tensor,
        t: Tensor | int,
        text: TextStates,
        features: Sequence[Tensor | None] | None = None,
    ) -> list[Tensor]:
        """z (N, C, H, W), t (N,) or a scalar → one tensor a connection, (N, C_i, H / scale_i, W /
        scale_i). `features`: added within the encoder, one a level and one for the middle.
        """

    def decode(self, skips: Sequence[Tensor], t: Tensor | int, text: TextStates) -> Tensor:
        """The tensors of `encode`, residuals added → the model's output (N, C, H, W)."""

    def copy_encoder(self) -> nn.Module:
        """A trainable deep copy of the encoder; see `Encoder` for how it is called."""


def is_split(backbone: Backbone) -> TypeGuard[SplitBackbone]:
    """Whether it has an encoder and a decoder, by the names of its class."""
    return hasattr(type(backbone), "encode") and hasattr(type(backbone), "decode")
