"""Pictures from pictures against diffusers' own pipelines: the same parts, seeds and settings."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import (
    randomise_,
    tiny_backbone,
    tiny_backbone_xl,
    tiny_unet,
    tiny_unet_xl,
)
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.names import make_scheduler

PROMPTS = ["a red ball", "two blue cubes"]
SAMPLERS = [
    "ddim",
    "heun",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("euler", "dpm++2m", "unipc")),
]


def photo(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Smooth colours, as photographs have."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def circle() -> Image.Image:
    """A mask whose edge lies within latents."""
    y, x = np.mgrid[:64, :64]
    return Image.fromarray((((x - 37) ** 2 + (y - 29) ** 2 < 20**2) * 255).astype(np.uint8))


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (4, 5)]


@pytest.fixture(scope="module")
def backbones():
    """By the channels that the UNet reads."""
    made = {4: tiny_backbone()}
    made |= {n: tiny_backbone(unet=tiny_unet(in_channels=n, out_channels=4)) for n in (8, 9)}
    made["xl"] = tiny_backbone_xl()
    made["xl-9"] = tiny_backbone_xl(unet=tiny_unet_xl(in_channels=9, out_channels=4))
    return made


@pytest.fixture(scope="module")
def control(backbones, tmp_path_factory):
    """Ours and diffusers' of the same weights, random, not zero."""
    from diffusers import ControlNetModel

    ours = randomise_(ControlNet.from_backbone(backbones[4], condition="canny"))
    folder = tmp_path_factory.mktemp("control") / "net"
    ours.save(folder)
    return ours, ControlNetModel.from_pretrained(folder)


def pipeline(kind: str, backbone, scheduler: str, **parts):
    import diffusers

    first, *second = backbone.text_encoders
    more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if second:
        more = {"text_encoder_2": second[0], "tokenizer_2": backbone.tokenizers[1]}
        more |= {"add_watermarker": False, "force_zeros_for_empty_prompt": False}
    made = getattr(diffusers, kind)(
        vae=copy.deepcopy(backbone.vae),
        text_encoder=first,
        tokenizer=backbone.tokenizers[0],
        unet=backbone.unet,
        scheduler=make_scheduler(scheduler, backbone),
        **more,
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    return made


def difference(pipe, backbone, scheduler: str, theirs: dict, ours: dict, controls=()) -> float:
    """The largest of a pixel, in [0, 1]."""
    steps = 6
    expected = pipe(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=4.0,
        negative_prompt=["dark", "dark"],
        generator=generators(),
        output_type="np",
        **theirs,
    ).images
    made = generate(
        backbone, PROMPTS, controls, steps=steps, cfg=4.0, guidance="both", negative="dark",
        seed=[4, 5], scheduler=scheduler, output="tensor", paste_back=False, **ours,
    )  # fmt: skip
    assert expected.std() > 0.02  # a grey picture would agree with anything
    return float(np.abs(torch.stack(made).permute(0, 2, 3, 1).numpy() - expected).max())


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_img2img_equals_diffusers(backbones, scheduler, strength):
    pictures = [photo(0), photo(1)]
    pipe = pipeline("StableDiffusionImg2ImgPipeline", backbones[4], scheduler)
    common = {"image": pictures, "strength": strength}
    assert difference(pipe, backbones[4], scheduler, common, common) < 1e-3


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_inpaint_equals_diffusers(backbones, scheduler, strength, channels):
    pictures = [photo(0), photo(1)]
    pipe = pipeline("StableDiffusionInpaintPipeline", backbones[channels], scheduler)
    common = {"image": pictures, "strength": strength}
    theirs = {**common, "mask_image": circle(), "height": 64, "width": 64}
    if channels == 9:  # it encodes one mask for all, so that one generator would serve
        theirs["mask_image"] = [circle(), circle()]
    ours = {**common, "mask": circle()}
    assert difference(pipe, backbones[channels], scheduler, theirs, ours) < 1e-3


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_img2img_with_control_equals_diffusers(backbones, control, strength):
    pictures, hints = [photo(0), photo(1)], [photo(2), photo(3)]
    ours, theirs = control
    pipe = pipeline(
        "StableDiffusionControlNetImg2ImgPipeline", backbones[4], "ddim", controlnet=theirs
    )
    common = {"image": pictures, "strength": strength}
    asked = {**common, "control_image": hints, "controlnet_conditioning_scale": 0.7}
    asked |= {"control_guidance_start": 0.0, "control_guidance_end": 0.5}
    controls = [Control(ours, hints, scale=0.7, end=0.5)]
    assert difference(pipe, backbones[4], "ddim", asked, common, controls) < 1e-3


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpaint_with_control_equals_diffusers(backbones, control, strength, channels):
    pictures, hints = [photo(0), photo(1)], [photo(2), photo(3)]
    ours, theirs = control
    pipe = pipeline(
        "StableDiffusionControlNetInpaintPipeline", backbones[channels], "ddim", controlnet=theirs
    )
    common = {"image": pictures, "strength": strength}
    asked = {**common, "mask_image": [circle(), circle()], "control_image": hints}
    asked |= {"controlnet_conditioning_scale": 0.7, "height": 64, "width": 64}
    controls = [Control(ours, hints, scale=0.7)]
    made = {**common, "mask": circle()}
    assert difference(pipe, backbones[channels], "ddim", asked, made, controls) < 1e-3


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_editing_equals_diffusers(backbones, scheduler):
    pictures = [photo(0), photo(1)]
    pipe = pipeline("StableDiffusionInstructPix2PixPipeline", backbones[8], scheduler)
    theirs = {"image": pictures, "image_guidance_scale": 1.7}
    ours = {"image": pictures, "image_guidance": 1.7}
    assert difference(pipe, backbones[8], scheduler, theirs, ours) < 1e-3


@pytest.mark.parametrize("kind", ["img2img", "inpaint", "inpaint-9"])
def test_sdxl_equals_diffusers(backbones, kind):
    backbone = backbones["xl-9" if kind.endswith("9") else "xl"]
    name = "Img2Img" if kind == "img2img" else "Inpaint"
    pipe = pipeline(f"StableDiffusionXL{name}Pipeline", backbone, "euler")
    common = {"image": [photo(0), photo(1)], "strength": 0.7}
    theirs = dict(common)
    if kind != "img2img":
        theirs |= {"mask_image": [circle(), circle()], "height": 64, "width": 64}
        common |= {"mask": circle()}
    assert difference(pipe, backbone, "euler", theirs, common) < 1e-3
