"""Steps as functions of named tensors: whatever is asked, a graph gives what torch gives."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.control import ControlNet
from zeroconv.control.union import ControlNetUnion
from zeroconv.generation import Control, generate

EVERYTHING = {"deep": 3, "layers": 2, "branch": 2, "difference": 2, "guidance_end": 0.8}


@pytest.fixture(scope="module")
def base():
    unet = tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
    )
    return tiny_backbone(unet=unet)


@pytest.fixture(scope="module")
def net(base):
    return randomise_(ControlNet.from_backbone(base, condition="canny"))


def hint(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed))


def made(base, controls, prompts="a", **options):
    options = {"steps": 4, "cfg": 3.0, "output": "tensor", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few steps, and of compiling
        warnings.filterwarnings("error", "engine ")
        return torch.stack(generate(base, prompts, controls, **options))


def same(base, controls, prompts="a", **options):
    """The engine's pictures and torch's, which must be alike."""
    exact = made(base, controls, prompts, **options)
    graphs = made(base, controls, prompts, engine="openvino", **options)
    assert torch.allclose(graphs, exact, atol=1e-4), float((graphs - exact).abs().max())
    return exact


@pytest.mark.parametrize("guidance", ["both", "cond"])
@pytest.mark.parametrize(
    "options", [{}, {"cfg": 1.0}, {"negative": "a"}, {"fast": EVERYTHING, "steps": 7}]
)
def test_engine_graphs_give_torchs_pictures(base, net, compiled, guidance, options):
    same(base, [Control(net, hint())], guidance=guidance, **options)
    assert len(compiled) >= 2 and all(one.runs for one in compiled)


@pytest.mark.parametrize("fast", ["off", EVERYTHING])
def test_engine_graphs_read_scales_windows_curves_and_regions(base, net, compiled, fast):
    """Of two controls, and pictures of their own scales; a change of numbers compiles nothing."""
    region = torch.zeros(64, 64)
    region[:, 32:] = 1
    controls = [
        Control(net, hint(), scale=[0.5, 1.5], curve="linear_up"),
        Control(net, hint(1), end=0.5, region=region, connection_scales="guess"),
    ]
    options = {"fast": fast, "steps": 6, "guidance_rescale": 0.5}
    first = same(base, controls, ["a", "b"], **options)
    count = len(compiled)
    controls[0].scale, controls[0].hint = [1.0, 0.25], hint(2)
    other = same(base, controls, ["c", "d"], cfg=2.0, **{"seed": 5, **options})
    assert len(compiled) == count and not torch.allclose(first, other)


def test_engine_graphs_of_hints_of_one_union(base, compiled):
    union = randomise_(ControlNetUnion.from_backbone(base, num_control_type=6))
    controls = [
        Control(union, hint(), kind="canny", scale=0.5),
        Control(union, hint(1), kind="depth", curve="linear_down"),
    ]
    for fast in ("off", {"branch": 2}):
        same(base, controls, fast=fast, guidance="both")
    apart = [controls[0], Control(union, hint(1), kind="depth", connection_scales="guess")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(base, apart, guidance="both")


def test_engine_graphs_of_sdxl_read_pooled_text_and_sizes(compiled):
    base = tiny_backbone_xl()
    net = randomise_(ControlNet.from_backbone(base, condition="canny"))
    same(base, [Control(net, hint())], steps=2)
    same(base, [Control(net, hint())], steps=2, crop=(8, 8))
    assert len(compiled) == 2


def test_engine_graphs_of_two_passes_and_a_given_picture(base, net, compiled):
    drawn = (hint().permute(1, 2, 0) * 255).numpy().astype("uint8")  # fits any size
    same(base, [Control(net, drawn)], hires=1.5, steps=2)
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    same(base, [Control(net, hint())], image=hint(1), mask=mask, strength=0.9)


def test_engine_projects_a_text_once_in_a_loop(base, net, compiled, monkeypatch):
    controls = [Control(net, hint())]
    made(base, controls, engine="openvino")  # compiles
    layer = base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    calls = []

    def count(*_):
        if "forward" not in vars(layer):  # within a graph it has another one
            calls.append(1)

    layer.register_forward_hook(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zeroconv.generation.engines.choice._changed", lambda networks: "")
            made(base, controls, engine="openvino", steps=6)
    finally:
        layer._forward_hooks.clear()
    assert len(calls) == 1
