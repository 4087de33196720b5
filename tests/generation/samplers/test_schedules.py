"""Noise levels of schedules against published formulas and diffusers' settings."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)

from zeroconv.errors import UserError
from zeroconv.generation.samplers.names import make_scheduler
from zeroconv.generation.samplers.schedules import ALIGNED, aligned_sigmas, levels_of


def sigmas(small, name: str, schedule: str, steps: int = 10) -> np.ndarray:
    scheduler = make_scheduler(name, small, schedule)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.numpy()


def test_schedules_are_the_published_ones(small) -> None:
    levels = levels_of(make_scheduler("euler", small))
    low, high = levels[0], levels[-1]
    assert (low, high) == (pytest.approx(0.0292, abs=1e-4), pytest.approx(14.6146, abs=1e-3))
    ramp = np.linspace(0, 1, 10)
    karras = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    expected = {
        "karras": karras,
        "exponential": np.exp(np.linspace(np.log(high), np.log(low), 10)),
        "kl_optimal": np.tan((1 - ramp) * np.arctan(high) + ramp * np.arctan(low)),
        "align_your_steps": ALIGNED["SD"][:10],
    }
    for name in ("euler", "euler_a", "dpm++2m", "unipc", "lms", "deis"):
        for schedule, numbers in expected.items():
            got = sigmas(small, name, schedule)[:10]
            if name == "deis":  # of x with unit variance: σ / √(1 + σ²) stands for it
                got = got[:10]
            assert np.allclose(got, numbers, rtol=1e-4), (name, schedule)


def test_schedules_aligned_for_another_number_of_steps(small) -> None:
    levels = levels_of(make_scheduler("euler", small))
    assert np.allclose(aligned_sigmas(levels, 20)[::2], ALIGNED["SD"][:10])
    assert np.allclose(aligned_sigmas(levels, 5, True), np.array(ALIGNED["SDXL"])[:10:2])
    with pytest.raises(UserError, match="align_your_steps"):
        aligned_sigmas(levels * 2, 10)


@pytest.mark.parametrize("steps", [1, 8, 30, 150])
def test_schedule_beta_has_quantiles_of_timesteps_and_no_step_twice(small, steps) -> None:
    from scipy.stats import beta

    got = sigmas(small, "euler", "beta", steps)
    assert (np.diff(got) < 0).all()
    levels = levels_of(make_scheduler("euler", small))
    at = 999 * beta.ppf(1 - np.arange(steps) / steps, 0.6, 0.6)
    got_at = np.interp(got[:-1], levels, np.arange(1000))
    assert np.abs(got_at - at).max() < 0.51


def test_schedules_equal_diffusers_settings(small) -> None:
    config = {**small.scheduler_config, "timestep_spacing": "linspace"}
    for schedule, flag in {
        "karras": "use_karras_sigmas",
        "exponential": "use_exponential_sigmas",
        "beta_sigmas": "use_beta_sigmas",
    }.items():
        for name, kind in (
            ("euler", EulerDiscreteScheduler),
            ("dpm++2m", DPMSolverMultistepScheduler),
        ):
            theirs = kind.from_config({**config, flag: True})
            theirs.set_timesteps(12)
            assert np.array_equal(sigmas(small, name, schedule, 12), theirs.sigmas.numpy())
