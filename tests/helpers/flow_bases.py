"""The tiny bases of `tiny_flow`, each written and loaded once in a session. Leave them as they are:
copy a folder before anything in it is changed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.helpers import tiny_flow

_ROOT = TemporaryDirectory(prefix="zeroconv-flows-")  # removed when the process ends


@cache
def folder(name: str) -> Path:
    """In diffusers' layout: one of `tiny_flow.WRITERS`."""
    return tiny_flow.WRITERS[name](Path(_ROOT.name) / name)


@cache
def base(name: str) -> Any:
    from zeroconv.backbones import load_backbone

    return load_backbone(str(folder(name)))


def folders() -> dict[str, Path]:
    return {name: folder(name) for name in tiny_flow.WRITERS}


def bases() -> dict[str, Any]:
    return {name: base(name) for name in tiny_flow.WRITERS}
