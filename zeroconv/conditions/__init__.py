"""Conditions: how a hint is drawn, resized, mirrored and compared. Pure pictures; no model is known
here.
"""

from __future__ import annotations

from zeroconv.conditions.condition import Condition
from zeroconv.conditions.hints import annotate, as_picture, brings_hole, hint_rule, open_hint
from zeroconv.conditions.lookup import find, known, to_draw
from zeroconv.conditions.registry import CONDITIONS, PAPER
from zeroconv.conditions.resizing import resize_hint
from zeroconv.conditions.scores import edge_f1

__all__ = [
    "CONDITIONS",
    "PAPER",
    "Condition",
    "annotate",
    "as_picture",
    "brings_hole",
    "edge_f1",
    "find",
    "hint_rule",
    "known",
    "open_hint",
    "resize_hint",
    "to_draw",
]
