"""ControlNet: a trainable copy of the encoder, joined to the frozen model by zero convolutions
(paper, figure 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone, Connection, Encoder, TextStates, is_split
from zeroconv.backbones.spread import Rule
from zeroconv.control.connections import CONNECTIONS, LiteEncoder, make_connection
from zeroconv.control.files import load_control, plain_config, save_control
from zeroconv.control.hint import ReleasedHintEncoder, make_hint_encoder
from zeroconv.control.net import Described
from zeroconv.errors import UserError


class ControlNet(nn.Module, Described):
    """The trainable half of the method. It knows no UNet: only an encoder's connections and how to
    call it.

    y_c = F(x; Θ) + Z( F(x + Z(c; Θz1); Θc); Θz2 )    (paper, equation 2)

    `forward` gives the second term at each connection; the caller weighs and adds it to the frozen
    encoder's output.
    """

    class_name: ClassVar[str] = "ControlNetModel"  # in the config.json that `save` writes

    def __init__(self, encoder: Encoder, config: dict, latent_scale: int = 8) -> None:
        """Around an encoder that is a trainable copy. Use `from_backbone` or `load`; see them for
        the options.
        """
        super().__init__()
        self.config = plain_config(config)
        ours = self.config["zeroconv"]
        kind = "zero" if ours["connections"] == "lite" else ours["connections"]
        self.connections: tuple[Connection, ...] = encoder.connections

        self.hint_encoder = make_hint_encoder(  # Z(c; Θz1)
            ours["hint_encoder"],
            self.connections[0].channels,
            latent_scale=latent_scale,
            widths=self.config.get("conditioning_embedding_out_channels"),
            channels=self.hint_channels,
            connection=kind,
        )
        lite = ours["connections"] == "lite"
        # F(·; Θc)
        self.copy = LiteEncoder(self.connections, encoder.config) if lite else cast(Any, encoder)
        # Z(·; Θz2)
        self.zero_convs = nn.ModuleList(make_connection(kind, c.channels) for c in self.connections)

        self.only_mid = bool(ours["only_mid_control"])
        self.pool = bool(self.config.get("global_pool_conditions", False))
        self.config["conditioning_embedding_out_channels"] = list(self.hint_encoder.widths)
        ours["latent_scale"] = latent_scale

    def forward(self, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates) -> list[Tensor]:
        """z (N, C, H, W), hint (N, 3, 8H, 8W) in [0, 1], t (N,) → one residual a connection,
        unweighted.
        """
        c = self.embed_hint(hint)  # (N, C0, H, W)
        return self.forward_embedded(z, c, t, text)

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """`forward` from the hint embedding on."""
        # 13 × (N, C_i, H / scale_i, W / scale_i)
        return self.connect(self.copy(z, t, text, added=hint_embedding))

    def connect(self, states: Sequence[Tensor]) -> list[Tensor]:
        """What the copy gives at each connection → the residuals, through Z(·; Θz2)."""
        # the same shapes
        residuals = [zero(x) for zero, x in zip(self.zero_convs, states, strict=True)]
        if self.only_mid:
            # 12 × (), (N, C, H / 8, W / 8)
            residuals = [r.new_zeros(()) for r in residuals[:-1]] + residuals[-1:]
        if self.pool:
            # 13 × (N, C_i, 1, 1)
            residuals = [r.mean((-2, -1), keepdim=True) if r.dim() else r for r in residuals]
        return residuals

    def predict(
        self, backbone: Backbone, z: Tensor, hint: Tensor, t: Tensor | int, text: TextStates
    ) -> Tensor:
        """The controlled output of the backbone (N, C, H, W), every residual at scale 1."""
        return self.predict_embedded(backbone, z, self.embed_hint(hint), t, text)

    def predict_embedded(
        self,
        backbone: Backbone,
        z: Tensor,
        embedding: Tensor,
        t: Tensor | int,
        text: TextStates,
    ) -> Tensor:
        """`predict` from the hint embedding on."""
        residuals = self.forward_embedded(z, embedding, t, text)
        return backbone.predict(z, t, text, residuals)

    def embed_hint(self, hint: Tensor) -> Tensor:
        """Z(E(hint)), (N, C0, H, W): added once after the copy's conv_in. The same at every step of
        a picture.

        Raises UserError for a hint of another number of channels than the control reads.
        """
        if hint.shape[1] != self.hint_channels:
            raise UserError(
                f"this control reads hints of {self.hint_channels} channels, but the hint has "
                f"{hint.shape[1]}; give it as a tensor of {self.hint_channels} channels."
            )
        if self.config.get("controlnet_conditioning_channel_order", "rgb") == "bgr":
            hint = hint.flip(1)
        return self.hint_encoder(hint.to(self.dtype))

    @classmethod
    def from_backbone(
        cls,
        backbone: Backbone,
        *,
        hint_encoder: str = "released",
        connections: str = "zero",
        only_mid_control: bool = False,
        global_average_pooling: bool = False,
        hint_channels: int = 3,
        hint_widths: tuple[int, ...] | None = None,
        hint_init: str = "contrast",
        condition: str | None = None,
        **more: Any,
    ) -> Self:
        """A new ControlNet: the encoder's weights copied, connections that add nothing yet.

        hint_encoder: "released" (every published checkpoint) or "paper"; hint_widths: its widths,
        None for theirs; hint_init: "contrast", or "torch" as the published ones began (see
        `ReleasedHintEncoder.keep_contrast_`). connections: "zero", or the ablations "gaussian" and
        "lite" (figure 8). only_mid_control: residuals at the middle block only.
        global_average_pooling: each residual becomes its mean over the picture (the shuffle model).
        condition: the name of what the hint shows, such as "canny". more: further entries of the
        config, which classes below this one read (`num_control_type` of a Union).
        """
        if connections not in CONNECTIONS:
            raise UserError(
                f"there is no connection {connections!r}; choose one of {', '.join(CONNECTIONS)}."
            )
        if hint_init not in ("contrast", "torch"):
            raise UserError(f"there is no hint_init {hint_init!r}; choose contrast or torch.")
        if not is_split(backbone):
            raise UserError(
                f"{backbone.name} is no UNet, so it has no encoder to copy; make the control with "
                "zeroconv.control.new_control, or the class of its family."
            )
        encoder: Any = backbone.copy_encoder()
        config = {
            **encoder.config,
            "conditioning_channels": hint_channels,
            "conditioning_embedding_out_channels": hint_widths,
            "global_pool_conditions": global_average_pooling,
            "zeroconv": {
                "hint_encoder": hint_encoder,
                "connections": connections,
                "only_mid_control": only_mid_control,
                "condition": condition,
                "base": backbone.name,
            },
            **more,
        }
        control = cls(encoder, config, backbone.latent_scale)
        if hint_init == "contrast" and isinstance(control.hint_encoder, ReleasedHintEncoder):
            control.hint_encoder.keep_contrast_()
        weight = next(encoder.parameters())
        return control.to(weight.device, weight.dtype)

    def save(
        self,
        folder: str | os.PathLike,
        dtype: torch.dtype | None = None,
        shared: str | os.PathLike | None = None,
    ) -> None:
        """Write a diffusers ControlNet folder, atomically; in `dtype` (None: as it is). `shared`:
        without what the control in that folder holds already. See `save_control`.
        """
        save_control(self, folder, dtype, shared)

    @classmethod
    def load(
        cls,
        x: str | os.PathLike,
        *,
        backbone: Backbone | None = None,
        dtype: torch.dtype | None = None,
        global_average_pooling: bool | None = None,
    ) -> ControlNet:
        """Load a name, a folder of `save` or of diffusers, a hub id, or one weights file.

        "canny" and "playroom-canny" are the embedded control of the playroom; the first needs the
        playroom as its backbone, or none. A file may have diffusers' layout or the original one,
        also inside a whole Stable Diffusion.

        backbone: check that the two fit, and take its device and dtype; a file that holds the
        difference to its base needs it. float32 unless asked otherwise. global_average_pooling:
        None is as the config says, and on where a file without one is called shuffle. Raises
        UserError, also for weights that are NaN, naming file and tensor.
        """
        return load_control(cls, x, backbone, dtype, global_average_pooling)

    # as diffusers and transformers call them
    save_pretrained = save
    from_pretrained = load

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """The hint encoder, the connections that are used, and the copy unless it stays frozen."""
        yield from self.hint_encoder.parameters()
        if not frozen_copy:
            yield from self.copy.parameters()
        yield from (self.zero_convs[-1] if self.only_mid else self.zero_convs).parameters()

    def networks(self) -> list[nn.Module]:
        """Itself; it holds all that it runs."""
        return [self]

    @property
    def has_residuals(self) -> bool:
        return True

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        return "pixels"

    @property
    def spread(self) -> Rule | None:
        """None: one residual for each connection of the backbone."""
        return None

    def hint_latents(
        self, backbone: Backbone, hint: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Not for this one. Raises TypeError."""
        raise TypeError("a ControlNet of a UNet reads pixels, not latents")

    @property
    def hint_channels(self) -> int:
        """Channels of the hints it reads: 3 for pictures."""
        return int(self.config.get("conditioning_channels") or 3)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype
