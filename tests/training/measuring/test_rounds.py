"""Rounds of pictures in a run: scored as `zeroconv evaluate` scores, without a trace in what is
trained.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.conftest import make_pictures
from zeroconv.backbones import load_backbone
from zeroconv.data import open_dataset
from zeroconv.errors import UserError
from zeroconv.evaluation import evaluate, reading
from zeroconv.training import train
from zeroconv.training.checkpoint import load_checkpoint
from zeroconv.training.measuring.rounds import by_shape, choose
from zeroconv.training.recipes.lora import LoraTraining
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.reporting.trackers import scalars

Make = Callable[..., Recipe]
ROUNDS = {"evaluate_every": 3, "evaluate_count": 4, "sample_steps": 2, "data.condition": "canny"}


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_is_the_same_with_and_without_rounds(
    recipe: Make, tmp_path: Path, monkeypatch
) -> None:
    def draws(read):
        def drawn(images):
            random.random(), np.random.rand(), torch.rand(1)
            return read(images)

        return drawn

    real = reading.make_read
    monkeypatch.setattr(
        "zeroconv.training.measuring.rounds.make_read", lambda *a: (draws(real(*a)[0]), real(*a)[1])
    )  # a reader that draws random numbers
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    plain = train(recipe(**{**ROUNDS, "evaluate_every": 0}), say=lambda line: None)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    seen = train(recipe(out=str(tmp_path / "seen"), **ROUNDS), say=lambda line: None)
    assert not any("evaluation" in line for line in log_of(plain))
    assert [line["step"] for line in log_of(seen) if "evaluation" in line] == [0, 3, 6]
    a = load_checkpoint(plain / "checkpoints")
    numbers = random.random(), np.random.rand(), float(torch.rand(1))
    b = load_checkpoint(seen / "checkpoints")
    assert numbers == (random.random(), np.random.rand(), float(torch.rand(1)))
    assert a is not None and b is not None
    for name, value in a["control"].items():
        assert torch.equal(value, b["control"][name]), name
    assert all(
        torch.equal(x, y) for x, y in zip(a["ema"]["average"], b["ema"]["average"], strict=True)
    )
    assert a["losses"] == b["losses"]


def test_a_round_is_what_evaluate_says_of_the_same_pictures(
    recipe: Make, pictures: Path, base: Path
) -> None:
    held = f"{pictures}?limit=8"
    lines: list[str] = []
    settings = {**ROUNDS, "evaluate_count": 8, "sample_cfg": 3.0}
    out = train(recipe(**settings, **{"data.validation": [held]}), say=lines.append)
    summary = json.loads((out / "summary.json").read_text())["evaluation"]
    assert summary == {"step": 6, **log_of(out)[-1]["evaluation"]} and summary["n"] == 8
    report = evaluate(
        str(out / "control"),
        data=held,
        base=load_backbone(str(base)),
        count=8,
        count_none=0,
        steps=2,
        cfg=3.0,
        varied=0,
    )
    # a run computes with layers of its own (layers/cpu.py): here and there a pixel rounds to
    # another value
    for metric, columns in report["metrics"].items():
        for column in ("own", "shuffled", "ceiling"):
            assert summary["metrics"][metric][column] == pytest.approx(columns[column], abs=1e-3)
        assert summary["metrics"][metric]["lift"] == pytest.approx(
            report["lift"][metric]["over shuffled"], abs=1e-3
        )
    (line,) = [line for line in lines if line.startswith("step 6/6  f1")]
    assert "of 8 pictures (another's hint" in line
    with Image.open(out / "samples" / "evaluation-00000006.png") as sheet:
        assert sheet.size == (8 * 66 - 2, 4 * 66 - 2)
    page = (out / "report.html").read_text()
    assert "Are the hints followed?" in page and "hint, made, read back, real" in page


@pytest.mark.slow
def test_a_run_may_go_on_with_other_rounds(recipe: Make) -> None:
    train(recipe(steps=4, **{**ROUNDS, "evaluate_every": 2}), say=lambda line: None)
    out = train(recipe(steps=6, **ROUNDS), say=lambda line: None)
    assert [line["step"] for line in log_of(out) if "evaluation" in line] == [0, 2, 4, 6]


def test_rounds_refuse_what_cannot_be_read_back_before_anything_is_trained(
    recipe: Make, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"evaluate_every needs a condition to read back: .*'warmth'.* to 0"
    ):
        train(recipe(**{**ROUNDS, "data.condition": "warmth"}))
    assert not (tmp_path / "cache").exists()
    with pytest.raises(
        UserError, match=r"evaluate_every: no network of ours reads depth hints.* to 0, and use"
    ):
        train(recipe(**{**ROUNDS, "data.condition": "depth"}), say=lambda line: None)
    with pytest.raises(
        UserError, match=r"a pose is scored joint by joint.*or set training.evaluate_every to 0"
    ):
        train(recipe(**{**ROUNDS, "data.condition": "pose"}), say=lambda line: None)
    assert not (tmp_path / "run" / "log.jsonl").exists()
    with pytest.raises(ValueError, match="a LoRA has none"):
        LoraTraining(steps=5, evaluate_every=2)


def test_rounds_choose_scenes_with_people_for_poses_and_pictures_of_their_condition() -> None:
    scenes = open_dataset("playroom:val:16", condition="pose", size=64)
    pairs = choose(scenes, "pose", 3)
    assert [seed for seed, _ in pairs] == [0, 1, 2] and all(pair.truth for _, pair in pairs)
    mixed = open_dataset(
        "playroom:val:4 + playroom:test:4?condition=depth", condition="canny", size=64
    )
    assert [pair.name for _, pair in choose(mixed, "canny", 9)] == [mixed.name(i) for i in range(4)]
    with pytest.raises(UserError, match="0 of the held-out pictures can be read back as normal"):
        choose(mixed, "normal", 4)


def test_broken_pictures_are_left_out_and_shapes_kept_apart(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path, 6)
    (folder / "2.png").write_bytes(b"no picture")
    pairs = choose(open_dataset(folder, condition="canny", size=64), "canny", 6)
    assert [pair.name for _, pair in pairs] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    wide = [
        (seed, type(pair)(pair.hint, pair.image.resize((96, 64)), "", None))
        for seed, pair in pairs[:2]
    ]
    tall = [(9, type(pairs[0][1])(pairs[0][1].hint, pairs[0][1].image.resize((64, 96)), "", None))]
    assert [len(group) for group in by_shape([*pairs, *wide, *tall])] == [5, 2]
    with pytest.raises(UserError, match="no two"):
        by_shape(tall)


def test_trackers_hear_of_a_round() -> None:
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    logged = scalars(
        {"evaluation": {"n": 4, "metrics": {"f1": {"own": interval, "ceiling": interval}}}}
    )
    assert logged == {"evaluation/f1_own": 0.5, "evaluation/f1_ceiling": 0.5}
