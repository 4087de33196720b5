"""One-step estimates, and timesteps that are small."""

from __future__ import annotations

import pytest
import torch

from zeroconv.backbones.process import Diffusion, Flow, Process
from zeroconv.training.objective import stream

PROCESSES: list[Process] = [
    Diffusion.scaled_linear("epsilon"),
    Diffusion.scaled_linear("v_prediction"),
    Flow(3.0),
]


@pytest.mark.parametrize("process", PROCESSES, ids=["epsilon", "v", "flow"])
def test_the_true_prediction_s_estimate_is_the_clean_latent(process: Process) -> None:
    generator = stream("cpu", 1)
    z, noise = (torch.randn(16, 4, 3, 3, generator=generator) for _ in range(2))
    t = process.draw_below(16, 200, generator, "cpu")
    estimate = process.clean(process.noised(z, noise, t), process.target(z, noise, t), t)
    assert torch.allclose(estimate, z, atol=1e-4)


@pytest.mark.parametrize("process", PROCESSES, ids=["epsilon", "v", "flow"])
@pytest.mark.parametrize("most", [0.5, 200, 1000])
def test_small_timesteps_are_uniform_up_to_the_limit(process: Process, most: float) -> None:
    t = process.draw_below(4000, most, stream("cpu", 2), "cpu")
    assert process.is_below(t, max(most, 1)).all()
    assert t.max() <= max(most, 1)
    assert t.float().mean() == pytest.approx(most / 2, rel=0.1, abs=1)
    every = process.draw(4000, stream("cpu", 3), "cpu")
    assert process.is_below(every, 1000).all()
    assert not process.is_below(every, 200).all()
