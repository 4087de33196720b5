"""What the workers of `benchmarks.speed.train_step` share, whatever the model."""

from __future__ import annotations

import gc
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PICTURES = 16  # of the data set
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.no_grad()
def fill_(state: dict[str, Tensor]) -> None:
    """Weights for what begins as zero, by their names, so that the control says something."""
    for name, tensor in state.items():
        if "controlnet_" in name:
            seed = zlib.crc32(name.split("network.")[-1].encode())
            generator = torch.Generator().manual_seed(seed)
            tensor.copy_(0.03 * torch.randn(tensor.shape, generator=generator))


class Clock:
    """Seconds between named moments of a step, after whatever the device still had to do."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.parts = device, {}
        self.last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self, part: str) -> None:
        now = self._now()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


class Batches:
    """A loader's batches, epoch after epoch."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.rest = loader, iter(loader)

    def __call__(self) -> dict[str, Tensor]:
        batch = next(self.rest, None)
        if batch is None:
            self.rest = iter(self.loader)
            batch = next(self.rest)
        return batch


def recipe_of(batch: int, **more: Any) -> Any:
    """Of a run that only steps. more: settings of training."""
    from zeroconv.training.recipes.recipe import parse_recipe

    settings = {
        "steps": 10_000,
        "batch_size": batch,
        "learning_rate": 5e-6,
        "validate_every": 0,
        "sample_count": 0,
        "ema_decay": 0.0,
        **more,
    }
    data = {"train": "x", "condition": "canny"}
    return parse_recipe({"out": tempfile.mkdtemp(), "data": data, "training": settings})


def latents_only(**config: Any) -> Any:
    """What the trainer asks of an autoencoder when everything is cached: entries of its config."""
    vae = nn.Identity()
    vae.config = type("Config", (), {"block_out_channels": (0,) * 4, **config})  # type: ignore
    return vae


def forget_peak() -> None:
    """Let the process's peak be that of its steps, not of building the model."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
