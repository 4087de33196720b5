"""The loss under a mask: the formula, that white changes nothing, and whole runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.run import train


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def control(backbone):
    return randomise_(ControlNet.from_backbone(backbone))


def batch(backbone, masks: torch.Tensor | None) -> Batch:
    z, hint, _, text = inputs(backbone, 3)
    moments = torch.cat([z, z - 3], dim=1)
    return Batch(moments, (hint * 255).byte(), text, np.arange(3), masks)


def drawn(loss: ControlledLoss, one: Batch):
    return loss.draw(one.moments, stream("cpu", 1))


@pytest.mark.parametrize("mean", ["picture", "mask"])
def test_masked_loss_is_kohyas_formula_or_the_weighted_mean(backbone, control, mean: str) -> None:
    """kohya: masks as area averages at the latents' size times the squared errors, then the mean
    over all.
    """
    one = batch(backbone, None)
    side = backbone.latent_scale * one.moments.shape[-1]
    masks = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 1, side, side), np.uint8)
    )
    masks[1, :, : side // 2] = 0
    loss = ControlledLoss(backbone, control, mask_mean=mean)
    z, noise, t = drawn(loss, one)
    noisy = backbone.process.noised(z, noise, t)
    skips = backbone.encode(noisy, t, one.text)
    residuals = control(noisy, one.hints.float() / 255, t, one.text)
    output = backbone.decode(
        [skip + residual for skip, residual in zip(skips, residuals, strict=True)], t, one.text
    )
    squares = torch.nn.functional.mse_loss(output, noise, reduction="none")
    weights = torch.nn.functional.interpolate(masks / 255, squares.shape[-2:], mode="area")
    expected = (squares * weights).mean((1, 2, 3))
    if mean == "mask":
        expected = (squares * weights).sum((1, 2, 3)) / (squares.shape[1] * weights.sum((1, 2, 3)))
    measured = loss.errors(z, noise, t, one.hints, one.text, masks=masks)
    torch.testing.assert_close(measured, expected)
    assert not torch.allclose(measured, loss.errors(z, noise, t, one.hints, one.text))


@pytest.mark.parametrize("mean", ["picture", "mask"])
def test_masked_loss_of_white_masks_is_the_unmasked_one_bit_for_bit(
    backbone, control, mean: str
) -> None:
    one = batch(backbone, None)
    side = backbone.latent_scale * one.moments.shape[-1]
    white = replace(one, masks=torch.full((3, 1, side, side), 255, dtype=torch.uint8))
    loss = ControlledLoss(backbone, control, mask_mean=mean)
    control.requires_grad_(True)
    gradients = []
    for each in (one, white):
        control.zero_grad()
        value = loss(each, stream("cpu", 1))
        value.backward()
        gradients.append([value.detach(), *(p.grad.clone() for p in control.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_masked_loss_takes_no_gradient_from_black(backbone, control) -> None:
    """What is wrong under black does not change the loss."""
    one = batch(backbone, None)
    side = backbone.latent_scale * one.moments.shape[-1]
    masks = torch.zeros(3, 1, side, side, dtype=torch.uint8)
    masks[..., : side // 2] = 255
    loss = ControlledLoss(backbone, control)
    squares = torch.rand(3, 4, side // 8, side // 8)
    other = squares.clone()
    other[..., side // 16 :] += 100
    expected = loss.masked_mean(squares.clone(), masks)
    torch.testing.assert_close(loss.masked_mean(other, masks), expected)


def masked(pictures: Path, folder: Path, masks: Callable[[int], Image.Image | None]) -> Path:
    shutil.copytree(pictures, folder)
    lines = []
    for number, text in enumerate((folder / "metadata.jsonl").read_text().splitlines()):
        line, mask = json.loads(text), masks(number)
        if mask is not None:
            mask.save(folder / f"mask-{number}.png")
            line["mask"] = f"mask-{number}.png"
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def half(number: int) -> Image.Image:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, : 16 + number % 32] = 255
    return Image.fromarray(mask)


def weights(run: Path) -> bytes:
    return (run / "control" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.fixture
def run(recipe, tmp_path: Path) -> Callable[..., Path]:
    """A run on the first 22 pictures of some data, with flips and held-out losses."""

    def make(name: str, data: Path, masks: str | None = "mask", steps: int = 4) -> Path:
        changes = {"data.train": [f"{data}?limit=22"], "data.flip": True, "data.masked_loss": masks}
        options = {"steps": steps, "checkpoint_every": 2, "validate_every": 2, "batch_size": 1}
        return train(recipe(out=str(tmp_path / name), **options, **changes), say=lambda line: None)

    return make


@pytest.mark.slow
def test_masked_loss_run_resumes_exactly(run, pictures: Path, tmp_path: Path) -> None:
    halves = masked(pictures, tmp_path / "halves", half)
    at_once = weights(run("at once", halves))
    run("stopped", halves, steps=2)
    assert weights(run("stopped", halves)) == at_once


@pytest.mark.slow
def test_masked_loss_run_with_white_masks_is_one_without(
    run, pictures: Path, tmp_path: Path
) -> None:
    white = masked(pictures, tmp_path / "white", lambda number: Image.new("L", (64, 64), 255))
    assert weights(run("white masks", white)) == weights(run("no masks", pictures, None))


def test_masked_loss_notes_pictures_without_masks_and_refuses_none(
    recipe, pictures: Path, tmp_path: Path
) -> None:
    some = masked(pictures, tmp_path / "some", lambda n: half(n) if n % 2 else None)
    settings = {"data.masked_loss": "mask", "steps": 1, "mask_mean": "mask"}
    with pytest.warns(UserWarning, match=r"of \d+ pictures to train on have no mask, so all of"):
        train(recipe(**{"data.train": [str(some)], **settings}), say=lambda line: None)
    with pytest.raises(UserError, match="has no column mask"):
        train(recipe(out=str(tmp_path / "none"), **settings), say=lambda line: None)
    settings["data.masked_loss"] = "alpha"
    with pytest.raises(UserError, match="none of 54 pictures has a mask"):
        train(recipe(out=str(tmp_path / "opaque"), **settings), say=lambda line: None)


def test_masked_loss_needs_masks_for_their_mean(recipe) -> None:
    with pytest.raises(UserError, match=r"mask_mean is of masks; set data.masked_loss"):
        recipe(mask_mean="mask")


@pytest.mark.slow
def test_masked_loss_of_a_lora(base: Path, pictures: Path, tmp_path: Path) -> None:
    halves = masked(pictures, tmp_path / "halves", half)
    losses = {}
    for name, setting in (("masked", "mask"), ("plain", None)):
        values = {
            "out": str(tmp_path / name),
            "base": str(base),
            "device": "cpu",
            "lora": {"rank": 2, "layers": ["attention"]},
            "data": {"train": [str(halves)], "size": 64, "cache": str(tmp_path / "cache")},
            "training": {"steps": 2, "batch_size": 2, "validate_every": 2, "sample_count": 0},
        }
        values["data"]["masked_loss"] = setting  # type: ignore[index]
        run = train(check_recipe(LoraRecipe, values, "test"), say=lambda line: None)
        losses[name] = json.loads((run / "summary.json").read_text())["validation"][-1]["loss"]
    assert losses["masked"] < 0.9 * losses["plain"]  # half of each picture counts
