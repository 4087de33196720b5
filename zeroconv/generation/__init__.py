"""From a prompt and hints to pictures: guidance, sampling, and the whole of it."""

from __future__ import annotations

from typing import Any

from zeroconv.generation.adapters import ImagePrompt, ReferencePicture
from zeroconv.generation.control import Control
from zeroconv.generation.guidance import MODES, RULES, combine, connection_scales, controls_uncond
from zeroconv.generation.pipeline import generate
from zeroconv.generation.samplers.names import SCHEDULERS
from zeroconv.generation.samplers.schedules import SCHEDULES
from zeroconv.generation.upscaling import upscale
from zeroconv.renamed import old_name

__all__ = [
    "MODES",
    "RULES",
    "SCHEDULERS",
    "SCHEDULES",
    "Control",
    "ImagePrompt",
    "ReferencePicture",
    "combine",
    "connection_scales",
    "controls_uncond",
    "generate",
    "upscale",
]


def __getattr__(name: str) -> Any:
    return old_name(__name__, name)
