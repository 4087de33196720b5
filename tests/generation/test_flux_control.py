"""FLUX Control and FLUX Fill: what is read beside the noise, equal to diffusers' pipelines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import flow_files, tiny_flow
from tests.helpers.flow_parity import PROMPT, Pair, mask, picture
from zeroconv.backbones import load_backbone
from zeroconv.baselines import load_net
from zeroconv.cli.info.report import describe
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate

HINTED = {"in_channels": 8 * tiny_flow.CHANNELS, "out_channels": 4 * tiny_flow.CHANNELS}
FILLS = {"in_channels": 4 * (2 * tiny_flow.CHANNELS + tiny_flow.SCALE**2),
         "out_channels": 4 * tiny_flow.CHANNELS}  # fmt: skip


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("control") / "flux"
    return Pair("flux", folder, guidance_embeds=True, **HINTED)


@pytest.fixture(scope="module")
def fill(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair("flux", tmp_path_factory.mktemp("fill") / "flux", **FILLS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_flow.write_flux(tmp_path_factory.mktemp("plain") / "flux", guidance_embeds=True)
    return load_backbone(folder)


def test_flux_control_makes_the_pictures_of_its_pipeline(control: Pair) -> None:
    """The base is the FLUX Control itself, whose weights are held once."""
    net = load_net(control.folder, control.backbone)
    assert [*net.parameters()] == [] and net.networks() == [control.backbone.transformer]
    ours = control.ours([Control(net, picture(1))], 4, cfg=5.0)
    theirs = control.theirs("FluxControlPipeline", 4, control_image=picture(1), guidance_scale=5.0)
    assert float((ours - theirs).abs().max()) < 1e-3
    other = control.ours([Control(net, picture(2))], 4, cfg=5.0)
    assert float((ours - other).abs().max()) > 0.01


def test_flux_control_from_its_file_on_another_base(control: Pair, plain, tmp_path: Path) -> None:
    """Of the file the transformer alone is read; text and VAE are the base's."""
    state = flow_files.transformer(control.folder, "flux")
    file = flow_files.write(state, tmp_path / "depth.safetensors")
    shutil.copytree(control.folder / "transformer", tmp_path / "folder" / "transformer")
    z, hint, t = tiny_flow.inputs()
    text = plain.embed_text(["a", "red ball"])
    wanted = control.backbone.predict(torch.cat([z, hint], dim=1), t, text)
    net = load_net(tmp_path / "folder", plain)
    assert torch.equal(net.predict_embedded(plain, z, net.embed_hint(hint), t, text), wanted)
    with pytest.raises(UserError, match="heads have 16 channels"):  # tiny ones tell no positions
        load_net(file, plain)
    made = generate(plain, PROMPT, [Control(net, picture(1))], steps=2, height=32, width=48)
    assert made[0].size == (48, 32)


def test_flux_control_without_its_hint_is_one_sentence(control: Pair, plain) -> None:
    net = load_net(control.folder, control.backbone)
    with pytest.raises(UserError, match="is a FLUX Control, which needs a hint in every step"):
        control.ours([], 2)
    with pytest.raises(UserError, match="is a FLUX Control, which needs a hint in every step"):
        control.ours([Control(net, picture(1), end=0.5)], 2)
    with pytest.raises(UserError, match="scale is about residuals"):
        control.ours([Control(net, picture(1), scale=0.5)], 2)
    with pytest.raises(UserError, match="reads no hint with holes"):
        control.ours([Control(net, torch.full((3, 32, 48), -1.0))], 2)
    with pytest.raises(UserError, match="so it is no FLUX Control"):
        load_net(plain.name, plain)
    with pytest.raises(UserError, match="another kind of base"):
        load_net(control.folder, load_backbone("playroom"))


def test_flux_fill_makes_the_pictures_of_its_pipeline(fill: Pair) -> None:
    base = fill.backbone
    assert (base.beside, base.latent_channels) == (32, 16)
    asked: dict[str, Any] = {"image": picture(3)}
    ours = fill.ours([], 4, mask=mask(), **asked)
    theirs = fill.theirs("FluxFillPipeline", 4, mask_image=mask(), **asked)
    assert float((ours - theirs).abs().max()) < 1e-3


def test_flux_fill_takes_controls_and_does_without_a_mask(fill: Pair) -> None:
    net = fill.net(tiny_flow.flux_control(2, 0))
    both = fill.ours([Control(net, picture(1))], 2, image=picture(3), mask=mask())
    alone = fill.ours([], 2, image=picture(3), mask=mask())
    assert float((both - alone).abs().max()) > 0.01
    assert torch.isfinite(fill.ours([], 2)).all()


def test_flux_of_other_channels_is_refused(tmp_path: Path) -> None:
    folder = tiny_flow.write_flux(tmp_path / "odd", in_channels=96, out_channels=64)
    with pytest.raises(UserError, match="reads 8 channels beside the 16 of its latent"):
        load_backbone(folder)


def test_info_says_what_a_flux_file_reads(tmp_path: Path) -> None:
    folder = tiny_flow.write_flux(
        tmp_path / "flux", num_layers=1, num_single_layers=1, attention_head_dim=128,
        num_attention_heads=1, axes_dims_rope=(16, 56, 56), **HINTED,
    )  # fmt: skip
    state = flow_files.transformer(folder, "flux")
    told = describe(str(flow_files.write(state, tmp_path / "depth.safetensors")))
    assert told["kind"] == "flux" and "FLUX Control" in told["reads"]
    assert "T5" in told["needs"] and "a VAE" in told["needs"]
    with pytest.raises(UserError, match="is no ControlNet of a diffusion transformer"):
        ControlNet.load(tmp_path / "depth.safetensors", backbone=load_backbone(folder))
