"""ControlNets of FLUX.1: copies of the first double and single blocks, a Linear after each.

The copy is diffusers' FluxControlNetModel. The hint is a latent of the base's own VAE, packed as
the noise is, embedded by a layer that starts at zero (`controlnet_x_embedder`). XLabs' read pixels
through convolutions instead (`conditioning_embedding_channels`). A union control has modes, one a
kind of hint (`num_mode`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor

from zeroconv.backbones import Connection, TextStates
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.packing import PATCH, pack
from zeroconv.backbones.spread import Rule, numbers
from zeroconv.conditions import known
from zeroconv.control.transformer import (
    TransformerControlNet,
    check_blocks,
    check_count,
    check_widths,
    copy_parts_,
    plain_entries,
    tokens,
)
from zeroconv.errors import UserError

_COPIED = (
    "time_text_embed",
    "context_embedder",
    "x_embedder",
    "transformer_blocks",
    "single_transformer_blocks",
)
# modes of the published union controls (InstantX, Shakker Labs), and other words for them
MODES = ("canny", "tile", "depth", "blur", "pose", "gray", "lq")
_MODE_WORDS = {"openpose": "pose", "grey": "gray", "low_quality": "lq", "lowquality": "lq"}


class FluxControlNet(TransformerControlNet):
    """Residuals (N, L, width) of double blocks, then of single blocks. Each kind is spread over the
    base's blocks in runs of one length, of XLabs' again and again in their order.
    """

    class_name = "FluxControlNetModel"
    family = "FLUX.1"
    one_text = True
    joined = (
        "controlnet_x_embedder.",
        "controlnet_blocks.",
        "controlnet_single_blocks.",
        "controlnet_mode_embedder.",
        "input_hint_block.",
    )

    @classmethod
    def from_backbone(
        cls,
        backbone: FluxBackbone,
        *,
        blocks: int | None = None,
        single_blocks: int = 0,
        condition: str | None = None,
        modes: int | None = None,
    ) -> FluxControlNet:
        """A new one: the first blocks of the base copied, connections that add nothing.

        blocks, single_blocks: how many double and single blocks; by default 4, or all of a base
        that has fewer, and none. modes: of a union control, how many kinds of hints it reads.
        Raises UserError for more blocks than the base has.
        """
        base = backbone.transformer
        if backbone.beside:
            raise UserError(
                f"{backbone.name} reads more than its latent (FLUX Fill, Control), so no control "
                "is copied from it; train on FLUX.1."
            )
        doubles, singles = backbone.doubles, len(base.single_transformer_blocks)
        blocks = min(4, doubles) if blocks is None else blocks
        check_count(blocks, doubles, "double blocks", backbone.name)
        check_count(single_blocks, singles, "single blocks", backbone.name, least=0)
        # what the network does not know
        config = {k: v for k, v in plain_entries(base.config).items() if k != "out_channels"}
        changes = {"num_layers": blocks, "num_single_layers": single_blocks, "num_mode": modes}
        network = cls._network(**{**config, **changes})
        copy_parts_(network, base, _COPIED)
        if modes is not None:  # diffusers draws it; so it begins as no word of a prompt
            torch.nn.init.zeros_(network.controlnet_mode_embedder.weight)
        return cls._new(network, backbone, condition)

    def __new__(cls, network: Any = None, *more: Any, **options: Any) -> Any:
        """A union control where the network has modes, so only those have kinds."""
        union = network is not None and network.union
        return super().__new__(FluxUnionControlNet if union else cls)

    def _connections(self) -> tuple[Connection, ...]:
        network, width = self.network, self.network.inner_dim
        doubles = tokens(len(network.controlnet_blocks), width, PATCH, "double")
        return doubles + tokens(len(network.controlnet_single_blocks), width, PATCH, "single")

    @property
    def spread(self) -> Rule | None:
        """Block → residual: of double blocks among double blocks, of single among single."""
        count = len(self.network.controlnet_blocks)
        rule = "ceil" if self.hint_space == "latent" else "modulo"
        base, places = self._base, {}
        for i, number in enumerate(numbers(rule, count, base.doubles) if count else ()):
            places[i] = number
        singles, blocks = len(self.connections) - count, len(base.connections) - base.doubles
        for i, number in enumerate(numbers("ceil", singles, blocks) if singles else ()):
            places[base.doubles + i] = count + number  # type: ignore[operator]
        return places  # type: ignore[return-value]

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        base: FluxBackbone = self._base
        guided = self.config["guidance_embeds"]
        hint = hint_embedding.to(z.dtype)
        doubles, singles = self.network(
            hidden_states=pack(z),
            controlnet_cond=pack(hint) if self.hint_space == "latent" else hint,
            controlnet_mode=self._mode_rows(z),
            guidance=base.guidance_of(text, z) if guided else None,
            return_dict=False,
            **base.inputs(z, t, text),
        )
        return [*(doubles or ()), *(singles or ())]

    def embed_hint(self, hint: Tensor) -> Tensor:
        """The latents (N, C, H, W) as they are; of XLabs' pictures (N, 3, sH, sW) in [−1, 1]."""
        if self.hint_space == "latent":
            return super().embed_hint(hint)
        if hint.shape[1] != 3:
            raise UserError(
                f"this control reads hints of 3 channels, but the hint has {hint.shape[1]}."
            )
        return hint.clamp_min(0) * 2 - 1

    @property
    def hint_space(self) -> Literal["pixels", "latent"]:
        """XLabs' reads pixels."""
        return "latent" if self.network.input_hint_block is None else "pixels"

    def _text_only(self) -> tuple[str, ...]:
        """Single blocks read it."""
        return () if len(self.network.controlnet_single_blocks) else super()._text_only()

    def _mode_rows(self, z: Tensor) -> Tensor | None:
        """The mode (N, 1) of each hint. None: it has no modes."""
        return None

    @classmethod
    def check_fit(cls, network: Any, backbone: FluxBackbone, where: object) -> None:
        theirs, base = network.config, backbone.transformer
        pairs = {
            "tokens": (network.inner_dim, base.inner_dim),
            "packed latents": (theirs.in_channels, backbone.latent_channels * PATCH**2),
            "pooled text states": (theirs.pooled_projection_dim, base.config.pooled_projection_dim),
            "text states": (theirs.joint_attention_dim, base.config.joint_attention_dim),
        }
        check_widths(where, backbone.name, pairs)
        doubles, singles = backbone.doubles, len(base.single_transformer_blocks)
        check_blocks(where, backbone.name, len(network.controlnet_blocks), doubles, "double blocks")
        ours = len(network.controlnet_single_blocks)
        check_blocks(where, backbone.name, ours, singles, "single blocks")


class FluxUnionControlNet(FluxControlNet):
    """One control for several kinds of hints, its modes. `of_kind` gives it for one of them;
    several hints are several controls, whose residuals are summed.
    """

    mode: int | None = None
    _shown: Tensor | None = None  # of each hint of a batch, its mode

    def of_kind(self, kind: str | int) -> Self:
        """This network, its weights shared, for hints of one mode of a union control: a name such
        as "canny", or its number. Raises UserError for a mode that it has not.
        """
        mode, count = _mode_of(kind), self.config["num_mode"]
        if mode is None or not 0 <= mode < count:
            raise UserError(f"this union control has no mode {kind!r}; choose one of {self._modes}")
        view = copy.copy(self)
        view.mode = mode
        name = kind if isinstance(kind, str) else MODES[mode] if mode < len(MODES) else None
        entry = None if name is None else known(name)
        ours = {**self.config.get("zeroconv", {}), "condition": entry and entry.name}
        view.config = {**self.config, "zeroconv": ours}
        return view

    def checked_mode(self) -> int:
        """Its mode. Raises UserError where none was chosen."""
        mode = self.mode
        if mode is None and self.condition is not None:
            mode = _mode_of(self.condition)
        if mode is None or not 0 <= mode < self.config["num_mode"]:
            raise UserError(
                "this is a union control: say what its hint shows, Control(net, hint, kind=…) or "
                f"NAME:KIND=PICTURE; one of {self._modes}"
            )
        return mode

    @contextmanager
    def showing(self, kinds: Tensor) -> Iterator[None]:
        """Inside, hint number i of a batch is of mode kinds[i], (N,) int64."""
        before, self._shown = self._shown, kinds
        try:
            yield
        finally:
            self._shown = before

    def number_of(self, condition: str) -> int:
        """The mode of a condition's hints. Raises UserError for one that it has not."""
        mode = _mode_of(condition)
        if mode is None or mode >= self.config["num_mode"]:
            raise UserError(
                f"this union control has no mode for {condition!r}; its modes are {self._modes}"
            )
        return mode

    def _mode_rows(self, z: Tensor) -> Tensor:
        if self._shown is not None:
            return self._shown[:, None]
        return torch.full((len(z), 1), self.checked_mode(), device=z.device)

    @property
    def _modes(self) -> str:
        count = self.config["num_mode"]
        return f"{', '.join(MODES[:count])}, or a number from 0 to {count - 1}."


def _mode_of(kind: str | int) -> int | None:
    """The number of a mode by its name, of the model card or of a condition; None for another."""
    if isinstance(kind, int):
        return None if isinstance(kind, bool) else kind
    plain = kind.lower().replace("-", "_").replace(" ", "_")
    name = _MODE_WORDS.get(plain, plain)
    return MODES.index(name) if name in MODES else None
