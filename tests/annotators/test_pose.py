"""PoseNet's decoding on maps made from people that are known, and its graph's convolutions by
hand.
"""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from zeroconv.annotators import read
from zeroconv.annotators.pose import (
    CHAIN,
    OPENPOSE,
    PARTS,
    STRIDE,
    _convolve,
    decode,
    load_graph,
    people,
)
from zeroconv.annotators.weights import home
from zeroconv.errors import UserError
from zeroconv.playroom import KEYPOINTS


def maps_of(persons: list[np.ndarray], rows: int = 20, columns: int = 24) -> dict[str, np.ndarray]:
    """What a perfect network would say of people (17, 2), y, x: joints in their nearest cells."""
    heat = np.full((17, rows, columns), 0.01)
    offset = np.zeros((2, 17, rows, columns))
    forward, back = np.zeros((2, 2, 16, rows, columns))
    y, x = np.mgrid[:rows, :columns] * STRIDE
    for number, person in enumerate(persons):
        for joint, (py, px) in enumerate(person):
            apart = np.maximum(abs(y - py), abs(x - px))
            near = apart <= STRIDE
            heat[joint] = np.maximum(
                heat[joint], np.where(near, 0.95 - 0.05 * number - apart / 100, 0)
            )
            offset[0, joint][near], offset[1, joint][near] = (py - y)[near], (px - x)[near]
        for edge, (a, b) in enumerate(CHAIN):
            for field, source, target in ((forward, a, b), (back, b, a)):
                near = np.maximum(abs(y - person[source, 0]), abs(x - person[source, 1])) <= STRIDE
                field[0, edge][near] = person[target, 0] - person[source, 0]
                field[1, edge][near] = person[target, 1] - person[source, 1]
    return {"heat": heat, "offset": offset, "forward": forward, "back": back}


def figure(left: float, top: float) -> np.ndarray:
    """A standing person of 17 joints (y, x), about 200 pixels high."""
    at = {
        "nose": (20, 40),
        "eye": (14, 6),
        "ear": (16, 12),
        "shoulder": (50, 25),
        "elbow": (80, 32),
        "wrist": (110, 34),
        "hip": (110, 16),
        "knee": (155, 18),
        "ankle": (200, 19),
    }
    joints = []
    for name in PARTS:
        side, _, part = name.rpartition(" ")
        y, dx = at[part]
        joints.append(
            (top + y, left + (40 if not side else 40 + dx if side == "left" else 40 - dx))
        )
    return np.array(joints, float)


def test_pose_of_two_people_is_parted_and_every_joint_is_exact():
    first, second = figure(20.3, 30.7), figure(190.1, 60.2)
    persons = decode(maps_of([first, second]))
    assert len(persons) == 2 and persons[0][1] > persons[1][1] > 0.5
    for (person, _), truth in zip(persons, (first, second), strict=True):
        assert np.abs(person[:, :2] - truth).max() < 1e-3


def test_a_displacement_that_misses_is_mended_by_the_offset_where_it_lands():
    truth = figure(30.3, 60.7)
    maps = maps_of([truth])
    for field in ("forward", "back"):  # six pixels off, as a network is
        maps[field] = maps[field] + np.where(maps[field] != 0, 6.0, 0.0)
    ((person, _),) = decode(maps)
    assert np.abs(person[:, :2] - truth).max() < 1e-3


def test_pose_has_nobody_where_nothing_is_sure():
    assert decode({**maps_of([figure(20, 30)]), "heat": np.full((17, 20, 24), 0.3)}) == []
    assert len(decode(maps_of([figure(20, 30), figure(24, 32)]))) == 1  # the same one twice


def test_openposes_order_is_ours():
    for name, part in zip(KEYPOINTS, OPENPOSE, strict=True):
        assert name == ("neck" if part is None else PARTS[part])


def test_convolutions_pad_as_tensorflow_does():
    def node(op: str, stride: int) -> dict:
        relu = base64.b64encode(b"Relu6").decode()
        lists = {"strides": [1, stride, stride, 1], "dilations": [1, 1, 1, 1]}
        attributes = {
            name: {"list": {"i": [str(v) for v in values]}} for name, values in lists.items()
        }
        return {"op": op, "attr": {**attributes, "fused_ops": {"list": {"s": [relu]}}}}

    ones = torch.ones(3, 3, 1, 1)
    x = torch.ones(1, 1, 5, 5)
    same = _convolve(x, ones, torch.zeros(1), node("_FusedConv2D", 1))[0, 0]
    assert same.shape == (5, 5) and same[0, 0] == 4 and same[2, 2] == 6  # nine, cut off at six
    # stride 2 on an even side: SAME pads only below and to the right
    half = _convolve(torch.ones(1, 1, 4, 4), ones, torch.zeros(1), node("_FusedConv2D", 2))[0, 0]
    assert half.tolist() == [[6, 6], [6, 4]]
    two = torch.stack([torch.ones(5, 5), 0.1 * torch.ones(5, 5)])[None]
    depthwise = _convolve(
        two, torch.ones(3, 3, 2, 1), torch.tensor([0.0, 1.0]), node("FusedDepthwiseConv2dNative", 1)
    )
    assert depthwise[0, :, 2, 2].tolist() == pytest.approx([6, 1.9])


def test_a_graph_is_read_and_run_from_its_files(tmp_path):
    """A network of four heads on one strided convolution, in a TensorFlow.js file's layout."""
    rng = np.random.default_rng(0)
    arrays = {"k": rng.normal(0, 0.1, (3, 3, 3, 8)), "b": np.zeros(8)}
    heads = {"heatmap_2": 17, "offset_2": 34, "displacement_fwd_2": 32, "displacement_bwd_2": 32}
    attributes = {
        "strides": {"list": {"i": ["1", "16", "16", "1"]}}, "dilations": {"list": {"i": ["1"] * 4}},
        "fused_ops": {"list": {"s": []}},
    }  # fmt: skip
    nodes: list[dict] = [{"name": "image", "op": "Placeholder"}]
    nodes.append(
        {"name": "stem", "op": "_FusedConv2D", "input": ["image", "k", "b"], "attr": attributes}
    )
    one = {**attributes, "strides": {"list": {"i": ["1"] * 4}}}
    for name, channels in heads.items():
        arrays[f"{name}k"], arrays[f"{name}b"] = (
            np.zeros((1, 1, 8, channels)),
            np.full(channels, -9.0),
        )
        nodes.append(
            {
                "name": f"net/{name}/BiasAdd",
                "op": "_FusedConv2D",
                "input": ["stem", f"{name}k", f"{name}b"],
                "attr": one,
            }
        )
    weights = [{"name": n, "shape": list(a.shape), "dtype": "float32"} for n, a in arrays.items()]
    model = {
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": ["w.bin"], "weights": weights}],
    }
    (tmp_path / "g.json").write_text(json.dumps(model))
    (tmp_path / "w.bin").write_bytes(
        b"".join(a.astype(np.float32).tobytes() for a in arrays.values())
    )
    image = rng.integers(0, 256, (50, 70, 3), np.uint8)
    assert people(image, tmp_path / "g.json", tmp_path / "w.bin") == []
    (tmp_path / "w.bin").write_bytes(b"short")
    load_graph.cache_clear()
    with pytest.raises(UserError, match="fetch it again"):
        people(image, tmp_path / "g.json", tmp_path / "w.bin")


def test_two_astronauts_are_two_people_where_the_weights_are():
    """The real network, on scikit-image's astronaut twice side by side; the rest of this file needs
    no weights.
    """
    if not all((home() / "posenet" / f"posenet.{end}").is_file() for end in ("json", "bin")):
        pytest.skip("PoseNet has not been fetched; its graph and decoding are tested above")
    astronaut = data.astronaut()[:, :400]
    figures = read("pose", Image.fromarray(np.hstack([astronaut, astronaut])))
    assert len(figures) == 2
    left, right = sorted((person.keypoints for person in figures), key=lambda points: points[0, 0])
    for joint in (0, 1, 2, 5, 14, 15):  # nose, neck, shoulders, eyes
        assert left[joint, 2] > 0.5 and right[joint, 2] > 0.5
        assert np.abs(right[joint, :2] - left[joint, :2] - (400, 0)).max() < 10
    assert np.abs(left[0, :2] - (222, 124)).max() < 15  # the nose, by eye
    assert read("pose", Image.fromarray(data.coffee())) == []
