"""Opening pictures: the one place that does it, for files, bytes, arrays, tensors and PIL
pictures.
"""

from __future__ import annotations

from zeroconv.pictures.arrays import to_numbers
from zeroconv.pictures.fitting import RESIZE_MODES, Fit, ResizeMode, fit_into, resize_mode
from zeroconv.pictures.levels import alpha_of
from zeroconv.pictures.loading import Loaded, Note, load, picture_size, warn
from zeroconv.pictures.roles import (
    UNKNOWN,
    HintRule,
    hint_to_rgb,
    note_transparent,
    open_alpha,
    open_hint,
    open_mask,
    open_picture,
    opened_hint,
)
from zeroconv.pictures.sources import FORMATS, MAX_PIXELS, PICTURE_SUFFIXES, Source, max_pixels

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "RESIZE_MODES",
    "UNKNOWN",
    "Fit",
    "HintRule",
    "Loaded",
    "Note",
    "ResizeMode",
    "Source",
    "alpha_of",
    "fit_into",
    "hint_to_rgb",
    "load",
    "max_pixels",
    "note_transparent",
    "open_alpha",
    "open_hint",
    "open_mask",
    "open_picture",
    "opened_hint",
    "picture_size",
    "resize_mode",
    "to_numbers",
    "warn",
]
