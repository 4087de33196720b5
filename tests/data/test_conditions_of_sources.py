"""Sources with conditions of their own, exact maps, scenes chosen by what they hold, hints with a
hole.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import tiny_backbone
from zeroconv import playroom
from zeroconv.conditions import CONDITIONS, annotate, maps, openpose, pose
from zeroconv.data import open_dataset
from zeroconv.data.batches import BatchPlan, channels_first, hints_to_float, mirror_of, mirrors_of
from zeroconv.data.cache.drawing import draw
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.data.cache.keys import drawing_key
from zeroconv.data.sources.generated import EXACT
from zeroconv.errors import UserError


def test_sources_may_have_a_condition_each():
    data = open_dataset(
        "playroom:test:2?condition=canny + playroom:test:2?condition=normal&only=person + "
        "stickers?limit=1",
        condition="softedge", size=64,
    )  # fmt: skip
    assert [data.condition_of(i) for i in range(5)] == [
        "canny",
        "canny",
        "normal",
        "normal",
        "softedge",
    ]
    assert data[0].hint.tobytes() == annotate("canny", data[0].image).tobytes()
    assert (
        np.asarray(data[2].hint)
        == maps.normal_to_hint(playroom.render(int(data.name(2)[6:]), 64).normal)
    ).all()
    assert data[4].hint.tobytes() == annotate("softedge", data[4].image).tobytes()
    with pytest.raises(UserError, match="did you mean"):
        open_dataset("playroom:test:2?condition=cany")


def test_scenes_are_chosen_by_what_they_hold():
    data = open_dataset("playroom:test:12?only=person", condition="pose", size=64)
    assert len(data) == 12
    for example in data:
        assert (
            example.people
            and (np.asarray(example.hint) == pose.draw_people(example.people, (64, 64))).all()
        )
    with pytest.raises(UserError, match="only from"):
        open_dataset("playroom:test:12?only=dog")


def test_every_exact_map_is_the_scene_s():
    scene = playroom.render(9_000_005)
    truth = {
        "depth": maps.depth_to_hint(scene.depth),
        "segmentation": maps.classes_to_hint(scene.segmentation),
    }
    for condition, wanted in truth.items():
        hint = np.asarray(
            open_dataset("playroom:test:1?start=5", condition=condition, size=128)[0].hint
        )
        assert (hint == (wanted if wanted.ndim == 3 else wanted[..., None])).all()
    assert set(EXACT) == {c.name for c in CONDITIONS.values() if c.needs_weights}
    assert len({drawing_key(name) for name in CONDITIONS}) == len(CONDITIONS)
    assert drawing_key("nothing we know") is None


def test_joints_follow_the_crop(tmp_path):
    person = np.zeros((18, 3), np.float32)
    person[:, 0], person[:, 1], person[:, 2] = np.linspace(5, 195, 18), 50, 1
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(
        json.dumps(openpose.to_openpose([person * (0.5, 0.5, 1)], (100, 50)))
    )
    line = {"file_name": "a.png", "text": "x", "conditioning_image": "a.png", "pose": "a.json"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
    (moved,) = open_dataset(tmp_path, condition="pose", size=50)[0].people
    inside = (person[:, 0] >= 50) & (person[:, 0] < 150)
    assert (moved[:, 2] > 0).tolist() == inside.tolist()
    assert np.allclose(moved[inside, 0], (person[inside, 0] - 50) / 2, atol=0.01) and np.allclose(
        moved[inside, 1], 25
    )


def test_a_hole_reaches_the_network_as_minus_one():
    data = open_dataset("playroom:test:1", condition="inpaint", size=64)
    drawn = draw(data, 0)
    assert drawn.hint.shape == (64, 64, 4)
    hint = hints_to_float(channels_first(drawn.hint[None]))
    hole = torch.from_numpy(drawn.hint[..., 3] == 0)
    assert (
        hint.shape == (1, 3, 64, 64)
        and (hint[0, :, hole] == -1).all()
        and (hint[0, :, ~hole] >= 0).all()
    )
    assert hints_to_float(torch.full((2, 1, 4, 4), 255)).shape == (2, 3, 4, 4)


def test_batch_mirrors_hints_by_their_condition_s_rule():
    assert BatchPlan.__dataclass_fields__["mirror"].default(
        np.arange(6).reshape(2, 3)
    ).tolist() == [
        [2, 1, 0],
        [5, 4, 3],
    ]
    left = np.zeros((2, 4, 3), np.uint8)
    left[:, 0] = (255, 128, 128)  # faces left, stands left
    turned = CONDITIONS["normal"].mirror(left)
    assert (turned[:, 3] == (0, 128, 128)).all()
    # a shard of poses without people, of blank normals
    grey = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert all(
        (CONDITIONS[name].mirror(grey) == grey[:, ::-1]).all() for name in ("pose", "normal")
    )


def test_hints_of_several_conditions_are_mirrored_by_the_rule_of_each(tmp_path):
    data = open_dataset(
        "playroom:test:2?condition=normal + playroom:test:2?condition=canny",
        condition="depth",
        size=64,
    )
    examples = cache_examples(data, tiny_backbone(), CacheSettings(tmp_path, workers=1, flip=True))
    assert list(examples.conditions) == ["normal", "normal", "canny", "canny"]
    plan = BatchPlan(
        examples,
        4,
        flip=True,
        mirror=mirror_of("depth"),
        mirrors=mirrors_of(set(examples.conditions)),
    )
    plain, seen = BatchPlan(examples, 4), set()
    for step in range(8):
        batch, straight = plan.batch(step), plain.batch(step)
        for row, i in enumerate(batch.indices):
            hint, before = (np.moveaxis(b.hints[row].numpy(), 0, -1) for b in (batch, straight))
            if not np.array_equal(hint, before):
                wanted = CONDITIONS[data.condition_of(int(i))].mirror(before)
                assert np.array_equal(hint, wanted)
                seen.add(int(i))
    assert seen == {0, 1, 2, 3}
    never = BatchPlan(examples, 4, flip=True, mirrors={"normal": None})
    for step in range(4):
        batch, straight = never.batch(step), plain.batch(step)
        for row, i in enumerate(batch.indices):
            assert i > 1 or torch.equal(batch.moments[row], straight.moments[row])
