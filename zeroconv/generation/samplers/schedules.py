"""Schedules: at which noise levels the steps of a sampler stand, apart from the sampler.

A spacing chooses timesteps among those that the model was trained at. A sigma schedule chooses the
noise levels themselves, from the base's highest to its lowest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroconv.errors import UserError

Sigmas = NDArray[np.float64]

# Noise levels of ten steps and where the last of them ends, from NVIDIA's "Align Your Steps"
# (Sabour et al. 2024)
ALIGNED = {
    "SD": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "SDXL": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
ALIGNED_HIGHEST = 14.615


@dataclass(frozen=True)
class Schedule:
    """settings: of diffusers' scheduler.

    sigmas: (all levels of the base, rising; steps; whether the base is an SDXL) → one level a step,
    falling; where diffusers has no setting for it.
    """

    kind: str  # "spacing" or "sigmas"
    settings: dict[str, Any] = field(default_factory=dict)
    sigmas: Callable[[Sigmas, int, bool], Sigmas] | None = None


def beta_sigmas(levels: Sigmas, steps: int, xl: bool = False) -> Sigmas:
    """Levels at quantiles of Beta(0.6, 0.6) over the timesteps (Lee et al. 2024, "Beta Sampling is
    All You Need"), as ComfyUI and A1111 have it. The last step is not the lowest level.
    """
    from scipy.stats import beta  # type: ignore[import-untyped]

    quantiles = beta.ppf(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6)
    at = quantiles * (len(levels) - 1)
    rounded = np.rint(at)
    # with many steps two would round to one timestep, and a step of no length divides by zero
    at = rounded if len(np.unique(rounded)) == steps else at
    return np.interp(at, np.arange(len(levels)), levels)


def kl_optimal_sigmas(levels: Sigmas, steps: int, xl: bool = False) -> Sigmas:
    """σ = tan of equal steps between arctan σ_max and arctan σ_min (Sabour et al. 2024, equation
    8).
    """
    return np.tan(np.linspace(np.arctan(levels[-1]), np.arctan(levels[0]), steps))


def aligned_sigmas(levels: Sigmas, steps: int, xl: bool = False) -> Sigmas:
    """The published levels, for other numbers of steps interpolated in log σ, as NVIDIA advises.

    Raises UserError for a base of other noise levels than Stable Diffusion's.
    """
    if abs(levels[-1] / ALIGNED_HIGHEST - 1) > 0.01:
        raise UserError(
            f"schedule 'align_your_steps' is made for noise up to σ = {ALIGNED_HIGHEST}, but this "
            f"base's ends at {levels[-1]:.4g}; choose another, such as trailing or karras."
        )
    logs = np.log(ALIGNED["SDXL" if xl else "SD"])
    # the last step ends at zero, so the table's last level is no step's beginning
    at = np.linspace(0, len(logs) - 1, steps + 1)[:-1]
    return np.exp(np.interp(at, np.arange(len(logs)), logs))


def _spacing(name: str) -> Schedule:
    return Schedule("spacing", {"timestep_spacing": name})


def _setting(name: str) -> Schedule:
    # "linspace" holds the highest and the lowest level of the base, so the schedule spans them
    return Schedule("sigmas", {name: True, "timestep_spacing": "linspace"})


def _levels(rule: Callable[[Sigmas, int, bool], Sigmas]) -> Schedule:
    return Schedule("sigmas", {"timestep_spacing": "linspace"}, rule)


SCHEDULES: dict[str, Schedule] = {
    "leading": _spacing("leading"),
    "trailing": _spacing("trailing"),
    "linspace": _spacing("linspace"),
    "karras": _setting("use_karras_sigmas"),
    "exponential": _setting("use_exponential_sigmas"),
    "beta": _levels(beta_sigmas),
    "beta_sigmas": _setting("use_beta_sigmas"),  # diffusers': quantiles over σ
    "kl_optimal": _levels(kl_optimal_sigmas),
    "align_your_steps": _levels(aligned_sigmas),
}
# Other tools' names, without signs between the letters. ComfyUI's sgm_uniform and simple stand
# within one timestep of trailing.
SCHEDULE_ALIASES = {
    "sgmuniform": "trailing",
    "simple": "trailing",
    "uniform": "linspace",
    "normal": "linspace",
    "ddimuniform": "leading",
    "polyexponential": "exponential",  # A1111's, at its ρ = 1
    "ays": "align_your_steps",
}


def set_levels(scheduler: Any, rule: Callable[[Sigmas, int, bool], Sigmas], xl: bool) -> None:
    """Make a diffusers scheduler that knows Karras' levels use `rule`'s instead.

    diffusers turns levels into timesteps itself; only the levels are replaced.
    """
    levels = levels_of(scheduler)

    def convert(in_sigmas: Any, num_inference_steps: int | None = None) -> Sigmas:
        return rule(levels, num_inference_steps or len(in_sigmas), xl)

    scheduler.register_to_config(use_karras_sigmas=True)
    scheduler._convert_to_karras = convert


def levels_of(scheduler: Any) -> Sigmas:
    """σ at every timestep of training, (T,), rising, as a diffusers scheduler holds them."""
    kept = np.asarray(scheduler.alphas_cumprod, dtype=float)
    return ((1 - kept) / kept) ** 0.5
