"""Folders written as one thing: killed at every step, refused where something else is in them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zeroconv.files import DESKTOP, MANIFEST, WriteError, atomic_folder, check_output, is_temporary
from zeroconv.files import folders as module
from zeroconv.files.folders import settle

OLD, NEW = {"config.json": "old", "sub/weights": "old weights"}, {"config.json": "new", "more": "x"}

# a child for every step: it replaces the folder, and is killed before its n-th file operation
KILLER = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from zeroconv.files import atomic_folder, folders

    target, exchange, new = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
    if exchange == "renames":
        folders._function = lambda: None
    else:
        folders._function()
    count = [0]

    def step(event, arguments):
        if not event.startswith(("os.", "open", "shutil.", "ctypes.set_errno", "ctypes.get_errno")):
            return
        count[0] += 1
        if count[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    limit = int(sys.argv[4])
    sys.addaudithook(step)
    with atomic_folder(target) as folder:
        for name, text in new.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
    print("done")
    """
)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files if p.name != MANIFEST}


def fill(folder: Path, files: dict[str, str]) -> None:
    with atomic_folder(folder) as temporary:
        for name, text in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text)


def killed_at(limit: int, target: Path, way: str) -> bool:
    """Replace OLD by NEW in a process that is killed before its `limit`-th file operation."""
    call = [sys.executable, "-c", KILLER, str(target), way, repr(NEW), str(limit)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


@pytest.mark.slow
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_folder_killed_at_every_step_is_the_old_or_the_new_one(tmp_path: Path, way: str) -> None:
    bystander = tmp_path / ".control.json"
    bystander.write_text("mine")
    for limit in range(1, 10**4):
        target = tmp_path / "control"
        fill(target, OLD)
        killed = killed_at(limit, target, way)
        if way == "exchange":
            assert content(target) in (OLD, NEW), limit
        settle(target)
        assert content(target) in (OLD, NEW), limit
        fill(target, NEW)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == [".control.json", "control"], (limit, names)
        assert bystander.read_text() == "mine"
        shutil.rmtree(target)
        if not killed:
            break
    assert limit > 20, "the hook counts too little"


def test_a_folder_is_exchanged_where_linux_can(tmp_path: Path) -> None:
    fill(tmp_path / "a", OLD)
    inode = (tmp_path / "a").stat().st_ino
    names: list[str] = []
    real = module.discard

    def look(folder: Path) -> None:
        names.extend(path.name for path in tmp_path.iterdir())
        assert folder.stat().st_ino == inode  # the old one has the temporary name
        real(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "discard", look)
        fill(tmp_path / "a", NEW)
    assert len(names) == 2 and "a" in names
    assert content(tmp_path / "a") == NEW


def test_a_folder_between_two_renames_gets_its_name_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_function", lambda: None)
    target = tmp_path / "control"
    fill(target, OLD)
    rename, calls = os.rename, []

    def stop(source: Path, to: Path) -> None:
        calls.append(to)
        if len(calls) == 2:
            raise KeyboardInterrupt  # a signal in the worst moment
        rename(source, to)

    monkeypatch.setattr(module.os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        fill(target, NEW)
    assert content(target) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["control"]


STRANGERS = {
    "a file": lambda folder: (folder / "notes.txt").write_text("x"),
    "a hidden file": lambda folder: (folder / ".env").write_text("x"),
    "a file below": lambda folder: (folder / "sub" / "notes").write_text("x"),
    "an empty folder": lambda folder: (folder / "mine").mkdir(),
    "a link": lambda folder: (folder / "link").symlink_to("/etc/hosts"),
    "a dangling link": lambda folder: (folder / "link").symlink_to("nowhere"),
    "a fifo": lambda folder: os.mkfifo(folder / "pipe"),
    "a file changed behind its time": lambda folder: _change(folder / "config.json"),
    "a changed file": lambda folder: (folder / "config.json").write_text("mine"),
    "a file in our file's place": lambda folder: _put_link(folder / "config.json"),
    "a list that is not ours": lambda folder: (folder / MANIFEST).write_text("{}"),
    "a list that names too much": lambda folder: (folder / MANIFEST).write_text("[" * 100000),
}


def _change(path: Path) -> None:
    before = path.stat()
    path.write_text("OLD")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _put_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("sub/weights")


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "model"
    fill(target, OLD)
    STRANGERS[kind](target)
    before = listing(target)
    for refuse in (lambda: check_output(target, "folder"), lambda: fill(target, NEW)):
        with pytest.raises(WriteError, match="name another output"):
            refuse()
    assert listing(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def listing(folder: Path) -> dict[str, tuple]:
    entries = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(mode.st_mode) else b""
        link = os.readlink(path) if path.is_symlink() else ""
        entries[path.relative_to(folder).as_posix()] = (mode.st_mode, mode.st_mtime_ns, text, link)
    return entries


def test_a_folder_of_a_stranger_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"mine")
    for path, sentence in ((photos, r"photos holds a\.png"), (photos / "a.png", "is no folder")):
        with pytest.raises(WriteError, match=sentence), atomic_folder(path):
            pytest.fail("the work began")


def test_a_folder_that_was_copied_is_still_ours(tmp_path: Path) -> None:
    fill(tmp_path / "a", OLD)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    fill(tmp_path / "b", NEW)
    assert content(tmp_path / "b") == NEW


def test_what_was_made_is_kept_beside_a_folder_that_changed_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "control"
    fill(target, OLD)
    refused = pytest.raises(WriteError, match=r"What was made is in .*control-1")
    with refused, atomic_folder(target) as temporary:
        (temporary / "config.json").write_text("new")
        (target / "notes.txt").write_text("came meanwhile")
    assert content(target) == {**OLD, "notes.txt": "came meanwhile"}
    assert content(tmp_path / "control-1") == {"config.json": "new"}


def test_what_was_made_is_kept_where_the_exchange_fails(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "control", OLD)

    def busy(*_) -> bool:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(module, "_exchange", busy)
    with pytest.raises(WriteError, match=r"in use.* What was made is in .*control-1"):
        fill(tmp_path / "control", NEW)
    assert content(tmp_path / "control") == OLD
    assert content(tmp_path / "control-1") == NEW


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux says what is mounted")
def test_a_mounted_folder_is_refused() -> None:
    for folder in (Path("/proc"), Path("/dev")):
        assert module._is_mounted(folder)
        with pytest.raises(WriteError, match="a mounted disk"):
            check_output(folder, "folder")


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    fill(tmp_path / "real", OLD)
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == NEW


def test_the_folder_in_which_one_is_is_refused(tmp_path: Path, monkeypatch) -> None:
    inner = tmp_path / "empty" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    for name in (".", "..", inner):
        with pytest.raises(WriteError, match="where you are"):
            fill(Path(name), NEW)


def test_folders_of_living_writers_and_of_others_are_left_alone(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as first:
        (first / "x").write_text("x")
        fill(tmp_path / "b", NEW)
        settle(tmp_path / "a")
        assert first.is_dir() and is_temporary(first)
    (tmp_path / ".zeroconv-tmp-mine").mkdir()
    fill(tmp_path / "a", NEW)
    assert (tmp_path / ".zeroconv-tmp-mine").is_dir()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_folders_follow_the_umask(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / "weights").write_text("x")
            (temporary / "sub" / "weights").chmod(0o600)  # as safetensors leaves them
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes["folder"] == modes["sub"] == 0o777 & ~mask
    assert modes["weights"] == modes[MANIFEST] == 0o666 & ~mask


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("name", sorted(DESKTOP))
def test_files_of_a_desktop_are_kept_and_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, exchange: bool
) -> None:
    """`.DS_Store` comes into every folder that is looked at."""
    if not exchange:
        monkeypatch.setattr(module, "_exchange", lambda *_: False)
    target = tmp_path / "gallery"
    fill(target, OLD)
    (target / name).write_text("view")
    fill(target, NEW)
    assert content(target) == {**NEW, name: "view"}
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]

    # a folder of somebody's is refused as it was, and so is what is no plain file
    (target / "mine").mkdir()
    (target / "mine" / name).write_text("view")
    with pytest.raises(WriteError, match="holds mine"):
        fill(target, OLD)
    shutil.rmtree(target / "mine")
    (target / name).unlink()
    (target / name).symlink_to(tmp_path)
    with pytest.raises(WriteError, match="did not write"):
        fill(target, OLD)
