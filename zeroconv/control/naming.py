"""What a user calls a control: "canny" is the one that comes with the playroom base."""

from __future__ import annotations

import re

from zeroconv.backbones.loading.locate import ASSETS
from zeroconv.checkpoints.lora import BASE
from zeroconv.conditions import known
from zeroconv.conditions.union import union_kind
from zeroconv.errors import UserError
from zeroconv.words import exists


def control_name(name: str, base: str | None = None) -> str:
    """What `locate` knows a control by: a bare condition is the control of the playroom base.

    base: the backbone's name; None stands for the playroom. A file or folder of that name comes
    first. Raises UserError for a bare condition with a base that brings no controls.
    """
    condition = known(name)
    if condition is None or exists(name):
        return name
    if base is None or is_playroom(base):
        return f"playroom-{condition.name}"
    raise UserError(
        f"only the playroom bases bring a control named {name!r}: "
        f"for the base {base} say which one, as a folder, a file, or a hub id"
    )


def split_kind(name: str) -> tuple[str, str | None]:
    """`union.safetensors:canny` → the name of a Union control and the kind of its hint; None where
    what is before the colon is no file or folder, or what is behind it no kind.
    """
    net, colon, kind = name.rpartition(":")
    if not colon or exists(name) or union_kind(kind) is None:
        return name, None
    if not exists(net) and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", net):
        return name, None
    return net, kind


def is_playroom(base: str) -> bool:
    """Whether `base` is the playroom or made of it: the embedded controls go with all of them."""
    marks = ("model_index.json", BASE)
    return base.startswith("playroom") and any((ASSETS / base / mark).is_file() for mark in marks)
