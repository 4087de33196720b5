"""The playroom base from nothing, at a tiny size: every stage, and what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scratch.tiny import TEXT, UNET, make_pictures
from zeroconv.errors import UserError
from zeroconv.scratch import stages
from zeroconv.scratch.base.training import DiffusionConfig
from zeroconv.scratch.loop.state import read_progress, read_weights
from zeroconv.scratch.stages import BaseConfig, Folders, train_base
from zeroconv.scratch.vae import AutoencoderConfig

TINY_VAE: dict[str, Any] = {"widths": (8, 8, 8, 16), "batch_size": 1, "steps": 2}


def tiny() -> BaseConfig:
    unet = {**UNET, "cross_attention_dim": 32}
    diffusion = DiffusionConfig(steps=3, batch_size=2, vocabulary=600, unet=unet, text=TEXT)
    return BaseConfig(
        autoencoder=AutoencoderConfig(**TINY_VAE),
        decoder=AutoencoderConfig(**TINY_VAE),
        diffusion=diffusion,
    )


@pytest.mark.slow
def test_train_base_makes_a_base_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroconv import load_backbone

    names = ("scenes-train-000", "stickers-train-000", "scenes-val-000", "stickers-val-000")
    monkeypatch.setattr(
        stages, "draw_pictures", lambda folder, *_: make_pictures(folder, *names, count=4)
    )
    folder = train_base(tmp_path, tmp_path / "stickers", config=tiny())

    backbone: Any = load_backbone(str(folder))
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    latents = backbone.latents_from_moments(backbone.encode_image(x), sample=False)
    assert latents.shape == (1, 8, 16, 16) and bool(latents.isfinite().all())
    card = (folder / "README.md").read_text()
    assert "| diffusion | 3 |" in card and "4 rendered scenes" in card

    run = Folders(tmp_path).run("diffusion")
    before = read_weights(run)
    train_base(tmp_path, tmp_path / "stickers", config=tiny(), stages=("diffusion",))
    after = read_weights(run)
    assert before is not None and after is not None
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_progress(run)["step"] == 3  # type: ignore[index]

    longer = tiny()
    longer.autoencoder.steps = 3  # of which the cached latents know nothing
    with pytest.raises(UserError, match="trained further"):
        stages_run = ("autoencoder", "diffusion")
        shutil.rmtree(Folders(tmp_path).run("decoder"))
        train_base(tmp_path, tmp_path / "stickers", config=longer, stages=stages_run)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [("export", "autoencoder"), ("decoder", "autoencoder"), ("coffee", "coffee")],
)
def test_train_base_names_the_stage_that_is_missing(
    tmp_path: Path, stage: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train_base(tmp_path, tmp_path, config=tiny(), stages=(stage,))


def test_train_base_refuses_a_folder_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/autoencoder.pt").touch()

    with pytest.raises(UserError, match="earlier version"):
        train_base(tmp_path, tmp_path, config=tiny())
