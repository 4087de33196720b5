"""How a picture was made, inside the picture: A1111's `parameters` text, and JSON with the hints,
to make it again.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.jsonfile import parse_json, to_json
from zeroconv.pictures import UNKNOWN, load, open_hint

MOST_TEXT = 32_000_000  # characters; Pillow refuses pictures with more than 64 MiB of text


def save_picture(
    image: Image.Image,
    path: str | Path,
    about: Mapping[str, Any],
    hints: Sequence[Image.Image] = (),
) -> None:
    """Write a PNG that carries `about` (JSON values) and the hints; atomically.

    Hints of more than `MOST_TEXT` together are left out, with a note: Pillow opens no picture with
    so much text.
    """
    encoded = [_encode(hint) for hint in hints]
    if sum(map(len, encoded)) > MOST_TEXT:
        warnings.warn(
            f"the hints are too large to be kept in {path} ({sum(map(len, encoded)) / 1e6:.0f} "
            "MB); their names are. Smaller pictures of them are kept.",
            stacklevel=2,
        )
        encoded = []
    text = PngInfo()
    # first, so that a file of ours is known by its head
    text.add_itxt("zeroconv", to_json({**about, "hints": encoded}))
    # names of files may hold bytes that are no text
    plain = parameters_text(about).encode("utf-8", "backslashreplace").decode("utf-8")
    text.add_text("parameters", plain)
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=text)


def read_info(path: str | Path) -> dict[str, Any]:
    """What `save_picture` stored, `hints` as pictures. Raises UserError for a file that carries
    nothing of ours.
    """
    stored = load(path).image.info.get("zeroconv")
    if stored is None:
        raise UserError(f"{path} does not say how it was made; only PNGs saved by zeroconv do.")
    try:
        about = parse_json(stored)
        hints = list(about["hints"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} carries damaged words on how it was made ({error}).") from error
    about["hints"] = [_decode(hint, path) for hint in hints]
    return about


def parameters_text(about: Mapping[str, Any]) -> str:
    """A1111's three lines: prompt, negative prompt, settings; the controls as its ControlNet
    extension writes them.
    """
    settings = {
        "Steps": about.get("steps"),
        "Sampler": about.get("scheduler"),
        "Schedule type": about.get("schedule"),
        "CFG scale": about.get("cfg"),
        "Seed": about.get("seed"),
        "Size": f"{about['width']}x{about['height']}"
        if "width" in about and "height" in about
        else None,
        "Model": about.get("base"),
    }
    parts = [f"{name}: {value}" for name, value in settings.items() if value is not None]
    for i, control in enumerate(about.get("controls") or ()):
        scale = control.get("scale", control.get("weight"))  # as pictures of older versions have it
        inner = f"Model: {control.get('name')}, Weight: {scale}, "
        inner += f"Guidance Start: {control.get('start')}, Guidance End: {control.get('end')}"
        parts.append(f'ControlNet {i}: "{inner}"')
    lines = [
        str(about.get("prompt", "")),
        f"Negative prompt: {about.get('negative', '')}",
        ", ".join(parts),
    ]
    return "\n".join(lines)


def _encode(hint: Image.Image) -> str:
    if hint.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):  # what PNG holds
        hint = open_hint(hint, UNKNOWN, "a hint")
    buffer = io.BytesIO()
    hint.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _decode(text: str, path: str | Path) -> Image.Image:
    """A stored hint, in the mode in which it was given. Raises UserError."""
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} carries a hint that cannot be read ({error}).") from error
    return load(content, f"a hint stored in {path}").image
