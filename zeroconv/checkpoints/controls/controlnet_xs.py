"""ControlNet-XS: names of tensors in diffusers' adapter and in its model joined with a base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.identify import plain_state, refuse_folder
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.errors import UserError

CLASS_NAME = "ControlNetXSAdapter"
KIND = "controlnet_xs"  # in folders that zeroconv.baselines writes

# modules at the top, then those within a block: the adapter's name → the fused model's
_TOP = {"conv_in": "ctrl_conv_in", "time_embedding": "ctrl_time_embedding"}
_BLOCKS = {"up_connections": "up_blocks"}
_INSIDE = {name: f"ctrl_{name}" for name in ("resnets", "attentions", "downsamplers", "midblock")}
_BACK = {new: old for table in (_TOP, _BLOCKS, _INSIDE) for old, new in table.items()}


def read_xs(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """diffusers' folder of an adapter, or one of zeroconv.baselines → its config, and its weights
    under the fused model's names. Raises UserError; one file does not say enough of its network.
    """
    if folder.is_file():
        raise UserError(
            f"{folder} is a ControlNet-XS without its config; give the folder of diffusers that "
            "holds config.json beside it."
        )
    if not (folder / "config.json").is_file():
        raise refuse_folder(folder, "ControlNet-XS")
    config = read_config(folder)
    if config.get("kind") == KIND and isinstance(config.get("adapter"), dict):
        return config["adapter"], read_weights(folder)
    named = str(config.get("_class_name"))
    if named != CLASS_NAME:
        raise UserError(
            f"{folder} holds a {named[:80]}, which is joined with its base; give the adapter alone "
            f"({CLASS_NAME})."
        )
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    check_config(config, folder)
    return config, {to_fused(k): v for k, v in plain_state(read_weights(folder)).items()}


def to_fused(key: str) -> str:
    """A tensor's name in the adapter → in the fused model."""
    first, _, rest = key.partition(".")
    if first in _TOP:
        return f"{_TOP[first]}.{rest}"
    if first == "mid_block":
        inner, _, last = rest.partition(".")
        return f"{first}.{_INSIDE.get(inner, inner)}.{last}"
    if first in ("down_blocks", "up_connections"):
        number, inner, last = rest.split(".", 2)
        return f"{_BLOCKS.get(first, first)}.{number}.{_INSIDE.get(inner, inner)}.{last}"
    return key


def to_adapter(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fused model's trained weights → the adapter's names."""
    return {_from_fused(key): value for key, value in state.items()}


def _from_fused(key: str) -> str:
    parts = key.split(".")
    if parts[0] in ("up_blocks", *_TOP.values()):
        parts[0] = _BACK[parts[0]]
    elif parts[0] in ("down_blocks", "mid_block"):
        index = 1 if parts[0] == "mid_block" else 2
        parts[index] = _BACK.get(parts[index], parts[index])
    return ".".join(parts)
