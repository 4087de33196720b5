"""Latents of cached moments, and what the VAE decodes them to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.scratch.corpus.batch import KINDS, generator_of
from zeroconv.scratch.corpus.shards import load_shard, shard_names
from zeroconv.scratch.tiny.model import TinyConfig

SIDE = 128  # pixels
STICKERS = 0.35  # share of the latents
HELD_OUT = 32  # the first of each kind, which are only measured


class Pool:
    """Numbered latents, all functions of (seed, number): half are samples of a picture's posterior,
    half have more noise upon them, as generated ones are not exactly those of a picture.

    decode: latents (N, C, h, w) → pictures (N, 3, H, W) in [−1, 1], called once for each number.
    Raises UserError where the folder holds no shards.
    """

    def __init__(
        self, folder: Path, config: TinyConfig, decode: Callable[[Tensor], Tensor]
    ) -> None:
        self.config, self.decode = config, decode
        self.moments = {kind: _moments(folder, kind) for kind in KINDS}
        if not any(self.moments.values()):
            raise UserError(
                f"No shards in {folder}; `python -m zeroconv.scratch.drawing` makes them."
            )
        for kind, shards in self.moments.items():
            if shards and sum(map(len, shards)) <= HELD_OUT:
                raise UserError(f"{folder} has {HELD_OUT} {kind} or fewer; draw more of them.")
        self.known: dict[int, tuple[Tensor, Tensor]] = {}  # number → latent, picture in float16

    def __call__(self, step: int, seconds: float) -> tuple[Tensor, Tensor]:
        """The batch of a step: latents (N, C, h, w) and pictures (N, 3, H, W) in [−1, 1]."""
        numbers = self.numbers(step)
        for number in numbers:
            if number not in self.known:
                latent = self.latent(number)
                self.known[number] = latent, self.decode(latent[None])[0].half()
        latents, pictures = zip(*(self.known[number] for number in numbers), strict=True)
        layout = torch.channels_last
        return (
            torch.stack(latents).contiguous(memory_format=layout),
            torch.stack(pictures).float().contiguous(memory_format=layout),
        )

    def numbers(self, step: int) -> list[int]:
        """Which latents a step sees; each once before any comes again."""
        per_round = self.config.pool // self.config.batch
        turn, at = divmod(step, per_round)
        order = np.random.default_rng([self.config.seed, 1, turn]).permutation(self.config.pool)
        return [int(n) for n in order[at * self.config.batch : (at + 1) * self.config.batch]]

    def latent(self, number: int) -> Tensor:
        """(C, h, w) float32."""
        rng = np.random.default_rng([self.config.seed, 2, number])
        kinds = [kind for kind in KINDS if self.moments[kind]]
        kind = kinds[-1] if rng.random() < STICKERS else kinds[0]
        shards = self.moments[kind]
        at = int(rng.integers(HELD_OUT, sum(map(len, shards))))
        generator = generator_of(self.config.seed, 3, number)
        z = _sample(_row(shards, at), generator)
        if rng.random() < 0.5:
            return z
        more = self.config.noise * abs(rng.normal())
        return z + more * torch.randn(z.shape, generator=generator)

    def held_out(self) -> Tensor:
        """Latents (N, C, h, w) that no step sees."""
        generator = generator_of(self.config.seed, 4, 0)
        rows = [
            _sample(_row(shards, at), generator)
            for shards in self.moments.values()
            if shards
            for at in range(min(HELD_OUT, len(shards[0])))
        ]
        return torch.stack(rows)


def _moments(folder: Path, kind: str) -> list[np.ndarray]:
    names = [name for name in shard_names(folder) if name.startswith(kind)]
    return [load_shard(folder, name, [SIDE]).arrays[SIDE] for name in names]


def _row(shards: list[np.ndarray], at: int) -> Tensor:
    for shard in shards:
        if at < len(shard):
            return torch.from_numpy(np.array(shard[at])).float()
        at -= len(shard)
    raise IndexError(at)


def _sample(moments: Tensor, generator: torch.Generator) -> Tensor:
    mean, logvar = moments.chunk(2)
    return mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn(mean.shape, generator=generator)
