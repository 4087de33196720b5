"""What the server made and a user removes: runs and uploaded data sets, with how much they take.

Nothing is removed that is not asked for. A folder is first renamed within the data folder, so that
a kill leaves all of it or nothing to list; the rest is removed at the next start. A link is removed
as a link: what it leads to stays.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from zeroconv.serving.errors import ApiError
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.training.recipes import recipe_file, runs_folder
from zeroconv.serving.training.uploads import uploads_folder

REMOVED = ".removed-"  # how names begin of what is being removed


def bytes_below(path: Path) -> int:
    """Of a file, or of all files in a folder; links are not followed."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(bytes_below(Path(entry.path)) for entry in entries)
    except OSError:  # removed meanwhile, or not readable
        return 0


def run_bytes(settings: ServerSettings, name: str) -> int:
    """Of a run with its recipe and its words."""
    return sum(bytes_below(path) for path in _parts_of_run(settings, name))


def remove_run(settings: ServerSettings, name: str) -> int:
    """Recipe, words and folder of a run that is not at work; returns their bytes. Raises ApiError
    404.
    """
    recipe = recipe_file(settings, name)
    if not recipe.is_file():
        raise ApiError(404, "There is no such run.")
    count = run_bytes(settings, name)
    aside = [_set_aside(path) for path in _parts_of_run(settings, name)]
    for path in aside:
        _remove(path)
    return count


def _parts_of_run(settings: ServerSettings, name: str) -> list[Path]:
    """The recipe first: without it a run is not listed."""
    folder = runs_folder(settings)
    return [recipe_file(settings, name), folder / f"{name}.log", folder / name]


def remove_set(settings: ServerSettings, id: str) -> int:
    """An uploaded data set, by an id that is listed; returns its bytes. Raises ApiError 404."""
    path = uploads_folder(settings) / id
    if path.parent != uploads_folder(settings) or not path.is_dir():
        raise ApiError(404, "There is no such uploaded data set.")
    count = bytes_below(path)
    _remove(_set_aside(path))
    return count


def cache_folder(settings: ServerSettings) -> Path:
    """Hints, latents and text states that trainings have computed, and compute again without it."""
    return settings.data.resolve() / "cache"


def remove_cache(settings: ServerSettings) -> int:
    """What no training reads now; returns its bytes."""
    path = cache_folder(settings)
    count = bytes_below(path)
    _remove(_set_aside(path))
    return count


def uploaded_sets(settings: ServerSettings) -> list[dict[str, Any]]:
    """{"id", "pictures", "bytes"} of each, by their names."""
    root = uploads_folder(settings)
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [
        {
            "id": folder.name,
            "pictures": sum(1 for _ in folder.glob("*.png")),
            "bytes": bytes_below(folder),
        }
        for folder in folders
        if (folder / "metadata.jsonl").is_file()
    ]


def sweep(settings: ServerSettings) -> None:
    """Remove what a kill has left of earlier removals."""
    for folder in (settings.data, runs_folder(settings), uploads_folder(settings)):
        for path in folder.glob(f"{REMOVED}*") if folder.is_dir() else ():
            _remove(path)


def _set_aside(path: Path) -> Path:
    """The same thing under a name that nobody lists."""
    aside = path.with_name(f"{REMOVED}{secrets.token_hex(4)}-{path.name}")
    if os.path.lexists(path):
        path.rename(aside)
    return aside


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
