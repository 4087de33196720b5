"""The autoencoder's inputs: crops first, whole pictures later; functions of (seed, step)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.scratch.corpus.batch import generator_of
from zeroconv.scratch.corpus.journal import Journal
from zeroconv.scratch.corpus.shards import PIXELS, Shard, load_shard, shard_names
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.vae.model import AutoencoderConfig, to_tensor

STICKERS = 0.35  # share of the pictures
LOOK = 200  # steps between two looks for new shards


class Pictures:
    """(steps done, seconds) → pictures (N, 3, H, W) in [−1, 1] and noise for their latents.

    Raises UserError where the folder holds no shards of pictures.
    """

    def __init__(
        self, folder: Path, journal: Path, size: int, config: AutoencoderConfig, budget: Budget
    ) -> None:
        self.folder, self.journal = folder, Journal(journal, folder)
        self.size, self.config, self.budget = size, config, budget
        self.shards: list[Shard] = []

    def __call__(self, step: int, seconds: float) -> tuple[Tensor, Tensor]:
        config = self.config
        cropped = self.budget.progress(step, seconds) < config.crop_share
        side = min(config.crop, self.size) if cropped else self.size
        count = config.batch_size * (self.size // side) ** 2

        pictures = to_tensor(self._pictures(step, count, side))
        latent = side // config.factor
        generator = generator_of(config.seed, 2, step)
        noise = torch.randn((count, config.latent_channels, latent, latent), generator=generator)
        return pictures, noise

    def _pictures(self, step: int, count: int, side: int) -> np.ndarray:
        """(count, side, side, 3) uint8, a share of them stickers, mirrored half of the time."""
        rng = np.random.default_rng([self.config.seed, 1, step])
        shards = self._shards(step)
        scenes = [shard for shard in shards if shard.kind == "scenes"] or shards
        stickers = [shard for shard in shards if shard.kind == "stickers"] or shards

        pools = [stickers if rng.random() < STICKERS else scenes for _ in range(count)]
        chosen = [pool[rng.integers(len(pool))].arrays[PIXELS] for pool in pools]
        return np.stack([_one(pictures, rng, side) for pictures in chosen])

    def _shards(self, step: int) -> list[Shard]:
        if step % LOOK == 0:
            self.journal.look(step)

        names = self.journal.names(step)
        for name in names[len(self.shards) :]:
            self.shards.append(load_shard(self.folder, name, [PIXELS]))
        if not self.shards:
            raise UserError(
                f"No pictures in {self.folder}; the first stage of `zeroconv playroom train-base` "
                "draws them."
            )
        return self.shards


def _one(pictures: np.ndarray, rng: np.random.Generator, side: int) -> np.ndarray:
    """A picture; a smaller one is the liveliest of three random windows (largest spread of values),
    so that few pixels are spent on empty wall.
    """
    picture = pictures[rng.integers(len(pictures))]
    if side < picture.shape[0]:
        corners = rng.integers(0, picture.shape[0] - side + 1, size=(3, 2))
        windows = [picture[y : y + side, x : x + side] for y, x in corners]
        picture = max(windows, key=lambda window: float(window[::2, ::2].std()))

    return picture[:, ::-1] if rng.random() < 0.5 else picture


def validation(folder: Path, most: int = 64) -> dict[str, np.ndarray]:
    """Kind → the first pictures (N, H, W, 3) uint8 of the validation split, always the same."""
    kept: dict[str, np.ndarray] = {}
    for name in shard_names(folder, "val"):
        shard = load_shard(folder, name, [PIXELS])
        before = kept.get(shard.kind)
        arrays = [shard.arrays[PIXELS]] if before is None else [before, shard.arrays[PIXELS]]
        kept[shard.kind] = np.concatenate(arrays)[:most]

    return kept
