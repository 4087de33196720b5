"""What is asked of a base that is loaded, and the LoRAs to be merged into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.loading.building import Keep
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.lora import (
    PARTS,
    FewSteps,
    Lora,
    Merged,
    Strength,
    read_lora,
    strength_of,
)
from zeroconv.errors import UserError


@dataclass(frozen=True)
class Request:
    """The arguments of `load_backbone`, looked up."""

    name: str
    dtype: torch.dtype
    prediction_type: str | None
    loras: Loras
    vae: Path | None = None  # another autoencoder
    variant: str | None = None
    parts: Sequence[Path] = ()  # folders and files of what a base's file lacks
    # what becomes of a part ("unet", "text") as soon as it is read
    built: Callable[[str, Any], Any] = lambda part, module: module
    keep: Keep = dict  # where the weights of the UNet and the text encoders are while being read
    # of a diffusion transformer and its text encoders, in place of `dtype`
    flow_dtype: torch.dtype | None = None

    def check_no_parts(self, path: Path) -> None:
        """Raise UserError where parts are given for a base that takes none."""
        if self.parts:
            raise UserError(
                f"{path} takes no parts from elsewhere; parts are what a diffusion transformer in "
                "one file lacks; leave them out."
            )


class Loras:
    """Changes to be merged into a base's parts while it is read, each with its strength."""

    def __init__(self, given: Sequence[tuple[str | os.PathLike, Strength]]) -> None:
        self.given: list[tuple[Lora, Strength]] = [
            (read_lora(locate(str(x), "LoRA")), strength) for x, strength in given
        ]

    def merged(self, state: Mapping[str, Tensor], part: str) -> Mapping[str, Tensor]:
        """The weights of one of the base's parts, changed; each when it is asked for."""
        for lora, strength in self.given:
            state = Merged(state, lora, part, strength)
        return state

    @property
    def few_steps(self) -> list[FewSteps]:
        """Of those that make pictures in few steps and are merged at all."""
        return [
            lora.few_steps
            for lora, strength in self.given
            if lora.few_steps is not None and strength_of(strength, "unet") > 0
        ]

    def check_parts(self, texts: int) -> None:
        """Raise UserError where a change is of a text encoder that the base does not have."""
        self.check_names(PARTS[: 1 + texts])

    def check_names(self, names: Sequence[str]) -> None:
        """Raise UserError where a change is of none of these parts."""
        for lora, _ in self.given:
            if missing := [part for part in lora.parts if part not in names]:
                raise UserError(
                    f"{lora.where} changes {missing[0]}, which this base lacks; it belongs to "
                    "another base."
                )
