"""Samplers × schedules against diffusers' pipeline, and the names that people know."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, StableDiffusionControlNetPipeline
from PIL import Image

from tests.helpers.tiny import randomise_
from zeroconv.control import ControlNet
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.generation.samplers.names import SAMPLERS, SCHEDULERS, make_scheduler, read_names
from zeroconv.generation.samplers.schedules import SCHEDULES
from zeroconv.generation.samplers.stepping import scheduler_for

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
        warnings.filterwarnings("ignore", ".*pure noise is taken for")  # of `leading`
        (image,) = generate(small, "a", scheduler=name, steps=steps, cfg=1.0, output="tensor")
    assert torch.isfinite(image).all()


@pytest.mark.parametrize(("name", "schedule"), PAIRS)
def test_samplers_begin_one_step_at_the_highest_level(small, name, schedule) -> None:
    """But for `leading`, which is defined otherwise, and of which a note tells."""
    if schedule in (None, "leading"):
        return
    made = scheduler_for(name, small, 1, schedule)
    assert float(made.timesteps[0]) >= 998


def test_samplers_note_a_first_step_far_below_pure_noise(small) -> None:
    few: dict = {"scheduler": "euler", "schedule": "leading", "output": "tensor"}
    with pytest.warns(UserWarning, match="first of 2 steps stands at timestep 501 of 1000"):
        generate(small, "a", steps=2, **few)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        generate(small, "a", **{**few, "schedule": "trailing"}, steps=2)


def test_samplers_of_edm_are_refused(small) -> None:
    with pytest.raises(UserError, match="EDMEulerScheduler is of EDM"):
        generate(small, "a", scheduler=EDMEulerScheduler(), steps=2)


@pytest.mark.parametrize("schedule", ["karras", "beta", "align_your_steps"])
def test_deis_ends_at_the_lowest_level_with_chosen_levels(small, schedule) -> None:
    made = scheduler_for("deis", small, 4, schedule)
    assert float(made.sigmas[-1]) == pytest.approx(0.0292, abs=1e-4)


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
