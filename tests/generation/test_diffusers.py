"""A whole generation against diffusers' StableDiffusionControlNetPipeline: the same parts, latents
and settings.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.names import make_scheduler

PROMPTS = ["a red ball", "two blue cubes"]


def pictures(seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in PROMPTS]


@pytest.fixture(
    scope="module", params=["epsilon", pytest.param("v_prediction", marks=pytest.mark.slow)]
)
def pair(request, tmp_path_factory):
    """Our backbone and control (random, not zero), and a maker of diffusers' pipeline on the same
    weights.
    """
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    backbone = tiny_backbone(prediction_type=request.param)
    control = randomise_(ControlNet.from_backbone(backbone))
    folder = tmp_path_factory.mktemp("control")
    control.save(folder / "net")
    theirs = ControlNetModel.from_pretrained(folder / "net")

    def pipeline(scheduler: str):
        pipe = StableDiffusionControlNetPipeline(
            vae=copy.deepcopy(backbone.vae),
            text_encoder=backbone.text_encoders[0],
            tokenizer=backbone.tokenizers[0],
            unet=backbone.unet,
            controlnet=theirs,
            scheduler=make_scheduler(scheduler, backbone),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return backbone, control, pipeline


def compare(pair, scheduler: str, theirs: dict, ours: dict, control_options: dict) -> float:
    backbone, control, pipeline = pair
    hints, noise = pictures(1), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    expected = pipeline(scheduler)(
        PROMPTS,
        image=hints,
        latents=noise.clone(),
        num_inference_steps=20,
        output_type="np",
        **theirs,
    ).images
    made = generate(
        backbone, PROMPTS, [Control(control, hints, **control_options)], latents=noise, steps=20,
        scheduler=scheduler, output="tensor", **ours,
    )  # fmt: skip
    assert expected.std() > 0.05  # a grey picture would agree with anything
    return float(np.abs(torch.stack(made).permute(0, 2, 3, 1).numpy() - expected).max())


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ddim", "unipc", "ddim_trailing")]


@pytest.mark.parametrize("scheduler", ["euler", "dpm++2m_karras", *SLOW])
def test_both_equals_diffusers(pair, scheduler):
    theirs = {
        "guidance_scale": 5.0,
        "controlnet_conditioning_scale": 0.7,
        "negative_prompt": ["blur", "dark"],
    }
    assert (
        compare(
            pair,
            scheduler,
            theirs,
            {"guidance": "both", "cfg": 5.0, "negative": ["blur", "dark"]},
            {"scale": 0.7},
        )
        < 1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("window", [(0.0, 0.5), (0.3, 0.8)])
def test_the_window_equals_diffusers(pair, window):
    start, end = window
    theirs = {"guidance_scale": 5.0, "control_guidance_start": start, "control_guidance_end": end}
    assert (
        compare(
            pair, "ddim", theirs, {"guidance": "both", "cfg": 5.0}, {"start": start, "end": end}
        )
        < 1e-3
    )


@pytest.mark.slow
def test_guess_equals_diffusers_with_its_weights(pair):
    ours = {
        "guidance": "guess",
        "cfg": 5.0,
        "connection_scales": torch.logspace(-1, 0, 13).tolist(),
    }
    assert compare(pair, "ddim", {"guidance_scale": 5.0, "guess_mode": True}, ours, {}) < 1e-3
