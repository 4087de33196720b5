"""T2I-Adapter files: TencentARC's original layout and diffusers', both ways, and the config off the
shapes.

The original numbers all residual blocks in a row, diffusers by level; in the small one ("light",
for colours) both number by level.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.identify import (
    identify,
    kind_of_config,
    plain_state,
    refuse_folder,
    refuse_other_kind,
)
from zeroconv.checkpoints.kinds import T2I
from zeroconv.checkpoints.reading import (
    read_config,
    read_metadata,
    read_state_dict,
    read_text_table,
    read_weights,
)
from zeroconv.errors import UserError

State = dict[str, Tensor]
Layout = Literal["original", "diffusers"]

CLASS_NAME = "T2IAdapter"
LEVELS = 4  # of all published ones
LARGE_DOWNSCALE = 16  # of SDXL's, where others have 8
_ENTRIES = ("in_channels", "channels", "num_res_blocks", "downscale_factor", "adapter_type")
_PREFIX = "adapter."
KIND = "t2i_adapter"  # in folders that zeroconv.baselines writes, whose options these are
_OPTIONS: dict[str, str] = {"res_blocks": "num_res_blocks", "downscale": "downscale_factor"}


def read_adapter(path: Path) -> tuple[dict[str, Any], State]:
    """A folder of diffusers, or one file of either layout → its config and its weights, in
    diffusers' terms. Raises UserError.
    """
    if path.is_dir():
        config = _folder_config(path)
        state = _without_twice(plain_state(read_weights(path)))
    else:
        state = plain_state(read_state_dict(path))
        if (kind := identify(state)) is not T2I:
            raise refuse_other_kind(kind, "T2I-Adapter", path, state)
        table = read_metadata(path).get("zeroconv")
        config = {} if table is None else read_text_table(table, f"{path}: its header")
    if layout_of(state) == "original":
        state = original_to_diffusers(state, path, len(config.get("channels") or ()) or None)
    state = {_PREFIX + key.removeprefix(_PREFIX): value for key, value in state.items()}
    config = {**infer_adapter_config(state, path), **_known(config)}
    check_config(config, path)
    return config, state


def _without_twice(state: State) -> State:
    """In folders of zeroconv.baselines the prefix stands twice."""
    twice = all(key.startswith(_PREFIX * 2) for key in state)
    return {key.removeprefix(_PREFIX): value for key, value in state.items()} if twice else state


def _folder_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise refuse_folder(folder, "T2I-Adapter")
    config = read_config(folder)
    options = config.get("options")
    if config.get("kind") == KIND and isinstance(options, dict):
        return {_OPTIONS.get(str(key), str(key)): v for key, v in options.items() if v}
    if (kind := kind_of_config(config)) is not T2I:
        raise refuse_other_kind(kind, "T2I-Adapter", folder)
    return config


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in _ENTRIES if name in config}


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """Which of the two layouts an adapter's weights have."""
    diffusers = any(".resnets." in key for key in state)
    return "diffusers" if diffusers else "original"


def original_to_diffusers(state: Mapping[str, Tensor], where: object, levels: int | None) -> State:
    """TencentARC's names → diffusers'. levels: None for the published four. Raises UserError."""
    if _is_light(state):
        light = {"body": "resnets"}
        return {_PREFIX + _inner(key, light): value for key, value in state.items()}
    blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
    levels = levels or LEVELS
    if not blocks or blocks % levels:
        raise UserError(
            f"{where} has {blocks} residual blocks, which {levels} levels cannot have as many of "
            "each; it is incomplete, or another kind of adapter."
        )
    each = blocks // levels
    return {_PREFIX + _to_level(key, each, where): value for key, value in state.items()}


def diffusers_to_original(state: Mapping[str, Tensor]) -> State:
    """The inverse of `original_to_diffusers`."""
    plain = {key.removeprefix(_PREFIX): value for key, value in state.items()}
    if _is_light(plain):
        return {_inner(key, {"resnets": "body"}): value for key, value in plain.items()}
    each = len({key.split(".")[3] for key in plain if key.startswith("body.0.resnets.")})
    return {_from_level(key, each): value for key, value in plain.items()}


def _is_light(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith("body.0.out_conv.weight") for key in state)


def _inner(key: str, names: Mapping[str, str]) -> str:
    """body.0.body.1.block1.weight ↔ body.0.resnets.1.block1.weight."""
    first, number, part, *rest = key.split(".")
    return ".".join([first, number, names.get(part, part), *rest])


def _to_level(key: str, each: int, where: object) -> str:
    """body.3.block1.weight → body.1.resnets.1.block1.weight, of two blocks a level."""
    if key.startswith("conv_in."):
        return key
    match = re.fullmatch(r"body\.(\d+)\.(in_conv|block1|block2)\.(weight|bias)", key)
    if match is None:
        raise UserError(f"{where} has the unknown {key[:100]}; it is another kind of adapter.")
    level, block = divmod(int(match[1]), each)
    inside = "in_conv" if match[2] == "in_conv" else f"resnets.{block}.{match[2]}"
    return f"body.{level}.{inside}.{match[3]}"


def _from_level(key: str, each: int) -> str:
    parts = key.split(".")
    if parts[0] != "body":
        return key
    if parts[2] == "in_conv":
        return f"body.{int(parts[1]) * each}.in_conv.{parts[3]}"
    return f"body.{int(parts[1]) * each + int(parts[3])}.{parts[4]}.{parts[5]}"


def infer_adapter_config(state: Mapping[str, Tensor], where: object) -> dict[str, Any]:
    """The config of weights in diffusers' layout. Raises UserError.

    Pixels a side of what the first layer reads, and channels, are told by their product: pictures
    have three channels or one. SDXL's adapters read squares of 16 pixels.
    """
    light = _is_light(state)
    first = "body.0.in_conv" if light else "conv_in"
    width = "out_conv" if light else "resnets.0.block1"
    try:
        numbers = {int(k.split(".")[2]) for k in state if k.startswith("adapter.body.")}
        levels = range(max(numbers) + 1)
        blocks = len({k.split(".")[4] for k in state if k.startswith("adapter.body.0.resnets.")})
        channels = [state[f"adapter.body.{i}.{width}.weight"].shape[0] for i in levels]
        reads = state[f"adapter.{first}.weight"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{where} lacks tensors that every T2I-Adapter has ({error}).") from error
    scale, colours = _squares(reads, where)
    kind = "full_adapter_xl" if scale == LARGE_DOWNSCALE else "full_adapter"
    return {
        "in_channels": colours,
        "channels": channels[:-1] if light else channels,
        "num_res_blocks": blocks,
        "downscale_factor": scale,
        "adapter_type": "light_adapter" if light else kind,
    }


def _squares(reads: int, where: object) -> tuple[int, int]:
    for colours in (3, 1):
        for scale in (8, 16, 4, 2, 1, 32):
            if colours * scale**2 == reads:
                return scale, colours
    raise UserError(
        f"{where}: its first layer reads {reads} channels, which no squares of a picture have; "
        "give it as a folder with its config.json."
    )
