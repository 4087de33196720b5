"""`Control`: a network, the hint it follows, and how strongly, when and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zeroconv.baselines import Net
from zeroconv.generation.guidance import Curve
from zeroconv.generation.joining import bind_kind
from zeroconv.renamed import old_fields


@old_fields
@dataclass
class Control:
    """A ControlNet or a baseline, and what it is to follow.

    hint: one picture for all, or a list of one a prompt or one a generated picture: a path, PIL, a
    numpy array (`pictures.load` says which), or a Tensor (3, H, W) in [0, 1]; for a pose also
    OpenPose's JSON, a path that ends in .json or its content. None, of an inpaint control: the
    picture and mask that are given.
    resize: what is done to a hint of another shape: "stretch", "crop" or "fill", or A1111's names
    for them (`pictures.resize_mode`).

    scale: the factor on every residual, one number, or one a prompt or picture.
    start, end: the window in which it acts, in shares of the schedule.
    connection_scales: one number a connection, or the name of a rule of `guidance.RULES`; they
    stand in place of the guidance's own.
    curve: how the scale changes along the schedule: a name of `guidance.CURVES`, or points
    (fraction, factor).
    region: where it acts, likewise a picture (white, or painted on transparent ground: fully), or
    a Tensor (H, W) in [0, 1].
    passes: "both", "low" or "high": in which passes of `generate(hires=…)` it acts.
    mode: one of A1111's, "balanced", "prompt", "control", in place of the guidance for this
    control. conditional_only: it leaves the unconditional half alone, whatever the guidance.
    kind: of a Union control, what the hint shows: a name such as "canny", of the model card, of
    A1111's, or a condition, or its number. Several controls of one Union are read in one call.

    A baseline has no residuals to scale: it takes a hint, a window and conditional_only. Of these
    ControlNet-XS takes a scale and a curve too, and ControlNets beside it; T2I-Adapter takes all.
    """

    net: Net
    hint: Any
    scale: float | Sequence[float] = 1.0
    start: float = 0.0
    end: float = 1.0
    connection_scales: Sequence[float] | str | None = None
    curve: Curve = "constant"
    region: Any = None
    mode: str | None = None
    conditional_only: bool = False
    resize: str = "stretch"
    passes: str = "both"
    kind: str | int | None = None

    def __post_init__(self) -> None:
        self.net = bind_kind(self.net, self.kind)
