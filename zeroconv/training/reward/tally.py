"""What a run says of its reward, apart from the ordinary loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Tally:
    """Means since it was last asked. `last` holds the micro-batches of the step at work: sums of
    the ordinary loss, of the distances and of their number, of eligible samples, and how many
    micro-batches these are.
    """

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self.sums = [0.0] * 5

    def add(self, ordinary: Tensor, distances: Tensor, eligible: int) -> None:
        """A micro-batch: its ordinary loss, the distances (n,) of those that were decoded."""
        counts = ordinary.new_tensor([float(len(distances)), float(eligible), 1.0])
        sums = torch.stack([ordinary.detach(), distances.detach().sum()])
        numbers = torch.cat([sums, counts])
        self.last = numbers if self.last is None else self.last + numbers

    def close_step(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """The step is made; `reduce` sums a tensor over the processes. Steps whose loss is no
        number changed nothing and do not count.
        """
        if self.last is None:
            return
        numbers, self.last = reduce(self.last).tolist(), None
        if all(abs(number) < float("inf") for number in numbers):
            self.sums = [a + b for a, b in zip(self.sums, numbers, strict=True)]

    def figures(self) -> dict[str, float]:
        """{"loss", "reward", "reward_samples", "reward_eligible"}: the mean ordinary loss, the mean
        distance, and samples a micro-batch; nothing where no step was made, and no "reward" where
        none was decoded.
        """
        ordinary, distances, decoded, eligible, batches = self.sums
        self.sums = [0.0] * 5
        if not batches:
            return {}
        figures = {
            "loss": ordinary / batches,
            "reward_samples": round(decoded / batches, 3),
            "reward_eligible": round(eligible / batches, 3),
        }
        return figures | ({"reward": round(distances / decoded, 6)} if decoded else {})


def in_words(figures: dict[str, float]) -> str:
    """The reward's part of a step's line, "" without one; it says when fewer samples are decoded
    than are eligible.
    """
    if "reward" not in figures:
        return ""
    decoded, eligible = figures["reward_samples"], figures["reward_eligible"]
    of = f" of {eligible:g} eligible" if eligible > decoded else ""
    return f"reward {figures['reward']:.4f} ({decoded:g}{of} samples)  "
