"""A control on a prompt's two halves: one scale a connection, a mask, and a window of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones import Connection
from zeroconv.errors import UserError
from zeroconv.generation.guidance import RULES

ORDER = ("input", "output", "middle")  # of ComfyUI's dict of residuals, shallow ones first
SHARE = {"min": 0.0, "max": 1.0, "step": 0.001}


class Apply:
    """ "Apply Control (zeroconv)". rule: where control acts and how strongly (`guidance.RULES`).
    scales: one number a connection, shallow ones first, in place of the rule's. mask: white where
    it acts. start_percent, end_percent: its window, in shares of the schedule.
    """

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "control_net": ("CONTROL_NET",),
                "image": ("IMAGE",),
                "strength": (
                    "FLOAT",
                    {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01},
                ),
                "start_percent": ("FLOAT", {"default": 0.0, **SHARE}),
                "end_percent": ("FLOAT", {"default": 1.0, **SHARE}),
                "rule": (list(RULES), {"default": "both"}),
            },
            "optional": {
                "mask": ("MASK",),
                "scales": ("STRING", {"default": ""}),
                "vae": ("VAE",),
            },
        }

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    FUNCTION = "apply"
    CATEGORY = "zeroconv"

    def apply(
        self,
        positive: list,
        negative: list,
        control_net: Any,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        rule: str,
        mask: Tensor | None = None,
        scales: str = "",
        vae: Any = None,
    ) -> tuple[list, list]:
        """image: (N, H, W, 3) in [0, 1], −1 in a hole. Raises UserError."""
        if start_percent >= end_percent:
            raise UserError(
                f"start_percent {start_percent:g} is not before end_percent {end_percent:g}: the "
                "control would never act."
            )
        numbers = read_scales(scales)
        hint, window = image.movedim(-1, 1), (start_percent, end_percent)
        made: dict[int, Any] = {}

        def controlled(entry: Sequence[Any]) -> list[Any]:
            """Halves that follow the same controls already share the new one's work."""
            text, options = entry[0], dict(entry[1])
            before = options.get("control")
            if id(before) not in made:
                net = weighted(control_net.copy(), rule, numbers, mask)
                net.set_cond_hint(hint, strength, window, vae=vae)
                made[id(before)] = net.set_previous_controlnet(before)
            options |= {"control": made[id(before)], "control_apply_to_uncond": False}
            return [text, options]

        follows = RULES[rule].uncond
        return [*map(controlled, positive)], [*map(controlled, negative)] if follows else negative


def read_scales(text: str) -> list[float] | None:
    """Numbers with commas or spaces between them; None for an empty text. Raises UserError."""
    words = text.replace(",", " ").split()
    if not words:
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise UserError(f"scales {text[:80]!r} are no numbers ({error}).") from error
    if not all(abs(number) <= 100 for number in numbers):
        raise UserError("scales are numbers from −100 to 100, one a connection.")
    return numbers


def weighted(
    net: Any,
    rule: str = "both",
    numbers: Sequence[float] | None = None,
    mask: Tensor | None = None,
    only_middle: bool = False,
) -> Any:
    """ComfyUI's control, whose residuals are weighted before it adds them; so are its copies."""

    class Weighted(type(net)):  # type: ignore[misc]
        def control_merge(self, control: Any, *more: Any, **named: Any) -> Any:
            scaled = scale(control, rule, numbers, mask, only_middle)
            return super().control_merge(scaled, *more, **named)

        def copy(self) -> Any:
            return weighted(super().copy(), rule, numbers, mask, only_middle)

    net.__class__ = Weighted
    return net


def scale(
    control: dict[str, list[Tensor | None]],
    rule: str = "both",
    numbers: Sequence[float] | None = None,
    mask: Tensor | None = None,
    only_middle: bool = False,
) -> dict[str, list[Tensor | None]]:
    """Residuals (N, C, h, w) by ComfyUI's places, each times its connection's scale and the mask.

    mask: (1 or N, H, W) in [0, 1], averaged to each size. Raises UserError for another number of
    scales than residuals, and a mask for residuals that are no maps.
    """
    places = [
        (key, i)
        for key in ORDER
        for i, residual in enumerate(control.get(key, ()))
        if residual is not None
    ]
    residuals = [control[key][i] for key, i in places]
    factors = factors_of(residuals, rule, numbers)
    scaled = {key: list(values) for key, values in control.items()}
    for (key, i), residual, factor in zip(places, residuals, factors, strict=True):
        assert residual is not None
        if only_middle and key != "middle":
            factor = 0.0
        weight = factor if mask is None else factor * mask_at(mask, residual)
        scaled[key][i] = residual * weight
    return scaled


def factors_of(
    residuals: Sequence[Any], rule: str, numbers: Sequence[float] | None
) -> Sequence[float]:
    """One a residual, shallow ones first. Raises UserError."""
    if numbers is not None:
        if len(numbers) != len(residuals):
            raise UserError(
                f"scales has {len(numbers)} numbers, and this control has {len(residuals)} "
                "connections; give one each."
            )
        return numbers
    sides = [residual.shape[-2] if residual.ndim == 4 else 1 for residual in residuals]
    finest = max(sides, default=1)
    connections = [
        Connection(f"connection {i}", residual.shape[1], round(finest / side))
        for i, (residual, side) in enumerate(zip(residuals, sides, strict=True))
    ]
    return RULES[rule].scales(connections)


def mask_at(mask: Tensor, residual: Tensor) -> Tensor:
    """(1 or N, 1, h, w) at the size of a residual. Raises UserError."""
    if residual.ndim != 4:
        raise UserError("this control's residuals are no maps, so a mask has no place on them.")
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).to(residual)
    small = torch.nn.functional.interpolate(mask, residual.shape[-2:], mode="area")
    if len(small) > 1 and len(residual) % len(small):
        raise UserError(f"{len(small)} masks do not fit {len(residual)} pictures; give one.")
    return small if len(small) == 1 else small.repeat(len(residual) // len(small), 1, 1, 1)
