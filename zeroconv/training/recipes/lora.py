"""A recipe with `lora`: it trains the base itself, by small matrices beside its layers, on pictures
without hints.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zeroconv.training.recipes.data import PictureSettings
from zeroconv.training.recipes.lcm import SAMPLES, LcmSettings
from zeroconv.training.recipes.recipe import AnyRecipe
from zeroconv.training.recipes.settings import Strict
from zeroconv.training.recipes.training import TrainingSettings


class LoraSettings(Strict):
    """What is added to the UNet: B·A of `rank` beside a layer's weight (Hu et al. 2021), on the
    named layers.

    kind: what it learns. "denoising": pictures of the data, by the base's own loss. "lcm": to make
    the base's pictures in few steps.
    """

    kind: Literal["denoising", "lcm"] = "denoising"
    lcm: LcmSettings | None = None  # None: its defaults, where that is the kind
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    layers: tuple[Literal["attention", "linear", "convolutions"], ...] = (
        "attention",
        "linear",
        "convolutions",
    )

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> LoraSettings:
        if self.lcm is not None and self.kind != "lcm":
            raise ValueError(f"lora.lcm is of lora.kind lcm, and the kind is {self.kind}")
        return self

    @property
    def distillation(self) -> LcmSettings | None:
        """Of kind lcm, how it is done; None for the other kind."""
        return (self.lcm or LcmSettings()) if self.kind == "lcm" else None


class LoraData(PictureSettings):
    """Hints are not asked for, so fewer pictures say how well it goes."""

    validation_count: int = Field(64, ge=2, le=1_000_000)


class LoraTraining(TrainingSettings):
    """As for a ControlNet; half of the prompts made empty would teach a base to ignore them, so
    fewer are.
    """

    prompt_dropping: float = Field(0.1, ge=0, le=1)
    ema_decay: float = Field(0.98, ge=0, lt=1)
    export: Literal["float32", "float16", "bfloat16"] = "float16"

    @model_validator(mode="after")
    def _no_hints(self) -> LoraTraining:
        if self.on_convergence is not None:
            raise ValueError(
                "training.on_convergence waits for a control to follow its hints; a LoRA has none"
            )
        if self.reward is not None:
            raise ValueError(
                "training.reward reads hints back from predictions; a LoRA of the base has no "
                "hints, so train a control, for which control.kind lora is one way"
            )
        if self.precision == "bf16_weights":
            raise ValueError(
                "training.precision bf16_weights is for a ControlNet; train a LoRA in bf16, fp16 "
                "or fp32"
            )
        if self.decoder_learning_rate is not None:
            raise ValueError(
                "training.decoder_learning_rate is of a decoder beside a control; a LoRA has none"
            )
        if self.offload != "none":
            raise ValueError(
                "training.offload is for a control's frozen base; a LoRA is trained within its base"
            )
        if self.frozen != "same":
            raise ValueError(
                "training.frozen is for a control's frozen base; a LoRA is trained within its "
                "base's layers"
            )
        if self.evaluate_every:
            raise ValueError(
                "training.evaluate_every reads hints back from pictures; a LoRA has none"
            )
        return self


class LoraRecipe(AnyRecipe):
    lora: LoraSettings = LoraSettings()
    data: LoraData
    training: LoraTraining

    @model_validator(mode="before")
    @classmethod
    def _sheets_of_few_steps(cls, values: Any) -> Any:
        """A recipe that names no steps and guidance of its sheets has those of `SAMPLES`."""
        if not isinstance(values, dict):
            return values
        lora, training = values.get("lora"), values.get("training")
        if not isinstance(lora, dict) or lora.get("kind") != "lcm":
            return values
        return {**values, "training": SAMPLES | training} if isinstance(training, dict) else values

    @model_validator(mode="after")
    def _can_be_distilled(self) -> LoraRecipe:
        settings = self.lora.distillation
        if settings is None:
            return self
        if self.training.min_snr is not None:
            raise ValueError(
                "training.min_snr weighs the error of what the base predicts; lora.kind lcm "
                "compares latents, so leave it out"
            )
        if settings.target == "average" and not self.training.ema_decay:
            raise ValueError(
                "lora.lcm.target average needs training.ema_decay above 0, such as 0.95"
            )
        return self
