"""ControlNet-LLLite against its formula written out by hand, its files, and its use beside
others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.helpers.tiny import inputs, randomise_, tiny_backbone, tiny_backbone_xl
from zeroconv.baselines import load_net, make_baseline
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate


def made(backbone: Any, seed: int = 3, scale: float = 0.2) -> Any:
    """A LLLite with random weights everywhere."""
    net = make_baseline("lllite", backbone, cond_dim=8, mlp_dim=12)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return net


def by_hand(backbone: Any, state: dict[str, Tensor], names: dict[str, str], scale: float):
    """kohya's formula on the UNet's own layers: handles of hooks, and a way to show a hint.

    names: a module's name in the file → the projection's name in the UNet.
    """
    hint: dict[str, Tensor] = {}
    handles = []

    def hook(module: str):
        tensors = {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{module}.")}

        def before(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x, c, i = given[0], 2 * hint["hint"] - 1, 0
            while f"conditioning1.{i}.weight" in tensors:
                weight = tensors[f"conditioning1.{i}.weight"]
                c = c.relu() if i else c
                c = nn.functional.conv2d(
                    c, weight, tensors[f"conditioning1.{i}.bias"], weight.shape[-1]
                )
                i += 2
            c = c.reshape(len(c), c.shape[1], -1).permute(0, 2, 1)
            linear = nn.functional.linear
            down = linear(x, tensors["down.0.weight"], tensors["down.0.bias"]).relu()
            joined = torch.cat([c.repeat(len(x) // len(c), 1, 1), down], 2)
            mid = linear(joined, tensors["mid.0.weight"], tensors["mid.0.bias"]).relu()
            return (x + scale * linear(mid, tensors["up.0.weight"], tensors["up.0.bias"]),)

        return before

    for module, layer in names.items():
        projection = backbone.unet.get_submodule(layer)
        handles.append(projection.register_forward_pre_hook(hook(module)))
    return hint, handles


ORIGINAL = {  # SD 1.x with one transformer layer: input block → diffusers' attention
    "input_blocks_1_1": "down_blocks.0.attentions.0",
    "input_blocks_2_1": "down_blocks.0.attentions.1",
    "input_blocks_4_1": "down_blocks.1.attentions.0",
    "input_blocks_5_1": "down_blocks.1.attentions.1",
    "input_blocks_7_1": "down_blocks.2.attentions.0",
    "input_blocks_8_1": "down_blocks.2.attentions.1",
    "middle_block_1": "mid_block.attentions.0",
}
ORIGINAL_XL = {
    "input_blocks_4_1": "down_blocks.1.attentions.0",
    "input_blocks_5_1": "down_blocks.1.attentions.1",
    "input_blocks_7_1": "down_blocks.2.attentions.0",
    "input_blocks_8_1": "down_blocks.2.attentions.1",
    "middle_block_1": "mid_block.attentions.0",
}


def layer_of(module: str, blocks: dict[str, str]) -> str:
    block, _, rest = module.removeprefix("lllite_unet_").partition("_transformer_blocks_")
    number, attention, projection = rest.split("_", 2)
    return f"{blocks[block]}.transformer_blocks.{number}.{attention}.{projection}"


@pytest.mark.parametrize(
    ("make", "blocks"), [(tiny_backbone, ORIGINAL), (tiny_backbone_xl, ORIGINAL_XL)]
)
def test_lllite_is_its_formula_in_both_layouts_of_names(
    make: Any, blocks: dict[str, str], tmp_path: Path
) -> None:
    backbone = make()
    net = made(backbone)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    z, hint, t, text = inputs(backbone)
    names = {module: layer_of(module, blocks) for module in {k.split(".")[0] for k in state}}
    assert len(names) == len(net._targets)
    shown, handles = by_hand(backbone, state, names, 1.0)
    shown["hint"] = hint
    with torch.no_grad():
        expected = backbone.predict(z, t, text)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        plain = backbone.predict(z, t, text)
        assert torch.allclose(net.predict(backbone, z, hint, t, text), expected, atol=1e-5)
        assert not torch.allclose(plain, expected, atol=1e-3)
        assert torch.equal(backbone.predict(z, t, text), plain)

    theirs = {
        f"lllite_unet_{names[key.split('.')[0]].replace('.', '_')}.{key.split('.', 1)[1]}": value
        for key, value in state.items()
    }
    for i, each in enumerate((state, theirs)):
        save_file(each, tmp_path / f"{i}.safetensors")
        read = load_net(tmp_path / f"{i}.safetensors", backbone)
        with torch.no_grad():
            assert torch.equal(
                read.predict(backbone, z, hint, t, text),
                net.predict(backbone, z, hint, t, text),
            )


def test_lllite_is_saved_as_a_file_that_others_read(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    net = made(backbone)
    net.save(tmp_path / "net")
    state = load_file(tmp_path / "net" / "diffusion_pytorch_model.safetensors")
    assert state.keys() == net.state_dict().keys()
    assert all(key.startswith("lllite_unet_") for key in state)
    first = next(iter(state)).partition(".")[0]
    sizes = {k.partition(".")[2]: list(v.shape) for k, v in state.items() if k.startswith(first)}
    assert sizes["mid.0.weight"] == [12, 12 + 8]
    assert sizes["conditioning1.0.weight"] == [4, 3, 4, 4]
    assert isinstance(load_net(tmp_path / "net", backbone), type(net))


def test_lllite_of_another_base_is_refused(tmp_path: Path) -> None:
    save_file(made(tiny_backbone_xl()).state_dict(), tmp_path / "xl.safetensors")
    with pytest.raises(UserError, match="made for another base"):
        load_net(tmp_path / "xl.safetensors", tiny_backbone())
    save_file({"lllite_unet_x.down.0.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="no projection for"):
        load_net(tmp_path / "odd.safetensors", tiny_backbone())


@pytest.fixture(scope="module")
def world() -> tuple[Any, Any, Any, Tensor]:
    """A base, a LLLite, a ControlNet whose connections are not zero, and a hint."""
    backbone = tiny_backbone()
    torch.manual_seed(0)  # of the hint encoder
    control = randomise_(ControlNet.from_backbone(backbone)).eval()
    hint = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    return backbone, made(backbone).eval(), control, hint


def pictures(backbone: Any, controls: list[Control], **more: Any) -> Tensor:
    given: dict[str, Any] = {"steps": 3, "scheduler": "ddim", "output": "tensor", "cfg": 4.0}
    given |= {"height": 64, "width": 64, "guidance": "both", **more}
    return torch.stack(generate(backbone, ["a ball", "a cube"], controls, **given))


@pytest.mark.parametrize("scale", [0.6, -1.0])
def test_lllite_beside_a_controlnet_is_the_formula_in_the_loop(world: Any, scale: float) -> None:
    backbone, net, control, hint = world
    state = net.state_dict()
    names = {module: layer_of(module, ORIGINAL) for module in net._targets}
    plain = pictures(backbone, [Control(control, hint)])
    ours = pictures(backbone, [Control(control, hint), Control(net, hint, scale=scale)])
    shown, handles = by_hand(backbone, state, names, scale)
    shown["hint"] = hint[None]
    try:
        theirs = pictures(backbone, [Control(control, hint)])
    finally:
        for handle in handles:
            handle.remove()
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float((ours - plain).abs().max()) > 2e-3
    assert torch.equal(pictures(backbone, [Control(control, hint)]), plain)  # nothing leaks


def test_lllite_heeds_scale_window_region_and_halves(world: Any) -> None:
    backbone, net, _, hint = world
    plain = pictures(backbone, [])
    whole = pictures(backbone, [Control(net, hint)])
    assert torch.equal(pictures(backbone, [Control(net, hint, scale=0.0)]), plain)
    late = pictures(backbone, [Control(net, hint, start=0.9, end=0.95)])
    assert torch.equal(late, plain)  # a window between two steps
    everywhere = pictures(backbone, [Control(net, hint, region=torch.ones(64, 64))])
    assert torch.allclose(everywhere, whole, atol=1e-5)
    nowhere = pictures(backbone, [Control(net, hint, region=torch.zeros(64, 64))])
    assert torch.allclose(nowhere, plain, atol=1e-5)
    each = pictures(backbone, [Control(net, hint, scale=[1.0, 0.0])])
    assert torch.allclose(each[0], whole[0], atol=1e-5)
    assert torch.allclose(each[1], plain[1], atol=1e-5)
    half = pictures(backbone, [Control(net, hint, conditional_only=True)])
    assert not torch.allclose(half, whole, atol=1e-3)
    same: dict[str, Any] = {"negative": ["a ball", "a cube"]}
    apart = pictures(backbone, [Control(net, hint, conditional_only=True)], **same)
    assert not torch.allclose(apart, pictures(backbone, [Control(net, hint)], **same), atol=1e-3)


@pytest.mark.parametrize("wrong", [{"mode": "prompt"}, {"connection_scales": "guess"}])
def test_lllite_refuses_what_needs_residuals(world: Any, wrong: dict[str, Any]) -> None:
    backbone, net, _, hint = world
    with pytest.raises(UserError, match="residuals"):
        pictures(backbone, [Control(net, hint, **wrong)])


def test_lllite_sees_a_hint_that_ends_within_a_cell() -> None:
    """A picture of 72×56 pixels: levels of 9×7, 5×4, 3×2 and 2×1 positions."""
    backbone = tiny_backbone()
    net = made(backbone).eval()
    z, text = torch.randn(1, 4, 9, 7), backbone.embed_text(["a ball"])
    with torch.no_grad():
        output = net.predict(backbone, z, torch.rand(1, 3, 72, 56), torch.tensor([500]), text)
    assert output.shape == z.shape and bool(output.isfinite().all())
