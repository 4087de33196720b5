"""What computes a denoising step and a decode: torch, or a graph that is compiled once
(`generate(engine=)`).
"""

from __future__ import annotations

from zeroconv.generation.engines.choice import ENGINES, check_engine, engine_for
from zeroconv.generation.engines.engine import Engine, Torch
from zeroconv.generation.engines.step import Step

__all__ = ["ENGINES", "Engine", "Step", "Torch", "check_engine", "engine_for"]
