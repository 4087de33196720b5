"""Settings of a latent consistency distillation: a LoRA that makes pictures in few steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zeroconv.training.recipes.settings import Strict

# of its own sheets, where the recipe names none: how such a LoRA is used
SAMPLES = {"sample_steps": 4, "sample_cfg": 1.0}

Scale = Annotated[float, Field(ge=1, le=100)]


class LcmSettings(Strict):
    """Of the distillation of Luo et al. 2023 ("Latent Consistency Models", section 4, and
    "LCM-LoRA").
    """

    # guidance scales of the base that are drawn, 1 is no guidance; the paper's ω is this minus 1
    guidance: tuple[Scale, Scale] = (3.0, 15.0)
    # DDIM steps of the base from the highest noise to the lowest; T over it is the paper's k.
    # Samplers of such LoRAs stand at timesteps of 50.
    solver_steps: Annotated[int, Field(ge=2, le=1000)] = 50
    # c of the loss √(d² + c²) − c
    huber: Annotated[float, Field(ge=0, le=10)] = 0.001
    # which weights make the target: those that train (LCM-LoRA), or their average of ema_decay
    target: Literal["trained", "average"] = "trained"

    @model_validator(mode="after")
    def _rising(self) -> LcmSettings:
        if self.guidance[0] > self.guidance[1]:
            raise ValueError(
                f"lora.lcm.guidance is {list(self.guidance)}; give the lower scale first"
            )
        return self
