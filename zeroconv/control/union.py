"""ControlNet Union (xinsir 2024; diffusers' `ControlNetUnionModel`): one control for several kinds
of hints, and for several hints in one call.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Encoder, TextStates
from zeroconv.conditions import known
from zeroconv.conditions.union import KINDS, find_kind, kind_names, names
from zeroconv.control.controlnet import ControlNet
from zeroconv.errors import UserError

Scale = float | Tensor


class ControlNetUnion(ControlNet):
    """A ControlNet whose hint embeddings pass one attention block beside the latent's.

    For a hint of kind k, embedded as c_k (N, C0, h, w), the block reads the token mean(c_k) + e_k,
    and a last token mean(x) of the latent x = conv_in(z). What it gives for k, projected by a
    linear layer that starts at zero, is a_k (N, C0). Then Σ_k c_k + a_k is added to x, and an
    embedding of the kinds that are there is added to that of the timestep.

    `of_kind` gives the same network for hints of one kind, which is what pictures are made with and
    what trains. Several hints in one call: `forward_several`.
    """

    class_name: ClassVar[str] = "ControlNetUnionModel"
    kind: int | Tensor | None

    def __init__(self, encoder: Encoder, config: dict, latent_scale: int = 8) -> None:
        from diffusers.models.controlnets.controlnet_union import ResidualAttentionBlock
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        super().__init__(encoder, config, latent_scale)
        width = self.connections[0].channels
        defaults = {
            "num_control_type": 6,
            "num_trans_channel": width,
            "num_trans_head": math.gcd(8, width),
            "num_trans_layer": 1,
            "num_proj_channel": width,
        }
        self.config = {**defaults, "addition_time_embed_dim": 256, **_set(self.config)}
        c = self.config
        if c["num_trans_channel"] != width or c["num_proj_channel"] != width:
            raise UserError(
                f"num_trans_channel and num_proj_channel of a Union control must be {width}, as "
                f"wide as its first level; they are {c['num_trans_channel']} and "
                f"{c['num_proj_channel']}."
            )
        kinds, sinusoids = c["num_control_type"], c["addition_time_embed_dim"]
        self.task_embedding = nn.Parameter(width**-0.5 * torch.randn(kinds, width))
        self.transformer_layes = nn.ModuleList(
            ResidualAttentionBlock(width, c["num_trans_head"]) for _ in range(c["num_trans_layer"])
        )
        self.spatial_ch_projs = nn.Linear(width, width)
        nn.init.zeros_(self.spatial_ch_projs.weight)
        nn.init.zeros_(self.spatial_ch_projs.bias)
        self.control_type_proj = Timesteps(
            sinusoids, c.get("flip_sin_to_cos", True), c.get("freq_shift", 0)
        )
        self.control_add_embedding = TimestepEmbedding(sinusoids * kinds, 4 * width)
        condition = self.config["zeroconv"]["condition"]
        self.kind = None if condition is None else find_kind(condition, kinds)

    def of_kind(self, kind: str | int) -> Self:
        """This network, its weights shared, for hints of one kind: a name such as "canny", of the
        model card or of A1111's, or its number. Raises UserError for a kind that it has not.
        """
        view = copy.copy(self)
        view.kind = find_kind(kind, len(self.task_embedding))
        # how its hints are drawn, read and resized
        called = [kind, kind.replace(" ", "")] if isinstance(kind, str) else []
        entries = map(known, [*called, *KINDS.get(view.kind, ())])
        condition = next((entry.name for entry in entries if entry is not None), None)
        ours = {**self.config["zeroconv"], "condition": condition}
        view.config = {**self.config, "zeroconv": ours}
        return view

    @contextmanager
    def showing(self, kinds: Tensor) -> Iterator[None]:
        """Inside, hint number i of a batch is of kind kinds[i], (N,) int64."""
        before, self.kind = self.kind, kinds
        try:
            yield
        finally:
            self.kind = before

    def embed_hint(self, hint: Tensor) -> Tensor:
        """As of a ControlNet. The hole of an inpaint hint, −1, is black, as ProMax was trained."""
        return super().embed_hint(hint.clamp(min=0))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of its kinds, in the order of their numbers."""
        return kind_names(len(self.task_embedding))

    @property
    def network_id(self) -> int:
        """The same for all that share these weights."""
        return id(self.copy)

    def forward_embedded(
        self, z: Tensor, hint_embedding: Tensor, t: Tensor | int, text: TextStates
    ) -> list[Tensor]:
        """One residual a connection for hints of `kind`. Raises UserError without one."""
        return self.forward_several(z, [(self.checked_kind(), hint_embedding, 1.0)], t, text)

    def checked_kind(self) -> int | Tensor:
        """The number of its kind, or (N,) one a picture. Raises UserError where none was chosen."""
        if self.kind is None:
            raise UserError(
                "this is a Union control: say what its hint shows, Control(net, hint, kind=…) or "
                f"NAME:KIND=PICTURE; one of {names(len(self.task_embedding))}."
            )
        return self.kind

    def forward_several(
        self,
        z: Tensor,
        hints: Sequence[tuple[int | Tensor, Tensor, Scale]],
        t: Tensor | int,
        text: TextStates,
    ) -> list[Tensor]:
        """z (N, C, H, W); for every hint its kind, a number or (N,), its embedding (N, C0, h, w),
        and its scale, a number or (N, 1, 1, 1) → one residual a connection. As diffusers has it,
        the scale is a factor on the hint's token, embedding and a_k.
        """
        encoder = cast(Any, self.copy)
        emb = encoder.embed_time(len(z), t, text) + self._embed_kinds([k for k, *_ in hints], z)
        x = encoder.conv_in(z)  # (N, C0, h, w)
        tokens = [
            (c.mean((2, 3)) + self.task_embedding[kind]) * _flat(scale) for kind, c, scale in hints
        ]
        mixed = self._attend(torch.stack([*tokens, x.mean((2, 3))], dim=1))  # (N, hints + 1, C0)
        added = torch.zeros_like(x)
        for i, (_, c, scale) in enumerate(hints):
            shift = self.spatial_ch_projs(mixed[:, i])[:, :, None, None]
            added = added + (c + shift) * scale
        return self.connect(encoder.run_blocks(x + added, emb, text))

    def _attend(self, tokens: Tensor) -> Tensor:
        """(N, L, C0) → (N, L, C0), each token by itself.

        The published code hands these axes to torch's attention in the order (L, N, C0), so it
        attends over the pictures of a batch, and the published weights were trained so. Of one
        picture, whose two halves of guidance have the same tokens, that is every token alone. Here
        it is so in any batch, so that a picture does not depend on those beside it.
        """
        alone = tokens.reshape(1, -1, tokens.shape[-1])
        for layer in self.transformer_layes:
            alone = layer(alone)
        return alone.reshape(tokens.shape)

    def _embed_kinds(self, kinds: Sequence[int | Tensor], z: Tensor) -> Tensor:
        """Sinusoids of 1 for each kind that is there, of 0 for the others → (1 or N, 4 · C0)."""
        several = any(isinstance(kind, Tensor) for kind in kinds)
        there = z.new_zeros(len(z) if several else 1, len(self.task_embedding))
        for kind in kinds:
            if isinstance(kind, Tensor):
                there.scatter_(1, kind[:, None], 1.0)
            else:
                there[:, kind] = 1
        sinusoids = self.control_type_proj(there.flatten()).reshape(len(there), -1)
        return self.control_add_embedding(sinusoids.to(self.dtype))

    def trainable(self, frozen_copy: bool = False) -> Iterator[nn.Parameter]:
        """What a ControlNet's is, and all that a Union adds."""
        yield from super().trainable(frozen_copy)
        yield self.task_embedding
        for part in (self.transformer_layes, self.spatial_ch_projs, self.control_add_embedding):
            yield from part.parameters()


def _set(config: dict) -> dict:
    """Without what the config of a base leaves open."""
    return {k: v for k, v in config.items() if v is not None or k != "addition_time_embed_dim"}


def _flat(scale: Scale) -> Scale:
    """(N, 1, 1, 1) → (N, 1); one number stays."""
    return scale.flatten(1) if isinstance(scale, Tensor) and scale.dim() else scale
