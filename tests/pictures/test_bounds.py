"""What a file may do to whoever opens it: nothing. One sentence says what is wrong, and how to go
on.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures.test_modes import quiet, saved
from tests.pictures.writing import bomb, chunk, grey_tiff, png, tiff
from zeroconv.conditions import open_hint
from zeroconv.errors import UserError
from zeroconv.pictures import FORMATS, PICTURE_SUFFIXES, load, open_mask, open_picture, picture_size

SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8))
FILES = {kind: saved(SMALL, kind) for kind in FORMATS}


def attempt(read, *args) -> None:
    """A picture or one sentence."""
    message = ""
    try:
        quiet(read, *args)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    "kind", ["EPS", "PDF", "PSD", "ICO", "TGA", "JPEG2000", "SGI", "PCX", "DDS", "ICNS", "SVG"]
)
def test_other_formats_are_not_opened(tmp_path: Path, kind: str, monkeypatch) -> None:
    def run(*args, **options):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", run)
    path = tmp_path / "a.png"
    if kind == "PSD":
        path.write_bytes(
            b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(100)
        )
    elif kind == "SVG":
        path.write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    else:
        image = SMALL.resize((128, 128)) if kind == "ICNS" else SMALL
        path.write_bytes(saved(image, kind))
    for read in (open_picture, open_mask, open_hint, picture_size):
        with pytest.raises(UserError, match=r"cannot be read as a picture.*PNG, JPEG") as caught:
            read(*(path, None) if read is open_hint else (path,))
        assert "\n" not in str(caught.value)
    if kind == "EPS":
        assert "EPS" in str(caught.value)
        with pytest.raises(UserError, match="EPS"):
            open_picture(Image.open(path))


@pytest.mark.parametrize("kind", FORMATS)
def test_suffixes_are_of_the_formats(kind: str) -> None:
    Image.init()
    assert {
        suffix for suffix, known in Image.registered_extensions().items() if known == kind
    } <= PICTURE_SUFFIXES
    assert open_picture(FILES[kind]).size == SMALL.size


# ---------------------------------------------------------------- size


def test_too_many_pixels_are_refused_before_decoding(monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "load", None)
    for width, height in ((20_000, 20_000), (1, 64_000_001), (1_000_000, 1_000_000)):
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for read in (open_picture, picture_size, load):
                with pytest.raises(
                    UserError, match=rf"too large.*ZEROCONV_MAX_PIXELS={width * height}"
                ) as caught:
                    read(bomb(width, height), "a.png")
        assert "damaged" not in str(caught.value) and time.perf_counter() - began < 10


@pytest.mark.parametrize("kind", FORMATS)
def test_the_limit_holds_for_every_format_and_can_be_raised(kind: str, monkeypatch) -> None:
    monkeypatch.setenv("ZEROCONV_MAX_PIXELS", str(24 * 32 - 1))
    with pytest.raises(UserError, match="32×24 pixels, and 767 are allowed"):
        open_picture(FILES[kind])
    with pytest.raises(UserError, match="too large"):
        open_picture(Image.open(io.BytesIO(FILES[kind])))
    assert open_picture(FILES[kind], max_pixels=24 * 32).size == (32, 24)
    monkeypatch.setenv("ZEROCONV_MAX_PIXELS", str(24 * 32))
    assert open_picture(FILES[kind]).size == (32, 24)


def test_arrays_have_the_same_limit() -> None:
    with pytest.raises(UserError, match="too large"):
        open_picture(np.zeros((9000, 9000), np.uint8))


@pytest.mark.parametrize("text", ["many", "-3", "0", "1e9", "9" * 5000, "٣"])
def test_picture_limit_that_is_none_is_refused(text: str, monkeypatch) -> None:
    monkeypatch.setenv("ZEROCONV_MAX_PIXELS", text)
    with pytest.raises(UserError, match="number of pixels"):
        open_picture(FILES["PNG"])


def test_pictures_above_pillows_limit_are_read_where_that_is_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = open_picture(FILES["PNG"])
        assert picture.crop((0, 0, 31, 24)).size == (31, 24)


# ---------------------------------------------------------------- memory


def many_entries() -> bytes:
    """A TIFF of 3,000 entries that all name the same megabyte: 3 GB, were they kept."""
    entries = [(1000 + i, 1, 1 << 20, 8) for i in range(3000)]
    return tiff([(256, 4, 1, 4), (257, 4, 1, 4), *entries], bytes(1 << 20))


def pages(count: int) -> bytes:
    buffer = io.BytesIO()
    SMALL.save(buffer, "TIFF", save_all=True, append_images=[SMALL] * (count - 1))
    return buffer.getvalue()


def packed(name: str, content: bytes) -> bytes:
    text = zlib.compress(bytes(300 << 20), 9)
    return png(np.zeros((4, 4)), 8, 0, **{name: content + text})


def huge_tile() -> bytes:
    page = [
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
    ]
    return tiff(
        [*page, (322, 4, 1, 65520), (323, 4, 1, 65520), (324, 4, 1, 8), (325, 4, 1, 64)], bytes(64)
    )


HEAVY = {
    "a TIFF of many entries": many_entries,
    "a TIFF of a huge tile": huge_tile,
    "a TIFF of many pages": lambda: pages(500),
    "text that unpacks": lambda: packed("zTXt", b"a\x00\x00"),
    "a profile that unpacks": lambda: packed("iCCP", b"a\x00\x00"),
    "international text that unpacks": lambda: packed("iTXt", b"a\x00\x01\x00\x00\x00"),
    "EXIF of many entries": lambda: png(
        np.zeros((4, 4)), 8, 0,
        eXIf=b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 60000)
        + b"".join(struct.pack("<HHII", i, 1, 1 << 20, 8) for i in range(60000)) + bytes(1 << 20),
    ),
    "a GIF of many frames": lambda: saved(
        SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(i) for i in range(300)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_what_unpacks_takes_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEAVY[name]())
    code = (
        "import resource, sys\n"
        "from zeroconv.pictures import open_picture, picture_size\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for read in (picture_size, open_picture):\n"
        "    try: read(sys.argv[1])\n"
        "    except ValueError as error: print(type(error).__name__, error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    *messages, megabytes = ran.stdout.splitlines()
    assert int(megabytes) < 100, ran.stdout
    assert all(line.startswith("UserError") for line in messages)


def test_a_slow_ppm_is_refused() -> None:
    with pytest.raises(UserError, match="PPM"):
        open_picture(b"P6 3000 3000 100\n" + bytes(100))
    assert np.asarray(open_picture(b"P2 2 2 100\n0 50 100 25 ")).max() == 255


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_one_sentence(kind: str) -> None:
    content = FILES[kind]
    for length in sorted({0, 1, 4, 12, 30, *range(0, len(content), max(1, len(content) // 40))}):
        for read in (open_picture, picture_size):
            attempt(read, content[:length], "a.png")


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_are_one_sentence_or_a_picture(kind, changes) -> None:
    content = bytearray(FILES[kind])
    for offset, value in changes:
        content[offset % len(content)] = value
    for read in (
        open_picture,
        open_mask,
        lambda c: open_hint(c, "depth"),
        lambda c: open_hint(c, "seg"),
        picture_size,
    ):
        attempt(read, bytes(content))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(
        [
            b"tRNS",
            b"PLTE",
            b"eXIf",
            b"iCCP",
            b"zTXt",
            b"tEXt",
            b"iTXt",
            b"gAMA",
            b"acTL",
            b"cHRM",
            b"pHYs",
        ]
    ),
    content=st.binary(max_size=60),
    bits=st.sampled_from(
        [
            (1, 0),
            (4, 0),
            (8, 0),
            (16, 0),
            (8, 2),
            (16, 2),
            (2, 3),
            (8, 3),
            (8, 4),
            (16, 4),
            (8, 6),
            (16, 6),
        ]
    ),
)
def test_pngs_with_bad_chunks_and_right_checksums(name, content, bits) -> None:
    depth, colour = bits
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    numbers = np.random.default_rng(1).integers(0, 1 << depth, (5, 7, channels))
    file = png(numbers, depth, colour, **{name.decode(): content})
    for read in (
        open_picture,
        open_mask,
        lambda c: open_hint(c, "canny"),
        lambda c: open_hint(c, "seg"),
        picture_size,
    ):
        attempt(read, file)


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    sentences = {
        "pipe.png": "pipe or a device", "zero.png": "pipe or a device", "nowhere.png": "is missing",
        "loop.png": "cannot be read", "folder.png": "is a folder", "empty.png": "empty file",
        "a" * 300: "cannot be read", "\0.png": "no name",
    }  # fmt: skip
    for name, sentence in sentences.items():
        for read in (open_picture, picture_size, open_mask):
            with pytest.raises(UserError, match=sentence) as caught:
                read(f"{tmp_path}/{name}")
            assert ("no name" in str(caught.value)) is ("\0" in name)


def test_files_of_another_kind_are_named() -> None:
    for content, kind in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"<!doctype html><html>", "HTML"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(20), "HEIC"),
        (bytes(100), "zeros"),
        (grey_tiff(np.zeros((4, 4), np.float64), 64, 3), "TIFF file that is damaged, or of a kind"),
        (b"hello", "no picture"),
    ):
        with pytest.raises(UserError, match=kind):
            open_picture(content)


# ---------------------------------------------------------------- frames and orientation


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GIF", "animation"),
        ("WEBP", "animation"),
        ("PNG", "animation"),
        ("AVIF", "animation"),
        ("TIFF", "pages"),
    ],
)
def test_the_first_frame_is_taken_and_that_is_noted(kind: str, message: str) -> None:
    frames = [
        Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))
    ]
    options = {"quality": 100} if kind == "AVIF" else {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    for source in (content, Image.open(io.BytesIO(content))):
        picture, notes = quiet(open_picture, source)
        assert np.abs(np.asarray(picture).astype(int)[8, 8] - (250, 0, 0)).max() < 12
        assert len(notes) == 1 and message in notes[0] and "first" in notes[0]
    assert not quiet(open_picture, saved(frames[0], kind))[1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_cameras_that_were_turned(kind: str, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.zeros((24, 40, 3), np.uint8)
    corner[:8, :16] = 255
    options = {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    content = saved(Image.fromarray(corner), kind, exif=exif, **options)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    for source in (content, Image.open(io.BytesIO(content))):
        picture = open_picture(source)
        assert (
            picture.size
            == wanted.size
            == picture_size(content)
            == ((24, 40) if orientation > 4 else (40, 24))
        )
        assert np.array_equal(np.asarray(picture), np.asarray(wanted.convert("RGB")))


def test_exif_behind_the_pixels_of_a_png_is_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png(np.zeros((4, 9)), 8, 0)
    late = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    assert open_picture(late).size == picture_size(late) == (4, 9)


@given(st.binary(max_size=200))
def test_any_exif_is_read_or_passed_over(content: bytes) -> None:
    from zeroconv.pictures.orientation import of_exif

    assert of_exif(b"II*\x00\x08\x00\x00\x00" + content) in (None, *range(1, 9))
    assert of_exif(b"MM" + content) in (None, *range(1, 9))


def test_memory_of_a_large_picture_is_bounded() -> None:
    """The largest allowed one takes about 1 GB."""
    code = (
        "import resource, io, numpy as np\n"
        "from PIL import Image\n"
        "from zeroconv.pictures import open_picture\n"
        "buffer = io.BytesIO(); Image.new('RGBA', (4000, 4000)).save(buffer, 'PNG')\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "open_picture(buffer.getvalue())\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024 / 16e6)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert float(ran.stdout) < 20, ran.stdout + ran.stderr


def test_jpegs_of_many_scans_are_refused_before_they_are_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    assert load(content).size == (2000, 2000)
    begin = content.rindex(b"\xff\xda")
    scan = content[begin:-2]
    assert len(scan) < 60
    slow = content[:-2] + scan * 100_000 + content[-2:]  # hours of decoding
    began = time.monotonic()
    with pytest.raises(UserError, match="scans, and 100 are read"):
        load(slow)
    assert time.monotonic() - began < 5
