"""Pictures of an offloaded base are the pictures of the base."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl
from zeroconv.backbones import load_backbone
from zeroconv.backbones.offload import Offload
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.layers.offload import MainMemory

CPU = torch.device("cpu")


class Away(MainMemory):
    """Weights that are not there have no numbers: using them gives NaN."""

    def bring(self) -> None:
        for tensor, kept in self.pairs:
            tensor.data = kept.clone()

    def drop(self) -> None:
        for tensor, kept in self.pairs:
            gone = float("nan") if kept.is_floating_point() else 0
            tensor.data = torch.full_like(kept, gone)


def offloaded(backbone, kind: str, home=None):
    mover = Offload(kind, CPU, home)
    mover.hold("unet", backbone.unet)
    for encoder in backbone.text_encoders:
        mover.hold("text", encoder)
    mover.hold("vae", backbone.vae)
    backbone.offload = mover
    return backbone


def picture(backbone, control: ControlNet | None) -> torch.Tensor:
    hint = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    controls = [] if control is None else [Control(control, hint)]
    options = {"steps": 2, "height": 64, "width": 64, "output": "tensor", "count": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.stack(generate(backbone, "a red ball", controls, **options))


@pytest.mark.parametrize("kind", ["model", "group"])
@pytest.mark.parametrize("make", [tiny_backbone, tiny_backbone_xl])
def test_offload_gives_the_same_pictures_with_weights_that_are_gone_when_unused(
    make, kind: str
) -> None:
    control = randomise_(ControlNet.from_backbone(make()))
    expected = [picture(make(), None), picture(make(), control)]
    backbone = offloaded(make(), kind, Away)
    for given, value in zip((None, control), expected, strict=True):
        assert torch.equal(picture(backbone, given), value)


def test_offload_by_model_moves_text_unet_and_vae_once_a_batch() -> None:
    backbone = offloaded(tiny_backbone(), "model", Away)
    control = randomise_(ControlNet.from_backbone(tiny_backbone()))
    picture(backbone, control)
    assert backbone.offload.residency.moves == {"text": 1, "unet": 1, "vae": 1}


def test_offload_by_group_brings_every_block_in_every_pass() -> None:
    """At each of two steps; no block comes twice within a pass."""
    backbone = offloaded(tiny_backbone(), "group", Away)
    picture(backbone, None)
    moves = backbone.offload.residency.moves
    blocks = [name for name in moves if name.startswith("block")]
    assert len(blocks) > 20
    assert {moves[name] for name in blocks} == {2}


@pytest.mark.parametrize("kind", ["model", "group"])
def test_load_backbone_offload_keeps_weights_in_a_file(kind: str) -> None:
    plain = load_backbone("playroom")
    moved = load_backbone("playroom", offload=kind, vae_tiling=True)
    kwargs = {"steps": 2, "seed": 3}
    a, b = (np.asarray(generate(m, "a red ball", **kwargs)[0]) for m in (plain, moved))
    assert np.array_equal(a, b)
    with pytest.raises(UserError, match="offloaded"):
        moved.to("cpu")


def test_load_backbone_refuses_unknown_offload_and_quantise() -> None:
    with pytest.raises(UserError, match="no offload 'all'; choose none, model, group"):
        load_backbone("playroom", offload="all")
    with pytest.raises(UserError, match="no quantise 'int4'; choose int8, fp8"):
        load_backbone("playroom", quantise="int4")


@pytest.mark.parametrize(("bits", "most"), [("int8", 6), ("fp8", 14)])
def test_quantise_changes_pictures_a_little_and_also_offloaded(bits: str, most: float) -> None:
    """Mean difference in steps of 255; the same bits with offload."""
    plain = load_backbone("playroom")
    kwargs = {"steps": 8, "seed": 3}
    made = np.asarray(generate(plain, "a red ball", **kwargs)[0], dtype=float)
    small = [
        np.asarray(
            generate(
                load_backbone("playroom", quantise=bits, offload=kind), "a red ball", **kwargs
            )[0],
            dtype=float,
        )
        for kind in ("none", "model")
    ]
    assert np.array_equal(*small)
    assert 0 < np.abs(small[0] - made).mean() < most
