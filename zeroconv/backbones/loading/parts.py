"""Parts of a base that stand beside its file or are given for it: folders in diffusers' layout, and
single files of text encoders and VAEs, which go by ComfyUI's names in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.flow.text_files import NAMES, kind_of_text
from zeroconv.checkpoints.identify import identify, plain_names
from zeroconv.checkpoints.kinds import VAE, VIDEO_VAE, Kind
from zeroconv.checkpoints.reading import read_config, read_names, weights_file
from zeroconv.errors import UserError

PATTERNS = ("text_encoder*/*", "tokenizer*/*", "vae/*", "scheduler/*", "transformer/config.json")
_TEXT_FOLDERS = ("", "text_encoders", "clip")
_VAE_FOLDERS = ("", "vae")


def find_parts(given: Sequence[str | os.PathLike]) -> list[Path]:
    """Paths of folders, files or hub ids of parts. Raises UserError for what is not there."""
    if not all(str(x).strip() for x in given):
        raise UserError("parts of a base have an empty name; give folders, files or hub ids.")
    return [locate(os.fspath(x), "part of a base", PATTERNS) for x in given]


class Given:
    """Folders and files in which parts are looked for, in their order."""

    def __init__(self, paths: Iterable[Path]) -> None:
        paths = list(paths)
        self.folders = [path for path in paths if path.is_dir()]
        self.texts: dict[str, Path] = {}
        self.vaes: dict[Kind, Path] = {}
        for path in paths:
            if not path.is_dir():
                self._add(path)

    def _add(self, path: Path) -> None:
        names = list(plain_names(read_names(path)).values())
        kind = identify(names)
        if kind in (VAE, VIDEO_VAE):
            self.vaes[kind] = path
        elif (text := kind_of_text(names, path)) is not None:
            self.texts[text] = path
        else:
            raise UserError(
                f"{path} is {kind}, no text encoder or VAE; give those as parts of a base."
            )

    def folder(self, name: str, file: str = "config.json") -> Path | None:
        """A part's folder in diffusers' layout that holds this file."""
        paths = (folder / name for folder in self.folders)
        return next((path for path in paths if (path / file).is_file()), None)

    def tokenizer(self, name: str) -> Path | None:
        paths = (folder / name for folder in self.folders)
        return next((path for path in paths if path.is_dir()), None)

    def config(self, name: str) -> dict[str, Any] | None:
        """What a folder without weights says of those in a file."""
        folder = self.folder(name)
        return read_config(folder) if folder and weights_file(folder) is None else None

    def _weights(self, name: str) -> Path | None:
        folder = self.folder(name)
        return folder if folder and weights_file(folder) is not None else None

    def text(self, kind: str, name: str) -> Path | None:
        """The file or folder of a text encoder."""
        starts = NAMES[kind][1]
        return (
            self.texts.get(kind)
            or self._weights(name)
            or self._file(_TEXT_FOLDERS, lambda stem: stem.startswith(starts), NAMES[kind][0])
        )

    def vae(self, video: bool) -> Path | None:
        """The file or folder of a VAE."""
        return (
            self.vaes.get(VIDEO_VAE if video else VAE)
            or self._weights("vae")
            or self._file(_VAE_FOLDERS, lambda stem: stem == "ae" or "vae" in stem, "VAE")
        )

    def _file(self, inner: tuple[str, ...], fits: Callable[[str], bool], what: str) -> Path | None:
        """The one file in a folder, or in one of those inner folders, whose name fits."""
        for folder in self.folders:
            for name in inner:
                paths = sorted((folder / name).glob("*.safetensors"))
                paths = [path for path in paths if fits(path.stem.lower())]
                if len(paths) > 1:
                    raise UserError(
                        f"{folder / name} holds several files of {what}: "
                        f"{', '.join(path.name for path in paths[:4])}; give the one to be read as "
                        "--parts FILE (parts= in Python)."
                    )
                if paths:
                    return paths[0]
        return None

    def check_read(self, texts: set[str], vae: bool, video: bool) -> None:
        """Raise UserError for a file that is given and would not be read."""
        wanted = {VIDEO_VAE if video else VAE} if vae else set()
        unread = [path for kind, path in self.texts.items() if kind not in texts]
        unread += [path for kind, path in self.vaes.items() if kind not in wanted]
        if unread:
            raise UserError(
                f"{unread[0]} is no part of this base, so it is not read; leave it out."
            )
