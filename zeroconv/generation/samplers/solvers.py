"""Samplers that diffusers lacks, or has in another form; each is called like a scheduler of
diffusers.

Formulas are those of Karras et al. 2022 ("EDM") and Lu et al. 2022 ("DPM-Solver++"), with noise
levels σ and x = x0 + σ ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from zeroconv.generation.samplers.schedules import levels_of

Generators = Sequence[torch.Generator] | torch.Generator | None


def ancestral(high: Tensor, low: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Levels → (σ_down, σ_up) of an ancestral step: down to σ_down without noise, then noise of
    σ_up, which is η times the full one.
    """
    full = (low**2 * (high**2 - low**2) / high**2) ** 0.5
    up = torch.minimum(low, eta * full)
    return (low**2 - up**2) ** 0.5, up


def _noise(x: Tensor, generator: Generators, given: Tensor | None) -> Tensor:
    """Unit noise (N, C, H, W): `given`, else each picture's from its own generator."""
    if given is not None:
        return given.to(x.device, x.dtype)
    several = list(generator) if isinstance(generator, Sequence) else generator
    return randn_tensor(x.shape, generator=several, device=x.device, dtype=x.dtype)


class _Sigmas(EulerDiscreteScheduler):
    """diffusers' noise levels, timesteps and prediction types; `step` is the subclass's."""

    sigmas: Tensor
    timesteps: Tensor

    def denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The model's output at x → its prediction of x0. Raises ValueError for a kind of
        prediction that is no ε, v or x0.
        """
        kind = self.config.prediction_type
        if kind == "epsilon":
            return x - sigma * output
        if kind == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
        if kind == "sample":
            return output
        raise ValueError(f"prediction type {kind!r} is not known to this sampler")


class EulerAncestral(_Sigmas):
    """Euler with ancestral noise on any schedule and at any η; diffusers' has three spacings."""

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 1.0,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> tuple[Tensor, Tensor]:
        if self.step_index is None:
            self._init_step_index(timestep)
        high, low = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        down, up = ancestral(high, low, eta)
        x0 = self.denoised(model_output, sample, high)
        moved = sample + (sample - x0) / high * (down - high)
        moved = moved + up * _noise(sample, generator, variance_noise)
        self._step_index += 1
        return moved, x0


class DEIS(DEISMultistepScheduler):
    """diffusers' DEIS, whose last step ends at the base's lowest level with every schedule.

    With chosen noise levels diffusers ends at the last of them again, so the last step has no
    length and the noise of that level is left in the picture.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **more: Any) -> None:
        super().set_timesteps(num_inference_steps, device=device, **more)
        # never zero, of which DEIS takes the logarithm
        self.sigmas[-1] = min(float(self.sigmas[-1]), float(levels_of(self)[0]))


class DPMSolverSDE(_Sigmas):
    """DPM-Solver++ SDE of second order, two evaluations of the model a step ("DPM++ SDE").

    The noise of the first half and of the whole step are increments of one Brownian path in σ, as
    in k-diffusion. They are computed from two independent normal draws a step.
    """

    order = 2
    RATIO = 0.5  # where the second evaluation stands in log σ

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **more: Any) -> None:
        """2 n − 1 timesteps: the last step, down to zero, needs one evaluation."""
        super().set_timesteps(num_inference_steps, device=device, **more)
        levels = self.sigmas  # (n + 1,), the last 0
        halfway = (levels[:-2] * levels[1:-1]) ** 0.5
        logs = np.log(levels_of(self))
        between = torch.tensor([float(self._sigma_to_t(s, logs)) for s in halfway.numpy()])
        self.sigmas = torch.cat([torch.stack([levels[:-2], halfway], 1).flatten(), levels[-2:]])
        first = self.timesteps.cpu()
        both = torch.stack([first[:-1], between.to(first.dtype)], 1).flatten()
        self.timesteps = torch.cat([both, first[-1:]]).to(device)
        self.start: tuple[Tensor, Tensor] | None = None  # of the step that is under way

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 1.0,
        generator: Generators = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> tuple[Tensor, Tensor]:
        if self.step_index is None:
            self._step_index = self.begin_index or 0
        i = self.step_index
        x0 = self.denoised(model_output, sample, self.sigmas[i])
        if self.sigmas[i + 1] == 0:
            moved = x0
        else:
            unit = _noise(sample, generator, variance_noise)
            moved = (
                self._half(sample, x0, unit, eta) if i % 2 == 0 else self._full_step(x0, unit, eta)
            )
        self._step_index += 1
        return moved, x0

    def _half(self, x: Tensor, x0: Tensor, unit: Tensor, eta: float) -> Tensor:
        high, middle = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        self.start = x, unit
        return self._move(x, x0, high, middle, eta, unit)

    def _full_step(self, x0: Tensor, unit: Tensor, eta: float) -> Tensor:
        """From the step's start to its end, by the prediction in the middle (r = 1/2: weight 1)."""
        i = self.step_index
        high, middle, low = self.sigmas[i - 1], self.sigmas[i], self.sigmas[i + 1]
        assert self.start is not None
        x, first = self.start
        path = first * (high - middle) ** 0.5 + unit * (middle - low) ** 0.5
        self.start = None
        return self._move(x, x0, high, low, eta, path / (high - low) ** 0.5)

    @staticmethod
    def _move(x: Tensor, x0: Tensor, high: Tensor, low: Tensor, eta: float, unit: Tensor) -> Tensor:
        """The exact solution for a constant x0, and the ancestral noise."""
        down, up = ancestral(high, low, eta)
        return x0 + down / high * (x - x0) + up * unit


class DPMSolver3MSDE(DPMSolverMultistepScheduler):
    """DPM-Solver++ 3M SDE. diffusers 0.42 has the last term of the SDE's third order with a
    constant of the wrong sign: there it does not vanish for small steps. The rest is diffusers'.
    """

    def multistep_dpm_solver_third_order_update(
        self, model_output_list: list[Tensor], *args: Any, sample: Any = None, noise: Any = None,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        """diffusers' result, and the term's difference: its coefficient is ½ − φ, where diffusers
        writes −½ − φ.
        """
        moved = super().multistep_dpm_solver_third_order_update(
            model_output_list, *args, sample=sample, noise=noise, **kwargs
        )
        levels = [self.sigmas[self.step_index + k] for k in (1, 0, -1, -2)]
        pairs = [self._sigma_to_alpha_sigma_t(level) for level in levels]
        lambdas = [torch.log(alpha) - torch.log(sigma) for alpha, sigma in pairs]
        h, h0, h1 = (lambdas[k] - lambdas[k + 1] for k in range(3))
        r0, r1 = h0 / h, h1 / h
        m0, m1, m2 = model_output_list[-1], model_output_list[-2], model_output_list[-3]
        second = ((m0 - m1) / r0 - (m1 - m2) / r1) / (r0 + r1)  # D2 of the paper
        return moved + pairs[0][0] * second
