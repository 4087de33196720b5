"""The part of a recipe that says which network is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroconv.inputs import at_home
from zeroconv.training.recipes.settings import Strict

Width = Annotated[int, Field(ge=1, le=1024)]  # channels of a layer of the hint encoder
# of baselines
OPTIONS = {
    "rank": (1, 1024),
    "hidden": (1, 8192),
    "res_blocks": (1, 32),
    "hint_widths": (1, 1024),
    "cond_dim": (2, 1024),
    "mlp_dim": (1, 1024),
    "num_control_type": (1, 64),
    "num_trans_layer": (1, 16),
    "num_trans_head": (1, 64),
}
UNION_OPTIONS = {"num_control_type", "num_trans_layer", "num_trans_head", "hint_widths"}
# of controls of diffusion transformers; None is the family's default
TRANSFORMER_SHAPE = ("blocks", "single_blocks", "layers", "mask", "zeros_for_pooled")
OTHER_OPTIONS = (0, 16)  # shares of the base's widths


class ControlSettings(Strict):
    """The network to train: a ControlNet, see `zeroconv.ControlNet.from_backbone`, or one of its
    baselines.
    """

    kind: Literal[
        "controlnet",
        "concat",
        "lora",
        "control_lora",
        "t2i_adapter",
        "controlnet_xs",
        "hypernetwork",
        "side",
        "lllite",
        "union",
    ] = "controlnet"
    # of a baseline, see its class in `zeroconv.baselines`; of a Union num_control_type, hint_widths
    options: dict[str, Any] = Field(default_factory=dict)
    hint_encoder: Literal["released", "paper"] = "released"
    hint_widths: Annotated[tuple[Width, ...] | None, Field(max_length=8)] = None
    # torch: as the published ones began, see `ControlNet.from_backbone`
    hint_init: Literal["contrast", "torch"] = "contrast"
    connections: Literal["zero", "gaussian", "lite"] = "zero"
    only_mid_control: bool = False
    global_average_pooling: bool = False
    # of a diffusion transformer, see the class of its family in `zeroconv.control`: how many of the
    # base's blocks are copied (SD 3, FLUX, Qwen-Image), or beside which layers (Z-Image)
    blocks: Annotated[int, Field(ge=1, le=256)] | None = None
    single_blocks: Annotated[int, Field(ge=0, le=256)] | None = None  # FLUX
    layers: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = None
    mask: bool | None = None  # it reads a mask beside its hint, for inpainting
    zeros_for_pooled: bool | None = None  # it reads no pooled text, SD 3
    init: str = "base"  # or a control to go on from: its folder, file, hub id or embedded name
    # train the hint encoder and the connections only, so that controls may share a copy
    frozen_copy: bool = False
    unlock_decoder: bool = False  # train the base's decoder too, see `zeroconv.training.unlock`

    @field_validator("options")
    @classmethod
    def _options_are_small(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, value in values.items():
            several = value if isinstance(value, list | tuple) else [value]
            if len(several) > 16:
                raise ValueError(
                    f"control.options.{name} has {len(several):,} values; give at most 16"
                )
            for one in several:
                _check_option(name, one)
        return values

    @field_validator("init")
    @classmethod
    def _init_from_home(cls, value: str) -> str:
        return str(at_home(value)) if value.startswith("~") else value

    @model_validator(mode="after")
    def _no_two_origins(self) -> ControlSettings:
        fields = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
        }
        changed = {name for name, default in fields.items() if getattr(self, name) != default}
        shaped = sorted(changed - {"init", "frozen_copy", "unlock_decoder"})
        if self.kind == "controlnet" and self.options:
            raise ValueError(
                "control.options are a baseline's: name control.kind, or set them as control's own"
            )
        taken = {"kind", "options"}
        if self.kind == "union":  # FLUX's copies blocks as its other controls do
            taken |= {"blocks", "single_blocks"}
        if self.kind != "controlnet" and (set(shaped) - taken or self.frozen_copy):
            wrong = next(iter(sorted(set(shaped) - taken)), "frozen_copy")
            raise ValueError(
                f"control.{wrong} is ControlNet's; a {self.kind} takes control.options"
            )
        if self.kind != "controlnet" and self.unlock_decoder:
            raise ValueError(
                f"control.unlock_decoder trains the base beside a ControlNet; a {self.kind} is "
                "measured around a base that stays as it is, so leave one of the two out"
            )
        if self.kind == "union" and (unknown := sorted(set(self.options) - UNION_OPTIONS)):
            known = ", ".join(sorted(UNION_OPTIONS))
            raise ValueError(f"control.options.{unknown[0]} is none of a Union's: {known}")
        if self.init != "base" and shaped:
            raise ValueError(
                f"control.init brings its own network, so control.{shaped[0]} cannot be set beside "
                "it"
            )
        if self.frozen_copy and self.connections == "lite":
            raise ValueError("control.frozen_copy needs a copy, which lite connections do not have")
        return self


def _check_option(name: str, value: Any) -> None:
    """Numbers of a baseline are counts, ranks and shares; whether a baseline has such an option it
    knows itself.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise ValueError(
            f"control.options.{name} holds {type(value).__name__} values; give numbers or texts"
        )

    least, most = OPTIONS.get(name, OTHER_OPTIONS)
    if isinstance(value, int | float) and not least <= value <= most:
        raise ValueError(
            f"control.options.{name} is {str(value)[:40]}; give a number from {least:,} to {most:,}"
        )
