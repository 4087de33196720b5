"""The loss: what is predicted, that only the control learns, and that the noise is a function of
the step.
"""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch
from zeroconv.layers import allocator
from zeroconv.layers.cpu import use_cpu_layers_
from zeroconv.optim.ema import Ema
from zeroconv.training.loop import learning_rate
from zeroconv.training.model import to_train_
from zeroconv.training.objective import ControlledLoss, predict, stream
from zeroconv.training.recipes.training import TrainingSettings


def batch(backbone, n: int = 2) -> Batch:
    z, hint, _, text = inputs(backbone, n)
    return Batch(torch.cat([z, z - 3], dim=1), (hint * 255).byte(), text, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error_of_the_controlled_backbone(
    prediction_type: str,
) -> None:
    backbone = tiny_backbone(prediction_type)
    control = randomise_(ControlNet.from_backbone(backbone))
    one = batch(backbone)
    loss = ControlledLoss(backbone, control)(one, stream("cpu", 1, 2))  # type: ignore[arg-type]
    generator = stream("cpu", 1, 2)
    z = backbone.latents_from_moments(one.moments, generator)
    t = torch.randint(0, 1000, (2,), generator=generator)
    noise = torch.randn(z.shape, generator=generator)
    noisy = backbone.process.noised(z, noise, t)
    skips = backbone.encode(noisy, t, one.text)
    residuals = control(noisy, one.hints / 255, t, one.text)
    output = backbone.decode([s + r for s, r in zip(skips, residuals, strict=True)], t, one.text)
    wanted = backbone.process.target(z, noise, t)
    assert torch.allclose(loss, torch.nn.functional.mse_loss(output, wanted), rtol=1e-5)


def test_only_the_control_has_gradients() -> None:
    backbone = tiny_backbone()
    control: ControlNet = randomise_(ControlNet.from_backbone(backbone))  # type: ignore[assignment]
    ControlledLoss(backbone, control)(batch(backbone), stream("cpu", 0)).backward()
    assert all(p.grad is not None and p.grad.any() for p in control.zero_convs.parameters())
    assert control.hint_encoder.conv_in.weight.grad.any()  # type: ignore[union-attr]
    assert all(p.grad is None for p in backbone.unet.parameters())


def test_no_control_is_the_backbone_alone() -> None:
    backbone = tiny_backbone()
    z, _, t, text = inputs(backbone)
    expected = backbone.unet(z, t, text.hidden).sample
    assert torch.allclose(predict(backbone, None, z, None, t, text), expected, atol=1e-6)


def test_streams_are_functions_of_their_numbers() -> None:
    a, again, other = (
        torch.rand(4, generator=stream("cpu", *n)) for n in ((0, 4, 1), (0, 4, 1), (0, 4, 2))
    )
    assert torch.equal(a, again)
    assert not torch.equal(a, other)
    starts = {
        stream("cpu", seed, 4, step).initial_seed() for seed in range(50) for step in range(50)
    }
    assert len(starts) == 2500


def test_unused_connections_do_not_train() -> None:
    control = ControlNet.from_backbone(tiny_backbone(), only_mid_control=True)
    to_train_(control)
    assert [conv.weight.requires_grad for conv in control.zero_convs] == [False] * 12 + [True]  # type: ignore[union-attr]


def test_learning_rate_warms_up_and_falls() -> None:
    settings = TrainingSettings(steps=100, warmup=10, learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(step, settings) for step in range(100)]
    assert 0 < rates[0] < rates[5] < rates[10] == max(rates)
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.01
    constant = TrainingSettings(steps=100, warmup=10, learning_rate=2.0)
    assert learning_rate(50, constant) == learning_rate(99, constant) == 2.0


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("linear", {"schedule": "linear"}), ("cosine", {"schedule": "cosine"}),
        ("cosine_with_restarts", {"schedule": "cosine", "cycles": 3}),
        ("polynomial", {"schedule": "polynomial", "power": 3.0}),
    ],
)  # fmt: skip
def test_schedules_are_those_of_diffusers(name: str, ours: dict) -> None:
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=0,
        num_training_steps=50,
        num_cycles=ours.get("cycles", 1),
        power=3.0,
    )
    settings, rates = TrainingSettings(steps=50, learning_rate=1.0, **ours), []
    for _ in range(51):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert [learning_rate(step, settings) for step in range(51)] == pytest.approx(rates, abs=1e-6)
    assert rates[25] not in (0, 1)


def test_a_setting_of_another_schedule_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"training\.cycles is of the cosine schedule; this one is linear"
    ):
        TrainingSettings(steps=10, schedule="linear", cycles=2)


def test_the_average_forgets_its_start() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    ema = Ema([weight], decay=0.999)
    weight.data.fill_(1.0)
    for _ in range(30):
        ema.update()
    assert ema.average[0].mean() > 0.99  # with a plain 0.999 it would be 0.03
    with ema.swapped():
        assert weight.mean() < 1
        averaged = weight.detach().clone()
    assert weight.mean() == 1
    assert torch.equal(ema.average[0], averaged)


@pytest.mark.parametrize(("timesteps", "share"), [("uniform", 0.1), ("cubic", 0.464)])
def test_cubic_timesteps_are_mostly_noise(
    timesteps: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """t = (1 − u³) T: t > 0.9 T has probability 0.1^(1/3)."""
    backbone, seen = tiny_backbone(), []
    loss = ControlledLoss(backbone, ControlNet.from_backbone(backbone), timesteps=timesteps)
    monkeypatch.setattr(
        loss,
        "errors",
        lambda z, noise, t, hints, text, dtype: seen.append(t) or torch.zeros(len(z)),
    )
    for step in range(40):
        loss(batch(backbone, 64), stream("cpu", step))
    t = torch.cat(seen)
    assert (t >= 900).float().mean() == pytest.approx(share, abs=0.03)
    assert 0 <= t.min() < 100
    assert t.max() == 999


def test_memory_goes_back_between_decoder_and_copy_where_gradients_are_large(monkeypatch) -> None:
    backbone = tiny_backbone()
    control, seen = randomise_(ControlNet.from_backbone(backbone)), []
    monkeypatch.setattr(
        allocator, "_trim", lambda gradient: seen.append([p.grad for p in control.parameters()])
    )
    one = batch(backbone)
    ControlledLoss(backbone, control)(one, stream("cpu", 1)).backward()  # type: ignore[arg-type]
    assert not seen  # gradients that fill the gaps themselves
    plain = [p.grad for p in control.parameters()]
    control.zero_grad()
    monkeypatch.setattr(allocator, "MAPPED", max(p.numel() for p in control.parameters()) * 4)
    loss = ControlledLoss(backbone, control)  # type: ignore[arg-type]
    for times in (1, 2):
        control.zero_grad()
        loss(one, stream("cpu", 1)).backward()
        # before the first of the copy's
        assert len(seen) == times and all(grad is None for grad in seen[-1])
    for p, grad in zip(control.parameters(), plain, strict=True):
        assert p.grad is grad or torch.equal(p.grad, grad)
    use_cpu_layers_(control)
    loss.keep_gradients_(10**6)
    assert loss.give_back  # activations would come on top
    loss.keep_gradients_(16)
    assert not loss.give_back
    monkeypatch.setattr(loss, "autocast", torch.bfloat16)
    for p in control.parameters():
        vars(p).pop("kept_gradient", None)
    loss.give_back = True
    loss.keep_gradients_(16)  # torch's layers compute, which take no memory that is there
    assert loss.give_back
