"""A tiny base model in a folder, a data folder whose pictures are decided by their hints, and
recipes for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from tests.helpers.tiny import tiny_backbone
from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import Net
from zeroconv.data.cache.examples import Examples
from zeroconv.training.execution.choice import Launch
from zeroconv.training.model import prepare_control
from zeroconv.training.recipes.recipe import Recipe, parse_recipe
from zeroconv.training.trainer import Trainer

SIZE = 64


def silent(line: str) -> None:
    pass


def build(
    recipe: Recipe,
    backbone: UNetBackbone,
    control: Net,
    data: Examples,
    held_out: Examples,
    **options: Any,
) -> Trainer:
    """A trainer in one process on a CPU."""
    model = prepare_control(recipe, backbone, control)
    execution = Launch(Accelerator(cpu=True)).execution(model, data, recipe.training, silent)
    return Trainer(recipe, model, data, held_out, execution, silent, **options)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline of 64-pixel pictures with random weights."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = tmp_path_factory.mktemp("base")
    backbone = tiny_backbone("v_prediction")
    StableDiffusionPipeline(
        vae=backbone.vae,
        text_encoder=backbone.text_encoders[0],
        tokenizer=backbone.tokenizers[0],
        unet=backbone.unet,
        scheduler=DDIMScheduler(
            **{k: v for k, v in backbone.scheduler_config.items() if not k.startswith("_")}
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imagefolder of 60 pictures, bright where their hint is bright. The caption says nothing of
    it.
    """
    return make_pictures(tmp_path_factory.mktemp("pictures"), 60)


def make_pictures(folder: Path, count: int, size: int = SIZE) -> Path:
    rng, lines = np.random.default_rng(0), []
    for i in range(count):
        hint = np.kron(
            rng.integers(0, 2, (2, 2), np.uint8) * 255, np.ones((size // 2, size // 2), np.uint8)
        )
        shade = np.stack([hint, 255 - hint, hint // 2], axis=-1)
        Image.fromarray(shade).save(folder / f"{i}.png")
        Image.fromarray(hint).save(folder / f"{i}-hint.png")
        line = {
            "file_name": f"{i}.png",
            "text": f"picture number {i:02d}",
            "conditioning_image": f"{i}-hint.png",
        }
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def recipe(base: Path, pictures: Path, tmp_path: Path) -> Callable[..., Recipe]:
    return recipes(base, pictures, tmp_path)


def recipes(base: Path, pictures: Path, folder: Path) -> Callable[..., Recipe]:
    """`recipe(steps=8, **{"data.flip": True})`: training settings by name, others by their
    place.
    """

    def make(**changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "out": str(folder / "run"),
            "base": str(base),
            "device": "cpu",
            "control": {"hint_widths": [4, 8, 8, 8]},
            "data": {
                "train": [str(pictures)],
                "condition": "depth",
                "size": SIZE,
                "cache": str(folder / "cache"),
            },
            "training": {
                "steps": 6,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "validate_every": 0,
                "sample_count": 0,
            },
        }
        for name, value in changes.items():
            *path, last = (
                name.split(".")
                if "." in name or name in ("out", "base", "control")
                else ("training", name)
            )
            section = values
            for step in path:
                section = section.setdefault(step, {})
            section[last] = value
        return parse_recipe(values)

    return make
