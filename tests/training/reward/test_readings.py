"""Differentiable readings: near the exact annotators, with right gradients, and telling a
picture's own hint from another's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroconv.conditions import CONDITIONS, annotate
from zeroconv.conditions.scores import edge_f1
from zeroconv.errors import UserError
from zeroconv.playroom import SPLITS, render_image
from zeroconv.training.reward import edges
from zeroconv.training.reward.registry import READINGS, ClosedForm, reading_of

CLOSED = [name for name, reading in READINGS.items() if not reading.needs_network]


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [render_image(seed, 128)[0] for seed in SPLITS["test"][:3]]


def tensor(pictures: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def hints(condition: str, scenes: list[np.ndarray]) -> Tensor:
    """(n, C, H, W) in [0, 1], by the exact annotator."""
    drawn = [CONDITIONS[condition].draw(scene) for scene in scenes]  # type: ignore[misc]
    channels = [d[None] if d.ndim == 2 else d.transpose(2, 0, 1) for d in drawn]
    return torch.from_numpy(np.stack(channels)).float() / 255


# F1 of the soft map above one half, exact and within a pixel
@pytest.mark.parametrize(
    ("condition", "exact", "near"), [("canny", 0.95, 0.99), ("scribble", 0.85, 0.97)]
)
def test_soft_lines_are_the_annotator_s(
    condition: str, exact: float, near: float, scenes: list[np.ndarray]
) -> None:
    read, wanted = getattr(edges, condition)(tensor(scenes)), hints(condition, scenes)
    maps = [((m[:, 0] > 0.5).byte() * 255).numpy() for m in (wanted, read)]
    for tolerance, least in ((0, exact), (1, near)):
        scores = [edge_f1(a, b, tolerance) for a, b in zip(*maps, strict=True)]
        assert np.mean(scores) > least


@pytest.mark.parametrize("condition", ["softedge", "lineart"])
def test_soft_maps_are_the_annotator_s(condition: str, scenes: list[np.ndarray]) -> None:
    read, wanted = getattr(edges, condition)(tensor(scenes)), hints(condition, scenes)
    assert np.corrcoef(read.numpy().ravel(), wanted.numpy().ravel())[0, 1] > 0.99
    assert (read - wanted).abs().mean() < 0.01


@pytest.mark.parametrize("condition", CLOSED)
def test_a_reading_prefers_the_picture_s_own_hint(condition: str, scenes: list[np.ndarray]) -> None:
    reading, given = READINGS[condition], hints(condition, scenes)
    pictures, weights = tensor(scenes), torch.ones(3, 1, 128, 128)
    own = reading.distances(pictures, given, weights)
    other = reading.distances(pictures, given.roll(1, 0), weights)
    assert own.shape == (3,)
    assert (own >= -1e-6).all()
    assert (other <= 1).all()
    assert own.mean() < 0.35 * other.mean()


@pytest.mark.parametrize("condition", CLOSED)
def test_a_reading_s_gradient_is_that_of_finite_differences(condition: str) -> None:
    reading = READINGS[condition]
    assert isinstance(reading, ClosedForm)
    draw = np.random.default_rng(5)
    smooth = torch.from_numpy(draw.uniform(0.2, 0.8, (2, 3, 6, 6)))
    pictures = torch.nn.functional.interpolate(smooth, (24, 24), mode="bicubic")
    given = torch.from_numpy(draw.uniform(0, 1, (2, reading.channels, 24, 24)))
    weights = torch.from_numpy(draw.uniform(0.5, 1, (2, 1, 24, 24)))

    def distance(x: Tensor) -> Tensor:
        return reading.distances(x, given, weights).sum()

    x = pictures.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(x), x)
    assert slope.abs().max() > 0
    for _ in range(3):
        way = torch.from_numpy(draw.standard_normal(pictures.shape))
        step = 1e-7 * way
        measured = (distance(pictures + step) - distance(pictures - step)) / 2e-7
        assert float((slope * way).sum()) == pytest.approx(float(measured), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("condition", ["canny", "lineart", "softedge"])
def test_where_weights_are_zero_nothing_counts(condition: str, scenes: list[np.ndarray]) -> None:
    reading, given = READINGS[condition], hints(condition, scenes)
    pictures, weights = tensor(scenes), torch.ones(3, 1, 128, 128)
    weights[..., 64:] = 0
    spoiled = given.clone()
    spoiled[..., 70:] = 1 - spoiled[..., 70:]
    a, b = (reading.distances(pictures, hint, weights) for hint in (given, spoiled))
    assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("condition", ["canny", "lineart", "softedge", "scribble", "lines"])
def test_a_blank_hint_of_a_blank_picture_is_no_distance(condition: str) -> None:
    pictures = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    blank, weights = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    distance = READINGS[condition].distances(pictures, blank, weights)
    distance.sum().backward()
    assert float(distance.detach()) < 0.5
    assert pictures.grad is not None
    assert pictures.grad.isfinite().all()


def test_every_condition_has_a_reading_and_others_are_refused() -> None:
    assert set(READINGS) == set(CONDITIONS)
    assert reading_of("control_v11p_sd15_canny") is READINGS["canny"]
    with pytest.raises(UserError, match=r"no.*'spiga'.*canny"):
        reading_of("spiga")


def test_hints_of_another_picture_are_drawn_as_annotate_draws_them(
    scenes: list[np.ndarray],
) -> None:
    """What the other tests compare with is what a user gets."""
    from PIL import Image

    drawn = np.asarray(annotate("canny", Image.fromarray(scenes[0])).convert("L"))
    assert np.array_equal(drawn, (hints("canny", scenes)[0, 0] * 255).byte().numpy())
