"""Masks of the loss: where they are read from, and that they stay on their pictures."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import tiny_backbone
from tests.helpers.tiny_shards import table, tar
from zeroconv.data import open_dataset
from zeroconv.data.batches import BatchPlan
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.data.fitting import BrokenExample
from zeroconv.data.spec import check_masked
from zeroconv.errors import UserError


def picture(number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """A ramp of its own: smooth, so that scaling by any rule leaves it nearly the same."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    red = 20 + 25 * number + 90 * x + 30 * y
    return Image.fromarray(np.stack([red, red // 2, 255 - red], -1).astype(np.uint8))


def mask_of(image: Image.Image) -> Image.Image:
    """The picture's own red channel: whatever is done to both, they must stay alike."""
    return image.getchannel("R")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def listed(folder: Path, sizes: list[tuple[int, int]], column: str = "mask") -> Path:
    """An imagefolder whose masks are the red channels of its pictures; the last has none."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, size in enumerate(sizes):
        image = picture(number, size)
        image.save(folder / f"{number}.png")
        mask_of(image).save(folder / f"mask-{number}.png")
        line = {"file_name": f"{number}.png", "text": "a thing", column: f"mask-{number}.png"}
        lines.append({**line, column: None} if number == len(sizes) - 1 else line)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


def paired(folder: Path) -> str:
    for number in range(2):
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / "images" / f"{number}.png")
        (folder / "images" / f"{number}.txt").write_text("a thing")
    mask_of(picture(0)).save(folder / "masks" / "0.png")
    return f"{folder}/images?masks={folder}/masks"


def tarred(folder: Path) -> Path:
    files = {f"{n}.png": png(picture(n)) for n in range(2)}
    files |= {f"{n}.txt": b"a thing" for n in range(2)}
    folder.mkdir(parents=True)
    return tar(folder / "train-0000.tar", {**files, "0.mask.png": png(mask_of(picture(0)))})


def parquet(folder: Path) -> Path:
    folder.mkdir(parents=True)
    columns = {
        "image": [png(picture(n)) for n in range(2)],
        "text": ["a thing", "a thing"],
        "mask": [png(mask_of(picture(0))), None],
    }
    return table(folder / "train-0000.parquet", columns)


SOURCES = {
    "list": lambda folder: str(listed(folder, [(48, 32), (48, 32)])),
    "named column": lambda folder: f"{listed(folder, [(48, 32)] * 2, 'where')}?mask_column=where",
    "folder": paired,
    "tar": lambda folder: str(tarred(folder)),
    "parquet": lambda folder: str(parquet(folder)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_masks_are_read_from(source: str, tmp_path: Path) -> None:
    dataset = open_dataset(SOURCES[source](tmp_path / "data"), size=32, masks="mask")
    check_masked(dataset, "data")
    first, second = dataset[0], dataset[1]
    assert first.mask is not None and first.mask.mode == "L" and second.mask is None
    shown = np.asarray(picture(0))[:, 8:40, 0]  # the middle square
    np.testing.assert_array_equal(np.asarray(first.mask), shown)
    np.testing.assert_array_equal(np.asarray(first.image)[..., 0], shown)


@pytest.mark.parametrize(
    "source", [name for name in SOURCES if name not in ("folder", "named column")]
)
def test_masks_are_left_alone_where_nothing_asks_for_them(source: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        dataset = open_dataset(SOURCES[source](tmp_path / "data"), size=32)
    assert dataset[0].mask is None
    assert any("mask" in str(note.message) for note in notes)  # not used


def test_masks_are_the_alpha_of_pictures(tmp_path: Path) -> None:
    listed(tmp_path, [(48, 32), (48, 32)])
    see_through = picture(0)
    see_through.putalpha(mask_of(see_through))
    see_through.save(tmp_path / "0.png")
    dataset = open_dataset(tmp_path, size=32, masks="alpha")
    expected = np.asarray(picture(0))[:, 8:40, 0]
    np.testing.assert_array_equal(np.asarray(dataset[0].mask), expected)
    assert dataset[1].mask is None  # opaque


@pytest.mark.parametrize("spec", ["playroom:train:30", "stickers"])
def test_masks_that_no_source_can_have_are_refused(spec: str) -> None:
    for masks in ("mask", "alpha"):
        with pytest.raises(UserError, match="masked_loss"):
            check_masked(open_dataset(spec, masks=masks), spec)


def test_masks_of_a_spec_need_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"masks=, and masks are not read; set data.masked_loss"):
        open_dataset(paired(tmp_path))


def test_masks_of_another_shape_or_black_set_the_picture_aside(tmp_path: Path) -> None:
    folder = listed(tmp_path, [(48, 32), (48, 32), (48, 32)])
    Image.new("L", (32, 32), 255).save(folder / "mask-0.png")
    edge = np.zeros((32, 48), np.uint8)
    edge[:, :8] = 255  # the middle square does not show it
    Image.fromarray(edge).save(folder / "mask-1.png")
    dataset = open_dataset(folder, size=32, masks="mask")
    with pytest.raises(BrokenExample, match="the mask is 32×32 pixels and its picture 48×32"):
        dataset[0]
    with pytest.raises(BrokenExample, match="its mask is black"):
        dataset[1]


def test_masks_follow_their_pictures_through_buckets_crops_flips_and_caches(
    tmp_path: Path,
) -> None:
    """A backbone whose moments are the red channel itself shows both side by side."""
    backbone = tiny_backbone()
    backbone.encode_image = lambda images: images[:, :1].repeat(1, 8, 1, 1)
    sizes = [(64, 32), (32, 64), (40, 32), (36, 70), (32, 32)]
    folder = listed(tmp_path / "data", sizes)
    buckets = Buckets(32, step=8, min_side=16, max_side=64)
    dataset = open_dataset(folder, condition="canny", size=32, buckets=buckets, masks="mask")
    settings = CacheSettings(tmp_path / "cache", flip=True)
    for _ in range(2):  # made, then read from the cache
        examples = cache_examples(dataset, backbone, settings)
        assert examples.unmasked == 1
        plan = BatchPlan(examples, 2, flip=True)
        seen, turned = set(), 0
        for step in range(40):
            batch = plan.batch(step)
            assert batch.masks is not None
            for i, moments, mask in zip(batch.indices, batch.moments, batch.masks, strict=True):
                red = ((moments[0] + 1) * 127.5).round().byte()
                if bool((mask == 255).all()):  # the picture without a mask
                    continue
                assert (red.int() - mask[0].int()).abs().max() <= 4
                seen.add(int(i))
                turned += not np.array_equal(mask[0].numpy(), examples.masks[[int(i)]][0])
        assert len(seen) == 4 and turned > 5


def test_masks_change_the_caches_names_and_only_theirs(tmp_path: Path) -> None:
    folder = listed(tmp_path, [(48, 32)] * 2)
    bare, masked = open_dataset(folder, size=32), open_dataset(folder, size=32, masks="mask")
    assert bare.key(0) != masked.key(0) and bare.key(1) == masked.key(1)
    before = masked.key(0)
    mask_of(picture(7)).save(folder / "mask-0.png")
    assert open_dataset(folder, size=32, masks="mask").key(0) != before
    assert open_dataset(folder, size=32).key(0) == bare.key(0)
