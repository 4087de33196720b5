"""Readings by the second reader, which is never the judge and which nothing that measures loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zeroconv.conditions import maps
from zeroconv.conditions.pose import draw_people
from zeroconv.errors import UserError
from zeroconv.evaluation import reader as judging
from zeroconv.evaluation.reader import ASSET, Maps, Reader, open_reader, save_reader, widths_of
from zeroconv.evaluation.reading import make_read
from zeroconv.playroom import CLASSES, SPLITS, Scene, render
from zeroconv.scratch.reader import people_targets
from zeroconv.training.reward import networks, second
from zeroconv.training.reward.registry import READINGS, ByNetwork
from zeroconv.training.reward.second import load_second

READ = ("depth", "normal", "segmentation", "pose", "person")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Two with people."""
    seeds = iter(SPLITS["test"])
    some: list[Scene] = []
    while len(some) < 2:
        scene = render(next(seeds), 128)
        if scene.keypoints:
            some.append(scene)
    return some


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's file with random weights."""
    path = tmp_path_factory.mktemp("reader") / "small.safetensors"
    save_reader(Reader(8), path)
    return path


def hints(condition: str, scenes: list[Scene]) -> Tensor:
    drawn: dict[str, Any] = {
        "depth": lambda s: maps.depth_to_hint(s.depth)[..., None],
        "normal": lambda s: maps.normal_to_hint(s.normal),
        "segmentation": lambda s: maps.classes_to_hint(s.segmentation),
        "pose": lambda s: draw_people(s.keypoints, (128, 128)),
        "person": lambda s: ((s.segmentation == CLASSES.index("person")) * 255).astype(np.uint8)[
            ..., None
        ],
    }
    stacked = np.stack([drawn[condition](scene) for scene in scenes])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def exact(scenes: list[Scene]) -> Maps:
    """What a reader without a fault sees."""
    joints = np.zeros((len(scenes), 4, 18, 3), np.float32)
    for i, scene in enumerate(scenes):
        for j, person in enumerate(scene.keypoints[:4]):
            joints[i, j] = person
    counts = np.array([len(scene.keypoints) for scene in scenes])
    centre, offsets, _ = people_targets(joints, counts)
    heat = torch.from_numpy(centre).clamp(1e-4, 1 - 1e-4)
    classes = torch.from_numpy(np.stack([scene.segmentation for scene in scenes])).long()
    normal = np.stack([scene.normal for scene in scenes]).astype(np.float32)
    return Maps(
        inverse_depth=1 / torch.from_numpy(np.stack([s.depth for s in scenes])).float(),
        normal=torch.from_numpy(normal).permute(0, 3, 1, 2),
        classes=20 * torch.nn.functional.one_hot(classes, 7).permute(0, 3, 1, 2).float(),
        centre=torch.logit(heat),
        joints=torch.from_numpy(offsets),
        features=torch.zeros(len(scenes), 1),
    )


@pytest.mark.parametrize("condition", READ)
def test_exact_maps_are_near_the_scene_s_own_hint(condition: str, scenes: list[Scene]) -> None:
    reading, given = READINGS[condition], hints(condition, scenes)
    assert isinstance(reading, ByNetwork)
    weights = torch.ones(2, 1, 128, 128)
    own = reading.compare(exact(scenes), given, weights)
    other = reading.compare(exact(scenes), given.flip(0), weights)
    assert own.shape == (2,)
    assert own.max() < 0.35 * other.mean()
    assert own.max() < (0.2 if condition == "pose" else 0.05)


@pytest.mark.parametrize("condition", READ)
def test_network_readings_have_a_gradient_at_any_size(
    condition: str, small: Path, scenes: list[Scene]
) -> None:
    reader = open_reader(small)
    given = torch.nn.functional.interpolate(hints(condition, scenes), (96, 64), mode="nearest")
    pictures = torch.rand(2, 3, 96, 64, requires_grad=True)
    reading = READINGS[condition]
    distance = reading.distances(pictures, given, torch.ones(2, 1, 96, 64), reader)
    distance.sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.isfinite().all()
    assert pictures.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in reader.parameters())


def test_colours_that_are_no_class_do_not_count(scenes: list[Scene]) -> None:
    given, weights = hints("segmentation", scenes), torch.ones(2, 1, 128, 128)
    given[:, :, :64] = 0.5
    seen = exact(scenes)
    assert networks.classes_apart(seen, given, weights).max() < 0.05
    given[:] = 0.5
    assert networks.classes_apart(seen, given, weights).tolist() == [0, 0]


def test_drawn_dots_and_votes_are_one_bell_a_joint(scenes: list[Scene]) -> None:
    drawn = networks.drawn_heat(hints("pose", scenes))
    voted = networks.voted_heat(exact(scenes))
    assert drawn.shape == voted.shape == (2, 18, 32, 32)
    person = scenes[0].keypoints[0]
    neck = tuple(int(v // 4) for v in person[1, :2][::-1])
    assert drawn[0, 1][neck] > 0.6
    assert voted[0, 1][neck] > 0.5


def test_widths_of_a_reader_come_from_its_file(small: Path) -> None:
    assert widths_of(24) == (24, 48, 96, 160)
    assert open_reader(small).stem.out_channels == 8
    assert not any(p.requires_grad for p in open_reader(small).parameters())
    with pytest.raises(UserError, match="multiple of 8"):
        widths_of(20)


def test_the_judge_is_refused_as_a_reward(tmp_path: Path) -> None:
    copy = tmp_path / "renamed.safetensors"
    copy.write_bytes(ASSET.read_bytes())
    for path in (ASSET, copy):
        with pytest.raises(UserError, match="the reader that judges"):
            load_second(str(path), "playroom", "depth")


def test_the_playroom_s_bases_read_by_the_second_reader(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second, "SECOND", small)
    for setting, base in ((None, "playroom"), (None, "playroom-flow"), ("playroom", "o/n")):
        assert load_second(setting, base, "depth").stem.out_channels == 8
    with pytest.raises(UserError, match="runs/playroom"):
        load_second(None, "runs/playroom", "depth")


@pytest.mark.parametrize("condition", READ)
def test_evaluation_never_loads_the_second_reader(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever opens a file of a reader is asked for the judge's."""
    opened: list[Path] = []
    judge = judging.load_reader()

    def record(path: Path) -> Reader:
        opened.append(Path(path))
        return judge

    monkeypatch.setattr(judging, "open_reader", record)
    judging.load_reader.cache_clear()
    judging._kept.clear()
    read, asked = make_read(condition)
    read([Image.new("RGB", (128, 128), (90, 120, 30))])
    judging.load_reader.cache_clear()
    assert asked == "playroom reader"
    assert opened == [ASSET]
    assert second.SECOND != ASSET
