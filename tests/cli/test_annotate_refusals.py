"""`zeroconv annotate` refuses before any work, in one line, and leaves every file as it was."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.snapshots import snapshot
from zeroconv.data import open_dataset


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """a.png, a folder of two pictures, and somebody's files."""
    picture = Image.new("RGB", (48, 48), "white")
    picture.paste((200, 30, 30), (10, 10, 30, 40))
    (tmp_path / "pics").mkdir()
    for name in ("a.png", "pics/a.png", "pics/b.jpg"):
        picture.save(tmp_path / name)
    (tmp_path / "mine.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / ".eslintrc.json").write_text("{}")
    os.link(tmp_path / "a.png", tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to("a.png")
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("canny a.png --out a.png", "is the input itself"),
        ("canny a.png --out hard.png", "is the input itself"),
        ("canny a.png --out soft.png", "is the input itself"),
        ("canny a.png --out ./pics/../a.png", "is the input itself"),
        ("canny a.png --out mine.png", "zeroconv did not write it"),
        ("canny a.png --out x.jpg", "JPEG blurs"),
        ("canny a.png --out nowhere/../mine.png/x.png", "file and no folder"),
        ("canny,tile a.png --out x.png", "are several hints"),
        ("canny a.png --out x.png --size 64", "--size would do nothing"),
        ("canny a.png --out x.png --format tar --limit 3", "--limit, --format would do nothing"),
        ("canny pipe.png --out x.png", "a pipe or a device"),
        ("canny gone.png --out x.png", "no picture at gone.png"),
        ("canny a.png --out x.png --set low=1 --set low=2", "names low twice"),
        ("softedge a.png --out x.png --backend hed --set low=1", "no parameter"),
        ("canny pics --out pics", "is the folder of the pictures"),
        ("canny pics --out pics/out", "lie one in the other"),
        ("canny pics --out .", "lie one in the other"),
        ("canny pics --out mine.png", "is a file"),
        ("canny pics --out pipe.png", "is no folder"),
        ("depth pics --out out", "give --backend"),
        ("canny,normal pics --out out", "give --backend"),
        ("canny,softedge pics --out out --backend hed", "would read none of"),
        ("canny,tile pics --out out --format parquet", "holds one hint a picture"),
        ("canny pics?links=maybe --out out", "write links=true"),
        ("canny pics?views=3 --out out", "gives views="),
        ("canny nowhere --out out", "no data folder"),
        ("canny .eslintrc.json --out out.png", "no picture, or damaged"),
    ],
)
def test_annotate_refuses_and_changes_nothing(
    zeroconv, room: Path, monkeypatch, words: str, message: str
) -> None:
    monkeypatch.chdir(room)
    before = snapshot(room)
    result = zeroconv("annotate", *words.split())
    assert result.exit_code == 2 and message in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert snapshot(room) == before


@pytest.mark.parametrize("name", ["edges.png", "edges.webp"])
def test_annotate_replaces_a_file_it_drew(zeroconv, room: Path, name: str) -> None:
    first = zeroconv("annotate", "canny", room / "a.png", "--out", room / name)
    plain = np.asarray(Image.open(room / name).convert("RGB"))
    assert first.exit_code == 0 and set(np.unique(plain)) == {0, 255}  # without loss
    assert zeroconv("annotate", "tile", room / "a.png", "--out", room / name).exit_code == 0
    assert (np.asarray(Image.open(room / name).convert("RGB")) != plain).any()


def test_annotate_keeps_the_shards_that_it_reads(zeroconv, room: Path) -> None:
    out = room / "one"
    assert (
        zeroconv("annotate", "canny", room / "pics", "--out", out, "--format", "tar").exit_code == 0
    )
    before = snapshot(room)
    for target in (out, out / "data"):
        result = zeroconv("annotate", "tile", out / "data", "--out", target, "--format", "tar")
        assert result.exit_code == 2
    assert snapshot(room) == before


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_annotate_takes_what_it_packed(zeroconv, room: Path, kind: str) -> None:
    packed = ("annotate", "canny", room / "pics", "--out", room / "one", "--format", kind)
    assert zeroconv(*packed).exit_code == 0
    shard = room / "one" / "data" / f"00000-of-00001.{kind}"
    for source in (room / "one" / "data", shard):
        out = room / f"two-{source.name}"
        result = zeroconv("annotate", "tile", source, "--out", out, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["drawn"] == 2
        assert len(open_dataset(out)) == 2
    (room / "pics" / "a.png").unlink()
    assert zeroconv(*packed).exit_code == 0
    assert len(open_dataset(room / "one" / "data")) == 1  # no shard of before is left


def test_annotate_tells_what_it_passes_over(zeroconv, room: Path) -> None:
    (room / "pics" / "c.heic").touch()
    os.mkfifo(room / "pics" / "d.png")
    result = zeroconv("annotate", "canny", room / "pics", "--out", room / "out")
    assert result.exit_code == 0
    assert (
        "note: passed over" in result.stderr
        and "1 .heic" in result.stderr
        and "d.png (a pipe (FIFO))" in result.stderr
    )


def test_annotate_writes_nothing_outside_for_a_tar_of_evil_names(zeroconv, room: Path) -> None:
    content = (room / "a.png").read_bytes()
    with tarfile.open(room / "evil.tar", "w") as archive:
        for name in ("../../.bashrc.png", "/tmp/x.png", "a.png", "A.png", "con.png"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    before = snapshot(room)
    result = zeroconv("annotate", "canny", room / "evil.tar", "--out", room / "out" / "set")
    assert result.exit_code == 0, result.stderr
    assert before.items() <= snapshot(room).items()
    assert {
        path for path in snapshot(room) if path not in before and not path.startswith("out")
    } == set()
