"""What `generate` accepts: every argument is looked at before anything is computed.

A wrong type raises TypeError, a wrong value `UserError`; both name the argument, what was given and
what is accepted.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from zeroconv.control import is_net
from zeroconv.errors import UserError
from zeroconv.generation import guidance as guidance_rules
from zeroconv.generation.guidance import check_curve

LONGEST_PROMPT = 100_000  # characters; the encoders read some hundreds
STRONGEST = 100.0  # of cfg or a control's scale, either sign: pictures are noise long before
LARGEST = 16_384  # pixels a side
MOST_STEPS = 1000  # the timesteps that a model was trained with
MOST_PICTURES = 100_000
OUTPUTS = ("pil", "tensor")
PASSES = ("both", "low", "high")  # of a control under `hires`; A1111's hr_option


def check_arguments(
    *,
    guidance: Any,
    cfg: Any,
    steps: Any,
    height: Any,
    width: Any,
    latents: Any,
    count: Any,
    batch_size: Any,
    connection_scales: Any,
    callback: Any,
    finished: Any,
    output: Any,
    true_cfg: Any = 1.0,
) -> None:
    """Raise TypeError or UserError for the first that is wrong.

    Prompts, seeds and controls have checks of their own.
    """
    if not isinstance(output, str):
        raise wrong_type("output", output, "a name")
    if guidance is not None and not isinstance(guidance, str):
        raise wrong_type("guidance", guidance, "a name, or None for the base's own")
    if guidance is not None:
        guidance_rules.check_mode(guidance)
    if output not in OUTPUTS:
        raise UserError(f"output is {output!r}; choose one of {', '.join(OUTPUTS)}.")
    if cfg is not None:
        what = "the guidance scale, 1 for none, usually 3 to 12"
        number("cfg", cfg, -STRONGEST, STRONGEST, what)
    number("true_cfg", true_cfg, -STRONGEST, STRONGEST, "guidance by the negative, 1 for none")
    integer("steps", steps, 1, MOST_STEPS, "sampling takes usually 20")
    integer("count", count, 1, MOST_PICTURES, "pictures a prompt")
    integer("batch_size", batch_size, 1, MOST_PICTURES, "pictures that are made at a time")
    for name, value in (("height", height), ("width", width)):
        if value is not None:
            integer(name, value, 1, LARGEST, "pixels, or None for the base's own size")
    check_scales("connection_scales", connection_scales)
    if latents is not None and (not isinstance(latents, Tensor) or latents.ndim != 4):
        raise wrong_type("latents", latents, "a tensor (N, C, h, w) or None")
    if latents is not None and not _is_noise(latents):
        raise UserError(
            "latents hold numbers that are not finite, or whole ones; give noise of unit variance."
        )
    for name, value, called in (
        ("callback", callback, "step, steps, latents"),
        ("finished", finished, "number, picture"),
    ):
        if value is not None and not callable(value):
            raise wrong_type(name, value, f"a function ({called}) or None")


def _is_noise(latents: Tensor) -> bool:
    return latents.is_floating_point() and bool(torch.isfinite(latents).all())


def check_controls(controls: Any) -> list[Any]:
    """The controls as a list.

    Raises TypeError or UserError for whatever is wrong with one, apart from its pictures.
    """
    if not isinstance(controls, list | tuple):
        raise wrong_type("controls", controls, "a list of zeroconv.Control(net, hint)")
    for place, control in enumerate(controls):
        _check_control(control, f"controls[{place}]")
    return list(controls)


def _check_control(control: Any, name: str) -> None:
    parts = ("net", "hint", "scale", "start", "end", "connection_scales", "curve", "region", "mode")
    missing = [part for part in parts if not hasattr(control, part)]
    if missing:
        raise wrong_type(name, control, "a zeroconv.Control(net, hint)")
    if not is_net(control.net):
        raise wrong_type(f"{name}.net", control.net, "a loaded network; see ControlNet.load")
    if isinstance(control.hint, list | tuple) and not control.hint:
        raise UserError(f"{name}.hint is an empty list; give one hint, or one a prompt or picture.")
    several = isinstance(control.scale, list | tuple)
    for scale in control.scale if several else [control.scale]:
        number(f"{name}.scale", scale, -STRONGEST, STRONGEST, "1 for the control as trained")
    number(f"{name}.start", control.start, 0, 1, "a share of the steps")
    number(f"{name}.end", control.end, 0, 1, "a share of the steps")
    if not control.start < control.end:
        raise UserError(
            f"A control's window runs from {control.start} to {control.end}; 0 ≤ start < end ≤ 1 "
            "is needed."
        )
    check_scales(f"{name}.connection_scales", control.connection_scales)
    if control.mode is not None and not isinstance(control.mode, str):
        raise wrong_type(f"{name}.mode", control.mode, "balanced, prompt, control, or None")
    if control.mode is not None:
        guidance_rules.check_control_mode(control.mode)
    check_name(f"{name}.passes", getattr(control, "passes", "both"), PASSES)
    if not isinstance(control.conditional_only, bool):
        raise wrong_type(f"{name}.conditional_only", control.conditional_only, "True or False")
    try:
        check_curve(control.curve)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        accepted = "a name, or points (fraction, factor)"
        raise wrong_type(f"{name}.curve", control.curve, accepted) from error


def check_name(name: str, value: Any, names: tuple[str, ...]) -> None:
    """Raise TypeError or UserError unless it is one of `names`."""
    if not isinstance(value, str):
        raise wrong_type(name, value, f"one of {', '.join(names)}")
    if value not in names:
        raise UserError(f"{name} is {value[:40]!r}; choose one of {', '.join(names)}.")


def check_scales(name: str, scales: Any) -> None:
    """None, a rule's name, or finite numbers; their count is checked where connections are
    known.
    """
    if isinstance(scales, str):
        guidance_rules.find_rule(scales)
    if scales is None or isinstance(scales, str):
        return
    if not isinstance(scales, list | tuple):
        raise wrong_type(name, scales, "a rule's name, a list of one number a connection, or None")
    for scale in scales:
        number(name, scale, -1e6, 1e6, "one factor a connection")


def texts(name: str, value: Any) -> list[str]:
    """One text or a list of them → a list; each can be read by an encoder and held by a file."""
    several = isinstance(value, list | tuple)
    if not several and not isinstance(value, str):
        raise wrong_type(name, value, "a text or a list of texts")
    for text in value if several else [value]:
        if not isinstance(text, str):
            raise wrong_type(name, text, "a text or a list of texts")
        check_text(name, text)
    if several and not value:
        raise UserError(f"{name} is an empty list; give at least one text.")
    return list(value) if several else [value]


def check_text(name: str, text: str) -> None:
    """Raise UserError for a text with bytes that are no UTF-8, a NUL character, or no end."""
    if len(text) > LONGEST_PROMPT:
        raise UserError(f"{name} has {len(text):,} characters; give {LONGEST_PROMPT:,} at most.")
    if "\0" in text:
        raise UserError(f"{name} holds a NUL character at place {text.index(chr(0))}; take it out.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name} is no text at place {error.start}: bytes that are no UTF-8, or half of a "
            "surrogate pair; give it in UTF-8."
        ) from error


def seeds(seed: Any, total: int) -> list[int]:
    """One number, counted up, or one a picture → one a picture."""
    least, most, what = -(2**63), 2**63 - 1, "a whole number, or a list of one a picture"
    if isinstance(seed, list | tuple):
        if len(seed) != total:
            raise UserError(
                f"{len(seed)} seeds were given for {total} pictures; give one number, or one a "
                "picture."
            )
        return [integer("seed", one, least, most, what) for one in seed]
    first = integer("seed", seed, least, most - total, what)
    return [first + i for i in range(total)]


def integer(name: str, value: Any, least: int, most: int, what: str) -> int:
    """A whole number in [least, most]; NumPy's and tensors of one count, True and 2.0 do not."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype not in (torch.bool,):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_type(name, value, f"a whole number from {least} to {most}: {what}")
    if not least <= int(value) <= most:
        raise UserError(f"{name} is {value}; give a whole number from {least} to {most}: {what}.")
    return int(value)


def number(name: str, value: Any, least: float, most: float, what: str) -> float:
    """A finite number in [least, most]; True is none."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype not in (torch.bool,):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_type(name, value, f"a number from {least:g} to {most:g}: {what}")
    if not math.isfinite(value) or not least <= float(value) <= most:
        raise UserError(f"{name} is {value}; give a number from {least:g} to {most:g}: {what}.")
    return float(value)


def wrong_type(name: str, value: Any, accepted: str) -> TypeError:
    """The error for a value of another kind; says what it is without printing all of it."""
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    kind = type(value).__name__
    return TypeError(f"{name} is a {kind}{shape}, which is not accepted; give {accepted}.")


def per_picture(value: Any, total: int, count: int, what: str) -> list:
    """One entry a picture from a single one, one a prompt, or one a picture."""
    if not isinstance(value, list | tuple):
        return [value] * total
    if len(value) == total:
        return list(value)
    if len(value) * count == total:
        return [v for v in value for _ in range(count)]
    raise UserError(
        f"{len(value)} {what}s were given for {total // count} prompts; give one, or one a prompt."
    )


def size_of(
    default: tuple[int, int],
    scale: int,
    height: int | None,
    width: int | None,
    latents: Tensor | None,
) -> tuple[int, int]:
    """Height and width in pixels: what is asked for, what the noise has, else the default."""
    if latents is not None and height is None and width is None:
        return latents.shape[-2] * scale, latents.shape[-1] * scale
    for name, value in (("height", height), ("width", width)):
        if value is not None and (value < scale or value % scale):
            raise UserError(f"{name} is {value}; it must be a positive multiple of {scale} pixels.")
    return height or default[0], width or default[1]
