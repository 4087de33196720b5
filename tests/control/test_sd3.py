"""Controls of Stable Diffusion 3: where they start, what trains, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.tiny_sd3 import sd3_inputs, tiny_control, tiny_sd3
from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.baselines import load_net
from zeroconv.control import ControlNet, is_net
from zeroconv.control.sd3 import SD3ControlNet
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.training.objective import ControlledLoss, predict, stream


@pytest.fixture(scope="module")
def backbone() -> SD3Backbone:
    return tiny_sd3(vae=True)


def test_sd3_control_starts_as_the_frozen_model(backbone: SD3Backbone) -> None:
    """The same numbers, and gradients in the connections alone."""
    control = SD3ControlNet.from_backbone(backbone, blocks=2, condition="canny")
    assert is_net(control) and (control.condition, control.base) == ("canny", "tiny-sd3")
    z, hint, t, text = sd3_inputs()
    output = predict(backbone, control, z, torch.rand(2, 3, 16, 24), t, text)
    assert torch.equal(output, backbone.predict(z, t, text))

    control.predict(backbone, z, hint, t, text).square().mean().backward()
    for name, parameter in control.network.named_parameters():
        trained = parameter.grad is not None and bool(parameter.grad.any())
        assert trained == name.startswith("controlnet_blocks."), name
    assert all(p.grad is None for p in backbone.transformer.parameters())


def test_sd3_control_copies_the_first_blocks(backbone: SD3Backbone) -> None:
    control = SD3ControlNet.from_backbone(backbone, blocks=4)
    theirs, ours = backbone.transformer.state_dict(), control.network.state_dict()
    for name in ("transformer_blocks.0.attn.to_q.weight", "transformer_blocks.3.ff.net.2.bias"):
        assert torch.equal(theirs[name], ours[name])
        assert theirs[name].data_ptr() != ours[name].data_ptr()
    with pytest.raises(UserError, match="1 to 4 blocks"):
        SD3ControlNet.from_backbone(backbone, blocks=5)
    with pytest.raises(UserError, match="is no UNet"):
        ControlNet.from_backbone(backbone)


def test_sd3_control_whose_last_block_reaches_nothing_is_noted(backbone: SD3Backbone) -> None:
    """Of 3 residuals over 5 blocks the third belongs to the last block alone, which takes none."""
    with pytest.warns(UserWarning, match="of 3 copied blocks the last is of no use"):
        SD3ControlNet.from_backbone(backbone, blocks=3)


def test_sd3_control_trains_by_the_flow_loss(backbone: SD3Backbone) -> None:
    """The loss is the mean squared error of the velocity, hints going through the VAE."""
    control = SD3ControlNet(tiny_control(2), backbone)
    z, _, _, text = sd3_inputs()
    hints = torch.randint(0, 256, (2, 1, 16, 24), generator=stream("cpu", 0), dtype=torch.uint8)
    one = Batch(torch.cat([z, z - 30], dim=1), hints, text, None)  # type: ignore[arg-type]
    loss = ControlledLoss(backbone, control, timesteps="logit_normal")(one, stream("cpu", 1))

    generator = stream("cpu", 1)
    latents = backbone.latents_from_moments(one.moments, generator)
    sigma = torch.randn(2, generator=generator).sigmoid()
    sigma = 3 * sigma / (1 + 2 * sigma)
    noise = torch.randn(z.shape, generator=generator)
    level = sigma[:, None, None, None]
    noisy = (1 - level) * latents + level * noise
    hint = control.hint_latents(backbone, (hints / 255).expand(-1, 3, -1, -1))
    output = control.predict(backbone, noisy, hint, sigma * 1000, text)
    assert torch.allclose(loss, (output - (noise - latents)).square().mean(), rtol=1e-4)

    loss.backward()
    used = [p.grad is not None and bool(p.grad.any()) for p in control.trainable(True)]
    assert len(used) == 2 + 2 * 2 and all(used)


@pytest.mark.parametrize(
    "changes", [{}, {"use_pos_embed": False, "joint_attention_dim": None}], ids=str
)
@torch.no_grad()
def test_sd3_control_folders_equal_diffusers(
    backbone: SD3Backbone, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Written by us and read by diffusers, and the other way round, number for number."""
    from diffusers import SD3ControlNetModel

    network = tiny_control(3, **changes)
    control = SD3ControlNet(network, backbone)
    control.config["zeroconv"] = {"condition": "depth", "base": "tiny-sd3"}
    control.save(tmp_path / "ours")
    network.save_pretrained(tmp_path / "theirs")
    read = SD3ControlNetModel.from_pretrained(tmp_path / "ours")
    for name, value in network.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)

    z, hint, t, text = sd3_inputs()
    expected = control(z, hint, t, text)
    for folder, condition in (("ours", "depth"), ("theirs", None)):
        again = load_net(tmp_path / folder, backbone)
        assert isinstance(again, SD3ControlNet) and again.condition == condition
        for a, b in zip(again(z, hint, t, text), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_head_dim": 16, "caption_projection_dim": 32}, "its tokens are 32 wide"),
        ({"in_channels": 8}, "its latents are 8 wide"),
        ({"joint_attention_dim": 14}, "its text states are 14 wide"),
        ({"num_layers": 6}, "it has 6 blocks"),
    ],
)
def test_sd3_control_of_another_base_is_refused(
    backbone: SD3Backbone, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    tiny_control(1, **changes).save_pretrained(tmp_path / "control")
    with pytest.raises(UserError, match=message):
        SD3ControlNet.load(tmp_path / "control", backbone=backbone)


def test_sd3_control_refuses_hints_it_cannot_read(backbone: SD3Backbone) -> None:
    z, hint, t, text = sd3_inputs()
    control = SD3ControlNet(tiny_control(1), backbone)
    with pytest.raises(UserError, match="hint has 3"):
        control(z, hint[:, :3], t, text)
    with pytest.raises(UserError, match="with holes"):
        control.hint_latents(backbone, torch.full((1, 3, 16, 16), -1.0))
    masked = SD3ControlNet(tiny_control(1, extra_conditioning_channels=1), backbone)
    with pytest.raises(UserError, match="hints of 5 channels, but the hint has 4"):
        masked(z, hint, t, text)
    with pytest.raises(UserError, match="needs pooled"):
        control(z, hint, t, TextStates(text.hidden))
