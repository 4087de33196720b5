"""Training a small AutoencoderKL from nothing: the first stage of latent diffusion (Rombach et al.
2022, section 3.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zeroconv.errors import UserError
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.run import Rhythm, Run, print_line
from zeroconv.scratch.loop.state import read_weights
from zeroconv.scratch.vae.loss import AutoencoderTask
from zeroconv.scratch.vae.model import AutoencoderConfig, build_autoencoder
from zeroconv.scratch.vae.pictures import Pictures, validation
from zeroconv.scratch.vae.report import report


def train_autoencoder(
    pictures: Path,
    folder: Path,
    size: int,
    config: AutoencoderConfig,
    start: Path | None = None,
) -> Any:
    """Train, or go on with, an autoencoder in `folder`; returns it.

    `start`: the folder of a trained one whose decoder is refined; its encoder and so the latents
    stay as they are. Raises UserError where that holds none.
    """
    torch.manual_seed(config.seed)
    task = AutoencoderTask(config, size, decoder_only=start is not None)
    if start is not None:
        task.model.load_state_dict(_weights(start))

    budget = Budget(
        config.learning_rate,
        steps=config.steps,
        seconds=None if config.minutes is None else 60 * config.minutes,
        warmup=config.warmup,
        decay=0.6,
    )
    feed = Pictures(pictures, folder / "shards.json", size, config, budget)
    held_out = validation(pictures)

    def saved(step: int) -> None:
        print_line(f"step {step}  {report(task.model, held_out, folder / 'pictures.png')}")

    rhythm = Rhythm(save=config.save, log=50)
    none = Averages(task.model, decays=())
    run = Run(
        task, feed, budget, folder, config.batch_size, rhythm=rhythm, averages=none, saved=saved
    )
    run.finish()
    return task.model


def read_autoencoder(folder: Path, size: int, config: AutoencoderConfig) -> Any:
    """The autoencoder trained in `folder`. Raises UserError where there is none."""
    vae = build_autoencoder(config, size).to(memory_format=torch.channels_last)
    vae.load_state_dict(_weights(folder))

    return vae.eval()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = read_weights(folder)
    if weights is None:
        raise UserError(f"No trained autoencoder in {folder}; run the stage 'autoencoder' first.")

    return weights
