"""Where a picture comes from, opened as a file object; which formats and how many pixels are
allowed."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from PIL import Image

from zeroconv.errors import UserError

# what Pillow may try; others are not opened, for some of them run programs (EPS: Ghostscript)
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
PICTURE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .webp .avif .avifs .gif .bmp .dib .tif .tiff .ppm "
    ".pgm .pbm .pnm .pfm".split()
)

MAX_PIXELS = 64_000_000  # 0.2 GB as RGB; a picture's copies take about four times that
VARIABLE = "ZEROCONV_MAX_PIXELS"

# a path, bytes, a binary file, a PIL picture, a numpy array, a torch tensor, or `Loaded`
Source = Any
ACCEPTED = "a path, bytes, an open binary file, a PIL picture, a numpy array or a torch tensor"

_BYTES_A_PIXEL = 8  # RGBA of 16 bits: a whole file that is read into memory is no larger

# other kinds, by how their files begin
_OTHERS = (
    (b"%!PS", "an EPS file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"%PDF", "a PDF file"),
    (b"8BPS", "a Photoshop file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file, perhaps an SVG drawing"),
    (b"<!DOCTYPE html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself (git lfs pull brings it)"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file"),
    (b"\x93NUMPY", "a numpy array (np.load reads it)"),
)
# allowed formats likewise, for files of which Pillow knows no more
_OURS = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"mp42": "MP4",
    b"isom": "MP4",
}


def max_pixels(given: int | None = None) -> int:
    """The most pixels a picture may have: `given`, else ZEROCONV_MAX_PIXELS, else `MAX_PIXELS`.

    Raises UserError where it is no positive number.
    """
    text = str(given) if given is not None else os.environ.get(VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) < 1:
        raise UserError(
            f"{VARIABLE} is {text[:40]!r}; give a number of pixels, for example 200000000."
        )
    return int(text)


def check_pixels(size: tuple[int, int], name: str, limit: int | None) -> None:
    """Raises UserError for a picture of more pixels than are allowed, and for one without any."""
    allowed, (width, height) = max_pixels(limit), size
    if width < 1 or height < 1:
        raise UserError(f"{name} is {width}×{height} pixels: it is empty.")
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < width * height <= allowed:
        Image.MAX_IMAGE_PIXELS = width * height  # else Pillow would refuse to crop it
    if width * height > allowed:
        raise UserError(
            f"{name} is too large: {width}×{height} pixels, and {allowed} are allowed; make it "
            f"smaller, or set {VARIABLE}={width * height} and have about "
            f"{width * height * 16 >> 30 or 1} GB of free memory."
        )


@contextmanager
def opened(source: Any, name: str, limit: int | None) -> Iterator[IO[bytes]]:
    """A path, bytes or a binary file as a binary file that can seek, at its beginning. Raises
    UserError."""
    if isinstance(source, str | os.PathLike):
        with _open_path(Path(source), name) as file:
            _check_length(file, name, limit)
            yield file
        return

    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
        return

    file = _seekable(source, name, limit)
    _check_length(file, name, limit)
    yield file


def _open_path(path: Path, name: str) -> IO[bytes]:
    """Only a regular file: a pipe or a device may never end."""
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise UserError(f"{name} is a folder; name a picture in it.")
        if not stat.S_ISREG(kind):
            raise UserError(
                f"{name} is a pipe or a device, not a file; save the picture as a file."
            )
        return open(path, "rb")
    except UserError:  # which is a ValueError too
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name} is missing: there is no picture at {path}.") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{name!r} is no name of a file ({error}).") from error


def _seekable(source: Any, name: str, limit: int | None) -> IO[bytes]:
    try:
        if source.seekable():
            source.seek(0)
            if isinstance(source.read(0), bytes):
                return source
        most = _BYTES_A_PIXEL * max_pixels(limit)
        content = source.read(most + 1)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{name} is no binary file; open it with mode 'rb'.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read ({error}).") from error
    if not isinstance(content, bytes):
        raise UserError(f"{name} is no binary file; open it with mode 'rb'.")
    if len(content) > most:
        raise UserError(
            f"{name} gives more than {most} bytes; set {VARIABLE} higher for larger pictures."
        )
    return io.BytesIO(content)


def _check_length(file: IO[bytes], name: str, limit: int | None) -> None:
    """WebP and AVIF are read into memory as a whole before their size is known."""
    try:
        head = file.read(16)
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read ({error}).") from error
    most = _BYTES_A_PIXEL * max_pixels(limit)
    if length > most and (head[8:12] == b"WEBP" or head[4:8] == b"ftyp"):
        raise UserError(
            f"{name} is too large: {length} bytes, and {most} are allowed; set {VARIABLE} higher."
        )


def kind_of(head: bytes) -> str:
    """What a file is that Pillow does not know, by its first bytes."""
    if not head.strip(b"\x00"):
        return "an empty file" if not head else "a file of zeros"
    for mark, kind in _OURS:
        if head.startswith(mark):
            return f"a {kind} file that is damaged, or of a kind that is not read"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return f"a {_BRANDS[head[8:12]]} file"
    for mark, kind in _OTHERS:
        if head.lstrip()[: len(mark)].lower() == mark.lower():
            return kind
    return "no picture, or damaged"
