"""What `tests/conftest.py` promises: numbers that do not depend on the run or on other tests."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
import torch

from tests.conftest import seed_by


@pytest.fixture(scope="module")
def shared() -> float:
    return float(torch.rand(()))


def test_seeds_of_all_generators_are_the_test_s_name(request: pytest.FixtureRequest) -> None:
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    assert torch.initial_seed() == zlib.crc32(request.node.nodeid.encode())
    seed_by(request.node.nodeid)
    assert drawn == (random.random(), float(np.random.rand()), float(torch.rand(())))


def test_seeds_are_not_moved_by_a_shared_fixture(
    shared: float, request: pytest.FixtureRequest
) -> None:
    drawn = float(torch.rand(()))
    seed_by(request.node.nodeid)
    assert drawn == float(torch.rand(())) != shared
