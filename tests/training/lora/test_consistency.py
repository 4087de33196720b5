"""Latent consistency distillation: its loss is that of LCM's formulas as diffusers' schedulers
compute them, for every kind of UNet, and only the LoRA learns.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.helpers.flow_bases import base
from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl, tiny_unet
from zeroconv.backbones import TextStates
from zeroconv.checkpoints.lora import LCM
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.optim.ema import Ema
from zeroconv.training.execution.cuda_graphs import can_record
from zeroconv.training.lora.adapter import add_adapter
from zeroconv.training.lora.consistency import (
    ConsistencyLoss,
    boundary,
    check_distillable,
    empty_prompt,
)
from zeroconv.training.recipes.lcm import LcmSettings
from zeroconv.training.recipes.lora import LoraRecipe, LoraSettings
from zeroconv.training.recipes.settings import check_recipe

MADE = {
    "epsilon": lambda: tiny_backbone("epsilon"),
    "v_prediction": lambda: tiny_backbone("v_prediction"),
    "xl": tiny_backbone_xl,
}
T = torch.tensor([0, 20, 999])


@pytest.fixture(
    scope="module", params=["epsilon", "v_prediction", pytest.param("xl", marks=pytest.mark.slow)]
)
def loss(request) -> ConsistencyLoss:
    return loss_of(MADE[request.param]())


@pytest.fixture(scope="module")
def small() -> ConsistencyLoss:
    return loss_of(tiny_backbone())


def loss_of(backbone: Any) -> ConsistencyLoss:
    """Of a LoRA whose matrices are random, so that with and without it differ."""
    add_adapter(backbone, LoraSettings(rank=2, layers=("attention",)))
    for name, parameter in backbone.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return ConsistencyLoss(backbone, LcmSettings(), empty_prompt(backbone))


def drawn(loss: ConsistencyLoss) -> tuple[torch.Tensor, torch.Tensor, TextStates]:
    n = len(T)
    z, noise = torch.randn(2, n, 4, 8, 8)
    return z, noise, loss.backbone.embed_text([f"picture {i}" for i in range(n)])


def lora_of(loss: ConsistencyLoss) -> list[torch.nn.Parameter]:
    return [p for p in loss.backbone.unet.parameters() if p.requires_grad]


@contextmanager
def off(loss: ConsistencyLoss):
    """The base alone, by scaling its LoRA to nothing."""
    kept = [dict(layer.scaling) for layer in loss.adapted]
    for layer in loss.adapted:
        layer.scaling = {"default": 0.0}
    yield
    for layer, scaling in zip(loss.adapted, kept, strict=True):
        layer.scaling = scaling


def test_a_solver_step_is_diffusers_ddim_of_the_base_with_guidance(loss):
    from diffusers import DDIMScheduler

    z, _, text = drawn(loss)
    later, earlier = loss.step_around(T)
    assert later.tolist() == [19, 39, 999] and earlier.tolist() == [0, 19, 979]
    cfg = torch.tensor([1.0, 4.0, 15.0])
    with torch.no_grad():
        ours = loss.solver_step(z, later, earlier, text, cfg)
    config = {**loss.backbone.scheduler_config, "timestep_spacing": "trailing"}
    ddim = DDIMScheduler.from_config(config)
    ddim.set_timesteps(50)
    empty = empty_prompt(loss.backbone)
    for i in range(len(T)):
        one = slice(i, i + 1)
        beside = TextStates(empty.hidden, empty.pooled, None if text.time_ids is None else
                            text.time_ids[one])  # fmt: skip
        with torch.no_grad(), off(loss):
            cond, uncond = (
                loss.backbone.predict(z[one], later[one], states) for states in (text[i], beside)
            )
        guided = uncond + cfg[i] * (cond - uncond)
        theirs = ddim.step(guided, int(later[i]), z[one]).prev_sample
        assert torch.allclose(ours[one], theirs, atol=2e-4, rtol=1e-4)


def test_the_end_of_a_path_is_what_diffusers_lcm_sampler_takes(loss):
    from diffusers import LCMScheduler

    z, _, text = drawn(loss)
    later, _ = loss.step_around(T)
    scheduler = LCMScheduler.from_config(loss.backbone.scheduler_config)
    with torch.no_grad():
        ours = loss.end_of(z, later, text)
        outputs = loss.backbone.predict(z, later, text)
    for i in range(len(T)):
        scheduler.set_timesteps(50)
        scheduler._step_index = None
        made = scheduler.step(outputs[i : i + 1], later[i], z[i : i + 1])
        assert torch.allclose(ours[i], made.denoised[0], atol=2e-4, rtol=1e-4)


def test_consistency_function_is_the_identity_at_the_end_of_the_path():
    skip, out = boundary(torch.tensor([0, 19, 999]))
    assert skip.flatten()[0] == 1 and out.flatten()[0] == 0
    assert (skip.flatten()[1:] < 1e-4).all() and torch.allclose(out.flatten()[1:], torch.ones(2))


def test_the_loss_is_the_mean_pseudo_huber_distance_and_trains_the_lora_alone(loss):
    z, noise, text = drawn(loss)
    later, earlier = loss.step_around(T)
    cfg = torch.full((len(T),), 9.0)  # the middle of 3 to 15
    errors = loss.errors(z, noise, T, None, text)
    with torch.no_grad():
        noisy = loss.process.noised(z, noise, later)
        target = loss.end_of(loss.solver_step(noisy, later, earlier, text, cfg), earlier, text)
        distance = loss.end_of(noisy, later, text) - target
    expected = ((distance**2 + 1e-6).sqrt() - 1e-3).flatten(1).mean(1)
    assert torch.allclose(errors.detach(), expected, rtol=1e-4)
    names = {n for n, p in loss.backbone.unet.named_parameters() if p.requires_grad}
    assert names and all("lora_" in name for name in names)
    errors.mean().backward()
    # over one position attention has no gradient in queries and keys
    values = [p for n, p in loss.backbone.unet.named_parameters() if "to_v.lora_" in n]
    assert values and all(p.grad.abs().sum() > 0 for p in values)
    for parameter in loss.backbone.unet.parameters():
        assert parameter.requires_grad or parameter.grad is None
        parameter.grad = None


def test_masks_of_a_consistency_loss_leave_black_positions_out(small):
    loss = small
    z, noise, text = drawn(loss)
    white = torch.full((len(T), 1, 64, 64), 255, dtype=torch.uint8)
    half = white.clone()
    half[..., 32:] = 0
    with torch.no_grad():
        plain = loss.errors(z, noise, T, None, text)
        assert torch.allclose(loss.errors(z, noise, T, None, text, masks=white), plain, rtol=1e-4)
        assert (loss.errors(z, noise, T, None, text, masks=half) < 0.9 * plain).all()


def test_a_target_of_the_average_is_made_by_the_average_and_leaves_no_trace(small, monkeypatch):
    loss = small
    z, noise, text = drawn(loss)
    trained = lora_of(loss)
    ema = Ema(trained, 0.9)
    for average in ema.average:
        average.mul_(0.5)
    before = [p.detach().clone() for p in trained]

    def gradient() -> tuple[float, list[torch.Tensor]]:
        value = loss.errors(z, noise, T, None, text).mean()
        return float(value), list(torch.autograd.grad(value, trained))

    alone, first = gradient()
    monkeypatch.setattr(loss, "target_weights", ema.swapped)
    value, second = gradient()
    assert value != alone and not all(map(torch.equal, first, second))
    assert all(map(torch.equal, before, (p.detach() for p in trained)))
    # by hand: the target first, as a constant
    later, earlier = loss.step_around(T)
    noisy = loss.process.noised(z, noise, later)
    with torch.no_grad(), ema.swapped():
        step = loss.solver_step(noisy, later, earlier, text, torch.full((len(T),), 9.0))
        target = loss.end_of(step, earlier, text)
    distance = loss.end_of(noisy, later, text) - target
    by_hand = ((distance**2 + 1e-6).sqrt() - 1e-3).mean()
    assert value == pytest.approx(float(by_hand), rel=1e-5)
    for a, b in zip(second, torch.autograd.grad(by_hand, trained), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_distillation_draws_from_its_generator_alone(small, monkeypatch):
    batch = Batch(torch.randn(3, 8, 8, 8), None, small.backbone.embed_text(["a", "b", ""]), None)
    scales = []
    monkeypatch.setattr(small, "solver_step", lambda noisy, *rest: scales.append(rest[-1]) or noisy)
    with torch.no_grad():
        values = [float(small(batch, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    joined = torch.cat(scales)
    assert ((joined >= 3) & (joined <= 15)).all() and len(joined.unique()) == 6


def test_a_step_of_a_distillation_is_no_recording_of_a_card(small):
    """Recordings draw no guidance scales."""
    assert not can_record(small, None, None)


def test_a_distillation_refuses_bases_that_it_is_not_for(small):
    with pytest.raises(UserError, match="does not divide the 1000 timesteps"):
        check_distillable(small.backbone, LcmSettings(solver_steps=30))
    with pytest.raises(UserError, match="distilled already"):
        check_distillable(tiny_backbone(unet=tiny_unet(time_cond_proj_dim=12)), LcmSettings())
    distilled = tiny_backbone()
    distilled.few_steps = LCM
    with pytest.raises(UserError, match=r"distilled already \(LCM-LoRA\)"):
        check_distillable(distilled, LcmSettings())
    with pytest.raises(UserError, match="flow-matching model"):
        check_distillable(base("flux"), LcmSettings())


def lcm_recipe(lora: dict[str, Any] | None = None, **training: Any) -> LoraRecipe:
    values = {
        "out": "x",
        "lora": {"kind": "lcm", **(lora or {})},
        "data": {"train": "y"},
        "training": {"steps": 1, **training},
    }
    return check_recipe(LoraRecipe, values, "test")


def test_a_recipe_of_kind_lcm_has_sheets_of_four_steps_without_guidance():
    training = lcm_recipe().training
    assert (training.sample_steps, training.sample_cfg) == (4, 1.0)
    assert lcm_recipe(sample_steps=2, sample_cfg=1.5).training.sample_steps == 2
    assert lcm_recipe().lora.distillation == LcmSettings()
    again = check_recipe(LoraRecipe, lcm_recipe().model_dump(mode="json"), "test")
    assert again.identity() == lcm_recipe().identity()
    plain = check_recipe(
        LoraRecipe, {"out": "x", "data": {"train": "y"}, "training": {"steps": 1}}, "test"
    )
    assert plain.training.sample_steps == 15 and plain.lora.distillation is None


@pytest.mark.parametrize(
    ("lora", "training", "words"),
    [
        ({"kind": "denoising", "lcm": {}}, {}, "lora.lcm is of lora.kind lcm"),
        ({"lcm": {"guidance": [5, 2]}}, {}, "give the lower scale first"),
        ({"lcm": {"target": "average"}}, {"ema_decay": 0}, "needs training.ema_decay above 0"),
        ({}, {"min_snr": 5}, "training.min_snr weighs"),
        ({"kind": "lmc"}, {}, "lora.kind"),
        ({"lcm": {"gidance": [1, 2]}}, {}, "did you mean guidance"),
    ],
)
def test_a_recipe_of_kind_lcm_refuses_what_does_not_go_together(lora, training, words):
    with pytest.raises(UserError, match=words):
        lcm_recipe(lora, **training)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_distillation_of_fixed_pictures_learns(kind):
    """The distance to an average that stays falls on noise and scales that stay the same."""
    loss = loss_of(MADE[kind]())
    z, noise, text = drawn(loss)
    trained = lora_of(loss)
    ema = Ema(trained, 0.999)
    loss.target_weights = ema.swapped
    optimizer = torch.optim.Adam(trained, 1e-2)
    values = []
    for _ in range(25):
        value = loss.errors(z, noise, T, None, text).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value))
    # rank 2 beside the attention alone
    assert max(values[-3:]) < 0.85 * values[0]
