"""Pictures of the history as clients see them: addresses in place of files."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

PREFIX = "/api/v1"


def result_of(row: sqlite3.Row) -> dict[str, Any]:
    """What a job lists of a picture."""
    return {
        "id": row["id"],
        "picture": f"{PREFIX}/pictures/{row['id']}.png",
        "thumb": f"{PREFIX}/pictures/{row['id']}.thumb.webp",
        "seed": row["seed"],
        "width": row["width"],
        "height": row["height"],
        "kept": bool(row["kept"]),
    }


def entry_of(row: sqlite3.Row) -> dict[str, Any]:
    """What the history answers of a picture."""
    return {
        **result_of(row),
        "number": row["number"],
        "job": row["job"],
        "prompt": row["prompt"],
        "created": row["created"],
        "settings": _with_urls(json.loads(row["settings"]), row["id"]),
        "favourite": bool(row["favourite"]),
    }


def _with_urls(settings: dict[str, Any], id: str) -> dict[str, Any]:
    """Pictures in settings are stored as True, and handed out as addresses."""
    base = f"{PREFIX}/history/{id}"
    for name in ("image", "mask"):
        if settings.get(name) is True:
            settings[name] = f"{base}/{name}.png"
    for i, control in enumerate(settings.get("controls") or ()):
        if control.get("hint") is True:
            control["hint"] = f"{base}/hints/{i}.png"
        if control.get("region") is True:
            control["region"] = f"{base}/regions/{i}.png"
    return settings
