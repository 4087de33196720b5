"""Controls of other kinds, written in each published layout by these tests: read back, converted
there and back, and told apart.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.tiny import doubled, inputs, randomise_, tiny_backbone, tiny_backbone_xl
from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import load_net
from zeroconv.checkpoints import convert, diffusers_to_original, identify
from zeroconv.control import ControlNet, ControlNetUnion
from zeroconv.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd() -> UNetBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def xl() -> UNetBackbone:
    return tiny_backbone_xl()


def equal(a: Any, b: Any) -> bool:
    first, second = a.state_dict(), b.state_dict()
    same = first.keys() == second.keys()
    return same and all(torch.equal(first[key], second[key]) for key in first)


# ---------------------------------------------------------------- Union


@pytest.mark.parametrize("kinds", [6, 8])
@pytest.mark.parametrize("base", ["sd", "xl"])
def test_union_is_diffusers_own_and_comes_back(
    base: str, kinds: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from diffusers import ControlNetUnionModel

    backbone = request.getfixturevalue(base)
    config = backbone.encoder.config
    net = randomise_(ControlNetUnion.from_backbone(backbone, num_control_type=kinds))
    torch.nn.init.normal_(net.spatial_ch_projs.weight)
    net.save(tmp_path / "net")
    # in float64: sums of many terms that cancel leave more than 1e-5 of float32's rounding
    theirs: Any = ControlNetUnionModel.from_pretrained(tmp_path / "net").double()
    exact = copy.deepcopy(net).double()
    z, hint, t, text = doubled(*inputs(backbone, n=1))
    added = None
    if config["addition_embed_type"]:
        added = {"text_embeds": text.pooled, "time_ids": text.time_ids}
    modes, scales = [3, 1], [0.7, 0.4]
    with torch.no_grad():
        for count in (1, 2):
            there = torch.zeros(1, kinds)
            there[0, modes[:count]] = 1
            down, middle = theirs(
                *(z, t, text.hidden, [hint, 1 - hint][:count], there, modes[:count]),
                *(scales[:count] if count == 2 else 1.0,),
                added_cond_kwargs=added,
                return_dict=False,
            )
            hints = [
                (mode, exact.embed_hint(one), scale if count == 2 else 1.0)
                for mode, one, scale in zip(modes, [hint, 1 - hint], scales, strict=True)
            ][:count]
            ours = exact.forward_several(z, hints, t, text)
            for a, b in zip(ours, [*down, middle], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

    again = ControlNet.load(tmp_path / "net", backbone=backbone)
    assert isinstance(again, ControlNetUnion) and equal(again, net) and again.kinds == net.kinds
    # xinsir's own class name; no config at all
    table = json.loads((tmp_path / "net" / "config.json").read_text())
    for name in ("ControlNetModel_Union", "ControlNetModel"):
        (tmp_path / "net" / "config.json").write_text(json.dumps({**table, "_class_name": name}))
        assert equal(load_net(tmp_path / "net", backbone), net)
    bare = load_net(tmp_path / "net" / WEIGHTS, backbone)
    assert isinstance(bare, ControlNetUnion) and equal(bare, net)


def test_union_converts_there_and_back(xl: UNetBackbone, tmp_path: Path) -> None:
    net = randomise_(ControlNetUnion.from_backbone(xl))
    net.save(tmp_path / "net", dtype=torch.float16)
    one = convert(tmp_path / "net", tmp_path / "one.safetensors", "original")
    back = convert(one, tmp_path / "back", "diffusers")
    before, after = load_file(tmp_path / "net" / WEIGHTS), load_file(back / WEIGHTS)
    assert before.keys() == after.keys() == load_file(one).keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert isinstance(ControlNet.load(back, backbone=xl), ControlNetUnion)
    assert isinstance(ControlNet.load(one, backbone=xl), ControlNetUnion)
    assert identify(one).name == identify(back).name == "union"


def test_union_kinds_are_conditions_by_all_their_names(sd: UNetBackbone) -> None:
    net = ControlNetUnion.from_backbone(sd, num_control_type=8)
    for names, number, condition in (
        (("openpose", "OpenPose", "pose", "dw_openpose", 0), 0, "pose"),
        (("depth", "Depth", 1), 1, "depth"),
        (("scribble", "fake_scribble"), 2, "scribble"),
        (("hed", "Soft Edge", "softedge"), 2, "softedge"),
        (("canny", "Hard Edge", 3), 3, "canny"),
        (("lineart",), 3, "lineart"),
        (("mlsd", "lines"), 3, "lines"),
        (("normal", "Normal Map", "normalbae"), 4, "normal"),
        (("segment", "Segmentation", "seg", 5), 5, "segmentation"),
        (("tile", "Tile"), 6, "tile"),
        (("repaint", "Inpaint", 7), 7, "inpaint"),
    ):
        for name in names:
            view = net.of_kind(name)
            assert (view.kind, view.condition) == (number, condition), name
    assert net.kind is None and net.condition is None
    hole = torch.rand(1, 3, 64, 64)
    hole[..., :32] = -1
    with torch.no_grad():
        assert torch.equal(net.embed_hint(hole), net.embed_hint(hole.clamp(min=0)))


def test_union_class_refuses_a_plain_control(sd: UNetBackbone, tmp_path: Path) -> None:
    ControlNet.from_backbone(sd).save(tmp_path / "net")
    with pytest.raises(UserError, match="no ControlNetUnionModel"):
        ControlNetUnion.load(tmp_path / "net", backbone=sd)


def test_union_of_a_damaged_file_is_said(xl: UNetBackbone, tmp_path: Path) -> None:
    ControlNetUnion.from_backbone(xl).save(tmp_path / "net")
    state = load_file(tmp_path / "net" / WEIGHTS)
    for name in ("spatial_ch_projs.weight", "transformer_layes.0.attn.in_proj_weight"):
        rest = {key: value for key, value in state.items() if key != name}
        save_file(rest, tmp_path / "one.safetensors")
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            load_net(tmp_path / "one.safetensors", xl)


def test_union_trains_one_kind_with_all_its_parts(sd: UNetBackbone) -> None:
    net = randomise_(ControlNetUnion.from_backbone(sd, condition="canny"))
    assert net.kind == 3 and net.condition == "canny"
    z, hint, t, text = inputs(sd)
    net.predict(sd, z, hint, t, text).square().mean().backward()
    assert {id(p) for p in net.trainable()} == {id(p) for p in net.parameters()}
    assert net.task_embedding.grad is not None and net.spatial_ch_projs.weight.grad is not None


# ---------------------------------------------------------------- T2I-Adapter


def original_names(state: dict[str, Tensor], each: int, light: bool) -> dict[str, Tensor]:
    """diffusers' adapter as TencentARC names it, by another way than the one under test."""
    made = {}
    for key, value in state.items():
        _, first, *rest = key.split(".")
        if first == "conv_in":
            name = f"conv_in.{rest[0]}"
        elif light:
            name = ".".join([first, *(p if p != "resnets" else "body" for p in rest)])
        elif rest[1] == "in_conv":
            name = f"body.{int(rest[0]) * each}.in_conv.{rest[2]}"
        else:
            name = f"body.{int(rest[0]) * each + int(rest[2])}.{rest[3]}.{rest[4]}"
        made[name] = value
    return made


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("sd", {"channels": [16, 32, 32, 48]}),
    "grey": ("sd", {"channels": [16, 32, 32, 48], "in_channels": 1, "num_res_blocks": 3}),
    "xl": ("xl", {"downscale_factor": 16, "adapter_type": "full_adapter_xl"}),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_t2i_adapter_reads_each_layout(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from diffusers import T2IAdapter

    base, config = ADAPTERS[name]
    backbone = request.getfixturevalue(base)
    if base == "xl":
        widths = list(backbone.unet.config.block_out_channels)
        config = {**config, "channels": [*widths, widths[-1]]}
    theirs: Any = T2IAdapter(**config)
    theirs.save_pretrained(tmp_path / "folder")
    each = theirs.config.num_res_blocks
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    save_file(original_names(state, each, False), tmp_path / "original.safetensors")
    torch.save(original_names(state, each, False), tmp_path / "original.pth")

    first = load_net(tmp_path / "folder", backbone)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    grey = picture[:, :1]
    seen = grey if config.get("in_channels") == 1 else picture
    with torch.no_grad():
        given = grey.expand(-1, 3, -1, -1) if seen is grey else picture
        for ours, expected in zip(first.embed_hint(given), theirs(seen), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)

    for path in ("original.safetensors", "original.pth", f"folder/{WEIGHTS}"):
        assert equal(load_net(tmp_path / path, backbone), first), path
    first.save(tmp_path / "ours")
    assert equal(load_net(tmp_path / "ours", backbone), first)
    out = convert(tmp_path / "ours", tmp_path / "theirs", "diffusers")
    assert equal(load_net(out, backbone), first)

    one = convert(tmp_path / "folder", tmp_path / "one.safetensors", "original")
    assert load_file(one).keys() == original_names(state, each, False).keys()
    back = convert(one, tmp_path / "back", "diffusers")
    assert all(torch.equal(load_file(back / WEIGHTS)[key], state[key]) for key in state)
    again: Any = T2IAdapter.from_pretrained(back)
    assert all(again.config[key] == theirs.config[key] for key in config)


def test_t2i_adapter_for_colours_reads_each_layout(tmp_path: Path) -> None:
    from diffusers import T2IAdapter

    theirs: Any = T2IAdapter(channels=[16, 32, 48], num_res_blocks=3, adapter_type="light_adapter")
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    save_file(original_names(state, 3, True), tmp_path / "color.safetensors")
    back = convert(tmp_path / "color.safetensors", tmp_path / "back", "diffusers")
    again: Any = T2IAdapter.from_pretrained(back)
    assert all(torch.equal(again.state_dict()[key], state[key]) for key in state)
    one = convert(back, tmp_path / "one.safetensors", "original")
    assert load_file(one).keys() == original_names(state, 3, True).keys()


def test_t2i_adapter_of_strange_tensors_is_said(sd: UNetBackbone, tmp_path: Path) -> None:
    for state, reason in (
        ({"body.0.block1.weight": torch.zeros(4, 4, 3, 3)}, "4 levels"),
        ({f"body.{i}.block1.weight": torch.zeros(4, 4, 3, 3) for i in range(4)}, "lacks"),
        ({f"body.{i}.skep.weight": torch.zeros(4, 4, 3, 3) for i in range(4)}, "unknown"),
    ):
        save_file({**state}, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match=reason):
            load_net(tmp_path / "x.safetensors", sd)


# ---------------------------------------------------------------- Control-LoRA


def pairs_of(backbone: UNetBackbone, rank: int = 3) -> tuple[dict[str, Tensor], ControlNet]:
    """The tensors of a Control-LoRA as Stability AI publishes them, and the control it makes."""
    control = randomise_(ControlNet.from_backbone(backbone))
    base = backbone.encoder.state_dict()
    drawn = torch.Generator().manual_seed(6)
    state = {"lora_controlnet": torch.tensor([])}
    made = control.state_dict()
    updates = {}
    for key, weight in base.items():
        if weight.ndim < 2:
            continue
        up = 0.1 * torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=drawn)
        down = 0.1 * torch.randn(rank, *weight.shape[1:], generator=drawn)
        made[f"copy.{key}"] = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        updates[key] = (up, down)
    control.load_state_dict(made)

    from zeroconv.control.files import diffusers_state

    named = diffusers_state(control)
    whole = diffusers_to_original(named, prefix="")
    # which name a tensor got: by its memory
    names = {value.data_ptr(): key for key, value in whole.items()}
    for key, value in whole.items():
        state[key] = value.contiguous()
    for key, (up, down) in updates.items():
        name = names[named[key].data_ptr()]
        del state[name]
        state[name.removesuffix(".weight") + ".up"] = up
        state[name.removesuffix(".weight") + ".down"] = down
    return state, control


@pytest.mark.parametrize("base", ["sd", "xl"])
def test_control_lora_is_the_controlnet_that_it_makes(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone = request.getfixturevalue(base)
    state, control = pairs_of(backbone)
    path = tmp_path / "control-lora.safetensors"
    save_file(state, path)
    assert identify(path).name == "control_lora"
    net = load_net(path, backbone)
    batch = inputs(backbone)
    with torch.no_grad():
        for ours, expected in zip(net(*batch), control(*batch), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    for ours, expected in zip(net.parameters(), control.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    net.save(tmp_path / "net")
    assert equal(load_net(tmp_path / "net", backbone), net)


def test_control_lora_needs_its_base(sd: UNetBackbone, xl: UNetBackbone, tmp_path: Path) -> None:
    state, _ = pairs_of(sd)
    path = tmp_path / "one.safetensors"
    save_file(state, path)
    with pytest.raises(UserError, match="low-rank updates of its base"):
        ControlNet.load(path)
    with pytest.raises(UserError, match="low-rank updates of its base"):
        convert(path, tmp_path / "out", "diffusers")
    with pytest.raises(UserError, match="another base"):
        load_net(path, xl)
    name = next(key for key in state if key.endswith(".down"))
    save_file({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(UserError, match=r"only one of \.up and \.down"):
        load_net(path, sd)


# ---------------------------------------------------------------- ControlNet-XS


def test_controlnet_xs_reads_diffusers_folder_and_comes_back(
    sd: UNetBackbone, xl: UNetBackbone, tmp_path: Path
) -> None:
    from diffusers import ControlNetXSAdapter

    widths = {"conditioning_embedding_out_channels": (4, 8, 8, 8)}
    theirs = randomise_(ControlNetXSAdapter.from_unet(sd.unet, size_ratio=0.5, **widths))
    theirs.save_pretrained(tmp_path / "net")
    net = load_net(tmp_path / "net", sd)
    net.save(tmp_path / "ours")
    assert equal(load_net(tmp_path / "ours", sd), net)

    back = convert(tmp_path / "ours", tmp_path / "back", "diffusers")
    state, again = theirs.state_dict(), ControlNetXSAdapter.from_pretrained(back).state_dict()
    assert all(torch.equal(state[key], again[key]) for key in state)
    with pytest.raises(UserError, match="made for another base"):
        load_net(tmp_path / "net", xl)
    with pytest.raises(UserError, match="without its config"):
        load_net(tmp_path / "net" / WEIGHTS, sd)
