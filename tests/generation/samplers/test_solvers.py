"""Samplers of ours against formulas written out here, and against diffusers'."""

from __future__ import annotations

import sys
import types
from itertools import pairwise

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
)

from zeroconv.generation import generate
from zeroconv.generation.samplers.names import make_scheduler
from zeroconv.generation.samplers.solvers import DPMSolver3MSDE, DPMSolverSDE, EulerAncestral

STEPS = 8


def model(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """x0 from x = x0 + σ ε, of no model in particular."""
    return torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x)


def test_sampler_3m_sde_is_the_third_order_formula(small) -> None:
    """Multistep exponential integrator: φ2 and φ3 of −2 h, as k-diffusion has it."""
    steps = 18
    scheduler = make_scheduler("dpm++3m_sde", small, "karras")
    assert isinstance(scheduler, DPMSolver3MSDE)
    scheduler.set_timesteps(steps)
    levels = scheduler.sigmas.double()
    noises = torch.randn(steps, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    scale = [(1 / (1 + s**2)) ** 0.5 for s in levels]  # α: diffusers' x is α times ours
    x = torch.ones(1, 4, 4, 4).double() * levels[0]
    theirs = (x * scale[0]).float()
    old: list[torch.Tensor] = []
    hs: list[torch.Tensor] = []
    for i, (high, low) in enumerate(pairwise(levels)):
        x0 = model(theirs.double() / scale[i], float(high))
        output = ((theirs / scale[i] - x0.float()) / high).float()  # ε
        theirs = scheduler.step(
            output,
            scheduler.timesteps[i],
            theirs,
            variance_noise=noises[i].float(),
            return_dict=False,
        )[0]
        x0 = model(x, float(high))
        if low == 0:
            x = x0
            break
        h = high.log() - low.log()
        x = torch.exp(-2 * h) * x - torch.expm1(-2 * h) * x0
        phi2 = torch.expm1(-2 * h) / (2 * h) + 1
        if len(old) >= 2:
            r0, r1 = hs[-1] / h, hs[-2] / h
            first, second = (before0 := (x0 - old[-1]) / r0), (old[-1] - old[-2]) / r1
            d1 = before0 + (first - second) * r0 / (r0 + r1)
            d2 = (first - second) / (r0 + r1)
            x = x + phi2 * d1 - (phi2 / (2 * h) - 0.5) * d2
        elif old:  # diffusers' midpoint where only one older prediction is there
            x = x - 0.5 * torch.expm1(-2 * h) * (x0 - old[-1]) / (hs[-1] / h)
        x = x + noises[i] * low * (-torch.expm1(-2 * h)) ** 0.5
        old.append(x0)
        hs.append(h)
    assert (theirs - x.float()).abs().max() < 1e-3 * x.abs().max()


def test_sampler_3m_sde_s_last_term_vanishes_for_small_steps_unlike_diffusers(small) -> None:
    """Of predictions on a parabola in λ, DPM-Solver's formula takes half the integral as its last
    term; diffusers' is off by many times the integral.
    """

    def off(kind: type) -> float:
        config = {**small.scheduler_config, "algorithm_type": "sde-dpmsolver++"}
        scheduler = kind.from_config({**config, "solver_order": 3, "use_karras_sigmas": True})
        scheduler.set_timesteps(100)
        scheduler._step_index = 50
        lambdas = [-scheduler.sigmas[50 + k].double().log() for k in (1, 0, -1, -2)]
        alpha = (1 / (1 + scheduler.sigmas[51].double() ** 2)) ** 0.5
        outputs = [torch.full((1, 1, 1, 1), float(100 * (x - lambdas[1]) ** 2)) for x in lambdas]
        zero = torch.zeros(1, 1, 1, 1)
        got = scheduler.multistep_dpm_solver_third_order_update(
            outputs[:0:-1], sample=zero, noise=zero
        )
        end = lambdas[0]
        path = torch.linspace(float(lambdas[1]), float(end), 20001).double()
        exact = torch.trapezoid(
            2 * torch.exp(2 * (path - end)) * 100 * (path - lambdas[1]) ** 2, path
        )
        return abs(float(got) / float(alpha) - float(exact)) / float(exact)

    assert off(DPMSolver3MSDE) < 0.51
    assert off(DPMSolverMultistepScheduler) > 5  # when this fails, diffusers is mended: drop ours


def test_sampler_dpm_sde_equals_diffusers_with_the_same_brownian_path(small, monkeypatch) -> None:
    """diffusers' needs torchsde for its noise alone, which is given to it here."""
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

    ours = make_scheduler("dpm++sde", small, "karras")
    assert isinstance(ours, DPMSolverSDE)
    config = {**small.scheduler_config, "use_karras_sigmas": True, "timestep_spacing": "linspace"}
    theirs = DPMSolverSDEScheduler.from_config(config)
    for one in (ours, theirs):
        one.set_timesteps(STEPS)
    assert torch.allclose(ours.timesteps.double(), theirs.timesteps.double(), atol=1e-2)
    units = torch.randn(2 * STEPS, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    heights = torch.cat([theirs.sigmas[:1], ours.sigmas[1:]])
    calls = iter(range(2 * STEPS))

    def brownian(high, low):
        i = next(calls)
        if i % 2 == 0:
            return units[i]
        a, b, c = heights[i - 1], heights[i], heights[i + 1]
        return (units[i - 1] * (a - b) ** 0.5 + units[i] * (b - c) ** 0.5) / (a - c) ** 0.5

    theirs.noise_sampler = brownian
    x = y = 14.6 * torch.ones(1, 4, 4, 4)
    for i, (t, s) in enumerate(zip(ours.timesteps, theirs.timesteps, strict=True)):
        outputs = [(z - model(z, float(ours.sigmas[i]))) / ours.sigmas[i] for z in (x, y)]
        assert torch.allclose(
            ours.scale_model_input(x, t), theirs.scale_model_input(y, s), atol=1e-2
        )
        x = ours.step(outputs[0], t, x, variance_noise=units[i], return_dict=False)[0]
        y = theirs.step(outputs[1], s, y, return_dict=False)[0]
    assert (x - y).abs().max() < 1e-3


@pytest.mark.parametrize("schedule", ["trailing", "linspace", "leading"])
def test_sampler_euler_a_of_ours_is_diffusers_where_both_exist(small, schedule) -> None:
    pair = [make_scheduler("euler_a", small, schedule, ours=ours) for ours in (False, True)]
    assert isinstance(pair[1], EulerAncestral) and not isinstance(pair[0], EulerAncestral)
    made = [
        generate(small, "a", scheduler=one, steps=STEPS, cfg=1.0, output="tensor")[0]
        for one in pair
    ]
    assert (made[0] - made[1]).abs().max() < 1e-5
