"""One process at a time in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zeroconv.errors import UserError
from zeroconv.files import LOCK, WriteError, lock_folder

HOLDER = """
import sys, time
from zeroconv.files import lock_folder
with lock_folder(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    call = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_lock_names_its_holder_to_a_second_process(tmp_path: Path, holder) -> None:
    wanted = rf"another process \({holder.pid}, training\) works in"
    with pytest.raises(UserError, match=wanted) as caught, lock_folder(tmp_path, "annotating"):
        pytest.fail("two at once")
    assert str(caught.value).count("\n") == 0


def test_a_killed_process_holds_nothing(tmp_path: Path, holder) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with lock_folder(tmp_path, "training"):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()} training\n"
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock_folder(tmp_path / "new", "training"):
        raise RuntimeError("crash")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_second_lock_in_one_process_is_refused_too(tmp_path: Path) -> None:
    refused = pytest.raises(WriteError, match="another process")
    with lock_folder(tmp_path, "training"), refused, lock_folder(tmp_path, "training"):
        pytest.fail("two at once")


def test_many_threads_never_hold_at_once(tmp_path: Path) -> None:
    inside, most, done = [0], [0], [0]

    def work() -> None:
        for _ in range(5):
            try:
                with lock_folder(tmp_path, "x"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    done[0] += 1
            except WriteError:
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and done[0] > 0
    assert list(tmp_path.iterdir()) == []


def test_lock_leaves_alone_what_stands_at_its_path(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / LOCK).symlink_to("notes")
    refused = pytest.raises(WriteError, match="in the place of zeroconv's lock")
    with refused, lock_folder(tmp_path, "x"):
        pytest.fail("held")
    assert (tmp_path / "notes").read_text() == "mine"
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).write_text("mine too")
    with pytest.raises(WriteError, match="in the place"), lock_folder(tmp_path, "x"):
        pytest.fail("held")
    assert (tmp_path / LOCK).read_text() == "mine too"
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot be written"), lock_folder(tmp_path / "file", "x"):
        pytest.fail("held")


def test_no_locks_there_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(self, *_, **__) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", without)
    entered = False
    with pytest.warns(UserWarning, match="cannot be locked"), lock_folder(tmp_path, "x"):
        entered = True
    assert entered
