"""How well an autoencoder gives pictures back: PSNR, and originals above reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroconv.files import atomic_write
from zeroconv.scratch.vae.model import to_tensor

SHOWN = 8  # pictures of each kind


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio a picture (N,), in dB, of pictures in [−1, 1] (clipped as a viewer
    would).
    """
    mse = ((output.clamp(-1, 1) - target) / 2).square().mean(dim=(1, 2, 3))

    return -10 * torch.log10(mse)


@torch.no_grad()
def report(vae: Any, pictures: dict[str, np.ndarray], path: Path) -> str:
    """One line of figures; draws a PNG at `path`. pictures: kind → (N, H, W, 3) uint8."""
    figures, rows = [], []

    for kind, some in pictures.items():
        pixels = to_tensor(some)
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(16)])
        output = torch.cat([vae.decode(part).sample for part in latents.split(16)])

        figures.append(f"{kind} {psnr(output, pixels).mean():.2f} dB (spread {latents.std():.2f})")
        rows += [pixels[:SHOWN], output[:SHOWN]]

    if rows:
        save_grid(torch.cat(rows), path, columns=min(SHOWN, min(len(row) for row in rows)))
    return "PSNR " + ", ".join(figures)


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Draw pictures (N, 3, H, W) in [−1, 1] as one PNG, row by row."""
    from PIL import Image

    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    values = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)

    for i, picture in enumerate(values.numpy()):
        y, x = divmod(i, columns)
        canvas[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture
    with atomic_write(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="png")
