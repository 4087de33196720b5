"""Compiled graphs on disk: read as they were written, made again where damaged, bounded."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from torch import nn

from zeroconv.generation.engines import content, store


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path))
    return tmp_path / "engines"


def write(name: str, about: dict, blob: bytes) -> None:
    store.write(name, about, len(blob), lambda: memoryview(blob))


def test_graph_is_read_as_it_was_written():
    assert store.read("a") is None
    write("a", {"inputs": ["z"]}, b"graph" * 1000)
    about, blob = store.read("a")
    assert about == {"inputs": ["z"]} and bytes(blob) == b"graph" * 1000
    assert blob.offset % 4096 == 0


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:-1] + b"x", lambda d: b"", lambda d: b"{}"]
)
def test_damaged_graph_is_made_again_with_a_note(cache, damage):
    write("a", {}, b"graph")
    path = cache / "a.graph"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged; it is made again"):
        assert store.read("a") is None


def test_graphs_used_last_stay_within_the_bound(cache, monkeypatch):
    monkeypatch.setenv(store.BOUND, "0.00003")  # 30 kB: three files of 4 kB and 5 kB
    for name in "abc":
        write(name, {}, b"x" * 5000)
        for path in cache.glob("*.graph"):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 1000))
    store.read("a")  # it is used, so b goes first
    write("d", {}, b"x" * 5000)
    assert {path.stem for path in cache.glob("*.graph")} == {"a", "c", "d"}
    monkeypatch.setenv(store.BOUND, "0.000001")
    with pytest.warns(UserWarning, match=r"is not kept.*raise ZEROCONV_ENGINES_GB"):
        write("e", {}, b"x" * 5000)


def test_graph_that_cannot_be_written_is_a_note(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be kept.*ZEROCONV_CACHE"):
        write("a", {}, b"x")


def test_content_changes_with_weights_config_and_classes():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2))
    first = content.content_of(layer)
    assert content.content_of(layer) == first
    with torch.no_grad():
        layer[1].bias[0] += 1  # in place
    assert content.content_of(layer) != first
    with torch.no_grad():
        layer[1].bias[0] -= 1
    assert content.content_of(layer) == first
    layer[1].bias.data = layer[1].bias.data.clone() + 1
    changed = content.content_of(layer)
    assert changed != first
    layer.config = {"a": 1}
    layer[0] = layer[0].to(memory_format=torch.channels_last)
    assert content.content_of(layer) not in (first, changed)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity())
    assert content.content_of(other) != content.content_of(nn.Sequential(other[0], nn.SiLU()))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        assert len(content.content_of(nn.Linear(2, 2))) == 64
