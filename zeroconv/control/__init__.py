"""What this project exists for: the trainable copy, its hint encoders and its connections."""

from __future__ import annotations

from zeroconv.control.connections import CONNECTIONS, LiteEncoder, make_connection
from zeroconv.control.controlnet import ControlNet
from zeroconv.control.families import new_control
from zeroconv.control.hint import HINT_ENCODERS, PaperHintEncoder, ReleasedHintEncoder
from zeroconv.control.net import Net, ResidualNet, is_additive, is_net
from zeroconv.control.union import ControlNetUnion

__all__ = [
    "CONNECTIONS",
    "HINT_ENCODERS",
    "ControlNet",
    "ControlNetUnion",
    "LiteEncoder",
    "Net",
    "PaperHintEncoder",
    "ReleasedHintEncoder",
    "ResidualNet",
    "is_additive",
    "is_net",
    "make_connection",
    "new_control",
]
