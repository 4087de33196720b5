from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import SafetensorError

from zeroconv import files
from zeroconv.files import atomic_folder, atomic_write, is_disk_full


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
        assert temporary.suffix == target.suffix
    assert target.read_text() == "first"
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half of the sec")
        raise RuntimeError("crash")
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for names in (("a", "b"), ("c",)):
        with atomic_folder(target) as temporary:
            for name in names:
                (temporary / name).write_text(name)
        assert sorted(path.name for path in target.iterdir()) == sorted(names)
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "d").write_text("d")
        raise RuntimeError("crash")
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("x")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "weights").write_text("x")
            (temporary / "weights").chmod(0o600)  # as safetensors leaves them
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder" / "weights").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_told_from_other_failures() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as full:
        full.write("x")
    assert is_disk_full(caught.value)
    assert is_disk_full(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"))
    assert not is_disk_full(PermissionError(13, "Permission denied"))
    assert not is_disk_full(RuntimeError("os error 28"))


def test_threads_that_write_leave_the_process_its_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can only be read by setting it: two that did so at once would each put back the other's nothing."""
    umask = os.umask

    def slow(mask: int) -> int:
        found = umask(mask)
        time.sleep(0.002)  # another thread's turn
        return found

    paths = [tmp_path / f"{i}" for i in range(16)]
    for path in paths:
        path.touch()
    old = umask(0o027)
    try:
        monkeypatch.setattr(files.os, "umask", slow)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(files._as_usual, paths))
        assert umask(0o027) == 0o027
    finally:
        umask(old)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}
