"""Sets as other tools lay them out: read without a note where nothing is left out, else told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests.helpers.tiny_shards import png, tar
from zeroconv.data import open_dataset
from zeroconv.data.sources.columns import Columns
from zeroconv.data.sources.lists import read_list
from zeroconv.errors import UserError


def texts(folder: Path, query: str = "") -> tuple[list[str], list[str]]:
    """Captions in the order of the set, and what was noted."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        captions = [example.caption for example in open_dataset(f"{folder}{query}", size=8)]
    return captions, [str(note.message) for note in noted]


def pictures(folder: Path, *names: str, caption: bool = False) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), "red").save(path)
        if caption:
            path.with_suffix(".txt").write_text(f"of {name}")


def samples(shard: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for i in range(2):
        key = f"{shard:05d}{i:04d}"
        record = {"caption": f"c{i}", "url": "http://host/a.jpg", "status": "success"}
        members |= {
            f"{key}.png": png(90),
            f"{key}.txt": b"c%d" % i,
            f"{key}.json": json.dumps(record).encode(),
        }
    return members


def test_img2dataset_tars_are_taken_and_not_their_parquet_records(tmp_path: Path) -> None:
    for shard in range(2):
        tar(tmp_path / f"{shard:05d}.tar", samples(shard))
        records = pyarrow.table({"url": ["http://host/a.jpg"] * 2, "caption": ["c"] * 2})
        parquet.write_table(records, tmp_path / f"{shard:05d}.parquet")
        (tmp_path / f"{shard:05d}_stats.json").write_text('{"count": 2}')
    assert texts(tmp_path) == (["c0", "c1"] * 2, [])


def test_parquet_with_pictures_is_taken_before_a_tar_of_another_name(tmp_path: Path) -> None:
    tar(tmp_path / "b.tar", samples(0))
    parquet.write_table(
        pyarrow.table({"image": [png(90)], "text": ["of parquet"]}), tmp_path / "a.parquet"
    )
    captions, noted = texts(tmp_path)
    assert captions == ["of parquet"] and "shards of another kind" in noted[0]


def test_metadata_parquet_is_a_list_and_with_pictures_a_shard(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    pictures(tmp_path / "list", *names)
    listed = pyarrow.table({"file_name": names, "text": ["one", "two"]})
    parquet.write_table(listed, tmp_path / "list/metadata.parquet")
    assert texts(tmp_path / "list") == (["one", "two"], [])

    (tmp_path / "shard").mkdir()
    held = pyarrow.table({"image": [png(90)], "text": ["held"]})
    parquet.write_table(held, tmp_path / "shard/metadata.parquet")
    assert texts(tmp_path / "shard")[0] == ["held"]


def test_metadata_parquet_names_the_row_that_cannot_be_used(tmp_path: Path) -> None:
    listed = pyarrow.table({"file_name": ["a.png", "../b.png"], "text": ["one", "two"]})
    parquet.write_table(listed, tmp_path / "metadata.parquet")
    with pytest.raises(UserError, match=r"line 2.*leads out"):
        read_list(tmp_path / "metadata.parquet", Columns())


@pytest.mark.parametrize(("home", "taken"), [("datasets--owner--name", True), ("mine", False)])
def test_a_snapshot_of_the_hub_cache_is_read_by_its_path(
    tmp_path: Path, home: str, taken: bool
) -> None:
    snapshot, blobs = tmp_path / home / "snapshots/abc", tmp_path / home / "blobs"
    snapshot.mkdir(parents=True)
    pictures(blobs, "a.png")
    (blobs / "list").write_text('{"file_name": "a.png", "text": "linked"}\n')
    (snapshot / "a.png").symlink_to("../../blobs/a.png")
    (snapshot / "metadata.jsonl").symlink_to("../../blobs/list")
    if taken:
        assert texts(snapshot) == (["linked"], [])
        return
    with pytest.raises(UserError, match="leads out"):
        texts(snapshot)


def test_a_tar_without_captions_says_so(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"a.png": png(90), "a.cls": b"3"})
    captions, noted = texts(tmp_path)
    assert captions == [""] and "none of 1 pictures has a caption" in noted[0]


def test_an_imagefolder_packed_as_tar_is_refused_with_the_remedy(tmp_path: Path) -> None:
    line = b'{"file_name": "images/a.png", "text": "lost"}\n'
    tar(tmp_path / "a.tar", {"images/a.png": png(90), "metadata.jsonl": line})
    with pytest.raises(UserError, match=r"metadata\.jsonl is in it.*unpack it"):
        texts(tmp_path)


def test_tar_names_with_dots_are_explained(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"a.v1.png": png(90), "a.v1.txt": b"words"})
    with pytest.raises(UserError, match="first dot"):
        texts(tmp_path)


def test_folders_of_splits_without_lists_are_noted(tmp_path: Path) -> None:
    pictures(tmp_path, "train/a.png", "test/b.png", caption=True)
    captions, noted = texts(tmp_path)
    assert len(captions) == 2 and "several splits, train, test" in noted[0]
    assert texts(tmp_path / "train") == (["of train/a.png"], [])


def test_repeats_that_lie_too_deep_are_noted(tmp_path: Path) -> None:
    pictures(tmp_path, "img/20_cats/a.png", caption=True)
    assert f"name the folder {tmp_path}/img" in texts(tmp_path)[1][0]
    assert texts(tmp_path / "img")[1] == []


def test_subfolder_that_may_hold_hints_is_noted_with_the_option(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png", caption=True)
    pictures(tmp_path, "edges/a.png")
    assert "say ?hints=edges" in texts(tmp_path)[1][0]
    assert texts(tmp_path, "?hints=edges") == (["of images/a.png"], [])


@pytest.mark.parametrize(
    "name", ["captions.jsonl", "metadata.json", "meta_cap.json", "Metadata.JSONL", "a.json"]
)
def test_a_list_of_another_name_is_named_where_nothing_else_has_words(
    tmp_path: Path, name: str
) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / name).write_text('[{"file_name": "a.png", "text": "lost"}]')
    with pytest.raises(UserError, match=f"{name} is no list by its name"):
        texts(tmp_path)


def test_list_of_another_name_beside_captions_is_noted(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", caption=True)
    (tmp_path / "a.json").write_text('{"width": 16}')  # as downloaders write beside a picture
    assert texts(tmp_path) == (["of a.png"], [])
    (tmp_path / "metadata.json").write_text("[]")
    assert "metadata.json the first" in texts(tmp_path)[1][0]


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>log in</html>", "HTML page"),
        (b"\n<html>log in</html>", "HTML page"),
    ],
)
def test_download_that_is_no_shard_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        texts(tmp_path)
