"""Data sets of the hub: their layouts on disk, splits, parts and columns, from a hub cache without
a network.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from tests.helpers.tiny_shards import png
from zeroconv.data import open_dataset
from zeroconv.errors import UserError

REVISION = "0123456789abcdef0123456789abcdef01234567"


def shard(
    path: Path,
    shades: list[int],
    names=("image", "conditioning_image", "text"),
    struct: bool = True,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [
        [{"bytes": png(s + more), "path": None} if struct else png(s + more) for s in shades]
        for more in (0, 9)
    ]
    table = pyarrow.table(
        dict(zip(names, [*pictures, [f"shade {s}" for s in shades]], strict=True))
    )
    parquet.write_table(table, path, row_group_size=2)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`hub("owner/name", revision)`: the folder of a snapshot in a hub cache; the network is not
    there.
    """
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def snapshot(name: str, ref: str = "main", commit: str = REVISION) -> Path:
        repository = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        return folder

    return snapshot


def shades(spec: str) -> list[int]:
    dataset = open_dataset(spec, condition="anything")
    for example in dataset:
        assert (
            abs(int(np.asarray(example.hint).mean()) - int(np.asarray(example.image).mean()) - 9)
            <= 1
        )
    return [int(example.caption.removeprefix("shade ")) for example in dataset]


def test_parquet_shards_of_one_split(hub) -> None:
    folder = hub("someone/circles")
    shard(folder / "data" / "train-00000-of-00002.parquet", [10, 20, 30])
    shard(folder / "data" / "train-00001-of-00002.parquet", [40])
    shard(folder / "data" / "test-00000-of-00001.parquet", [50])
    (folder / "README.md").write_text("a card")
    assert shades("hub:someone/circles") == [10, 20, 30, 40]
    assert shades("hub:someone/circles?split=test&limit=3") == [50]
    assert shades("hub:someone/circles?limit=2&repeat=2") == [10, 20]
    with pytest.raises(UserError, match=r"no split 'val'; it has test, train"):
        open_dataset("hub:someone/circles?split=val")


def test_a_data_set_with_a_script_is_read_as_the_hub_converted_it(hub) -> None:
    (hub("someone/scripted") / "scripted.py").write_text("raise SystemExit('nobody runs this')")
    converted = hub("someone/scripted", "refs/convert/parquet", "f" * 40)
    shard(converted / "default" / "train" / "0000.parquet", [10, 20])
    shard(converted / "default" / "train" / "0001.parquet", [30])
    shard(converted / "default" / "validation" / "0000.parquet", [40])
    assert shades("hub:someone/scripted") == [10, 20, 30]
    assert shades("hub:someone/scripted?split=val") == [40]


def test_parts_are_chosen(hub) -> None:
    folder = hub("someone/parts")
    for number, name in enumerate(("hard", "soft")):
        shard(folder / name / "train" / "0000.parquet", [10 + number])
    assert shades("hub:someone/parts?config=soft") == [11]
    with pytest.raises(UserError, match=r"several parts; choose with config= .*: hard, soft"):
        open_dataset("hub:someone/parts")
    with pytest.raises(UserError, match=r"no part 'warm'"):
        open_dataset("hub:someone/parts?config=warm")


def test_other_columns_are_named(hub) -> None:
    names = ("photo", "spiga_seg", "image_caption")
    shard(
        hub("someone/faces") / "data" / "train-00000-of-00001.parquet",
        [10, 20],
        names,
        struct=False,
    )
    columns = "image_column=photo&conditioning_image_column=spiga_seg&caption_column=image_caption"
    spec = f"hub:someone/faces?{columns}"
    assert shades(spec) == [10, 20]
    with pytest.raises(
        UserError, match=r"no column 'file_name'; it has photo, spiga_seg, image_caption"
    ):
        open_dataset("hub:someone/faces")
    with pytest.raises(UserError, match=r"no column 'depth'"):
        open_dataset(spec.replace("spiga_seg", "depth"))


def test_an_imagefolder_of_splits_and_one_listed_as_csv(hub) -> None:
    folder = hub("someone/folders")
    for split, shade in (("train", 10), ("test", 20)):
        (folder / split).mkdir()
        for name, more in (("a.png", 0), ("h.png", 9)):
            (folder / split / name).write_bytes(png(shade + more))
    line = {"file_name": "a.png", "text": "shade 10", "conditioning_image": "h.png"}
    (folder / "train" / "metadata.jsonl").write_text(json.dumps(line))
    (folder / "test" / "metadata.csv").write_text(
        'file_name,"text",conditioning_image\na.png,"shade 20",h.png\n'
    )
    assert shades("hub:someone/folders") == [10]
    assert shades("hub:someone/folders?split=test") == [20]


def test_tar_shards_of_a_split(hub) -> None:
    folder = hub("someone/tars")
    for split, shade in (("train", 10), ("test", 20)):
        with tarfile.open(folder / f"{split}-0000.tar", "w") as archive:
            for name, content in (
                ("0.png", png(shade)),
                ("0.hint.png", png(shade + 9)),
                ("0.txt", b"shade %d" % shade),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert shades("hub:someone/tars") == [10]
    assert shades("hub:someone/tars?split=test") == [20]


def test_what_is_not_there_is_one_sentence(hub) -> None:
    with pytest.raises(UserError, match=r"nobody/nothing cannot be fetched from the hub \("):
        open_dataset("hub:nobody/nothing")
    (hub("someone/empty") / "README.md").write_text("a card")
    with pytest.raises(UserError, match=r"someone/empty of the hub holds no list"):
        open_dataset("hub:someone/empty")
    with pytest.raises(UserError, match=r"write hub:OWNER/NAME"):
        open_dataset("hub:fill50k")


def test_a_file_is_asked_for_at_most_once_a_row_group(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(hub("someone/rows") / "data" / "train-0.parquet", list(range(8)))
    reads = []
    read = parquet.ParquetFile.iter_batches

    def counted(*arguments, row_groups=None, **more):
        reads.extend(row_groups or ())
        return read(*arguments, row_groups=row_groups, **more)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", counted)
    assert len(list(open_dataset("hub:someone/rows"))) == 8
    assert reads == [0, 1, 2, 3]
