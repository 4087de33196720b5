"""Threads that a recipe asks for: no more than the machine can use, and a note where they are
fewer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch

from zeroconv.training.execution import threads
from zeroconv.training.execution.threads import use_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_threads(3)
        assert torch.get_num_threads() == 3
        use_threads(None)
        assert torch.get_num_threads() == 3


def test_threads_beyond_the_cores_are_not_begun_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 1)
    with pytest.warns(
        UserWarning, match=r"training.threads is 1,024 and this machine has 1 cores .* so 4 threads"
    ):
        use_threads(1024)
    assert torch.get_num_threads() == 4
