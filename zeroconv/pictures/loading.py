"""A picture in memory, upright, in the mode of its file; what its file says of its numbers is kept
beside it."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zeroconv.errors import UserError
from zeroconv.pictures.arrays import from_array, from_tensor
from zeroconv.pictures.orientation import ORIENTATION_KEYS, TURNS, orientation
from zeroconv.pictures.scans import check_scans
from zeroconv.pictures.sources import (
    ACCEPTED,
    FORMATS,
    Source,
    check_pixels,
    kind_of,
    max_pixels,
    opened,
)
from zeroconv.pictures.tiff import check_directory, is_white_zero, tile_size

Note = Callable[[str, str], None]  # is told a picture's name and what was done to it

# an MPO is a JPEG and its smaller companions
_FRAMES = {"TIFF": "holds several pages: the first is used", "MPO": ""}
_SLOW = 4_000_000  # pixels: what Pillow decodes in Python takes seconds above that
_lock = threading.Lock()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it prints beside our sentence


@dataclass(frozen=True)
class Loaded:
    """A decoded picture. `bits`: of a sample in the file; of floats and of unbounded integers 0."""

    image: Image.Image
    name: str
    bits: int = 8
    signed: bool = True  # of 32-bit integers
    inverted: bool = False  # numbers of which 0 is white
    format: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size


def warn(name: str, what: str) -> None:
    warnings.warn(f"{name} {what}.", stacklevel=2)


def load(
    source: Source, name: object = None, max_pixels: int | None = None, note: Note = warn
) -> Loaded:
    """Decode a picture, upright.

    source: a path, bytes, a binary file, a PIL picture, a numpy array or a torch tensor
    (`arrays.from_array` and `from_tensor` say which), or what this function returned. name: what
    messages call it. max_pixels: in place of ZEROCONV_MAX_PIXELS. Raises UserError for what is
    missing, damaged, too large, or of no allowed format.
    """
    if isinstance(source, Loaded):
        return source
    called = _name(source, name)
    if isinstance(source, Image.Image):
        return _of_pil(source, called, max_pixels, note)
    if isinstance(source, np.ndarray):
        return Loaded(*from_array(source, called, max_pixels), format=None)
    if _is_tensor(source):
        return Loaded(*from_tensor(source, called, max_pixels), format=None)
    if not _is_file(source):
        raise UserError(f"{called} is {type(source).__name__}; {ACCEPTED} is needed.")
    with opened(source, called, max_pixels) as file:
        picture = _begin(file, called, max_pixels)
        check_scans(picture, file, called)
        return _decode(picture, called, note)


def picture_size(
    source: Source, name: object = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """Width and height of the upright picture; of a file, from its header. Raises UserError, see
    `load`."""
    called = _name(source, name)
    if not _is_file(source):
        return load(source, called, max_pixels).size
    with opened(source, called, max_pixels) as file:
        picture = _begin(file, called, max_pixels)
        lying = _reading(called, lambda: orientation(picture)) > 4
        return picture.size[::-1] if lying else picture.size


def _name(source: Source, name: object) -> str:
    if name is not None:
        return str(name)
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return str(source)
    return "the picture"


def _is_file(source: Source) -> bool:
    kinds = str | bytes | bytearray | memoryview
    return isinstance(source, kinds) or hasattr(source, "__fspath__") or hasattr(source, "read")


def _is_tensor(source: Source) -> bool:
    return type(source).__module__.partition(".")[0] == "torch" and hasattr(source, "detach")


def _begin(file: IO[bytes], name: str, limit: int | None) -> Image.Image:
    """Read the header, and bound what decoding may take."""
    head = file.read(64)
    file.seek(0)
    check_directory(file, head, name)
    picture = _reading(name, lambda: _open(file), head)
    check_pixels(picture.size, name, limit)
    check_pixels(tile_size(picture), f"a tile of {name}", limit)
    codec = picture.tile[0][0] if getattr(picture, "tile", None) else ""
    if codec in ("ppm", "ppm_plain") and picture.width * picture.height > _SLOW:
        raise UserError(
            f"{name} is too large for a PPM of its kind ({picture.width}×{picture.height}); save "
            "it as PNG."
        )
    return picture


def _open(file: IO[bytes]) -> Image.Image:
    # Pillow's own limit is one for the process; ours is asked right after the header
    with _lock:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _reading(name: str, read: Callable[[], Any], head: bytes = b"") -> Any:
    """What `read` gives; whatever Pillow raises for a bad file as one sentence."""
    try:
        return read()
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"{name} cannot be read as a picture: it is {kind_of(head)}; pictures are "
            f"{', '.join(FORMATS)}."
        ) from error
    except MemoryError as error:
        raise UserError(
            f"{name} is too large: it does not fit into memory; make it smaller."
        ) from error
    except Exception as error:  # Pillow raises many kinds
        # of the storage, not of the picture
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{name} cannot be read ({error.strerror or error}).") from error
        if "too large" in str(error) or "MAX_TEXT" in str(error):
            raise UserError(
                f"{name} carries more text or colour profiles than are read ({error}); save it "
                "without them."
            ) from error
        raise UserError(
            f"{name} cannot be read as a picture: it is damaged or cut short ({_words(error)})."
        ) from error


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text.rstrip(".") or type(error).__name__


def _decode(picture: Image.Image, name: str, note: Note) -> Loaded:
    raw, white_zero = _raw_mode(picture), is_white_zero(picture)
    several = _reading(name, lambda: bool(getattr(picture, "is_animated", False)))
    turn = _reading(name, lambda: _loaded(picture))
    # a plain picture, which knows of no file, frames or camera
    image = picture.transpose(turn) if turn is not None else picture.copy()
    for key in ORIENTATION_KEYS if turn is not None else ():
        image.info.pop(key, None)  # else it would be turned once more by whoever looks there
    message = _FRAMES.get(picture.format or "", "is an animation: its first frame is used")
    if several and message:
        note(name, message)
    bits = _bits(picture.mode, raw, picture.format)
    return Loaded(
        image, name, bits, "32N" not in raw, white_zero and picture.mode[0] in "IF", picture.format
    )


def _loaded(picture: Image.Image) -> Image.Transpose | None:
    """Decode; says how it is to be turned."""
    picture.load()
    return TURNS.get(orientation(picture))


def _of_pil(picture: Image.Image, name: str, limit: int | None, note: Note) -> Loaded:
    """A picture in memory is taken as it is; one that PIL has only opened is read like its file."""
    if not picture.format:
        # it takes its memory already
        check = max(max_pixels(limit), picture.width * picture.height)
        check_pixels(picture.size, name, check)
        _reading(name, picture.load)  # it may be closed
        return Loaded(picture, name, _bits(picture.mode, picture.mode, None))
    if picture.format not in (*FORMATS, "MPO", "DIB"):
        raise UserError(f"{name} is a {picture.format} file; pictures are {', '.join(FORMATS)}.")
    check_pixels(picture.size, name, limit)
    return _decode(picture, name, note)


def _raw_mode(picture: Image.Image) -> str:
    """How samples lie in the file, as Pillow names it: "L;4", "I;16B", "RGB;16L"."""
    tiles = getattr(picture, "tile", None)
    if not tiles:
        return picture.mode
    args = tiles[0][3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else picture.mode


def _bits(mode: str, raw: str, format: str | None) -> int:
    match = re.search(r";(\d+)", raw)
    if mode == "1":
        return 1
    if mode == "F" or (mode == "I" and "S" in raw):
        return 0
    if mode == "I":
        return 16 if format == "PPM" or (match and int(match[1]) == 16) else 0
    if match:
        return int(match[1])
    return 16 if mode.startswith("I;16") else 8
