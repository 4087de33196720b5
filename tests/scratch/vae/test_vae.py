"""The autoencoder's training: resumable bit for bit, refined without moving its latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scratch.tiny import make_pictures
from zeroconv.errors import UserError
from zeroconv.scratch.loop.state import read_weights
from zeroconv.scratch.vae import AutoencoderConfig, read_autoencoder, train_autoencoder
from zeroconv.scratch.vae.model import build_autoencoder, measure, to_tensor, whiten_
from zeroconv.scratch.vae.report import psnr

TINY = {"widths": (8, 8, 8, 16), "latent_channels": 8, "batch_size": 1, "warmup": 1}


def tiny(**changed) -> AutoencoderConfig:
    return AutoencoderConfig(**{**TINY, "steps": 4, "crop_share": 0.5, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("scenes-train-000", "stickers-train-000", "scenes-val-000")
    return make_pictures(tmp_path_factory.mktemp("pictures"), *names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder(pictures, folder, 128, tiny())
    return folder


def test_an_autoencoder_learns_and_goes_on_bit_for_bit(
    tmp_path: Path, pictures: Path, trained: Path
) -> None:
    class Stop(Exception):
        pass

    def fail(*_) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        # dies after the state of its first step
        patch.setattr("zeroconv.scratch.vae.training.report", fail)
        train_autoencoder(pictures, tmp_path, 128, tiny(save=-1.0))
    train_autoencoder(pictures, tmp_path, 128, tiny())

    straight, cut = read_weights(trained), read_weights(tmp_path)
    assert straight is not None and cut is not None
    assert all(torch.equal(straight[name], cut[name]) for name in straight)
    assert (trained / "pictures.png").is_file()


def test_a_refined_decoder_leaves_the_latents_of_its_autoencoder(
    tmp_path: Path, pictures: Path, trained: Path
) -> None:
    train_autoencoder(pictures, tmp_path, 128, tiny(steps=2), start=trained)
    before, after = read_weights(trained), read_weights(tmp_path)

    assert before is not None and after is not None
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved <= {"decoder", "post_quant_conv"} and "decoder" in moved


def test_a_decoder_without_an_autoencoder_names_the_stage(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UserError, match="stage 'autoencoder'"):
        train_autoencoder(pictures, tmp_path / "decoder", 128, tiny(), start=tmp_path / "none")


def test_an_autoencoder_without_pictures_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-base"):
        train_autoencoder(tmp_path / "none", tmp_path / "run", 128, tiny())


def test_whitening_gives_latents_of_spread_one_and_the_same_pictures(trained: Path) -> None:
    plain, white = (read_autoencoder(trained, 128, tiny()) for _ in range(2))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    whiten_(white, *measure(plain, pictures))
    mean, spread = measure(white, pictures)

    assert torch.allclose(mean, torch.zeros(8), atol=1e-3)
    assert torch.allclose(spread, torch.ones(8), atol=1e-3)
    x = to_tensor(pictures)
    with torch.no_grad():
        same = [vae.decode(vae.encode(x).latent_dist.mean).sample for vae in (plain, white)]
        spreads = [vae.encode(x).latent_dist.std for vae in (plain, white)]
    assert torch.allclose(*same, atol=1e-3)
    old = measure(plain, pictures)[1][:, None, None]
    assert torch.allclose(spreads[0] / old, spreads[1], rtol=1e-3)


def test_psnr_is_of_pictures_of_two_units() -> None:
    x = torch.zeros(2, 3, 4, 4)
    assert torch.allclose(psnr(x + 0.2, x), torch.full((2,), 20.0))


def test_the_shipped_autoencoder_has_the_layout_of_a_new_one() -> None:
    from zeroconv.scratch.embedded import embedded_vae

    shapes = [
        {name: value.shape for name, value in vae.state_dict().items()}
        for vae in (embedded_vae(), build_autoencoder(AutoencoderConfig(), 128))
    ]
    assert shapes[0] == shapes[1]
