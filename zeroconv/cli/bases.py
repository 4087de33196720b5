"""The files that a base is read from, as every command's options name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def base_files(
    vae: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    subfolder: str | None = None,
    lora: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What is given of a base's files, by the names of `load_backbone`'s arguments."""
    named: dict[str, Any] = {"vae": vae, "revision": revision, "variant": variant}
    named |= {"subfolder": subfolder, "lora": list(lora or []) or None}
    named["parts"] = list(parts or []) or None
    return {name: value for name, value in named.items() if value is not None}
