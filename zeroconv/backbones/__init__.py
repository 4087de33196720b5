"""The frozen text-to-image model."""

from __future__ import annotations

from zeroconv.backbones.encoder import UNetEncoder
from zeroconv.backbones.loading.load import load_backbone
from zeroconv.backbones.process import Diffusion, Flow, Process, make_process
from zeroconv.backbones.protocol import (
    Backbone,
    Connection,
    Encoder,
    SplitBackbone,
    TextStates,
    is_split,
)
from zeroconv.backbones.unet import UNetBackbone

__all__ = [
    "Backbone",
    "Connection",
    "Diffusion",
    "Encoder",
    "Flow",
    "Process",
    "SplitBackbone",
    "TextStates",
    "UNetBackbone",
    "UNetEncoder",
    "is_split",
    "load_backbone",
    "make_process",
]
