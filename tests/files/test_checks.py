"""Outputs are tried before any work, and the trial leaves nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save

from tests.files.test_folders import listing
from zeroconv.files import (
    WriteError,
    atomic_folder,
    atomic_write,
    check_not_input,
    check_output,
    is_ours,
)

KINDS = ("file", "folder", "into")


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    (tmp_path / "file.json").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "protected.json").write_text("mine")
    (tmp_path / "protected.json").chmod(0o444)
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "dangling").symlink_to("nowhere.json")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


GOOD = [
    ("new.json", "file"),
    ("deep/er/new.json", "file"),
    ("file.json", "file"),
    ("pipe", "file"),
    ("dangling", "file"),
    ("new", "folder"),
    ("empty", "folder"),
    ("deep/er", "folder"),
    ("folder", "into"),
    ("deep/er", "into"),
]
BAD = [
    ("folder", "file", "is a folder"),
    ("new/", "file", "names a folder"),
    ("file.json/new.json", "file", "is a file and no folder"),
    ("n" * 300, "file", "too long"),
    ("d/" * 3000 + "x", "file", "too long"),
    ("deep/" + "n" * 300 + "/x", "file", "too long"),
    ("a\0b", "file", "no name"),
    ("protected.json", "file", "write-protected"),
    ("round", "file", "circle"),
    ("file.json", "folder", "is a file"),
    ("file.json/new", "folder", "is a file and no folder"),
    ("folder", "folder", r"holds a\.png"),
    ("pipe", "folder", "no folder"),
    ("n" * 300, "folder", "too long"),
    ("a\0b", "folder", "no name"),
    ("round", "folder", "circle"),
    ("file.json", "into", "is a file"),
    ("file.json/new", "into", "is a file and no folder"),
    ("n" * 300, "into", "too long"),
]


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize(("name", "kind"), GOOD)
def test_an_output_that_can_be_written_passes(
    crowded: Path, name: str, kind: str, nameless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:  # as on file systems that know no files without names
        monkeypatch.delattr("zeroconv.files.checks.os.O_TMPFILE")
    before = listing(crowded)
    check_output(crowded / name, kind)
    assert listing(crowded) == before


@pytest.mark.parametrize(("name", "kind", "sentence"), BAD)
def test_a_wrong_output_is_one_sentence(crowded: Path, name: str, kind: str, sentence: str) -> None:
    before = listing(crowded)
    with pytest.raises(WriteError, match=sentence) as caught:
        check_output(f"{crowded}/{name}", kind)
    assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 600
    assert listing(crowded) == before


@pytest.mark.parametrize("kind", KINDS)
def test_target_where_nothing_can_be_made_is_refused(kind: str) -> None:
    with pytest.raises(WriteError, match="cannot be written"):
        check_output("/proc/zeroconv/new", kind)
    with pytest.raises(WriteError, match="no name"):
        check_output("", kind)


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("zeroconv.files.checks.os.open", refuse)
    for kind in KINDS:
        with pytest.raises(WriteError, match="read-only"):
            check_output(tmp_path / "new", kind)


def test_suffixes_are_asked_of_files_not_of_streams(crowded: Path) -> None:
    check_output(crowded / "a.PNG", "file", (".png",))
    check_output(crowded / "pipe", "file", (".png",))
    check_output("/dev/null", "file", (".png",))
    with pytest.raises(WriteError, match=r"must end in \.png or \.webp"):
        check_output(crowded / "a.jpg", "file", (".png", ".webp"))


def test_standard_streams_pass_where_they_can_be_written() -> None:
    read, write = os.pipe()
    try:
        check_output(f"/dev/fd/{write}", "file")
        with pytest.raises(WriteError, match="reading only"):
            check_output(f"/dev/fd/{read}", "file")
        with pytest.raises(WriteError, match="is not open"):
            check_output("/dev/fd/987", "file")
    finally:
        os.close(read)
        os.close(write)


def test_a_file_that_zeroconv_did_not_write_is_refused_where_asked(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text('{"mine": 1}')
    with pytest.raises(WriteError, match="zeroconv did not write it"):
        check_output(target, "file", ours=True)
    for text in ("", '{"zeroconv": "1.0"}', '[\n  {\n    "zeroconv": "1.0"}]'):
        with atomic_write(target) as temporary:
            temporary.write_text(text)
        assert is_ours(target)
        check_output(target, "file", ours=True)


def png(*texts: tuple[str, str]) -> bytes:
    about, file = PngInfo(), io.BytesIO()
    for key, value in texts:
        about.add_itxt(key, value) if key == "zeroconv" else about.add_text(key, value)
    Image.new("L", (8, 8)).save(file, "PNG", pnginfo=about)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b'{"domain": "hue", "requirements": ["zeroconv==0.38"]}',  # a library of that name
        b'{"dependencies": {"zeroconv": "1.0"}}',
        b'{"zeroconv": ["_hue._tcp.local."]}',
        b"x" * 100 + b"zeroconv",
        b"<!doctype html><p>How I made it with zeroconv</p>",
        png(("Comment", "made after a picture of zeroconv's")),
        png(("parameters", "zeroconv" * 10)),
        save({"zeroconv": torch.zeros(2)}, metadata={"format": "pt"}),
        save({"a": torch.zeros(2)}, metadata={"made_by": "zeroconv"}),
    ],
)
def test_a_file_that_only_names_zeroconv_is_not_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_ours(tmp_path / "file")


@pytest.mark.parametrize(
    "content",
    [
        png(("Software", "zeroconv")),
        png(("parameters", "a long prompt" * 10**5), ("zeroconv", "{}")),
        b'<!doctype html>\n<html>\n<meta name="generator" content="zeroconv">',
        save({"a": torch.zeros(2)}, metadata={"format": "pt", "zeroconv": '{"a": {"b": 1}}'}),
        save({"a": torch.zeros(2)}, metadata={"zeroconv": "{}"}),
    ],
)
def test_every_format_that_a_command_writes_has_its_sign(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert is_ours(tmp_path / "file")


def test_an_output_that_is_an_input_is_refused_by_any_name(tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.png"
    source.parent.mkdir()
    source.write_text("mine")
    (tmp_path / "link.png").symlink_to(source)
    os.link(source, tmp_path / "hard.png")
    (tmp_path / "here").symlink_to("in")
    outs = [source, tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "here" / "a.png"]
    for out in (*outs, f"{tmp_path}/in/../in/a.png"):
        with pytest.raises(WriteError, match="is the input itself"):
            check_not_input(out, [None, "playroom", source])
    for out in (tmp_path / "in", tmp_path / "here", tmp_path):
        with pytest.raises(WriteError, match="holds the input"):
            check_not_input(out, [source])
    check_not_input(tmp_path / "in" / "b.png", [source, "canny", None])
    for name in ("n" * 300, "a\0b", ""):  # check_output says what is wrong with them
        check_not_input(tmp_path / name if name else "", [source, name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("out", ["s3://bucket/a.png", "https://x/a", "file:///tmp/a", "hf://me/a"])
def test_an_address_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (out, Path(out)):  # Path leaves one of the two strokes
        with pytest.raises(WriteError, match="is an address"):
            check_output(path, kind)
    with pytest.raises(WriteError, match="is an address"), atomic_write(out):
        pass
    with pytest.raises(WriteError, match="is an address"), atomic_folder(out):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["s3:", "C:/a.png", "a:b/c.png", "here:/a.png"])
def test_a_name_with_a_colon_is_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here:").mkdir()
    check_output(out, "file")
