"""Samplers by the names people know, and the diffusers scheduler that a name stands for.

A sampler is a rule for a step, a schedule says where the steps stand (`schedules.py`). Names of
A1111 ("DPM++ 2M Karras"), of ComfyUI ("dpmpp_2m" and "karras") and of diffusers are known.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any

from zeroconv.backbones import Backbone, Flow
from zeroconv.errors import UserError
from zeroconv.generation.samplers.schedules import SCHEDULE_ALIASES, SCHEDULES, set_levels


@dataclass(frozen=True)
class Sampler:
    """kind: class of diffusers, or of `solvers` where `ours`. settings: its own.

    schedules: the kinds of schedule it can have. automatic: A1111's default schedule for it.
    zero_snr: whether it knows bases whose last timestep is pure noise.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    schedules: tuple[str, ...] = ("spacing", "sigmas")
    automatic: str | None = None
    zero_snr: bool = False
    ours: bool = False

    def __post_init__(self) -> None:
        assert set(self.schedules) <= {"spacing", "sigmas"}


def _multistep(order: int, algorithm: str = "dpmsolver++", **more: Any) -> Sampler:
    settings: dict[str, Any] = {"algorithm_type": algorithm}
    settings |= {"solver_order": order} if order != 2 else {}
    automatic = "exponential" if algorithm.startswith("sde") else "karras"
    ours = order == 3
    kind = "DPMSolver3MSDE" if ours else "DPMSolverMultistepScheduler"
    return Sampler(kind, {**settings, **more}, automatic=automatic, zero_snr=True, ours=ours)


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler", schedules=("spacing",), zero_snr=True),
    "euler": Sampler("EulerDiscreteScheduler", zero_snr=True),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", zero_snr=True),
    "dpm++2m": _multistep(2),
    "dpm++2m_sde": _multistep(2, "sde-dpmsolver++"),
    "dpm++2m_sde_heun": _multistep(2, "sde-dpmsolver++", solver_type="heun"),
    "dpm++3m_sde": _multistep(3, "sde-dpmsolver++"),
    "dpm++sde": Sampler("DPMSolverSDE", automatic="karras", zero_snr=True, ours=True),
    "dpm2": Sampler("KDPM2DiscreteScheduler", automatic="karras"),
    "dpm2_a": Sampler("KDPM2AncestralDiscreteScheduler", automatic="karras"),
    "heun": Sampler("HeunDiscreteScheduler"),
    "lms": Sampler("LMSDiscreteScheduler"),
    "deis": Sampler("DEIS", ours=True),
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}, ("spacing",)),
    "unipc": Sampler("UniPCMultistepScheduler", zero_snr=True),
    # for distilled weights at 1 to 8 steps, at timesteps of their distillation
    "lcm": Sampler("LCMScheduler", schedules=(), zero_snr=True),
    "tcd": Sampler("TCDScheduler", schedules=(), zero_snr=True),
}
# Old checkpoints say "leading": of 20 steps the first stands at t = 951 (UniPC's at 941) and
# takes pure noise for a picture with a tenth of its colours left (0.07 of them at 999), which are
# then too near to grey. "trailing" begins at the last timestep (Lin et al., "Common Diffusion
# Noise Schedules and Sample Steps are Flawed", WACV 2024, section 3.3; ComfyUI's sgm_uniform).
# Names of one word for a sampler with its schedule:
COMBINED: dict[str, tuple[str, str]] = {"dpm++2m_karras": ("dpm++2m", "karras")}
COMBINED |= {
    f"{name}_trailing": (name, "trailing") for name in ("ddim", "euler", "euler_a", "unipc")
}
# name → sampler and schedule (None: the base's own): every name that is accepted as it is
SCHEDULERS: dict[str, tuple[str, str | None]] = {**{name: (name, None) for name in SAMPLERS}}
SCHEDULERS |= COMBINED
# Other tools' names, written without capitals and signs between the letters (`_plain`)
ALIASES = {
    "eulerancestral": "euler_a",
    "dpmpp2m": "dpm++2m",
    "dpmpp2msde": "dpm++2m_sde",
    "dpmpp2msdeheun": "dpm++2m_sde_heun",
    "dpmpp3msde": "dpm++3m_sde",
    "dpmppsde": "dpm++sde",
    "dpm2ancestral": "dpm2_a",
    "plms": "pndm",
    # ComfyUI's, whose noise is then drawn on the card: noise="gpu" here
    "dpmpp2msdegpu": "dpm++2m_sde",
    "dpmpp2msdeheungpu": "dpm++2m_sde_heun",
    "dpmpp3msdegpu": "dpm++3m_sde",
    "dpmppsdegpu": "dpm++sde",
    "unipcbh2": "unipc",
}
# what a checkpoint's scheduler says of its noise; the rest belongs to the class it was written for
NOISE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _by_plain_name(names: Any, aliases: dict[str, str]) -> dict[str, str]:
    return {**{_plain(name): name for name in names}, **aliases}


_SAMPLER_NAMES = _by_plain_name(SAMPLERS, ALIASES)
_SCHEDULE_NAMES = _by_plain_name([*SCHEDULES, "automatic"], SCHEDULE_ALIASES)


def read_names(scheduler: str, schedule: str | None = None) -> tuple[str, str | None]:
    """Any tool's names → a name of `SAMPLERS` and one of `SCHEDULES`, None for the base's own.

    Raises UserError for unknown names, two different schedules, and a schedule that the sampler
    cannot have.
    """
    sampler, inside = _read_sampler(scheduler)
    asked = None if schedule is None else _read_schedule(schedule)
    if inside is not None and asked is not None and inside != asked:
        raise UserError(
            f"scheduler {scheduler!r} names the schedule {inside}, and schedule is {schedule!r}; "
            f"give scheduler {sampler!r} and one schedule."
        )
    chosen = asked or inside
    if chosen == "automatic":
        chosen = SAMPLERS[sampler].automatic
    _check_pair(sampler, chosen)
    return sampler, chosen


def _read_sampler(name: str) -> tuple[str, str | None]:
    """A name that may end with a schedule's."""
    plain = _plain(name)
    if plain in _SAMPLER_NAMES:
        return _SAMPLER_NAMES[plain], None
    for ending in sorted(_SCHEDULE_NAMES, key=len, reverse=True):
        start = plain.removesuffix(ending)
        if start != plain and start in _SAMPLER_NAMES:
            return _SAMPLER_NAMES[start], _SCHEDULE_NAMES[ending]
    raise UserError(_unknown("scheduler", name, plain, SCHEDULERS, _SAMPLER_NAMES))


def _read_schedule(name: str) -> str:
    plain = _plain(name)
    if plain in _SCHEDULE_NAMES:
        return _SCHEDULE_NAMES[plain]
    raise UserError(_unknown("schedule", name, plain, [*SCHEDULES, "automatic"], _SCHEDULE_NAMES))


def _unknown(what: str, name: str, plain: str, known: Any, names: dict[str, str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    close = close or [names[key] for key in difflib.get_close_matches(plain, names, n=1)]
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"There is no {what} {name!r}; known: {', '.join(known)}{meant}"


def _check_pair(sampler: str, schedule: str | None) -> None:
    if schedule is None or SCHEDULES[schedule].kind in SAMPLERS[sampler].schedules:
        return
    kinds = SAMPLERS[sampler].schedules
    if not kinds:
        raise UserError(
            f"{sampler} steps at the timesteps of its distillation and takes no schedule, so not "
            f"{schedule}; leave the schedule out."
        )
    able = [name for name, one in SCHEDULES.items() if one.kind in kinds]
    raise UserError(
        f"{sampler} has no noise levels to choose, so not the schedule {schedule}; choose one of "
        f"{', '.join(able)}, or a sampler such as euler or dpm++2m."
    )


def make_scheduler(
    name: str, backbone: Backbone, schedule: str | None = None, ours: bool = False
) -> Any:
    """A fresh diffusers scheduler on the backbone's noise schedule. `ours`: of two classes for a
    sampler the one of `solvers`, which takes η and noise from outside.

    Raises UserError for unknown names, and combinations that there are not.
    """
    key, chosen = read_names(name, schedule)
    if isinstance(backbone.process, Flow):
        return _flow_scheduler(key, chosen, backbone)
    sampler = SAMPLERS[key]
    noise = {k: backbone.scheduler_config[k] for k in NOISE_KEYS if k in backbone.scheduler_config}
    if noise.get("rescale_betas_zero_snr") and not sampler.zero_snr:
        able = ", ".join(name for name, one in SAMPLERS.items() if one.zero_snr)
        raise UserError(
            f"{backbone.name} begins at pure noise (rescale_betas_zero_snr), which {key} cannot "
            f"start from; choose one of {able}."
        )
    plan = SCHEDULES[chosen] if chosen else None
    settings = {**noise, **sampler.settings, **(plan.settings if plan else {})}
    ours = ours or (plan is not None and plan.kind == "sigmas")
    scheduler = _class(sampler, ours).from_config(settings)
    if plan is not None and plan.sigmas is not None:
        set_levels(scheduler, plan.sigmas, _is_xl(backbone))
    return scheduler


def _flow_scheduler(sampler: str, schedule: str | None, backbone: Backbone) -> Any:
    """Euler's steps along a flow; those are all for now. Raises UserError for another name."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if sampler != "euler" or schedule is not None:
        asked = sampler if schedule is None else f"{sampler} with the schedule {schedule}"
        raise UserError(
            f"{backbone.name} is a flow-matching model, for which there is the scheduler euler "
            f"alone, not {asked}."
        )
    return FlowMatchEulerDiscreteScheduler.from_config(backbone.scheduler_config)


def _class(sampler: Sampler, ours: bool) -> Any:
    """diffusers' Euler ancestral has spacings only; ours has the other schedules, and η."""
    import diffusers

    from zeroconv.generation.samplers import solvers

    if sampler.kind == "EulerAncestralDiscreteScheduler" and ours:
        return solvers.EulerAncestral
    return getattr(solvers if sampler.ours else diffusers, sampler.kind)


def _is_xl(backbone: Backbone) -> bool:
    unet = getattr(backbone, "unet", None)
    return getattr(getattr(unet, "config", None), "addition_embed_type", None) == "text_time"
