"""Noise and targets: what is added can be taken away again, as diffusers' schedulers have it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zeroconv.backbones import Diffusion, Flow, Process, make_process
from zeroconv.backbones.process import TIMESTEPS, draw_levels
from zeroconv.backbones.unet import DEFAULT_SCHEDULER
from zeroconv.errors import UserError

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
PROCESSES = {
    "epsilon": make_process(DEFAULT_SCHEDULER, "base"),
    "v_prediction": make_process({**DEFAULT_SCHEDULER, "prediction_type": "v_prediction"}, "base"),
    "flow": make_process(FLOW, "base"),
}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(process: Process) -> tuple[Tensor, Tensor, Tensor]:
    z, noise = torch.randn(2, 5, 4, 2, 2, generator=stream())
    return z, noise, process.draw(5, stream(1), "cpu")


@pytest.mark.parametrize("kind", PROCESSES)
def test_process_clean_takes_back_what_noised_added(kind: str) -> None:
    process = PROCESSES[kind]
    assert process.prediction_type == kind
    z, noise, t = drawn(process)
    noisy = process.noised(z, noise, t)
    assert torch.allclose(process.clean(noisy, process.target(z, noise, t), t), z, atol=2e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_process_of_diffusion_equals_diffusers(kind: str) -> None:
    from diffusers import DDPMScheduler

    process = PROCESSES[kind]
    config = {key: DEFAULT_SCHEDULER[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    theirs = DDPMScheduler(**config, prediction_type=kind)
    z, noise, t = drawn(process)
    assert torch.equal(process.noised(z, noise, t), theirs.add_noise(z, noise, t))
    if kind == "v_prediction":
        assert torch.equal(process.target(z, noise, t), theirs.get_velocity(z, noise, t))
    scaled = Diffusion.scaled_linear("epsilon")
    assert torch.equal(scaled.alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize("dynamic", [False, True])
def test_process_of_flow_equals_diffusers(dynamic: bool) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = {**FLOW, "use_dynamic_shifting": dynamic}
    process = make_process(config, "base")
    assert isinstance(process, Flow)
    theirs = FlowMatchEulerDiscreteScheduler.from_config(config)
    tokens = 1024
    theirs.set_timesteps(7, **({"mu": process.mu(tokens)} if dynamic else {}))
    sigmas, timesteps = theirs.sigmas[:-1], theirs.timesteps
    assert torch.allclose(process.sigma(timesteps), sigmas, atol=1e-6)

    z, noise = torch.randn(2, 7, 4, 2, 2, generator=stream())
    assert torch.allclose(
        process.noised(z, noise, timesteps), theirs.scale_noise(z, timesteps, noise), atol=1e-6
    )
    # its list before the shift; a static one has shifted its ends already
    if dynamic:
        plain = torch.linspace(1, 1 / 1000, 7)
        assert torch.allclose(process.shifted(plain, tokens), sigmas, atol=1e-5)


def test_process_shift_by_hand() -> None:
    assert Flow(shift=3.0).shifted(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.0, 0.75, 1.0]
    flux = Flow(dynamic=True)
    assert [flux.mu(256), flux.mu(4096)] == pytest.approx([0.5, 1.15])
    assert flux.mu(1024) == pytest.approx(0.5 + 768 * 0.65 / 3840)
    shift = math.exp(1.15)
    assert flux.shifted(torch.tensor([0.5]), 4096).item() == pytest.approx(shift / (1 + shift))
    with pytest.raises(UserError, match="give its tokens"):
        flux.shifted(torch.tensor([0.5]))


def test_process_min_snr_weights_by_hand() -> None:
    alphas, t = torch.tensor([0.5, 0.9, 0.99]), torch.arange(3)  # SNR 1, 9, 99
    weights = Diffusion(alphas, "epsilon").weights(t, 5.0)
    assert weights.tolist() == pytest.approx([1, 5 / 9, 5 / 99], rel=1e-4)
    weights = Diffusion(alphas, "v_prediction").weights(t, 5.0)
    assert weights.tolist() == pytest.approx([1 / 2, 5 / 10, 5 / 100], rel=1e-4)
    weights = Flow().weights(torch.tensor([500.0, 100.0]), 5.0)  # SNR 1, 81
    assert weights.tolist() == pytest.approx([1 * 0.25, 5 * 0.01], rel=1e-4)


@pytest.mark.parametrize("kind", PROCESSES)
def test_process_weights_are_those_of_the_clean_latents_error(kind: str) -> None:
    """A squared error of the output times its weight is min(SNR, γ) times that of z."""
    process, gamma = PROCESSES[kind], 5.0
    z, noise, t = drawn(process)
    noisy, right = process.noised(z, noise, t), process.target(z, noise, t)
    wrong = right + 0.1 * torch.randn(z.shape, generator=stream(2))
    error = (process.clean(noisy, wrong, t) - z).double().square().mean((1, 2, 3))
    if isinstance(process, Diffusion):
        snr = process.alphas_cumprod[t] / (1 - process.alphas_cumprod[t])
    else:
        sigma = t / 1000
        snr = ((1 - sigma) / sigma) ** 2
    weighted = (wrong - right).square().mean((1, 2, 3)) * process.weights(t, gamma)
    assert torch.allclose(weighted, (snr.clamp_max(gamma) * error).float(), rtol=1e-2)


@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("rule", TIMESTEPS)
def test_process_draws_timesteps_of_its_schedule(kind: str, rule: str) -> None:
    process = PROCESSES[kind]
    t = process.draw(4000, stream(), "cpu", rule)
    again = process.draw(4000, stream(), "cpu", rule)
    assert torch.equal(t, again)
    if kind == "flow":
        assert t.is_floating_point() and t.min() > 0 and t.max() <= 1000
    else:
        assert t.dtype == torch.int64 and t.min() >= 0 and t.max() <= 999
    shares = t / 1000
    middle = ((shares > 0.25) & (shares < 0.75)).float().mean()
    if kind != "flow":  # a shift moves them
        expected = {
            "uniform": 0.5,
            "cubic": 0.75 ** (1 / 3) - 0.25 ** (1 / 3),
            "logit_normal": 0.728,
            "mode": 0.734,
        }
        assert middle == pytest.approx(expected[rule], abs=0.03)
    else:
        assert shares.mean() > 0.55


def test_process_draws_uniform_timesteps_as_before() -> None:
    """Runs begun by earlier versions go on with the numbers they would have had."""
    t = PROCESSES["epsilon"].draw(6, stream(3), "cpu")
    assert torch.equal(t, torch.randint(0, 1000, (6,), generator=stream(3)))
    t = PROCESSES["epsilon"].draw(6, stream(3), "cpu", "logit_normal")
    assert torch.equal(t, (torch.randn(6, generator=stream(3)).sigmoid() * 1000).long())


@pytest.mark.parametrize("rule", ["logit_normal", "mode"])
def test_process_rules_of_flows_equal_diffusers(rule: str) -> None:
    from diffusers.training_utils import compute_density_for_timestep_sampling

    theirs = compute_density_for_timestep_sampling(rule, 50, 0.0, 1.0, 1.29, generator=stream())
    assert torch.allclose(draw_levels(50, stream(), "cpu", rule), theirs, atol=1e-6)


def test_process_mode_rule_ends_at_both_ends() -> None:
    levels = draw_levels(20000, stream(), "cpu", "mode")
    assert 0 <= levels.min() < 0.01 and 0.99 < levels.max() <= 1
    with pytest.raises(UserError, match="no rule 'normal'"):
        draw_levels(1, stream(), "cpu", "normal")


@pytest.mark.parametrize("kind", PROCESSES)
def test_process_spread_is_even(kind: str) -> None:
    t = PROCESSES[kind].spread(4)
    assert t.tolist() == [125, 375, 625, 875]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**FLOW, "shift": -1.0}, "shift is -1.0"),
        ({**FLOW, "shift": "three"}, "shift is three"),
        ({**FLOW, "time_shift_type": "linear"}, "by the rule 'linear'"),
        ({"prediction_type": "sample"}, "predicts 'sample'"),
        ({"beta_start": "a"}, "describes no noise schedule"),
    ],
)
def test_process_refuses_schedules_it_does_not_know(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=f"base.*{message}"):
        make_process(config, "base")


def test_process_of_a_unet_is_never_a_guess() -> None:
    """A flow's config holds no betas: without this it would become another schedule silently."""
    with pytest.raises(UserError, match="predicts 'flow'"):
        Diffusion.from_config(FLOW, "base")
