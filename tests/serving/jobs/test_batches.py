"""A picture does not depend on which others are computed with it, as docs/server.md says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import zeroconv
from zeroconv.backbones import load_backbone
from zeroconv.baselines import load_net
from zeroconv.playroom import render

PROMPTS = ("a red ball", "a blue cube on a wooden floor", "a person", "a green cone")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("controlled", [False, True], ids=["alone", "with a control"])
def test_pictures_of_a_batch_are_those_made_alone(dtype, controlled) -> None:
    """Single pixels by one level at most: sums are rounded in another order."""
    base = load_backbone("playroom", dtype=dtype)
    net = load_net("playroom-canny", base)
    scenes = [Image.fromarray(np.asarray(render(20_000 + i, size=128).image)) for i in range(4)]
    hints = [zeroconv.annotate("canny", scene) for scene in scenes]

    def made(numbers: list[int]) -> list[np.ndarray]:
        controls = [zeroconv.Control(net, [hints[i] for i in numbers])] if controlled else []
        pictures = zeroconv.generate(
            base, [PROMPTS[i] for i in numbers], controls, seed=numbers, steps=8, batch_size=4
        )
        return [np.asarray(picture).astype(int) for picture in pictures]

    together = made([0, 1, 2, 3])
    for number, picture in enumerate(together):
        (alone,) = made([number])
        difference = np.abs(picture - alone).max(-1)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.002
