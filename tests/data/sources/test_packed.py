"""Tar and parquet shards: every layout that people pack, and limits on what a header may claim."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.helpers.tiny_shards import png, shade, table, tar
from zeroconv.data import open_dataset
from zeroconv.data.sources import parquets, tars
from zeroconv.errors import UserError

# ---------------------------------------------------------------- tar


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("k.txt", "words"),
        ("k.caption", "words"),
        ("k.TXT", "words"),
        ("k.json", '{"caption": "words", "url": "x"}'),
        ("k.json", '{"text": {"raw": "words"}}'),
        ("k.json", '\ufeff{"prompt": ["words"]}'),
        ("k.text", "words"),
        ("k.prompt.txt", "words"),
    ],
)
@pytest.mark.parametrize(
    "hint", ["hint", "conditioning_image", "control_image", "source", "condition"]
)
def test_tar_captions_and_hints_of_other_tools(
    tmp_path: Path, name: str, content: str, hint: str
) -> None:
    tar(tmp_path / "a.tar", {"k.jpg": png(10), f"k.{hint}.png": png(110), name: content.encode()})
    example = open_dataset(tmp_path)[0]
    assert (shade(example.image), shade(example.hint), example.text) == (10, 110, ("words",))


def test_tar_text_that_is_empty_stands_back(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"k.png": png(1), "k.txt": b"", "k.json": b'{"caption": "words"}'})
    assert open_dataset(tmp_path)[0].text == ("words",)


def test_tar_captions_in_utf16(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"k.png": png(10), "k.txt": "a plain café".encode("utf-16")})
    assert open_dataset(tmp_path)[0].text == ("a plain café",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.txt", b"un caf\xe9", r"k\.txt, line 1: byte 0xe9"),
        ("k.txt", b"x\0 and much more", "NUL"),
        ("k.json", b"{", "is no JSON"),
        ("k.json", b"[" * 100_000, "is no JSON"),
        ("k.json", b'{"url": "x"}', "no caption 'text'; it has url"),
        ("k.json", b'{"caption": null}', "null"),
        ("k.json", b"[]", "no object"),
        ("k.txt", b"x" * (1 << 21), "at most 1,048,576"),
    ],
)
def test_tar_captions_that_cannot_be_read_set_their_example_aside(
    tmp_path: Path, name, content, message: str
) -> None:
    tar(tmp_path / "a.tar", {"k.png": png(10), name: content})
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)[0]


def test_tar_with_a_missing_hint_sets_that_example_aside(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"a.png": png(10), "a.hint.png": png(110), "b.png": png(20)})
    with pytest.warns(UserWarning, match="1 of 2 pictures have no hint and are set aside"):
        dataset = open_dataset(tmp_path, condition="canny")
    assert shade(dataset[0].hint) == 110
    with pytest.raises(UserError, match=r"b has no hint, and others"):
        dataset[1]
    assert dataset.key(1).endswith(" no hint")  # what a cache holds of it was drawn


def test_tar_parts_named_in_the_spec(tmp_path: Path) -> None:
    tar(
        tmp_path / "a.tar",
        {"k.photo.png": png(10), "k.depth.png": png(110), "k.words": b"x", "k.txt": b"y"},
    )
    spec = f"{tmp_path}?image_column=photo&conditioning_image_column=depth&caption_column=words"
    example = open_dataset(spec)[0]
    assert (shade(example.image), shade(example.hint), example.text) == (10, 110, ("x",))
    with pytest.raises(UserError, match="1 of 1 pictures have no part 'canny'"):
        open_dataset(spec.replace("depth", "canny"))


def test_tar_parts_that_are_not_used_are_noted(tmp_path: Path) -> None:
    members = {
        "a.png": png(1),
        "a.txt": b"x",
        "a.depth.png": png(2),
        "b.npy": b"x",
        "c.png": png(3),
        ".DS_Store": b"",
    }
    tar(tmp_path / "a.tar", members)
    with pytest.warns(UserWarning, match=".") as caught:
        open_dataset(tmp_path)
    note = " ".join(str(w.message) for w in caught)
    for part in (
        "1 names without a picture",
        "b in a.tar, with .npy",
        "1 of 2 pictures have no caption",
        ".depth.png",
    ):
        assert part in note, note


def test_tar_names_that_lead_outside_are_labels(tmp_path: Path) -> None:
    members = [
        (name, png(i + 1))
        for i, name in enumerate(("../../x.png", "/etc/x.png", "..\\x.png", "C:\\x.png"))
    ]
    tar(tmp_path / "a.tar", members)
    dataset = open_dataset(tmp_path)
    assert sorted(shade(e.image) for e in dataset) == [1, 2, 3, 4]


def header_bomb(path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf())
        file.write(bytes(1 << 20))


def plain_bomb(path: Path, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 3 << 30
    with open(path, "wb") as file:
        file.write(info.tobuf())
        file.truncate(4 << 30)


def negative(path: Path) -> None:
    buffer = bytearray(tarfile.TarInfo("a.png").tobuf())
    buffer[124:136] = b"\xff" * 12
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    path.write_bytes(bytes(buffer) * 4 + bytes(1024))


def chained(path: Path) -> None:
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1
    path.write_bytes((name.tobuf() + b"a".ljust(512, b"\0")) * 3000 + bytes(1024))


def of_type(kind: bytes):
    return lambda path: tar(path, {"a.png": b""}, type=kind, linkname="/etc/passwd")


def sparse(path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    path.write_bytes(info.tobuf() + bytes(1024))


def pax_sparse(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": "9",
        }
        info.size = 512
        archive.addfile(info, io.BytesIO(b"999999999\n".ljust(512, b"\0")))


def damaged(path: Path) -> None:
    tar(path, {f"{i}.png": png(i) for i in range(4)})
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        content[archive.getmembers()[2].offset] ^= 1
    path.write_bytes(content)


def joined(path: Path) -> None:
    one = tar(path, {"a.png": png(1)}).read_bytes()
    path.write_bytes(one + one)


def cut(path: Path) -> None:
    path.write_bytes(tar(path, {"a.png": png(1) * 20}).read_bytes()[:900])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (header_bomb, "packed with gzip; unpack it"),
        (plain_bomb, "a header of 3,221,225,472 bytes"),
        (lambda p: plain_bomb(p, tarfile.XHDTYPE), "a header of 3,221,225,472 bytes"),
        (lambda p: plain_bomb(p, tarfile.XGLTYPE), "a header of 3,221,225,472 bytes"),
        (lambda p: plain_bomb(p, tarfile.REGTYPE), "claims 3,221,225,472 bytes"),
        (negative, "negative size"),
        (chained, "cannot be read as tar"),
        (of_type(tarfile.SYMTYPE), "a link or a device"),
        (of_type(tarfile.LNKTYPE), "a link or a device"),
        (of_type(tarfile.CHRTYPE), "a link or a device"),
        (of_type(tarfile.FIFOTYPE), "a link or a device"),
        (sparse, "a sparse file"),
        (pax_sparse, "a sparse file"),
        (damaged, "is damaged at byte"),
        (joined, "another tar was put behind it"),
        (cut, "cannot be read as tar"),
        (lambda p: p.write_bytes(b"junk" * 1000), "cannot be read as tar"),
        (lambda p: p.write_bytes(b""), "cannot be read as tar"),
        (os.mkfifo, "is a pipe"),
        (lambda p: p.symlink_to("/dev/zero"), "(is a device|leads out)"),
        (lambda p: p.mkdir(), "is a folder"),
    ],
)
def test_a_tar_that_is_none_is_refused_soon(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a.tar")
    start = time.monotonic()
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)
    assert time.monotonic() - start < 5


def test_a_tar_of_too_many_members_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_MEMBERS", 3)
    tar(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(4)})
    with pytest.raises(UserError, match="more than 3 files"):
        open_dataset(tmp_path)


def test_tar_member_that_is_there_twice_is_noted(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", [("a.png", png(1)), ("a.png", png(2))])
    with pytest.warns(UserWarning, match=r"a\.png is there twice, the last counts"):
        assert [shade(e.image) for e in open_dataset(tmp_path)] == [2]


BASE = {
    "a.png": png(10),
    "a.txt": b"words",
    "b.png": png(20),
    "b.json": b'{"caption": "x"}',
    "b.hint.png": png(90),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 7000), st.integers(0, 255)), max_size=4), st.integers(1, 8000)
)
def test_any_damage_to_a_tar_is_one_sentence(
    tmp_path: Path, changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(tar(tmp_path / "a.tar", BASE).read_bytes()[:length])
    for index, value in changes:
        if index < len(content):
            content[index] = value
    (tmp_path / "a.tar").write_bytes(content)
    check_readable(tmp_path)


def check_readable(folder: Path) -> None:
    """Examples, or UserErrors, and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = open_dataset(folder)
        except UserError:
            return
        for i in range(len(dataset)):
            assert dataset.key(i)
            with suppress(UserError):
                dataset[i]


# ---------------------------------------------------------------- parquet


@pytest.mark.parametrize(
    "hint", ["conditioning_image", "control_image", "hint", "source", "condition", "control"]
)
@pytest.mark.parametrize("struct", [True, False])
def test_parquet_hints_of_other_tools(tmp_path: Path, hint: str, struct: bool) -> None:
    cells = [[{"bytes": png(s), "path": "../x"} if struct else png(s)] for s in (10, 110)]
    table(tmp_path / "a.parquet", {"image": cells[0], hint: cells[1], "text": ["words"]})
    example = open_dataset(tmp_path, condition="canny")[0]
    assert (shade(example.image), shade(example.hint), example.text) == (10, 110, ("words",))


def test_parquet_pictures_in_other_columns_are_noted(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", {"image": [png(1)], "depth_map": [png(2)], "text": ["x"]})
    with pytest.warns(
        UserWarning, match=r"pictures in depth_map, which are not used: hints will be drawn"
    ):
        open_dataset(tmp_path)
    table(tmp_path / "a.parquet", {"image": [png(1)], "score": [2], "text": ["x"]})
    with pytest.warns(UserWarning, match=r"columns that are not used: score"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_with_a_null_hint_sets_that_row_aside(tmp_path: Path, struct: bool) -> None:
    cell = {"bytes": png(110), "path": None} if struct else png(110)
    kind = (
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        if struct
        else pyarrow.binary()
    )
    columns = {"image": [png(1), png(2)], "conditioning_image": [cell, None], "text": ["a", "b"]}
    table(tmp_path / "a.parquet", columns, conditioning_image=kind)
    dataset = open_dataset(tmp_path, condition="canny")
    assert shade(dataset[0].hint) == 110
    with pytest.raises(UserError, match="has no hint, and others of its set have"):
        dataset[1]


def test_parquet_without_any_hint_says_so(tmp_path: Path) -> None:
    columns = {"image": [png(1)], "conditioning_image": [None], "text": ["a"]}
    table(tmp_path / "a.parquet", columns, conditioning_image=pyarrow.binary())
    with pytest.warns(
        UserWarning, match="conditioning_image is null throughout, so hints are drawn"
    ):
        assert open_dataset(tmp_path)[0].hint is None


def test_parquet_shards_that_differ_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", {"image": [png(1)], "hint": [png(2)], "text": ["a"]})
    table(tmp_path / "b.parquet", {"image": [png(1)], "text": ["a"]})
    with pytest.raises(
        UserError, match=r"differ: one is read by the columns image, text and hint, the other by"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        ([{"raw": "x", "n": 1}], ("x",)),
        ([[{"raw": "x"}, {"raw": "y"}]], ("x", "y")),
        ([["x", "y"]], ("x", "y")),
        ([b"x"], ("x",)),
    ],
)
def test_parquet_captions_of_every_layout(
    tmp_path: Path, captions: list, expected: tuple[str, ...]
) -> None:
    table(tmp_path / "a.parquet", {"image": [png(1)], "text": captions})
    assert open_dataset(tmp_path)[0].text == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [png(1)], "text": [None]}, "null"),
        ({"image": [None], "text": ["x"]}, "holds paths"),
        ({"image": [png(1), None][1:] + [png(1)], "text": ["x", "y"]}, "null"),
        ({"image": ["a.png"], "text": ["x"]}, "holds paths"),
        ({"image": [{"bytes": None, "path": "/etc/passwd"}], "text": ["x"]}, "holds paths"),
        ({"image": [3], "text": ["x"]}, "holds paths"),
        ({"image": [png(1)], "text": [3]}, "not int"),
        ({"image": [png(1)], "text": ["x\0"]}, "NUL"),
        ({"image": [b"junk"], "text": ["x"]}, "cannot be read|no picture"),
    ],
)
def test_parquet_cells_that_cannot_be_used_are_named(
    tmp_path: Path, columns: dict, message: str
) -> None:
    table(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)[0]


def test_parquet_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(
        tmp_path / "a.parquet",
        {"image": [os.urandom(9000) for _ in range(40)], "text": ["x"] * 40},
        group=40,
    )
    monkeypatch.setattr(parquets, "MAX_GROUP", 100_000)
    with pytest.raises(UserError, match="row_group_size=64"):
        open_dataset(tmp_path)


def test_parquet_that_grows_when_it_is_read_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a dictionary
    table(tmp_path / "a.parquet", {"image": [bytes(100_000)] * 200, "text": ["x"] * 200}, group=200)
    monkeypatch.setattr(parquets, "MAX_GROUP", 5_000_000)
    dataset = open_dataset(tmp_path)
    with pytest.raises(UserError, match="row_group_size=64"):
        dataset[0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4), st.integers(1, 5000)
)
def test_any_damage_to_a_parquet_is_one_sentence(
    tmp_path: Path, changes: list[tuple[int, int]], length: int
) -> None:
    columns = {
        "image": [png(10), png(20)],
        "conditioning_image": [png(1), png(2)],
        "text": ["a", "b"],
    }
    content = bytearray(table(tmp_path / "a.parquet", columns).read_bytes()[:length])
    for index, value in changes:
        content[index % len(content)] = value
    (tmp_path / "a.parquet").write_bytes(content)
    check_readable(tmp_path)


def test_parquet_of_billions_of_rows_is_refused(tmp_path: Path) -> None:
    nulls = pyarrow.nulls(6_000_000, pyarrow.binary())
    text = pyarrow.nulls(6_000_000, pyarrow.string())
    parquet.write_table(pyarrow.table({"image": nulls, "text": text}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="claims 6,000,000 rows"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.write_bytes(b"")]
)
def test_a_parquet_that_is_no_file_is_refused(tmp_path: Path, make) -> None:
    make(tmp_path / "a.parquet")
    with pytest.raises(UserError):
        open_dataset(tmp_path)


# ---------------------------------------------------------------- both


def test_one_shard_may_be_named_itself(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"k.png": png(10), "k.txt": b"x"})
    assert open_dataset(tmp_path / "a.tar")[0].caption == "x"
    table(tmp_path / "a.parquet", {"image": [png(1)], "text": ["y"]})
    assert open_dataset(tmp_path / "a.parquet")[0].caption == "y"


def test_shards_beside_other_things_tell_them(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", {"k.png": png(10), "k.txt": b"x"})
    tar(tmp_path / "more.tar", {"k.png": png(10), "k.txt": b"x"})
    (tmp_path / "loose.png").write_bytes(png(1))
    (tmp_path / ".train-1.tar.part.tar").write_bytes(b"half")
    with pytest.warns(UserWarning, match=".") as caught:
        assert len(open_dataset(tmp_path)) == 1
    note = " ".join(str(w.message) for w in caught)
    assert "more.tar the first" in note and "1 pictures that lie beside the shards" in note


def test_a_shard_by_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    tar(tmp_path / "a.tar", {"k.png": png(10), "k.txt": b"x"})
    (tmp_path / "set" / "a.tar").symlink_to(tmp_path / "a.tar")
    with pytest.raises(UserError, match="leads out"):
        open_dataset(tmp_path / "set")
    assert len(open_dataset(f"{tmp_path / 'set'}?links=true")) == 1


def test_old_keys_stay_so_that_caches_are_not_made_anew(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"k.png": png(10), "k.txt": b"x", "k.hint.png": png(3)})
    source = open_dataset(tmp_path).sources[0]
    size, digest = source._signatures[0].split("-")
    assert source.key(0) == f"{size}-{digest} {source.rows[0][1:]}"
    assert np.isclose(int(size), (tmp_path / "a.tar").stat().st_size)
