"""Folders that grow file by file: begun for one thing, held by one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroconv.files import DESKTOP, MANIFEST, WriteError, begin_folder, filling


def test_a_folder_goes_on_with_what_it_was_begun_for(tmp_path: Path) -> None:
    with filling(tmp_path / "new", "circles") as folder:
        (folder / "0.png").write_text("ours")
        refused = pytest.raises(WriteError, match="another process")
        with refused, filling(folder, "circles"):
            pytest.fail("two at once")
    (tmp_path / "new" / "notes.txt").write_text("mine")
    with filling(tmp_path / "new", "circles"):
        pass
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [MANIFEST, "0.png", "notes.txt"]
    refused = pytest.raises(WriteError, match="is none of stickers")
    with refused, filling(tmp_path / "new", "stickers"):
        pytest.fail("mixed")


NAMES = ["notes.txt", ".hidden", "metadata.jsonl", "images/a.png", MANIFEST]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_somebody_else_is_not_filled(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(WriteError, match="name another folder"), filling(tmp_path, "circles"):
        pytest.fail("begun")
    with pytest.raises(WriteError, match="name another folder"):
        begin_folder(tmp_path, "a cache")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / name]


def test_folders_of_other_versions_are_known_by_their_notes(tmp_path: Path) -> None:
    (tmp_path / "fill50k.json").write_text("{}")
    with filling(tmp_path, "circles", ["fill50k.json"]):
        pass
    with filling(tmp_path, "circles"):
        pass
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "shard").write_text("x")
    begin_folder(tmp_path / "cache", "a cache", lambda root: (root / "shard").exists())
    begin_folder(tmp_path / "cache", "a cache")


def test_a_list_that_was_changed_is_not_replaced(tmp_path: Path) -> None:
    def fill(text: str) -> None:
        with filling(tmp_path, "circles", lists=["prompt.json"]) as folder:
            (folder / "prompt.json").write_text(text)

    fill("one")
    fill("two")
    (tmp_path / "prompt.json").write_text("captions of mine")
    with pytest.raises(WriteError, match="was changed since"):
        fill("three")
    assert (tmp_path / "prompt.json").read_text() == "captions of mine"
    (tmp_path / "prompt.json").unlink()
    fill("four")
    with pytest.raises(RuntimeError), filling(tmp_path, "circles", lists=["prompt.json"]):
        raise RuntimeError("crash")  # what is there is still the one noted
    fill("five")


def test_a_cache_that_can_only_be_read_is_used(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "shard").write_text("x")

    def refuse(*_, **__) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("zeroconv.files.temporary.tempfile.mkstemp", refuse)
    begin_folder(tmp_path, "a cache", lambda root: (root / "shard").exists())
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


@pytest.mark.parametrize("name", sorted(DESKTOP))
def test_a_folder_that_a_desktop_looked_at_is_filled(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("view")
    with filling(tmp_path, "circles"):
        pass
    assert (tmp_path / name).read_text() == "view"
