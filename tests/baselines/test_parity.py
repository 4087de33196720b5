"""Baselines against other people's code of the same method, at tiny width: same weights, same
numbers.
"""

from __future__ import annotations

import pytest
import torch

from tests.baselines.test_baselines import shake_, small
from tests.helpers.tiny import inputs, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.baselines import make_baseline
from zeroconv.baselines.t2i_adapter import encode_with

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def test_t2i_adapter_gives_diffusers_features_and_output() -> None:
    """The adapter's saved weights in diffusers' own T2IAdapter, its features in diffusers' UNet."""
    from diffusers import T2IAdapter

    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone)
    baseline = make_baseline("t2i_adapter", backbone)
    shake_(baseline)
    widths = list(backbone.unet.config.block_out_channels)
    theirs = T2IAdapter(in_channels=3, channels=widths, num_res_blocks=2, downscale_factor=8)
    theirs.load_state_dict(
        {key.removeprefix("adapter."): value for key, value in baseline.state_dict().items()}
    )
    with torch.no_grad():
        features = theirs(hint)
        ours = baseline.embed_hint(hint)
        assert all(torch.equal(a, b) for a, b in zip(ours, features, strict=True))
        expected = backbone.unet(
            z, t, text.hidden, down_intrablock_additional_residuals=list(features)
        ).sample
        output = baseline.predict(backbone, z, hint, t, text)
        plain = backbone.unet(z, t, text.hidden).sample
    torch.testing.assert_close(output, expected, **TOLERANCE)
    assert not torch.allclose(expected, plain, atol=1e-2)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_features_of_zero_leave_the_encoder_as_it_is(make) -> None:
    """Also where a level without attention has a halving, which is driven by hand."""
    backbone = make()
    z, hint, t, text = inputs(backbone)
    features = [
        torch.zeros_like(f) for f in make_baseline("t2i_adapter", backbone).embed_hint(hint)
    ]
    with torch.no_grad():
        ours, frozen = (
            encode_with(backbone.encoder, z, t, text, features),
            backbone.encode(z, t, text),
        )
    assert all(torch.equal(a, b) for a, b in zip(ours, frozen, strict=True))


def test_a_level_without_attention_adds_like_one_with() -> None:
    """The feature is in the last skip before the halving, and in all that follows; not in what
    comes before.
    """
    backbone = tiny_backbone_xl()  # its first level has no attention
    z, hint, t, text = inputs(backbone)
    features = [
        torch.zeros_like(f) for f in make_baseline("t2i_adapter", backbone).embed_hint(hint)
    ]
    features[0] += 1
    with torch.no_grad():
        ours, frozen = (
            encode_with(backbone.encoder, z, t, text, features),
            backbone.encode(z, t, text),
        )
    changed = [not torch.equal(a, b) for a, b in zip(ours, frozen, strict=True)]
    # conv_in, first block | second block, halving, …, middle
    assert changed == [False, False] + [True] * 8
    torch.testing.assert_close(ours[2], frozen[2] + 1)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_controlnet_xs_is_diffusers_fused_model(make) -> None:
    """diffusers' own builders, its own copy of the frozen weights, our trained ones by name: the
    same output.

    Its copies of the residual blocks forget the UNet's epsilon; here they are reminded.
    """
    from diffusers import ControlNetXSAdapter, UNetControlNetXSModel

    backbone = make()
    z, hint, t, text = inputs(backbone)
    baseline = make_baseline("controlnet_xs", backbone, ratio=0.5)
    shake_(baseline)
    adapter = ControlNetXSAdapter.from_unet(backbone.unet, size_ratio=0.5)
    theirs = UNetControlNetXSModel.from_unet(backbone.unet, adapter)
    theirs.freeze_unet_params()
    copies = [*(d.base_resnets for d in theirs.down_blocks), theirs.mid_block.base_midblock.resnets]
    for block in (
        block for blocks in (*copies, *(u.resnets for u in theirs.up_blocks)) for block in blocks
    ):
        block.norm1.eps = block.norm2.eps = backbone.unet.config.norm_eps
    trained = {name for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    state = baseline.state_dict()
    assert trained == state.keys()
    theirs.load_state_dict({**theirs.state_dict(), **state})
    added = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": text.time_ids}
    with torch.no_grad():
        expected = theirs(z, t, text.hidden, hint, added_cond_kwargs=added).sample
        output = baseline.predict(backbone, z, hint, t, text)
        plain = backbone.decode(backbone.encode(z, t, text), t, text)
    torch.testing.assert_close(output, expected, **TOLERANCE)
    assert not torch.allclose(output, plain, atol=1e-2)


def test_controlnet_xs_reads_latents_of_other_widths_than_four() -> None:
    """diffusers' builders assume 4 channels; the playroom's autoencoder has 8."""
    backbone = tiny_backbone(unet=tiny_unet(in_channels=8, out_channels=8))
    z, hint, t, text = inputs(backbone)
    baseline = small("controlnet_xs", backbone)
    with torch.no_grad():
        torch.testing.assert_close(
            baseline.predict(backbone, z, hint, t, text), backbone.unet(z, t, text.hidden).sample
        )
        shake_(baseline)
        output, other = (
            baseline.predict(backbone, z, hint, t, text),
            baseline.predict(backbone, z, 1 - hint, t, text),
        )
    assert output.shape == z.shape
    assert not torch.allclose(output, other, atol=1e-3)


@pytest.mark.parametrize("kind", ["concat", "lora"])
def test_added_input_channels_are_a_wider_first_convolution(kind: str) -> None:
    """diffusers' UNet of 4 + 3·64 input channels, given latent and unshuffled hint side by side:
    the same output.
    """
    from diffusers import UNet2DConditionModel

    backbone = tiny_backbone()
    z, hint, t, text = inputs(backbone)
    baseline = small(kind, backbone)
    shake_(baseline)
    config = {
        name: value for name, value in backbone.unet.config.items() if not name.startswith("_")
    }
    wide = UNet2DConditionModel(**{**config, "in_channels": 4 + 192})
    state = plain_weights(baseline._widened.unet)
    columns = baseline.hint_in.conv.weight  # type: ignore[union-attr]
    wide.load_state_dict(
        {**state, "conv_in.weight": torch.cat([state["conv_in.weight"], columns], dim=1)}
    )  # type: ignore[list-item]
    with torch.no_grad():
        channels = torch.cat([z, torch.nn.functional.pixel_unshuffle(hint, 8)], dim=1)
        expected = wide(channels, t, text.hidden).sample
        output = baseline.predict(backbone, z, hint, t, text)
    torch.testing.assert_close(output, expected, **TOLERANCE)


def plain_weights(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A UNet's weights with the low-rank updates of its linear layers multiplied out."""
    state, out = unet.state_dict(), {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            stem = name.removesuffix(".base_layer.weight")
            value = (
                value
                + state[f"{stem}.lora_B.default.weight"] @ state[f"{stem}.lora_A.default.weight"]
            )
        out[name.replace(".base_layer.", ".")] = value
    return out
