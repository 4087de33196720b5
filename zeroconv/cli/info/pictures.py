"""What `zeroconv info` says about a picture: how it was made, by the words in its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.pictures import PICTURE_SUFFIXES, picture_size

# what is for `--from`, and no fact on its own
_INNER = ("hints", "inputs", "options", "batch", "work", "count", "made_with")


def is_picture(name: str) -> bool:
    """Whether `name` is a file with a picture's suffix."""
    try:
        return Path(name).suffix.lower() in PICTURE_SUFFIXES and Path(name).is_file()
    except (OSError, ValueError):
        return False


def describe_picture(path: Path) -> dict[str, Any]:
    """How a picture was made, as zeroconv, A1111 or ComfyUI wrote it into the file.

    Raises UserError for one that does not say, or what is damaged.
    """
    from zeroconv.generation.metadata.record import read_foreign, read_info
    from zeroconv.pictures.carried import carried

    width, height = picture_size(path)
    report: dict[str, Any] = {"name": str(path), "kind": "picture", "size": f"{width}×{height}"}
    if "zeroconv" not in carried(path):
        reading = read_foreign(path)
        values = {**reading.values, "prompt": " | ".join(reading.values.get("prompt") or [])}
        return {**report, "made_by": reading.program, **values, "notes": "; ".join(reading.notes)}

    about = read_info(path)
    facts = {k: v for k, v in about.items() if k not in _INNER and v is not None}
    if isinstance(controls := facts.get("controls"), list):
        facts["controls"] = "; ".join(_control(one) for one in controls)
    sizes = [f"{hint.width}×{hint.height}" for hint in about["hints"]]
    facts |= {"hints": ", ".join(sizes), "further_pictures": ", ".join(about["inputs"])}
    made_with = about.get("made_with") or {}
    return {**report, "made_by": "zeroconv", **facts, "made_with": made_with}


def _control(control: Any) -> str:
    if not isinstance(control, dict):
        return str(control)[:80]
    return ", ".join(f"{key} {value}" for key, value in control.items() if value is not None)
