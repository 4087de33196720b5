"""What a step is given: eta, rescaled guidance, scheduler objects, zero terminal SNR."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
)

from zeroconv.errors import UserError
from zeroconv.generation import generate
from zeroconv.generation.samplers.names import SAMPLERS, make_scheduler


def test_eta_scales_the_noise_and_is_refused_where_there_is_none(small) -> None:
    def made(name: str, seed: int = 0, **options) -> torch.Tensor:
        latents = torch.ones(1, 4, 8, 8)
        few = {"steps": 4, "cfg": 1.0, "output": "tensor", "latents": latents, "seed": seed}
        return generate(small, "a", scheduler=name, **few, **options)[0]

    for name, default in (("ddim", 0.0), ("euler_a", 1.0), ("dpm++sde", 1.0), ("tcd", 0.3)):
        assert (made(name) - made(name, eta=default)).abs().max() < 1e-5
        assert torch.equal(made(name, eta=0.0), made(name, 1, eta=0.0))  # no noise, no seed
        assert not torch.equal(made(name, eta=0.8), made(name, 1, eta=0.8))
    assert (made("euler_a", eta=0.0) - made("euler")).abs().max() < 1e-5
    for name in ("euler", "dpm++2m_sde", "lcm", "unipc"):
        with pytest.raises(UserError, match=f"{name.replace('+', '.')} has no eta"):
            made(name, eta=0.5)


def test_guidance_rescale_equals_diffusers(small) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    from zeroconv.generation import combine

    uncond, cond = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    guided = combine(uncond, cond, 7.5)
    expected = rescale_noise_cfg(guided, cond, 0.7)
    assert torch.allclose(combine(uncond, cond, 7.5, 0.7), expected, atol=1e-6)
    few = {"steps": 3, "cfg": 7.5, "output": "tensor"}
    plain, less = (generate(small, "a", guidance_rescale=r, **few)[0] for r in (0.0, 0.7))
    assert not torch.equal(plain, less)
    with pytest.warns(UserWarning, match="guidance_rescale changes nothing"):
        generate(small, "a", steps=1, cfg=1.0, guidance_rescale=0.7)


def test_scheduler_objects_are_copied_and_equal_their_name(small) -> None:
    few = {"steps": 4, "cfg": 1.0, "output": "tensor"}
    given = DPMSolverMultistepScheduler.from_config(small.scheduler_config, use_karras_sigmas=True)
    before = given.timesteps.clone()
    made = generate(small, ["a", "b", "c"], scheduler=given, batch_size=2, **few)
    named = generate(small, ["a", "b", "c"], scheduler="DPM++ 2M Karras", **few)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(made, named, strict=True))
    assert torch.equal(given.timesteps, before)
    with pytest.raises(UserError, match="set it there"):
        generate(small, "a", scheduler=given, schedule="karras")
    with pytest.warns(UserWarning, match="beta_end 0.02, and tiny was trained with"):
        generate(small, "a", scheduler=DPMSolverMultistepScheduler(beta_start=0.00085), steps=1)
    with pytest.raises(TypeError, match="scheduler is a"):
        generate(small, "a", scheduler=DPMSolverMultistepScheduler)


def test_zero_terminal_snr_is_kept_or_refused(small, monkeypatch) -> None:
    monkeypatch.setitem(small.scheduler_config, "rescale_betas_zero_snr", True)
    monkeypatch.setitem(small.scheduler_config, "timestep_spacing", "trailing")
    for name, sampler in SAMPLERS.items():
        if not sampler.zero_snr:
            with pytest.raises(UserError, match="begins at pure noise"):
                make_scheduler(name, small)
            continue
        scheduler = make_scheduler(name, small)
        scheduler.set_timesteps(4)
        assert float(scheduler.timesteps[0]) == 999
        assert float(scheduler.alphas_cumprod[-1]) < 1e-6, name
