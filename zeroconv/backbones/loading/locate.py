"""From what a user names (an embedded model, a path, a hub id) to a path on this machine."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.inputs import at_home

ASSETS = Path(__file__).resolve().parents[2] / "assets"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate(
    x: str | Path, kind: str, patterns: Sequence[str] | None = None, revision: str | None = None
) -> Path:
    """The folder or file that `x` names; `kind` ("backbone", "ControlNet") is for the error's
    sentence.

    In this order: a name of zeroconv/assets that starts with "playroom", an existing path, a hub id
    `owner/name`, downloaded once (`patterns`: only these files; `revision`: a branch, tag or
    commit). Raises UserError where there is nothing, and for a revision of what is no hub id.
    """
    name = str(x)
    if name.startswith("playroom") and "/" not in name and "." not in name:
        if (ASSETS / name).is_dir():
            _check_revision(name, revision)
            return ASSETS / name
        if not Path(name).exists():
            have = ", ".join(embedded_names()) or "none"
            raise UserError(
                f"the embedded {kind} {name!r} is not in this installation{_near(name)} (embedded "
                f"models: {have})."
            )
    path = at_home(name)
    if path.exists():
        _check_revision(name, revision)
        return path
    if _HUB_ID.fullmatch(name) and path.suffix != ".safetensors":
        # a caller's stand-in for the hub may know no revisions
        return _download(name, kind, patterns, **({"revision": revision} if revision else {}))
    raise UserError(
        f"there is no {kind} {name!r}{_near(name)}; give an embedded name, a folder, a weights "
        "file or a hub id."
    )


def embedded_names() -> list[str]:
    """The folders of models that this installation brings."""
    return sorted(path.name for path in ASSETS.glob("playroom*") if path.is_dir())


def _near(name: str) -> str:
    """What asks for the embedded model, or its condition, of a similar name; empty without one."""
    names = {model: model for model in embedded_names()}
    names |= {model.removeprefix("playroom-"): model for model in names}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise UserError(
            f"{name!r} is on this machine, so it has no revision {revision!r}; leave the revision "
            "out, or give a hub id."
        )


def _download(
    name: str, kind: str, patterns: Sequence[str] | None, revision: str | None = None
) -> Path:
    from huggingface_hub import snapshot_download

    wanted = {"allow_patterns": patterns, "revision": revision}
    try:  # what is there already needs no network
        return Path(snapshot_download(name, **wanted, local_files_only=True))
    except Exception:  # not in the cache, under any of the hub's names for that
        pass
    try:
        return Path(snapshot_download(name, **wanted))
    # offline, no such repository, gated: the hub's classes differ by version
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        of = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"there is no folder {name!r}, and the {kind} {name!r}{of} cannot be fetched from the "
            f"hub ({reason}); check the name and the network, or give a folder."
        ) from error
