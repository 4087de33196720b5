from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from zeroconv.files import MANIFEST, atomic_folder, atomic_write, is_disk_full


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
        assert sorted(path.name for path in target.iterdir()) == sorted((*names, MANIFEST))
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "d").write_text("d")
        raise RuntimeError("crash")
    assert sorted(path.name for path in target.iterdir()) == [MANIFEST, "c"]
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


