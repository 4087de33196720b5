"""The frozen text-to-image model."""

from __future__ import annotations

from zeroconv.backbones.encoder import UNetEncoder
from zeroconv.backbones.loading import load_backbone
from zeroconv.backbones.protocol import Backbone, Connection, Encoder, TextStates
from zeroconv.backbones.unet import UNetBackbone

__all__ = [
    "Backbone",
    "Connection",
    "Encoder",
    "TextStates",
    "UNetBackbone",
    "UNetEncoder",
    "load_backbone",
]
