"""Training the playroom reader: rendered scenes, heavily altered, and the same scenes through the
VAE.

What it must read are pictures that a generator made: soft, a little off in colour, with smeared
small things. So half of what it sees went through the base model's autoencoder, and all of it
through random blur, noise and colour.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.evaluation.reader import WIDTH, Maps, Reader
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.run import Rhythm, Run
from zeroconv.scratch.reader.batches import draw_batch, to_tensor
from zeroconv.scratch.reader.config import ReaderConfig
from zeroconv.scratch.reader.data import draw_shards, load_shards
from zeroconv.scratch.reader.targets import losses_of

# of a batch, in the order of `ReaderTask.inputs`
TRUTHS = ("inverse_depth", "normal", "classes", "centre", "joints", "weights")


@torch.no_grad()
def decode_shards(backbone: Any, paths: list[Path], batch_size: int = 32) -> None:
    """Write each shard's pictures through the VAE and back beside it, as uint8; what is there is
    kept.
    """
    for path in paths:
        target = path.with_suffix(".vae.npy")
        if target.exists():
            continue
        images = np.load(path)["image"]
        parts = []
        for start in range(0, len(images), batch_size):
            x = to_tensor(images[start : start + batch_size])
            z = backbone.latents_from_moments(backbone.encode_image(x), sample=False)
            parts.append(
                (backbone.decode_latents(z) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            )
        np.save(target, np.concatenate(parts))


class ReaderTask:
    """The reader as its training sees it."""

    def __init__(self, width: int = WIDTH) -> None:
        model: Any = Reader(width)
        self.model = model.to(memory_format=torch.channels_last)

    def inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """A batch as `loss` takes it: pictures, then their truths."""
        return batch["image"], *(batch[name] for name in TRUTHS)

    def loss(self, *inputs: Tensor) -> Tensor:
        """The sum of one loss a head."""
        images, *truths = inputs
        maps: Maps = self.model(images)
        losses = losses_of(maps, dict(zip(TRUTHS, truths, strict=True)))

        return torch.stack(list(losses.values())).sum()


def train_reader(
    folder: Path, config: ReaderConfig, backbone: Any, report: Callable[[str], None] = print
) -> Reader:
    """Draw what is missing, train (or go on with) the state in `folder`; returns the averaged
    network.

    Raises UserError where the folder holds a training of an earlier version.
    """
    if (folder / "reader.pt").exists():
        raise UserError(f"{folder} was begun by an earlier version; take another folder.")
    paths = draw_shards(folder, config.scenes, first=config.first)
    decode_shards(backbone, paths)
    data = load_shards(paths)

    torch.manual_seed(config.seed)
    task = ReaderTask(config.width)
    budget = Budget(
        config.learning_rate,
        steps=config.steps,
        seconds=None if config.minutes is None else 60 * config.minutes,
        warmup=config.warmup,
        decay=0.6,
    )

    def feed(step: int, seconds: float) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([config.seed, step])
        return task.inputs(draw_batch(data, rng, config))

    averages = Averages(task.model, decays=(config.ema_decay,), every=1)
    run = Run(
        task,
        feed,
        budget,
        folder,
        config.batch_size,
        rhythm=Rhythm(log=50),
        averages=averages,
        report=report,
    )
    run.finish()

    task.model.load_state_dict(averages.of(config.ema_decay), strict=False)
    return task.model.eval()
