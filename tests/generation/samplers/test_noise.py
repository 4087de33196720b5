"""Noise of other tools: Philox against published numbers, ComfyUI's batch against torch's draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.noise import Philox, philox4x32

FEW = {"steps": 2, "cfg": 1.0, "output": "tensor"}

# Random123's known answers (tests/kat_vectors): counter, key, words
KNOWN = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
# torch.manual_seed(0); torch.randn(12, device="cuda"), as published in several projects
CUDA = [
    -0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122,
    -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497,
]  # fmt: skip


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_noise_philox_gives_the_published_words(counter, key, words) -> None:
    many = np.array([counter, [1, 2, 3, 4]], np.uint64).T
    got = philox4x32(many, (key[0], key[1]))[:, 0]
    assert " ".join(f"{word:08x}" for word in got) == words


def test_noise_philox_gives_the_published_numbers_of_a_card() -> None:
    assert np.allclose(Philox(0).randn((3, 4)).flatten(), CUDA, atol=1e-6)


def test_noise_philox_is_normal_repeats_and_goes_on() -> None:
    source, again = Philox(2**40 + 3), Philox(2**40 + 3)
    first, second = source.randn((4, 128, 128)), source.randn((4, 128, 128))
    assert torch.equal(first, again.randn((4, 128, 128)))
    assert not torch.equal(first, second) and not torch.equal(first, Philox(3).randn((4, 128, 128)))
    for numbers in (first, second):
        assert abs(float(numbers.mean())) < 0.015 and abs(float(numbers.std()) - 1) < 0.01
        assert abs(float((numbers**4).mean()) - 3) < 0.15 and numbers.abs().max() < 6.7
    assert abs(float((first * second).mean())) < 0.015
    assert torch.isfinite(Philox(-1).randn((8,))).all()  # seeds count modulo 2⁶⁴


@pytest.mark.parametrize("noise", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "scheduler", ["euler", "euler_a", "dpm++sde", "dpm++2m_sde", "dpm++3m_sde"]
)
def test_noise_of_a_picture_does_not_depend_on_the_batch(backbone, noise, scheduler) -> None:
    options = {**FEW, "scheduler": scheduler, "noise": noise}
    together = generate(backbone, "a", count=3, seed=5, **options)
    alone = [generate(backbone, "a", seed=5 + i, **options)[0] for i in range(3)]
    parts = generate(backbone, "a", count=3, seed=5, batch_size=2, **options)
    for one, other, third in zip(together, alone, parts, strict=True):
        assert (one - other).abs().max() < 1e-4 and (one - third).abs().max() < 1e-4
    assert (together[0] - together[1]).abs().max() > 0.01


def test_noise_gpu_begins_at_philox_numbers_and_adds_the_next(backbone, monkeypatch) -> None:
    begun = torch.stack([Philox(seed).randn((4, 8, 8)) for seed in (7, 8)])
    named = generate(backbone, "a", count=2, seed=7, noise="gpu", **FEW)
    given = generate(backbone, "a", count=2, latents=begun, seed=7, **FEW)
    assert all(torch.equal(a, b) for a, b in zip(named, given, strict=True))
    drawn = []
    randn = Philox.randn
    monkeypatch.setattr(
        Philox, "randn", lambda self, shape: drawn.append(self.offset) or randn(self, shape)
    )
    generate(backbone, "a", seed=7, noise="gpu", scheduler="euler_a", **FEW)
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize("scheduler", ["lcm", "tcd", "dpm2_a"])
def test_noise_gpu_is_refused_where_steps_draw_noise(backbone, scheduler) -> None:
    with pytest.raises(UserError, match="cannot be given to the steps"):
        generate(backbone, "a", noise="gpu", scheduler=scheduler, **FEW)
    generate(backbone, "a", noise="gpu", scheduler="ddim", **FEW)


def test_noise_batch_is_one_draw_of_all_pictures(backbone) -> None:
    drawn = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(6))
    for scheduler in ("euler", "euler_a"):
        options = {**FEW, "scheduler": scheduler, "seed": 6}
        made = generate(backbone, "a", count=3, noise="batch", batch_size=2, **options)
        once = generate(backbone, "a", count=3, noise="batch", **options)
        assert max((a - b).abs().max() for a, b in zip(made, once, strict=True)) < 1e-4
        if scheduler == "euler":
            given = generate(backbone, "a", count=3, latents=drawn, **options)
            assert max((a - b).abs().max() for a, b in zip(made, given, strict=True)) < 1e-4
    with pytest.raises(UserError, match="one seed"):
        generate(backbone, "a", count=2, seed=[1, 5], noise="batch", **FEW)
    with pytest.warns(UserWarning, match="'batch' changes nothing"):
        generate(backbone, "a", count=3, latents=drawn, noise="batch", **FEW)


def test_noise_gpu_goes_with_a_control(backbone) -> None:
    net = randomise_(ControlNet.from_backbone(backbone))
    control = Control(net, Image.new("RGB", (64, 64), "white"))
    plain, hinted = (generate(backbone, "a", [*c], noise="gpu", **FEW)[0] for c in ((), (control,)))
    assert not torch.equal(plain, hinted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": "cuda"}, "noise is 'cuda'"),
        ({"noise": 3}, "noise is a int"),
        ({"schedule": 3}, "schedule is a int"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": "x"}, "eta is a str"),
        ({"guidance_rescale": -0.1}, "guidance_rescale is -0.1"),
        ({"guidance_rescale": float("nan")}, "guidance_rescale is nan"),
        ({"scheduler": "lcm", "steps": 60}, "lcm cannot take 60 steps"),
    ],
)
def test_sampling_arguments_that_are_wrong_are_refused(backbone, options, words) -> None:
    with pytest.raises((UserError, TypeError), match=words) as caught:
        generate(backbone, "a", **{**FEW, **options})
    assert "\n" not in str(caught.value)
