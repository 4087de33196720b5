"""The files that a base is read from, as every command's options name them."""

from __future__ import annotations

import warnings
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


def with_tiny_vae(files: dict[str, Any], tiny_vae: str | None, fast: str | None) -> dict[str, Any]:
    """The base's files and the small decoder. A note says so where nothing is decoded by it; fast:
    None where requests may ask for it later. UserError for what is no small decoder.
    """
    if tiny_vae is None:
        return files
    from zeroconv.backbones.loading.tiny_vae import build_tiny_vae, find_tiny_vae
    from zeroconv.generation.saving import parse_fast

    if fast is not None and parse_fast(fast).vae != "tiny":
        build_tiny_vae(find_tiny_vae(tiny_vae))
        warnings.warn("--tiny-vae is not used: --fast vae=tiny decodes by it.", stacklevel=2)
        return files
    return {**files, "tiny_vae": tiny_vae}
