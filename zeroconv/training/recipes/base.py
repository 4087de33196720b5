"""Settings of a recipe's base beside its name."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from zeroconv.training.recipes.settings import Strict


class BaseFiles(Strict):
    """Which files the base is read from, as `load_backbone` and the commands' options have it."""

    vae: str | None = None
    parts: tuple[str, ...] = ()  # of a diffusion transformer in one file
    revision: str | None = None
    variant: str | None = None
    subfolder: str | None = None
    lora: tuple[str, ...] = ()  # merged into the base before the run

    @field_validator("lora", "parts", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def options(self) -> dict[str, Any]:
        """What is given, by the names of `load_backbone`'s arguments."""
        return {name: value for name, value in self.model_dump().items() if value}
