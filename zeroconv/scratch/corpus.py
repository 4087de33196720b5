"""What a training reads: moments in memory, captions as token rows, and batches that are functions
of (seed, step).

Shards may be added while a training runs. From which step on a shard is used is written into the
run's folder before it is used, so a resumed training sees the same pictures at the same steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.scratch.shards import load_shard, shard_names

Writer = Callable[[Sequence[str]], Tensor]  # captions → token rows (N, L) int64
KINDS = ("scenes", "stickers")


@dataclass(frozen=True)
class Batch:
    """Latents and the prompts of a step; the last prompt is the empty one, shared by all rows
    without a caption.
    """

    latents: Tensor  # (B, C, h, w) float32, a fresh sample of each posterior
    tokens: tuple[Tensor, ...]  # one (P, L) int64 a writer
    prompt: Tensor  # (B,) int64: which of the P prompts a picture has


@dataclass(frozen=True)
class Mixture:
    """How a batch is put together."""

    batch: int = 128
    stickers: float = 0.35  # share of the pictures
    empty: float = 0.10  # share of the prompts, rounded to whole rows
    seed: int = 0

    @property
    def captioned(self) -> int:
        """Rows with a caption; always the same number, so that programs are compiled once."""
        return self.batch - round(self.empty * self.batch)


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
            arrays = [torch.from_numpy(np.array(shard.moments[side])) for shard in fresh]
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

        told = chosen[: mixture.captioned]
        counts = self.first[told + 1] - self.first[told]
        captions = self.first[told] + (rng.random(len(told)) * counts).astype(int)

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


def generator_of(seed: int, what: int, step: int, device: str = "cpu") -> torch.Generator:
    """Random numbers for one purpose of one step."""
    number = int(np.random.default_rng([seed, what, step]).integers(2**62))

    return torch.Generator(device).manual_seed(number)


class Journal:
    """From which step on each shard is used, in a file; a line once written holds for every resumed
    run.
    """

    def __init__(self, path: Path, shards: Path) -> None:
        self.path, self.shards = path, shards
        self.lines: list[tuple[int, list[str]]] = []
        if path.exists():
            self.lines = [
                (int(step), list(names))
                for step, names in json.loads(path.read_text(encoding="utf-8"))
            ]

    def names(self, step: int) -> list[str]:
        """Every shard in use at a step, in the order in which they came."""
        return [name for since, names in self.lines if since <= step for name in names]

    def look(self, step: int) -> None:
        """Take up the shards that were finished meanwhile; asked again at the same step, it stays
        as it was.
        """
        if any(since >= step for since, _ in self.lines):
            return
        known = set(self.names(step))
        fresh = [name for name in shard_names(self.shards) if name not in known]

        self.lines.append((step, fresh))
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.lines, indent=0), encoding="utf-8")


def clip_writer(tokenizer) -> Writer:
    """Token rows of the tokenizer's full length, as the pipelines make them: cut at its end,
    padded.
    """

    def write(captions: Sequence[str]) -> Tensor:
        asked = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return tokenizer(list(captions), max_length=tokenizer.model_max_length, **asked).input_ids

    return write
