"""The four ways to place control, against the table of the paper and of the released code."""

from __future__ import annotations

import pytest
import torch

from zeroconv.backbones import Connection
from zeroconv.errors import UserError
from zeroconv.generation import MODES, combine, connection_weights, controls_uncond

SD = tuple(Connection(f"down.{i}", 320, scale) for i, scale in enumerate((1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8))) + (
    Connection("mid", 1280, 8),
)


def test_resolution_weights_are_64_over_the_blocks_size():
    sizes = [64 // connection.scale for connection in SD]
    assert connection_weights("resolution", SD) == [64 / size for size in sizes]


def test_guess_weights_are_those_of_the_released_code():
    weights = connection_weights("guess", SD)
    assert weights == [0.825 ** (12 - i) for i in range(13)]
    logspace = torch.logspace(-1, 0, 13).tolist()  # diffusers' form of the same
    assert all(abs(a / b - 1) < 0.006 for a, b in zip(weights, logspace, strict=True))


def test_plain_weights_and_placement():
    assert connection_weights("both", SD) == connection_weights("cond", SD) == [1.0] * 13
    assert [mode for mode in MODES if controls_uncond(mode)] == ["both"]


def test_combine_is_linear_in_the_scale():
    uncond, cond = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(combine(uncond, cond, 0.0), uncond)
    assert torch.allclose(combine(uncond, cond, 1.0), cond)
    assert torch.allclose(combine(uncond, cond, 7.5), uncond + 7.5 * (cond - uncond))


def test_unknown_mode_is_told():
    with pytest.raises(UserError, match="resolution"):
        connection_weights("strong", SD)
