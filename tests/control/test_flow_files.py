"""ControlNets of diffusion transformers in one file, in every published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import flow_bases, tiny_flow
from tests.helpers.flow_files import write
from zeroconv.backbones import load_backbone
from zeroconv.checkpoints import convert, identify
from zeroconv.checkpoints.flow.controls import read_flow_control
from zeroconv.cli.info.report import describe
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate

# per base, its controls as people publish them
NETWORKS: dict[str, tuple[str, Any]] = {
    "FLUX": ("flux", lambda: tiny_flow.flux_control(2, 3)),
    "FLUX union": ("flux", lambda: tiny_flow.flux_control(1, 1, num_mode=7)),
    "FLUX XLabs": ("flux", lambda: tiny_flow.flux_control(2, conditioning_embedding_channels=64)),
    "SD3": ("sd3", lambda: tiny_flow.sd3_control(2)),
    "SD3 inpaint": ("sd3", lambda: tiny_flow.sd3_control(2, extra_conditioning_channels=1)),
    "SD3.5 8B": ("sd3", lambda: stability()),
    "Qwen": ("qwen", lambda: tiny_flow.qwen_control(2)),
    "Qwen inpaint": ("qwen", lambda: tiny_flow.qwen_control(2, extra_condition_channels=4)),
    "Z-Image 1": ("zimage", lambda: tiny_flow.zimage_control()),
    "Z-Image 2.0": ("zimage", lambda: zimage("control_layers")),
    "Z-Image 2.1": ("zimage", lambda: zimage("control_noise_refiner")),
}


def stability() -> Any:
    return tiny_flow.sd3_control(
        3, joint_attention_dim=None, use_pos_embed=False, pos_embed_type=None,
        force_zeros_for_pooled_projection=False,
    )  # fmt: skip


def zimage(refiner: str) -> Any:
    channels = 2 * tiny_flow.CHANNELS + 1
    return tiny_flow.zimage_control(control_in_dim=channels, add_control_noise_refiner=refiner)


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return flow_bases.bases()


@torch.no_grad()
def residuals(control: Any, base: Any) -> list[Tensor]:
    z, _, t = tiny_flow.inputs()
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    hint = pixels if control.hint_space == "pixels" else control.hint_latents(base, pixels)
    if hasattr(control, "of_kind"):
        control = control.of_kind("depth")
    return control(z, hint, t, base.embed_text(["a red ball", "two cubes"]))


def same(control: Any, network: Any, base: Any) -> bool:
    """The same residuals as of the control around diffusers' network, but for the order of sums in
    convolutions, whose weights are laid out for speed.
    """
    ours = residuals(control, base)
    theirs = residuals(type(control)(network, base), base)
    close = [tiny_flow.relative(a, b) < 1e-5 for a, b in zip(ours, theirs, strict=True)]
    return bool(close) and all(close)


POOLED = pytest.mark.filterwarnings("ignore:.*does not say whether it reads pooled text")


@POOLED
@pytest.mark.parametrize("name", NETWORKS)
def test_flow_control_in_one_file_is_its_folder(bases, tmp_path: Path, name: str) -> None:
    """diffusers' names without a config: each number is read off the shapes, or the base's."""
    family, make = NETWORKS[name]
    base, network = bases[family], make()
    file = tmp_path / "control.safetensors"
    state = dict(network.state_dict())
    if name == "Z-Image 2.0":  # published with blocks that nothing reads, not joined to the chain
        more = zimage("control_noise_refiner").state_dict()
        state |= {k: v for k, v in more.items() if k.startswith("control_noise_refiner.")}
        for end in ("weight", "bias"):
            state[f"control_noise_refiner.0.before_proj.{end}"].zero_()
    save_file(state, file)
    control: Any = ControlNet.load(file, backbone=base)
    unread = "pos_embed_max_size" if name == "SD3.5 8B" else ""  # it has no positions
    for key, value in control.config.items():
        if key in network.config and key not in ("out_channels", unread):
            theirs = network.config[key]
            assert (list(value) if isinstance(value, tuple) else value) == (
                list(theirs) if isinstance(theirs, tuple) else theirs
            ), key
    assert same(control, network, base)


def xlabs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of XLabs' own repository, written out by hand."""
    plain = {
        "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "context_embedder": "txt_in",
        "x_embedder": "img_in",
        "controlnet_x_embedder": "pos_embed_input",
        "input_hint_block.conv_in": "input_hint_block.0",
        "input_hint_block.conv_out": "input_hint_block.14",
        **{f"input_hint_block.blocks.{i}": f"input_hint_block.{2 * i + 2}" for i in range(6)},
        **{f"controlnet_blocks.{i}": f"controlnet_blocks.{i}" for i in range(2)},
    }
    inner = {
        "norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin",
        "attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj",
        "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2",
    }  # fmt: skip
    out = {}
    for i in range(2):
        ours, theirs = f"transformer_blocks.{i}.", f"double_blocks.{i}."
        plain |= {ours + a: theirs + b for a, b in inner.items()}
        for side, names in (("img", "to_{}"), ("txt", "add_{}_proj")):
            added = "added_" if side == "txt" else ""
            for end in ("weight", "bias"):
                parts = [state[f"{ours}attn.{names.format(x)}.{end}"] for x in "qkv"]
                out[f"{theirs}{side}_attn.qkv.{end}"] = torch.cat(parts)
            for letter, word in (("q", "query"), ("k", "key")):
                value = state[f"{ours}attn.norm_{added}{letter}.weight"]
                out[f"{theirs}{side}_attn.norm.{word}_norm.scale"] = value
    for ours, theirs in plain.items():
        for end in ("weight", "bias"):
            out[f"{theirs}.{end}"] = state[f"{ours}.{end}"]
    return out


def stability_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of Stability AI's files, written out by hand."""
    inner = {"attn.proj": "attn.to_out.0", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2",
             "adaLN_modulation.1": "norm1.linear"}  # fmt: skip
    out = {k: v for k, v in state.items() if not k.startswith("transformer_blocks.")}
    for i in range(3):
        for end in ("weight", "bias"):
            start = f"transformer_blocks.{i}."
            parts = [state[f"{start}attn.to_{x}.{end}"] for x in "qkv"]
            out[f"{start}attn.qkv.{end}"] = torch.cat(parts)
            out |= {f"{start}{a}.{end}": state[f"{start}{b}.{end}"] for a, b in inner.items()}
    return out


@pytest.mark.parametrize(("name", "names"), [("FLUX XLabs", xlabs), ("SD3.5 8B", stability_names)])
def test_flow_control_in_its_authors_layout_loads_and_converts(
    bases, tmp_path: Path, name: str, names: Any
) -> None:
    """What diffusers does not read, to its folder and back, tensor for tensor."""
    family, make = NETWORKS[name]
    base, network = bases[family], make()
    original = names(network.state_dict())
    file = write(original, tmp_path / "control.safetensors")
    assert identify(file).name == f"{family}_control"
    control: Any = ControlNet.load(file, backbone=base)
    assert same(control, network, base)

    control.save(tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "back.safetensors", "original")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == original.keys()
    assert all(torch.equal(value, original[key]) for key, value in back.items())
    # the header of our own file holds the config, so no base is needed
    convert(tmp_path / "back.safetensors", tmp_path / "again", "diffusers")
    read = control.network_class().from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(read[key], value) for key, value in network.state_dict().items())
    told = describe(str(tmp_path / "back.safetensors"))
    assert told["names"] == "the original ones" and told["needs"].startswith("a base of")


@POOLED
@pytest.mark.parametrize(
    "name",
    [
        "FLUX union",
        pytest.param("SD3 inpaint", marks=pytest.mark.slow),
        pytest.param("Qwen", marks=pytest.mark.slow),
        "Z-Image 2.1",
    ],
)
def test_flow_control_folder_to_one_file_and_back(bases, tmp_path: Path, name: str) -> None:
    family, make = NETWORKS[name]
    network = make()
    network.save_pretrained(tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "one.safetensors", "original")
    assert (
        read_flow_control(tmp_path / "one.safetensors").state.keys()
        == dict(network.named_parameters()).keys() | dict(network.named_buffers()).keys()
    )
    assert same(ControlNet.load(tmp_path / "one.safetensors", backbone=bases[family]), network,
                bases[family])  # fmt: skip
    convert(tmp_path / "one.safetensors", tmp_path / "back", "diffusers")
    read = type(network).from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(read[key], value) for key, value in network.state_dict().items())
    told = describe(str(tmp_path / "one.safetensors"))
    assert told["kind"] == f"{ {'zimage': 'z_image'}.get(family, family) }_control"


def test_flow_control_of_published_shapes_converts_without_a_base(tmp_path: Path) -> None:
    """FLUX.1's heads of 128 channels, whose positions are known."""
    network = tiny_flow.flux_control(
        2, 0, attention_head_dim=128, num_attention_heads=1, axes_dims_rope=(16, 56, 56),
        conditioning_embedding_channels=64,
    )  # fmt: skip
    file = write(xlabs(network.state_dict()), tmp_path / "xlabs.safetensors")
    assert describe(str(file))["hint"] == "pixels (XLabs)"
    convert(file, tmp_path / "folder", "diffusers")
    read = type(network).from_pretrained(tmp_path / "folder")
    assert tuple(read.config.axes_dims_rope) == (16, 56, 56)
    assert all(map(torch.equal, read.state_dict().values(), network.state_dict().values()))


def test_flow_control_file_makes_the_pictures_of_its_folder(bases, tmp_path: Path) -> None:
    from tests.helpers.flow_parity import picture

    base, network = bases["flux"], tiny_flow.flux_control(2, 0)
    network.save_pretrained(tmp_path / "folder")
    save_file(dict(network.state_dict()), tmp_path / "one.safetensors")
    asked: dict[str, Any] = {"steps": 2, "height": 32, "width": 48, "output": "tensor"}
    asked["latents"] = tiny_flow.inputs(n=1)[0]
    one, two = (
        generate(base, "a ball", [Control(ControlNet.load(x, backbone=base), picture(1))], **asked)[
            0
        ]
        for x in (tmp_path / "folder", tmp_path / "one.safetensors")
    )
    assert torch.equal(one, two)


def test_flow_control_file_of_another_base_is_refused(bases, tmp_path: Path) -> None:
    file = tmp_path / "control.safetensors"
    save_file(dict(tiny_flow.qwen_control(1).state_dict()), file)
    with pytest.raises(
        UserError, match=r"QwenImageControlNetModel, no ControlNet of .* \(FLUX.1\)"
    ):
        ControlNet.load(file, backbone=bases["flux"])
    with pytest.raises(UserError, match=r"of Qwen-Image .* playroom is another kind of base"):
        ControlNet.load(file, backbone=load_backbone("playroom"))
    with pytest.raises(UserError, match="give its base"):
        ControlNet.load(file)
    save_file({"controlnet_blocks.0.linear.weight": torch.ones(1), **tiny_xlabs()}, file)
    with pytest.raises(UserError, match="MistoLine"):
        ControlNet.load(file, backbone=bases["flux"])
    with pytest.raises(UserError, match="is no ControlNet of a diffusion transformer but"):
        write(bases["flux"].transformer.state_dict(), file)
        ControlNet.load(file, backbone=bases["flux"])


def tiny_xlabs() -> dict[str, Tensor]:
    return {"double_blocks.0.img_mod.lin.weight": torch.ones(1)}
