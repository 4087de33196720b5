"""The embedded small decoder against the VAE that it stands for (`--fast vae=tiny`).

python -m benchmarks.quality.tiny_vae [--count 64] [--decoder FOLDER]

Held-out pictures go through the VAE's encoder; a sample of the latents is decoded by both. The time
is that of the processor for one picture, by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import write_result
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.tiny_vae import EMBEDDED, load_tiny_vae
from zeroconv.conditions import CONDITIONS
from zeroconv.evaluation.pairs import Pair, load_pairs
from zeroconv.evaluation.reading import make_read

DATA = "playroom:test"
CONDITION, METRIC = "canny", "f1_1px"


@torch.inference_mode()
def main() -> None:
    arguments = parse()
    backbone = load_backbone("playroom")
    backbone.tiny_vae = load_tiny_vae(arguments.decoder, backbone)
    pairs = load_pairs(DATA, CONDITION, arguments.count, backbone.default_size)
    latents = encoded(backbone, pairs)
    decoders: dict[str, Callable[[Tensor], Tensor]] = {
        "VAE": backbone.decode_latents,
        "small decoder": backbone.decode_tiny,
    }
    made = {name: torch.cat([decode(z) for z in latents.split(8)])
            for name, decode in decoders.items()}  # fmt: skip
    seconds = times(decoders, latents[:1], arguments.repeats)
    numbers = {"VAE": backbone.vae.decoder, "small decoder": backbone.tiny_vae.decoder}
    rows = []
    for name, pictures in made.items():
        ratios = psnr(pictures, made["VAE"])
        rows.append([
            name,
            f"{sum(p.numel() for p in numbers[name].parameters()):,}",
            "" if name == "VAE" else f"{ratios.mean():.1f}, least {ratios.min():.1f}",
            round(float(np.mean(scores(pairs, pictures))), 3),
            round(1000 * seconds[name], 1),
            f"{seconds['VAE'] / seconds[name]:.2f}×",
        ])  # fmt: skip
    columns = ["", "parameters", "PSNR to the VAE's, dB", "canny F1", "CPU ms a picture", "faster"]
    note = (
        f"{arguments.count} held-out pictures of {DATA}, 128 px, one sample of each one's latents. "
        "F1 of line pixels within one pixel, of hints read from what is decoded, against those of "
        f"the pictures. Time: median of {arguments.repeats}, by turns, float32, "
        f"{torch.get_num_threads()} thread."
    )
    command = f"python -m benchmarks.quality.tiny_vae --count {arguments.count}"
    write_result("tiny_vae", columns, rows, command, note, arguments.out)


def encoded(backbone: Any, pairs: list[Pair]) -> Tensor:
    """A sample of each picture's latents, (N, C, h, w)."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for pair in pairs:
        pixels = torch.from_numpy(np.array(pair.image)).permute(2, 0, 1)[None].float()
        moments = backbone.encode_image(pixels / 127.5 - 1)
        parts.append(backbone.latents_from_moments(moments, generator))
    return torch.cat(parts)


def psnr(made: Tensor, expected: Tensor) -> Tensor:
    """In dB a picture (N,), of pictures (N, 3, H, W) in [0, 1]."""
    return -10 * torch.log10((made - expected).square().mean((1, 2, 3)).clamp_min(1e-10))


def scores(pairs: list[Pair], pictures: Tensor) -> list[Any]:
    """Of each picture, how well its hint agrees with that of the pair."""
    read, _ = make_read(CONDITION, "auto", DATA)
    values = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(picture) for picture in values]
    score = CONDITIONS[CONDITION].score
    return [score(p.truth, r)[METRIC] for p, r in zip(pairs, read(images), strict=True)]


def times(
    decoders: dict[str, Callable[[Tensor], Tensor]], z: Tensor, repeats: int
) -> dict[str, float]:
    """Seconds of the processor for a decode of z by each, medians, by turns."""
    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for turn in range(repeats + 2):
        for name, decode in decoders.items():
            began = time.process_time()
            decode(z)
            if turn >= 2:  # the first ones set up
                taken[name].append(time.process_time() - began)
    return {name: median(values) for name, values in taken.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--decoder", default=EMBEDDED, help="a tiny VAE; by default the embedded")
    parser.add_argument("--out", type=Path, help="the result's file; by default of the repository")
    return parser.parse_args()


if __name__ == "__main__":
    main()
