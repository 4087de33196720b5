"""Samplers × schedules against diffusers' pipeline, and against formulas written out here."""

from __future__ import annotations

import sys
import types
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
)
from PIL import Image

from tests.helpers.tiny import randomise_, tiny_backbone, tiny_unet
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers import SAMPLERS, SCHEDULERS, make_scheduler, read_names
from zeroconv.generation.schedules import ALIGNED, SCHEDULES, aligned_sigmas, levels_of
from zeroconv.generation.solvers import DPMSolver3MSDE, DPMSolverSDE, EulerAncestral

STEPS = 8
PAIRS = [
    (name, schedule)
    for name, sampler in SAMPLERS.items()
    for schedule in (None, *(s for s, one in SCHEDULES.items() if one.kind in sampler.schedules))
]
OFTEN = (None, "trailing", "karras")  # the rest are compared in slow tests
# what diffusers' pipeline must be given as eta, which it takes for 0 where nothing is said
ETA = {"tcd": 0.3, "dpm++sde": 1.0, "euler_a": 1.0}


@pytest.fixture(scope="module")
def small():
    """A UNet of two levels that reads the text in the middle: many generations in seconds."""
    unet = tiny_unet(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    return tiny_backbone(unet=unet)


@pytest.fixture(scope="module")
def pipeline(small, tmp_path_factory):
    from diffusers import ControlNetModel

    control = randomise_(ControlNet.from_backbone(small))
    folder = tmp_path_factory.mktemp("control")
    control.save(folder / "net")
    pipe = StableDiffusionControlNetPipeline(
        vae=small.vae,
        text_encoder=small.text_encoders[0],
        tokenizer=small.tokenizers[0],
        unet=small.unet,
        controlnet=ControlNetModel.from_pretrained(folder / "net"),
        scheduler=make_scheduler("ddim", small),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe, control


def ours_and_theirs(small, pipeline, name: str, schedule: str | None, seeds=(3, 4)) -> tuple:
    """Latents of both after 8 steps with a control, the same noise and the same scheduler."""
    pipe, net = pipeline
    pipe.scheduler = make_scheduler(name, small, schedule)
    hint = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise = torch.randn(len(seeds), 4, 8, 8, generator=torch.Generator().manual_seed(9))
    kept = []
    generate(
        small, ["a"] * len(seeds), [Control(net, hint)], latents=noise, steps=STEPS, cfg=3.0,
        scheduler=name, schedule=schedule, seed=list(seeds), guidance="both",
        callback=lambda step, steps, z: kept.append(z.clone()),
    )  # fmt: skip
    expected = pipe(
        ["a"] * len(seeds), image=[hint] * len(seeds), latents=noise.clone(), guidance_scale=3.0,
        num_inference_steps=STEPS, output_type="latent", eta=ETA.get(name, 0.0),
        generator=[torch.Generator().manual_seed(s) for s in seeds],
    ).images  # fmt: skip
    assert len(kept) == len(pipe.scheduler.timesteps)
    return kept[-1], expected


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        pytest.param(name, schedule, marks=[] if schedule in OFTEN else [pytest.mark.slow])
        for name, schedule in PAIRS
    ],
)
def test_every_sampler_and_schedule_equals_diffusers(small, pipeline, name, schedule) -> None:
    got, expected = ours_and_theirs(small, pipeline, name, schedule)
    assert expected.std() > 0.3 and torch.isfinite(expected).all()
    assert (got - expected).abs().max() < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_take_few_steps_without_a_note(small, name, steps) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing to note, and nothing of diffusers
        (image,) = generate(small, "a", scheduler=name, steps=steps, cfg=1.0, output="tensor")
    assert torch.isfinite(image).all()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("scheduler", "schedule", "expected"),
    [
        ("DPM++ 2M Karras", None, ("dpm++2m", "karras")),
        ("DPM++ 2M", "Karras", ("dpm++2m", "karras")),
        ("dpmpp_2m", "karras", ("dpm++2m", "karras")),
        ("DPM++ 2M SDE Heun Exponential", None, ("dpm++2m_sde_heun", "exponential")),
        ("DPM++ 3M SDE", "SGM Uniform", ("dpm++3m_sde", "trailing")),
        ("dpmpp_sde_gpu", "normal", ("dpm++sde", "linspace")),
        ("DPM++ SDE Karras", None, ("dpm++sde", "karras")),
        ("Euler a", None, ("euler_a", None)),
        ("euler_ancestral", "simple", ("euler_a", "trailing")),
        ("DPM2 a Karras", None, ("dpm2_a", "karras")),
        ("dpm_2_ancestral", "kl_optimal", ("dpm2_a", "kl_optimal")),
        ("LMS Karras", None, ("lms", "karras")),
        ("PLMS", None, ("pndm", None)),
        ("UniPC", "Align Your Steps", ("unipc", "align_your_steps")),
        ("DDIM", "ddim_uniform", ("ddim", "leading")),
        ("DPM++ 2M", "Automatic", ("dpm++2m", "karras")),
        ("DPM++ 2M SDE", "Automatic", ("dpm++2m_sde", "exponential")),
        ("euler", "automatic", ("euler", None)),
        ("ddim_trailing", None, ("ddim", "trailing")),
        ("ddim_trailing", "trailing", ("ddim", "trailing")),
    ],
)
def test_sampler_names_of_other_tools(scheduler, schedule, expected) -> None:
    assert read_names(scheduler, schedule) == expected


def test_sampler_names_of_ours_are_read_as_they_are() -> None:
    for name, (sampler, schedule) in SCHEDULERS.items():
        assert read_names(name) == (sampler, schedule)


@pytest.mark.parametrize(
    ("scheduler", "schedule", "words"),
    [
        ("ddim", "karras", "no noise levels to choose"),
        ("PLMS", "exponential", "no noise levels to choose"),
        ("lcm", "karras", "timesteps of its distillation"),
        ("tcd", "trailing", "timesteps of its distillation"),
        ("DPM++ 2M Karras", "exponential", "names the schedule karras"),
        ("euler_trailing", "karras", "names the schedule trailing"),
        ("euler", "karas", "did you mean 'karras'"),
        ("dpmpp2n", None, "did you mean 'dpm"),
        ("dpm adaptive", None, "no scheduler"),
    ],
)
def test_sampler_names_that_do_not_go_together_are_refused(
    small, scheduler, schedule, words
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        generate(small, "a", scheduler=scheduler, schedule=schedule)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- schedules


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


def test_schedules_are_diffusers_own_settings(small) -> None:
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


# ---------------------------------------------------------------- solvers of ours


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


# ---------------------------------------------------------------- eta, rescale, objects


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
