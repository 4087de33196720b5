"""Folders without a list: captions of every name, and nothing passed over without a word."""

from __future__ import annotations

import os
import socket
import warnings
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from zeroconv.data import open_dataset
from zeroconv.data.reading.scan import scan
from zeroconv.errors import UserError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "a.TXT",
        "a.caption",
        "a.Caption",
        "a.png.txt",
        "A.PNG.TXT",
        "a.png.caption",
        "a.json",
        "a.png.json",
    ],
)
def test_caption_is_read_under_every_name(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text('{"caption": "words"}' if name.endswith("json") else "words\n")
    assert open_dataset(tmp_path)[0].text == ("words",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_caption_file_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a plain café\n", encoding=encoding)
    assert open_dataset(tmp_path)[0].text == ("a plain café",)


def test_caption_in_the_other_way_of_writing_accents_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "caf\u00e9.png")
    (tmp_path / "cafe\u0301.txt").write_text("words")
    assert open_dataset(tmp_path)[0].text == ("words",)


def test_an_empty_text_stands_back_where_another_has_words(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").touch()
    (tmp_path / "a.caption").write_text("words")
    assert open_dataset(tmp_path)[0].text == ("words",)


def test_the_nearest_caption_counts_for_twins_by_case(tmp_path: Path) -> None:
    for name in ("a", "A"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(name)
    assert [e.caption for e in open_dataset(tmp_path)] == ["A", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "a.txt, line 1: .*save the file as UTF-8"),
        ("x\nun café".encode("cp1252"), "a.txt, line 2: byte 0xe9"),
        (b"a\0b c d e f", "NUL"),
        (b"x" * 200_000, "100,000"),
        (b"x\n" * 1_000_000, "longer than"),
    ],
)
def test_a_caption_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.symlink_to("/etc/passwd")]
)
def test_a_caption_that_is_no_file_of_the_set_is_not_opened(tmp_path: Path, make) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("words")
    make(tmp_path / "a.txt")
    try:
        caption = open_dataset(tmp_path)[0].caption
    except UserError as error:
        caption = str(error)
    assert caption == "" or "leads out" in caption


def test_scan_notes_all_it_passes_over_once(tmp_path: Path, tmp_path_factory) -> None:
    away = tmp_path_factory.mktemp("away")
    picture(away / "x.png")
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "orphan.txt").write_text("words")
    (tmp_path / "b.psd").touch()
    (tmp_path / "c.jxl").touch()
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / ".shadow" / "d.png")
    (tmp_path / "linked").symlink_to(away)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    for name in (
        "README.md",
        "LICENSE",
        "Thumbs.db",
        ".DS_Store",
        "._a.png",
        "a.npz",
    ):  # known side files
        (tmp_path / name).touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(open_dataset(tmp_path)) == 1
    server.close()
    note = " ".join(str(w.message) for w in caught)
    for part in (
        "1 .jxl",
        "1 .psd",
        "2 hidden",
        "linked folders, linked",
        "3 special files",
        "1 texts that belong to no",
    ):
        assert part in note, note
    assert len(caught) == 1 and "README" not in note and ".db" not in note
    assert len(open_dataset(f"{tmp_path}?links=true")) == 2


def test_every_allowed_format_is_taken(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp", "avif", "gif", "bmp", "tif", "ppm", "PNG"):
        picture(tmp_path / f"{suffix}.{suffix}")
        (tmp_path / f"{suffix}.txt").write_text(suffix)
    assert len([e.image for e in open_dataset(tmp_path)]) == 9


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "x.png")
        for other in "abcdefgh":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    assert 8 <= len(scan(tmp_path, links=True).pictures) <= 16
    assert len(scan(tmp_path).links) == 64


def save_to_disk(folder: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        (folder / name).write_text("{}")


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("a.png", b"x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "it is empty"),
        (save_to_disk, r"save_to_disk .*to_parquet"),
        (zipped, r"images\.zip is in it, an archive: unpack it"),
        (lambda f: (f / "x.tar.gz").touch(), "a packed tar: unpack it"),
        (
            lambda f: [
                (f / n).mkdir() or (f / n / "metadata.jsonl").write_text("{}") for n in "ab"
            ],
            "name a folder that has",
        ),
        (lambda f: (f / "x.heic").touch(), r"it holds 1 \.heic"),
        (lambda f: (f / "link").symlink_to("/usr"), "link is passed over"),
        (lambda f: picture(f / "deep" / "a.png"), r"has no metadata\.jsonl; write one"),
        (
            lambda f: [picture(f / "x" / "a.png"), (f / "x" / "metadata.jsonl").write_text("{}")],
            "name a folder that has",
        ),
        (lambda f: os.mkfifo(f / "metadata.jsonl"), "is passed over"),
    ],
)
def test_a_folder_that_is_no_data_set_gets_a_remedy(tmp_path: Path, make, message: str) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images.zip", "unpack it"),
        ("metadata.jsonl", "name the folder"),
        ("a.arrow", "write parquet"),
    ],
)
def test_a_file_that_is_no_data_set_gets_a_remedy(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / name)


def test_deep_folders_are_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 80)
    deep.mkdir(parents=True)
    with pytest.raises(UserError, match="64 folders deep"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("repeat=1000000000", "from 1 to 10,000"),
        ("limit=" + "9" * 5000, "give a whole number"),
        ("limit=-1", "give a whole number"),
        ("limit=1e9", "give a whole number"),
    ],
)
def test_numbers_of_a_spec_are_bounded(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(f"{tmp_path}?{spec}")
