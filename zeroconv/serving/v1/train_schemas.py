"""The form of a training: settings of a recipe, by the recipe's own schema.

Left out are settings that name paths, classes or services.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from zeroconv.serving.v1.schemas import FAST, Body, FastWords, Name, Picture
from zeroconv.training.recipes.control import ControlSettings
from zeroconv.training.recipes.training import TrainingSettings

OFFERED = (
    "steps batch_size accumulation learning_rate schedule warmup weight_decay clip ema_decay "
    "prompt_dropping timesteps min_snr offset_noise on_convergence precision frozen checkpointing "
    "seed max_minutes log_every checkpoint_every validate_every sample_every sample_count "
    "sample_steps sample_cfg evaluate_every evaluate_count"
).split()
# what trains the playroom's small networks well; for Stable Diffusion: adamw and 1e-5
DEFAULTS: dict[str, Any] = {
    "steps": 240,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "ema_decay": 0.98,
    "log_every": 1,
    "checkpoint_every": 50,
    "validate_every": 20,
    "sample_every": 60,
}
Optimizer = Literal["adamw", "adamw8bit", "adafactor", "muon"]  # no classes by name
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$")]


def _offered() -> dict[str, Any]:
    fields: dict[str, Any] = {"optimizer": (Optimizer, "muon")}
    for name in OFFERED:
        field = TrainingSettings.model_fields[name]
        field = (
            field.merge_field_infos(field, default=DEFAULTS[name]) if name in DEFAULTS else field
        )
        fields[name] = (field.annotation, field)
    return fields


TrainingBody: Any = create_model(
    "TrainingBody",
    __base__=Body,
    **_offered(),
)
Kind = ControlSettings.model_fields["kind"].annotation


class TrainControlBody(Body):
    """The network to train."""

    kind: Kind = "controlnet"  # type: ignore[valid-type]
    connections: Literal["zero", "gaussian", "lite"] = "zero"
    hint_widths: (
        Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(max_length=8)] | None
    ) = Field(None, description="Channels of the hint encoder; None: the released ones.")
    init: Name | None = Field(None, description="A control to go on from, a name of /models.")


class TrainBody(Body):
    name: RunName | None = Field(None, description="Of the run; None: one is made.")
    base: Name | None = None
    condition: Name = "canny"
    data: Name = Field(description="A data set that /models lists, or an uploaded one's id.")
    validation: Name | None = Field(None, description="Another one to measure on.")
    examples: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    size: Annotated[int, Field(ge=8, le=4096)] | None = Field(None, description="Pixels.")
    flip: bool = False
    control: TrainControlBody = Field(default_factory=lambda: TrainControlBody.model_validate({}))
    training: TrainingBody = Field(default_factory=TrainingBody)


class ResumeBody(Body):
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="In all; None: as many as before."
    )


class ItemBody(Body):
    picture: Picture
    caption: Annotated[str, Field(max_length=2000)]


class DatasetBody(Body):
    """Pictures with captions to train on."""

    name: RunName
    items: Annotated[list[ItemBody], Field(min_length=1, max_length=10_000)]


class EvaluateBody(Body):
    """How well a control is followed, on a data set."""

    control: Name = Field(description="A name that /models lists; of a Union control NAME:KIND.")
    data: Name
    condition: Name | None = Field(
        None,
        description="What the hints show, of a control that does not say so; a Union's kind.",
    )
    count: Annotated[int, Field(ge=2, le=100_000)] = 16
    base: Name | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 12
    prompts: Literal["own", "empty", "insufficient", "conflicting"] = "own"
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    fast: FastWords | None = Field(None, description=FAST)
