"""Paths, bytes, files, PIL pictures, arrays and tensors are accepted wherever a picture is; others
are refused.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from PIL import Image

import zeroconv
from tests.pictures.test_modes import quiet, saved
from zeroconv import annotators
from zeroconv.conditions import CONDITIONS, annotate, open_hint
from zeroconv.errors import UserError
from zeroconv.generation.hints import hint_size, hint_tensor, mask_tensor
from zeroconv.pictures import open_mask, open_picture, picture_size

RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)


def sources(path: Path) -> dict[str, object]:
    image = Image.fromarray(RGB)
    image.save(path)
    share = (RGB / 255).astype(np.float32)
    return {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "memoryview": memoryview(path.read_bytes()),
        "file object": io.BytesIO(path.read_bytes()),
        "PIL": image,
        "opened by PIL": Image.open(path),
        "array": RGB,
        "array, not contiguous": np.asfortranarray(RGB),
        "array of 16 bits": RGB.astype(np.uint16) * 257,
        "array of 16 bits, big end first": (RGB.astype(np.uint16) * 257).astype(">u2"),
        "array of floats": share,
        "array of doubles": share.astype(np.float64),
        "array with alpha": np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]),
        "tensor": torch.from_numpy(RGB).permute(2, 0, 1),
        "tensor of floats": torch.from_numpy(share).permute(2, 0, 1),
    }


KINDS = [
    "path",
    "text",
    "bytes",
    "bytearray",
    "memoryview",
    "file object",
    "PIL",
    "opened by PIL",
    "array",
    "array, not contiguous",
    "array of 16 bits",
    "array of 16 bits, big end first",
    "array of floats",
    "array of doubles",
    "array with alpha",
    "tensor",
    "tensor of floats",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_picture(kind: str, tmp_path: Path) -> None:
    def source() -> object:
        return sources(tmp_path / "a.png")[kind]

    assert np.array_equal(np.asarray(open_picture(source())), RGB)
    assert picture_size(source()) == hint_size(source()) == (56, 40)
    wanted = np.asarray(annotate("canny", Image.fromarray(RGB)))
    assert np.array_equal(np.asarray(annotate("canny", source())), wanted)
    assert np.array_equal(np.asarray(annotators.annotate("canny", source())), wanted)
    hint = hint_tensor(source(), (56, 40), "tile")
    assert (
        hint.shape == (3, 40, 56)
        and np.abs(hint.numpy() - RGB.transpose(2, 0, 1) / 255).max() < 1e-6
    )
    if kind != "tensor of floats":  # a mask of floats is (H, W)
        mask = mask_tensor(source(), (56, 40))
        assert np.abs(mask[0, 0].numpy() * 255 - np.asarray(open_mask(source()))).max() < 0.01


@pytest.mark.parametrize(
    "array",
    [
        np.eye(8, dtype=bool),
        np.eye(8, dtype=np.uint8) * 255,
        np.eye(8, dtype=np.uint16) * 65535,
        np.eye(8),
        np.eye(8, dtype=np.float16),
        np.eye(8, dtype=np.float32)[..., None],
        torch.eye(8),
        torch.eye(8)[None],
        torch.eye(8, dtype=torch.bfloat16),
        torch.eye(8, dtype=torch.bool),
        np.eye(8, dtype=np.uint8),
    ],
)
def test_grey_arrays_are_hints_and_masks(array) -> None:
    hint, _ = quiet(open_hint, array, "canny")
    assert np.array_equal(hint_tensor(hint, (8, 8), "canny").numpy(), [np.eye(8)] * 3)
    assert np.array_equal(np.asarray(quiet(open_mask, array)[0]), np.eye(8) * 255)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "NoneType"),
        (3, "int"),
        (["a.png"], "list"),
        (object(), "object"),
        (io.StringIO("text"), "mode 'rb'"),
        (np.zeros((3, 64, 64), np.uint8), r"moveaxis"),
        (np.zeros((1, 64, 64, 3), np.uint8), r"array\[0\]"),
        (np.zeros((64, 64, 2), np.uint8), r"\(64, 64, 2\)"),
        (np.zeros(64, np.uint8), r"\(64,\)"),
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4), complex), "complex"),
        (np.array([["a"]]), "uint8"),
        (np.full((4, 4), 255.0), "divide by 255"),
        (np.full((4, 4), -1.0), "0 to 1"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), 1 << 40), "32 bits"),
        (torch.zeros(64, 64, 3), "tensor of shape"),
        (torch.zeros(2, 3, 64, 64), "tensor of shape"),
        (torch.zeros(3, 4, 4, device="meta"), "tensor"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (Image.new("RGB", (0, 4)), "empty"),
    ],
)
def test_other_things_are_refused_by_name(source, sentence: str) -> None:
    for read in (
        open_picture,
        open_mask,
        lambda s: open_hint(s, "canny"),
        picture_size,
        lambda s: annotate("blur", s),
    ):
        if isinstance(source, io.StringIO):
            source.seek(0)
        with pytest.raises(UserError, match=sentence):
            read(source)


def test_a_closed_picture_is_one_sentence(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    image.close()
    with pytest.raises(UserError, match="cannot be read"):
        open_picture(image)


class Stream(io.RawIOBase):
    """Bytes that cannot seek."""

    def __init__(self, content: bytes, times: int = 1) -> None:
        self.content, self.left = content, len(content) * times

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = min(len(buffer), self.left, len(self.content))
        buffer[:count] = self.content[:count]
        self.left -= count
        return count


def test_streams_are_read_up_to_a_limit(monkeypatch) -> None:
    content = saved(Image.fromarray(RGB), "PNG")
    assert np.array_equal(np.asarray(open_picture(io.BufferedReader(Stream(content)))), RGB)
    monkeypatch.setenv("ZEROCONV_MAX_PIXELS", "100000")
    with pytest.raises(UserError, match="more than 800000 bytes"):
        open_picture(io.BufferedReader(Stream(bytes(1 << 16), 1 << 20)))


@settings(max_examples=200, deadline=None)
@given(
    hn.arrays(
        dtype=st.one_of(
            hn.scalar_dtypes(),
            hn.boolean_dtypes(),
            hn.unsigned_integer_dtypes(),
            hn.floating_dtypes(),
        ),
        shape=hn.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6),
    )
)
def test_any_array_is_a_picture_or_one_sentence(array) -> None:
    message = ""
    for read in (
        open_picture,
        open_mask,
        lambda s: open_hint(s, "depth"),
        lambda s: open_hint(s, "segmentation"),
    ):
        try:
            picture, _ = quiet(read, array)
            assert picture.size == (array.shape[1], array.shape[0])
        except UserError as error:
            message = str(error)
        assert "\n" not in message


def test_hint_tensors_are_checked() -> None:
    good = torch.rand(3, 8, 8)
    assert torch.equal(hint_tensor(good, (8, 8), "canny"), good)
    assert torch.equal(hint_tensor(good[None], (8, 8), "canny"), good)
    assert torch.equal(hint_tensor(good[:1], (8, 8), "canny"), good[:1].expand(3, -1, -1))
    holed = torch.where(good > 0.5, -1.0, good)
    assert torch.equal(hint_tensor(holed, (8, 8), "inpaint"), holed)
    for wrong in (
        good * 255,
        good * torch.nan,
        good[:, :4],
        good[:2],
        torch.rand(2, 3, 8, 8),
        torch.rand(8, 8)[0],
    ):
        with pytest.raises(UserError, match="hint tensor"):
            hint_tensor(wrong, (8, 8), "canny")


def test_an_inpaint_mask_may_be_any_picture(tmp_path: Path) -> None:
    where = np.zeros((40, 56), bool)
    where[10:20, 10:30] = True
    Image.fromarray(where).save(tmp_path / "mask.png")
    wanted = np.asarray(annotate("inpaint", RGB, mask=where))
    assert (wanted[where][:, 3] == 0).all() and (wanted[~where][:, 3] == 255).all()
    for mask in (
        tmp_path / "mask.png",
        Image.fromarray(where),
        where.astype(np.uint8),
        where.astype(float),
        np.dstack([np.zeros((40, 56, 3), np.uint8), where * np.uint8(255)]),
    ):
        assert np.array_equal(np.asarray(annotate("inpaint", RGB, mask=mask)), wanted)
    with pytest.raises(UserError, match="mask"):
        annotate("inpaint", RGB, mask=3)


@pytest.mark.parametrize(
    "condition", [name for name, c in CONDITIONS.items() if c.draw is not None]
)
def test_every_condition_is_drawn_from_any_mode(condition: str) -> None:
    for array in (RGB, RGB[..., 0], RGB.astype(np.uint16) * 257, RGB / 255, RGB[..., 0] > 99):
        assert quiet(annotate, condition, array)[0].size == (56, 40)


def test_one_module_opens_pictures() -> None:
    """Nothing but `zeroconv.pictures` lets Pillow or OpenCV read a file."""
    package = Path(zeroconv.__file__).parent
    calls = re.compile(
        r"\bImage\.open\(|\bImageFile\.|\bcv2\.im(read|decode|readmulti)\b"
        r"|from PIL\.Image import|imageio|io\.imread"
    )
    openers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    assert openers == {"pictures/loading.py"}
