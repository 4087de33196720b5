"""A second pass at a larger size."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.helpers.tiny import randomise_
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.image.hires import Hires

FEW = {"steps": 2, "cfg": 2.0, "output": "tensor"}


@pytest.fixture(scope="module")
def net(small):
    return randomise_(ControlNet.from_backbone(small, condition="canny"))


def hint() -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_hires_makes_larger_pictures_the_same_in_any_batch(small, upscaler):
    options = {**FEW, "hires": 1.5, "hires_upscaler": upscaler, "scheduler": "euler_a"}
    together = generate(small, ["a", "b"], batch_size=2, seed=3, **options)
    alone = generate(small, ["a", "b"], batch_size=1, seed=3, **options)
    assert together[0].shape == (3, 96, 96)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(together, alone, strict=True))


def test_hires_is_two_generations(small):
    """The first pass's latents enlarged, noised by the next draw, and taken up at the strength."""
    steps: list[tuple[int, int, torch.Tensor]] = []
    (made,) = generate(
        small, "a", seed=7, hires=2.0, hires_strength=0.5, hires_steps=4, scheduler="ddim",
        callback=lambda *seen: steps.append(seen), **FEW,
    )  # fmt: skip
    assert [(i, n) for i, n, _ in steps] == [(1, 2), (2, 2), (1, 2), (2, 2)]
    from zeroconv.generation.image.latents import Start
    from zeroconv.generation.samplers.names import make_scheduler
    from zeroconv.generation.sampling import denoise

    source = torch.Generator().manual_seed(7)
    torch.randn((4, 8, 8), generator=source)
    larger = torch.nn.functional.interpolate(steps[1][2], (16, 16), mode="bilinear")
    noise = torch.randn((4, 16, 16), generator=source)[None]
    cond, uncond = small.embed_text(["a"]), small.embed_text([""])
    with torch.inference_mode():
        z = denoise(
            small, Start(noise, larger, 0.5), cond, uncond, [], make_scheduler("ddim", small), 4,
            2.0, [source],
        )  # fmt: skip
        expected = small.decode_latents(z)[0]
    assert torch.allclose(made, expected, atol=1e-4)


def test_hires_controls_act_in_the_passes_they_are_for(small, net):
    seen: dict[str, list[torch.Tensor]] = {}
    for passes in ("none", "both", "low", "high"):
        steps: list[torch.Tensor] = []
        controls = [] if passes == "none" else [Control(net, _large(passes), passes=passes)]
        generate(
            small, "a", controls, hires=2.0, hires_strength=1.0, height=64, width=64,
            callback=lambda i, n, z, steps=steps: steps.append(z.clone()), **FEW,
        )  # fmt: skip
        seen[passes] = steps
    first, last = 1, 3
    assert torch.equal(seen["high"][first], seen["none"][first])
    assert not torch.equal(seen["low"][first], seen["none"][first])
    assert torch.equal(seen["low"][first], seen["both"][first])
    finals = [seen[passes][last] for passes in ("none", "both", "low", "high")]
    apart = [float((a - b).abs().max()) for i, a in enumerate(finals) for b in finals[:i]]
    assert min(apart) > 1e-4


def _large(passes: str):
    """As a picture it is resized to each pass."""
    from PIL import Image

    return Image.fromarray((hint().permute(1, 2, 0).numpy() * 255).astype(np.uint8))


def test_passes_without_hires_are_noted(small, net):
    with pytest.warns(UserWarning, match="passes of a control change nothing"):
        generate(small, "a", [Control(net, hint(), passes="high")], **FEW)


@pytest.mark.parametrize(("factor", "noted"), [(1.05, True), (1.0, False), (1.5, False)])
def test_hires_that_leaves_the_size_is_noted(factor, noted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Hires(factor).size((64, 64), 8)
    assert any("leaves 64×64 pixels as they are" in str(one.message) for one in caught) == noted
