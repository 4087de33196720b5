"""Which control is measured, and what its hints show."""

from __future__ import annotations

import os
import warnings
from typing import Any

from zeroconv.backbones import Backbone
from zeroconv.baselines import Net, load_net
from zeroconv.conditions import find
from zeroconv.control.naming import split_kind
from zeroconv.errors import UserError
from zeroconv.generation.joining import bind_kind


def of_condition(control: str | os.PathLike | Net, backbone: Backbone, asked: str | None) -> Net:
    """The control, loaded where it is a name; a Union control for hints of one kind. Raises
    UserError for a Union without a kind.
    """
    net: Any = control
    if isinstance(control, str | os.PathLike):
        name, kind = split_kind(os.fspath(control))
        net = bind_kind(load_net(name, backbone), kind)
        if kind is not None:
            return net
    if not hasattr(net, "of_kind"):
        return net
    if asked is not None:
        return net.of_kind(asked)
    if net.kind is None:
        raise UserError(
            "This is a Union control, of which one kind is measured: NAME:KIND, or "
            f"condition (--condition KIND); one of {', '.join(net.kinds)}."
        )
    return net


def condition_of(net: Net, asked: str | None = None) -> str:
    """The name of the condition a control follows, or that is asked for. Raises UserError where
    neither says so.
    """
    named = (net.config.get("zeroconv") or {}).get("condition")
    if not named and asked is None:
        raise UserError(
            "The control does not say what its hints show, so it cannot be scored; say it by "
            "condition (--condition canny)."
        )
    if named and asked is not None and find(named).name != find(asked).name:
        warnings.warn(
            f"the control says that its hints show {named}; they are drawn and scored as {asked}.",
            stacklevel=3,
        )
    return find(str(named if asked is None else asked)).name
