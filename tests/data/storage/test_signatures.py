"""Files named by their content: read once, read again when they change, never taken for what they
were.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from zeroconv.data.storage import books, signatures
from zeroconv.data.storage.signatures import remembered, signature


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(made):
        path.write_bytes(bytes([i]) * 40_000)
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were looked into; files are old enough to be trusted at once."""
    seen: list[Path] = []
    real = signatures._read
    monkeypatch.setattr(signatures, "_read", lambda path: (seen.append(path), real(path))[1])
    monkeypatch.setattr(books, "_YOUNG", -1)
    return seen


def names(root: Path, files: list[Path]) -> list[str]:
    with remembered(root):
        return [signature(path) for path in files]


def test_a_second_look_reads_nothing_and_says_the_same(files, read, tmp_path) -> None:
    plain = [signature(path) for path in files]
    assert names(tmp_path / "cache", files) == plain and len(set(plain)) == 5
    read.clear()
    assert names(tmp_path / "cache", files[::-1]) == plain[::-1] and not read


def test_what_changed_is_read_again_even_with_its_old_size_and_time(files, read, tmp_path) -> None:
    before = names(tmp_path / "cache", files)
    stat = files[2].stat()
    files[2].write_bytes(b"x" * 40_000)
    os.utime(files[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    files[3].unlink()
    read.clear()
    after = names(tmp_path / "cache", files)
    assert read == [files[2]] and after[3] == "missing"
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, False, True]
    read.clear()
    assert names(tmp_path / "cache", files) == after and not read  # and is known from then on


def test_new_files_join_the_old(files, read, tmp_path) -> None:
    names(tmp_path / "cache", files[:2])
    names(tmp_path / "cache", files[2:])
    read.clear()
    names(tmp_path / "cache", files)
    assert not read
    assert np.load(tmp_path / "cache" / "signatures.npy").nbytes == 5 * 48


def test_a_file_that_was_just_written_is_not_trusted(files, tmp_path) -> None:
    names(tmp_path / "cache", files)
    assert not (tmp_path / "cache" / "signatures.npy").exists()


@pytest.mark.parametrize("content", [b"", b"no table", "cut"])
def test_a_damaged_book_is_passed_over(files, read, tmp_path, content) -> None:
    plain = names(tmp_path / "cache", files)
    book = tmp_path / "cache" / "signatures.npy"
    book.write_bytes(book.read_bytes()[:-60] if content == "cut" else content)
    assert names(tmp_path / "cache", files) == plain


def test_a_book_that_cannot_be_written_is_done_without(files, read, tmp_path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert names(tmp_path / "cache", files) == [signature(path) for path in files]


def test_a_thread_that_began_and_ended_first_closes_no_other_book(files, read, tmp_path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def other() -> list[str]:
        with remembered(tmp_path / "other"):
            begun.set()
            assert go_on.wait(30)
            return [signature(path) for path in files[:2]]

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(other)
        assert begun.wait(30)
        with remembered(tmp_path / "own"):
            go_on.set()
            there = running.result(30)
            here = [signature(path) for path in files[2:]]
    read.clear()
    assert (
        names(tmp_path / "other", files[:2]) == there and names(tmp_path / "own", files[2:]) == here
    )
    assert not read  # each book holds all that was read for it
