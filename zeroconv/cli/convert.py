"""`zeroconv convert`: a control or a base, as its names tell."""

from __future__ import annotations

from pathlib import Path


def run(source: str, out: Path, to: str) -> Path:
    """Write `source` in the layout `to`. Raises UserError; see `convert` and `convert_base`."""
    from zeroconv.backbones.converting import convert_base
    from zeroconv.backbones.locate import locate
    from zeroconv.checkpoints.convert import convert
    from zeroconv.checkpoints.identify import identify
    from zeroconv.checkpoints.kinds import BASE

    path = locate(source, "model")
    return (convert_base if identify(path) is BASE else convert)(path, out, to)
