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
    arrays["fuse/vars/0"], arrays["fuse/vars/1"] = rng.normal(0, 1, (1, 1, 5, 1)), rng.normal(0, 1, 1)
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


def test_the_first_side_output_is_the_one_written_out(tmp_path: Path) -> None:
    arrays = write(tmp_path / "hed.h5")
    arrays["fuse/vars/0"][0, 0, :, 0] = (1, 0, 0, 0, 0)  # of the five, the first alone
    with h5py.File(tmp_path / "hed.h5", "a") as file:
        file["fuse/vars/0"][...] = arrays["fuse/vars/0"]
    image = np.random.default_rng(1).integers(0, 256, (13, 10, 3), np.uint8)
    x = image[..., ::-1] - np.array(MEANS)
    for number in ("", "_1"):
        name = f"block1/layers/conv2d{number}/vars"
        x = np.maximum(0, convolve(x, arrays[f"{name}/0"], arrays[f"{name}/1"]))
    side = convolve(x, arrays["dsn1/vars/0"], arrays["dsn1/vars/1"])[..., 0] + arrays["fuse/vars/1"]
    expected = 255 / (1 + np.exp(-side))
    assert np.abs(softedge(image, tmp_path / "hed.h5") - expected).max() <= 1


def test_every_size_comes_back_and_every_side_counts(tmp_path: Path) -> None:
    write(tmp_path / "all.h5", 3)
    state = load_hed(tmp_path / "all.h5")
    x = torch.randn(1, 3, 37, 21, generator=torch.Generator().manual_seed(0)) * 50
    found = hed(x, state)
    assert found.shape == (1, 37, 21) and 0 <= found.min() < found.max() <= 1
    for block in range(1, 6):
        changed = {**state, f"dsn{block}.bias": state[f"dsn{block}.bias"] + 1}
        assert not torch.equal(hed(x, changed), found)


def test_another_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.h5").write_bytes(b"no")
    with pytest.raises(UserError, match="not HED's weights"):
        load_hed(tmp_path / "no.h5")


def test_a_large_picture_is_read_small_and_comes_back_in_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "large.h5", 5)
    smooth = cv2.resize(np.random.default_rng(2).integers(0, 256, (6, 9, 3), np.uint8), (90, 60))
    small = softedge(cv2.resize(smooth, (45, 30), interpolation=cv2.INTER_AREA), tmp_path / "large.h5")
    asked: list[torch.Size] = []
    monkeypatch.setattr("zeroconv.annotators.hed.LONGEST", 45)
    monkeypatch.setattr("zeroconv.annotators.hed.hed", lambda x, state: asked.append(x.shape) or hed(x, state))
    found = softedge(smooth, tmp_path / "large.h5")
    assert asked == [(1, 3, 30, 45)] and found.shape == (60, 90)
    assert np.abs(found.astype(int) - cv2.resize(small, (90, 60))).max() <= 1
