"""A recipe with `lora`: it trains the base itself, by small matrices beside its layers, on pictures without hints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroconv.training.recipe import MAY_CHANGE, Strict, TrainingSettings


class LoraSettings(Strict):
    """What is added to the UNet: B·A of `rank` beside a layer's weight (Hu et al. 2021), on the named layers."""

    rank: Annotated[int, Field(ge=1)] = 16
    layers: tuple[Literal["attention", "linear", "convolutions"], ...] = ("attention", "linear", "convolutions")


class LoraData(Strict):
    """What to learn from; specs as in `zeroconv.data.open_dataset`. Hints are not asked for."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] | None = None  # None: some of the training pictures are held out
    validation_count: int = Field(64, ge=2)
    size: int | None = Field(None, ge=8)  # pixels; None: the base's own
    flip: bool = False  # mirror half of the pictures, where captions allow it
    workers: int | None = Field(None, ge=1)  # processes that draw; None: one a core
    cache: Path | None = None  # None: $ZEROCONV_CACHE or ~/.cache/zeroconv

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class LoraTraining(TrainingSettings):
    """As for a ControlNet; half of the prompts made empty would teach a base to ignore them, so fewer are."""

    prompt_dropping: float = Field(0.1, ge=0, le=1)
    ema_decay: float = Field(0.98, ge=0, lt=1)
    export: Literal["float32", "float16", "bfloat16"] = "float16"

    @model_validator(mode="after")
    def _no_hints(self) -> LoraTraining:
        if self.on_convergence is not None:
            raise ValueError("training.on_convergence waits for a control to follow its hints; a LoRA has none")
        return self


class LoraRecipe(Strict):
    out: Path
    base: str = "playroom"
    device: Literal["auto", "cpu"] = "auto"
    lora: LoraSettings = LoraSettings()
    data: LoraData
    training: LoraTraining

    def identity(self) -> dict[str, Any]:
        """What a run may not change when it goes on: everything but its length and what it shows of itself."""
        values = self.model_dump(mode="json")
        for name in ("out", "device"):
            del values[name]
        for name in ("workers", "cache"):
            del values["data"][name]
        for name in MAY_CHANGE:
            del values["training"][name]
        return values
