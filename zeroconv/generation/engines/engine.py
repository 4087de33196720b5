"""The interface of an engine, and torch, which computes as Python says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from zeroconv.generation.engines.step import Step

Compute = Callable[[Step], Tensor]


class Engine(Protocol):
    """Of one batch: it may keep what does not change from step to step."""

    name: str
    backbone: Any

    def evaluate(self, compute: Compute, step: Step) -> Tensor:
        """compute(step): the guided output (N, C, h, w). What `step.saving` keeps for later steps
        is kept there.
        """

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) → pictures (N, 3, H, W), float32 in [0, 1]. Raises UserError where
        they are no numbers.
        """


class Torch:
    """Every operation is called when Python comes to it."""

    name = "torch"

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    def evaluate(self, compute: Compute, step: Step) -> Tensor:
        return compute(step)

    def decode(self, z: Tensor) -> Tensor:
        return self.backbone.decode_latents(z)
