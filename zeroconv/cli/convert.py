"""`zeroconv convert`: a control or a base, as its names tell."""

from __future__ import annotations

from pathlib import Path


def run(source: str, out: Path, to: str) -> Path:
    """Write `source` in the layout `to`. Raises UserError; see `convert` and `convert_base`."""
    from zeroconv.backbones.loading.converting import convert_base
    from zeroconv.backbones.loading.locate import locate
    from zeroconv.checkpoints.convert import convert
    from zeroconv.checkpoints.flow.file import is_flow
    from zeroconv.checkpoints.identify import identify
    from zeroconv.checkpoints.kinds import BASE
    from zeroconv.errors import UserError

    path = locate(source, "model")
    kind = identify(path)
    if is_flow(kind) or (path / "transformer").is_dir():
        raise UserError(
            f"{path} is a diffusion transformer, which is read in each of its layouts as it is and "
            "not converted; --base FILE --parts FOLDER loads it."
        )
    return (convert_base if kind is BASE else convert)(path, out, to)
