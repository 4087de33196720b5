"""UNets that read the guidance scale (LCM): as diffusers runs them, without a second pass."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_unet
from tests.helpers.tiny_folder import save_backbone
from zeroconv.backbones import load_backbone
from zeroconv.backbones.encoder import guidance_embedding
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


@pytest.fixture(scope="module")
def backbone():
    made = tiny_backbone(unet=tiny_unet(time_cond_proj_dim=12))
    with torch.no_grad():  # it begins at zero
        made.unet.time_embedding.cond_proj.weight.normal_(
            generator=torch.Generator().manual_seed(1)
        )
    return made


@pytest.mark.parametrize("width", [12, 13, 256])
def test_the_embedding_of_a_guidance_scale_is_diffusers(width):
    from diffusers import LatentConsistencyModelPipeline

    scales = torch.tensor([1.0, 2.5, 8.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scales - 1, width)
    assert torch.allclose(guidance_embedding(scales, width), theirs, atol=1e-4)


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_a_distilled_unet_gives_what_diffusers_gives(backbone, cfg):
    from diffusers import LatentConsistencyModelPipeline

    z, _, t, text = inputs(backbone)
    text.guidance = torch.full((2,), cfg)
    cond = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.full((2,), cfg - 1), 12
    )
    theirs = backbone.unet(z, t, text.hidden, timestep_cond=cond).sample
    ours = backbone.decode(backbone.encode(z, t, text), t, text)
    assert torch.allclose(ours, theirs, atol=1e-5)
    text.guidance = None
    assert not torch.allclose(
        backbone.decode(backbone.encode(z, t, text), t, text), theirs, atol=1e-3
    )


@pytest.mark.parametrize("controlled", [False, True])
def test_pictures_of_a_distilled_model_are_those_of_diffusers(backbone, controlled):
    from diffusers import (
        ControlNetModel,
        LatentConsistencyModelPipeline,
        LCMScheduler,
        StableDiffusionControlNetPipeline,
    )

    scheduler = LCMScheduler.from_config(backbone.scheduler_config)
    parts = {
        "vae": backbone.vae,
        "unet": backbone.unet,
        "scheduler": scheduler,
        "text_encoder": backbone.text_encoders[0],
        "tokenizer": backbone.tokenizers[0],
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    control = randomise_(ControlNet.from_backbone(backbone))
    hint = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    common = {
        "prompt": "x",
        "num_inference_steps": 1,
        "guidance_scale": 6.0,
        "latents": noise,
        "output_type": "pt",
    }
    if controlled:
        theirs_control = ControlNetModel(
            **{k: v for k, v in control.config.items() if k != "zeroconv"}
        )
        from zeroconv.control.files import diffusers_state

        theirs_control.load_state_dict(diffusers_state(control))
        pipe = StableDiffusionControlNetPipeline(controlnet=theirs_control, **parts)
        pipe.set_progress_bar_config(disable=True)
        theirs = pipe(image=hint[None], **common).images
    else:
        pipe = LatentConsistencyModelPipeline(**parts)
        pipe.set_progress_bar_config(disable=True)
        theirs = pipe(original_inference_steps=50, **common).images
    controls = [Control(control, hint)] if controlled else []
    options = {
        "guidance": "both",
        "cfg": 6.0,
        "steps": 1,
        "scheduler": "lcm",
        "latents": noise,
        "output": "tensor",
    }
    ours = generate(backbone, "x", controls, **options)
    assert torch.allclose(ours[0], theirs[0].float(), atol=2e-3)


def test_lcm_guidance_scale_changes_the_picture_and_a_negative_prompt_is_noted(backbone):
    options = {"steps": 1, "scheduler": "lcm", "output": "tensor"}
    low, high = (generate(backbone, "x", cfg=cfg, **options)[0] for cfg in (1.5, 8.0))
    assert not torch.allclose(low, high, atol=1e-3)
    with pytest.warns(UserWarning, match="the negative prompt is not used"):
        generate(backbone, "x", negative="ugly", **options)


def test_a_new_control_of_a_distilled_model_loads_again(backbone, tmp_path):
    control = randomise_(ControlNet.from_backbone(backbone))
    assert not any("cond_proj" in name for name in control.state_dict())
    control.save(tmp_path / "c")
    ControlNet.load(tmp_path / "c", backbone=backbone)
    save_backbone(tmp_path / "sd", backbone)
    assert load_backbone(tmp_path / "sd").reads_guidance
    assert not tiny_backbone().reads_guidance


# ---------------------------------------------------------------- latents that are no numbers


def test_latents_that_are_nan_are_refused_when_decoded_and_encoded():
    backbone = tiny_backbone()
    z = torch.zeros(3, 4, 8, 8)
    z[1, 0, 0, 0] = float("nan")
    with pytest.raises(
        UserError, match=r"latents that tiny has made .*1 of 3 in the batch, first 2"
    ):
        backbone.decode_latents(z)
    with pytest.raises(UserError, match="the VAE of tiny makes of pictures are no numbers"):
        backbone.encode_image(torch.full((1, 3, 64, 64), float("inf")))


def test_a_control_that_overflows_gives_a_sentence_and_no_black_picture():
    backbone = tiny_backbone()
    control = randomise_(ControlNet.from_backbone(backbone), scale=1e37)
    with pytest.raises(UserError, match=r"stop being numbers .* in step 1 of 2"):
        generate(backbone, "x", [Control(control, torch.rand(3, 64, 64), weight=100)], steps=2)


def test_a_vae_that_overflows_gives_a_sentence():
    backbone = tiny_backbone()
    with torch.no_grad():
        backbone.vae.decoder.conv_in.weight.fill_(float("inf"))
    with pytest.raises(UserError, match="the pictures that the VAE of tiny decodes"):
        backbone.decode_latents(torch.ones(1, 4, 8, 8))
