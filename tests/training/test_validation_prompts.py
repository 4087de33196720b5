"""training.validation: prompts and hints of the user's own, shown while a run trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from tests.helpers.tiny import tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.control.card import newest_sample
from zeroconv.errors import UserError
from zeroconv.generation import Control, generate
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.prompts import ValidationPrompt
from zeroconv.training.recipes.recipe import Recipe, load_recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.reporting.prompted import prepare
from zeroconv.training.run import train, train_command


def silent(line: str) -> None:
    pass


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder beside a recipe, with a hint and a photograph of another shape."""
    folder = tmp_path / "own"
    folder.mkdir()
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (64, 1))).save(folder / "depth.png")
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[10:30, 20:60] = 255
    Image.fromarray(wide).save(folder / "photo.png")
    return folder


@pytest.fixture
def few(recipe, pictures: Path) -> Callable[..., Recipe]:
    """A recipe on the first 22 pictures."""
    return lambda **changes: recipe(**{"data.train": [f"{pictures}?limit=22"], **changes})


@pytest.fixture
def written(few, own: Path) -> Callable[..., Path]:
    """A recipe's file in that folder."""

    def write(entries: list[dict] | dict, **changes) -> Path:
        values = few(**changes).model_dump(mode="json")
        values["training"]["validation"] = entries
        path = own / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


QUICK = {"sample_steps": 2, "steps": 2}


def weights(run: Path) -> bytes:
    return (run / "control" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.slow
def test_validation_prompts_are_shown_logged_and_leave_training_alone(
    written, few, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are of the recipe's folder, whatever the working folder is; steps are the same bit for
    bit.
    """
    monkeypatch.chdir(tmp_path)
    entries = [
        {"prompt": "a <b> red ball", "hint": "depth.png", "seed": 7, "count": 2},
        {"prompt": "a (blue:1.2) ball", "hint": str(own / "depth.png"), "negative": "dark"},
    ]
    changes = {"sample_every": 1, "report_to": ["tensorboard"], **QUICK}
    run = train_command(written(entries, **changes))
    sheets = sorted(path.name for path in (run / "samples").iterdir())
    assert sheets == ["validation-00000001.png", "validation-00000002.png"]
    with Image.open(run / "samples" / sheets[-1]) as sheet:
        assert sheet.size == (3 * 64 + 4, 2 * 64 + 2)
        shown = np.asarray(sheet)

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    shown_at = [line for line in lines if "sheet" in line]
    assert [line["step"] for line in shown_at] == [1, 2]
    assert shown_at[0]["prompts"] == ["a <b> red ball", "a (blue:1.2) ball"]
    page = (run / "report.html").read_text()
    assert "a &lt;b&gt; red ball" in page and "training.validation" in page
    assert newest_sample(run) == run / "samples" / sheets[-1]
    kept = json.loads((run / "recipe.json").read_text())["recipe"]["training"]["validation"]
    assert kept[0]["hint"] == str(own / "depth.png") and kept[0]["seed"] == 7
    assert list((run / "tensorboard").rglob("events*"))

    plain = train(few(out=str(tmp_path / "plain"), steps=2), say=silent)
    assert weights(plain) == weights(run)

    # the first entry's second picture, made from what the run left
    from zeroconv.backbones import load_backbone

    made = generate(
        backbone := load_backbone(few().base),
        "a <b> red ball",
        [
            Control(
                ControlNet.load(run / "control", backbone=backbone), Image.open(own / "depth.png")
            )
        ],
        cfg=4.0,
        steps=2,
        seed=7,
        count=2,
    )
    np.testing.assert_allclose(shown[:64, 132:196].astype(int), np.asarray(made[1]), atol=1)


@pytest.mark.slow
def test_validation_prompts_may_change_when_a_run_goes_on(written, few, tmp_path) -> None:
    at_once = weights(train(few(out=str(tmp_path / "at once"), steps=3), say=silent))
    first = [{"prompt": "one", "hint": "depth.png"}]
    options = {"sample_steps": 1, "checkpoint_every": 1}
    run = train_command(written(first, steps=1, **options))
    other = [{"prompt": "two", "hint": "depth.png"}]
    assert weights(train_command(written(other, steps=3, **options))) == at_once
    sheets = sorted(path.name for path in (run / "samples").iterdir())
    assert sheets == ["validation-00000001.png", "validation-00000003.png"]


def test_validation_prompts_draw_hints_at_their_own_shape(written, own: Path) -> None:
    from zeroconv.annotators import annotate

    recipe = load_recipe(written({"prompt": "a box", "hint": "canny:photo.png"}))  # one is a list
    backbone = tiny_backbone()
    (one,) = prepare(recipe.training.validation, "canny", backbone, 256)
    assert one.size == (384, 192) and one.hint is not None and one.hint.size == one.size
    photo = ImageOps.fit(Image.open(own / "photo.png"), one.size, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(one.hint), np.asarray(annotate("canny", photo)))
    entry = ValidationPrompt(prompt="a box", hint=str(own / "photo.png"), draw="canny")
    assert recipe.training.validation == (entry,)


@pytest.mark.parametrize("kind", [pytest.param("t2i_adapter", marks=pytest.mark.slow), "lllite"])
def test_validation_prompts_show_baselines(kind: str, few, own: Path) -> None:
    entries = [{"prompt": "a box", "hint": str(own / "depth.png")}]
    run = train(
        few(control={"kind": kind}, validation=entries, sample_steps=1, steps=1), say=silent
    )
    assert (run / "samples" / "validation-00000001.png").is_file()


@pytest.mark.slow
def test_validation_prompts_of_a_lora(base: Path, pictures: Path, tmp_path: Path, own) -> None:
    values = {
        "out": str(tmp_path / "lora"),
        "base": str(base),
        "device": "cpu",
        "lora": {"rank": 2, "layers": ["attention"]},
        "data": {"train": [f"{pictures}?limit=20"], "size": 64, "cache": str(tmp_path / "cache")},
        "training": {
            "steps": 1,
            "batch_size": 2,
            "validate_every": 0,
            "sample_steps": 1,
            "validation": [{"prompt": "a box", "count": 2}, {"prompt": "a ball"}],
        },
    }
    run = train(check_recipe(LoraRecipe, values, "test"), say=silent)
    with Image.open(run / "samples" / "validation-00000001.png") as sheet:
        assert sheet.size == (2 * 64 + 2, 2 * 64 + 2)
    values["training"]["validation"] = [{"prompt": "a box", "hint": str(own / "depth.png")}]
    with pytest.raises(UserError, match="a LoRA reads no hint"):
        train(check_recipe(LoraRecipe, values, "test"), say=silent)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"prompt": "a"}, "entry 1: a control needs a hint"),
        ({"prompt": "a", "hint": "gone.png"}, r"entry 1: .*own/gone\.png"),
        ({"prompt": "a", "hint": "notes.txt"}, "entry 1: .*notes.txt"),
        ({"prompt": "a", "hint": "sketchy:photo.png"}, "sketchy"),
        ({"prompt": "a", "hint": "canny:photo.png"}, "it draws canny, and the run trains depth"),
        ({"prompt": "a", "hint": "canny:gone.png"}, "canny|gone"),
        ({"prompt": "a", "draw": "depth"}, "draw without hint"),
        ({"hint": "depth.png"}, "prompt"),
        ({"prompt": "a", "hints": "depth.png"}, "hints; did you mean hint"),
        ({"prompt": "a", "hint": "depth.png", "count": 99}, "give a whole number from 1 to 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_validation_prompts_are_checked_before_any_work(
    entry: dict, message: str, written, own: Path, tmp_path: Path
) -> None:
    (own / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=message):
        train_command(written([entry], **QUICK))
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()
