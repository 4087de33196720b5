"""The two embedded community models: small, what diffusers makes of their files, in their style,
and controllable.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroconv import generate, load_backbone, playroom
from zeroconv.backbones.loading.locate import ASSETS
from zeroconv.checkpoints.lora import BASE, FILE
from zeroconv.conditions import annotate
from zeroconv.conditions.scores import score_edges
from zeroconv.control import ControlNet
from zeroconv.evaluation.metrics import rgb_to_lab
from zeroconv.generation import Control

STYLES = ("playroom-pencil", "playroom-night")
SEEDS = range(9_000_000, 9_000_004)

pytestmark = pytest.mark.skipif(
    not (ASSETS / "playroom").is_dir(), reason="the embedded base model is not there yet"
)


@pytest.fixture(scope="module")
def bases():
    return {name: load_backbone(name) for name in ("playroom", *STYLES)}


@pytest.fixture(scope="module")
def made(bases):
    """Four scenes by each base, with the plain scene's edges."""
    control = ControlNet.load("playroom-canny")
    scenes = [playroom.render_image(seed) for seed in SEEDS]
    from PIL import Image

    hints = [annotate("canny", Image.fromarray(pixels)) for pixels, _ in scenes]
    captions = [caption for _, caption in scenes]
    pictures = {
        name: generate(base, captions, [Control(control, hints)], guidance="cond", cfg=4.0, steps=8)
        for name, base in bases.items()
    }
    return hints, pictures


@pytest.mark.parametrize("name", STYLES)
def test_they_are_small_and_name_their_base(name):
    assert (ASSETS / name / FILE).stat().st_size < 6_000_000
    assert {path.name for path in (ASSETS / name).iterdir()} == {FILE, BASE, "README.md"}


@pytest.mark.parametrize("name", STYLES)
def test_their_weights_are_those_that_diffusers_fuses(name, bases):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        ASSETS / "playroom", safety_checker=None, torch_dtype=torch.float32
    )
    pipe.load_lora_weights(ASSETS / name, weight_name=FILE)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    theirs, plain, differ = pipe.unet.state_dict(), bases["playroom"].unet.state_dict(), 0
    for key, value in bases[name].unet.state_dict().items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=1e-5)
        differ += not torch.equal(value, plain[key])
    assert differ > 100
    for ours, its in zip(
        bases[name].vae.parameters(), bases["playroom"].vae.parameters(), strict=True
    ):
        assert torch.equal(ours, its)


def lab(pictures) -> np.ndarray:
    return np.stack([rgb_to_lab(np.asarray(picture)) for picture in pictures])


def chroma(pictures) -> float:
    values = lab(pictures)
    return float(np.hypot(values[..., 1], values[..., 2]).mean())


@pytest.mark.slow
def test_a_pencil_has_no_colour_and_a_night_is_dark(made):
    _, pictures = made
    assert chroma(pictures["playroom-pencil"]) < 0.5 * chroma(pictures["playroom"])
    light = {name: lab(images)[..., 0].mean() for name, images in pictures.items()}
    assert (
        light["playroom-night"] < 0.75 * light["playroom"]
        and light["playroom-pencil"] > light["playroom-night"]
    )


@pytest.mark.slow
def test_playroom_controls_are_followed_on_playroom_styles(made):
    hints, pictures = made
    for name in STYLES:
        read = [np.asarray(annotate("canny", picture))[..., 0] for picture in pictures[name]]
        truth = [np.asarray(hint)[..., 0] for hint in hints]
        followed = np.mean([score_edges(t, r)["f1_1px"] for t, r in zip(truth, read, strict=True)])
        other = np.mean(
            [score_edges(t, r)["f1_1px"] for t, r in zip(truth[1:] + truth[:1], read, strict=True)]
        )
        assert followed > 1.5 * other, name
