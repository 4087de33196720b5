"""The embedded world: rendered scenes with exact ground truth, and real sticker art. Pure data, no
model.
"""

from __future__ import annotations

from zeroconv.playroom.captions import all_captions, caption_of, phrase
from zeroconv.playroom.people import KEYPOINTS
from zeroconv.playroom.scene import Scene, render, render_image, render_many, render_spec
from zeroconv.playroom.world import (
    ACTIONS,
    CLASSES,
    COLOURS,
    FLOORS,
    KINDS,
    SPLITS,
    WALLS,
    ObjectSpec,
    SceneSpec,
    sample_scene,
    split_seeds,
)

__all__ = [
    "ACTIONS",
    "CLASSES",
    "COLOURS",
    "FLOORS",
    "KEYPOINTS",
    "KINDS",
    "SPLITS",
    "WALLS",
    "ObjectSpec",
    "Scene",
    "SceneSpec",
    "all_captions",
    "caption_of",
    "phrase",
    "render",
    "render_image",
    "render_many",
    "render_spec",
    "sample_scene",
    "split_seeds",
]
