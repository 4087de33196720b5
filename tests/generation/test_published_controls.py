"""Controls of other kinds in whole generations, against diffusers' pipelines: the same parts,
latents and settings; and each with all that a ControlNet takes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import load_net
from zeroconv.control import ControlNet, ControlNetUnion
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.names import make_scheduler

OURS = {"cfg": 5.0, "negative": "blur", "guidance": "both", "scheduler": "ddim"}


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


def noise() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def shake_(module: torch.nn.Module, seed: int = 3) -> None:
    """Random weights everywhere, of a size that changes pictures."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.15 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(spread)


def parts(backbone: UNetBackbone) -> dict[str, Any]:
    """What every pipeline takes."""
    shared = {
        "vae": copy.deepcopy(backbone.vae),
        "unet": backbone.unet,
        "text_encoder": backbone.text_encoders[0],
        "tokenizer": backbone.tokenizers[0],
        "scheduler": make_scheduler("ddim", backbone),
    }
    if len(backbone.text_encoders) == 1:
        return {**shared, "safety_checker": None, "feature_extractor": None}
    second = {
        "text_encoder_2": backbone.text_encoders[1],
        "tokenizer_2": backbone.tokenizers[1],
        "force_zeros_for_empty_prompt": False,
    }
    return {**shared, **second}


def theirs(pipe: Any, **options: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    common = {"guidance_scale": 5.0, "negative_prompt": "blur", "output_type": "np"}
    made = pipe("a ball", latents=noise(), num_inference_steps=4, **common, **options).images[0]
    assert made.std() > 0.05  # a grey picture would agree with anything
    return made


def ours(backbone: UNetBackbone, controls: list[Control], **more: Any) -> np.ndarray:
    options = {"latents": noise(), "steps": 4, "output": "tensor", **OURS, **more}
    return generate(backbone, "a ball", controls, **options)[0].permute(1, 2, 0).numpy()


def quick(*args: Any, **more: Any) -> np.ndarray:
    """Two steps of `ours`, where nothing is compared with diffusers."""
    return ours(*args, **{"steps": 2, **more})


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.fixture(scope="module")
def xl() -> UNetBackbone:
    return tiny_backbone_xl()


@pytest.fixture(scope="module")
def sd() -> UNetBackbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def wide() -> UNetBackbone:
    """Its last two levels have one width, as Stable Diffusion's have."""
    return tiny_backbone(unet=tiny_unet(block_out_channels=(16, 32, 48, 48)))


@pytest.fixture(scope="module")
def union(xl: UNetBackbone) -> ControlNetUnion:
    torch.manual_seed(0)  # of the hint encoder
    net = randomise_(ControlNetUnion.from_backbone(xl))
    torch.nn.init.normal_(net.spatial_ch_projs.weight, std=0.1)
    return net


@pytest.fixture(scope="module")
def union_pipeline(
    xl: UNetBackbone, union: ControlNetUnion, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    from diffusers import ControlNetUnionModel, StableDiffusionXLControlNetUnionPipeline

    folder = tmp_path_factory.mktemp("union") / "net"
    union.save(folder)
    net = ControlNetUnionModel.from_pretrained(folder)
    return StableDiffusionXLControlNetUnionPipeline(**parts(xl), controlnet=net)


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.25, 0.75)])
def test_union_of_one_kind_equals_diffusers(
    xl: UNetBackbone, union: Any, union_pipeline: Any, window: tuple[float, float]
) -> None:
    start, end = window
    expected = theirs(
        union_pipeline,
        control_image=[picture(1)],
        control_mode=[3],
        controlnet_conditioning_scale=0.7,
        control_guidance_start=start,
        control_guidance_end=end,
    )
    control = Control(union, picture(1), kind="canny", scale=0.7, start=start, end=end)
    assert apart(ours(xl, [control]), expected) < 1e-3
    other = Control(union, picture(1), kind="depth", scale=0.7, start=start, end=end)
    assert apart(ours(xl, [other]), expected) > 1e-3


def test_union_of_two_kinds_equals_diffusers(
    xl: UNetBackbone, union: Any, union_pipeline: Any
) -> None:
    expected = theirs(
        union_pipeline,
        control_image=[picture(1), picture(2)],
        control_mode=[3, 1],
        controlnet_conditioning_scale=[0.7, 0.4],
    )
    controls = [
        Control(union, picture(1), kind="canny", scale=0.7),
        Control(union, picture(2), kind="Depth", scale=0.4),
    ]
    assert apart(ours(xl, controls), expected) < 1e-3
    assert apart(ours(xl, controls[:1]), expected) > 1e-3


def test_union_pictures_do_not_depend_on_those_beside_them(xl: UNetBackbone, union: Any) -> None:
    options = {"steps": 2, "output": "tensor", "seed": [1, 2]}
    controls = [
        Control(union, [picture(1), picture(3)], kind="canny", scale=[0.5, 1.0]),
        Control(union, picture(2), kind="normal", curve="linear_down"),
    ]
    both = generate(xl, ["a", "b"], controls, **options)
    controls = [
        Control(union, picture(3), kind="canny"),
        Control(union, picture(2), kind="normal", curve="linear_down"),
    ]
    alone = generate(xl, "b", controls, steps=2, output="tensor", seed=2)
    assert torch.allclose(both[1], alone[0], atol=1e-5)


def test_union_hints_of_different_regions_are_summed_with_a_note(
    xl: UNetBackbone, union: Any
) -> None:
    left = torch.zeros(64, 64)
    left[:, :32] = 1
    controls = [
        Control(union, picture(1), kind="canny", region=left),
        Control(union, picture(2), kind="depth", region=1 - left),
    ]
    with pytest.warns(UserWarning, match="one by one"):
        made = ours(xl, controls)
    assert apart(made, ours(xl, controls[:1])) > 1e-4


def test_union_refuses_no_kind_and_kinds_that_it_has_not(xl: UNetBackbone, union: Any) -> None:
    with pytest.raises(UserError, match=r"say what its hint shows.*canny"):
        generate(xl, "a", [Control(union, picture(1))], steps=1)
    with pytest.raises(UserError, match="ProMax one has 8"):
        Control(union, picture(1), kind="tile")
    with pytest.raises(UserError, match="no kind 'smell'"):
        Control(union, picture(1), kind="smell")
    plain = ControlNet.from_backbone(xl)
    with pytest.raises(UserError, match="only a Union control has kinds"):
        Control(plain, picture(1), kind="canny")


def save_adapter(folder: Path, **config: Any) -> Any:
    from diffusers import T2IAdapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        adapter = T2IAdapter(**config)
    shake_(adapter)
    adapter.save_pretrained(folder)
    return adapter


ADAPTERS = {
    "full": ("sd", {"channels": [16, 32, 32, 48], "num_res_blocks": 2}),
    "light": (
        "wide",
        {"channels": [16, 32, 48], "num_res_blocks": 2, "adapter_type": "light_adapter"},
    ),
    "full_xl": (
        "xl",
        {
            "channels": [16, 32, 32, 32],
            "downscale_factor": 16,
            "adapter_type": "full_adapter_xl",
        },
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_t2i_adapter_equals_diffusers(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionAdapterPipeline, StableDiffusionXLAdapterPipeline

    base, config = ADAPTERS[name]
    backbone = request.getfixturevalue(base)
    if base == "xl":
        widths = backbone.unet.config.block_out_channels
        config = {**config, "channels": [*widths, widths[-1]]}
    pipeline = StableDiffusionXLAdapterPipeline if base == "xl" else StableDiffusionAdapterPipeline
    pipe = pipeline(**parts(backbone), adapter=save_adapter(tmp_path / "net", **config))
    expected = theirs(pipe, image=picture(1), adapter_conditioning_scale=0.8)
    net = load_net(tmp_path / "net", backbone)
    assert apart(ours(backbone, [Control(net, picture(1), scale=0.8)]), expected) < 1e-3
    assert apart(ours(backbone, []), expected) > 1e-3


@pytest.fixture(scope="module")
def adapter(sd: UNetBackbone, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("adapter") / "net"
    save_adapter(folder, **ADAPTERS["full"][1])
    return load_net(folder, sd)


def test_t2i_adapter_takes_all_that_a_controlnet_takes(sd: UNetBackbone, adapter: Any) -> None:
    plain, whole = quick(sd, []), quick(sd, [Control(adapter, picture(1))])
    with_nothing: list[dict[str, Any]] = [
        {"scale": 0.0},
        {"region": torch.zeros(64, 64)},
        {"start": 0.05, "end": 0.2},
        {"connection_scales": [0.0] * 4},
        {"curve": [(0.0, 0.0), (1.0, 0.0)]},
    ]
    for options in with_nothing:
        assert apart(quick(sd, [Control(adapter, picture(1), **options)]), plain) < 1e-5, options
    changing: list[dict[str, Any]] = [
        {"scale": 0.5},
        {"scale": [0.5]},
        {"end": 0.5},
        {"connection_scales": [1.0, 0.0, 0.0, 0.0]},
        {"connection_scales": "resolution"},
        {"curve": "linear_down"},
        {"region": torch.eye(64)},
        {"conditional_only": True},
        {"mode": "control"},
    ]
    made = [quick(sd, [Control(adapter, picture(1), **options)]) for options in changing]
    for options, one in zip(changing, made, strict=True):
        assert apart(one, plain) > 1e-4 and apart(one, whole) > 1e-4, options
    assert apart(made[0], made[1]) < 1e-5


def test_t2i_adapter_acts_beside_a_controlnet_and_another_adapter(
    sd: UNetBackbone, adapter: Any
) -> None:
    net = randomise_(ControlNet.from_backbone(sd))
    one, two = Control(adapter, picture(1)), Control(net, picture(2))
    both = quick(sd, [one, two])
    assert apart(quick(sd, [two, one]), both) < 1e-5
    assert min(apart(quick(sd, [one]), both), apart(quick(sd, [two]), both)) > 1e-4
    half = Control(adapter, picture(1), scale=0.5)
    assert apart(quick(sd, [half, half]), quick(sd, [one])) < 1e-5
    # on one half of guidance: the same as where the guidance says so
    alone = Control(adapter, picture(1), conditional_only=True)
    assert apart(quick(sd, [alone]), quick(sd, [one], guidance="cond")) < 1e-6
    # the same prompt in both halves
    options = {"negative": "a ball", "guidance": "cond"}
    assert apart(quick(sd, [one], **options), quick(sd, [], **options)) > 1e-4


def test_t2i_adapter_refuses_bases_of_other_widths(xl: UNetBackbone, tmp_path: Path) -> None:
    save_adapter(tmp_path / "net", **ADAPTERS["full"][1])
    with pytest.raises(UserError, match="for another base"):
        load_net(tmp_path / "net", xl)


@pytest.fixture(scope="module", params=["sd", "xl"])
def xs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A base, our ControlNet-XS read from diffusers' folder, and diffusers' pipeline."""
    from diffusers import (
        ControlNetXSAdapter,
        StableDiffusionControlNetXSPipeline,
        StableDiffusionXLControlNetXSPipeline,
    )

    backbone = request.getfixturevalue(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        theirs = ControlNetXSAdapter.from_unet(
            backbone.unet,
            size_ratio=0.5,
            conditioning_embedding_out_channels=(4, 8, 8, 8),
            learn_time_embedding=request.param == "sd",
            time_embedding_mix=0.6 if request.param == "sd" else 1.0,
        )
    randomise_(theirs)
    folder = tmp_path_factory.mktemp("xs") / "net"
    theirs.save_pretrained(folder)
    pipeline = StableDiffusionControlNetXSPipeline
    if request.param == "xl":
        pipeline = StableDiffusionXLControlNetXSPipeline
    pipe = pipeline(**parts(backbone), controlnet=theirs)
    # its copies of the residual blocks forget the UNet's epsilon
    for block in pipe.unet.modules():
        if type(block).__name__ == "ResnetBlock2D":
            block.norm1.eps = block.norm2.eps = backbone.unet.config.norm_eps
    return backbone, load_net(folder, backbone), pipe


def test_controlnet_xs_equals_diffusers(xs: Any) -> None:
    backbone, net, pipe = xs
    expected = theirs(pipe, image=picture(1), controlnet_conditioning_scale=0.8)
    assert apart(ours(backbone, [Control(net, picture(1), scale=0.8)]), expected) < 1e-3
    assert apart(ours(backbone, [Control(net, picture(1), scale=0.3)]), expected) > 1e-3


def test_controlnet_xs_has_scale_window_and_curve_and_takes_controlnets(xs: Any) -> None:
    backbone, net, _ = xs
    plain, whole = quick(backbone, []), quick(backbone, [Control(net, picture(1))])
    for options in ({"scale": 0.0}, {"start": 0.05, "end": 0.2}):
        assert apart(quick(backbone, [Control(net, picture(1), **options)]), plain) < 1e-5
    for options in ({"scale": [0.5]}, {"end": 0.5}, {"curve": "linear_down"}):
        made = quick(backbone, [Control(net, picture(1), **options)])
        assert apart(made, plain) > 1e-4 and apart(made, whole) > 1e-4, options

    control = Control(randomise_(ControlNet.from_backbone(backbone)), picture(2))
    # of one picture, half of guidance is too small for the tiny middle's group norm
    for guidance in ("both", "cond") if len(backbone.text_encoders) == 2 else ("both",):
        both = quick(backbone, [Control(net, picture(1)), control], guidance=guidance)
        assert apart(both, whole) > 1e-4
        nothing = Control(net, picture(1), scale=1e-12)
        if len(backbone.text_encoders) == 2:  # the other mixes its own time embedding in as well
            expected = quick(backbone, [control], guidance=guidance)
            assert apart(quick(backbone, [control, nothing], guidance=guidance), expected) < 1e-4
    with pytest.raises(UserError, match="no controls beside it but ControlNets"):
        quick(backbone, [Control(net, picture(1)), Control(net, picture(2))])
