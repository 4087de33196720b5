"""HED: the network by hand at small widths, its Keras file, its size of output."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from zeroconv.annotators.hed import CONVOLUTIONS, MEANS, hed, load_hed, softedge
from zeroconv.errors import UserError

WIDTHS = (4, 5, 6, 7, 8)


def write(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A file in Keras' layout with random weights, and these weights."""
    rng = np.random.default_rng(seed)
    arrays = {}
    before = 3
    for block, (count, width) in enumerate(zip(CONVOLUTIONS, WIDTHS, strict=True), start=1):
        for number in range(count):
            layer = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
            arrays[f"{layer}/vars/0"] = rng.normal(0, (9 * before) ** -0.5, (3, 3, before, width))
            arrays[f"{layer}/vars/1"] = rng.normal(0, 0.1, width)
            before = width
        arrays[f"dsn{block}/vars/0"], arrays[f"dsn{block}/vars/1"] = (
            rng.normal(0, 1, (1, 1, width, 1)),
            rng.normal(0, 1, 1),
        )
    arrays["fuse/vars/0"], arrays["fuse/vars/1"] = (
        rng.normal(0, 1, (1, 1, 5, 1)),
        rng.normal(0, 1, 1),
    )
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype(np.float32)
    return arrays


def convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(H, W, C) with (kh, kw, C, D), zeros outside: sums written out."""
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    out = np.zeros((*x.shape[:2], kernel.shape[3])) + bias
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j]
    return out


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_side_output_is_the_one_written_out(tmp_path: Path, side: int) -> None:
    """On odd sides: pooling keeps the last row and column, enlarging takes pixels for areas (as
    OpenCV does).
    """
    arrays = write(tmp_path / "hed.h5")
    with h5py.File(tmp_path / "hed.h5", "a") as file:  # of the five, one alone
        file["fuse/vars/0"][...] = np.eye(5)[side - 1].reshape(1, 1, 5, 1)
    image = np.random.default_rng(1).integers(0, 256, (13, 11, 3), np.uint8)
    x = image[..., ::-1] - np.array(MEANS)
    for block in range(1, side + 1):
        if block > 1:
            odd = np.pad(
                x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)), constant_values=-np.inf
            )
            x = np.maximum.reduce([odd[i::2, j::2] for i in (0, 1) for j in (0, 1)])
        for number in ("", "_1", "_2")[: CONVOLUTIONS[block - 1]]:
            name = f"block{block}/layers/conv2d{number}/vars"
            x = np.maximum(0, convolve(x, arrays[f"{name}/0"], arrays[f"{name}/1"]))
    convolved = convolve(x, arrays[f"dsn{side}/vars/0"], arrays[f"dsn{side}/vars/1"])[..., 0]
    logits = cv2.resize(convolved, (11, 13), interpolation=cv2.INTER_LINEAR) + arrays["fuse/vars/1"]
    assert np.abs(softedge(image, tmp_path / "hed.h5") - 255 / (1 + np.exp(-logits))).max() <= 1


def test_every_size_comes_back_and_every_side_counts(tmp_path: Path) -> None:
    write(tmp_path / "all.h5", 3)
    state = load_hed(tmp_path / "all.h5")
    x = torch.randn(1, 3, 37, 21, generator=torch.Generator().manual_seed(0)) * 50
    edges = hed(x, state)
    assert edges.shape == (1, 37, 21) and 0 <= edges.min() < edges.max() <= 1
    for block in range(1, 6):
        changed = {**state, f"dsn{block}.bias": state[f"dsn{block}.bias"] + 1}
        assert not torch.equal(hed(x, changed), edges)


def test_hed_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.h5").write_bytes(b"no")
    with pytest.raises(UserError, match="not HED's weights"):
        load_hed(tmp_path / "no.h5")


def test_a_large_picture_is_read_small_and_comes_back_in_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "large.h5", 5)
    smooth = cv2.resize(np.random.default_rng(2).integers(0, 256, (6, 9, 3), np.uint8), (90, 60))
    small = softedge(
        cv2.resize(smooth, (45, 30), interpolation=cv2.INTER_AREA), tmp_path / "large.h5"
    )
    asked: list[torch.Size] = []

    def watched(x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        asked.append(x.shape)
        return hed(x, state)

    monkeypatch.setattr("zeroconv.annotators.hed.LONGEST", 45)
    monkeypatch.setattr("zeroconv.annotators.hed.hed", watched)
    edges = softedge(smooth, tmp_path / "large.h5")
    assert asked == [(1, 3, 30, 45)] and edges.shape == (60, 90)
    assert np.abs(edges.astype(int) - cv2.resize(small, (90, 60))).max() <= 1
