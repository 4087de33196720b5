"""The noise that sampling starts from and adds: torch's, or what other tools draw from a seed.

"cpu" gives each picture a generator of its own, as diffusers and A1111's CPU setting do. "gpu"
computes what torch draws on an NVIDIA card, A1111's default. "batch" draws the latents of a whole
call from one generator, as ComfyUI does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroconv.errors import UserError

NOISES = ("cpu", "gpu", "batch")
WORD = 2**32


class Philox:
    """Normal numbers as torch's `randn(..., device="cuda")` draws them from a seed.

    Each number is the first of its thread's four (Salmon et al. 2011, Philox4x32-10, and cuRAND's
    Box-Muller transform), which is torch's layout for a tensor of fewer numbers than the card has
    threads: 100,000 and more, a latent of 1024×1024 pixels has 65,536. A draw counts the offset up
    by one, as A1111 has it. Equal to a card's numbers but for rounding of its logarithm and sine.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.offset = seed % 2**64, 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next tensor of `shape`, float32 on the CPU."""
        count = math.prod(shape)
        counter = np.zeros((4, count), np.uint64)
        counter[0], counter[2] = self.offset, np.arange(count)
        self.offset += 1
        first, second, _, _ = philox4x32(counter, (self.seed % WORD, self.seed // WORD))
        return torch.from_numpy(box_muller(first, second).astype(np.float32)).reshape(*shape)


def philox4x32(
    counter: NDArray[np.uint64], key: tuple[int, int], rounds: int = 10
) -> NDArray[np.uint64]:
    """Counters (4, n) of 32-bit words and a key of two → (4, n) random words (Salmon et al. 2011,
    section 4.3 and table 2).
    """
    a, b, c, d = counter
    low = np.uint64(WORD - 1)
    shift = np.uint64(32)
    first, second = key
    for _ in range(rounds):
        x, y = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)  # of 64 bits
        a, b, c, d = (
            (y >> shift) ^ b ^ np.uint64(first),
            y & low,
            (x >> shift) ^ d ^ np.uint64(second),
            x & low,
        )
        first, second = (first + 0x9E3779B9) % WORD, (second + 0xBB67AE85) % WORD
    return np.stack([a, b, c, d])


def box_muller(x: NDArray[np.uint64], y: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Two arrays of 32-bit words → normal numbers, the sine's half of the pair, as cuRAND has it:
    words are taken at the middle of their interval.
    """
    u, v = ((words.astype(float) + 0.5) / WORD for words in (x, y))
    return np.sqrt(-2 * np.log(u)) * np.sin(2 * np.pi * v)


Source = torch.Generator | Philox


def seed_of(source: Source) -> int:
    """The number it began with, in [0, 2⁶⁴)."""
    return source.seed if isinstance(source, Philox) else source.initial_seed() % 2**64


def draw(source: Source, shape: Sequence[int]) -> Tensor:
    """The source's next normal numbers, float32 on the CPU."""
    if isinstance(source, Philox):
        return source.randn(shape)
    return torch.randn(tuple(shape), generator=source)


def initial_latents(sources: Sequence[Source], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (N, *shape), each picture's from its own source, so that a batch
    changes nothing.
    """
    return torch.stack([draw(source, shape) for source in sources])


def sources(seeds: Sequence[int], noise: str, shape: Sequence[int]) -> list[Source]:
    """One a picture. Those of "batch" are for the noise of steps: the first draw of `shape`, which
    its latents could repeat, is left out.
    """
    if noise == "gpu":
        return [Philox(seed) for seed in seeds]
    generators: list[Source] = [torch.Generator().manual_seed(seed) for seed in seeds]
    if noise == "batch":
        initial_latents(generators, tuple(shape))
    return generators


def batch_latents(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """ComfyUI's: (N, *shape) in one draw from the first seed, so that a picture depends on its
    number too. Raises UserError unless the seeds count up.
    """
    if list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        raise UserError("noise 'batch' draws all pictures from one seed; give one, not a list.")
    generator = torch.Generator().manual_seed(seeds[0])
    return torch.randn((len(seeds), *shape), generator=generator)
