"""`convert` of LLLite and IP-Adapter files, and what it says of kinds with one layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.tiny import inputs, tiny_backbone, tiny_backbone_xl
from tests.helpers.tiny_ip_adapter import tiny_ip_adapter
from zeroconv.baselines import load_net, make_baseline
from zeroconv.checkpoints.controls.ip_adapter import read_ip_adapter
from zeroconv.checkpoints.controls.lllite import PREFIX, lllite_names
from zeroconv.checkpoints.convert import convert
from zeroconv.checkpoints.renaming import to_diffusers, to_original
from zeroconv.errors import UserError
from zeroconv.layers.attention import attentions

BACKBONES = {"sd": tiny_backbone, "xl": tiny_backbone_xl}


@pytest.mark.parametrize("family", BACKBONES)
def test_lllite_names_both_ways_are_those_of_the_unet(family: str) -> None:
    unet = BACKBONES[family]().unet
    names: dict[tuple[str, str], list[str]] = {}
    for name, target in lllite_names(unet.state_dict(), attentions(unet)).items():
        names.setdefault(target, []).append(name.removeprefix(PREFIX))
    assert len(names) > 20
    for original, ours in names.values():
        assert to_diffusers(original) == ours == to_diffusers(ours)
        assert to_original(ours) == original == to_original(original)
    assert to_diffusers("input_blocks_x_1_transformer_blocks_0") is None
    assert to_original("proj_in") is None


def test_lllite_converted_both_ways_is_the_same_network(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    net = make_baseline("lllite", backbone, cond_dim=8, mlp_dim=12)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net.save(tmp_path / "folder")
    one = convert(tmp_path / "folder", tmp_path / "original.safetensors", "original")
    two = convert(one, tmp_path / "diffusers.safetensors", "diffusers")
    back = convert(two, tmp_path / "back.safetensors", "original")
    first, second, third = map(load_file, (one, two, back))
    assert first.keys() == third.keys() and not first.keys() & second.keys()
    assert all(torch.equal(first[key], third[key]) for key in first)
    assert any(key.startswith("lllite_unet_down_blocks_") for key in second)
    z, hint, t, text = inputs(backbone, 1)
    made = [load_net(path, backbone).predict(backbone, z, hint, t, text) for path in (one, two)]
    assert torch.equal(*made)
    with pytest.raises(UserError, match=r"one file in either layout; give a name"):
        convert(one, tmp_path / "a folder", "diffusers")
    convert(one, tmp_path / "diffusers.safetensors", "diffusers")  # again, over its own


def test_lllite_of_no_unet_is_refused(tmp_path: Path) -> None:
    save_file({"lllite_unet_a_b.down.0.weight": torch.ones(1, 1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="has the module lllite_unet_a_b, which is none"):
        convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "diffusers")


@pytest.mark.parametrize("form", ["base", "plus", "full"])
def test_ip_adapter_bin_becomes_safetensors(form: str, tmp_path: Path) -> None:
    parts = tiny_ip_adapter(form, tiny_backbone())
    torch.save(parts, tmp_path / "ip.bin")
    made = convert(tmp_path / "ip.bin", tmp_path / "ip.safetensors", "original")
    before, after = read_ip_adapter(tmp_path / "ip.bin"), read_ip_adapter(made)
    for one, other in ((before.projection, after.projection), (before.attention, after.attention)):
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    flat = {f"{part}.{k}" for part, tensors in parts.items() for k in tensors}
    assert load_file(made).keys() == flat  # as published
    with pytest.raises(UserError, match="diffusers reads in its published layout alone"):
        convert(made, tmp_path / "folder", "diffusers")


def kinds(folder: Path) -> dict[str, Path]:
    backbone = tiny_backbone()
    for kind in ("concat", "side", "lora"):
        make_baseline(kind, backbone).save(folder / kind)
    backbone.vae.save_pretrained(folder / "vae")
    lora = {"lora_unet_x.lora_down.weight": torch.ones(1, 1)}
    save_file(lora, folder / "kohya.safetensors")
    low = {"lora_controlnet": torch.zeros(1)}
    save_file(low, folder / "control-lora.safetensors")
    names = ("concat", "side", "lora", "vae", "kohya.safetensors", "control-lora.safetensors")
    return {name: folder / name for name in names}


def test_convert_says_of_every_other_kind_why_it_stays(tmp_path: Path) -> None:
    for path in kinds(tmp_path).values():
        for to, name in (("diffusers", "out"), ("original", "out.safetensors")):
            with pytest.raises(UserError, match="so there is nothing to convert") as error:
                convert(path, tmp_path / name, to)
            assert "\n" not in str(error.value) and not (tmp_path / name).exists()
