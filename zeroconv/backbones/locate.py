"""From what a user names (an embedded model, a path, a hub id) to a path on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.inputs import at_home

ASSETS = Path(__file__).resolve().parent.parent / "assets"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(x: str | Path, kind: str, patterns: Sequence[str] | None = None) -> Path:
    """The folder or file that `x` names; `kind` ("backbone", "ControlNet") is for the error's
    sentence.

    In this order: a name of zeroconv/assets that starts with "playroom", an existing path, a hub id
    `owner/name`, downloaded once (`patterns`: only these files). Raises UserError where there is
    nothing.
    """
    name = str(x)
    if name.startswith("playroom") and "/" not in name and "." not in name:
        if (ASSETS / name).is_dir():
            return ASSETS / name
        if not Path(name).exists():
            have = (
                ", ".join(sorted(p.name for p in ASSETS.glob("playroom*") if p.is_dir())) or "none"
            )
            raise UserError(
                f"the embedded {kind} {name!r} is not in this installation (embedded models: "
                f"{have})."
            )
    path = at_home(name)
    if path.exists():
        return path
    if _HUB_ID.fullmatch(name) and path.suffix != ".safetensors":
        return _download(name, kind, patterns)
    raise UserError(
        f"there is no {kind} {name!r}; give an embedded name, a folder, a weights file or a hub id."
    )


def _download(name: str, kind: str, patterns: Sequence[str] | None) -> Path:
    from huggingface_hub import snapshot_download

    try:  # what is there already needs no network
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except Exception:  # not in the cache, under any of the hub's names for that
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    # offline, no such repository, gated: the hub's classes differ by version
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"there is no folder {name!r}, and the {kind} {name!r} cannot be fetched from the hub "
            f"({reason}); check the name and the network, or give a folder."
        ) from error
