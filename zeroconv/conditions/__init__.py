"""Conditions: how a hint is drawn, resized, mirrored and compared. Pure pictures; no model is known here."""

from __future__ import annotations

from zeroconv.conditions.registry import CONDITIONS, PAPER, Condition, annotate, as_picture, find
from zeroconv.conditions.resizing import resize_hint
from zeroconv.conditions.scores import edge_f1

__all__ = ["CONDITIONS", "PAPER", "Condition", "annotate", "as_picture", "edge_f1", "find", "resize_hint"]
