"""Training on pictures of several shapes: exact resume, every shape measured, sheets that show
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.tiny import randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.data import open_dataset
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.errors import UserError
from zeroconv.training import train
from zeroconv.training.measuring.validation import Validator
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.recipe import Recipe

Make = Callable[..., Recipe]
SHAPES = [(64, 64), (96, 48), (48, 96), (80, 64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng, lines = np.random.default_rng(0), []
    for i in range(48):
        width, height = SHAPES[i % 3] if i else SHAPES[3]  # one of its shape
        blocks = rng.integers(0, 256, (height // 16, width // 16), np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((16, 16), np.uint8))).save(tmp_path / f"{i}.png")
        lines.append({"file_name": f"{i}.png", "text": f"{i}", "conditioning_image": f"{i}.png"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def bucketed(recipe: Make, folder: Path, **changes) -> Recipe:
    options = {
        "data.train": [str(folder)],
        "data.buckets": True,
        "validate_every": 4,
        "sample_count": 3,
    }
    return recipe(**{**options, "sample_steps": 1, "log_every": 1, **changes})


@pytest.mark.slow
def test_stopping_and_going_on_is_never_having_stopped(
    recipe: Make, folder: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = {
            "steps": 9,
            "warmup": 2,
            "accumulation": 2,
            "data.validation": [f"{folder}?limit=9"],
        }
        straight = train(
            bucketed(recipe, folder, out=str(tmp_path / "whole"), **options), say=lambda line: None
        )
        parts = str(tmp_path / "parts")
        for steps in (4, 7, 9):
            out = train(
                bucketed(recipe, folder, out=parts, **{**options, "steps": steps}),
                say=lambda line: None,
            )
    finally:
        torch.set_num_threads(threads)
    a, b = (
        load_file(run / "control" / "diffusion_pytorch_model.safetensors")
        for run in (straight, out)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (straight, out)
    ]
    losses = [{line["step"]: line["loss"] for line in log if "loss" in line} for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 9
    with Image.open(out / "samples" / "step-00000009.png") as sheet:
        # 88 pixels is the longest side, of wide ones and of tall ones
        assert sheet.size == (4 * 90 - 2, 3 * 90 - 2)


@pytest.mark.slow
def test_every_held_out_picture_is_measured_in_its_shape(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = tiny_backbone()
    dataset = open_dataset(folder, condition="depth", size=64, buckets=Buckets.of(64))
    data = cache_examples(dataset, backbone, CacheSettings(tmp_path / "cache", workers=1))
    assert sorted(map(len, data.buckets))[0] == 1
    control = randomise_(
        ControlNet.from_backbone(backbone, condition="depth", hint_widths=(4, 8, 8, 8))
    )
    validator = Validator(ControlledLoss(backbone, control), data, 100, 8, seed=0)
    measured = validator.measure()
    assert measured == validator.measure()
    assert measured.gain != 0
    rows = np.concatenate([group.rows for group in validator.groups])
    assert sorted(rows) == list(range(48))
    shapes = {int(i): number for number, bucket in enumerate(data.buckets) for i in bucket}
    for group in validator.groups:
        assert not (group.rows == group.others).any()
        if len(group.rows) > 1:
            assert {shapes[int(i)] for i in group.others} == {shapes[int(i)] for i in group.rows}


def test_wrong_buckets_are_one_sentence(recipe: Make, folder: Path) -> None:
    with pytest.raises(UserError, match=r"no setting data.buckets.minside; did you mean min_side"):
        recipe(**{"data.buckets": {"minside": 32}})
    with pytest.raises(UserError, match="multiple of 8"):
        train(bucketed(recipe, folder, **{"data.buckets": {"step": 20}}))
    assert recipe(**{"data.buckets": False}).data.buckets is None


@pytest.mark.slow
def test_a_run_of_before_a_setting_existed_goes_on(recipe: Make, folder: Path) -> None:
    first = recipe(steps=1, **{"data.train": [str(folder)]})
    out = train(first, say=lambda line: None)
    note = json.loads((out / "recipe.json").read_text())
    del note["recipe"]["data"]["buckets"]
    (out / "recipe.json").write_text(json.dumps(note))
    train(recipe(steps=2, **{"data.train": [str(folder)]}), say=lambda line: None)
    with pytest.raises(UserError, match=r"another recipe \(data.buckets"):
        train(
            recipe(steps=3, **{"data.train": [str(folder)], "data.buckets": True}),
            say=lambda line: None,
        )
