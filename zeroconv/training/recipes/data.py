"""Settings of a recipe's data: which pictures, at which sizes, with which hints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from zeroconv.conditions import known
from zeroconv.errors import without_secrets
from zeroconv.inputs import at_home
from zeroconv.training.recipes.settings import Strict


class BucketSettings(Strict):
    """Shapes other than the square; see `zeroconv.data.buckets.Buckets`."""

    # pixels; None: an eighth of data.size, at most 64
    step: int | None = Field(None, ge=8, le=4096)
    min_side: int | None = Field(None, ge=8, le=8192)  # None: half of data.size
    max_side: int | None = Field(None, ge=8, le=8192)  # None: twice data.size
    # true: a picture smaller than its shape is enlarged; false: it keeps its size
    upscale: bool = False


class PictureSettings(Strict):
    """Pictures with captions to learn from; specs as in `zeroconv.data.open_dataset`."""

    train: tuple[str, ...] = Field(min_length=1)
    validation: tuple[str, ...] | None = None  # None: some of the training pictures are held out
    validation_count: int = Field(128, ge=2, le=1_000_000)
    size: int | None = Field(None, ge=8, le=4096)  # pixels; None: the base's own
    flip: bool = False  # mirror half of the pictures, where captions (and hints) allow it
    # where masks of the loss come from: a column or folder of masks, or the pictures' alpha; true:
    # mask
    masked_loss: Literal["mask", "alpha"] | None = None
    caption_weights: bool = False  # read (word:1.2) in captions as in prompts; else as it stands
    workers: int | None = Field(None, ge=1, le=256)  # processes that draw; None: one a core
    cache: Path | None = None  # None: $ZEROCONV_CACHE or ~/.cache/zeroconv

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("masked_loss", mode="before")
    @classmethod
    def _true_is_the_usual_one(cls, value: Any) -> Any:
        return "mask" if value is True else None if value is False else value

    @field_validator("cache", mode="before")
    @classmethod
    def _cache_from_home(cls, value: Any) -> Any:
        return at_home(value) if isinstance(value, str) else value

    @field_serializer("train", "validation", when_used="json")
    def _without_passwords(self, value: tuple[str, ...] | None) -> list[str] | None:
        """What is written beside a run, and sent to trackers, is read by others."""
        return None if value is None else [without_secrets(spec) for spec in value]


class DataSettings(PictureSettings):
    """And their hints."""

    condition: str
    # true: keep the pictures' aspect ratios; None: middle squares
    buckets: BucketSettings | None = None
    hint_dropout: float = Field(0.0, ge=0, lt=1)  # share of hints that are blanked

    @field_validator("buckets", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @model_validator(mode="after")
    def _hints_may_be_mirrored(self) -> DataSettings:
        entry = known(self.condition)
        if self.flip and (entry is None or entry.mirror is None):
            raise ValueError(
                f"data.flip is set, but how a hint of {self.condition!r} looks in a mirror is not "
                "known"
            )
        return self
