"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Literal

from zeroconv.errors import UserError

Format = Literal["safetensors", "zip", "pickle", "unknown"]

HEAD = 1024  # bytes that are looked at
LONGEST_HEADER = 100_000_000  # bytes of JSON: the limit of the safetensors library
# bytes of names and shapes in a torch archive; the tensors lie beside it
LONGEST_PICKLE = 64 * 2**20

AGAIN = "download the weights themselves"
UNPACK = "unpack it and give the weights file in it"

# first bytes → what such a file is, and what to do
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which only names the weights",
        "run `git lfs pull`, or " + AGAIN,
    ),
    (
        b"/annex/objects/",
        "a git-annex pointer, which only names the weights",
        "run `git annex get`, or " + AGAIN,
    ),
    (
        b"GGUF",
        "a GGUF file (quantised weights)",
        "zeroconv does not read GGUF; give the .safetensors file",
    ),
    (
        b"ggml",
        "a GGML file (quantised weights)",
        "zeroconv does not read GGML; give the .safetensors file",
    ),
    (
        b"lmgg",
        "a GGML file (quantised weights)",
        "zeroconv does not read GGML; give the .safetensors file",
    ),
    (
        b"tjgg",
        "a GGML file (quantised weights)",
        "zeroconv does not read GGML; give the .safetensors file",
    ),
    (b"\x89PNG", "a PNG picture", AGAIN),
    (b"\xff\xd8\xff", "a JPEG picture", AGAIN),
    (b"GIF8", "a GIF picture", AGAIN),
    (b"RIFF", "a WebP picture or another RIFF file", AGAIN),
    (b"%PDF", "a PDF document", AGAIN),
    (b"\x89HDF", "an HDF5 file", "convert it to .safetensors first"),
    (b"\x93NUMPY", "a NumPy array", "convert it to .safetensors first"),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"\xfd7zXZ", "an xz archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (b"\x7fELF", "a program", AGAIN),
    (b"MZ", "a program", AGAIN),
)


def check_weights_file(path: Path) -> Format:
    """The format that the content has; the name's suffix decides nothing.

    Raises UserError that says what the file is where it is known to be no weights: empty, an HTML
    page, a pointer of Git LFS, GGUF, a picture, an archive, text.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    size = path.stat().st_size
    if kind := _foreign(head):
        what, remedy = kind
        raise UserError(f"{path} is {what}, not weights; {remedy}.")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[8:9] == b"{" and 0 < struct.unpack("<Q", head[:8])[0] <= min(size - 8, LONGEST_HEADER):
        return "safetensors"
    return "pickle" if head[0] == 0x80 else "unknown"


def foreign(path: Path) -> str | None:
    """What a file is that is known to be no weights, such as "an HTML page"; None for any other."""
    with open(path, "rb") as file:
        kind = _foreign(file.read(HEAD))
    return kind[0] if kind else None


def _foreign(head: bytes) -> tuple[str, str] | None:
    if not head:
        return "an empty file", "download it again"
    for start, what, remedy in _SIGNATURES:
        if head.startswith(start):
            return what, remedy
    if head[257:262] == b"ustar":
        return "a tar archive", UNPACK
    if not head.strip(b"\0"):
        return "a file of zeros, as an unfinished download leaves it", "download it again"
    return _text(head)


def _text(head: bytes) -> tuple[str, str] | None:
    words = head.removeprefix(b"\xef\xbb\xbf").strip().lower()
    if words.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")):
        return "an HTML page", "the address gave a page instead of the file: " + AGAIN
    if words.startswith(b"<?xml"):
        return "an XML page, such as a server's error", AGAIN
    if (
        b"\0" in head
        or sum(byte < 9 or 13 < byte < 32 or byte > 126 for byte in head) > len(head) // 20
    ):
        return None
    if words.startswith((b"{", b"[")):
        return "a JSON text", AGAIN
    return "a text file", AGAIN


def check_torch_zip(path: Path) -> None:
    """Raise UserError unless a zip file is a torch archive that unpacks to no more than its own
    size.

    Only the list of entries is read. torch.save compresses nothing, so an entry that is compressed,
    or entries that together are larger than the file, were not written by it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); download it again.") from error
    names = [entry.filename for entry in entries]
    pickled = next(
        (
            entry
            for entry in entries
            if entry.filename.count("/") == 1 and _is_table(entry.filename)
        ),
        None,
    )
    if pickled is None:
        first = f", the first {names[0][:80]!r}" if names else ""
        raise UserError(
            f"{path} is a zip archive of {len(names)} other files{first}, not weights; {UNPACK}."
        )
    root = pickled.filename.split("/")[0]
    if f"{root}/constants.pkl" in names or any(name.startswith(f"{root}/code/") for name in names):
        raise UserError(
            f"{path} is a TorchScript program, not weights, and such a file could do anything when "
            "run; give its weights as .safetensors."
        )
    total = sum(entry.file_size for entry in entries)
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or total > path.stat().st_size or pickled.file_size > LONGEST_PICKLE:
        raise UserError(
            f"{path} unpacks to {total:,} bytes of {path.stat().st_size:,}, which no checkpoint of "
            "torch does, so it is refused; ask for a .safetensors file."
        )


def _is_table(name: str) -> bool:
    return name.endswith("/data.pkl")
