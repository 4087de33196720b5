"""Tiles cover a picture, share their noise, and leave no seam."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zeroconv.generation.tiles import Canvas, noise_at, starts


@pytest.mark.parametrize("length", [64, 72, 128, 200, 512, 1000])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_tiles_cover_everything_and_overlap(length: int, overlap: int) -> None:
    tops = starts(length, 64, overlap, 8)
    assert tops[0] == 0 and tops[-1] + 64 == max(64, length)
    assert all(top % 8 == 0 for top in tops)
    assert all(b - a <= 64 - overlap for a, b in itertools.pairwise(tops))


def test_tiles_share_their_noise() -> None:
    field = noise_at(3, 4, (0, 0, 40, 50))
    assert torch.equal(noise_at(3, 4, (7, 19, 20, 30)), field[:, 7:27, 19:49])
    assert not torch.equal(noise_at(4, 4, (0, 0, 40, 50)), field)
    many = noise_at(0, 4, (0, 0, 256, 256))
    assert abs(float(many.mean())) < 0.01 and abs(float(many.std()) - 1) < 0.01


def test_tiles_put_together_are_the_picture_without_a_seam() -> None:
    y, x = np.mgrid[:150, :200]
    picture = np.stack([x, y, (x + y) // 2], 2).astype(np.uint8)

    def joined(shift: int) -> np.ndarray:
        canvas = Canvas(150, 200)
        for i, top in enumerate((0, 48, 86)):
            row = canvas.row(top)
            for j, left in enumerate((0, 48, 96, 136)):
                tile = picture[top : top + 64, left : left + 64].astype(int)
                # each tile is brighter or darker than its neighbours
                row.put(left, np.clip(tile + shift * (-1) ** (i + j), 0, 255).astype(np.uint8))
            row.close()
        return canvas.pixels

    assert (joined(0) == picture).all()
    steps = np.abs(np.diff(joined(20).astype(int), axis=1)).max()
    assert steps <= 1 + 40 / 12 + 2  # fades over 12 pixels at least; not a step of 40
    steps = np.abs(np.diff(joined(20).astype(int), axis=0)).max()
    assert steps <= 1 + 40 / 16 + 2
