"""A1111's names of samplers, schedules, upscalers, modes and models, and what stands for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zeroconv.errors import UserError
from zeroconv.generation.metadata import infotext
from zeroconv.generation.samplers.names import ALIASES, SAMPLERS, read_names
from zeroconv.generation.samplers.schedules import SCHEDULES
from zeroconv.pictures import resize_mode

CONTROL_MODES = tuple(infotext.MODES)  # balanced, prompt, control: A1111's 0, 1, 2
PASSES = {"both": "both", "low res only": "low", "high res only": "high"}
LATENT_MODES = {
    "Latent": "",
    "Latent (antialiased)": "without antialiasing",
    "Latent (bicubic)": "bilinearly",
    "Latent (bicubic antialiased)": "bilinearly, without antialiasing",
    "Latent (nearest)": "bilinearly",
    "Latent (nearest-exact)": "bilinearly",
}
PIXEL_UPSCALERS = ("None", "Lanczos")  # "None" resizes by Lanczos in A1111 too
# A1111's schedules by their names: label and ours; "automatic" is the sampler's own
SCHEDULE_LABELS: dict[str, tuple[str, str]] = {
    "automatic": ("Automatic", "automatic"),
    "uniform": ("Uniform", "linspace"),
    "karras": ("Karras", "karras"),
    "exponential": ("Exponential", "exponential"),
    "polyexponential": ("Polyexponential", "exponential"),
    "sgm_uniform": ("SGM Uniform", "trailing"),
    "kl_optimal": ("KL Optimal", "kl_optimal"),
    "align_your_steps": ("Align Your Steps", "align_your_steps"),
    "simple": ("Simple", "trailing"),
    "normal": ("Normal", "linspace"),
    "ddim": ("DDIM", "leading"),
    "beta": ("Beta", "beta"),
}
TAKING_ETA = ("ddim", "euler_a", "dpm++sde", "tcd")


def sampler_of(name: str, schedule: str) -> tuple[str, str | None, list[str]]:
    """Our sampler, our schedule, and notes. Raises UserError for names that there are not.

    A schedule that the sampler cannot have is left out with a note, as A1111 leaves it out.
    """
    ours = SCHEDULE_LABELS.get(schedule.strip().lower().replace(" ", "_"), ("", schedule))[1]
    sampler, inside = read_names(name.strip().removeprefix("k_"))  # A1111's aliases: k_euler
    if inside is not None:  # "DPM++ 2M Karras", as older clients write it
        return sampler, inside, []
    wanted = read_names("euler", ours)[1] if ours != "automatic" else SAMPLERS[sampler].automatic
    if wanted is None or SCHEDULES[wanted].kind in SAMPLERS[sampler].schedules:
        return sampler, wanted, []
    note = f"the sampler {name} has no schedule to choose, so {schedule} is left out."
    return sampler, None, [note]


def upscaler_of(name: str) -> tuple[str, list[str]]:
    """ "latent" or "lanczos", and notes. Raises UserError for another upscaler."""
    for known, less in LATENT_MODES.items():
        if name.lower() == known.lower():
            return "latent", [f"hr_upscaler {known} enlarges {less}."] if less else []
    if name.lower() in ("none", "lanczos"):
        return "lanczos", []
    raise UserError(
        f"hr_upscaler {name[:60]!r} is not here; choose one of "
        f"{', '.join([*LATENT_MODES, *PIXEL_UPSCALERS])}."
    )


def control_mode_of(value: str | int) -> str:
    """balanced, prompt or control. Raises UserError."""
    text = str(value).strip().lower()
    for number, (ours, theirs) in enumerate(infotext.MODES.items()):
        if text in (str(number), ours, theirs.lower()):
            return ours
    raise UserError(
        f"control_mode {str(value)[:60]!r} is none; choose one of "
        f"{', '.join(infotext.MODES.values())}, or 0, 1, 2."
    )


def resize_mode_of(value: str | int) -> str:
    """stretch, crop or fill. Raises UserError."""
    return resize_mode(value)


def passes_of(value: str) -> str:
    """both, low or high: in which passes of a second pass a unit acts. Raises UserError."""
    text = value.strip().lower()
    text = text.rpartition(".")[2].replace("_", " ") if text.startswith("hiresfix") else text
    if text in PASSES:
        return PASSES[text]
    if text in PASSES.values():
        return text
    raise UserError(
        f"hr_option {value[:60]!r} is none; choose Both, Low res only or High res only."
    )


def without_hash(title: str) -> str:
    """`name [0123abcd]` → `name`."""
    name, bracket, rest = title.strip().rpartition(" [")
    return name if bracket and rest.endswith("]") else title.strip()


def listed(title: str, names: Sequence[str], what: str) -> str:
    """The listed name that a title stands for: with a hash, in any case, with a file's ending.

    Raises UserError for a name that is not on the list.
    """
    wanted = without_hash(title)
    for reading in (str, str.lower, _stem):
        for name in names:
            if reading(name) == reading(wanted):
                return name
    shown = ", ".join(names[:20]) or "none"
    raise UserError(f"there is no {what} {title[:80]!r}; the server has {shown}.")


def _stem(name: str) -> str:
    lower = name.lower()
    for ending in (".safetensors", ".ckpt", ".pth", ".pt", ".bin"):
        lower = lower.removesuffix(ending)
    return lower


# ---------------------------------------------------------------- lists


def samplers() -> list[dict[str, Any]]:
    """What `/sdapi/v1/samplers` answers."""
    foreign: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        foreign.setdefault(name, []).append(alias)
    return [
        {
            "name": infotext.SAMPLERS[name],
            "aliases": [name, f"k_{name}", *foreign.get(name, [])],
            "options": _options(name),
        }
        for name in SAMPLERS
    ]


def _options(name: str) -> Mapping[str, str]:
    automatic = SAMPLERS[name].automatic
    return {} if automatic is None else {"scheduler": automatic}


def schedulers() -> list[dict[str, Any]]:
    """What `/sdapi/v1/schedulers` answers."""
    return [
        {
            "name": name,
            "label": label,
            "aliases": None,
            "default_rho": 7.0 if name == "karras" else -1.0,
            "need_inner_model": False,
        }
        for name, (label, _) in SCHEDULE_LABELS.items()
    ]


def upscalers() -> list[dict[str, Any]]:
    """What `/sdapi/v1/upscalers` answers."""
    fields = {"model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
    return [{"name": name, **fields} for name in PIXEL_UPSCALERS]


def latent_modes() -> list[dict[str, str]]:
    return [{"name": name} for name in LATENT_MODES]
