"""The part of a recipe that says how is trained: steps, loss, optimiser, precision, reports."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zeroconv.training.recipes.optimizer import OptimizerClass
from zeroconv.training.recipes.prompts import MOST, ValidationPrompt
from zeroconv.training.recipes.reward import RewardSettings
from zeroconv.training.recipes.settings import Strict

MOST_STEPS = 10**9


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
