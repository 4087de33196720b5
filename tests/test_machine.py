"""Cores and memory, also where the system keeps no list of cores and has no getrusage."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from zeroconv import machine


def test_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 4}, raising=False)
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()  # macOS, Windows


def test_peak_memory_is_in_bytes_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    held = bytearray(64 * 2**20)
    assert len(held) < machine.peak_memory() < psutil.virtual_memory().total
    monkeypatch.setitem(
        sys.modules,
        "resource",
        SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=7)),
    )
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.peak_memory() == 7
    monkeypatch.setitem(sys.modules, "resource", None)  # an import of it fails, as on Windows
    monkeypatch.setattr(
        psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=9))
    )
    assert machine.peak_memory() == 9
