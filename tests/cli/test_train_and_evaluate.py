from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers.full_disk import full_disk
from tests.helpers.tiny_cache import limit_shards
from zeroconv.data.cache import hints as hints_of_cache


@pytest.fixture
def recipe(models: Path, tmp_path: Path) -> Path:
    values = {
        "base": str(models / "base"),
        "out": str(tmp_path / "run"),
        "device": "cpu",
        "control": {"hint_widths": [4, 8, 8, 16]},
        "data": {
            "train": "stickers?limit=24",
            "condition": "canny",
            "workers": 1,
            "cache": str(tmp_path / "cache"),
        },
        "training": {"steps": 2, "batch_size": 2, "validate_every": 0, "sample_count": 0},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "recipe.yaml"


def test_a_trained_control_makes_pictures(
    zeroconv, recipe: Path, models: Path, photo: Path, tmp_path: Path
) -> None:
    result = zeroconv("train", recipe, "--set", "training.steps=1")
    assert result.exit_code == 0, result.output
    control = tmp_path / "run" / "control"
    assert (control / "config.json").is_file()
    words = (
        "generate",
        "a cat",
        "--base",
        models / "base",
        "--steps",
        1,
        "--control",
        f"{control}:{photo}",
    )
    result = zeroconv(*words, "--out", tmp_path / "cat.png")
    assert result.exit_code == 0, result.output
    result = zeroconv("train", recipe, "--no-resume")
    assert result.exit_code == 2
    assert "holds a run already" in result.stderr


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    zeroconv, recipe: Path, tmp_path: Path
) -> None:
    out, weights = tmp_path / "run", "control/diffusion_pytorch_model.safetensors"
    words = (
        "train",
        recipe,
        "--set",
        "training.checkpoint_every=1",
        "--set",
        "training.threads=1",
        "--set",
    )
    assert zeroconv(*words, f"out={tmp_path / 'straight'}").exit_code == 0

    def stops(case: str) -> str:
        result = zeroconv(*words, f"out={out}")
        assert result.exit_code == 2, result.output
        (line,) = (line for line in result.stderr.splitlines() if not line.startswith("note:"))
        assert (
            line.startswith("zeroconv: ")
            and "No space left on device" in line
            and "make room" in line
        ), case
        return line

    with full_disk("writing.pt"):
        assert "the checkpoint of step 1 cannot be written" in stops("the first checkpoint")
    assert not list((out / "checkpoints").iterdir())
    (out / "log.jsonl").unlink(missing_ok=True)
    (out / "log.jsonl").symlink_to("/dev/full")
    stops("the log")
    (out / "log.jsonl").unlink()
    with full_disk("summary.json"):
        stops("the summary")
    assert zeroconv(*words, f"out={out}").exit_code == 0
    assert (out / weights).read_bytes() == (tmp_path / "straight" / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["tiny", "playroom"])
def test_a_base_with_a_trained_decoder_is_used_like_any(
    base: str, zeroconv, recipe: Path, photo: Path, tmp_path: Path
) -> None:
    """Trained, drawn with and measured, all by words; the control alone does not draw the same."""
    changes = ["control.unlock_decoder=true", "training.learning_rate=1e-3", "training.ema_decay=0"]
    changes += (
        []
        if base == "tiny"
        else ["base=playroom", "data.size=64", "control.hint_widths=[8, 16, 48, 128]"]
    )
    result = zeroconv("train", recipe, *(word for change in changes for word in ("--set", change)))
    assert result.exit_code == 0, result.output
    run = tmp_path / "run"
    locked = yaml.safe_load(recipe.read_text())["base"] if base == "tiny" else "playroom"
    for name, model in (("new.png", run / "base"), ("old.png", locked)):
        words = (
            "generate",
            "a cat",
            "--base",
            model,
            "--steps",
            2,
            "--control",
            f"{run / 'control'}:{photo}",
        )
        result = zeroconv(*words, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    new, old = (np.asarray(Image.open(tmp_path / name)) for name in ("new.png", "old.png"))
    assert new.shape == old.shape and (new != old).any()
    measure = ("evaluate", run / "control", "--base", run / "base", "--limit", 2, "--steps", 1)
    result = zeroconv(*measure, "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0 <= report["metrics"]["f1_1px"]["own"]["mean"] <= 1 and str(run / "base") in json.dumps(
        report
    )
    assert json.loads(zeroconv("info", run / "control", "--json").stdout)["base"] == str(
        run / "base"
    )


@pytest.mark.slow
def test_a_cache_is_filled_ahead_in_parts(
    zeroconv, recipe: Path, tmp_path: Path, monkeypatch
) -> None:
    limit_shards(monkeypatch, 4)

    def cached(*words: str) -> int:
        line = zeroconv("cache", recipe, *words).output.splitlines()[-1]
        return int(line.removesuffix(" examples cached"))

    hints = cached("--part", "2/2", "--hints-only")
    parts = [cached("--part", part) for part in ("1/2", "2/2")]
    # 22 to train on, in shards of 4, and 2 held out
    assert sum(parts) == 24 and parts[1] == hints and min(parts) > 0
    monkeypatch.setattr(
        hints_of_cache,
        "draw_shards",
        lambda dataset, shards, workers: iter(()) if not shards else None,
    )
    assert zeroconv("train", recipe).exit_code == 0
    for part in ("0/2", "3/2", "2", "a/b"):
        result = zeroconv("cache", recipe, "--part", part)
        assert result.exit_code == 2
        assert "write 3/16" in result.stderr


def test_mistakes_in_a_recipe_are_one_sentence(zeroconv, recipe: Path) -> None:
    for setting, message in {
        "training.stepps=3": "did you mean steps",
        "training.steps=-3": "-3",
        "data.condition=smell": "smell",
        "base=./nowhere": "nowhere",
        "nonsense": "training.steps=2000",
    }.items():
        result = zeroconv("train", recipe, "--set", setting)
        assert result.exit_code == 2, (setting, result.output)
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert zeroconv("train", "nowhere.yaml").exit_code == 2


def test_the_report_has_its_columns(zeroconv, models: Path, tmp_path: Path) -> None:
    words = ("evaluate", models / "canny", "--base", models / "base", "--limit", 2, "--steps", 1)
    result = zeroconv(*words, "--json", tmp_path / "report.json", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["metrics"]["f1_1px"]) == {"own", "shuffled", "none", "ceiling", "real"}
    assert "f1_1px" in result.stdout and "<h2>Worst</h2>" in (tmp_path / "page.html").read_text()
    printed = json.loads(zeroconv(*words, "--json", "-").stdout)
    assert printed == report


def test_mistakes_of_evaluate(zeroconv, models: Path) -> None:
    words = ("evaluate", models / "canny", "--base", models / "base", "--limit", 2)
    for more in (
        ("--data", "moon"),
        ("--prompts", "poem"),
        ("--guidance", "magic"),
        ("--data", "playroom:exam"),
    ):
        result = zeroconv(*words, *more)
        assert result.exit_code == 2, result.output
        assert more[1].removeprefix("playroom:") in result.stderr
