"""The collector of cycles stands still while a command loads, and only then."""

from __future__ import annotations

import gc

import pytest

from zeroconv import collector
from zeroconv.collector import collect_again, uncollected


@pytest.fixture(autouse=True)
def never_stopped(monkeypatch):
    monkeypatch.setattr(collector, "_stopped", [])
    monkeypatch.setattr(gc, "freeze", lambda: None)  # for the other tests of this process
    yield
    gc.enable()


def test_the_collector_stops_once_and_runs_again_when_asked():
    with uncollected():
        assert not gc.isenabled()
        collect_again()
        assert gc.isenabled()
    with uncollected():
        assert gc.isenabled(), "a second time would keep cycles of the first for good"


def test_the_collector_runs_again_after_an_error():
    with pytest.raises(ValueError), uncollected():
        raise ValueError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    with uncollected():
        collect_again()
        assert not gc.isenabled()
    assert not gc.isenabled()
