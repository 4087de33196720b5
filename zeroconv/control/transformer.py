"""What the ControlNets of all families of diffusion transformers have in common.

The network is diffusers' own, held as `network`, so folders are read by diffusers and written by
it. A family's class says how the network is called and which residual goes where.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, Connection, TextStates
from zeroconv.backbones.flow.transformer import TransformerBackbone, dtype_of
from zeroconv.backbones.loading.building import empty
from zeroconv.backbones.spread import Rule
from zeroconv.control.net import Described
from zeroconv.control.transformer_files import read_network, save_network
from zeroconv.errors import UserError
from zeroconv.layers.fake import reckoning
from zeroconv.layers.quantised import plain_state

# of an attention over text and picture, what makes the text's result alone
TEXT_ATTENTION = ("attn.to_add_out.", "attn.add_q_proj.", "attn.norm_added_q.")


class TransformerControlNet(nn.Module, Described):
    """A `zeroconv.control.ResidualNet` around one of diffusers' networks.

    Its residuals are (N, L, width), tokens of the picture. Its hints are latents of the base's own
    VAE, unless a family says otherwise.
    """

    class_name: ClassVar[str]  # of diffusers, in config.json
    family: ClassVar[str]
    # both halves of guidance get the residuals that it makes with the prompt (diffusers)
    one_text: ClassVar[bool] = False
    # what trains where the copied blocks stay frozen: names of parameters begin so
    joined: ClassVar[tuple[str, ...]] = ("controlnet_x_embedder.", "controlnet_blocks.")
    connections: tuple[Connection, ...]
    _base: Any

    def __init__(self, network: Any, backbone: Any) -> None:
        """Around diffusers' network, for `backbone`, which is not held as a submodule. Use
        `from_backbone` or `load`.
        """
        super().__init__()
        self.network = network
        self.config: dict[str, Any] = plain_entries(network.config)
        # frozen, so not a submodule
        self.__dict__["_base"] = backbone
        self.connections = self._connections()

    # ---------------------------------------------------------------- of a family

    @classmethod
    def network_class(cls) -> Any:
        """diffusers' class."""
        import diffusers

        return getattr(diffusers, cls.class_name)

    @classmethod
    def check_fit(cls, network: Any, backbone: Any, where: object) -> None:
        """Raise UserError unless residuals, latents and text states have the base's widths."""
        raise NotImplementedError

    def _connections(self) -> tuple[Connection, ...]:
        raise NotImplementedError

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """`forward` from `embed_hint` on; the network embeds the hint in every step."""
        raise NotImplementedError

    def _text_only(self) -> tuple[str, ...]:
        """Parts of the last copied block that make its text alone."""
        return (*TEXT_ATTENTION, "ff_context.")

    @property
    def mask_channels(self) -> int:
        """Channels that it reads beside the latent of its hint, for a mask: 0 or 1."""
        return 0

    @property
    def latent_channels(self) -> int:
        """Of the base's latents, of which it reads no more."""
        return int(self._base.latent_channels)

    @property
    def hint_key(self) -> str:
        """Names the rule of `hint_latents`, so that equal ones share cached latents."""
        return f"{self.class_name} {self.mask_channels}"

    @property
    def spread(self) -> Rule | None:
        """None: by the base's own rule."""
        return None

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        return "latent"

    # ---------------------------------------------------------------- running

    def forward(self, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates) -> list[Tensor]:
        """z (N, C, H, W), hint latents as `hint_latents` gives them, t (N,) → the residuals."""
        return self.forward_embedded(z, self.embed_hint(hint), t, text)

    def predict(
        self, backbone: Backbone, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """The controlled velocity (N, C, H, W), every residual at scale 1."""
        return self.predict_embedded(backbone, z, self.embed_hint(hint), t, text)

    def predict_embedded(
        self, backbone: Backbone, z: Tensor, embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """`predict` from `embed_hint` on."""
        residuals = self.forward_embedded(z, embedding, t, text)
        return backbone.predict(z, t, text, backbone.spread(residuals, self.spread))

    def embed_hint(self, hint: Tensor) -> Tensor:
        """The latents (N, C, H, W) as they are. Raises UserError for another number of channels."""
        wanted = self._base.latent_channels + self.mask_channels
        if hint.shape[1] != wanted:
            raise UserError(
                f"this control reads hints of {wanted} channels, but the hint has "
                f"{hint.shape[1]}; make it with hint_latents."
            )
        return hint

    @torch.no_grad()
    def hint_latents(
        self,
        backbone: TransformerBackbone,
        hint: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Hints (N, 3, sH, sW) in [0, 1], −1 in a hole → latents (N, C, H, W): the posterior's
        mean, or a sample of it where a generator is given, as diffusers takes one.

        A control with a mask channel reads holes as black, and a last channel that is 0 there and
        1 elsewhere. Raises UserError for a hole in the hint of any other.
        """
        if reckoning():
            return self._shaped(backbone, hint)
        hole = hint[:, :1] < 0
        if not self.mask_channels and bool(hole.any()):
            raise UserError(
                f"this control of {self.family} reads no hint with holes; fill the transparent "
                "parts of the hint."
            )
        latents = self._encoded(backbone, hint.clamp_min(0), generator)
        if not self.mask_channels:
            return latents.to(self.dtype)
        shown = nn.functional.interpolate((~hole).to(latents), latents.shape[-2:])
        return torch.cat([latents, shown], dim=1).to(self.dtype)

    def _shaped(self, backbone: TransformerBackbone, hint: Tensor) -> Tensor:
        """Latents of no particular content, where a step is reckoned and nothing is encoded."""
        size = [side // backbone.latent_scale for side in hint.shape[-2:]]
        channels = backbone.latent_channels + self.mask_channels
        return hint.new_zeros(len(hint), channels, *size, dtype=self.dtype)

    def _encoded(
        self, backbone: TransformerBackbone, hint: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        with torch.autocast(hint.device.type, enabled=False):  # in the numbers of the VAE
            moments = backbone.encode_image(hint * 2 - 1)
        return backbone.latents_from_moments(moments, generator, generator is not None)

    # ---------------------------------------------------------------- training

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """Hint embedding and connections, and the copy unless it stays frozen. Without what only
        the text of the last copied block is made by, which nothing reads.
        """
        last = f"transformer_blocks.{len(self.network.controlnet_blocks) - 1}."
        unread = tuple(last + name for name in self._text_only()) or (" ",)
        for name, parameter in self.network.named_parameters():
            if name.startswith(unread):
                continue
            if name.startswith(self.joined) or not frozen_copy:
                yield parameter

    def networks(self) -> list[nn.Module]:
        """Itself; it holds all that it runs."""
        return [self]

    # ---------------------------------------------------------------- files

    def save(self, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write diffusers' folder, all or nothing, in `dtype` (None: as it is). Raises UserError
        for a folder that holds what zeroconv did not write.
        """
        save_network(self.network, {"_class_name": self.class_name, **self.config}, folder, dtype)

    @classmethod
    def load(cls, x: str | os.PathLike, *, backbone: Any, dtype: torch.dtype | None = None) -> Self:
        """Load a folder of `save` or of diffusers, one file, or a hub id, for `backbone`, with its
        device and dtype. Raises UserError, also where the two do not fit.
        """
        network, ours = read_network(
            x, cls.network_class(), backbone, dtype or backbone.dtype,
            lambda network, where: cls.check_fit(network, backbone, where),
        )  # fmt: skip
        control = cls(network, backbone)
        control.config["zeroconv"] = ours
        return control.to(backbone.device).train()

    @classmethod
    def _network(cls, **config: Any) -> Any:
        """A new network of diffusers, whose own notes on its classes are no one's here."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return cls.network_class()(**config)

    @classmethod
    def _new(cls, network: Any, backbone: Any, condition: str | None) -> Self:
        """A new control around a network whose copy is filled in, as the base is held."""
        control = cls(network, backbone)
        control.config["zeroconv"] = {"condition": condition, "base": backbone.name}
        return control.to(backbone.device, backbone.dtype)

    def of_weights(self, state: Mapping[str, Tensor]) -> Self:
        """One with these weights, shaped as this one, whose own may be split over processes."""
        config = {k: v for k, v in self.config.items() if k != "zeroconv"}
        network = empty(lambda: self._network(**config), "the run")
        plain = type(self)(network, self._base)
        plain.config["zeroconv"] = self.config.get("zeroconv", {})
        plain.load_state_dict(state, assign=True)
        return plain

    # ---------------------------------------------------------------- what it is

    @property
    def has_residuals(self) -> bool:
        return True

    @property
    def pool(self) -> bool:
        return False

    @property
    def hint_channels(self) -> int:
        """Channels of the pictures that hints are."""
        return 3

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self)


def plain_entries(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of diffusers' config that describe the network."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def copy_parts_(network: Any, base: Any, names: tuple[str, ...]) -> None:
    """Fill modules of a network from the base's of the same names, lists as far as both reach."""
    with torch.no_grad():
        for name in names:
            ours, theirs = getattr(network, name), getattr(base, name)
            if not isinstance(ours, nn.ModuleList):
                ours.load_state_dict(plain_weights(theirs))
                continue
            for copy, block in zip(ours, theirs, strict=False):
                copy.load_state_dict(plain_weights(block))


def plain_weights(module: nn.Module) -> dict[str, Tensor]:
    """Its weights in numbers, where they are held in fewer bits."""
    return plain_state(module)


def check_count(blocks: int, most: int, what: str, name: str, least: int = 1) -> int:
    """Raise UserError unless so many blocks of a base can be copied."""
    if not least <= blocks <= most:
        raise UserError(f"{least} to {most} {what} of {name} can be copied, not {blocks}.")
    return blocks


def check_widths(where: object, name: str, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise UserError where a control reads another width than its base gives; None reads none."""
    for what, (reads, gives) in pairs.items():
        if reads != gives and reads is not None:
            raise UserError(
                f"{where} was made for another base: its {what} are {reads} wide, those of "
                f"{name} {gives}."
            )


def check_blocks(where: object, name: str, ours: int, theirs: int, what: str = "blocks") -> None:
    """Raise UserError for a control that has more blocks than its base."""
    if ours > theirs:
        raise UserError(
            f"{where} was made for another base: it has {ours} {what}, {name} only {theirs}."
        )


def tokens(count: int, width: int, patch: int, name: str = "residual") -> tuple[Connection, ...]:
    """Connections of residuals that are tokens of the picture."""
    return tuple(Connection(f"{name}.{i}", width, patch, "tokens") for i in range(count))


def rows(t: Tensor | int, z: Tensor) -> Tensor:
    """Timesteps (N,) of latents z."""
    return cast(Tensor, torch.as_tensor(t, device=z.device).expand(len(z)))
