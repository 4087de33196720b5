"""What this project exists for: the trainable copy, its hint encoders and its connections."""

from __future__ import annotations

from zeroconv.control.connections import CONNECTIONS, LiteEncoder, make_connection
from zeroconv.control.controlnet import ControlNet
from zeroconv.control.hint import HINT_ENCODERS, PaperHintEncoder, ReleasedHintEncoder

__all__ = [
    "CONNECTIONS",
    "HINT_ENCODERS",
    "ControlNet",
    "LiteEncoder",
    "PaperHintEncoder",
    "ReleasedHintEncoder",
    "make_connection",
]
