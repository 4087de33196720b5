"""What this project exists for: the trainable copy, its hint encoders and its connections."""

from __future__ import annotations

from zeroconv.control.connections import CONNECTIONS, LiteEncoder, make_connection
from zeroconv.control.controlnet import ControlNet
from zeroconv.control.hint import HINT_ENCODERS, PaperHintEncoder, ReleasedHintEncoder
from zeroconv.control.net import Net, ResidualNet, is_net

__all__ = [
    "CONNECTIONS",
    "HINT_ENCODERS",
    "ControlNet",
    "LiteEncoder",
    "Net",
    "PaperHintEncoder",
    "ReleasedHintEncoder",
    "ResidualNet",
    "is_net",
    "make_connection",
]
