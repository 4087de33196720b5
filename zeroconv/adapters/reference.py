"""Reference-only: the attention over the picture also sees that of a reference picture, without any
weights (the method of A1111's ControlNet extension, "reference_only").

At each step the reference's latents with noise of that step go through the UNet, and each attention
over the picture keeps its input. Then the picture itself does, whose keys and values are continued
by those of what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.errors import UserError
from zeroconv.layers.attention import Call, Change, Switch, attentions

_SIDES = ("down_blocks", "mid_block", "up_blocks")


@dataclass
class Reference:
    """One picture to be like.

    latents: (N, C, h, w), one row a picture to be made. fidelity in [0, 1]: how far the
    unconditional half of guidance is kept from seeing the reference (A1111's "style fidelity"); at
    1 guidance strengthens the likeness most. scale in [0, 1]: the share of the attentions that see
    it, the widest first. noise: one source a picture.
    """

    latents: Tensor
    fidelity: float
    scale: float
    noise: Sequence[torch.Generator]
    start: float = 0.0
    end: float = 1.0

    def noised(self, backbone: UNetBackbone, t: Tensor) -> Tensor:
        """Its latents at timestep t, with new noise."""
        shape = tuple(self.latents.shape[1:])
        drawn = torch.stack([torch.randn(shape, generator=source) for source in self.noise])
        drawn = drawn.to(self.latents)
        timesteps = t.round().long().expand(len(self.latents)).to(backbone.process.device)
        return backbone.process.noised(self.latents, drawn, timesteps).to(backbone.dtype)


class References:
    """All references of one generation. Those that act at the same time are seen together, with the
    mean of their fidelities.
    """

    def __init__(self, backbone: UNetBackbone, references: Sequence[Reference]) -> None:
        if backbone.encoder.conv_in.in_channels != backbone.latent_channels:
            raise UserError(
                f"{backbone.name} reads a picture beside its latent, so it runs no reference; use "
                "the base it was made from."
            )
        self.references = list(references)
        self.switch = Switch(on=False, pictures=len(self.references[0].latents))
        self.recording: Reference | None = None
        ranks = _ranks(backbone)
        self.changes: dict[str, Change] = {
            name: _Seen(self.switch, self, rank) for name, rank in ranks.items()
        }

    def record(
        self, backbone: UNetBackbone, acting: Sequence[Reference], t: Tensor, text: TextStates
    ) -> None:
        """Let every attention keep what it sees of the references that act at timestep t; text: of
        N or 2N rows, as the picture's own pass has it.
        """
        seen: list[Any] = list(self.changes.values())
        for change in seen:
            change.bank.clear()
        self.switch.on = bool(acting)
        for reference in acting:
            z = reference.noised(backbone, t)
            with self._record(reference):
                backbone.predict(z.repeat(len(text) // len(z), 1, 1, 1), t, text)

    @contextmanager
    def _record(self, reference: Reference) -> Iterator[None]:
        self.recording = reference
        try:
            yield
        finally:
            self.recording = None


class _Seen(Change):
    """One attention over the picture. `rank` in [0, 1): its place among all, the widest first."""

    def __init__(self, switch: Switch, references: References, rank: float) -> None:
        super().__init__(switch)
        self.references, self.rank = references, rank
        self.bank: list[tuple[Tensor, float]] = []  # inputs, and their references' fidelities

    def after(self, call: Call, out: Tensor) -> Tensor:
        if (reference := self.references.recording) is not None:
            if reference.scale > self.rank:
                self.bank.append((call.x, reference.fidelity))
            return out
        if not self.bank:
            return out
        more = torch.cat([x for x, _ in self.bank], dim=1)
        key, value = (
            torch.cat([first, projection(more)], dim=1)
            for first, projection in (
                (call.key, call.layer.to_k),
                (call.value, call.layer.to_v),
            )
        )
        seen = call.attend(key, value)
        if self.switch.halves(call.x) == 1:
            return seen
        fidelity = sum(each for _, each in self.bank) / len(self.bank)
        n = len(out) // 2
        without = fidelity * out[:n] + (1 - fidelity) * seen[:n]
        return torch.cat([without, seen[n:]])


def _ranks(backbone: UNetBackbone) -> dict[str, float]:
    """Attentions over the picture → their ranks: by width, then from the input to the output."""
    layers = attentions(backbone.unet)
    names = [name for name in layers if name.endswith("attn1")]
    order = sorted(names, key=lambda n: (-layers[n].query_dim, _SIDES.index(n.partition(".")[0])))
    return {name: i / len(order) for i, name in enumerate(order)}
