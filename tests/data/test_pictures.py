"""What reading a picture must get right: holes of hints, turned cameras, rows that are damaged,
columns by name.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from zeroconv.conditions import annotate
from zeroconv.data import open_dataset
from zeroconv.data.annotating.packing import pack
from zeroconv.data.cache.drawing import draw
from zeroconv.data.cache.examples import alike
from zeroconv.data.fitting import BrokenExample
from zeroconv.data.pictures import picture_size, read_picture
from zeroconv.errors import UserError


def scene(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def folder_of(path: Path, image: Image.Image, **hints: Image.Image) -> Path:
    path.mkdir()
    image.save(path / "a.png")
    for name, hint in hints.items():
        hint.save(path / f"{name}.png")
    line = {"file_name": "a.png", "text": "x", **{name: f"{name}.png" for name in hints}}
    (path / "metadata.jsonl").write_text(json.dumps(line))
    return path


@pytest.mark.parametrize("kind", [None, "parquet", "tar"])
def test_a_stored_hole_stays_a_hole(tmp_path: Path, kind: str | None) -> None:
    image = scene()
    hint = annotate("inpaint", image)
    folder = folder_of(tmp_path / "set", image, conditioning_image=hint)
    if kind is not None:
        pack(folder, tmp_path / kind, kind)
        folder = tmp_path / kind
    stored, drawn = open_dataset(folder, condition="inpaint", size=64), np.asarray(hint)
    assert np.array_equal(draw(stored, 0).hint, drawn) and (drawn[..., 3] == 0).any()
    # of lines the ground is black
    plain = draw(open_dataset(folder, condition="canny", size=64), 0).hint
    assert plain.shape == (64, 64, 3) and (plain[drawn[..., 3] == 0] == 0).all()
    tile = draw(open_dataset(folder, condition="tile", size=64), 0).hint  # of pictures it is white
    assert tile.shape == (64, 64, 3) and (tile[drawn[..., 3] == 0] == 255).all()


def test_hints_of_one_batch_have_as_many_channels() -> None:
    grey, colours, holed = (
        np.zeros((4, 4), np.uint8),
        np.ones((4, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    )
    hints = alike([grey, colours, holed])
    assert (
        {hint.shape for hint in hints} == {(4, 4, 4)}
        and (hints[1][..., 3] == 255).all()
        and not hints[2].any()
    )
    assert [hint.shape for hint in alike([grey, grey])] == [(4, 4)] * 2
    assert [hint.shape for hint in alike([grey, colours])] == [(4, 4, 3)] * 2


def test_a_camera_that_was_turned(tmp_path: Path) -> None:
    lying, exif = scene(60, 40), Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    lying.save(tmp_path / "a.png", exif=exif)
    upright = read_picture(tmp_path / "a.png")
    assert upright.size == picture_size(tmp_path / "a.png") == (40, 60)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(lying), -1))
    content = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert read_picture(content).size == (40, 60)


def rows(path: Path, **columns: list) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path / "train-0.parquet", row_group_size=2)
    return path


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_damaged_row_is_set_aside(tmp_path: Path) -> None:
    good = png(scene())
    path = rows(
        tmp_path / "set", image=[good, good, b"no picture", None], text=["a", None, "c", "d"]
    )
    dataset = open_dataset(path, condition="canny", size=64)
    assert draw(dataset, 0).broken is None
    for i in (1, 2, 3):
        with pytest.raises(BrokenExample, match=r"train-0\.parquet"):
            dataset[i]
        assert draw(dataset, i).broken is not None
    with pytest.raises(UserError, match="cannot be read"):
        dataset.sources[0].shape(2)


def test_other_columns_are_other_examples(tmp_path: Path) -> None:
    path = rows(tmp_path / "set", image=[png(scene())], short=["a"], long=["a red ball"])
    short, long = (
        open_dataset(f"{path}?caption_column={name}", condition="canny", size=64)
        for name in ("short", "long")
    )
    assert (short[0].caption, long[0].caption) == ("a", "a red ball") and short.key(0) != long.key(
        0
    )


def test_shards_hold_one_hint_a_picture(tmp_path: Path) -> None:
    image = scene()
    folder = folder_of(
        tmp_path / "set",
        image,
        canny=annotate("canny", image),
        softedge=annotate("softedge", image),
    )
    with pytest.raises(UserError, match="hints of canny, softedge"):
        pack(folder, tmp_path / "out", "parquet")
