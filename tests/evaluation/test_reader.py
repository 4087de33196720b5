"""The embedded reader on real scenes, and how people's targets and their decoding fit together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroconv import playroom
from zeroconv.conditions import CONDITIONS
from zeroconv.conditions.pose import mirror_people
from zeroconv.conditions.scores import average_precision
from zeroconv.data.sources.generated import open_scenes
from zeroconv.evaluation import reader
from zeroconv.evaluation.metrics import summarise
from zeroconv.evaluation.reader import ASSET, find_people, load_reader, read
from zeroconv.scratch.reader import ReaderConfig, alter, draw_batch, losses_of, people_targets


@pytest.fixture(scope="module")
def scenes():
    return [playroom.render(seed) for seed in open_scenes("val", 12, 70_000, "person").seeds]


@pytest.fixture(scope="module")
def readings(scenes):
    return read([scene.image for scene in scenes])


def test_it_reads_real_scenes_well(scenes, readings):
    def mean(condition, metric):
        truths = [s.keypoints if condition == "pose" else getattr(s, condition) for s in scenes]
        reads = getattr(readings, condition)
        stats = [
            CONDITIONS[condition].score(t, r)[metric] for t, r in zip(truths, reads, strict=True)
        ]
        return summarise(stats, {"miou": "ratio", "pck": "ratio"}.get(metric, "mean"))["mean"]

    assert mean("depth", "delta1") > 0.97 and mean("normal", "angle") < 8
    assert mean("segmentation", "miou") > 0.8 and mean("pose", "pck") > 0.93
    assert ASSET.stat().st_size < 8 * 2**20


def test_the_same_pictures_are_read_once(scenes, readings, monkeypatch):
    images = [scene.image for scene in scenes]
    assert read([image.copy() for image in images]) is readings  # by what they show
    other = read(images[::-1])
    assert np.array_equal(other.segmentation, readings.segmentation[::-1])
    with pytest.raises(ValueError, match="read-only"):
        readings.depth[:] = 0
    monkeypatch.setattr(reader, "KEPT_BYTES", 1)  # room for the last one alone
    assert read(images) is readings and list(reader._kept.values()) == [readings]
    again = read(images[::-1])
    assert again is not other and np.array_equal(again.segmentation, other.segmentation)
    assert read(images, load_reader()) is not readings  # one that is given may have learned since


def test_another_scene_is_read_as_another(scenes, readings):
    score = CONDITIONS["segmentation"].score
    same = [
        score(s.segmentation, r)["accuracy"]
        for s, r in zip(scenes, readings.segmentation, strict=True)
    ]
    other = [
        score(s.segmentation, r)["accuracy"]
        for s, r in zip(scenes[1:], readings.segmentation[:-1], strict=True)
    ]
    assert min(same) > max(0.9, np.mean(other))


def test_a_mirrored_picture_is_read_mirrored(scenes, readings):
    from PIL import ImageOps

    turned = read([ImageOps.mirror(scenes[0].image)])
    assert (turned.segmentation[0][:, ::-1] == readings.segmentation[0]).mean() > 0.97
    truth = mirror_people(scenes[0].keypoints, 128)
    assert average_precision(CONDITIONS["pose"].score(truth, turned.pose[0])["oks_ap"]) > 0.5


def test_other_sizes_are_scaled_there_and_back(scenes, readings):
    large = read([scenes[0].image.resize((256, 256))])
    assert large.depth.shape == (1, 256, 256) and large.normal.shape == (1, 256, 256, 3)
    assert (large.segmentation[0][::2, ::2] == readings.segmentation[0]).mean() > 0.95
    assert np.abs(large.pose[0][0][:, :2] / 2 - readings.pose[0][0][:, :2]).max() < 2


def test_perfect_maps_give_the_people_they_were_made_from(scenes):
    for scene in scenes:
        joints = np.zeros((1, 4, 18, 3), np.float32)
        for i, person in enumerate(scene.keypoints):
            joints[0, i] = person
        centre, offsets, _ = people_targets(joints, np.array([len(scene.keypoints)]))
        logits = torch.logit(torch.from_numpy(centre[0]).clamp(1e-4, 1 - 1e-4))
        people = find_people(logits, torch.from_numpy(offsets[0]))
        assert len(people) == len(scene.keypoints)
        for truth in scene.keypoints:
            assert min(np.abs(p[:, :2] - truth[:, :2]).max() for p in people) < 1.5


def test_losses_are_least_at_the_truth():
    """A batch's own targets, put in the network's place, cost less than anything beside them."""
    scene = playroom.render(9_000_005)
    data = {
        "image": np.asarray(scene.image)[None],
        "decoded": np.asarray(scene.image)[None],
        "depth": scene.depth[None],
        "normal": np.rint(scene.normal * 127).astype(np.int8)[None],
        "classes": scene.segmentation[None],
        "joints": np.concatenate([scene.keypoints[0][None], np.zeros((3, 18, 3), np.float32)])[
            None
        ],
        "people": np.array([1]),
    }
    batch = draw_batch(data, np.random.default_rng(0), ReaderConfig(batch_size=2))
    maps = load_reader()(batch["image"])
    maps.inverse_depth, maps.normal, maps.joints = (
        batch["inverse_depth"],
        batch["normal"],
        batch["joints"],
    )
    maps.classes = 20 * torch.nn.functional.one_hot(batch["classes"], 7).permute(0, 3, 1, 2).float()
    perfect = losses_of(maps, batch)
    assert all(perfect[name] < 0.01 for name in ("depth", "normal", "classes", "joints"))
    assert all(value.isfinite() for value in perfect.values()) and perfect["centre"] > 0


def test_alterations_keep_shape_and_range():
    x = torch.rand(6, 3, 128, 128) * 2 - 1
    y = alter(x, np.random.default_rng(0))
    assert y.shape == x.shape and y.min() >= -1 and y.max() <= 1 and not torch.equal(x, y)
