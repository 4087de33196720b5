"""Every test draws the same numbers on every run, in whichever order and process it comes."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

# Hypothesis draws the same examples on every run; `make fuzz` draws others.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")


def seed_by(name: str) -> None:
    """Seed the global generators of torch, NumPy and Python by a name."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    seed_by(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Iterator[None]:
    """Fixtures that several tests share do not depend on the test that comes first."""
    if fixturedef.scope == "function":
        return (yield)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    index = getattr(request, "param_index", 0)
    seed_by(f"{fixturedef.baseid}::{fixturedef.argname}[{index}]")
    try:
        return (yield)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
