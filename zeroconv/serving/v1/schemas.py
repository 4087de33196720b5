"""Bodies of requests, as OpenAPI shows them. Unknown fields are refused.

Bounds that depend on how the server was started are checked by `Generation.check`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from zeroconv.serving.generation import MOST_SEED

Picture = Annotated[
    str,
    Field(
        min_length=1,
        description="PNG, JPEG or WebP as base64, bare or as a data URL.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Side = Annotated[int, Field(ge=8, le=16384, description="Pixels; a multiple of 8.")]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=-100, le=100)]
Point = tuple[Share, Scale]


FastWords = Annotated[str, Field(min_length=1, max_length=200)]
FAST = (
    "Work of earlier steps is used again, at a measured loss: off, a preset that /models lists, or "
    "settings such as deep=3,branch=2. None: as the server was started."
)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LoraBody(Body):
    name: Name
    scale: Scale = 1.0


class HiresBody(Body):
    """A second pass at a larger size."""

    factor: Annotated[float, Field(gt=1, le=8)]
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    upscaler: Literal["latent", "lanczos"] = "latent"


class ExpandBody(Body):
    """Pixels of new ground a side."""

    left: Annotated[int, Field(ge=0, le=8192)] = 0
    right: Annotated[int, Field(ge=0, le=8192)] = 0
    top: Annotated[int, Field(ge=0, le=8192)] = 0
    bottom: Annotated[int, Field(ge=0, le=8192)] = 0


class ControlBody(Body):
    """One control. Of hint, source and pose_json at most one; without any the hint is drawn from
    `image`.
    """

    control: Name = Field(description="A name that /models lists.")
    hint: Picture | None = Field(None, description="A finished hint.")
    source: Picture | None = Field(None, description="A picture that the hint is drawn from.")
    condition: Name | None = Field(None, description="What is drawn from source.")
    options: dict[Annotated[str, Field(max_length=40)], float] = Field(
        {}, description="Parameters of the condition.", max_length=20
    )
    pose_json: dict[str, Any] | list[dict[str, Any]] | None = Field(
        None, description="OpenPose's JSON."
    )
    scale: Scale = 1.0
    start: Share = 0.0
    end: Share = 1.0
    mode: Literal["balanced", "prompt", "control"] | None = None
    region: Picture | None = Field(None, description="A mask: white where the control acts.")
    resize: Literal["stretch", "crop", "fill"] = "stretch"
    kind: Name | None = Field(None, description="Of a Union control, what the hint shows.")
    curve: (
        Literal["constant", "linear_down", "linear_up", "cosine_down", "cosine_up"]
        | Annotated[list[Point], Field(min_length=1, max_length=100)]
    ) = "constant"
    passes: Literal["both", "low", "high"] = "both"
    connection_scales: Annotated[list[Scale], Field(min_length=1, max_length=100)] | None = Field(
        None, description="One factor a connection, in place of the mode's."
    )


class GenerateBody(Body):
    prompt: str = ""
    negative: str = ""
    base: Name | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    cfg: Scale | None = None
    seed: Annotated[int, Field(ge=-1, le=MOST_SEED, description="−1 draws one.")] = -1
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    width: Side | None = None
    height: Side | None = None
    sampler: Name = "unipc"
    schedule: Name | None = None
    guidance: Literal["both", "cond", "resolution", "guess"] | None = None
    clip_skip: Annotated[int, Field(ge=0, le=100)] | None = None
    eta: Share | None = None
    guidance_rescale: Share = 0.0
    noise: Literal["cpu", "gpu", "batch"] = "cpu"
    fast: FastWords | None = Field(None, description=FAST)
    loras: Annotated[list[LoraBody], Field(max_length=100)] = []
    image: Picture | None = Field(None, description="A picture to start from.")
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    mask: Picture | None = Field(None, description="White is painted anew.")
    only_masked: bool = False
    padding: Annotated[int, Field(ge=0, le=8192)] = 32
    mask_blur: Annotated[float, Field(ge=0, le=1000)] | None = None
    masked_content: Literal["original", "fill", "noise"] = "original"
    expand: ExpandBody | None = None
    hires: HiresBody | None = None
    controls: Annotated[list[ControlBody], Field(max_length=100)] = []
    previews: bool = False
    keep: bool = Field(
        True,
        description="Whether the history lists them; of others the newest 200 stay.",
    )


class AnnotateBody(Body):
    condition: Name
    picture: Picture
    options: dict[Annotated[str, Field(max_length=40)], float] = Field({}, max_length=20)
    width: Side | None = None
    height: Side | None = None
    resize: Literal["stretch", "crop", "fill"] = "crop"


class PictureBody(Body):
    picture: Picture


class LoginBody(Body):
    token: Annotated[str, Field(max_length=1000)]


class ChangeBody(Body):
    favourite: bool | None = None
    keep: bool = Field(False, description="Keep a picture that was made with keep: false.")


class PoseBody(RootModel[dict[str, Any] | list[dict[str, Any]]]):
    """OpenPose's JSON: people, canvas_width, canvas_height."""
