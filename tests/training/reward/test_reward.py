"""The reward's part of the loss: which samples it takes, what stays unbiased, how much it holds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.backbones.process import Diffusion
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.recipes.reward import RewardSettings
from zeroconv.training.reward.piecewise import in_pieces
from zeroconv.training.reward.reward import Reward, make_reward


def reward(backbone: Any = None, condition: str = "recolor", **settings: Any) -> Reward:
    values = RewardSettings(**{"weight": 1.0, **settings})
    return make_reward(values, backbone or _one(), "some/base", condition, {None})


@lru_cache
def _one() -> Any:
    """For tests that neither train nor decode."""
    return tiny_backbone()


def batch(backbone: Any, n: int = 4, masks: Tensor | None = None) -> Batch:
    z, hint, _, text = inputs(backbone, n)
    asked = (hint * 255).byte()
    numbers = torch.zeros(n, dtype=torch.long)
    moments = torch.cat([z, z - 3], dim=1)
    return Batch(moments, asked, text, None, masks, None, asked, numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_ordinary_loss_is_that_of_the_recipe_s_timesteps(n: int) -> None:
    """For errors that depend on the timestep alone, its mean over many draws is theirs."""
    process, judge = Diffusion.scaled_linear("epsilon"), reward(share=0.3)
    generator, losses = stream("cpu", 1), []
    for _ in range(600):
        t = process.draw(n, generator, "cpu")
        t, drawn = judge.redraw(t, process, generator)
        assert process.is_below(t[:drawn], 200).all()
        losses.append(judge.ordinary(t.float(), drawn))
    mean = torch.stack(losses)
    error = float(mean.std() / len(mean) ** 0.5)
    assert float(mean.mean()) == pytest.approx(499.5, abs=4 * error)


def test_share_of_a_batch_is_drawn_below_the_limit() -> None:
    process, judge = Diffusion.scaled_linear("epsilon"), reward(share=0.25)
    counts = [
        judge.redraw(torch.full((6,), 999), process, stream("cpu", seed))[1] for seed in range(200)
    ]
    assert set(counts) == {1, 2}
    assert sum(counts) / 200 == pytest.approx(1.5, abs=0.15)


def test_samples_above_the_limit_or_without_a_hint_are_not_decoded() -> None:
    process, judge = Diffusion.scaled_linear("epsilon"), reward(t_max=200, samples=2)
    t = torch.tensor([0, 200, 201, 100, 50])
    rows, eligible = judge.choose(t, process, torch.tensor([0, -1, 0, 0, 0]))
    assert rows.tolist() == [0, 3]
    assert eligible == 3


def test_the_loss_is_the_ordinary_one_plus_the_weighted_distance() -> None:
    backbone = tiny_backbone()
    control: ControlNet = randomise_(ControlNet.from_backbone(backbone))  # type: ignore[assignment]
    judge = reward(backbone, share=0.5, weight=3.0)
    loss = ControlledLoss(backbone, control, reward=judge)
    total = loss(batch(backbone), stream("cpu", 4))
    judge.tally.close_step(lambda x: x)
    figures = judge.tally.figures()
    assert 0 < figures["reward"] < 1
    assert float(total) == pytest.approx(figures["loss"] + 3 * figures["reward"], rel=1e-5)
    assert figures["reward_samples"] >= 2
    assert judge.tally.figures() == {}


def test_only_the_control_has_gradients_of_the_reward() -> None:
    backbone = tiny_backbone()
    control: ControlNet = randomise_(ControlNet.from_backbone(backbone))  # type: ignore[assignment]
    loss = ControlledLoss(backbone, control, reward=reward(backbone, share=0.5, weight=1e6))
    loss(batch(backbone), stream("cpu", 4)).backward()
    assert all(p.grad is not None and p.grad.any() for p in control.zero_convs.parameters())
    frozen = [*backbone.unet.parameters(), *backbone.vae.parameters()]
    assert all(p.grad is None for p in frozen)
    assert [name for name, _ in loss.named_parameters() if "vae" in name] == []


def test_a_row_without_an_estimate_spoils_no_gradient() -> None:
    """A schedule that ends in pure noise has no estimate from ε at its last step."""
    backbone = tiny_backbone()
    control: ControlNet = randomise_(ControlNet.from_backbone(backbone))  # type: ignore[assignment]
    loss = ControlledLoss(backbone, control, reward=reward(backbone, share=0.5))
    alphas = loss.process.alphas_cumprod.clone()  # type: ignore[attr-defined]
    alphas[201:] = 0
    loss.process = Diffusion(alphas, "epsilon")
    loss(batch(backbone), stream("cpu", 4)).backward()
    gradients = [p.grad for p in control.zero_convs.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)


def test_masks_weigh_the_reward() -> None:
    backbone = tiny_backbone()
    judge = reward(backbone)
    one = batch(backbone, 2)
    clean = torch.randn(2, 4, 8, 8)
    size = one.asked.shape[-2:]  # type: ignore[union-attr]
    half = torch.ones(2, 1, *size)
    half[..., : size[0] // 2, :] = 0
    spoiled = one.asked.clone()  # type: ignore[union-attr]
    spoiled[..., : size[0] // 2, :] = 255
    hints: Any = (one.asked, spoiled)
    a, b = (judge.distances(clean, hint, [0, 0], half) for hint in hints)
    assert torch.allclose(a, b, atol=1e-6)
    c = judge.distances(clean, spoiled, [0, 0])
    assert not torch.allclose(a, c, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_pieces_have_the_gradient_of_the_whole(size: int) -> None:
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(5, 3, dtype=torch.float64)
    weights = torch.randn(5, dtype=torch.float64)

    def of(piece: Tensor, part: slice) -> Tensor:
        return (piece.sin() * factor[part]).prod(1)

    results = []
    for values in (of(rows, slice(0, 5)), in_pieces(rows, of, size)):
        (slope,) = torch.autograd.grad((values * weights).sum(), rows)
        results.append((values.detach(), slope))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_memory_is_that_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples are decoded: the peak of what is alive for a backward pass is that of
    one picture.
    """
    monkeypatch.setattr("zeroconv.training.reward.reward._PIECE", 64 * 64)
    backbone = tiny_backbone()
    judge = reward(backbone)
    alive, most = [0], [0]

    def pack(x: Tensor) -> Any:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return Counted(x, alive)

    peaks = []
    for n in (1, 6):
        alive[0] = most[0] = 0
        clean = torch.randn(n, 4, 8, 8, requires_grad=True)
        hints = torch.zeros(n, 1, 64, 64, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            judge.distances(clean, hints, [0] * n).sum().backward()
        peaks.append(most[0])
    assert peaks[1] <= peaks[0] + 3
    assert peaks[0] > 50


class Counted:
    """A tensor that is saved for a backward pass, counted while it is."""

    def __init__(self, tensor: Tensor, alive: list[int]) -> None:
        self.tensor, self.alive = tensor, alive

    def __del__(self) -> None:
        self.alive[0] -= 1


def test_the_reckoned_memory_is_that_of_one_large_picture() -> None:
    one, several = (reward(samples=n).peak((64, 64), 64) for n in (1, 32))
    assert one == several > 512 * 512 * 4


def test_conditions_of_several_sources_have_a_reading_each() -> None:
    values = RewardSettings(weight=1)
    backbone = tiny_backbone()
    both = make_reward(values, backbone, "b", "several", {"canny", "lineart"})
    assert set(both.numbers) == {"canny", "lineart"}
    unnamed = make_reward(values, backbone, "b", "lineart", {None, "canny"}).numbers
    assert unnamed[None] == unnamed["lineart"] != unnamed["canny"]
    with pytest.raises(UserError, match="several"):
        make_reward(values, backbone, "b", "several", {None, "canny"})


@pytest.mark.parametrize("condition", ["depth", "pose", "segmentation", "normal", "person"])
def test_a_base_that_is_not_the_playroom_s_needs_a_reader(condition: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reader.*zeroconv\.scratch\.reader"):
        reward(condition=condition)
    with pytest.raises(UserError, match="missing"):
        reward(condition=condition, reader=str(tmp_path / "none.safetensors"))
    (tmp_path / "text.safetensors").write_text("none")
    with pytest.raises(UserError, match="no reader"):
        reward(condition=condition, reader=str(tmp_path / "text.safetensors"))
