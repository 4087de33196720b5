"""How `generate` steps: its arguments scheduler, schedule, eta, guidance_rescale and noise, from
names or an object to a scheduler that is ready, and what each of its steps is given.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, Flow
from zeroconv.errors import UserError
from zeroconv.generation.arguments import number, wrong_type
from zeroconv.generation.samplers.few_steps import few_steps_of
from zeroconv.generation.samplers.names import NOISE_KEYS, make_scheduler, read_names
from zeroconv.generation.samplers.noise import NOISES, Philox, Source, draw

# of diffusers' config: what the noise of training is, whatever the sampler
TRAINED_NOISE = (*NOISE_KEYS[:5], "rescale_betas_zero_snr", "prediction_type")
LATE = 0.85  # of the timesteps: a first step below leaves colours and shapes to chance
DRAWING = (
    "EulerAncestral",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDE",
    "DPMSolverSDEScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "DDPMScheduler",
    "SASolverScheduler",
)


def check_sampling(
    scheduler: Any, schedule: Any, eta: Any, guidance_rescale: Any, noise: Any
) -> None:
    """Raise TypeError or UserError for the first argument that is wrong in itself."""
    parts = ("set_timesteps", "step", "scale_model_input", "config")
    given = "euler" if scheduler is None else scheduler  # which has every schedule
    if isinstance(given, type) or not (
        isinstance(given, str) or all(hasattr(given, p) for p in parts)
    ):
        raise wrong_type("scheduler", given, "a name, or a scheduler object of diffusers")
    for name, value in (("schedule", schedule), ("noise", noise)):
        if not isinstance(value, str) and not (name == "schedule" and value is None):
            raise wrong_type(name, value, "a name")
    if isinstance(given, str):
        read_names(given, schedule)
    elif schedule is not None:
        raise UserError(
            f"schedule {schedule!r} is for a scheduler given by its name; an object has its own, "
            "set it there."
        )
    if noise not in NOISES:
        raise UserError(f"noise is {noise!r}; choose one of {', '.join(NOISES)}.")
    if eta is not None:
        number("eta", eta, 0, 1, "the share of noise that a step adds, or None for the sampler's")
    number("guidance_rescale", guidance_rescale, 0, 1, "0 leaves guidance as it is, usually 0.7")


def usual_scheduler(backbone: Backbone) -> str:
    """The sampler where none is asked for."""
    few = few_steps_of(backbone)
    if few is not None:
        return few.scheduler
    return "euler" if isinstance(backbone.process, Flow) else "unipc"


def scheduler_for(
    scheduler: Any,
    backbone: Backbone,
    steps: int,
    schedule: str | None = None,
    eta: float | None = None,
    noise: str = "cpu",
) -> Any:
    """A scheduler of diffusers that starts anew, from a name or a copy of the given object.

    Raises UserError for a combination that there is not.
    """
    if scheduler is None:
        scheduler = usual_scheduler(backbone)
    named = isinstance(scheduler, str)
    made = (
        make_scheduler(scheduler, backbone, schedule, ours=eta is not None or noise == "gpu")
        if named
        else copy.deepcopy(scheduler)
    )
    called = scheduler if named else type(scheduler).__name__
    takes = inspect.signature(made.step).parameters
    if eta is not None and "eta" not in takes:
        raise UserError(
            f"{called} has no eta; leave it out, or choose ddim, euler_a, dpm++sde, tcd."
        )
    if noise == "gpu" and "variance_noise" not in takes and draws_noise(made, eta):
        raise UserError(
            f"noise 'gpu' cannot be given to the steps of {called}; choose noise 'cpu', or "
            "euler_a, dpm++sde, dpm++2m_sde, dpm++3m_sde, or one that adds no noise."
        )
    if isinstance(backbone.process, Flow):  # its steps may depend on the resolution
        return made
    if "sigma_data" in made.config:
        raise UserError(
            f"{called} is of EDM, whose timesteps are logarithms of noise levels; {backbone.name} "
            "reads their numbers, so choose another."
        )
    if named and steps == 1 and made.config.get("timestep_spacing") == "linspace":
        # of one even step diffusers takes the lowest level; the highest is where noise begins
        made.register_to_config(timestep_spacing="trailing")
    try:
        made.set_timesteps(steps)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{called} cannot take {steps} steps: {reason}") from error
    if not len(made.timesteps):
        raise UserError(f"{called} makes no step of steps={steps}; give more.")
    return made


def set_timesteps(scheduler: Any, steps: int, z: Tensor, backbone: Backbone) -> None:
    """A flow's noise levels are those of its family; where its schedule depends on the resolution
    it is that of latents z (N, C, H, W).
    """
    process, more = backbone.process, dict[str, Any]()
    if isinstance(process, Flow):
        takes = inspect.signature(scheduler.set_timesteps).parameters
        if process.dynamic:
            tokens = z.shape[-2] * z.shape[-1] // backbone.connections[0].scale ** 2
            more["mu"] = process.mu(tokens)
        family: Any = backbone
        levels = family.sigmas(steps) if hasattr(type(backbone), "sigmas") else None
        if levels is not None and "sigmas" in takes:
            more["sigmas"] = levels
        missing = [name for name in more if name not in takes]
        if missing:
            raise UserError(
                f"{type(scheduler).__name__} has no noise levels that depend on the picture's "
                f"size, which {backbone.name} needs; leave the scheduler out."
            )
    if more.get("sigmas") and steps == 1 and scheduler.config.get("shift_terminal"):
        raise UserError(  # its levels are stretched between the first and the last
            f"{backbone.name} makes no picture in one step; give more steps."
        )
    scheduler.set_timesteps(steps, device=z.device, **more)


def note_other_noise(scheduler: Any, backbone: Backbone) -> None:
    """A note where a given object has been made for other noise than the base was trained with."""
    if scheduler is None or isinstance(scheduler, str):
        return
    trained, its = backbone.scheduler_config, scheduler.config
    for key in TRAINED_NOISE:
        if key in its and key in trained and its[key] != trained[key]:
            warnings.warn(
                f"the {type(scheduler).__name__} has {key} {its[key]!r}, and {backbone.name} was "
                f"trained with {trained[key]!r}, so pictures will be wrong; make it by "
                f"{type(scheduler).__name__}.from_config(backbone.scheduler_config).",
                stacklevel=4,
            )
            return


def note_late_start(scheduler: Any, backbone: Backbone) -> None:
    """A note where the first step from pure noise stands far below the highest noise level, as
    with few steps of `leading`: the model takes noise for a picture that is half made.
    """
    if isinstance(backbone.process, Flow):
        return
    steps, total = len(scheduler.timesteps), scheduler.config.num_train_timesteps
    first = float(scheduler.timesteps[0])
    if first < LATE * total:
        warnings.warn(
            f"the first of {steps} steps stands at timestep {first:.0f} of {total}, so pure noise "
            "is taken for a picture that is half made; give the schedule 'trailing', or more "
            "steps.",
            stacklevel=5,  # of the caller of `generate`
        )


def note_unused(
    cfg: float, guidance_rescale: float, latents: Any, noise: str, negative: bool = False
) -> None:
    """A note on arguments that change nothing beside the others. negative: whether there is a
    negative prompt.
    """
    if negative and cfg == 1:
        warnings.warn(
            "the negative prompt changes nothing at cfg 1, which is no guidance; raise cfg or "
            "leave it out.",
            stacklevel=4,
        )
    if guidance_rescale and cfg == 1:
        warnings.warn(
            "guidance_rescale changes nothing at cfg 1, which is no guidance; leave it out.",
            stacklevel=4,
        )
    if noise == "batch" and latents is not None:
        warnings.warn(
            "noise 'batch' changes nothing where latents are given; leave one of them out.",
            stacklevel=4,
        )


def draws_noise(scheduler: Any, eta: float | None) -> bool:
    """Whether its steps add noise."""
    kind = type(scheduler).__name__
    if kind == "DDIMScheduler":
        return bool(eta)
    if eta == 0:
        return False
    return kind in DRAWING or str(scheduler.config.get("algorithm_type", "")).startswith("sde")


def step_options(
    scheduler: Any, sources: Sequence[Source], eta: float | None
) -> Callable[[Tensor], dict[str, Any]]:
    """A function that gives the keywords of `scheduler.step` for latents (N, C, H, W), each time
    the next noise.
    """
    takes = inspect.signature(scheduler.step).parameters
    fixed: dict[str, Any] = {} if eta is None else {"eta": eta}
    if "return_dict" in takes:
        fixed["return_dict"] = False
    if any(isinstance(source, Philox) for source in sources):
        if not draws_noise(scheduler, eta):
            return lambda z: fixed
        return lambda z: {
            **fixed,
            "variance_noise": torch.stack([draw(s, z.shape[1:]) for s in sources]).to(z.device),
        }
    if "generator" in takes:
        fixed["generator"] = list(sources)
    elif getattr(scheduler, "noise_sampler_seed", 0) is None:  # diffusers' DPMSolverSDEScheduler
        scheduler.noise_sampler_seed = [s.initial_seed() % 2**63 for s in sources]  # type: ignore[union-attr]
    return lambda z: fixed
