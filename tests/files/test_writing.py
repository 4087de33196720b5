from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from zeroconv.files import (
    MANIFEST,
    WriteError,
    atomic_folder,
    atomic_write,
    is_disk_full,
    modes,
    sweep,
    targets,
)


def test_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
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


def test_folder_replaces_the_old_one(tmp_path: Path) -> None:
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


def test_full_disk_is_known_from_other_failures() -> None:
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as full:
        full.write("x")
    assert is_disk_full(caught.value)
    start = "Error while serializing: I/O error:"
    assert is_disk_full(SafetensorError(f"{start} No space left on device (os error 28)"))
    assert not is_disk_full(SafetensorError(f"{start} Permission denied (os error 13)"))
    assert not is_disk_full(PermissionError(13, "Permission denied"))
    assert not is_disk_full(RuntimeError("os error 28"))


def test_files_never_see_another_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can only be read by setting it, it is set once, to one that hides."""
    asked: list[int] = []
    real = os.umask

    def ask(mask: int) -> int:
        asked.append(mask)
        return real(mask)

    monkeypatch.setattr(modes.os, "umask", ask)
    old = real(0o027)
    try:
        with atomic_write(tmp_path / "linux") as temporary:
            temporary.write_text("x")
        assert asked == []
        monkeypatch.setattr(modes, "_known", [])
        monkeypatch.setattr(modes, "STATUS", tmp_path / "no such file")
        with ThreadPoolExecutor(8) as pool:
            masks = set(pool.map(lambda _: modes.umask(), range(64)))
        assert masks == {0o027} and asked == [0o077, 0o027]
    finally:
        real(old)
    assert (tmp_path / "linux").stat().st_mode & 0o777 == 0o640


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "secret.json"
    target.write_text("old")
    target.chmod(0o600)
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.stat().st_mode & 0o777 == 0o600


def write(path: Path, text: str = "new", **options) -> None:
    with atomic_write(path, **options) as temporary:
        temporary.write_text(text)


KILLER = """
import os, signal, sys
from zeroconv.files import atomic_write

count, limit = 0, int(sys.argv[2])

def step(event, arguments):
    global count
    if event.startswith(("os.", "open", "tempfile.")):
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
with atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("new")
"""


def test_a_file_killed_at_every_step_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    target, contents = tmp_path / "a.json", []
    for limit in range(1, 100):
        target.write_text("old")
        call = [sys.executable, "-c", KILLER, str(target), str(limit)]
        done = subprocess.run(call, capture_output=True)
        contents.append(target.read_text())
        sweep(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"], limit
        if done.returncode == 0:
            break
    assert set(contents) == {"old", "new"} and len(contents) > 5


def test_a_mounted_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_) -> None:
        raise OSError(errno.EBUSY, "busy")

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr("zeroconv.files.writing.os.replace", busy)
    write(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(WriteError, match="in use"):
        write(tmp_path / "b.json")


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("old")
    (tmp_path / "one").symlink_to("real/a.json")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "new").symlink_to("real/b.json")
    write(tmp_path / "two")
    write(tmp_path / "new")
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "new"))
    contents = {path.name: path.read_text() for path in (tmp_path / "real").iterdir()}
    assert contents == {"a.json": "new", "b.json": "new"}
    with pytest.raises(WriteError, match="symbolic link"):
        write(tmp_path / "two", follow=False)
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(WriteError, match="circle"):
        write(tmp_path / "round")


def test_a_fifo_is_written_through_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write(pipe, "through")
        assert read.result(10) == "through"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_devices_are_written_through() -> None:
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError) as caught:
        write(Path("/dev/full"))
    assert is_disk_full(caught.value)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("sink", ["pipe", "file"])
def test_standard_output_is_written_in_its_order(tmp_path: Path, name: str, sink: str) -> None:
    code = "import sys\nfrom zeroconv.files import atomic_write\nprint('first')\n"
    code += "with atomic_write(sys.argv[1]) as t: t.write_text('second\\n')\nprint('third')\n"
    with open(tmp_path / "out", "w+") as out:
        to = out if sink == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", code, name], stdout=to, text=True, check=True)
    text = done.stdout or (tmp_path / "out").read_text()
    assert text == "first\nsecond\nthird\n"


def test_sockets_and_folders_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tmp_path / "folder").mkdir()
        for name in ("socket", "folder"):
            with pytest.raises(WriteError, match=f"{name} is a"):
                write(tmp_path / name)
        assert (tmp_path / "socket").is_socket() and (tmp_path / "folder").is_dir()


def test_disks_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("data")
    monkeypatch.setattr(targets.stat, "S_ISREG", lambda mode: False)
    monkeypatch.setattr(targets.stat, "S_IFMT", lambda mode: targets.stat.S_IFBLK)
    with pytest.raises(WriteError, match="is a disk"):
        write(tmp_path / "disk")


def test_paths_that_cannot_be_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wrong = [tmp_path / name for name in ("file/below", "n" * 300, "a\0b", "")]
    for path in (*wrong, Path("/proc/x")):
        with pytest.raises(WriteError) as caught:
            write(path)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.one_of(st.text(min_size=1, max_size=90), st.binary(min_size=1, max_size=255)))
def test_any_name_is_written_or_refused(tmp_path: Path, name: str | bytes) -> None:
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    hypothesis.assume("/" not in text)
    try:
        write(tmp_path / text)
    except (WriteError, UnicodeEncodeError):
        pass
    else:
        (path,) = tmp_path.iterdir()
        assert os.fsencode(path.name) == os.fsencode(text) and path.read_text() == "new"
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + ".safetensors")
    write(path)
    assert path.read_text() == "new"
