"""The cache: equal to what it stands for, found again, rebuilt only where the data changed, whole
after a crash.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from tests.helpers.tiny import randomise_, tiny_backbone
from tests.helpers.tiny_cache import limit_shards, noise_pictures
from zeroconv.backbones import TextStates
from zeroconv.control import ControlNet
from zeroconv.data import open_dataset
from zeroconv.data.batches import Batch, channels_first
from zeroconv.data.cache.fill import CacheSettings, cache_examples, cache_hints
from zeroconv.data.cache.moments import encoder_key, to_images
from zeroconv.data.cache.weights import weights_key
from zeroconv.data.storage.shards import Store, content_key
from zeroconv.errors import UserError
from zeroconv.training.objective import ControlledLoss, stream


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return noise_pictures(tmp_path, 7, captions=3)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheSettings:
    # several shards out of seven pictures, of three at most
    limit_shards(monkeypatch, 3)
    return CacheSettings(tmp_path / "cache", flip=True)


def test_cached_equals_live(pictures: Path, settings: CacheSettings, backbone) -> None:
    dataset = open_dataset(pictures, condition="canny", size=32)
    examples = cache_examples(dataset, backbone, settings)
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    # a batch of another size may be summed in another order: the last bit is not promised
    for i in (0, 4, 6):
        pixels = np.asarray(dataset[i].image)[None]
        close(torch.from_numpy(examples.moments[[i]]), backbone.encode_image(to_images(pixels)))
        assert examples.mirrored is not None
        close(
            torch.from_numpy(examples.mirrored[[i]]),
            backbone.encode_image(to_images(pixels[:, :, ::-1])),
        )
        assert np.array_equal(examples.hints[[i]][0], np.asarray(dataset[i].hint)[..., 0])
        close(
            examples.text.states(examples.captions[i]).hidden,
            backbone.embed_text([dataset[i].caption]).hidden,
        )
    close(examples.text.states([0]).hidden, backbone.embed_text([""]).hidden)
    assert examples.hints[[0]].any()
    assert len(examples.text.captions) == 4  # three different captions and the empty prompt


def test_a_cached_loss_is_the_live_one_bit_for_bit(
    pictures: Path, settings, backbone, monkeypatch
) -> None:
    limit_shards(monkeypatch, 256)
    # a shard: encoded together
    dataset, rows = open_dataset(pictures, condition="canny", size=32), np.arange(7)
    examples = cache_examples(dataset, backbone, settings)
    loss = ControlledLoss(backbone, randomise_(ControlNet.from_backbone(backbone)))
    words = [int(examples.captions[i][0]) for i in rows]
    cached = Batch(
        torch.from_numpy(examples.moments[rows]),
        channels_first(examples.hints[rows]),
        examples.text.states(words),
        rows,
    )
    moments = backbone.encode_image(
        to_images(np.stack([np.asarray(dataset[i].image) for i in rows]))
    )
    hidden = backbone.embed_text(list(examples.text.captions)).hidden[words]
    hints = channels_first(np.stack([np.asarray(dataset[i].hint)[..., 0] for i in rows]))
    live = Batch(moments, hints, TextStates(hidden), rows)
    for step in range(3):  # the same sample of the posterior, timesteps and noise
        got, wanted = (loss(batch, stream("cpu", step)) for batch in (cached, live))
        assert torch.equal(got, wanted)
    assert not torch.equal(loss(cached, stream("cpu", 0)), loss(cached, stream("cpu", 1)))


def test_how_weights_lie_in_memory_does_not_name_them(backbone) -> None:
    there, modules = tiny_backbone(), [torch.nn.Conv2d(4, 8, 1), torch.nn.Conv2d(4, 8, 3)]
    before = weights_key(modules)
    for module in modules:
        module.to(memory_format=torch.channels_last)
    assert weights_key(modules) == before
    there.vae.to(memory_format=torch.channels_last)
    assert encoder_key(there) == encoder_key(backbone)


def test_a_second_run_computes_nothing(
    pictures: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    dataset = open_dataset(pictures, condition="canny", size=32)
    before = cache_examples(dataset, backbone, settings)
    calls = _count(monkeypatch, backbone)
    after = cache_examples(dataset, backbone, settings)
    assert calls == {"draw": 0, "encode": 0, "text": 0}
    assert np.array_equal(before.moments[range(7)], after.moments[range(7)])


def test_only_what_changed_is_computed_again(
    pictures: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    cache_examples(open_dataset(pictures, condition="canny", size=32), backbone, settings)
    Image.new("RGB", (32, 32), "red").save(pictures / "4.png")
    calls = _count(monkeypatch, backbone)
    changed = cache_examples(open_dataset(pictures, condition="canny", size=32), backbone, settings)
    # a shard: as it is and mirrored
    assert calls["text"] == 0 and 1 <= calls["draw"] <= 3 and calls["encode"] == 2
    red = to_images(np.asarray(Image.new("RGB", (32, 32), "red"))[None])
    assert torch.allclose(
        torch.from_numpy(changed.moments[[4]]), backbone.encode_image(red), atol=1e-6
    )


def test_a_picture_put_in_front_makes_no_other_shards(
    tmp_path: Path, settings, backbone, monkeypatch
) -> None:
    limit_shards(monkeypatch, 8)
    rng, lines = np.random.default_rng(2), []
    for i in range(64):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i:02d}.png")
        lines.append({"file_name": f"{i:02d}.png", "text": f"picture {i}"})

    def cached(lines: list[dict]):
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return cache_examples(
            open_dataset(tmp_path, condition="canny", size=32), backbone, settings
        )

    before = cached(lines[1:])
    calls = _count(monkeypatch, backbone)
    after = cached(lines)
    # of 64, as they are and mirrored
    assert calls["draw"] <= 24 and calls["encode"] <= 6 and calls["text"] <= 3
    assert after.prompts(range(64)) == [f"picture {i}" for i in range(64)]
    assert np.array_equal(after.moments[range(20, 64)], before.moments[range(19, 63)])
    rows = [int(row) for i in range(64) for row in after.captions[i]]
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(
        after.text.states(rows).hidden,
        backbone.embed_text([f"picture {i}" for i in range(64)]).hidden,
    )
    calls.update(draw=0, encode=0)
    assert len(cached(lines[:30] + lines[31:])) == 63
    assert calls["draw"] <= 24 and calls["encode"] <= 6


def test_two_conditions_share_their_moments(
    pictures: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    dataset = open_dataset("playroom:train:4", condition="canny", size=64)
    cache_examples(dataset, backbone, settings)
    calls = _count(monkeypatch, backbone)
    depth = cache_examples(
        open_dataset("playroom:train:4", condition="depth", size=64), backbone, settings
    )
    assert calls == {"draw": 4, "encode": 0, "text": 0}
    assert len(depth.hints) == 4


def test_hints_drawn_ahead_are_used(settings: CacheSettings, backbone, monkeypatch) -> None:
    dataset = open_dataset("playroom:train:4", condition="canny", size=64)
    assert cache_hints(dataset, settings) == 4
    calls = _count(monkeypatch, backbone)
    cache_examples(dataset, backbone, settings)
    assert calls["draw"] == 0
    assert calls["encode"] > 0


def test_cache_of_another_autoencoder_has_other_moments(
    pictures: Path, settings: CacheSettings, backbone
) -> None:
    dataset = open_dataset(pictures, condition="canny", size=32)
    one = cache_examples(dataset, backbone, settings)
    other = cache_examples(dataset, tiny_backbone(seed=9), settings)
    assert not np.allclose(one.moments[[0]], other.moments[[0]])


def test_broken_pictures_are_set_aside(pictures: Path, settings: CacheSettings, backbone) -> None:
    (pictures / "2.png").write_bytes(b"oops")
    (pictures / "5.png").unlink()
    examples = cache_examples(
        open_dataset(pictures, condition="canny", size=32), backbone, settings
    )
    assert len(examples) == len(examples.moments) == len(examples.hints) == 5
    assert sorted(examples.broken) == ["2.png", "5.png"]
    assert examples.prompts([2]) == ["picture 0"]  # picture 3 has moved up


def test_nothing_usable_is_one_sentence(pictures: Path, settings: CacheSettings, backbone) -> None:
    for picture in pictures.glob("*.png"):
        picture.write_bytes(b"oops")
    with pytest.raises(UserError, match="no picture of the data set can be used"):
        cache_examples(open_dataset(pictures, condition="canny", size=32), backbone, settings)
    with pytest.raises(UserError, match="a multiple of 8"):
        cache_examples(open_dataset(pictures, condition="canny", size=30), backbone, settings)


def test_a_full_disk_is_one_sentence(
    pictures: Path, settings: CacheSettings, backbone, monkeypatch
) -> None:
    data = open_dataset(pictures, condition="canny", size=32)

    def full(*args, **kwargs):  # what it says on a tmpfs of 4 MB; no OSError
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(
            UserError, match=r"cannot be written \(.*No space left on device.*\); make room"
        ):
            cache_examples(data, backbone, settings)
    assert len(cache_examples(data, backbone, settings)) == len(data)


def test_a_shard_cut_short_is_made_again(pictures: Path, settings: CacheSettings, backbone) -> None:
    dataset = open_dataset(pictures, condition="canny", size=32)
    hints = cache_examples(dataset, backbone, settings).hints[range(7)].copy()
    path = sorted((settings.root / "hints").rglob("*.safetensors"))[0]  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(cache_examples(dataset, backbone, settings).hints[range(7)], hints)


def test_arrays_come_back_from_a_store(tmp_path: Path) -> None:
    store, key = Store(tmp_path, "things"), content_key("a", 1)
    arrays = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 4), np.uint8),
    }
    store.write(key, arrays, {"names": ["é"]})
    shard = store.read(key)
    assert isinstance(shard.arrays["x"][1:], np.memmap)
    assert all(np.array_equal(shard.arrays[name], array) for name, array in arrays.items())
    assert shard.note == {"names": ["é"]}


def test_worker_processes_draw_the_same(settings: CacheSettings, tmp_path: Path) -> None:
    from zeroconv.data.cache.drawing import draw_shards

    dataset = open_dataset("playroom:train:140", condition="canny", size=64)
    parts = [range(70), range(70, 140)]
    alone, together = (list(draw_shards(dataset, parts, workers)) for workers in (1, 2))
    pairs = (
        pair for shards in zip(alone, together, strict=True) for pair in zip(*shards, strict=True)
    )
    for a, b in pairs:
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.hint, b.hint)
        assert a.text == b.text


def _count(monkeypatch: pytest.MonkeyPatch, backbone) -> dict[str, int]:
    from zeroconv.data.cache import drawing

    calls = {"draw": 0, "encode": 0, "text": 0}
    for name, owner, attribute in (
        ("draw", drawing, "draw"),
        ("encode", backbone, "encode_image"),
        ("text", backbone, "embed_text"),
    ):
        original = getattr(owner, attribute)

        def counted(*args, name=name, original=original):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, attribute, counted)
    return calls
