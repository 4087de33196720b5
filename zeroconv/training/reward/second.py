"""The second reader: trained with another seed, width and scenes than the judge, so that a control
that it rewards does not learn the judge's mistakes. Nothing that measures loads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.evaluation.reader import ASSET, Reader, open_reader

SECOND = ASSET.with_name("playroom-reader-second.safetensors")
_TRAIN = "python -m zeroconv.scratch.reader FOLDER --out FILE"


def load_second(setting: str | None, base: str, condition: str) -> Reader:
    """The reader that `training.reward.reader` names, frozen.

    base: the recipe's. Raises UserError where none is named for a base that is not the playroom's,
    the file is missing or no reader, and for the judge's own file.
    """
    if setting is None and not _is_playroom(base):
        raise UserError(
            f"training.reward needs a network that reads {condition} back from pictures of {base}; "
            f"name the file of one as training.reward.reader ({_TRAIN} trains it)."
        )
    path = SECOND if setting in (None, "playroom") else Path(str(setting))
    if not path.is_file():
        raise UserError(
            f"training.reward reads {condition} back by the second reader, and {path} is missing; "
            f"train it with {_TRAIN} and name the file as training.reward.reader."
        )
    if _digest(path) == _digest(ASSET):
        raise UserError(
            f"{path} is the reader that judges; a control rewarded by its judge learns the judge's "
            f"mistakes, so train another one: {_TRAIN}."
        )
    return open_reader(path)


def _is_playroom(base: str) -> bool:
    """Whether a recipe names an embedded base."""
    return base.startswith("playroom") and "/" not in base and "." not in base


def _digest(path: Path) -> bytes | None:
    return hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None
