"""A recipe: everything that decides what a training run makes, in one YAML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroconv.inputs import at_home
from zeroconv.training.recipes.base import BaseFiles
from zeroconv.training.recipes.control import ControlSettings
from zeroconv.training.recipes.data import DataSettings, PictureSettings
from zeroconv.training.recipes.prompts import beside_recipe
from zeroconv.training.recipes.settings import Strict, check_recipe
from zeroconv.training.recipes.text import read_recipe
from zeroconv.training.recipes.training import TrainingSettings


class AnyRecipe(Strict):
    """What every recipe says, whatever it trains."""

    out: Path
    base: str = "playroom"
    base_files: BaseFiles = Field(default_factory=BaseFiles)
    # auto takes the best there is, as accelerate finds or is told
    device: Literal["auto", "cpu"] = "auto"
    data: PictureSettings
    training: TrainingSettings

    @field_validator("out", mode="before")
    @classmethod
    def _out_from_home(cls, value: Any) -> Any:
        return at_home(value) if isinstance(value, str) else value

    @field_validator("base")
    @classmethod
    def _base_from_home(cls, value: str) -> str:
        return str(at_home(value)) if value.startswith("~") else value

    @model_validator(mode="after")
    def _mean_of_masks(self) -> AnyRecipe:
        if self.training.mask_mean != "picture" and self.data.masked_loss is None:
            raise ValueError("training.mask_mean is of masks; set data.masked_loss beside it")
        return self

    def identity(self) -> dict[str, Any]:
        """What a run may not change when it goes on: everything but its length and what it shows of
        itself.
        """
        values = self.model_dump(mode="json")
        for name in ("out", "device"):
            del values[name]
        for name in ("workers", "cache"):
            del values["data"][name]
        for name in _MAY_CHANGE:
            del values["training"][name]
        return values


class Recipe(AnyRecipe):
    """It trains a control, or a baseline in its place."""

    control: ControlSettings = Field(default_factory=ControlSettings)
    data: DataSettings

    @model_validator(mode="after")
    def _narrow_weights_are_a_control_s(self) -> Recipe:
        if self.training.precision == "bf16_weights" and self.control.kind != "controlnet":
            raise ValueError(
                f"training.precision bf16_weights is for a ControlNet; train a {self.control.kind} "
                "in bf16"
            )
        return self

    @model_validator(mode="after")
    def _rate_of_something(self) -> Recipe:
        if self.training.decoder_learning_rate is not None and not self.control.unlock_decoder:
            raise ValueError(
                "training.decoder_learning_rate needs control.unlock_decoder, without which no "
                "decoder trains"
            )
        return self


_MAY_CHANGE = (
    "steps threads max_minutes log_every checkpoint_every keep validate_every sample_every "
    "sample_count sample_steps sample_cfg validation evaluate_every evaluate_count export "
    "report_to project checkpointing sharding cuda_graphs offload "
    "offload_blocks"
).split()


def load_recipe(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file; `overrides` such as "training.steps=2000" change it. Raises UserError,
    one sentence.
    """
    return parse_recipe(beside_recipe(read_recipe(path, overrides), Path(path)), str(path))


def parse_recipe(values: dict[str, Any], name: str = "the recipe") -> Recipe:
    return check_recipe(Recipe, values, name)
