"""Training for SDXL: the loss of diffusers' train_controlnet_sdxl.py, and each picture's own size
and crop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import inputs, randomise_, tiny_backbone_xl
from zeroconv.control import ControlNet
from zeroconv.data import open_dataset
from zeroconv.data.batches import BatchPlan, of_size
from zeroconv.data.buckets import Buckets
from zeroconv.data.cache.fill import CacheSettings, cache_examples
from zeroconv.training.objective import ControlledLoss


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone_xl()


def test_sdxl_loss_is_that_of_diffusers_script(backbone, tmp_path: Path) -> None:
    """Its formulas: noise by the DDPM schedule; original size, crop and target size as six numbers;
    pooled states of the second encoder; residuals at scale 1; mean squared error of the noise.
    """
    from diffusers import ControlNetModel, DDPMScheduler

    control = randomise_(ControlNet.from_backbone(backbone)).requires_grad_(True)
    control.save(tmp_path / "control")
    theirs = ControlNetModel.from_pretrained(tmp_path / "control")
    scheduler = DDPMScheduler.from_config(backbone.scheduler_config)

    z, hint, t, text = inputs(backbone, n=3)
    hints = (hint * 255).to(torch.uint8)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    originals = np.array([(300, 200, 7, 0), (64, 64, 0, 0), (100, 900, 0, 41)])
    text = of_size(text, 64, 64, originals)

    # compute_time_ids of the script: original_size + crops_coords_top_left + target_size
    rows = [[*map(int, row[:2]), *map(int, row[2:]), 64, 64] for row in originals]
    assert text.time_ids is not None and text.time_ids.tolist() == rows

    added = {"text_embeds": text.pooled, "time_ids": torch.tensor(rows, dtype=torch.float32)}
    noisy = scheduler.add_noise(z, noise, t)
    down, middle = theirs(
        noisy,
        t,
        encoder_hidden_states=text.hidden,
        added_cond_kwargs=added,
        controlnet_cond=hints.float() / 255,
        return_dict=False,
    )
    predicted = backbone.unet(
        noisy,
        t,
        encoder_hidden_states=text.hidden,
        added_cond_kwargs=added,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    expected = torch.nn.functional.mse_loss(predicted.float(), noise.float(), reduction="mean")
    expected.backward()

    loss = ControlledLoss(backbone, control).of_drawn(z, noise, t, hints, text)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)

    gradient = control.copy.conv_in.weight.grad
    torch.testing.assert_close(gradient, theirs.conv_in.weight.grad, rtol=1e-3, atol=1e-6)


def _pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def _conditioning(examples, batch_size: int) -> dict[int, list[int]]:
    plan = BatchPlan(examples, batch_size)
    rows: dict[int, list[int]] = {}
    for step in range(12):
        batch = plan.batch(step)
        for index, row in zip(batch.indices, batch.text.time_ids.tolist(), strict=True):
            rows[int(index)] = [int(side) for side in row]
    return rows


def test_sdxl_reads_each_pictures_own_size_and_crop(backbone, tmp_path: Path) -> None:
    """A picture of 128 × 64 cropped to a square and scaled to 32: 64 high, 128 wide, 16 pixels of
    the scaled picture left out at the left.
    """
    folder = _pictures(tmp_path / "pictures", [(128, 64), (64, 128), (64, 64), (40, 32)])
    dataset = open_dataset(folder, condition="canny", size=32)
    examples = cache_examples(dataset, backbone, CacheSettings(tmp_path / "cache"))
    expected = {
        0: [64, 128, 0, 16, 32, 32],
        1: [128, 64, 16, 0, 32, 32],
        2: [64, 64, 0, 0, 32, 32],
        3: [32, 40, 0, 4, 32, 32],
    }
    assert _conditioning(examples, 2) == expected
    # once more, from the cache
    again = cache_examples(dataset, backbone, CacheSettings(tmp_path / "cache"))
    assert _conditioning(again, 2) == expected


def test_sdxl_buckets_have_their_own_target_size(backbone, tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "pictures", [(128, 64), (64, 64)])
    buckets = Buckets(64, step=32, min_side=32, max_side=128, upscale=True)
    dataset = open_dataset(folder, condition="canny", size=64, buckets=buckets)
    examples = cache_examples(dataset, backbone, CacheSettings(tmp_path / "cache"))
    rows = sorted(_conditioning(examples, 1).values())
    # 128 × 64 becomes 96 × 32: at three quarters of its size, 8 of 48 rows are left out above
    assert rows == [[64, 64, 0, 0, 64, 64], [64, 128, 8, 0, 32, 96]]


def test_sdxl_with_a_cache_of_an_older_version_reads_no_crop_and_notes_it(
    backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroconv.data.cache import hints as writing

    folder = _pictures(tmp_path / "pictures", [(128, 64), (64, 64)])
    dataset = open_dataset(folder, condition="canny", size=32)
    original_write = writing.Store.write

    def older(self, key, arrays, note=None):
        note = {k: v for k, v in (note or {}).items() if k != "originals"} or note
        return original_write(self, key, arrays, note)

    monkeypatch.setattr(writing.Store, "write", older)
    with pytest.warns(UserWarning, match="before sizes and crops"):
        examples = cache_examples(dataset, backbone, CacheSettings(tmp_path / "cache"))
    assert _conditioning(examples, 2)[0] == [32, 32, 0, 0, 32, 32]
