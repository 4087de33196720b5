"""A small decoder for the latents of the embedded VAE, trained to decode as that one does.

    python -m zeroconv.scratch.tiny RUN --shards SHARDS
    python -m zeroconv.scratch.tiny RUN --shards SHARDS --export FOLDER

starts, or goes on where it stopped. `--export` writes the decoder as a folder of diffusers'
AutoencoderTiny, without an encoder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from zeroconv.scratch.embedded import encoding_vae
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.run import Rhythm, Run, print_line
from zeroconv.scratch.tiny.export import export
from zeroconv.scratch.tiny.model import TinyConfig
from zeroconv.scratch.tiny.pool import Pool
from zeroconv.scratch.tiny.task import TinyTask
from zeroconv.scratch.vae.loss import psnr

RHYTHM = Rhythm(save=240.0, log=25)


@torch.no_grad()
def decode(latents: Tensor) -> Tensor:
    """By the embedded VAE, whose latents are the model's: (N, C, h, w) → (N, 3, H, W) in
    [−1, 1].
    """
    return encoding_vae().decode(latents.contiguous(memory_format=torch.channels_last)).sample


def train(folder: Path, shards: Path, config: TinyConfig, budget: Budget | None = None) -> TinyTask:
    """Train, or go on with, a decoder in `folder`; returns its task. budget: in place of the
    config's minutes.

    Raises UserError where there are no shards, and Interrupted where a signal ends it before.
    """
    torch.manual_seed(config.seed)
    task, pool = TinyTask(config), Pool(shards, config, decode)
    held_out = pool.held_out()
    truth = torch.cat([decode(part) for part in held_out.split(8)])

    @torch.no_grad()
    def saved(step: int) -> None:
        made = torch.cat([task.model(part) for part in held_out.split(8)])
        ratios = psnr(made, truth.clamp(-1, 1))
        print_line(f"step {step}  PSNR {ratios.mean():.2f} dB, least {ratios.min():.2f}")

    budget = budget or Budget(config.rate, seconds=60 * config.minutes, decay=0.5)
    none = Averages(task.model, decays=())
    Run(
        task, pool, budget, folder, config.batch, rhythm=RHYTHM, averages=none, saved=saved
    ).finish()
    return task


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the run; holds its state")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=TinyConfig.minutes)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="a new folder for the trained decoder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = replace(TinyConfig(), minutes=arguments.minutes)
    task = train(arguments.folder, arguments.shards, config)
    if arguments.export is not None:
        export(task, arguments.export)


if __name__ == "__main__":
    main()
