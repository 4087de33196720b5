"""Layouts of weights: reading them safely, renaming them exactly, and telling a config from the
shapes.

This floor knows files and names, no model: backbones and controls read their weights through it.
"""

from __future__ import annotations

from zeroconv.checkpoints.controls.controlnet import (
    diffusers_to_original,
    layout_of,
    original_to_diffusers,
)
from zeroconv.checkpoints.convert import convert
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.infer import infer_config
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.checkpoints.strict import check_strict, load_strict

__all__ = [
    "check_strict",
    "convert",
    "diffusers_to_original",
    "identify",
    "infer_config",
    "layout_of",
    "load_strict",
    "original_to_diffusers",
    "read_state_dict",
]
