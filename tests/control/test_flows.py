"""Controls of FLUX.1, Qwen-Image and Z-Image: where they start, what trains, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import flow_bases, tiny_flow
from zeroconv.control import ControlNet, is_net, new_control
from zeroconv.control.families import control_class
from zeroconv.errors import UserError

SHAPES: dict[str, dict[str, Any]] = {
    "flux": {"blocks": 2, "single_blocks": 2},
    "chroma": {"blocks": 2},
    "qwen": {"blocks": 2},
    "zimage": {"layers": [0, 2]},
}


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return {name: flow_bases.base(name) for name in SHAPES}


@pytest.mark.parametrize("name", SHAPES)
def test_flow_control_starts_as_the_frozen_model(bases, name: str) -> None:
    """The same numbers, and gradients in what joins it alone; later in all that may train."""
    base = bases[name]
    control = new_control(base, "canny", **SHAPES[name])
    assert is_net(control) and (control.condition, control.base) == ("canny", base.name)
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(["a", "red ball"])
    output = control.predict(base, z, hint, t, text)
    assert torch.equal(output, base.predict(z, t, text))

    joined = set(map(id, control.trainable(frozen_copy=True)))
    output.square().mean().backward()
    for key, parameter in control.network.named_parameters():
        if parameter.grad is not None and bool(parameter.grad.any()):
            assert id(parameter) in joined, key
    tiny_flow.randomised(control.network)
    control.predict(base, z, hint, t, text).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in control.trainable())
    assert all(p.grad is None for p in base.transformer.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_flow_control_copies_the_blocks(bases, name: str) -> None:
    base = bases[name]
    ours = new_control(base, **SHAPES[name]).network.state_dict()
    theirs = base.transformer.state_dict()
    pairs = {
        "flux": [("single_transformer_blocks.1.proj_mlp.weight",) * 2],
        "chroma": [("distilled_guidance_layer.in_proj.weight",) * 2],
        "qwen": [("transformer_blocks.1.attn.to_q.weight",) * 2, ("txt_norm.weight",) * 2],
        "zimage": [("control_layers.1.attention.to_q.weight", "layers.2.attention.to_q.weight")],
    }
    for key, source in pairs[name]:
        assert torch.equal(ours[key], theirs[source])
        assert ours[key].data_ptr() != theirs[source].data_ptr()


def test_flow_control_of_blocks_that_are_not_there_is_refused(bases) -> None:
    with pytest.raises(UserError, match="1 to 3 double blocks"):
        new_control(bases["flux"], blocks=4)
    with pytest.raises(UserError, match="0 to 5 single blocks"):
        new_control(bases["flux"], single_blocks=6)
    with pytest.raises(UserError, match="rising numbers from 0 on"):
        new_control(bases["zimage"], layers=[1, 2])
    with pytest.raises(UserError, match="has no option layers"):
        new_control(bases["qwen"], layers=[0])
    with pytest.raises(UserError, match="is no UNet"):
        ControlNet.from_backbone(bases["flux"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_flow_control_folders_equal_diffusers(bases, tmp_path: Path, name: str) -> None:
    """Written by us and read by diffusers, and the other way round, number for number."""
    base = bases[name]
    control = new_control(base, "depth", **SHAPES[name])
    tiny_flow.randomised(control.network)
    control.save(tmp_path / "ours")
    control.network.save_pretrained(tmp_path / "theirs")
    read = control_class(base).network_class().from_pretrained(tmp_path / "ours")
    for key, value in control.network.state_dict().items():
        assert torch.equal(read.state_dict()[key], value)

    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(["a", "red ball"])
    expected = control(z, hint, t, text)
    for folder, condition in (("ours", "depth"), ("theirs", None)):
        again: Any = ControlNet.load(tmp_path / folder, backbone=base)
        assert type(again) is type(control) and again.condition == condition
        for a, b in zip(again(z, hint, t, text), expected, strict=True):
            assert torch.equal(a, b)
    with pytest.raises(UserError, match="give its base"):
        ControlNet.load(tmp_path / "ours")


def test_flow_control_of_another_base_is_refused(bases, tmp_path: Path) -> None:
    flux = bases["flux"]
    changes: list[tuple[Any, str]] = [
        ({"num_attention_heads": 1}, "its tokens are 16 wide"),
        ({"joint_attention_dim": 14}, "its text states are 14 wide"),
        ({"in_channels": 32}, "its packed latents are 32 wide"),
    ]
    for number, (change, message) in enumerate(changes):
        tiny_flow.flux_control(1, 0, **change).save_pretrained(tmp_path / str(number))
        with pytest.raises(UserError, match=message):
            ControlNet.load(tmp_path / str(number), backbone=flux)
    tiny_flow.flux_control(4, 0).save_pretrained(tmp_path / "long")
    with pytest.raises(UserError, match="it has 4 double blocks"):
        ControlNet.load(tmp_path / "long", backbone=flux)
    with pytest.raises(UserError, match="no ControlNet of"):
        ControlNet.load(tmp_path / "long", backbone=bases["qwen"])
    tiny_flow.zimage_control(control_layers_places=[0, 9]).save_pretrained(tmp_path / "z")
    with pytest.raises(UserError, match="it adds to layer 9"):
        ControlNet.load(tmp_path / "z", backbone=bases["zimage"])


@torch.no_grad()
def test_flux_union_control_has_modes(bases) -> None:
    base = bases["flux"]
    net = control_class(base)(tiny_flow.flux_control(2, 0, num_mode=7), base)
    z, hint, t = tiny_flow.inputs()
    text = base.embed_text(["a", "red ball"])
    with pytest.raises(UserError, match="this is a union control"):
        net(z, hint, t, text)
    with pytest.raises(UserError, match="has no mode 'cat'"):
        net.of_kind("cat")
    canny, pose = net.of_kind("canny"), net.of_kind("openpose")
    assert (canny.mode, pose.mode, net.mode) == (0, 4, None)
    assert canny.network is net.network and pose.condition == "pose"
    assert (canny(z, hint, t, text)[0] - pose(z, hint, t, text)[0]).abs().max() > 1e-3
    assert torch.equal(net.of_kind(4)(z, hint, t, text)[0], pose(z, hint, t, text)[0])
    plain = control_class(base)(tiny_flow.flux_control(2, 0), base)
    assert hasattr(net, "of_kind") and not hasattr(plain, "of_kind")


def test_flow_hints_with_holes_are_for_controls_with_masks(bases) -> None:
    hint = torch.rand(1, 3, 32, 48)
    hint[:, :, 8:16, 8:16] = -1
    for name, base in bases.items():
        with pytest.raises(UserError, match="reads no hint with holes"):
            new_control(base, **SHAPES[name]).hint_latents(base, hint)
    masked = new_control(bases["qwen"], blocks=2, mask=True)
    latents = masked.hint_latents(bases["qwen"], hint)
    assert latents.shape == (1, 17, 8, 12)
    hole = torch.ones(8, 12)
    hole[2:4, 2:4] = 0
    assert torch.equal(latents[0, -1], hole)
    beside = new_control(bases["zimage"], layers=[0, 2], mask=True)
    both = beside.hint_latents(bases["zimage"], torch.cat([hint.clamp_min(0), hint], dim=1))
    assert both.shape == (1, 33, 8, 12) and torch.equal(both[0, 16], hole)
    alone = beside.hint_latents(bases["zimage"], hint.clamp_min(0))
    assert torch.equal(alone[:, :16], both[:, :16]) and not alone[:, 16:].any()
