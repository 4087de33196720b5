from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.stable_diffusion import SD15, SD21, meta_backbone
from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.control import ControlNet
from zeroconv.errors import UserError


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


def controlled(backbone, control, z, hint, t, text):
    with torch.no_grad():
        skips = backbone.encode(z, t, text)
    residuals = control(z, hint, t, text)
    return backbone.decode([s + r for s, r in zip(skips, residuals, strict=True)], t, text)


def joins(control):
    """The convolutions between the copy and the frozen model."""
    return list(control.zero_convs.parameters())


# ---------------------------------------------------------------- step 0


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize(
    "options", [{}, {"hint_encoder": "paper"}, {"only_mid_control": True}, {"connections": "lite"}]
)
def test_at_step_0_control_on_equals_off_bit_for_bit(make, options):
    backbone = make()
    batch = inputs(backbone)
    z, _, t, text = batch
    control = ControlNet.from_backbone(backbone, **options)
    assert all(torch.count_nonzero(residual) == 0 for residual in control(*batch))
    off = backbone.decode(backbone.encode(z, t, text), t, text)
    assert torch.equal(controlled(backbone, control, *batch), off)
    # the comparison can fail: connections that are not zero change the picture
    assert not torch.allclose(controlled(backbone, randomise_(control), *batch), off, atol=1e-3)


def test_at_step_0_only_the_zero_convolutions_that_join_get_gradients(backbone):
    control = ControlNet.from_backbone(backbone)
    controlled(backbone, control, *inputs(backbone)).square().mean().backward()
    assert all(torch.count_nonzero(p.grad) > 0 for p in joins(control))
    # through a weight of zero nothing passes: neither to the copy nor to the hint encoder
    for module in (control.copy, control.hint_encoder):
        assert all(p.grad is None or torch.count_nonzero(p.grad) == 0 for p in module.parameters())


def test_after_steps_the_copy_and_then_the_hint_encoder_learn_and_the_backbone_stays(backbone):
    before = {k: v.clone() for k, v in backbone.unet.state_dict().items()}
    control = ControlNet.from_backbone(backbone)
    optimiser = torch.optim.SGD(control.parameters(), lr=0.1)
    learned = []
    for _ in range(3):
        optimiser.zero_grad()
        controlled(backbone, control, *inputs(backbone)).square().mean().backward()
        learned.append(
            {k for k, p in control.named_parameters() if p.grad is not None and p.grad.any()}
        )
        optimiser.step()
    copy = {name for name, _ in control.named_parameters() if name.startswith("copy.")}
    # the last convolution of the first level's text states is read by everything after it;
    # keys whose bias cancels in the softmax never learn, so ask for nearly all
    assert len(copy & learned[1]) > 0.95 * len(copy)
    assert {"hint_encoder.conv_out.weight", "hint_encoder.conv_out.bias"} <= learned[1]
    assert "hint_encoder.conv_in.weight" not in learned[1]  # still behind its own zero convolution
    assert all(
        name in learned[2]
        for name, _ in control.named_parameters()
        if name.startswith("hint_encoder.")
    )
    assert all(torch.equal(value, before[key]) for key, value in backbone.unet.state_dict().items())
    assert all(p.grad is None for p in backbone.unet.parameters())


def test_what_trains_is_never_set_in_a_forward(backbone):
    control = randomise_(ControlNet.from_backbone(backbone))
    control.requires_grad_(False)
    control.zero_convs.requires_grad_(True)
    chosen = [p.requires_grad for p in control.parameters()]
    controlled(backbone, control, *inputs(backbone))
    assert [p.requires_grad for p in control.parameters()] == chosen
    assert not any(p.requires_grad for p in backbone.unet.parameters())


# ---------------------------------------------------------------- what comes out


def test_residuals_answer_to_hint_latent_step_and_text(backbone):
    control = randomise_(ControlNet.from_backbone(backbone))
    z, hint, t, text = inputs(backbone)
    other = inputs(backbone, seed=9)
    reference = control(z, hint, t, text)
    changes = [
        (other[0], hint, t, text),
        (z, other[1], t, text),
        (z, hint, t + 1, text),
        (z, hint, t, text[[1, 0]]),
    ]
    for change in changes:
        assert not torch.allclose(control(*change)[-1], reference[-1], atol=1e-5)


@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
@pytest.mark.parametrize("connections", ["zero", "lite"])
def test_residuals_fit_their_connections(make, connections):
    backbone = make()
    control = ControlNet.from_backbone(backbone, connections=connections)
    residuals = control(*inputs(backbone))
    assert control.connections == backbone.connections
    shapes = [(2, c.channels, 8 // c.scale, 8 // c.scale) for c in backbone.connections]
    assert [tuple(r.shape) for r in residuals] == shapes


def test_the_hint_embedding_may_be_computed_once(backbone):
    control = randomise_(ControlNet.from_backbone(backbone))
    z, hint, t, text = inputs(backbone)
    embedding = control.embed_hint(hint)
    assert embedding.shape == (2, 16, 8, 8)
    once, anew = control.forward_embedded(z, embedding, t, text), control(z, hint, t, text)
    assert all(torch.equal(a, b) for a, b in zip(once, anew, strict=True))


def test_only_mid_control_leaves_the_skips_alone(backbone):
    z, hint, t, text = inputs(backbone)
    control = randomise_(ControlNet.from_backbone(backbone))
    only = ControlNet.from_backbone(backbone, only_mid_control=True)
    only.load_state_dict(control.state_dict())
    *skips, mid = only(z, hint, t, text)
    assert len(skips) == 12
    assert all(r.shape == () and r == 0 for r in skips)
    assert torch.equal(mid, control(z, hint, t, text)[-1])
    assert mid.any()


def test_global_average_pooling_leaves_no_position(backbone):
    batch = inputs(backbone)
    control = randomise_(ControlNet.from_backbone(backbone))
    pooled = ControlNet.from_backbone(backbone, global_average_pooling=True)
    pooled.load_state_dict(control.state_dict())
    for mean, residual in zip(pooled(*batch), control(*batch), strict=True):
        assert mean.shape == (*residual.shape[:2], 1, 1)
        assert torch.allclose(mean, residual.mean((2, 3), keepdim=True))


def test_a_bgr_hint_is_turned(backbone):
    hint = inputs(backbone)[1]
    control = randomise_(ControlNet.from_backbone(backbone))
    rgb = control.embed_hint(hint.flip(1))
    control.config["controlnet_conditioning_channel_order"] = "bgr"
    assert torch.equal(control.embed_hint(hint), rgb)


def test_the_hint_may_have_other_channels_and_widths(backbone):
    control = randomise_(
        ControlNet.from_backbone(backbone, hint_channels=5, hint_widths=(4, 8, 8, 12))
    )
    z, _, t, text = inputs(backbone)
    assert control(z, torch.rand(2, 5, 64, 64), t, text)[0].shape == (2, 16, 8, 8)
    assert control.config["conditioning_embedding_out_channels"] == [4, 8, 8, 12]


# ---------------------------------------------------------------- published sizes


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_sd15():
    control = ControlNet.from_backbone(meta_backbone(SD15))
    assert count(control) == 361_279_120
    assert count(control.hint_encoder) == 1_086_480
    assert count(control.zero_convs[:-1]) == 9_840_000
    assert count(control.zero_convs[-1]) == 1_639_680


def test_parameter_count_of_sd21():
    assert count(ControlNet.from_backbone(meta_backbone(SD21))) == 364_228_240


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"connections": "nought"}, "no connection 'nought'; choose one of zero, gaussian, lite"),
        ({"hint_init": "luck"}, "no hint_init 'luck'; choose contrast or torch"),
        ({"hint_encoder": "none"}, "no hint encoder 'none'; choose one of released, paper"),
        ({"hint_widths": (16, 32)}, "needs 4 widths, not 2"),
    ],
)
def test_unknown_options_are_refused(backbone, options, sentence):
    with pytest.raises(UserError, match=sentence):
        ControlNet.from_backbone(backbone, **options)


def test_a_backbone_of_any_depth_will_do():
    """Three levels of one block each: 6 skips and the middle."""
    blocks = {
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    backbone = tiny_backbone(unet=tiny_unet(**blocks))
    control = randomise_(ControlNet.from_backbone(backbone))
    assert len(control.connections) == 7
    assert controlled(backbone, control, *inputs(backbone)).shape == (2, 4, 8, 8)
