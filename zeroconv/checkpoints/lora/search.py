"""From the name of a LoRA, as prompts have it, to its file in given folders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from zeroconv.checkpoints.reading import WEIGHT_FILES
from zeroconv.errors import UserError
from zeroconv.inputs import at_home

_MOST = 10_000  # files that are looked at in one folder


def find_lora(name: str, folders: Iterable[str | os.PathLike]) -> Path:
    """The file that `name` means: its name without the suffix, with the folders below where there
    are some (`style`, `people/style`, `style.safetensors`).

    The folders are searched in their order, at any depth. The same spelling wins over one that
    differs in large and small letters. Raises UserError where there is none, and where one folder
    holds several.
    """
    wanted = Path(name.strip().replace("\\", "/"))
    if not wanted.name or wanted.is_absolute() or ".." in wanted.parts:
        raise UserError(
            f"{name[:100]!r} is no name of a LoRA: give the file's name, without the folders above."
        )
    roots = [at_home(folder) for folder in folders]
    known: list[str] = []
    for root in roots:
        files = _files(root)
        for same in (_exactly, _nearly):
            matches = [file for file in files if same(wanted, file.relative_to(root))]
            # a file in the folder itself wins over those below
            nearest = min((len(file.parts) for file in matches), default=0)
            matches = [file for file in matches if len(file.parts) == nearest]
            if len(matches) > 1:
                both = " and ".join(str(file.relative_to(root)) for file in matches[:2])
                raise UserError(
                    f"the LoRA {name[:100]!r} has several files in {root}: {both}; write its "
                    "folder or its suffix too."
                )
            if matches:
                return matches[0]
        known += [file.stem for file in files]
    raise UserError(_missing(name, roots, known))


def _files(root: Path) -> list[Path]:
    files: list[Path] = []
    for folder, below, names in os.walk(root):
        below.sort()
        files += [Path(folder, name) for name in sorted(names) if name.endswith(WEIGHT_FILES)]
        if len(files) > _MOST:
            raise UserError(f"{root} holds more than {_MOST:,} weights files; name a smaller one.")
    return files


def _exactly(wanted: Path, file: Path) -> bool:
    """Whether a path below the folder ends in the wanted one, with or without its suffix."""
    parts = wanted.parts
    return file.parts[-len(parts) :] == parts or file.with_suffix("").parts[-len(parts) :] == parts


def _nearly(wanted: Path, file: Path) -> bool:
    return _exactly(Path(str(wanted).casefold()), Path(str(file).casefold()))


def _missing(name: str, roots: list[Path], known: list[str]) -> str:
    where = ", ".join(str(root) for root in roots) or "no folder"
    near = difflib.get_close_matches(name, known, 3)
    hint = f"; there is {', '.join(near)}" if near else "; check its name and the folder"
    return f"there is no LoRA {name[:100]!r} in {where}{hint}."
