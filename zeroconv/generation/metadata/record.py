"""How a picture was made, inside the picture: JSON with the hints, to make it again, and A1111's
`parameters` text. PNG, JPEG and WebP.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.generation.metadata.comfyui import read_prompt
from zeroconv.generation.metadata.files import check_size, format_of, write_picture
from zeroconv.generation.metadata.infotext import Reading, parameters_text, read_parameters
from zeroconv.jsonfile import parse_json, to_json
from zeroconv.pictures import UNKNOWN, load, open_hint
from zeroconv.pictures.carried import carried

__all__ = ["parameters_text", "read_foreign", "read_info", "save_picture"]

MOST_TEXT = 32_000_000  # characters; Pillow refuses pictures with more than 64 MiB of text
MOST_PICTURES = 100  # hints, masks and inputs that a file carries


def save_picture(
    image: Image.Image,
    path: str | Path,
    about: Mapping[str, Any],
    hints: Sequence[Image.Image] = (),
    inputs: Mapping[str, Image.Image] | None = None,
) -> None:
    """Write a PNG, JPEG or WebP, by the suffix, that carries `about` (JSON values), the hints, and
    further pictures it was made from by their names (`inputs`: masks and the like); atomically.

    Pictures of more than `MOST_TEXT` together are left out, with a note: Pillow opens no picture
    with so much text. Raises UserError for another suffix, and a size that the format cannot hold.
    """
    check_size(image.size, path)
    encoded = [_encode(hint) for hint in hints]
    named = {name: _encode(picture) for name, picture in (inputs or {}).items()}
    total = sum(map(len, [*encoded, *named.values()]))
    if total > MOST_TEXT:
        warnings.warn(
            f"the hints are too large to be kept in {path} ({total / 1e6:.0f} "
            "MB); their names are. Smaller pictures of them are kept.",
            stacklevel=2,
        )
        encoded, named = [], {}
    kept: dict[str, Any] = {"hints": encoded}
    if named:
        kept["inputs"] = named
    ours = to_json({**about, **kept})
    # names of files may hold bytes that are no text
    plain = parameters_text(about).encode("utf-8", "backslashreplace").decode("utf-8")
    with atomic_write(path) as temporary:
        left_out = write_picture(image, temporary, format_of(path), ours, plain)
    for sentence in left_out:
        warnings.warn(f"{path}: {sentence}.", stacklevel=2)


def read_info(path: str | Path) -> dict[str, Any]:
    """What `save_picture` stored, `hints` as pictures and `inputs` as pictures by their names.

    Raises UserError for a file that carries nothing of ours, or what is damaged.
    """
    stored = carried(path).get("zeroconv")
    if stored is None:
        raise UserError(f"{path} does not say how it was made; only pictures saved by zeroconv do.")
    try:
        about = parse_json(stored)
        hints, named = list(about["hints"]), dict(about.get("inputs") or {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} carries damaged words on how it was made ({error}).") from error
    if len(hints) + len(named) > MOST_PICTURES:
        raise UserError(f"{path} carries more than {MOST_PICTURES} hints, which are not read.")
    about["hints"] = [_decode(hint, path) for hint in hints]
    about["inputs"] = {name: _decode(picture, path) for name, picture in named.items()}
    return about


def read_foreign(path: str | Path) -> Reading:
    """What A1111 or ComfyUI wrote into a picture, as values of generate's options.

    Raises UserError for a picture that says nothing on how it was made, or what is damaged.
    """
    texts = carried(path)
    try:
        if "parameters" in texts:
            return read_parameters(texts["parameters"])
        if "prompt" in texts:
            return read_prompt(texts["prompt"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    raise UserError(
        f"{path} does not say how it was made: it carries no text of zeroconv, A1111 or ComfyUI."
    )


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
