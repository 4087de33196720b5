"""Several people's joints by PoseNet (Papandreou et al. 2018, PersonLab): heat maps, offsets,
displacements.

The network is the graph of a TensorFlow.js file, of two kinds of nodes; it is run here node by
node.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from zeroconv.conditions.figure import Figure
from zeroconv.errors import UserError
from zeroconv.stopping import stop_if_asked

STRIDE = 16
# COCO's seventeen points in PoseNet's order
PARTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
)
# from joint to joint; displacement i leads along chain i, forward or back
CHAIN = (
    (0, 1),
    (1, 3),
    (0, 2),
    (2, 4),
    (0, 5),
    (5, 7),
    (7, 9),
    (5, 11),
    (11, 13),
    (13, 15),
    (0, 6),
    (6, 8),
    (8, 10),
    (6, 12),
    (12, 14),
    (14, 16),
)
# PARTS in OpenPose's order; None: the neck
OPENPOSE = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
# pixels: pictures are scaled to it, then cut to a multiple of the stride and one more
LONG_SIDE = 513


@dataclass(frozen=True)
class Person:
    # (18, 3) float32 in OpenPose's order: x, y in pixels, confidence; 0 where not seen
    keypoints: ndarray
    score: float
    # points of `conditions.figure.Figure`, where they were asked for and seen
    left_hand: ndarray | None = None
    right_hand: ndarray | None = None
    face: ndarray | None = None

    @property
    def figure(self) -> Figure:
        return Figure(self.keypoints, self.left_hand, self.right_hand, self.face)


def people(
    image: ndarray, graph: Path, weights: Path, threshold: float = 0.25, most: int = 20
) -> list[Person]:
    """Picture (H, W, 3) uint8 RGB → its people, the surest first."""
    height, width = image.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = tuple(
        max(STRIDE + 1, round(side * scale / STRIDE) * STRIDE + 1) for side in (width, height)
    )
    pixels = (
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32)
        / 127.5
        - 1
    )
    maps = run_graph(torch.from_numpy(pixels).permute(2, 0, 1)[None], *load_graph(graph, weights))
    back = np.array([width / size[0], height / size[1]], np.float32)
    return [_openpose(joints, score, back) for joints, score in decode(maps, threshold, most)]


@lru_cache(maxsize=1)
def load_graph(path: Path, weights: Path) -> tuple[list[dict], dict[str, Tensor]]:
    """Nodes in order, and constants. Raises UserError for a file that is no such graph."""
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        raw, start, constants = weights.read_bytes(), 0, {}
        for group in model["weightsManifest"]:
            for entry in group["weights"]:
                count = int(np.prod(entry["shape"], dtype=np.int64))
                values = np.frombuffer(raw, np.float32, count, start).reshape(entry["shape"])
                constants[entry["name"]] = torch.from_numpy(values.copy())
                start += 4 * count
        nodes = [
            node
            for node in model["modelTopology"]["node"]
            if node["op"] not in ("Const", "Placeholder")
        ]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not PoseNet's graph with its weights ({error}); fetch it again."
        ) from error
    return nodes, constants


@torch.no_grad()
def run_graph(x: Tensor, nodes: list[dict], constants: dict[str, Tensor]) -> dict[str, ndarray]:
    """x (1, 3, H, W) in [−1, 1] → "heat" (17, h, w), "offset" (2, 17, h, w), "forward" and "back"
    (2, 16, h, w).

    Offsets and displacements are (y, x) in pixels.
    """
    values: dict[str, Tensor] = {}
    for node in nodes:
        stop_if_asked()
        source, kernel, bias = node["input"][:3]
        values[node["name"]] = _convolve(
            values.get(source, x), constants[kernel], constants[bias], node
        )
    named = {name: value[0].numpy() for name, value in values.items()}

    def pick(part: str) -> ndarray:
        return next(value for name, value in named.items() if part in name)

    heat = 1 / (1 + np.exp(-pick("heatmap")))
    pairs = {
        name: pick(part)
        for name, part in (("offset", "offset_"), ("forward", "_fwd"), ("back", "_bwd"))
    }
    return {"heat": heat, **{name: v.reshape(2, -1, *v.shape[1:]) for name, v in pairs.items()}}


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor, node: dict) -> Tensor:
    """A convolution with TensorFlow's SAME padding; kernels lie as (H, W, in, out), depthwise ones
    as (H, W, C, 1).
    """
    attributes = node["attr"]
    stride, dilation = (int(attributes[name]["list"]["i"][1]) for name in ("strides", "dilations"))
    depthwise = "Depthwise" in node["op"]
    weight = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    pads: list[int] = []
    for side, length in zip(reversed(x.shape[-2:]), reversed(weight.shape[-2:]), strict=True):
        reach = (length - 1) * dilation + 1
        total = max(0, (-(-side // stride) - 1) * stride + reach - side)
        pads += [total // 2, total - total // 2]
    x = nn.functional.pad(x, pads)
    groups = x.shape[1] if depthwise else 1
    x = nn.functional.conv2d(
        x, weight.contiguous(), bias, stride=stride, dilation=dilation, groups=groups
    )
    fused = [base64.b64decode(name) for name in attributes["fused_ops"]["list"]["s"]]
    return x.clamp(0, 6) if b"Relu6" in fused else x


# ---------------------------------------------------------------- from maps to people


def decode(
    maps: dict[str, ndarray], threshold: float = 0.25, most: int = 20, near: float = 20.0
) -> list[tuple[ndarray, float]]:
    """Joints (17, 3), y, x, confidence in the maps' pixels, and score, of each person.

    From the surest joint on, each becomes a person by following the displacements from joint to
    joint, unless it lies within `near` pixels of that joint of a person found before.
    """
    persons: list[tuple[ndarray, float]] = []
    for joint, row, column in _peaks(maps["heat"]):
        root = np.array([row, column]) * STRIDE + maps["offset"][:, joint, row, column]
        if any(np.hypot(*(person[joint, :2] - root)) < near for person, _ in persons):
            continue
        person = _follow(joint, root, maps)
        taken = [p for p, _ in persons]
        new_joints = [
            confidence
            for part, (y, x, confidence) in enumerate(person)
            if all(np.hypot(y - p[part, 0], x - p[part, 1]) > near for p in taken)
        ]
        score = float(sum(new_joints) / len(PARTS))
        if score > threshold:
            persons.append((person, score))
        if len(persons) == most:
            break
    return sorted(persons, key=lambda item: -item[1])


def _peaks(heat: ndarray, threshold: float = 0.5) -> list[tuple[int, int, int]]:
    """(joint, row, column) of cells above `threshold` that no neighbour exceeds, the surest
    first.
    """
    padded = torch.from_numpy(heat)[None]
    highest = nn.functional.max_pool2d(padded, 3, 1, 1)[0].numpy()
    cells = np.argwhere((heat == highest) & (heat > threshold))
    return [tuple(cell) for cell in sorted(cells.tolist(), key=lambda c: -heat[tuple(c)])]  # type: ignore[misc]


def _follow(joint: int, root: ndarray, maps: dict[str, ndarray]) -> ndarray:
    heat = maps["heat"]
    person = np.zeros((len(PARTS), 3), np.float32)
    person[joint] = (*root, heat[(joint, *_cell(root, heat))])
    done = {joint}
    # back towards the nose first, then forward to the limbs' ends
    steps = [(i, child, parent, "back") for i, (parent, child) in reversed(list(enumerate(CHAIN)))]
    steps += [(i, parent, child, "forward") for i, (parent, child) in enumerate(CHAIN)]
    for edge, source, target, kind in steps:
        if source not in done or target in done:
            continue
        target_at = (
            person[source, :2] + maps[kind][(slice(None), edge, *_cell(person[source, :2], heat))]
        )
        for _ in range(2):  # to the cell it points at, whose own offset says more exactly where
            cell = _cell(target_at, heat)
            target_at = np.array(cell) * STRIDE + maps["offset"][(slice(None), target, *cell)]
        person[target] = (*target_at, heat[(target, *_cell(target_at, heat))])
        done.add(target)
    return person


def _cell(target_at: ndarray, heat: ndarray) -> tuple[int, int]:
    row, column = np.rint(np.asarray(target_at) / STRIDE).astype(int)
    return int(np.clip(row, 0, heat.shape[1] - 1)), int(np.clip(column, 0, heat.shape[2] - 1))


def _openpose(joints: ndarray, score: float, back: ndarray, seen: float = 0.2) -> Person:
    """COCO's points (17, 3), y, x → OpenPose's (18, 3), x, y, the neck between the shoulders;
    unsure ones are 0.
    """
    points = np.zeros((18, 3), np.float32)
    for i, part in enumerate(OPENPOSE):
        if part is not None:
            points[i] = (joints[part, 1] * back[0], joints[part, 0] * back[1], joints[part, 2])
    points[1] = (points[2] + points[5]) / 2
    points[1, 2] = min(points[2, 2], points[5, 2])
    points[points[:, 2] < seen] = 0
    return Person(points, score)
