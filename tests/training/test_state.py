"""Checkpoints: whole or not there, the last ones kept, every random generator restored."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.full_disk import full_disk
from zeroconv.errors import UserError
from zeroconv.training.state import checkpoints, load_checkpoint, save_checkpoint, told_apart


def test_what_a_run_goes_on_with_is_compared_with_what_it_was() -> None:
    before = {"processes": 2, "pictures": 90, "data": "a"}
    assert told_apart(before, dict(before)) == told_apart(None, before) == []
    (line,) = told_apart(before, {**before, "processes": 1})
    assert "2 processes and goes on with 1" in line
    (line,) = told_apart(before, {**before, "pictures": 91, "data": "b"})
    assert "90 pictures, now 91" in line
    assert len(told_apart(before, {"processes": 4, "pictures": 90, "data": "b"})) == 2


def draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_a_state_comes_back_with_its_random_generators(tmp_path: Path) -> None:
    draw()
    weights = torch.randn(4, 3)
    save_checkpoint(tmp_path, 7, {"weights": weights, "best": {"step": 3, "true": 0.5}, "last": None}, keep=2)
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


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"weights": torch.ones(100)}, keep=2)
    newest = checkpoints(tmp_path)[0]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5


def test_a_half_written_file_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {}, keep=2)
    (tmp_path / ".writing.pt.abc.pt").write_bytes(b"half")
    (tmp_path / "writing.pt").write_bytes(b"half")
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5
    save_checkpoint(tmp_path, 6, {}, keep=2)  # each may be as large as a whole state: they go
    assert not (tmp_path / "writing.pt").exists() and not list(tmp_path.glob(".writing*"))


def test_nothing_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {"weights": torch.ones(100)}, keep=1)
    with (
        full_disk(),
        pytest.raises(UserError, match=r"step 10 cannot be written to .*No space left on device.*; make room"),
    ):
        save_checkpoint(tmp_path, 10, {"weights": torch.zeros(100_000)}, keep=1)
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-00000005"]
    state = load_checkpoint(tmp_path)
    assert state is not None and state["weights"].all()
