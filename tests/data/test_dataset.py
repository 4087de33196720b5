"""Specs, folders, scenes and stickers: what they name, and what a user is told when they name
nothing.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv import conditions, playroom
from zeroconv.conditions import maps
from zeroconv.data import open_dataset
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.drawing import draw
from zeroconv.data.fitting import BrokenExample
from zeroconv.errors import UserError


def folder(
    path: Path, lines: list[dict], size: tuple[int, int] = (48, 32), name: str = "metadata.jsonl"
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines):
        for column in ("file_name", "conditioning_image", "source", "target"):
            if column in line and not (path / line[column]).exists():
                (path / line[column]).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size, (number * 20, 90, 200)).save(path / line[column])
    (path / name).write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_scenes_are_the_renderer_s() -> None:
    dataset = open_dataset("playroom:val:3?start=5", condition="depth", size=64)
    scene = playroom.render(playroom.split_seeds("val", 1, start=6)[0], 64)
    assert len(dataset) == 3
    assert dataset[1].caption == scene.caption
    assert np.array_equal(dataset[1].image, scene.image)
    assert np.array_equal(np.asarray(dataset[1].hint)[..., 0], maps.depth_to_hint(scene.depth))


def test_a_hint_is_drawn_from_the_fitted_picture() -> None:
    example = open_dataset("playroom:train:1", condition="canny", size=64)[0]
    assert np.array_equal(example.hint, conditions.annotate("canny", example.image))
    assert np.asarray(example.hint).any()


def test_sources_are_joined_and_limited(tmp_path: Path) -> None:
    pictures = folder(tmp_path, [{"file_name": f"{i}.png", "text": "x"} for i in range(5)])
    joined = open_dataset(f"playroom:test:2 + {pictures}?limit=3", size=32)
    assert [joined.name(i) for i in range(len(joined))][-2:] == ["1.png", "2.png"]
    assert len(joined) == 5
    assert len(open_dataset(["playroom:test:2", str(pictures)], limit=4)) == 4
    assert joined[4].image.size == (32, 32)


def test_views_of_a_sticker_differ_and_stay_the_same() -> None:
    first, again = (open_dataset("stickers?split=test&views=2&limit=4", size=64) for _ in range(2))
    assert len(first) == 8
    pixels = [np.asarray(example.image) for example in first]
    assert not np.array_equal(pixels[0], pixels[4])
    assert all(np.array_equal(a, e.image) for a, e in zip(pixels, again, strict=True))
    assert "background" in first[4].caption
    assert first[4].caption.count("background") == 1


def test_stickers_of_two_splits_share_no_concept() -> None:
    concepts = [
        {r.concept for r in open_dataset(f"stickers?split={split}").sources[0].records}
        for split in ("train", "test")
    ]
    assert all(concepts)
    assert not concepts[0] & concepts[1]


def test_an_imagefolder_brings_its_hints(tmp_path: Path) -> None:
    lines = [
        {
            "file_name": "a.png",
            "text": ["one", "two"],
            "conditioning_image": "h.png",
            "split": "train",
        }
    ]
    lines += [
        {"file_name": "b.png", "text": "left", "conditioning_image": "h2.png", "split": "test"}
    ]
    dataset = open_dataset(folder(tmp_path, lines), split="train", size=16)
    assert len(dataset) == 1
    assert dataset[0].text == ("one", "two")
    assert dataset[0].hint is not None
    assert dataset[0].mirrorable
    assert not open_dataset(tmp_path, split="test")[0].mirrorable


def test_fill50k_layout(tmp_path: Path) -> None:
    lines = [{"source": "source/0.png", "target": "target/0.png", "prompt": "pale circle"}]
    example = open_dataset(folder(tmp_path, lines, name="prompt.json"), condition="circles")[0]
    assert example.caption == "pale circle"
    assert example.hint is not None


def test_a_transparent_picture_stands_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    dataset = open_dataset(folder(tmp_path, [{"file_name": "a.png", "text": ""}]))
    assert np.asarray(dataset[0].image).min() == 255


def test_a_wide_picture_and_its_hint_are_cropped_alike(tmp_path: Path) -> None:
    picture = Image.new("L", (64, 32))
    picture.paste(255, (30, 0, 34, 32))
    for name in ("a.png", "h.png"):
        picture.save(tmp_path / name)
    lines = [{"file_name": "a.png", "text": "", "conditioning_image": "h.png"}]
    example = open_dataset(folder(tmp_path, lines), condition="depth", size=32)[0]
    assert np.array_equal(example.image, example.hint)
    assert np.asarray(example.hint)[0, :, 0].nonzero()[0].tolist() == [14, 15, 16, 17]


def test_a_broken_picture_says_which(tmp_path: Path) -> None:
    lines = [{"file_name": f"{name}.png", "text": ""} for name in "abc"]
    folder(tmp_path, lines)
    (tmp_path / "b.png").write_bytes(b"not a picture")
    (tmp_path / "c.png").unlink()
    dataset = open_dataset(tmp_path)
    with pytest.raises(BrokenExample, match=r"b\.png cannot be read"):
        dataset[1]
    with pytest.raises(BrokenExample, match=r"c\.png is missing"):
        dataset[2]


def test_a_storage_that_fails_sets_no_picture_aside(tmp_path: Path, monkeypatch) -> None:
    """Tried again, and refused in one sentence; a picture that is at fault itself is not tried
    again.
    """
    folder(tmp_path, [{"file_name": "a.png", "text": ""}])
    dataset, tries, real = open_dataset(tmp_path), [], Image.open
    monkeypatch.setattr("zeroconv.data.fitting.PAUSES", (0.0, 0.0))

    def failing(times: int, error: OSError):
        tries.clear()

        def opened(file, **options):
            tries.append(file)
            if len(tries) <= times:
                raise error
            return real(file, **options)

        monkeypatch.setattr("zeroconv.pictures.loading.Image.open", opened)

    failing(2, OSError(errno.EIO, "Input/output error"))
    assert dataset[0].image.size == (48, 32) and len(tries) == 3
    failing(3, OSError(errno.ESTALE, "Stale file handle"))
    with pytest.raises(UserError, match=r"a\.png.*Stale file handle.*not set aside") as caught:
        draw(dataset, 0)
    assert not isinstance(caught.value, BrokenExample)
    tries.clear()  # nor is it put where pictures without a shape are
    with pytest.raises(UserError, match="not set aside"):
        open_dataset(tmp_path, condition="canny", size=32, buckets=Buckets.of(32, 8)).frame(0)
    failing(1, OSError("image file is truncated"))
    assert "truncated" in draw(dataset, 0).broken and len(tries) == 1


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nowhere", "no data folder nowhere"),
        ("playroom:dev:3", "no split 'dev'"),
        ("playroom:test:many", "count as 'many'"),
        ("playroom:test:3?veiws=2", "unknown option 'veiws'"),
        ("stickers:nowhere", "no sticker folder nowhere"),
        ("stickers?split=val", "empty"),
        ("", "is empty"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_dataset(spec)


def test_a_wrong_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metadata\.jsonl"):
        open_dataset(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n')
    with pytest.raises(UserError, match="line 1: not a picture's metadata"):
        open_dataset(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        open_dataset(tmp_path)
    lines = [
        {"file_name": "a.png", "text": "", "conditioning_image": "h.png"},
        {"file_name": "b.png", "text": ""},
    ]
    with pytest.raises(UserError, match="a hint for 1 of 2 pictures"):
        open_dataset(folder(tmp_path, lines))


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        ("playroom:test:2?links=true", "links"),
        ("playroom:test:2?hints=x", "hints"),
        ("playroom:test:2?views=2", "views"),
        ("stickers?only=person", "only"),
        ("stickers?caption_column=x", "caption_column"),
        ("{}?start=1", "start"),
        ("{}?views=2", "views"),
        ("{}?revision=x", "revision"),
        ("https://host/a.tar?links=true", "links"),
        ("hub:a/b?links=true", "links"),
    ],
)
def test_an_option_that_a_source_does_not_have_is_refused(
    tmp_path: Path, spec: str, option: str
) -> None:
    folder(tmp_path, [{"file_name": "a.png", "text": ""}])
    with pytest.raises(UserError, match=rf"(gives|names) {option}="):
        open_dataset(spec.format(tmp_path))


def test_joined_sets_with_and_without_hints_are_noted(tmp_path: Path) -> None:
    one = folder(
        tmp_path / "one", [{"file_name": "a.png", "text": "", "conditioning_image": "h.png"}]
    )
    two = folder(tmp_path / "two", [{"file_name": "a.png", "text": ""}])
    with pytest.warns(
        UserWarning, match="1 of the joined data sets bring hints, and those of 1 are drawn"
    ):
        open_dataset(f"{one} + {two}")


def test_split_that_nothing_names_is_noted(tmp_path: Path) -> None:
    folder(tmp_path, [{"file_name": "a.png", "text": ""}])
    with pytest.warns(UserWarning, match="says its split, so all are taken for test"):
        assert len(open_dataset(f"{tmp_path}?split=test")) == 1
