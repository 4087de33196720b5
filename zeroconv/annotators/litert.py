"""TensorFlow Lite files, run by LiteRT, and the crops of pictures that they read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import ndarray

from zeroconv.errors import UserError

_lock = threading.Lock()  # an interpreter computes one thing at a time


def run(path: Path, pixels: ndarray) -> list[ndarray]:
    """pixels (H, W, 3) float32 in the network's own range → its outputs, in the file's order.

    Raises UserError without LiteRT, and for what is no such file.
    """
    with _lock:
        net = _load(path)
        net.set_tensor(net.get_input_details()[0]["index"], pixels[None].astype(np.float32))
        net.invoke()
        return [net.get_tensor(d["index"])[0].copy() for d in net.get_output_details()]


@lru_cache(maxsize=8)
def _load(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            "hands, faces and masks of people are read by LiteRT: "
            "pip install 'zeroconv[annotators]'."
        ) from error
    try:
        with _quiet():
            net = Interpreter(str(path), num_threads=1)
            net.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is not the network it should be ({' '.join(str(error).split())[:200]}); "
            "fetch it again."
        ) from error
    return net


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, nothing reaches stderr: LiteRT writes a line there for every network, in C++."""
    try:
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no stderr
        yield
        return
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def square(image: ndarray, centre: ndarray, side: float, angle: float, pixels: int) -> ndarray:
    """A square of the picture (H, W, 3) uint8 → (pixels, pixels, 3) float32 in [0, 1], black
    outside of it.

    centre: x, y; side in pixels; angle in radians, by which the square is turned clockwise.
    """
    matrix = to_crop(centre, side, angle, pixels)
    crop = cv2.warpAffine(image, matrix, (pixels, pixels), flags=cv2.INTER_AREA)
    return crop.astype(np.float32) / 255


def to_crop(centre: ndarray, side: float, angle: float, pixels: int) -> ndarray:
    """(2, 3): pixels of the picture → pixels of `square`'s crop."""
    scale = pixels / side
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, sin, 0], [-sin, cos, 0]])
    matrix[:, 2] = pixels / 2 - matrix[:, :2] @ np.asarray(centre, np.float64)
    return matrix


def from_crop(points: ndarray, centre: ndarray, side: float, angle: float, pixels: int) -> ndarray:
    """(N, 2) pixels of `square`'s crop → pixels of the picture."""
    matrix = to_crop(centre, side, angle, pixels)
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
