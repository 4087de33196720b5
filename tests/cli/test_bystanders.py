"""Every command in a folder full of other files: all of them are there afterwards, unchanged."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tests.cli.commands import Command, commands, make_inputs, registered
from tests.helpers.snapshots import snapshot

# names that our own files have somewhere, and names that look like temporary ones
NAMES = """
.eslintrc.json .cover.png .hidden .env .a.png.tmp .a.png.x8f3k2lq.png .writing.pt.1a2b3c4d.pt
.annotate.jsonl .zeroconv-tmp-notes .zeroconv-try-notes .annotations.jsonl .stickers.json a.png
a.webp a.json a.html a.safetensors 0000.png 0001.png 00000.png config.json
diffusion_pytorch_model.safetensors model_index.json README.md index.html gallery.png
metadata.jsonl broken.json recipe.json log.jsonl summary.json tracking.json report.html
prompt.json fill50k.json images/00000.png images/0.png images/.cover.png canny/0.png
depth/00000.png source/0.png target/0.png pictures/00-canny-scenes-0.png licences/noto.txt
checkpoints/step-00000001-0123456789abcdef.pt checkpoints/writing.pt control/config.json
control/notes.txt best/config.json samples/step-000001.png hints-canny.safetensors
signatures.npy shard-00000.safetensors data/00000-of-00001.parquet run/playroom/x
""".split()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of every kind and name, in which one is."""
    crowded = tmp_path / "place"
    crowded.mkdir()
    monkeypatch.chdir(crowded)
    crowd(crowded)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "photo.png").write_bytes(b"mine, elsewhere")
    return crowded


def crowd(folder: Path) -> None:
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine: " + name.encode())
    (folder / "link.png").symlink_to("../outside/photo.png")
    (folder / "link.json").symlink_to("../outside/photo.png")
    (folder / "linked").symlink_to("../outside")
    (folder / ".dangling.png").symlink_to("nowhere")
    (folder / "round").symlink_to("round")
    (folder / "empty").mkdir()
    os.link(folder / "a.png", folder / "hard.png")
    os.mkfifo(folder / ".pipe.png")
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.json")  # a relative name: a socket's path is short
    if os.geteuid() == 0:
        os.mknod(folder / "device.png", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "a.json").chmod(0o400)
    (folder / ".env").chmod(0o600)


def changes(before: dict[str, tuple], after: dict[str, tuple]) -> list[str]:
    return [name for name in before if after.get(name) != before[name]]


def names_of(kinds: tuple[str | None, ...]) -> list[str]:
    listed = commands(Path("models"), Path("/tmp"))
    slow = pytest.mark.slow
    return [
        pytest.param(name, marks=slow) if name == "demo" else name  # draws with nine controls
        for name, command in listed.items()
        if command.kind in kinds
    ]


def test_every_command_is_in_the_list(models: Path, inputs: Path) -> None:
    listed = commands(models, inputs)
    for name in registered():
        assert any(f"{called} ".startswith(f"{name} ") for called in listed), name


@pytest.mark.parametrize("name", names_of((None, "file", "folder", "into")))
def test_a_command_leaves_what_is_beside_its_output_alone(
    name: str, zeroconv, models: Path, inputs: Path, crowded: Path
) -> None:
    command = commands(models, inputs)[name]
    before = snapshot(crowded.parent, folder_times=False)
    result = zeroconv(*command.filled(crowded / f"new{command.suffix}"))
    assert result.exit_code == command.code, result.output
    assert changes(before, snapshot(crowded.parent, folder_times=False)) == []
    # given again, it finds its own output and not somebody else's
    if command.kind is not None and command.code == 0 and name != "demo":
        result = zeroconv(*command.filled(crowded / f"new{command.suffix}"))
        assert result.exit_code == 0, result.output
        assert changes(before, snapshot(crowded.parent, folder_times=False)) == []
    left = [path for path in crowded.rglob(".zeroconv-t*") if path.name.count("notes") == 0]
    assert left == []


@pytest.mark.parametrize("name", names_of(("folder", "into")))
def test_a_folder_full_of_other_files_is_left_alone(
    name: str, zeroconv, models: Path, inputs: Path, crowded: Path
) -> None:
    command = commands(models, inputs)[name]
    before = snapshot(crowded.parent, folder_times=False)
    result = zeroconv(*command.filled(crowded))
    assert result.exit_code in (0, 2, 3), result.output
    if command.kind == "folder":
        assert result.exit_code == 2
    if result.exit_code == 2:
        assert len(lines_of(result)) == 1, result.stderr
    assert changes(before, snapshot(crowded.parent, folder_times=False)) == []


@pytest.mark.parametrize("name", names_of(("file",)))
def test_other_files_stay(name: str, zeroconv, models: Path, inputs: Path, crowded: Path) -> None:
    command = commands(models, inputs)[name]
    before = snapshot(crowded.parent, folder_times=False)
    for target in (f"a{command.suffix}", "empty", "config.json/x", f"link{command.suffix}"):
        if command.words[0] in ("generate", "annotate") and target == "empty":
            continue  # a folder, into which they may write
        if not os.path.lexists(crowded / target) and target != "config.json/x":
            continue
        result = zeroconv(*command.filled(crowded / target))
        assert result.exit_code == 2, (target, result.output)
        assert len(lines_of(result)) == 1, (target, result.stderr)
    assert changes(before, snapshot(crowded.parent, folder_times=False)) == []


@pytest.mark.parametrize("name", names_of(("file",)))
def test_devices_stay(name: str, zeroconv, models: Path, inputs: Path, tmp_path: Path) -> None:
    command = commands(models, inputs)[name]
    null = tmp_path / f"null{command.suffix}"
    null.symlink_to("/dev/null")
    before = os.lstat("/dev/null")
    result = zeroconv(*command.filled(null))
    assert result.exit_code in (0, 2), result.output
    after = os.lstat("/dev/null")
    assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)
    assert before.st_rdev == after.st_rdev
    assert null.is_symlink()


def lines_of(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if not line.startswith("note:")]


def test_a_command_that_writes_says_so() -> None:
    listed = commands(Path("models"), Path("/tmp"))
    assert all(("{out}" in " ".join(c.words)) == (c.kind is not None) for c in listed.values())
    assert isinstance(listed["convert to original"], Command)
