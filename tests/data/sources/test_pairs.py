"""Folders as kohya's trainer reads them: captions beside the pictures, hints under the same names,
repeats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import tiny_backbone
from zeroconv.data import open_dataset
from zeroconv.data.batches import BatchPlan
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.errors import UserError

LINE = '{"file_name": "a.png", "text": "first"}'


def picture(path: Path, shade: int, caption: str | None = None, suffix: str = ".txt") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(path)
    if caption is not None:
        path.with_suffix(suffix).write_text(caption, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures right in images/, two in images/3_a_cat/; hints in hints/, of the same shade
    plus 100.
    """
    images = tmp_path / "images"
    picture(images / "a.png", 10, "first\n\n second \n")
    picture(images / "b.jpg", 20, "bee", ".caption")
    picture(images / "c.png", 30)
    picture(images / "3_a_cat" / "d.png", 40, "a tabby")
    picture(images / "3_a_cat" / "e.png", 50)
    for name, shade in (
        ("a.webp", 110),
        ("b.png", 120),
        ("c.png", 130),
        ("3_a_cat/d.png", 140),
        ("e.png", 150),
    ):
        picture(tmp_path / "hints" / name, shade)
    return tmp_path


def test_pairs_read_captions_hints_and_repeats(folder: Path) -> None:
    dataset = open_dataset(f"{folder}/images?hints={folder}/hints", condition="depth", size=32)
    shown = {dataset.name(i): (dataset[i], dataset.repeat(i)) for i in range(len(dataset))}
    assert {name: example.text for name, (example, _) in shown.items()} == {
        "a.png": ("first", "second"),
        "b.jpg": ("bee",),
        "c.png": ("",),
        "3_a_cat/d.png": ("a tabby",),
        "3_a_cat/e.png": ("a cat",),  # no caption: the folder's name
    }
    assert {name: times for name, (_, times) in shown.items()} == {
        "a.png": 1,
        "b.jpg": 1,
        "c.png": 1,
        "3_a_cat/d.png": 3,
        "3_a_cat/e.png": 3,
    }
    for example, _ in shown.values():
        hint, image = (int(np.asarray(p).mean()) for p in (example.hint, example.image))
        assert abs(hint - image - 100) < 3  # one is a JPEG


def test_hints_may_lie_inside_and_repeats_multiply(folder: Path) -> None:
    (folder / "hints").rename(folder / "images" / "hints")
    dataset = open_dataset(f"{folder}/images?hints=hints&repeat=2", condition="depth")
    assert len(dataset) == 5
    assert sorted(dataset.repeat(i) for i in range(5)) == [2, 2, 2, 6, 6]
    assert len(open_dataset(f"{folder}/images?hints=hints&limit=2")) == 2
    assert open_dataset("playroom:test:2?repeat=4").repeat(1) == 4


def test_without_hints_they_are_drawn(folder: Path) -> None:
    dataset = open_dataset(folder / "images", condition="canny", size=32)
    assert len(dataset) == 5
    assert not np.asarray(dataset[0].hint).any()  # a plain picture has no edges


def test_a_pass_takes_repeated_pictures_so_often_and_broken_ones_not_at_all(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "images" / "3_a_cat" / "d.png").write_bytes(b"broken")
    (folder / "images" / "b.jpg").write_bytes(b"broken")
    dataset = open_dataset(f"{folder}/images?hints={folder}/hints", condition="depth", size=32)
    data = cache_examples(dataset, tiny_backbone(), CacheSettings(tmp_path / "cache", workers=1))
    assert sorted(data.broken) == ["3_a_cat/d.png", "b.jpg"]
    assert data.prompts(range(3)) == ["first", "", "a cat"]
    plan = BatchPlan(data, batch_size=5, prompt_dropping=0)
    for step in range(20):  # a pass is exactly one batch
        assert sorted(plan.order(step)) == [0, 1, 2, 2, 2]
    assert any(not np.array_equal(plan.order(0), plan.order(step)) for step in range(1, 5))


@pytest.mark.parametrize(
    ("change", "query", "sentence"),
    [
        (
            lambda f: (f / "hints" / "c.png").unlink(),
            "hints={}/hints",
            "1 pictures .* no hint in .*, c the first",
        ),
        (lambda f: None, "hints=nowhere", "no folder of hints"),
        (lambda f: (f / "images" / "3_a_cat").rename(f / "images" / "0_cat"), "", "taken 0 times"),
        (
            lambda f: (f / "images" / "a.txt").write_bytes(b"\xff\xfe\x00"),
            "",
            "save the file as UTF-8",
        ),
        (lambda f: None, "repeat=0", "repeat as '0'; give a whole number from 1 to 10,000"),
        (
            lambda f: picture(f / "images" / "4_dog" / "a.png", 9),
            "hints={}/hints",
            "both get the hint",
        ),
        (
            lambda f: (f / "images" / "metadata.jsonl").write_text(LINE),
            "hints={}/hints",
            "cannot be given beside",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(folder: Path, change, query: str, sentence: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=sentence):
        open_dataset(f"{folder}/images?{query.format(folder)}")


def test_pictures_that_nothing_describes_are_no_training_set(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0)
    with pytest.raises(UserError, match=r"has no metadata\.jsonl; .* into a\.txt beside it"):
        open_dataset(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match="holds no pictures"):
        open_dataset(tmp_path)
