"""A cache that several processes or machines fill: no picture twice, and all of it in the end."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny import tiny_backbone
from tests.helpers.tiny_cache import limit_shards, noise_pictures
from zeroconv.data import open_dataset
from zeroconv.data.cache import hints, moments, waiting
from zeroconv.data.cache.fill import CacheSettings, cache_examples, cache_hints, cache_share


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def dataset(tmp_path: Path):
    return open_dataset(noise_pictures(tmp_path, 14), condition="canny", size=32)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheSettings:
    limit_shards(monkeypatch, 2)
    return CacheSettings(tmp_path / "cache", workers=1)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many pictures each thread's name drew and encoded."""
    done: dict[str, list[int]] = {"drawn": [], "encoded": []}
    draw, encode = hints.draw_shards, moments._moments

    def counted(dataset, shards, workers):
        for shard, drawn in zip(shards, draw(dataset, shards, workers), strict=True):
            done["drawn"].extend(shard)
            time.sleep(0.05)
            yield drawn

    def encoded(backbone, pictures, size):
        done["encoded"].append(len(pictures))
        return encode(backbone, pictures, size)

    monkeypatch.setattr(hints, "draw_shards", counted)
    monkeypatch.setattr(moments, "_moments", encoded)
    return done


def test_shares_are_disjoint_and_together_all(
    dataset, settings: CacheSettings, backbone, work
) -> None:
    counts = [
        cache_share(dataset, backbone, replace(settings, rank=rank, world=3)) for rank in range(3)
    ]
    assert sum(counts) == 14 and min(counts) > 0
    assert sorted(work["drawn"]) == list(range(14))
    assert sum(work["encoded"]) == 14
    work["drawn"].clear()
    work["encoded"].clear()
    assert len(cache_examples(dataset, backbone, settings)) == 14
    assert work == {"drawn": [], "encoded": []}


def test_hints_alone_are_shared_out_too(dataset, settings: CacheSettings, backbone, work) -> None:
    assert (
        sum(cache_hints(dataset, replace(settings, rank=rank, world=2)) for rank in range(2)) == 14
    )
    assert sorted(work["drawn"]) == list(range(14))
    assert work["encoded"] == []


def test_processes_at_once_do_nothing_twice_and_get_the_same(
    dataset, settings: CacheSettings, backbone, work
) -> None:
    beside = replace(settings, root=settings.root.parent / "alone")
    alone = cache_examples(dataset, backbone, beside)
    work["drawn"].clear()
    work["encoded"].clear()
    examples_of = {}

    def run(rank: int) -> None:
        examples_of[rank] = cache_examples(dataset, backbone, replace(settings, rank=rank, world=2))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(work["drawn"]) == list(range(14))
    assert sum(work["encoded"]) == 14
    for rank in range(2):
        assert np.array_equal(examples_of[rank].moments[range(14)], alone.moments[range(14)])
        assert np.array_equal(examples_of[rank].hints[range(14)], alone.hints[range(14)])
        assert examples_of[rank].prompts(range(14)) == alone.prompts(range(14))


def test_what_another_process_leaves_is_done(
    dataset, settings: CacheSettings, backbone, work, monkeypatch
) -> None:
    wait = waiting.wait
    monkeypatch.setattr(waiting, "wait", lambda keys, done, patience: wait(keys, done, 0.1))
    assert len(cache_examples(dataset, backbone, replace(settings, rank=1, world=2))) == 14
    assert sorted(work["drawn"]) == list(range(14))
