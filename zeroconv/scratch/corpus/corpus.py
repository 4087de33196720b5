"""What a base is trained on: moments in memory, captions as token rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.scratch.corpus.batch import KINDS, Batch, Mixture, generator_of
from zeroconv.scratch.corpus.shards import load_shard
from zeroconv.scratch.text.writers import Writer


class Corpus:
    """The shards of a folder, at one size or several, on one device.

    `writers` turn captions into tokens, one for each text encoder. Raises UserError where the
    folder holds none.
    """

    def __init__(
        self,
        folder: Path,
        sides: Sequence[int],
        writers: Sequence[Writer],
        mixture: Mixture,
        device: str = "cpu",
    ) -> None:
        self.folder, self.sides, self.writers = folder, tuple(sides), list(writers)
        self.mixture, self.device = mixture, device
        self.names: list[str] = []

        self.moments: dict[int, Tensor] = {}  # pixels a side → (N, 2C, side/8, side/8) float16
        self.tokens: list[Tensor] = []  # a writer each: (M, L) int16, all captions in a row
        self.first = np.zeros(1, np.int64)  # of each picture: its first caption
        self.of_kind: dict[str, np.ndarray] = {}
        self.empty = [writer([""])[0].to(device) for writer in self.writers]

    def add(self, names: Sequence[str]) -> None:
        """Read further shards, in this order."""
        unknown = [name for name in names if name not in self.names]
        fresh = [load_shard(self.folder, name, self.sides) for name in unknown]
        if not fresh:
            return

        for side in self.sides:
            arrays = [torch.from_numpy(np.array(shard.arrays[side])) for shard in fresh]
            known = [self.moments[side]] if side in self.moments else []
            self.moments[side] = torch.cat([*known, *(x.to(self.device) for x in arrays)])

        texts = [text for shard in fresh for variants in shard.captions for text in variants]
        rows = [writer(texts).to(self.device, torch.int16) for writer in self.writers]
        pairs = zip(self.tokens, rows, strict=True) if self.tokens else []
        self.tokens = [torch.cat(pair) for pair in pairs] or rows

        counts = [len(variants) for shard in fresh for variants in shard.captions]
        self.first = np.concatenate([self.first, self.first[-1] + np.cumsum(counts)])
        self._sort_by_kind(fresh)
        self.names += unknown

    def _sort_by_kind(self, fresh: Sequence) -> None:
        start = len(self.first) - 1 - sum(len(shard) for shard in fresh)

        for shard in fresh:
            members = np.arange(start, start + len(shard))
            before = self.of_kind.get(shard.kind, np.empty(0, np.int64))
            self.of_kind[shard.kind] = np.concatenate([before, members])
            start += len(shard)

    def __len__(self) -> int:
        return len(self.first) - 1

    def choose(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (B,) and caption rows (captioned,) of a step."""
        if not len(self):
            raise UserError(
                f"No shards in {self.folder}; `python -m zeroconv.scratch.drawing` makes them."
            )
        mixture = self.mixture
        rng = np.random.default_rng([mixture.seed, 1, step])

        drawn = rng.random(mixture.batch) < mixture.stickers
        pools = [self.of_kind.get(kind) for kind in KINDS]
        scenes, stickers = (pool if pool is not None else np.arange(len(self)) for pool in pools)
        at = rng.random(mixture.batch)
        chosen = np.where(
            drawn,
            stickers[(at * len(stickers)).astype(int)],
            scenes[(at * len(scenes)).astype(int)],
        )

        captioned = chosen[: mixture.captioned]
        counts = self.first[captioned + 1] - self.first[captioned]
        captions = self.first[captioned] + (rng.random(len(captioned)) * counts).astype(int)

        return chosen, captions

    def batch(self, step: int, side: int) -> Batch:
        """The batch of a step, at one of the sizes.

        The same on every machine with the same shards, up to the device's random numbers.
        """
        chosen, captions = self.choose(step)
        generator = generator_of(self.mixture.seed, 2, step, self.device)

        moments = self.moments[side][torch.from_numpy(chosen).to(self.device)]
        mean, logvar = moments.float().chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator, device=self.device)
        latents = mean + (0.5 * logvar.clamp(-30, 20)).exp() * noise

        rows = torch.from_numpy(captions).to(self.device)
        pairs = zip(self.tokens, self.empty, strict=True)
        tokens = tuple(torch.cat([known[rows].long(), empty[None]]) for known, empty in pairs)
        places = torch.arange(self.mixture.batch, device=self.device)

        return Batch(latents, tokens, places.clamp(max=self.mixture.captioned))
