"""Stable Diffusion 3 through the contract: outputs and residuals are diffusers' own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny_sd3 import sd3_inputs, tiny_control, tiny_sd3
from zeroconv.backbones import Flow, TextStates, is_split
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.control.sd3 import SD3ControlNet
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone() -> SD3Backbone:
    return tiny_sd3()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def diffusers_output(
    backbone: SD3Backbone, residuals: list[Tensor] | None, z: Tensor, t: Tensor, text: TextStates
) -> Tensor:
    return backbone.transformer(
        hidden_states=z,
        encoder_hidden_states=text.hidden,
        pooled_projections=text.pooled,
        timestep=t,
        block_controlnet_hidden_states=residuals,
        return_dict=False,
    )[0]


VARIANTS = {
    "as published": {},
    "pooled text": {"force_zeros_for_pooled_projection": False},
    "3.5 large": {"use_pos_embed": False, "joint_attention_dim": None},
    "3.5 medium": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"},
}


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_sd3_residuals_and_output_equal_diffusers(
    backbone: SD3Backbone, blocks: int, variant: str
) -> None:
    """Also for numbers of blocks that do not divide the base's 5."""
    network = tiny_control(blocks, **VARIANTS[variant])
    control = SD3ControlNet(network, backbone)
    z, hint, t, text = sd3_inputs()
    assert text.pooled is not None
    zeros = network.config.force_zeros_for_pooled_projection
    theirs = network(
        hidden_states=z if network.pos_embed is not None else backbone.transformer.pos_embed(z),
        controlnet_cond=hint,
        encoder_hidden_states=text.hidden if network.context_embedder is not None else None,
        pooled_projections=torch.zeros_like(text.pooled) if zeros else text.pooled,
        timestep=t,
        return_dict=False,
    )[0]

    ours = control(z, hint, t, text)
    assert len(ours) == len(control.connections) == blocks
    for residual, expected, connection in zip(ours, theirs, control.connections, strict=True):
        assert residual.shape == (2, 4 * 6, connection.channels) and expected.abs().max() > 0.01
        assert relative(residual, expected) < 1e-5

    expected = diffusers_output(backbone, theirs, z, t, text)
    output = backbone.predict(z, t, text, backbone.spread(ours))
    assert relative(output, expected) < 1e-5
    assert torch.equal(control.predict(backbone, z, hint, t, text), output)
    plain = diffusers_output(backbone, None, z, t, text)
    assert torch.equal(backbone.predict(z, t, text), plain)
    assert relative(output, plain) > 0.01


@torch.no_grad()
def test_sd3_residuals_of_two_controls_add_up(backbone: SD3Backbone) -> None:
    """With 2 and 3 residuals: each is spread by itself."""
    z, hint, t, text = sd3_inputs()
    first, second = (
        SD3ControlNet(tiny_control(n, seed=n), backbone)(z, hint, t, text) for n in (2, 3)
    )
    every = [first[i // 3] + second[j] for i, j in enumerate([0, 0, 1, 1, 2])]
    expected = diffusers_output(backbone, every, z, t, text)
    pairs = zip(backbone.spread(first), backbone.spread(second), strict=True)
    summed = [a + b for a, b in pairs]  # type: ignore[operator]
    assert relative(backbone.predict(z, t, text, summed), expected) < 1e-5


@torch.no_grad()
def test_sd3_takes_residuals_at_single_blocks(backbone: SD3Backbone) -> None:
    z, hint, t, text = sd3_inputs()
    (residual,) = SD3ControlNet(tiny_control(1), backbone)(z, hint, t, text)
    everywhere = backbone.predict(z, t, text, [residual] * 4)
    at_two = backbone.predict(z, t, text, backbone.spread([residual], {2: 0}))
    expected = diffusers_output(
        backbone, [0 * residual, 0 * residual, residual, 0 * residual, residual], z, t, text
    )
    assert torch.allclose(at_two, expected, atol=1e-6)
    assert relative(at_two, everywhere) > 0.01


def test_sd3_connections_are_tokens_after_all_blocks_but_the_last(backbone: SD3Backbone) -> None:
    assert [c.name for c in backbone.connections] == [f"block.{i}" for i in range(4)]
    assert {(c.kind, c.channels, c.scale, c.stream) for c in backbone.connections} == {
        ("tokens", 16, 2, "image")
    }
    assert not is_split(backbone)
    assert isinstance(backbone.process, Flow) and backbone.process.shift == 3.0
    with pytest.raises(ValueError):
        backbone.predict(*_few(backbone), [None] * 5)


def _few(backbone: SD3Backbone) -> tuple[Tensor, Tensor, TextStates]:
    z, _, t, text = sd3_inputs()
    return z, t, text


@pytest.mark.parametrize(
    ("size", "message"), [((8, 7), "sides divide by 16"), ((8, 18), "at most 128 pixels")]
)
def test_sd3_refuses_sizes_it_would_cut(
    backbone: SD3Backbone, size: tuple[int, int], message: str
) -> None:
    _, _, t, text = sd3_inputs()
    with pytest.raises(UserError, match=message):
        backbone.predict(torch.zeros(2, 4, *size), t, text)


def test_sd3_without_pooled_text_is_one_sentence(backbone: SD3Backbone) -> None:
    z, hint, t, text = sd3_inputs()
    without = TextStates(text.hidden)
    with pytest.raises(UserError, match="needs pooled"):
        backbone.predict(z, t, without)
    with pytest.raises(UserError, match="needs pooled"):
        SD3ControlNet(tiny_control(1), backbone)(z, hint, t, without)
    with pytest.raises(UserError, match="has no text encoder"):
        backbone.embed_text(["a cat"])


@torch.no_grad()
def test_sd3_latents_are_shifted_as_diffusers_has_them() -> None:
    backbone = tiny_sd3(vae=True)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moments = backbone.encode_image(images * 2 - 1)
    mean = backbone.vae.encode(images * 2 - 1).latent_dist.mode()
    z = backbone.latents_from_moments(moments, sample=False)
    assert torch.allclose(z, (mean - 0.06) * 1.5, atol=1e-6)
    expected = backbone.vae.decode(z / 1.5 + 0.06).sample / 2 + 0.5
    assert torch.allclose(backbone.decode_latents(z), expected.clamp(0, 1), atol=1e-6)

    shown = {"force_zeros_for_pooled_projection": False}
    for changes, latents in ((shown, z), ({}, mean * 1.5)):
        control = SD3ControlNet(tiny_control(1, **changes), backbone)
        assert torch.allclose(control.hint_latents(backbone, images), latents, atol=1e-6)
