"""A control for another base of the same shape: as it is, or moved by the difference of the two
bases (figure 12).

The paper uses controls with community models unchanged. The released code offers a second way: the
copy began as the first base's encoder, so what it learned is its difference from it, and that may
be added to another base's encoder.
"""

from __future__ import annotations

import copy
import os

import torch
from torch import Tensor

from zeroconv.backbones import Backbone, is_split, load_backbone
from zeroconv.control.controlnet import ControlNet
from zeroconv.control.files import check_fit
from zeroconv.errors import UserError
from zeroconv.files import check_not_input, check_output

METHODS = ("unchanged", "difference")


@torch.no_grad()
def transfer(
    control: ControlNet, old: Backbone, new: Backbone, method: str = "difference"
) -> ControlNet:
    """A control for `new` from one that was trained on `old`; the given one stays as it is.

    "unchanged": the same weights, once it is certain that they fit. "difference": control + (new −
    old) for every tensor of the copy that the bases' encoders have; hint encoder and connections
    keep theirs. Raises UserError for an unknown method, a copy that is no encoder (lite), and bases
    of another shape, naming the first tensor.
    """
    check_method(method)
    if control.config["zeroconv"]["connections"] == "lite":
        raise UserError(
            "a control with lite connections has no copy of its base, so there is nothing to "
            "transfer."
        )
    if not is_split(old) or not is_split(new):
        raise UserError(
            f"{old.name} and {new.name} must both be UNets: others have no encoder to copy."
        )
    moved = copy.deepcopy(control)
    weights, before, after = (
        module.state_dict() for module in (moved.copy, old.copy_encoder(), new.copy_encoder())
    )
    _check_shapes(weights, before, old.name)
    _check_shapes(weights, after, new.name)
    check_fit(control, new, "the control")
    if method == "difference":
        moved.copy.load_state_dict(
            {key: _moved(value, before[key], after[key]) for key, value in weights.items()}
        )
    moved.config["zeroconv"]["base"] = new.name
    return moved


def check_method(method: str) -> None:
    """Raise UserError for an unknown way."""
    if method not in METHODS:
        raise UserError(
            f"there is no way {method!r} to transfer a control; choose {' or '.join(METHODS)}."
        )


def _moved(value: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """value + (after − before) in float32; where value is `before`, exactly `after`, without the
    sum's rounding.
    """
    same = value.float() == before.float()
    return torch.where(same, after.float(), value.float() + (after.float() - before.float())).to(
        value.dtype
    )


def _check_shapes(weights: dict[str, Tensor], base: dict[str, Tensor], name: str) -> None:
    for key, value in weights.items():
        if key not in base or base[key].shape != value.shape:
            has = f"{list(base[key].shape)}" if key in base else "missing"
            raise UserError(
                f"the control cannot be transferred: {key} is {list(value.shape)} in its copy but "
                f"{has} in {name}; both bases must have the shape of the control's own."
            )


def transfer_files(
    control: str | os.PathLike,
    old: str | os.PathLike,
    new: str | os.PathLike,
    out: str | os.PathLike,
    method: str = "difference",
) -> None:
    """`transfer` from names (embedded, folder, hub id, file) to a ControlNet folder `out`.

    `out` may be absent, or a folder that holds nothing but what zeroconv wrote. Raises UserError.
    """
    # before the slow part
    check_method(method)
    check_not_input(out, [control, old, new])
    check_output(out, "folder")

    first, second = load_backbone(old), load_backbone(new)
    transfer(ControlNet.load(control, backbone=first), first, second, method).save(out)
