"""Checkpoints: whole or not there, the last ones kept, every random generator restored."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.full_disk import full_disk
from zeroconv.errors import UserError
from zeroconv.files import temporary
from zeroconv.training.checkpoint import (
    checkpoints,
    checksum,
    fitting,
    load_checkpoint,
    resume_warnings,
    save_checkpoint,
    step_of,
)


def test_what_a_run_goes_on_with_is_compared_with_what_it_was() -> None:
    before = {"processes": 2, "pictures": 90, "data": "a"}
    assert resume_warnings(before, dict(before)) == resume_warnings(None, before) == []
    (line,) = resume_warnings(before, {**before, "processes": 1})
    assert "2 processes and goes on with 1" in line
    (line,) = resume_warnings(before, {**before, "pictures": 91, "data": "b"})
    assert "90 pictures, now 91" in line
    assert len(resume_warnings(before, {"processes": 4, "pictures": 90, "data": "b"})) == 2


def draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_a_state_comes_back_with_its_random_generators(tmp_path: Path) -> None:
    draw()
    weights = torch.randn(4, 3)
    save_checkpoint(
        tmp_path, 7, {"weights": weights, "best": {"step": 3, "true": 0.5}, "last": None}, keep=2
    )
    expected = draw()
    draw()
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert torch.equal(state["weights"], weights)
    assert (state["step"], state["best"], state["last"]) == (7, {"step": 3, "true": 0.5}, None)
    assert draw() == expected


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, {}, keep=2)
    assert [path.name[:13] for path in checkpoints(tmp_path)] == ["step-00000020", "step-00000015"]
    assert len(list(tmp_path.iterdir())) == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    path.write_bytes(content)


def with_checksum(path: Path, content: bytes) -> None:
    """Garbage under the name that its checksum gives it."""
    path.write_bytes(content)
    path.rename(path.with_name(f"{path.name[:13]}-{checksum(path)}.pt"))


def pickled(path: Path) -> None:
    torch.save({"step": 10, "random": print}, path)
    path.rename(path.with_name(f"{path.name[:13]}-{checksum(path)}.pt"))


def to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "a flipped bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "garbage with the right checksum": lambda path: with_checksum(path, b"garbage"),
    "a pickle that runs code": pickled,
    "of something else": lambda path: torch.save([1, 2], path),
    "a dangling link": to_nowhere,
    "a folder": to_folder,
    "a pipe": to_pipe,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_checkpoint_is_passed_over_and_noted(tmp_path: Path, damage) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"weights": torch.ones(100)}, keep=2)
    damage(checkpoints(tmp_path)[0])
    with pytest.warns(UserWarning, match=r"checkpoint is damaged: .*step-00000010.* of step 5\.$"):
        state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_where_all_checkpoints_are_damaged_nothing_begins_anew(tmp_path: Path, damage) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"weights": torch.ones(100)}, keep=2)
    for path in checkpoints(tmp_path):
        damage(path)
    left = sorted(tmp_path.iterdir())
    with pytest.raises(
        UserError, match=r"all checkpoints in .* are damaged .*begin anew: name anot"
    ):
        load_checkpoint(tmp_path)
    assert sorted(tmp_path.iterdir()) == left


def test_damaged_checkpoints_do_not_crowd_out_sound_ones(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, {}, keep=3)
    flip(checkpoints(tmp_path)[0])
    save_checkpoint(tmp_path, 12, {}, keep=2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [15, 12, 10]
    save_checkpoint(tmp_path, 15, {}, keep=2)  # made again, it takes the damaged one's place
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = load_checkpoint(tmp_path)
    assert state is not None and state["step"] == 15
    assert [step_of(path) for path in checkpoints(tmp_path)] == [15, 12]


@pytest.mark.parametrize("state", [{}, {"a": None}, {"a": {"b": 1}}, {"a": torch.ones(3)}])
def test_checkpoint_state_that_does_not_fit_is_refused(tmp_path: Path, state: dict) -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="does not fit this run"), fitting(tmp_path):
        layer.load_state_dict(state["a"])


def left_by_a_killed_process(name: str) -> str:
    """The name of a temporary file whose writer has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{temporary.MARK}{temporary.host()}-{ended.pid}-{name}-abcd1234.pt"


def test_a_half_written_file_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {}, keep=2)
    half = tmp_path / left_by_a_killed_process("writing.pt")
    half.write_bytes(b"half")
    (tmp_path / "writing.pt").write_bytes(b"half")
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5
    save_checkpoint(tmp_path, 6, {}, keep=2)  # each may be as large as a whole state: they go
    assert not (tmp_path / "writing.pt").exists() and not half.exists()


def test_nothing_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {"weights": torch.ones(100)}, keep=1)
    with (
        full_disk(),
        pytest.raises(
            UserError, match=r"step 10 cannot be written to .*No space left on device.*; make room"
        ),
    ):
        save_checkpoint(tmp_path, 10, {"weights": torch.zeros(100_000)}, keep=1)
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000005"]
    state = load_checkpoint(tmp_path)
    assert state is not None and state["weights"].all()
