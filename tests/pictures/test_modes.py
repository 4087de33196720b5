"""Every mode and depth that the allowed formats hold is read at its full range."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.pictures.writing import grey_tiff, png
from zeroconv.conditions import CONDITIONS, open_hint
from zeroconv.pictures import open_mask, open_picture, picture_size, to_numbers


def ramp(levels: int, size: int = 64) -> np.ndarray:
    """(H, W) numbers from 0 to levels − 1."""
    return np.rint(np.linspace(0, levels - 1, size * size)).astype(np.int64).reshape(size, size)


def quiet(read, *args):
    """What is read, and the notes."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        return read(*args), [str(note.message) for note in notes]


def share(picture: Image.Image) -> np.ndarray:
    """Red, in [0, 1]."""
    return np.asarray(picture.convert("RGB"))[..., 0] / 255


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY_FILES = {
    **{
        f"PNG of {bits} bits": lambda bits=bits: png(ramp(1 << bits), bits, 0)
        for bits in (1, 2, 4, 8, 16)
    },
    "PNG, grey and alpha of 8 bits": lambda: png(np.dstack([ramp(256), ramp(1) + 255]), 8, 4),
    "PNG, grey and alpha of 16 bits": lambda: png(np.dstack([ramp(65536), ramp(1) + 65535]), 16, 4),
    "PNG, colours of 16 bits": lambda: png(np.dstack([ramp(65536)] * 3), 16, 2),
    "PNG, colours and alpha of 16 bits": lambda: png(
        np.dstack([ramp(65536)] * 3 + [ramp(1) + 65535]), 16, 6
    ),
    "TIFF of 16 bits, little end first": lambda: grey_tiff(ramp(65536).astype(np.uint16), 16),
    "TIFF of 16 bits, big end first": lambda: grey_tiff(
        ramp(65536).astype(np.uint16), 16, order=">"
    ),
    "TIFF of floats": lambda: grey_tiff((ramp(65536) / 65535).astype(np.float32), 32, 3),
    "TIFF of floats, big end first": lambda: grey_tiff(
        (ramp(65536) / 65535).astype(np.float32), 32, 3, order=">"
    ),
    "TIFF of floats to 255": lambda: grey_tiff((ramp(65536) / 257).astype(np.float32), 32, 3),
    "TIFF of 32 bits": lambda: grey_tiff((ramp(65536) * 65536).astype(np.uint32), 32),
    "TIFF of 32 bits with 16-bit numbers": lambda: grey_tiff(ramp(65536).astype(np.uint32), 32),
    "TIFF of 32 signed bits": lambda: grey_tiff(
        (ramp(65536) * 1000 - 9000).astype(np.int32), 32, 2
    ),
    "TIFF of 16 signed bits": lambda: grey_tiff((ramp(65536) - 32768).astype(np.int16), 16, 2),
    "TIFF of 16 bits, white is zero": lambda: grey_tiff(
        (65535 - ramp(65536)).astype(np.uint16), 16, 1, 0
    ),
    "TIFF of 8 bits, white is zero": lambda: grey_tiff((255 - ramp(256)).astype(np.uint8), 8, 1, 0),
    "PGM of 16 bits": lambda: saved(Image.fromarray(ramp(65536).astype(np.uint16)), "PPM"),
    "PGM of 10 bits": lambda: b"P5 64 64 1023\n" + ramp(1024).astype(">u2").tobytes(),
    "PFM": lambda: saved(Image.fromarray((ramp(65536) / 65535).astype(np.float32)), "PPM"),
    "JPEG": lambda: saved(Image.fromarray(ramp(256).astype(np.uint8)), "JPEG", quality=100),
    "WebP": lambda: saved(Image.fromarray(ramp(256).astype(np.uint8)), "WEBP", lossless=True),
    "AVIF": lambda: saved(Image.fromarray(ramp(256).astype(np.uint8)), "AVIF", quality=100),
    "GIF": lambda: saved(Image.fromarray(ramp(256).astype(np.uint8)), "GIF"),
    "BMP": lambda: saved(Image.fromarray(ramp(256).astype(np.uint8)), "BMP"),
}
DEEP = [
    name
    for name in GREY_FILES
    if "16 bits" in name and "alpha" not in name and "colours" not in name
]
DEEP += ["TIFF of floats", "PFM"]


@pytest.mark.parametrize("name", GREY_FILES)
def test_pictures_of_every_depth_have_their_full_range(name: str) -> None:
    content = GREY_FILES[name]()
    truth = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    if name == "PNG of 1 bits":
        truth = np.rint(truth)
    steps = {"PNG of 1 bits": 1, "PNG of 2 bits": 3, "PNG of 4 bits": 15}.get(name, 255)
    near = 0.51 / steps + (0.02 if name in ("JPEG", "AVIF") else 1 / 255)
    for read in (
        open_picture,
        open_mask,
        lambda c: open_hint(c, "canny"),
        lambda c: open_hint(c, "tile"),
    ):
        picture, _ = quiet(read, content)
        numbers = to_numbers(picture)[0] if picture.mode == "I;16" else share(picture)
        assert np.abs(numbers - truth).max() < near, read
        assert numbers.min() == 0 and numbers.max() == 1
    assert picture_size(content) == (64, 64)


@pytest.mark.parametrize("name", DEEP)
def test_a_depth_hint_keeps_16_bits(name: str) -> None:
    hint, notes = quiet(open_hint, GREY_FILES[name](), "depth")
    numbers = to_numbers(hint)
    assert numbers.shape == (3, 64, 64) and numbers.dtype == np.float32 and not notes
    assert len(np.unique(numbers)) == 64 * 64
    assert np.abs(numbers - np.linspace(0, 1, 64 * 64).reshape(64, 64)).max() < 1e-4


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
]
MODES += ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"]


def of_mode(mode: str, rgb: np.ndarray) -> Image.Image:
    """A PIL picture (H, W) of any mode that shows `rgb` (H, W, 3), grey where it has no colours."""
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    size = (rgb.shape[1], rgb.shape[0])
    if mode.startswith("I;16"):
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, size, (grey.astype(np.uint16) * 257).astype(order).tobytes())
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32))
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(
            Image.fromarray(rgb), ImageCms.buildTransform(*profiles, "RGB", "LAB")
        )
    way = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    image = Image.fromarray(rgb)
    return image.convert(way).convert(mode) if way else image.convert(mode)


COLOURED = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    role=st.sampled_from(["picture", "mask", None, *CONDITIONS]),
    seed=st.integers(0, 9),
)
def test_pictures_of_every_mode_keep_what_they_show(mode, size, role, seed) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    if role == "segmentation":  # a few classes
        rgb = np.repeat((rgb[..., :1] // 128 * 120), 3, -1).astype(np.uint8)
    image = of_mode(mode, rgb)
    if role == "segmentation" and mode not in ("L", "RGB", "RGBA"):
        return
    read = {"picture": open_picture, "mask": open_mask}.get(
        role, lambda source: open_hint(source, role)
    )
    picture, _ = quiet(read, image)
    assert picture.size == image.size
    assert picture.mode in {"picture": ("RGB",), "mask": ("L",)}.get(role, ("RGB", "RGBA", "I;16"))
    if role != "picture":
        return
    grey = np.repeat(np.asarray(Image.fromarray(rgb).convert("L"))[..., None], 3, -1)
    wanted = rgb if mode in COLOURED else grey
    if mode not in ("1", "P", "PA"):  # those are dithered
        near = {"HSV": 8, "YCbCr": 4, "LAB": 40}.get(mode, 0)  # what 8 bits of them tell
        assert np.abs(np.asarray(picture).astype(int) - wanted).max() <= near


def test_colours_of_a_cmyk_jpeg_are_not_turned_round() -> None:
    rgb = np.full((32, 32, 3), (200, 40, 90), np.uint8)
    content = saved(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(np.asarray(open_picture(content)).astype(int) - rgb).max() < 6


def test_16_bit_numbers_of_8_bits_are_8_bit_levels() -> None:
    content = png(ramp(256), 16, 0)
    picture, notes = quiet(open_picture, content)
    assert np.asarray(picture).max() == 255 and "up to 255 in 16 bits" in notes[0]


@pytest.mark.parametrize("most", [1000, 4095, 10_000])
def test_depth_of_fewer_bits_is_brought_to_its_range(most: int) -> None:
    content = png(ramp(most + 1), 16, 0)
    hint, notes = quiet(open_hint, content, "depth")
    assert to_numbers(hint).max() == 1 and f"up to {most} of 65535" in notes[0]
    hint, notes = quiet(open_hint, content, "softedge")  # elsewhere numbers mean what they say
    assert abs(to_numbers(hint).max() - most / 65535) < 1e-4 and "is dark" in notes[0]


def test_metres_become_a_range_and_what_is_no_number_the_farthest() -> None:
    numbers = np.linspace(0.5, 80, 64 * 64).astype(np.float32).reshape(64, 64)
    numbers[0, 0], numbers[0, 1] = np.nan, np.inf
    hint, notes = quiet(open_hint, grey_tiff(numbers, 32, 3), "depth")
    depths = to_numbers(hint)[0]
    assert (
        depths.min() == 0 and depths.max() == 1 and (depths[0, :2] == depths[0, 2:].min()).all()
    ) or depths[0, 0] == 0
    assert any("2 numbers that are NaN" in note for note in notes) and any(
        "larger is nearer" in n for n in notes
    )


def test_zeros_and_ones_are_off_and_on() -> None:
    content = saved(Image.fromarray((ramp(256) > 128).astype(np.uint8)), "PNG")
    for read in (open_mask, lambda c: open_hint(c, "canny")):
        picture, notes = quiet(read, content)
        assert np.asarray(picture).max() == 255 and "1 is taken as white" in notes[0]


def test_a_nearly_black_hint_is_noted() -> None:
    _, notes = quiet(open_hint, saved(Image.fromarray((ramp(7)).astype(np.uint8)), "PNG"), "canny")
    assert "nearly black" in notes[0]
