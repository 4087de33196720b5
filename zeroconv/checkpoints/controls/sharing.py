"""Controls that have most of their weights in common: one folder holds these once, the others only
what is theirs.

A folder whose config.json says `"zeroconv": {"shared": "NAME"}` lies beside the folder NAME, a
whole control; tensors that it lacks are NAME's. Read through here, it is a control like any other.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zeroconv.checkpoints.reading import is_plain_name, read_weights
from zeroconv.errors import UserError

NAMES = ("diffusion_pytorch_model",)


def read_shared(folder: Path, config: dict) -> tuple[dict, dict[str, Tensor]]:
    """Config and weights of a control's folder, made whole: the config no longer names what is
    shared.

    Raises UserError where the folder that it shares with is missing.
    """
    state, ours = read_weights(folder, NAMES), config.get("zeroconv")
    if not isinstance(ours, dict) or not (name := ours.get("shared")):
        return config, state
    if not isinstance(name, str) or not is_plain_name(name):
        raise UserError(
            f"{folder} shares weights with {str(name)[:80]!r}, which is no name of a folder beside "
            "it."
        )
    other = folder.parent / name
    if not other.is_dir():
        raise UserError(
            f"{folder} holds only its own part: put the folder {name}, which it shares the rest "
            "with, beside it."
        )
    config = {**config, "zeroconv": {key: value for key, value in ours.items() if key != "shared"}}
    return config, {**read_weights(other, NAMES), **state}


def unshared_part(state: dict[str, Tensor], shared: Path) -> dict[str, Tensor]:
    """The tensors of a control that differ from those of the control in folder `shared`, bit for
    bit.

    Raises UserError where the two are not of one shape.
    """
    theirs = read_weights(shared, NAMES)
    if theirs.keys() != state.keys() or any(theirs[key].shape != state[key].shape for key in state):
        raise UserError(
            f"the control has other tensors than {shared}, so the two cannot share any."
        )
    return {
        key: value
        for key, value in state.items()
        if theirs[key].dtype != value.dtype or not torch.equal(theirs[key], value)
    }
