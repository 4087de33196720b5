from __future__ import annotations

import pytest
import torch

from tests.helpers.stable_diffusion import SD15, SD21, meta_backbone
from tests.helpers.tiny import (
    inputs,
    tiny_backbone,
    tiny_backbone_xl,
    tiny_text,
    tiny_unet,
    tiny_vae,
)
from zeroconv.backbones import Backbone, TextStates, UNetBackbone
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def unet_output(backbone, z, t, text):
    """diffusers' own forward pass."""
    added = (
        {"text_embeds": text.pooled, "time_ids": text.time_ids} if text.pooled is not None else None
    )
    return backbone.unet(z, t, text.hidden, added_cond_kwargs=added).sample


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize("size", [8, 6, (8, 11)])
def test_encode_and_decode_equal_the_unet_bit_for_bit(make, size):
    backbone = make()
    z, _, t, text = inputs(backbone)
    height, width = size if isinstance(size, tuple) else (size, size)
    z = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(1))
    ours = backbone.decode(backbone.encode(z, t, text), t, text)
    assert torch.equal(ours, unet_output(backbone, z, t, text))
    assert ours.std() > 0.01


def test_the_step_may_be_a_number_a_scalar_or_one_a_picture(backbone):
    z, _, _, text = inputs(backbone)
    outputs = [
        backbone.decode(backbone.encode(z, t, text), t, text)
        for t in (501, torch.tensor(501), torch.tensor([501, 501]))
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    other = backbone.decode(backbone.encode(z, 7, text), 7, text)
    assert not torch.allclose(outputs[0], other)


def test_connections_are_the_papers(backbone):
    sd = meta_backbone(SD15)
    channels = [320] * 4 + [640] * 3 + [1280] * 6
    scales = [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8]
    assert [(c.channels, c.scale) for c in sd.connections] == list(
        zip(channels, scales, strict=True)
    )
    assert [c.name for c in sd.connections] == [*(f"down.{i}" for i in range(12)), "mid"]
    z, _, t, text = inputs(backbone)
    shapes = [(2, c.channels, 8 // c.scale, 8 // c.scale) for c in backbone.connections]
    assert [tuple(skip.shape) for skip in backbone.encode(z, t, text)] == shapes


@pytest.mark.parametrize(("config", "count"), [(SD15, 859_520_964), (SD21, 865_910_724)])
def test_parameter_counts(config, count):
    assert sum(p.numel() for p in meta_backbone(config).unet.parameters()) == count


def test_it_is_what_control_asks_for_and_frozen(backbone):
    assert isinstance(backbone, Backbone)
    assert (backbone.latent_channels, backbone.latent_scale, backbone.default_size) == (4, 8, 64)
    for module in (backbone.unet, backbone.vae, *backbone.text_encoders):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_encode_builds_no_graph_and_decode_passes_gradients_to_the_skips(backbone):
    z, _, t, text = inputs(backbone)
    skips = [skip.requires_grad_() for skip in backbone.encode(z, t, text)]
    assert all(skip.grad_fn is None for skip in skips)
    backbone.decode(skips, t, text).square().mean().backward()
    assert all(skip.grad.abs().sum() > 0 for skip in skips)
    assert all(p.grad is None for p in backbone.unet.parameters())


def test_the_copy_is_deep_and_trains(backbone):
    copy = backbone.copy_encoder()
    assert all(p.requires_grad for p in copy.parameters())
    z, _, t, text = inputs(backbone)
    assert all(
        torch.equal(a, b)
        for a, b in zip(copy(z, t, text), backbone.encode(z, t, text), strict=True)
    )
    with torch.no_grad():
        copy.conv_in.weight.add_(1)
    assert not torch.equal(copy.conv_in.weight, backbone.unet.conv_in.weight)


def test_channels_last_gives_the_same(backbone):
    other = tiny_backbone()
    other.unet.to(memory_format=torch.channels_last)
    z, _, t, text = inputs(backbone)
    ours = other.decode(other.encode(z.to(memory_format=torch.channels_last), t, text), t, text)
    assert torch.allclose(ours, unet_output(backbone, z, t, text), atol=1e-5)


# ---------------------------------------------------------------- text


def pipeline(backbone):
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    parts = {"vae": backbone.vae, "unet": backbone.unet, "scheduler": DDIMScheduler()}
    parts |= {"text_encoder": backbone.text_encoders[0], "tokenizer": backbone.tokenizers[0]}
    if len(backbone.text_encoders) == 1:
        nothing = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        return StableDiffusionPipeline(**parts, **nothing)
    more = {"text_encoder_2": backbone.text_encoders[1], "tokenizer_2": backbone.tokenizers[1]}
    return StableDiffusionXLPipeline(**parts, **more)


PROMPTS = ["a red ball", "", "ünï ✓ (a:2)"]


def test_text_states_are_those_of_diffusers_pipeline(backbone):
    states = backbone.embed_text(PROMPTS)
    expected, _ = pipeline(backbone).encode_prompt(PROMPTS, "cpu", 1, False)
    assert torch.equal(states.hidden, expected)
    assert states.pooled is None
    assert states.time_ids is None


def test_sdxl_text_states_are_those_of_diffusers_pipeline():
    backbone = tiny_backbone_xl()
    states = backbone.embed_text(PROMPTS, size=(64, 96))
    hidden, _, pooled, _ = pipeline(backbone).encode_prompt(
        PROMPTS, device="cpu", do_classifier_free_guidance=False
    )
    assert torch.equal(states.hidden, hidden)
    assert torch.equal(states.pooled, pooled)
    assert states.time_ids.tolist() == [[64, 96, 0, 0, 64, 96]] * 3


def test_many_prompts_are_embedded_in_chunks(backbone):
    prompts = [f"{i}" for i in range(130)]
    states = backbone.embed_text(prompts)
    assert len(states) == 130
    assert torch.allclose(states[129].hidden, backbone.embed_text(["129"]).hidden, atol=1e-6)


def test_text_states_are_cut_and_joined():
    n = torch.arange(4.0)
    states = TextStates(n.view(4, 1, 1), n.view(4, 1), None)
    assert states[1].hidden.flatten().tolist() == [1]
    assert states[-1].pooled.flatten().tolist() == [3]
    assert states[1:3].hidden.flatten().tolist() == [1, 2]
    assert states[torch.tensor([3, 0])].hidden.flatten().tolist() == [3, 0]
    joined = TextStates.cat([states[:1], states])
    assert joined.pooled.flatten().tolist() == [0, 0, 1, 2, 3]
    assert joined.time_ids is None
    assert states.to(dtype=torch.float16).hidden.dtype == torch.float16


# ---------------------------------------------------------------- pictures and latents


def test_moments_and_latents_are_those_of_the_vae(backbone):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments = backbone.encode_image(images)
    assert moments.shape == (3, 8, 8, 8)
    posterior = backbone.vae.encode(images).latent_dist
    factor = backbone.vae.config.scaling_factor
    sampled = backbone.latents_from_moments(moments, torch.Generator().manual_seed(5))
    assert torch.equal(sampled, posterior.sample(torch.Generator().manual_seed(5)) * factor)
    assert torch.equal(
        backbone.latents_from_moments(moments, sample=False), posterior.mode() * factor
    )


def test_decoded_images_are_in_range_and_the_same_in_chunks(backbone, monkeypatch):
    z = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    images = backbone.decode_latents(z)
    assert images.shape == (5, 3, 64, 64)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    expected = backbone.vae.decode(z / backbone.vae.config.scaling_factor).sample
    assert torch.allclose(images, (expected / 2 + 0.5).clamp(0, 1), atol=1e-6)
    monkeypatch.setattr("zeroconv.backbones.autoencoder.CHUNK_PIXELS", 64 * 64)
    assert torch.allclose(backbone.decode_latents(z), images, atol=1e-6)


# ---------------------------------------------------------------- schedule and mistakes


def test_the_noise_schedule_is_stable_diffusions(backbone):
    from diffusers import DDIMScheduler

    assert torch.equal(
        backbone.process.alphas_cumprod,
        DDIMScheduler.from_config(backbone.scheduler_config).alphas_cumprod,
    )
    assert backbone.process.alphas_cumprod.shape == (1000,)
    assert backbone.prediction_type == "epsilon"
    assert tiny_backbone("v_prediction").prediction_type == "v_prediction"


def test_a_partial_backbone_says_what_it_lacks():
    no_vae = UNetBackbone(tiny_unet(), name="half")
    with pytest.raises(UserError, match="half has no VAE"):
        no_vae.decode_latents(torch.zeros(1, 4, 8, 8))
    with pytest.raises(UserError, match="half has no text encoder"):
        no_vae.embed_text(["a"])
    text, tokenizer = tiny_text()
    no_unet = UNetBackbone(None, tiny_vae(), [text], [tokenizer], name="blind")
    assert no_unet.embed_text(["a"]).hidden.shape == (1, 16, 32)
    for use in (
        no_unet.copy_encoder,
        lambda: no_unet.encode(torch.zeros(1, 4, 8, 8), 0, no_unet.embed_text(["a"])),
    ):
        with pytest.raises(UserError, match="blind has no UNet"):
            use()


def test_unsupported_models_are_refused():
    with pytest.raises(UserError, match="class_embed_type"):
        UNetBackbone(tiny_unet(class_embed_type="timestep"))
    with pytest.raises(UserError, match="predicts 'sample'"):
        UNetBackbone(tiny_unet(), scheduler_config={"prediction_type": "sample"})
    xl = tiny_backbone_xl()
    with pytest.raises(UserError, match="embed_text"):
        xl.encode(torch.zeros(1, 4, 8, 8), 0, TextStates(torch.zeros(1, 16, 64)))


def test_half_precision(backbone):
    half = tiny_backbone().to(dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    z, _, t, text = inputs(half)
    z = z.bfloat16()
    assert text.hidden.dtype == torch.bfloat16
    ours = half.decode(half.encode(z, t, text), t, text)
    assert torch.equal(ours, unet_output(half, z, t, text))
    assert half.decode_latents(z).dtype == torch.float32
    assert {p.dtype for p in tiny_backbone_xl().to(dtype=torch.float16).vae.parameters()} == {
        torch.float32
    }
