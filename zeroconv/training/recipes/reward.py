"""`training.reward`: hints read back from one-step estimates of the picture."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from zeroconv.inputs import at_home
from zeroconv.training.recipes.settings import Strict


class RewardSettings(Strict):
    """The distance between the hint that is read back and the given one, times `weight`, is added
    to the loss at small timesteps; see `zeroconv.training.reward`.
    """

    weight: float = Field(gt=0, le=1e6)
    # thousandths of the schedule: t ≤ 200 of 1000 steps of diffusion, σ ≤ 0.2 of a flow
    t_max: float = Field(200, gt=0, le=1000)
    # of a micro-batch, whose timesteps are drawn below t_max, for the reward alone; 0: only those
    # that happen to be there
    share: float = Field(0.25, ge=0, lt=1)
    samples: int = Field(8, ge=1, le=4096)  # most pictures decoded of a micro-batch
    # of depth, normal, segmentation, person and pose: "playroom", or the file of a reader that
    # `python -m zeroconv.scratch.reader` trained; None: the playroom's for bases of that name
    reader: str | None = None

    @field_validator("reader")
    @classmethod
    def _reader_from_home(cls, value: str | None) -> str | None:
        return str(at_home(value)) if value is not None and value.startswith("~") else value

    @model_validator(mode="after")
    def _something_is_drawn(self) -> RewardSettings:
        if self.reader == "":
            raise ValueError(
                "training.reward.reader is empty; give a reader's file, or leave it out"
            )
        return self
