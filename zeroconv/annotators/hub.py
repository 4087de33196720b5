"""Depth, normals and classes of photographs by `transformers` models, from a folder or a hub id,
loaded when used.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from zeroconv.annotators.placing import placed
from zeroconv.annotators.pretrained import load_part, load_pretrained
from zeroconv.errors import UserError

# these give metres and no setting says so; the other depth models of `transformers` give inverse
# depth, or say
METRES = ("depth_pro", "glpn", "tipsv2_dpt", "zoedepth")


def depth(image: ndarray, model: str) -> ndarray:
    """Picture (H, W, 3) uint8 RGB → inverse depth (H, W) float32 of unknown scale, larger is
    nearer.

    Metres of a metric model are inverted. Raises UserError for what is no depth model.
    """
    return _inverse_depth(image, *_load(model, "AutoModelForDepthEstimation"))


def _inverse_depth(image: ndarray, net: Any, processor: Any) -> ndarray:
    read = _read(image, net, processor, "depth_estimation")["predicted_depth"]
    values = read.float().cpu().numpy().reshape(image.shape[:2])
    return (
        (1 / np.maximum(values, 1e-3)).astype(np.float32) if _gives_metres(net.config) else values
    )


@torch.no_grad()
def _read(image: ndarray, net: Any, processor: Any, task: str) -> dict[str, Any]:
    """What the model gives, in the picture's size."""
    from transformers.utils import is_torchvision_available

    if net.config.model_type == "zoedepth" and not is_torchvision_available():
        raise UserError(
            "ZoeDepth's output cannot be read without torchvision; pip install torchvision."
        )
    out = net(**placed(net, processor(images=Image.fromarray(image), return_tensors="pt")))
    finish, size = getattr(processor, f"post_process_{task}"), [image.shape[:2]]
    # a processor that pads pictures takes its border off again, where it is told their size
    sizes = {"source_sizes": size} if "source_sizes" in inspect.signature(finish).parameters else {}
    return finish(out, target_sizes=size, **sizes)[0]


def _gives_metres(config: Any) -> bool:
    """Whether a depth model's larger values are farther."""
    # DPT on MiDaS' backbones gives inverse depth; on DINOv2's it was trained for metres (NYU,
    # KITTI)
    backbone = getattr(getattr(config, "backbone_config", None), "model_type", "")
    declared = getattr(config, "depth_estimation_type", "relative") == "metric"
    return (
        declared
        or config.model_type in METRES
        or (config.model_type == "dpt" and backbone == "dinov2")
    )


def normal(image: ndarray, model: str, relief: float = 1.0) -> ndarray:
    """Picture (H, W, 3) uint8 RGB → unit normals (H, W, 3) float32, x right, y up, z to the viewer.

    By a normal model (`facing_viewer`), else from a depth model (`normals_of`). Raises UserError
    where it is neither.
    """
    net, processor = _load(model, "AutoModelForNormalEstimation", "AutoModelForDepthEstimation")
    if "Normal" not in type(net).__name__:
        return normals_of(_inverse_depth(image, net, processor), relief)
    values = _read(image, net, processor, "normal_estimation")["normals"].float().cpu().numpy()
    return facing_viewer(np.moveaxis(values, 0, -1))


def facing_viewer(vectors: ndarray) -> ndarray:
    """Normals (H, W, 3) in a camera's axes → unit vectors, x right, y up, z to the viewer.

    What is seen faces the camera. If z is negative on average, the axes are computer vision's, y
    down and z away, and both are turned round; else they are taken as they are.
    """
    turned = vectors * ((1, -1, -1) if vectors[..., 2].mean() < 0 else (1, 1, 1))
    return (turned / np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-9)).astype(
        np.float32
    )


def normals_of(inverse_depth: ndarray, relief: float = 1.0) -> ndarray:
    """Normals of the surface z = relief · (inverse depth in shares of its range), picture's longer
    side = 1.

    n = (−∂z/∂x, −∂z/∂y, 1), normalised, with y up, by central differences. Inverse depth has no
    unit, so neither have these slopes: `relief` chooses how steep they look.
    """
    d = inverse_depth.astype(np.float64)
    d = relief * (d - d.min()) / max(float(d.max() - d.min()), 1e-9)
    down, right = np.gradient(d * max(d.shape))
    vectors = np.stack([-right, down, np.ones_like(d)], -1)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@torch.no_grad()
def segmentation(image: ndarray, model: str) -> tuple[ndarray, list[str]]:
    """Picture (H, W, 3) uint8 RGB → class ids (H, W), uint8 or above 256 classes uint16, and the
    classes' names.

    By a semantic or a universal segmentation model. Raises UserError where it is neither.
    """
    net, processor = _load(
        model, "AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"
    )
    options = {"task_inputs": ["semantic"]} if net.config.model_type == "oneformer" else {}
    inputs = processor(images=Image.fromarray(image), return_tensors="pt", **options)
    out = net(**placed(net, inputs))
    classes = processor.post_process_semantic_segmentation(out, target_sizes=[image.shape[:2]])[0]
    names = [str(net.config.id2label[i]) for i in sorted(net.config.id2label)]
    return classes.cpu().numpy().astype(np.uint8 if len(names) <= 256 else np.uint16), names


@lru_cache(maxsize=2)
def _load(model: str, *kinds: str) -> tuple[Any, Any]:
    """The model, as the first of the `transformers` classes that knows its kind, and its
    processor.
    """
    import transformers

    processor = load_part(transformers.AutoImageProcessor, model, "annotator")
    if "oneformer" in type(processor).__name__.lower():  # its task is a text
        processor = load_part(transformers.AutoProcessor, model, "annotator")
    config = load_part(transformers.AutoConfig, model, "annotator")
    for kind in kinds:
        if _is_a(config, getattr(transformers, kind, None)):
            return load_pretrained(getattr(transformers, kind), model, "annotator"), processor
    wanted = " or ".join(kind.removeprefix("AutoModelFor") for kind in kinds)
    raise UserError(
        f"{model} is a {config.model_type} model of another kind than {wanted}; name one of that "
        "kind."
    )


def _is_a(config: Any, kind: Any) -> bool:
    """Whether the file holds such a model: its own word (`architectures`), or else its family."""
    if kind is None or type(config) not in kind._model_mapping:
        return False
    made = kind._model_mapping[type(config)]
    names = {c.__name__ for c in (made if isinstance(made, list | tuple) else [made])}
    return not config.architectures or bool(names & set(config.architectures))
