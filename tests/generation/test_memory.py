"""What is reckoned is what a run takes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from zeroconv.backbones import load_backbone
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.memory import reckon
from zeroconv.layers.fake import held_by
from zeroconv.layers.live_bytes import LiveBytes


@pytest.mark.parametrize(("controls", "quantise"), [(0, None), (1, "int8")])
def test_reckon_is_within_a_tenth_of_a_real_run(controls: int, quantise: str | None) -> None:
    """Weights and the most that is alive while two pictures are made; counted, not resident."""
    backbone = load_backbone("playroom", quantise=quantise)
    nets = [ControlNet.from_backbone(load_backbone("playroom")) for _ in range(controls)]
    hints = [torch.rand(3, 128, 128) for _ in nets]
    given = [Control(net, hint) for net, hint in zip(nets, hints, strict=True)]
    with warnings.catch_warnings(), LiveBytes() as live:
        warnings.simplefilter("ignore")
        sizes = {"height": 128, "width": 128, "count": 2, "steps": 1}
        generate(backbone, "a red ball", given, guidance="both", **sizes)

    parts = [backbone.unet, backbone.vae, *backbone.text_encoders]
    plain = reckon("playroom", (128, 128), controls, quantise=quantise, pictures=2)
    stages = (plain.text, plain.unet, plain.vae)
    nets_held = sum(map(held_by, nets))
    if quantise is None:
        assert sum(s.weights for s in stages) == sum(map(held_by, parts)) + nets_held
    else:
        assert plain.unet.weights < 0.35 * (held_by(load_backbone("playroom").unet) + nets_held)
    assert max(s.computed for s in stages) == pytest.approx(live.most, rel=0.1)


@pytest.mark.slow
def test_reckon_adds_up_by_offload_and_shrinks_with_every_measure() -> None:
    small = reckon("playroom", (256, 256))  # where the UNet is the largest part
    model, group = (replace(small, offload=kind) for kind in ("model", "group"))
    assert group.total < model.total < small.total

    plain = reckon("playroom", (768, 768))
    less = reckon("playroom", (768, 768), 0, torch.bfloat16, quantise="int8", vae_tiling=True)
    assert less.unet.weights < 0.35 * plain.unet.weights
    assert less.vae.computed < 0.5 * plain.vae.computed  # half of it by the dtype


def test_attention_is_torchs_own_that_keeps_no_matrix() -> None:
    from diffusers.models.attention_processor import AttnProcessor2_0

    processors = load_backbone("playroom").unet.attn_processors.values()
    assert {type(processor) for processor in processors} == {AttnProcessor2_0}


def test_reckon_refuses_what_cannot_be() -> None:
    with pytest.raises(UserError, match="multiples of 8"):
        reckon("playroom", (100, 128))
    with pytest.raises(UserError, match="give 0 to 32"):
        reckon("playroom", None, 99)
    with pytest.raises(UserError, match="no offload"):
        reckon("playroom", offload="all")
