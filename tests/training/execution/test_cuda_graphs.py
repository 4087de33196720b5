"""Steps launched as a whole: what a recording is given, and what becomes of its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.tiny import inputs, randomise_, tiny_backbone
from zeroconv.backbones import TextStates
from zeroconv.control import ControlNet
from zeroconv.data.batches import Batch
from zeroconv.training.execution.cuda_graphs import Graphs, Recording, can_record
from zeroconv.training.lora.adapter import add_adapter
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.recipes.lora import LoraSettings
from zeroconv.training.recipes.training import TrainingSettings

ON_CARD = torch.cuda.is_available()


class Played(Graphs):
    """Without a card: what is played computes both passes anew, into the same tensors."""

    def _record(self, inputs: list[torch.Tensor]) -> Recording:
        loss, grads = torch.zeros(()), [torch.zeros_like(p) for p in self.parameters]

        def replay() -> None:
            self._forget()
            loss.copy_(self._both_passes(inputs))
            for grad, parameter in zip(grads, self.parameters, strict=True):
                grad.copy_(parameter.grad)

        return Recording(SimpleNamespace(replay=replay), inputs, loss, grads)


def setting(device: str) -> tuple[ControlledLoss, list[Any], list[Batch]]:
    torch.manual_seed(0)
    backbone = tiny_backbone().to(device)
    control: Any = randomise_(ControlNet.from_backbone(backbone)).to(device)
    batches = []
    for number in range(3):
        torch.manual_seed(number)
        z, hint, _, text = inputs(backbone, 2)
        hidden = torch.randn(text.hidden.shape)
        moments = torch.cat([torch.randn(z.shape), z - 3], dim=1)
        batch = Batch(moments, (hint * 255).byte(), TextStates(hidden), np.arange(2))
        batches.append(batch.to(device))
    return (
        ControlledLoss(backbone, control),
        [p for p in control.parameters() if p.requires_grad],
        batches,
    )


def setting_lora(device: str) -> tuple[ControlledLoss, list[Any], list[Batch]]:
    """The same, of matrices beside the base's layers, and without hints."""
    loss, _, batches = setting(device)
    backbone: Any = loss.backbone
    add_adapter(backbone, LoraSettings(rank=2, layers=("attention",)))
    parameters = [p for p in backbone.unet.parameters() if p.requires_grad]
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)  # of zeros most gradients are zero
    batches = [replace(batch, hints=None) for batch in batches]
    return ControlledLoss(backbone, None), parameters, batches


def check(kind: type[Graphs], device: str, make: Callable[[str], Any] = setting) -> None:
    """One, then several micro-batches a step, against the plain way."""
    loss, parameters, batches = make(device)
    graphs = kind(loss, parameters)
    for of in (1, 3, 1):
        plain: list[Any] = [torch.zeros_like(p) for p in parameters]
        total, summed = 0.0, torch.zeros((), device=device)
        for number in range(of):
            value = loss(batches[number], stream(device, 7, number)) / of
            for grad, added in zip(plain, torch.autograd.grad(value, parameters), strict=True):
                grad += added
            total += float(value.detach())
        for parameter in parameters:
            parameter.grad = None
        for number in range(of):
            summed += graphs.add_gradients(batches[number], stream(device, 7, number), number, of)
        assert float(summed) == pytest.approx(total, rel=1e-5)
        largest = max(float(grad.abs().max()) for grad in plain)
        for parameter, grad in zip(parameters, plain, strict=True):
            assert (parameter.grad - grad).abs().max() < 1e-5 * largest


@pytest.mark.parametrize("make", [setting, setting_lora])
def test_gradients_of_a_step_are_those_of_the_plain_way(make: Callable[[str], Any]) -> None:
    check(Played, "cpu", make)


@pytest.mark.card
@pytest.mark.parametrize("make", [setting, setting_lora])
def test_a_card_s_recording_gives_the_gradients_of_the_plain_way(
    make: Callable[[str], Any],
) -> None:
    torch.backends.cudnn.allow_tf32 = False
    check(Graphs, "cuda", make)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checkpointing": "full"},
        {"frozen": "int8"},
        {"precision": "fp16"},
        {"cuda_graphs": False},
    ],
)
def test_what_was_never_recorded_is_not(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, _, _ = setting("cpu")
    text = SimpleNamespace(several_lengths=False)
    data: Any = SimpleNamespace(moments=SimpleNamespace(shapes=lambda: [(8, 8)]), text=text)
    settings = TrainingSettings(steps=1, **changes)
    assert not can_record(loss, data, settings)  # on a processor
    loss.process = SimpleNamespace(device=torch.device("cuda"))  # type: ignore[assignment]
    assert can_record(loss, data, settings) == (not changes)
    data.moments.shapes = lambda: [(8, 8), (4, 16)]
    assert not can_record(loss, data, settings)


@pytest.mark.card
def test_a_run_on_a_card_ends_with_a_control(tmp_path: Any) -> None:
    """The playroom in bfloat16 weights: measured, sampled, saved, and two micro-batches a step."""
    from zeroconv.training.run import train_command

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "base: playroom\n"
        f"out: {tmp_path / 'run'}\n"
        f"data: {{train: 'playroom:train:64', validation: 'playroom:val:16', condition: canny, "
        f"cache: {tmp_path}}}\n"
        "training: {steps: 8, batch_size: 8, accumulation: 2, optimizer: adamw8bit,\n"
        "learning_rate: 1.0e-4,\n"
        "  precision: bf16_weights, validate_every: 4, checkpoint_every: 4, sample_count: 2}\n"
    )
    folder = train_command(recipe)
    assert (folder / "control" / "diffusion_pytorch_model.safetensors").is_file()
