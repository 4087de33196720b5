"""From a prompt and hints to pictures: guidance, sampling, and the whole of it."""

from __future__ import annotations

from zeroconv.generation.guidance import MODES, combine, connection_weights, controls_uncond
from zeroconv.generation.pipeline import Control, generate
from zeroconv.generation.sampling import SCHEDULERS

__all__ = ["MODES", "SCHEDULERS", "Control", "combine", "connection_weights", "controls_uncond", "generate"]
