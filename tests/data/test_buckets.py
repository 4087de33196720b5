"""Aspect-ratio buckets: shapes, hints that stay with their pictures, and batches of one shape that
lose nothing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl
from tests.helpers.tiny_cache import limit_shards
from zeroconv.conditions.maps import PLAYROOM_COLOURS
from zeroconv.data import open_dataset
from zeroconv.data.batches import BatchPlan
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache import hints
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.data.cache.moments import to_images
from zeroconv.data.dataset import Dataset
from zeroconv.data.fitting import BrokenExample
from zeroconv.errors import UserError

SHAPES = [(96, 96)] * 5 + [(160, 80)] * 7 + [(70, 140)] * 4 + [(200, 60)] * 1 + [(64, 64)] * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several shapes. A hint is its picture with fewer colours, so that any shift
    between them shows.
    """
    rng, lines = np.random.default_rng(0), []
    for i, (width, height) in enumerate(SHAPES):
        away = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) - rng.uniform(
            20, 50, 2
        )
        inside = np.hypot(*np.moveaxis(away, -1, 0)) < 18
        Image.fromarray((inside * 200 + 20).astype(np.uint8)).convert("RGB").save(
            tmp_path / f"{i}.png"
        )
        colours = np.array(PLAYROOM_COLOURS, np.uint8)[inside * 3]
        Image.fromarray(colours).save(tmp_path / f"{i}-hint.png")
        lines.append(
            {"file_name": f"{i}.png", "text": f"{i}", "conditioning_image": f"{i}-hint.png"}
        )
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def opened(folder: Path, **options) -> Dataset:
    buckets = Buckets.of(64, **options)
    return open_dataset(folder, condition="segmentation", size=64, buckets=buckets)


@pytest.mark.parametrize(("size", "share"), [(128, 0.86), (512, 0.86), (768, 0.90), (1024, 0.92)])
def test_shapes_have_about_one_area_and_little_is_cut_off(size: int, share: float) -> None:
    buckets = Buckets.of(size)
    assert (size, size) in buckets.frames
    for width, height in buckets.frames:
        assert width % buckets.step == height % buckets.step == 0
        assert size // 2 <= min(width, height)
        assert max(width, height) <= 2 * size
        assert 0.75 * size**2 <= width * height <= size**2
        assert (height, width) in buckets.frames
    for ratio in np.exp(np.linspace(-math.log(4), math.log(4), 301)):
        width, height = buckets.frame(
            round(4000 * math.sqrt(ratio)), round(4000 / math.sqrt(ratio))
        )
        kept = min(ratio / (width / height), width / height / ratio)
        assert kept > share


def test_settings_that_leave_no_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"step 64 ≤ min_side 32"):
        Buckets.of(512, min_side=32)
    with pytest.raises(UserError, match="multiple of 8"):
        Buckets.of(512, step=60)


def test_buckets_keep_a_picture_s_shape_and_its_hint_aligned(folder: Path) -> None:
    dataset, seen = opened(folder, step=8), set()
    for i, (width, height) in enumerate(SHAPES):
        example = dataset[i]
        assert example.image.size == example.hint.size == dataset.frame(i)
        assert abs(math.log(example.image.width / example.image.height / (width / height))) < 0.13
        seen.add(example.image.size)
        disc = np.asarray(example.image)[..., 0] > 120
        hint = np.asarray(example.hint)
        assert {tuple(c) for c in hint.reshape(-1, 3)} <= {
            tuple(c) for c in np.array(PLAYROOM_COLOURS)[[0, 3]]
        }
        shown = (hint == PLAYROOM_COLOURS[3]).all(-1)
        # nearest neighbour moves an edge by half a pixel
        assert (disc & shown).sum() / (disc | shown).sum() > 0.93
    assert len(seen) == 4
    assert opened(folder, step=8, upscale=True).frame(19) == (64, 64)


def test_without_buckets_pictures_are_middle_squares(folder: Path) -> None:
    dataset = open_dataset(folder, condition="segmentation", size=64)
    assert {dataset[i].image.size for i in range(len(dataset))} == {(64, 64)}


def test_nothing_is_enlarged_unless_wanted(tmp_path: Path) -> None:
    sizes = [(60, 44), (64, 64), (500, 500), (33, 300), (30, 90), (300, 31)]
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    (tmp_path / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{i}.png", "text": ""}) for i in range(len(sizes)))
    )
    dataset = open_dataset(tmp_path, size=64, condition="canny", buckets=Buckets.of(64, step=8))
    shapes = [dataset[i].image.size for i in range(4)]
    assert shapes[:3] == [(56, 40), (64, 64), (64, 64)]
    assert shapes[3] == (32, 128)
    for i in (4, 5):
        assert dataset.frame(i) is None
        with pytest.raises(BrokenExample, match=r"sides of 32 or more"):
            dataset[i]
    larger = open_dataset(tmp_path, size=64, buckets=Buckets.of(64, step=8, upscale=True))
    assert all(larger.frame(i) for i in range(6))


# ---------------------------------------------------------------- cache


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheSettings:
    limit_shards(monkeypatch, 3)
    return CacheSettings(tmp_path / "cache", workers=1, flip=True)


def test_the_cache_holds_every_shape(
    folder: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    dataset = opened(folder, step=8)
    data = cache_examples(dataset, backbone, settings)
    assert len(data) == len(SHAPES)
    assert sorted(np.concatenate(data.buckets)) == list(range(len(SHAPES)))
    assert sorted(map(len, data.buckets)) == [1, 4, 7, 8]
    names = {caption: i for i, caption in enumerate(data.prompts(range(len(data))))}
    for i in range(len(SHAPES)):
        row = [names[str(i)]]
        live = backbone.encode_image(to_images(np.asarray(dataset[i].image)[None]))
        torch.testing.assert_close(torch.from_numpy(data.moments[row]), live, rtol=1e-3, atol=2e-4)
        assert np.array_equal(data.hints[row][0], np.asarray(dataset[i].hint))
    monkeypatch.setattr(
        hints,
        "draw_shards",
        lambda dataset, shards, workers: iter(()) if not shards else None,
    )
    monkeypatch.setattr(backbone, "encode_image", None)
    again = cache_examples(dataset, backbone, settings)
    assert all(np.array_equal(a, b) for a, b in zip(again.buckets, data.buckets, strict=True))


def test_square_pictures_share_their_cache_with_runs_without_buckets(
    folder: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    lines = (folder / "metadata.jsonl").read_text().splitlines()[:5]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    plain = open_dataset(folder, condition="segmentation", size=64)
    cache_examples(plain, backbone, settings)
    monkeypatch.setattr(backbone, "encode_image", None)
    assert len(cache_examples(opened(folder), backbone, settings).buckets) == 1


def test_broken_pictures_are_set_aside_and_the_others_stay_in_order(
    folder: Path, settings: CacheSettings, backbone
) -> None:
    for i in (1, 6, 16):
        (folder / f"{i}.png").write_bytes(b"no picture")
    data = cache_examples(opened(folder, step=8), backbone, settings)
    assert sorted(data.broken) == ["1.png", "16.png", "6.png"]
    assert len(data) == len(SHAPES) - 3
    for row, caption in enumerate(data.prompts(range(len(data)))):
        width, height = SHAPES[int(caption)]
        latent = data.moments[[row]].shape
        assert abs(math.log(latent[3] / latent[2] / (width / height))) < 0.13


# ---------------------------------------------------------------- batches


def tell(plan: BatchPlan, steps: int) -> list[list[int]]:
    return [plan.order(step).tolist() for step in range(steps)]


@pytest.fixture
def data(folder: Path, settings: CacheSettings, backbone) -> Examples:
    return cache_examples(opened(folder, step=8), backbone, settings)


def test_a_batch_has_one_shape_and_no_picture_is_lost_or_favoured(data: Examples) -> None:
    plan = BatchPlan(data, batch_size=3, seed=4)
    bucket_of = {int(i): number for number, bucket in enumerate(data.buckets) for i in bucket}
    passes, seen, steps = 30, Counter(), 0
    order = tell(plan, 220)
    for indices in order:
        assert len(indices) == 3
        assert len({bucket_of[i] for i in indices}) == 1
    # by the end of each pass every bucket lacks at most what fills no batch
    for number in range(1, passes + 1):
        until = sum(number * len(b) // 3 for b in data.buckets)
        seen.update(i for indices in order[steps:until] for i in indices)
        steps = until
        for bucket in data.buckets:
            counts = [seen[int(i)] for i in bucket]
            assert max(counts) - min(counts) <= 1
            assert number * len(bucket) - sum(counts) < 3
            assert max(counts) <= number
    # 3 divides 30 times any number
    assert [seen[int(i)] for i in range(len(data))] == [30] * len(data)
    # shuffled
    assert len({tuple(bucket_of[i[0]] for i in order[k : k + 6]) for k in range(0, 210, 7)}) > 10


def test_processes_share_a_batch_of_one_shape(data: Examples) -> None:
    parts = [
        tell(BatchPlan(data, batch_size=2, seed=4, rank=rank, world=2), 40) for rank in range(2)
    ]
    bucket_of = {int(i): number for number, bucket in enumerate(data.buckets) for i in bucket}
    for first, second in zip(*parts, strict=True):
        assert len({bucket_of[i] for i in first + second}) == 1
        # else a batch may reach over the end of a pass
        if len(data.buckets[bucket_of[first[0]]]) % 4 == 0:
            assert not set(first) & set(second)
    together = Counter(i for part in parts for indices in part for i in indices)
    assert max(together.values()) - min(together.values()) <= 2


def test_the_order_is_a_function_of_seed_and_step(data: Examples) -> None:
    plan = BatchPlan(data, batch_size=3, seed=4)
    order = tell(plan, 30)
    for step in (29, 0, 17, 17, 3):
        assert BatchPlan(data, batch_size=3, seed=4).order(step).tolist() == order[step]
    assert tell(BatchPlan(data, batch_size=3, seed=5), 30) != order


def test_repeats_count_in_their_bucket(data: Examples) -> None:
    data.repeats = np.ones(len(data), int)
    data.repeats[data.buckets[0]] = 4
    plan = BatchPlan(data, batch_size=2, seed=1)
    total = int(data.repeats.sum())
    seen = Counter(i for indices in tell(plan, total) for i in indices)  # two passes
    for i in range(len(data)):
        assert abs(seen[i] - 2 * data.repeats[i]) <= 2
    assert min(seen[int(i)] for i in data.buckets[0]) >= 7


def test_batches_hold_what_belongs_together(data: Examples) -> None:
    plan = BatchPlan(data, batch_size=3, prompt_dropping=0, flip=True)
    for step in range(12):
        batch = plan.batch(step)
        assert batch.hints.shape[-2:] == tuple(8 * side for side in batch.moments.shape[-2:])
        plain, mirrored = data.moments[batch.indices], data.mirrored[batch.indices]
        for row in range(3):
            assert np.array_equal(batch.moments[row], plain[row]) or np.array_equal(
                batch.moments[row], mirrored[row]
            )


def test_buckets_give_the_size_to_a_base_that_takes_it(
    folder: Path, settings: CacheSettings
) -> None:
    data = cache_examples(opened(folder, step=8), tiny_backbone_xl(), settings)
    for step in range(12):
        batch = BatchPlan(data, batch_size=2).batch(step)
        height, width = batch.hints.shape[-2:]
        for ids in batch.text.time_ids.tolist():
            original, crop, target = ids[:2], ids[2:4], ids[4:]
            scale = max(height / original[0], width / original[1])
            spare = [round(side * scale) - t for side, t in zip(original, target, strict=True)]
            assert target == [height, width]
            assert crop == [s // 2 for s in spare]
