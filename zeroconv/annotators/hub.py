"""Depth, normals and classes of photographs by `transformers` models, from a folder or a hub id, loaded when used."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import nn

from zeroconv.errors import UserError


@torch.no_grad()
def depth(image: ndarray, model: str) -> ndarray:
    """Picture (H, W, 3) uint8 RGB → inverse depth (H, W) float32 of unknown scale, larger is nearer."""
    net, processor = _load("AutoModelForDepthEstimation", model)
    out = net(**processor(images=Image.fromarray(image), return_tensors="pt")).predicted_depth
    shape = image.shape[:2]
    found = nn.functional.interpolate(out[None].float(), shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    # most such models give inverse depth; those trained for metres say so
    metric = getattr(net.config, "depth_estimation_type", "relative") == "metric"
    return (1 / np.maximum(found, 1e-3)).astype(np.float32) if metric else found


def normal(image: ndarray, model: str, relief: float = 1.0) -> ndarray:
    """Unit normals (H, W, 3) from a depth model, x right, y up, z to the viewer; see `normals_of`."""
    return normals_of(depth(image, model), relief)


def normals_of(inverse_depth: ndarray, relief: float = 1.0) -> ndarray:
    """Normals of the surface z = relief · (inverse depth in shares of its range), picture's longer side = 1.

    Inverse depth has no unit, so neither have these slopes: `relief` chooses how steep they look.
    """
    d = inverse_depth.astype(np.float64)
    d = relief * (d - d.min()) / max(float(d.max() - d.min()), 1e-9)
    down, right = np.gradient(d * max(d.shape))
    vectors = np.stack([-right, down, np.ones_like(d)], -1)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@torch.no_grad()
def segmentation(image: ndarray, model: str) -> tuple[ndarray, list[str]]:
    """Class ids (H, W) uint8, and the classes' names; by a semantic or a universal segmentation model."""
    net, processor = _load("AutoModelForSemanticSegmentation", model, "AutoModelForUniversalSegmentation")
    options = {"task_inputs": ["semantic"]} if "oneformer" in type(net).__name__.lower() else {}
    out = net(**processor(images=Image.fromarray(image), return_tensors="pt", **options))
    classes = processor.post_process_semantic_segmentation(out, target_sizes=[image.shape[:2]])[0]
    names = [str(net.config.id2label[i]) for i in sorted(net.config.id2label)]
    if len(names) > 255:
        raise UserError(f"{model} knows {len(names)} classes; a class map holds 255 at most.")
    return classes.numpy().astype(np.uint8), names


@lru_cache(maxsize=2)
def _load(kind: str, model: str, other: str | None = None) -> tuple[Any, Any]:
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(model)
        if other and "oneformer" in type(processor).__name__.lower():
            processor = transformers.AutoProcessor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UserError(f"{model} is no annotator that can be loaded ({_first(error)}).") from error
    for name in (kind, other):
        if name is None:
            continue
        try:
            return getattr(transformers, name).from_pretrained(model).eval(), processor
        except (OSError, ValueError) as error:
            reason = _first(error)
    raise UserError(f"{model} is no model for this condition ({reason}).")


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
