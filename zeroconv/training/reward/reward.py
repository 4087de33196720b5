"""The reward: from predictions at small timesteps to the distance of the hint that is read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Backbone
from zeroconv.conditions import known
from zeroconv.data.batches import Batch
from zeroconv.evaluation.reader import Reader
from zeroconv.layers.checkpointing import find_parts, measure, recompute_
from zeroconv.training.recipes.reward import RewardSettings
from zeroconv.training.reward.piecewise import in_pieces
from zeroconv.training.reward.registry import Reading, reading_of
from zeroconv.training.reward.second import load_second
from zeroconv.training.reward.tally import Tally

NEVER = -1  # in place of a reading's number: a hint that was blanked
_PIECE = 512 * 512  # pixels that are decoded under gradients at a time, at least one picture
_LARGE = 256 * 256  # pixels of a picture from which the decoder's blocks are computed again


class Reward:
    """Decodes the pictures that predictions stand for, reads their hints back and compares them.

    numbers: condition of a hint, None for the recipe's → its reading's number.
    """

    def __init__(
        self,
        settings: RewardSettings,
        backbone: Backbone,
        readings: list[Reading],
        numbers: Mapping[str | None, int],
        reader: Reader | None = None,
    ) -> None:
        self.settings, self.backbone = settings, backbone
        self.readings, self.numbers, self.reader = readings, numbers, reader
        self.tally = Tally()
        self._recomputes = False

    # ---------------------------------------------------------------- timesteps

    def redraw(self, t: Tensor, process: Any, generator: torch.Generator) -> tuple[Tensor, int]:
        """Timesteps t (N,) with the first k drawn anew at most at t_max, and k.

        k is `share` of N on average: those k count for the reward alone, so the mean of the
        ordinary loss over the others is that of the recipe's own timesteps.
        """
        chance = torch.rand((), generator=generator, device=t.device)
        count = int(self.settings.share * len(t) + float(chance))
        if not count:
            return t, 0
        low = process.draw_below(count, self.settings.t_max, generator, t.device)
        return torch.cat([low.to(t.dtype), t[count:]]), count

    def ordinary(self, errors: Tensor, drawn: int) -> Tensor:
        """The ordinary loss of a micro-batch's errors (N,), of which the first `drawn` do not
        count. Its expectation is the mean error over timesteps of the recipe, for every N.
        """
        return errors[drawn:].sum() / (len(errors) * (1 - self.settings.share))

    # ---------------------------------------------------------------- distances

    def choose(self, t: Tensor, process: Any, numbers: Tensor) -> tuple[Tensor, int]:
        """Rows (n,) of the samples that are decoded, at most `samples`, and how many are eligible:
        at most at t_max and with a hint. t (N,) timesteps, numbers (N,) of their readings.
        """
        eligible = process.is_below(t, self.settings.t_max) & (numbers != NEVER).to(t.device)
        rows = eligible.nonzero()[:, 0]
        return rows[: self.settings.samples], len(rows)

    def __call__(self, clean: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        """Distances (n,) of the latents (n, C, h, w) that predictions stand for, which are those
        `rows` (n,) of the batch.
        """
        if not len(rows):
            return clean.new_zeros(0)
        hints, numbers = cast(Tensor, batch.asked), cast(Tensor, batch.readings)
        weights = None if batch.masks is None else batch.masks[rows].float() / 255
        at = numbers.to(rows.device)[rows].tolist()
        return self.distances(clean.float(), hints[rows], at, weights)

    def distances(
        self, clean: Tensor, hints: Tensor, numbers: list[int], weights: Tensor | None = None
    ) -> Tensor:
        """(n,) of latents (n, C, h, w), each with the reading of its number."""
        height, width = hints.shape[-2:]
        self._prepare(clean.device, height * width)

        def piece(z: Tensor, part: slice) -> Tensor:
            pictures = self.backbone.decode_with_gradient(z)
            given = hints[part].float() / 255
            counted = torch.ones_like(given[:, :1]) if weights is None else weights[part]
            return self._read(pictures, given, counted, numbers[part])

        return in_pieces(clean, piece, max(1, _PIECE // (height * width)))

    def _read(self, pictures: Tensor, hints: Tensor, weights: Tensor, numbers: list[int]) -> Tensor:
        values = pictures.new_zeros(len(pictures))
        for number in sorted(set(numbers)):
            rows = [i for i, one in enumerate(numbers) if one == number]
            reading = self.readings[number]
            some = reading.distances(pictures[rows], hints[rows], weights[rows], self.reader)
            index = torch.tensor(rows, device=values.device)
            values = values.index_put((index,), some.to(values.dtype))
        return values

    def _prepare(self, device: torch.device, pixels: int) -> None:
        """Have the reader on the device, and of large pictures keep few of the decoder's
        activations.
        """
        if self.reader is not None:
            self.reader.to(device)
        if pixels >= _LARGE and not self._recomputes:
            for part in find_parts([self._decoder()]):
                recompute_(part)
            self._recomputes = True

    # ---------------------------------------------------------------- memory

    def _decoder(self) -> nn.Module:
        return cast(Any, self.backbone).vae.decoder

    def peak(self, size: tuple[int, int], batch_size: int) -> int:
        """Bytes that one piece keeps for its backward pass, for latents (h, w); nothing is
        computed. What a network reads back with comes on top.
        """
        height, width = (self.backbone.latent_scale * side for side in size)
        pixels = height * width
        count = min(max(1, _PIECE // pixels), self.settings.samples, batch_size)
        parts = [] if pixels < _LARGE else find_parts([self._decoder()])
        device, channels = self.backbone.device, self.backbone.latent_channels

        def forward() -> Tensor:
            z = torch.empty(count, channels, *size, device=device, requires_grad=True)
            return self.backbone.decode_with_gradient(z).square().sum()

        vae = cast(Any, self.backbone).vae
        ledger = measure(parts, [*vae.parameters(), *vae.buffers()], forward)
        return ledger.peak(list(range(len(ledger.parts))))


def make_reward(
    settings: RewardSettings,
    backbone: Backbone,
    base: str,
    condition: str,
    conditions: set[str | None],
) -> Reward:
    """Of a recipe's `training.reward`, for hints of its `condition` and of sources that name
    another. Raises UserError for a condition that cannot be read back.
    """
    names = {name: name or condition for name in conditions}
    if known(condition) is not None or None in conditions:
        names |= {None: condition, condition: condition}  # of sources that name none
    order = sorted(set(names.values()))
    readings = [reading_of(name) for name in order]
    needs = [name for name, one in zip(order, readings, strict=True) if one.needs_network]

    reader = load_second(settings.reader, base, needs[0]) if needs else None
    numbers = {name: order.index(one) for name, one in names.items()}
    cast(Any, backbone).vae.requires_grad_(False)
    return Reward(settings, backbone, readings, numbers, reader)


def sentence(settings: RewardSettings, batch_size: int) -> str:
    """What a run does for its reward."""
    drawn = settings.share * batch_size
    return (
        f"reward: {drawn:g} of {batch_size} samples of a micro-batch are drawn at timesteps up to "
        f"{settings.t_max:g}; at most {settings.samples} are decoded and read back"
    )
