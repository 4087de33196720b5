"""A recipe: everything that decides what a training run makes, in one YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroconv.inputs import at_home
from zeroconv.training.recipes.base import BaseFiles
from zeroconv.training.recipes.data import BucketSettings, DataSettings, PictureSettings
from zeroconv.training.recipes.optimizer import OptimizerClass
from zeroconv.training.recipes.prompts import MOST, ValidationPrompt, beside_recipe
from zeroconv.training.recipes.reward import RewardSettings
from zeroconv.training.recipes.settings import Strict, check_recipe
from zeroconv.training.recipes.text import apply_overrides, read_recipe

__all__ = [
    "AnyRecipe",
    "BaseFiles",
    "BucketSettings",
    "ControlSettings",
    "DataSettings",
    "PictureSettings",
    "Recipe",
    "Strict",
    "TrainingSettings",
    "apply_overrides",
    "check_recipe",
    "load_recipe",
    "parse_action",
    "parse_recipe",
    "parse_size",
    "read_recipe",
]

MOST_STEPS = 10**9
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


class TrainingSettings(Strict):
    """How to learn it. The loss is the backbone's own, on ε or v, with uniform timesteps (paper,
    section 3.3).
    """

    steps: int = Field(ge=1, le=MOST_STEPS)
    batch_size: int = Field(4, ge=1, le=4096)  # a process and micro-step
    accumulation: int = Field(1, ge=1, le=65_536)  # micro-steps a step
    # or {class: torch.optim.RAdam, …}, see `zeroconv.training.recipes.optimizer`
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "muon"] | OptimizerClass = "adamw"
    learning_rate: float = Field(1e-5, gt=0, le=10)
    # of the base's decoder where control.unlock_decoder is set; None: a tenth, so that the
    # base gives way only slowly
    decoder_learning_rate: float | None = Field(None, gt=0, le=10)
    schedule: Literal["constant", "linear", "cosine", "polynomial"] = (
        "constant"  # after the warm-up; all others end at 0
    )
    power: float = Field(2.0, gt=0, le=100)  # of the polynomial schedule
    # of the cosine schedule: so often it falls, and begins anew at the top
    cycles: int = Field(1, ge=1, le=1_000_000)
    warmup: int = Field(0, ge=0, le=MOST_STEPS)  # steps
    weight_decay: float = Field(0.01, ge=0, le=10)
    clip: float = Field(1.0, gt=0, le=1e9)  # norm of the gradient
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    # share of prompts made empty, drawn anew every step
    prompt_dropping: float = Field(0.5, ge=0, le=1)
    # logit-normal: more from the middle (Esser et al. 2024); cubic: more noise, where colours
    # are decided (T2I-Adapter, Mou et al. 2023, section 3.4)
    # mode: of flows too (Esser et al. 2024)
    timesteps: Literal["uniform", "logit_normal", "cubic", "mode"] = "uniform"
    # hints are read back from predictions at small timesteps; a control's only
    reward: RewardSettings | None = None
    # γ of min-SNR weighting (Hang et al. 2023), usually 5; None: no weights
    min_snr: float | None = Field(None, gt=0, le=1e6)
    # spread of one noise a picture and channel beside the usual one
    offset_noise: float = Field(0.0, ge=0, lt=1)
    # of data.masked_loss: the mean over all positions (picture), or over the white ones (mask)
    mask_mean: Literal["picture", "mask"] = "picture"
    # stop_after=N, lower_lr=FACTOR or enlarge_batch=TIMES, once hints are followed
    on_convergence: str | None = None
    # bf16: autocast around float32 weights; fp16: the same with a scaled loss, for cards that
    # have no bfloat16; bf16_weights: see `zeroconv.optim.split_weights`
    precision: Literal["fp32", "bf16", "fp16", "bf16_weights"] = "fp32"
    # what the frozen UNet's weights are held in
    frozen: Literal["same", "bf16", "fp16", "int8", "fp8"] = "same"
    # full: keep little, compute it again; a size, such as 2GB: as much as that may be kept
    checkpointing: str = "none"
    # model: text encoders and VAE are on the device only while pictures are made, and the VAE works
    # in tiles; group: the blocks of a frozen transformer too, each while it is computed
    offload: Literal["none", "model", "group"] = "none"
    # of group, how many blocks are moved, the first ones; None: all
    offload_blocks: Annotated[int, Field(ge=1, le=1024)] | None = None
    # over several processes. auto: as the launcher says; fsdp: each holds a part, see
    # `zeroconv.training.execution.fsdp`
    sharding: Literal["auto", "none", "fsdp"] = "auto"
    cuda_graphs: bool = (
        # on one card, a step is launched as a whole, see
        # `zeroconv.training.execution.cuda_graphs`
        True
    )
    # layers by torch.compile, see `zeroconv.training.execution.compile`; for a graphics card
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    threads: int | None = Field(None, ge=1, le=1024)
    # of training; the run ends there as if it had no more steps
    max_minutes: float | None = Field(None, gt=0, le=1e7)
    log_every: int = Field(10, ge=1, le=MOST_STEPS)
    checkpoint_every: int = Field(500, ge=1, le=MOST_STEPS)
    keep: int = Field(2, ge=1, le=100_000)  # checkpoints
    validate_every: int = Field(100, ge=0, le=MOST_STEPS)  # 0: never
    sample_every: int = Field(0, ge=0, le=MOST_STEPS)  # 0: at the end only
    sample_count: int = Field(4, ge=0, le=1024)  # 0: no pictures at all
    sample_steps: int = Field(15, ge=1, le=1000)
    sample_cfg: float = Field(4.0, ge=1, le=100)
    # prompts and hints of the user's own, drawn in place of held-out ones
    validation: tuple[ValidationPrompt, ...] = Field((), max_length=MOST)
    # a small round of `zeroconv evaluate`, see training.measuring.rounds; 0: never
    evaluate_every: int = Field(0, ge=0, le=MOST_STEPS)
    # pictures a round, with sample_steps and sample_cfg
    evaluate_count: int = Field(16, ge=2, le=100_000)
    export: Literal["float32", "float16", "bfloat16"] = "float32"  # of out/control
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()  # beside log.jsonl
    project: str = "zeroconv"  # the trackers' name for runs that belong together

    @field_validator("report_to", "validation", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer_is_a_name_or_a_class(cls, value: Any) -> Any:
        if isinstance(value, dict) and "class" not in value:
            raise ValueError("training.optimizer has no class; give {class: torch.optim.RAdam}")
        # so that a wrong name is answered by the names, and a wrong class by what is wrong with it
        return OptimizerClass.model_validate(value) if isinstance(value, dict) else value

    @field_validator("checkpointing")
    @classmethod
    def _a_size(cls, value: str) -> str:
        if value not in ("none", "full"):
            parse_size(value)
        return value

    @field_validator("on_convergence")
    @classmethod
    def _an_action(cls, value: str | None) -> str | None:
        if value is not None:
            parse_action(value)
        return value

    @model_validator(mode="after")
    def _settings_agree(self) -> TrainingSettings:
        if self.warmup >= self.steps:
            raise ValueError(
                f"training.warmup is {self.warmup} of {self.steps} steps; it must end before the "
                "run does"
            )
        for name, schedule in (("power", "polynomial"), ("cycles", "cosine")):
            if (
                getattr(self, name) != type(self).model_fields[name].default
                and self.schedule != schedule
            ):
                raise ValueError(
                    f"training.{name} is of the {schedule} schedule; this one is {self.schedule}"
                )
        if self.on_convergence is not None and not self.validate_every:
            raise ValueError(
                "training.on_convergence acts on what validations measure, and "
                "training.validate_every is 0: never"
            )
        self._check_offload()
        if self.precision == "bf16_weights" and self.optimizer != "adamw8bit":
            raise ValueError(
                "training.precision bf16_weights needs training.optimizer adamw8bit, which knows "
                "how"
            )
        return self

    def _check_offload(self) -> None:
        if self.offload_blocks is not None and self.offload != "group":
            raise ValueError("training.offload_blocks is of training.offload group")
        if self.offload != "group":
            return
        # a block's weights must come back for its backward pass, by its own call
        if self.checkpointing != "full":
            raise ValueError("training.offload group needs training.checkpointing full")
        if self.sharding == "fsdp" or self.compile:
            raise ValueError(
                "training.offload group moves whole blocks; drop training.sharding fsdp and "
                "training.compile"
            )


def parse_action(text: str) -> tuple[str, float]:
    """ "stop_after=200" → ("stop_after", 200.0). Raises ValueError for another action or value."""
    name, _, value = text.partition("=")
    limits = {"stop_after": (0, MOST_STEPS), "lower_lr": (1e-6, 1), "enlarge_batch": (1, 1024)}
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    fits = name == "lower_lr" or number == number // 1
    if name not in limits or not fits or not limits[name][0] <= number <= limits[name][1]:
        raise ValueError(
            f"{text!r} is no action; write stop_after=STEPS, lower_lr=FACTOR ≤ 1 or "
            "enlarge_batch=TIMES, a whole number"
        )
    return name, number


def parse_size(text: str) -> int:
    """ "1.5GB" → 1500000000 bytes; "2 GiB" is 2 · 2³⁰. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) *([MG])(i?)B", text)
    if match is None or not float(match[1]):
        raise ValueError(
            f"{text!r} is no setting of training.checkpointing; write none, full, or a size such "
            "as 2GB"
        )
    return int(float(match[1]) * (1024 if match[3] else 1000) ** (2 if match[2] == "M" else 3))


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
