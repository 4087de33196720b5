"""Training a small AutoencoderKL from scratch: the first stage of latent diffusion (Rombach et al.
2022, section 3.1).

Loss: squared and absolute error of pixels and of their differences to the next pixel (edges decide
whether a hint can be read back), and a KL term whose weight lets the posterior's noise cost a few
percent of the error. No adversary and no perceptual network: the toy world has no texture that
would need one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.scratch import pictures as base_pictures
from zeroconv.scratch.progress import load_state, save_state


@dataclass
class AutoencoderConfig:
    widths: tuple[int, ...] = (16, 32, 64, 128)  # 3 halvings: 8 pixels a latent
    latent_channels: int = 8
    steps: int = 12_000
    batch_size: int = 8  # whole pictures; crops come in four times as many
    crop: int = 64
    crop_share: float = (
        0.6  # of the steps, on crops; then whole pictures, as GroupNorm will see them
    )
    learning_rate: float = 2e-3
    warmup: int = 100
    kl_weight: float = 3e-4
    edge_weight: float = 0.2
    minutes: float | None = None  # the schedule runs by the clock instead of by steps
    save_every: int = 250
    seed: int = 0


def build_autoencoder(config: AutoencoderConfig, size: int):
    """A diffusers AutoencoderKL; attention in the middle is left out: it costs time and buys
    nothing at 16×16 here.
    """
    from diffusers import AutoencoderKL

    levels = len(config.widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [−1, 1], channels last in memory."""
    return (
        torch.from_numpy(np.array(pictures, order="C"))
        .permute(0, 3, 1, 2)
        .float()
        .div_(127.5)
        .sub_(1.0)
    )


def reconstruction_loss(output: Tensor, target: Tensor, edge_weight: float) -> Tensor:
    """Squared plus a tenth of absolute error, of pixels and of their horizontal and vertical
    differences.
    """
    error = output - target
    edges = (error.diff(dim=-1), error.diff(dim=-2))
    return _penalty(error) + edge_weight * (_penalty(edges[0]) + _penalty(edges[1]))


def _penalty(error: Tensor) -> Tensor:
    return error.square().mean() + 0.1 * error.abs().mean()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture (N,), in dB, of pictures in [−1, 1] (clipped as a viewer
    would).
    """
    mse = ((output.clamp(-1, 1) - target) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse)


def schedule(progress: float, step: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up by step, constant, then linear to zero over the last 60%
    of the way.
    """
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, 1.0 - progress) / 0.6)


def train_autoencoder(
    pictures: Path,
    run: Path,
    size: int,
    config: AutoencoderConfig,
    decoder_only: bool = False,
    name: str = "autoencoder",
):
    """Train (or go on training) and return the model; state and a log lie in `run`.

    `decoder_only` freezes encoder and latents: decoder refinement, which may run beside the
    diffusion training.
    """
    torch.manual_seed(config.seed)
    vae = build_autoencoder(config, size).to(memory_format=torch.channels_last)
    if decoder_only:
        load_state(run / "autoencoder.pt", model=vae)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimizer = Muon(muon_groups([vae]), lr=config.learning_rate)
    done = load_state(run / f"{name}.pt", model=vae, optimizer=optimizer) or {
        "step": 0,
        "seconds": 0.0,
    }
    whole = to_tensor(_validation(pictures))
    begin, step = time.monotonic() - done["seconds"], done["step"]
    streams = {
        crop: base_pictures.batches(
            pictures,
            config.batch_size * (size // crop) ** 2,
            config.seed + step + 1,
            crop if crop < size else None,
        )
        for crop in (config.crop, size)
    }
    while True:
        seconds = time.monotonic() - begin
        progress = seconds / (60 * config.minutes) if config.minutes else step / config.steps
        finished = progress >= 1.0
        if step % config.save_every == 0 or finished:
            save_state(
                run / f"{name}.pt", model=vae, optimizer=optimizer, step=step, seconds=seconds
            )
            _report(vae, whole, run, name, step, seconds)
        if finished:
            return vae
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(progress, step, config.warmup)
        crop = config.crop if progress < config.crop_share else size
        loss = _loss(vae, to_tensor(next(streams[crop])), config, decoder_only)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            print(f"{name} step {step}  {seconds / 60:.1f} min  loss {loss.item():.5f}", flush=True)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"The autoencoder's loss is {loss.item()} at step {step}; lower the learning rate."
            )


def _loss(vae, batch: Tensor, config: AutoencoderConfig, decoder_only: bool) -> Tensor:
    with torch.set_grad_enabled(not decoder_only):
        posterior = vae.encode(batch).latent_dist
        latents = posterior.sample()
    loss = reconstruction_loss(vae.decode(latents).sample, batch, config.edge_weight)
    if decoder_only:
        return loss
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
    return loss + config.kl_weight * kl


def _validation(pictures: Path) -> np.ndarray:
    """64 validation scenes and 32 validation stickers, always the same."""
    shards = base_pictures.load_shards(pictures, "val")
    return np.concatenate(
        [shard.pictures[: 64 if shard.name.startswith("scenes") else 32] for shard in shards]
    )


@torch.no_grad()
def _report(vae, whole: Tensor, run: Path, name: str, step: int, seconds: float) -> None:
    """Print PSNR of scenes and stickers and draw originals above reconstructions."""
    from zeroconv.scratch.progress import save_grid

    vae.eval()
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in whole.split(16)])
    output = torch.cat([vae.decode(part).sample for part in latents.split(16)])
    vae.train()
    values = psnr(output, whole)
    print(
        f"{name} step {step}  {seconds / 60:.1f} min  PSNR scenes {values[:64].mean():.2f} dB, "
        f"stickers {values[64:].mean():.2f} dB, latent spread {latents.std():.2f}",
        flush=True,
    )
    rows = torch.cat([whole[:8], output[:8], whole[-8:], output[-8:]])
    save_grid(rows, run / f"{name}.png", columns=8)
