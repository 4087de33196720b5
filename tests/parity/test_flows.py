"""Diffusion transformers against diffusers (`make parity`): one block of each kind at full width,
and the table of whole pictures of 8 steps at tiny width.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from tests.helpers.flow_parity import CASES, Pair
from tests.helpers.tiny_flow import randomised, relative
from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.packing import pack, positions, unpack
from zeroconv.backbones.flow.qwen import QwenBackbone
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.backbones.flow.zimage import ZImageBackbone
from zeroconv.control.families import control_class

pytestmark = pytest.mark.parity
TOLERANCE = 1e-5  # relative, float32
CLOSE = 1e-3  # a pixel


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flux() -> tuple[Any, Any, TextStates, Any]:
    """One double and one single block of FLUX.1 dev, 3072 wide."""
    from diffusers import FluxControlNetModel, FluxTransformer2DModel

    shape = {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True}
    base = FluxBackbone(randomised(FluxTransformer2DModel(**shape), 0.02))
    network = randomised(FluxControlNetModel(**shape), 0.02)
    text = TextStates(drawn(1, 32, 4096), drawn(1, 768), guidance=torch.tensor([3.5]))

    def theirs(z: Tensor, hint: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        asked = {
            "hidden_states": pack(z),
            "timestep": t / 1000,
            "guidance": text.guidance,
            "encoder_hidden_states": text.hidden,
            "pooled_projections": text.pooled,
            "img_ids": positions((8, 8), z.device),
            "txt_ids": torch.zeros(32, 3),
            "return_dict": False,
        }
        doubles, singles = network(controlnet_cond=pack(hint), **asked)
        output = base.transformer(
            controlnet_block_samples=doubles, controlnet_single_block_samples=singles, **asked
        )[0]
        return [*doubles, *singles], unpack(output, (8, 8))

    return base, network, text, theirs


def sd3() -> tuple[Any, Any, TextStates, Any]:
    """Two joint blocks of Stable Diffusion 3, 1536 wide; the last one has no text behind it."""
    from diffusers import SD3ControlNetModel, SD3Transformer2DModel

    shape = {"num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
    base = SD3Backbone(randomised(SD3Transformer2DModel(num_layers=2, **shape), 0.02))
    network = randomised(SD3ControlNetModel(num_layers=1, **shape), 0.02)
    text = TextStates(drawn(1, 32, 4096), drawn(1, 2048))

    def theirs(z: Tensor, hint: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        asked = {"hidden_states": z, "encoder_hidden_states": text.hidden, "timestep": t}
        zeros = torch.zeros_like(text.pooled)  # type: ignore[arg-type]
        asked |= {"return_dict": False}
        residuals = network(controlnet_cond=hint, pooled_projections=zeros, **asked)[0]
        output = base.transformer(
            pooled_projections=text.pooled, block_controlnet_hidden_states=residuals, **asked
        )[0]
        return list(residuals), output

    return base, network, text, theirs


def qwen() -> tuple[Any, Any, TextStates, Any]:
    """One block of Qwen-Image, 3072 wide."""
    from diffusers import QwenImageControlNetModel, QwenImageTransformer2DModel

    base = QwenBackbone(randomised(QwenImageTransformer2DModel(num_layers=1), 0.02))
    network = randomised(QwenImageControlNetModel(num_layers=1), 0.02)
    text = TextStates(drawn(1, 32, 3584), mask=torch.ones(1, 32, dtype=torch.bool))

    def theirs(z: Tensor, hint: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        asked = {"hidden_states": pack(z), "timestep": t / 1000, "img_shapes": [(1, 4, 4)]}
        asked |= {"encoder_hidden_states": text.hidden, "return_dict": False}
        residuals = network(controlnet_cond=pack(hint), **asked)
        output = base.transformer(controlnet_block_samples=residuals, **asked)[0]
        return list(residuals), unpack(output, (8, 8))

    return base, network, text, theirs


def zimage() -> tuple[Any, Any, TextStates, Any]:
    """One layer and one refiner of Z-Image, 3840 wide."""
    from diffusers import ZImageControlNetModel, ZImageTransformer2DModel

    shape = {"n_refiner_layers": 1}
    base = ZImageBackbone(randomised(ZImageTransformer2DModel(n_layers=1, **shape), 0.02))
    network = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=16,
        add_control_noise_refiner="control_noise_refiner",
        **shape,
    )
    randomised(network, 0.02)
    text = TextStates(drawn(1, 32, 2560))

    def theirs(z: Tensor, hint: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        whole = ZImageControlNetModel.from_transformer(network, base.transformer)
        asked = [list(z[:, :, None]), (1000 - t) / 1000, [text.hidden[0]]]
        residuals = whole(*asked, list(hint[:, :, None]))
        made = base.transformer(*asked, controlnet_block_samples=residuals, return_dict=False)[0]
        return list(residuals.values()), -torch.stack(made)[:, :, 0]

    return base, network, text, theirs


@pytest.mark.parametrize("make", [sd3, flux, qwen, zimage])
@pytest.mark.filterwarnings("ignore::FutureWarning")
@torch.no_grad()
def test_a_block_of_each_kind_at_full_width_equals_diffusers(make: Any) -> None:
    if psutil.virtual_memory().available < 8e9:
        pytest.skip("8 GB of free memory are needed")
    torch.manual_seed(0)
    base, network, text, theirs = make()
    z, hint, t = drawn(1, 16, 8, 8, seed=1), drawn(1, 16, 8, 8, seed=2), torch.tensor([400.0])
    control = control_class(base)(copy.copy(network), base)
    ours = control(z, hint, t, text)
    output = control.predict(base, z, hint, t, text)
    wanted, expected = theirs(z, hint, t)
    errors = [relative(a, b) for a, b in zip(ours, wanted, strict=True)]
    error = relative(output, expected)
    width = base.connections[0].channels
    print(f"\n{base.family}, {width} wide: residuals {max(errors):.1e}, output {error:.1e}")
    assert max(errors) < TOLERANCE and error < TOLERANCE
    assert relative(output, base.predict(z, t, text)) > 1e-4


@pytest.mark.filterwarnings("ignore")
def test_table_of_whole_pictures(tmp_path: Path) -> None:
    """The largest difference a pixel, of [0, 1], from diffusers' pipeline after 8 steps."""
    print(f"\n{'family':8} {'case':32} largest difference")
    for family, cases in CASES.items():
        pair = Pair(family, tmp_path / family)
        for case, make in cases.items():
            ours, theirs = make(pair, 8)
            worst = float((ours - theirs).abs().max())
            print(f"{family:8} {case:32} {worst:.1e}")
            assert worst < CLOSE
