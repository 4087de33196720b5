"""What may be trained, measured and run: a ControlNet or another way to add a hint, behind one
protocol.

A net of residuals gives one tensor for each of its connections, and the base's output follows from
`Backbone.predict`. Any other net replaces the prediction. Nobody asks which class a net has: what
callers need to know is a property here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, Self, TypeGuard

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, Connection, TextStates
from zeroconv.backbones.spread import Rule
from zeroconv.layers.attention import Change, Switch


class Net(Protocol):
    """A network that makes a frozen text-to-image model follow a hint; an `nn.Module`."""

    config: dict[str, Any]
    training: bool  # of nn.Module, like the last methods

    @property
    def condition(self) -> str | None:
        """What its hints show, such as "canny"."""

    @property
    def base(self) -> str | None:
        """The name of the backbone it was made for."""

    @property
    def has_residuals(self) -> bool:
        """Whether it is a `ResidualNet`, which can be scaled, masked and added to others."""

    @property
    def has_features(self) -> bool:
        """Whether it gives features that are added within the frozen encoder, one a level, and
        keeps `connections` and `forward_embedded` of a `ResidualNet` for them (T2I-Adapter).
        """

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        """What `embed_hint` and `predict` take: pictures (N, 3, sH, sW) in [0, 1], or their latents
        (N, C, H, W), which `ResidualNet.hint_latents` makes.
        """

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def predict(
        self, backbone: Any, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """The controlled output of the backbone (N, C, H, W), every residual at scale 1.

        z (N, C, H, W), hint as `hint_space` says, t (N,) or a scalar.
        """

    def embed_hint(self, hint: Tensor) -> Any:
        """What of the hint depends on no step: a tensor, or a tuple of them, a row a picture."""

    def predict_embedded(
        self, backbone: Any, z: Tensor, embedding: Any, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """`predict` from `embed_hint` on."""

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """What a training may change. frozen_copy: without the copy of the encoder, if there is
        one.
        """

    def networks(self) -> list[nn.Module]:
        """Itself, and networks of frozen weights that it runs but does not hold."""

    def save(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None: ...

    # of nn.Module
    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...

    def to(self, *args: Any, **kwargs: Any) -> Self: ...


class ResidualNet(Net, Protocol):
    """A net whose residuals are added within the backbone: one for each of its `connections`."""

    connections: tuple[Connection, ...]

    @property
    def spread(self) -> Rule | None:
        """Which residual goes to which block; None: by the backbone's own rule."""

    @property
    def pool(self) -> bool:
        """Whether residuals are means over the picture; the unconditional half never gets those."""

    def __call__(
        self, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]: ...

    def forward_embedded(
        self, z: Tensor, hint_embedding: Any, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """One residual a connection, unscaled, from `embed_hint` on."""

    def hint_latents(
        self, backbone: Backbone, hint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Hints (N, 3, sH, sW) in [0, 1] → latents (N, C, H, W), where `hint_space` is "latent"."""


class AttentionNet(Net, Protocol):
    """A net that changes the base's attention while it runs, so it can be scaled, masked and used
    beside others.
    """

    def changes(self, embedding: Any, switch: Switch) -> dict[str, Change]:
        """What it does to each attention, for `zeroconv.layers.attention.attached`."""


def changes_attention(net: object) -> TypeGuard[AttentionNet]:
    """Whether it is an `AttentionNet`, by the names of its class."""
    return hasattr(type(net), "changes")


_MEMBERS = ("condition", "base", "has_residuals", "predict", "embed_hint", "trainable")


def is_net(x: object) -> TypeGuard[Net]:
    """Whether x keeps the protocol, by the names of its class."""
    return all(hasattr(type(x), name) for name in _MEMBERS)


def is_additive(net: Net) -> bool:
    """Whether what a net gives is added to the frozen model: residuals, or an adapter's features.
    Such nets are scaled, masked and put together; any other replaces the prediction.
    """
    return net.has_residuals or net.has_features


class Described:
    """`condition` and `base` of a net, from the part of its config that is zeroconv's."""

    config: dict[str, Any]

    @property
    def has_features(self) -> bool:
        """It gives nothing that is added within the encoder."""
        return False

    @property
    def condition(self) -> str | None:
        return (self.config.get("zeroconv") or {}).get("condition")

    @property
    def base(self) -> str | None:
        return (self.config.get("zeroconv") or {}).get("base")
