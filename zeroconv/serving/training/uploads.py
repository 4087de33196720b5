"""Data sets that clients upload: pictures with captions, a folder each."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.serving.settings import ServerSettings


def uploads_folder(settings: ServerSettings) -> Path:
    return settings.data.resolve() / "datasets"


def keep_set(
    settings: ServerSettings, name: str, items: Iterable[tuple[Image.Image, str]]
) -> tuple[str, Path]:
    """Write pictures and captions; returns the set's id and its folder. Raises UserError where
    there are too many sets.
    """
    limits, root = settings.limits, uploads_folder(settings)
    if root.is_dir() and sum(1 for _ in root.iterdir()) >= limits.sets:
        raise UserError(
            f"there are {limits.sets} uploaded data sets; remove some (DELETE /datasets/ID)."
        )
    id = f"{name}-{secrets.token_hex(4)}"
    with atomic_folder(root / id) as folder:
        lines = []
        for i, (image, caption) in enumerate(items):
            image.save(folder / f"{i:05d}.png")
            lines.append(json.dumps({"file_name": f"{i:05d}.png", "text": caption}))
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return id, root / id
