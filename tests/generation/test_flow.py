"""Pictures of a flow-matching transformer: latents are those of diffusers' parts in a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny_sd3 import tiny_control, tiny_sd3
from zeroconv.backbones import TextStates
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.control.sd3 import SD3ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.prompts import write

CFG, STEPS = 3.0, 4


@pytest.fixture(scope="module")
def backbone() -> SD3Backbone:
    """A prompt's text states are drawn from the prompt's own seed."""
    backbone = tiny_sd3(vae=True)

    def embed_text(prompts: Any, size: Any = None, **_: Any) -> TextStates:
        texts = [prompt if isinstance(prompt, str) else write(prompt) for prompt in prompts]
        streams = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        hidden = torch.stack([torch.randn(7, 12, generator=g) for g in streams])
        return TextStates(hidden, torch.stack([torch.randn(10, generator=g) for g in streams]))

    backbone.embed_text = embed_text  # type: ignore[method-assign]
    return backbone


def hint(seed: int = 0) -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def expected(
    backbone: SD3Backbone, controls: list[tuple[Any, Tensor, Tensor]], shift: dict[str, Any]
) -> Tensor:
    """Of diffusers' own modules. A control: network, hint latents, scales without and with the
    prompt.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler.from_config(backbone.scheduler_config)
    scheduler.set_timesteps(STEPS, **shift)
    text = backbone.embed_text(["", "a"])
    assert text.pooled is not None
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    for t in scheduler.timesteps:
        x, summed = torch.cat([z, z]), None
        for network, latents, scale in controls:
            given = network(
                hidden_states=x,
                controlnet_cond=torch.cat([latents, latents]),
                encoder_hidden_states=text.hidden,
                pooled_projections=torch.zeros_like(text.pooled),
                timestep=t.expand(2),
                return_dict=False,
            )[0]
            blocks = [scale[:, None, None] * given[int(i / (5 / len(given)))] for i in range(5)]
            summed = blocks if summed is None else [a + b for a, b in zip(summed, blocks, strict=1)]
        output = backbone.transformer(
            hidden_states=x,
            encoder_hidden_states=text.hidden,
            pooled_projections=text.pooled,
            timestep=t.expand(2),
            block_controlnet_hidden_states=summed,
            return_dict=False,
        )[0]
        without, within = output.chunk(2)
        z = scheduler.step(without + CFG * (within - without), t, z, return_dict=False)[0]
    return backbone.decode_latents(z)[0]


def drawn(backbone: SD3Backbone, controls: list[Control], **more: Any) -> Tensor:
    options: dict[str, Any] = {"steps": STEPS, "cfg": CFG, "seed": 5, "scheduler": "euler"}
    size = {"height": 16, "width": 16}
    return generate(backbone, "a", controls, **options, **size, output="tensor", **more)[0]


@pytest.mark.parametrize("guidance", ["both", "cond"])
def test_flow_pictures_with_two_controls_equal_diffusers(
    backbone: SD3Backbone, guidance: str
) -> None:
    networks = [tiny_control(2, seed=1), tiny_control(3, seed=2)]
    nets = [SD3ControlNet(network, backbone) for network in networks]
    controls = [Control(nets[0], hint(0)), Control(nets[1], hint(1), scale=0.5)]
    ours = drawn(backbone, controls, guidance=guidance)

    both = float(guidance == "both")
    parts = [
        (network, net.hint_latents(backbone, hint(i)[None]), torch.tensor([both * scale, scale]))
        for i, (network, net, scale) in enumerate(zip(networks, nets, (1.0, 0.5), strict=True))
    ]
    assert torch.allclose(ours, expected(backbone, parts, {}), atol=1e-5)
    assert (ours - drawn(backbone, [])).abs().max() > 1e-3


def test_flow_pictures_without_control_equal_diffusers(backbone: SD3Backbone) -> None:
    assert torch.allclose(drawn(backbone, []), expected(backbone, [], {}), atol=1e-5)


def test_flow_schedules_that_depend_on_the_size_equal_diffusers(backbone: SD3Backbone) -> None:
    from zeroconv.backbones import Flow

    plain = backbone.scheduler_config, backbone.process
    backbone.scheduler_config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "use_dynamic_shifting": True,
        "base_image_seq_len": 4,
        "max_image_seq_len": 64,
    }
    backbone.process = Flow.from_config(backbone.scheduler_config, "tiny")
    try:
        # 16 tokens: 0.5 + (16 − 4) · 0.65 / 60
        assert torch.allclose(drawn(backbone, []), expected(backbone, [], {"mu": 0.63}), atol=1e-5)
    finally:
        backbone.scheduler_config, backbone.process = plain


def test_flow_controls_can_be_masked_and_scaled_by_connection(backbone: SD3Backbone) -> None:
    """A mask of the left half is half of the tokens' residuals; zeros everywhere are no control."""
    net = SD3ControlNet(tiny_control(2), backbone)
    plain, full = drawn(backbone, []), drawn(backbone, [Control(net, hint())])
    everywhere = drawn(backbone, [Control(net, hint(), region=torch.ones(16, 16))])
    assert torch.allclose(everywhere, full, atol=1e-6)
    half = torch.zeros(16, 16)
    half[:, :8] = 1
    masked = drawn(backbone, [Control(net, hint(), region=half)])
    assert (masked - full).abs().max() > 1e-4 and (masked - plain).abs().max() > 1e-4
    first = drawn(backbone, [Control(net, hint(), connection_scales=[1.0, 0.0])])
    assert (first - full).abs().max() > 1e-4 and (first - plain).abs().max() > 1e-4
    with pytest.raises(UserError, match="there are 2 connections"):
        drawn(backbone, [Control(net, hint(), connection_scales=[1.0] * 4)])


def test_flow_models_have_one_scheduler(backbone: SD3Backbone) -> None:
    with pytest.raises(UserError, match="the scheduler euler alone, not ddim"):
        generate(backbone, "a", scheduler="ddim", steps=1)


def test_a_flow_starts_from_a_picture_and_keeps_what_is_not_masked(backbone):
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(8))
    mask = torch.zeros(16, 16)
    mask[4:12, 4:12] = 1
    text, negative = backbone.embed_text(["a"]), backbone.embed_text([""])
    request = {"negative": negative, "steps": STEPS, "cfg": CFG, "scheduler": "euler"}
    request |= {"output": "tensor", "image": picture, "seed": 1}
    plain, weak = (generate(backbone, text, strength=s, **request)[0] for s in (1.0, 0.5))
    assert (plain - weak).abs().max() > 0.01
    (repainted,) = generate(backbone, text, mask=mask, **request)
    apart = (repainted - picture).abs().amax(0)
    assert apart[mask == 0].max() <= 1 / 255 and apart[mask > 0].max() > 0.05
