"""A recipe with `lora`: it trains the base itself, by small matrices beside its layers, on pictures
without hints.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zeroconv.training.recipes.recipe import AnyRecipe, PictureSettings, Strict, TrainingSettings


class LoraSettings(Strict):
    """What is added to the UNet: B·A of `rank` beside a layer's weight (Hu et al. 2021), on the
    named layers.
    """

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    layers: tuple[Literal["attention", "linear", "convolutions"], ...] = (
        "attention",
        "linear",
        "convolutions",
    )


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
