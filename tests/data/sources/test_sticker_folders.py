"""A folder of stickers is data too: its names stay inside it, and its lines say what a sticker's
do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from zeroconv.data import open_dataset
from zeroconv.errors import UserError

LINE = {
    "file_name": "a.png",
    "text": "a cat",
    "concept": "cat",
    "name": "cat",
    "style": "flat",
    "group": "g",
    "subgroup": "s",
    "source": "x",
    "licence": "y",
    "split": "train",
    "background_rgb": [255, 255, 255],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for name in ("secret.png", "set/a.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / name)
    return tmp_path / "set"


def write(folder: Path, **changes: object) -> str:
    (folder / "metadata.jsonl").write_text(json.dumps(LINE | changes))
    return f"stickers:{folder}"


def test_stickers_of_a_folder_are_read(folder: Path) -> None:
    assert open_dataset(write(folder))[0].caption == "a cat"


@pytest.mark.parametrize("column", ["file_name", "mask_file_name"])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "..\\secret.png"])
def test_stickers_outside_of_their_folder_are_refused(folder: Path, column: str, name: str) -> None:
    with pytest.raises(UserError, match="leads out"):
        open_dataset(write(folder, **{column: name}))


@pytest.mark.parametrize(
    ("target", "message"), [("../secret.png", "leads out"), ("/dev/zero", "leads out")]
)
def test_stickers_by_links_that_lead_out_are_refused_when_read(
    folder: Path, target: str, message: str
) -> None:
    (folder / "link.png").symlink_to(target)
    dataset = open_dataset(write(folder, file_name="link.png"))
    assert "refused" in dataset.key(0)
    with pytest.raises(UserError, match=message):
        dataset[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"file_name": 3},
        {"text": None},
        {"tags": [3]},
        {"background_rgb": [1]},
        {"background_rgb": "xyz"},
        {"text": "\ud800"},
    ],
)
def test_stickers_with_other_values_are_refused(folder: Path, changes: dict) -> None:
    with pytest.raises(UserError):
        open_dataset(write(folder, **changes))


@pytest.mark.parametrize(
    "content", [b"[]", b"3", b"\xff\xfe\xff", "un café".encode("cp1252"), b"[" * 100_000]
)
def test_a_list_of_stickers_that_is_none_is_one_sentence(folder: Path, content: bytes) -> None:
    (folder / "metadata.jsonl").write_bytes(content)
    with pytest.raises(UserError):
        open_dataset(f"stickers:{folder}")
