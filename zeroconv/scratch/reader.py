"""Training the playroom reader: rendered scenes, heavily altered, and the same scenes through the
VAE.

What it must read are pictures that a generator made: soft, a little off in colour, with smeared
small things. So half of what it sees went through the base model's autoencoder, and all of it
through random blur, noise and colour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.conditions.pose import MIRRORED
from zeroconv.evaluation.reader import REACH, SIZE, STRIDE, Maps, Reader
from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.scratch.progress import load_state, save_state
from zeroconv.scratch.reader_data import draw_shards, load_shards

CELLS = SIZE // STRIDE


@dataclass(frozen=True)
class ReaderConfig:
    scenes: int = 6144
    steps: int = 1_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 20
    decoded: float = 0.5  # share of pictures that went through the VAE
    ema_decay: float = 0.99
    minutes: float | None = None
    seed: int = 0


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
            x = _to_tensor(images[start : start + batch_size])
            z = backbone.latents_from_moments(backbone.encode_image(x), sample=False)
            parts.append(
                (backbone.decode_latents(z) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            )
        np.save(target, np.concatenate(parts))


def train_reader(
    folder: Path, config: ReaderConfig, backbone: Any, say: Callable[[str], None] = print
) -> Reader:
    """Draw what is missing, train (or go on with) `folder/reader.pt`; returns the averaged
    network.
    """
    paths = draw_shards(folder, config.scenes)
    decode_shards(backbone, paths)
    data = load_shards(paths)
    torch.manual_seed(config.seed)
    reader = Reader().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: value.clone() for name, value in reader.state_dict().items()}
    optimizer = Muon(muon_groups([reader]), lr=config.learning_rate)
    state = load_state(folder / "reader.pt", model=reader, optimizer=optimizer)
    step, spent = (state["step"], state["seconds"]) if state else (0, 0.0)
    average = state["average"] if state else average
    began = time.monotonic() - spent
    shown: dict[str, float] = {}
    while True:
        spent = time.monotonic() - began
        done = spent / (60 * config.minutes) if config.minutes else step / config.steps
        if (step and step % 100 == 0) or done >= 1:
            save_state(
                folder / "reader.pt",
                model=reader,
                optimizer=optimizer,
                step=step,
                seconds=spent,
                average=average,
            )
        if done >= 1:
            reader.load_state_dict(average)
            return reader.eval()
        batch = draw_batch(data, np.random.default_rng([config.seed, step]), config)
        for group in optimizer.param_groups:
            group["lr"] = (
                config.learning_rate
                * min(1.0, (step + 1) / config.warmup)
                * min(1.0, (1 - done) / 0.6)
            )
        losses = losses_of(reader(batch["image"]), batch)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        for name, value in reader.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        shown = {
            name: shown.get(name, float(v)) * 0.95 + 0.05 * float(v) for name, v in losses.items()
        }
        if step % 50 == 0:
            say(
                f"reader step {step}  {spent / 60:.1f} min  "
                + "  ".join(f"{k} {v:.3f}" for k, v in shown.items())
            )


# ---------------------------------------------------------------- batches


def draw_batch(
    data: dict[str, np.ndarray], rng: np.random.Generator, config: ReaderConfig
) -> dict[str, Tensor]:
    """A batch with its truths at 128 pixels, half of it mirrored."""
    rows = rng.integers(len(data["image"]), size=config.batch_size)
    through = rng.random(len(rows)) < config.decoded
    pixels = np.where(through[:, None, None, None], data["decoded"][rows], data["image"][rows])
    maps = {name: data[name][rows].copy() for name in ("depth", "normal", "classes", "joints")}
    turn = rng.random(len(rows)) < 0.5
    pixels[turn] = pixels[turn][:, :, ::-1]
    for name in ("depth", "normal", "classes"):
        maps[name][turn] = maps[name][turn][:, :, ::-1]
    maps["normal"][turn, ..., 0] *= -1
    maps["joints"][turn] = maps["joints"][turn][:, :, list(MIRRORED)]
    maps["joints"][turn, ..., 0] = SIZE - maps["joints"][turn, ..., 0]
    centre, offsets, weights = people_targets(maps["joints"], data["people"][rows])
    return {
        "image": alter(_to_tensor(pixels), rng).contiguous(memory_format=torch.channels_last),
        "inverse_depth": 1 / torch.from_numpy(maps["depth"].astype(np.float32)),
        "normal": torch.from_numpy(maps["normal"].astype(np.float32) / 127).permute(0, 3, 1, 2),
        "classes": torch.from_numpy(maps["classes"].astype(np.int64)),
        "centre": torch.from_numpy(centre),
        "joints": torch.from_numpy(offsets),
        "weights": torch.from_numpy(weights),
    }


def people_targets(
    joints: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """joints (N, P, 18, 3) → centre heat (N, h, w), offsets (N, 18, 2, h, w) in `REACH`, weights
    (N, 18, h, w).

    A person's centre is the middle of its box. Cells within two of it vote, the nearer the more.
    """
    n = len(joints)
    centre = np.zeros((n, CELLS, CELLS), np.float32)
    offsets = np.zeros((n, 18, 2, CELLS, CELLS), np.float32)
    weights = np.zeros((n, 18, CELLS, CELLS), np.float32)
    y, x = np.mgrid[:CELLS, :CELLS].astype(np.float32) * STRIDE + STRIDE / 2
    for i in range(n):
        for person in joints[i, : count[i]]:
            known = person[person[:, 2] > 0]
            if not len(known):
                continue
            cx, cy = (
                (known[:, 0].min() + known[:, 0].max()) / 2,
                (known[:, 1].min() + known[:, 1].max()) / 2,
            )
            heat = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * STRIDE**2))
            near = heat > np.maximum(centre[i], 0.1)  # where two people meet, the nearer middle
            centre[i] = np.maximum(centre[i], heat)
            for joint, (px, py, seen) in enumerate(person):
                offsets[i, joint, 0][near], offsets[i, joint, 1][near] = (
                    (px - x[near]) / REACH,
                    (py - y[near]) / REACH,
                )
                weights[i, joint][near] = heat[near] * (
                    1.0 if seen == 2 else 0.3 if seen == 1 else 0.0
                )
    return centre, offsets, weights


def alter(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random blur, coarseness, colour, noise and a hidden patch, each on some pictures of x (N, 3,
    H, W) in [−1, 1].
    """
    n = len(x)
    out = []
    for i in range(n):
        picture = x[i : i + 1]
        kind = rng.random()
        if kind < 0.25:
            picture = _blur(picture, rng.uniform(0.4, 1.6))
        elif kind < 0.45:
            small = int(SIZE / rng.uniform(1.2, 2.6))
            picture = nn.functional.interpolate(
                picture, (small, small), mode="bilinear", antialias=True
            )
            picture = nn.functional.interpolate(picture, (SIZE, SIZE), mode="bilinear")
        if rng.random() < 0.6:
            gain = torch.tensor(
                rng.uniform(0.75, 1.3, (1, 3, 1, 1)) * rng.uniform(0.85, 1.15), dtype=x.dtype
            )
            shift = torch.tensor(rng.uniform(-0.12, 0.12, (1, 3, 1, 1)), dtype=x.dtype)
            picture = picture * gain + shift
        if rng.random() < 0.4:
            scale = int(rng.choice([1, 2, 4]))
            grain = torch.from_numpy(
                rng.normal(0, rng.uniform(0.01, 0.08), (1, 3, SIZE // scale, SIZE // scale))
            )
            picture = picture + nn.functional.interpolate(
                grain.to(x.dtype), (SIZE, SIZE), mode="bilinear"
            )
        if rng.random() < 0.1:  # hue turned: classes must not be told by colour alone
            picture = picture[:, rng.permutation(3).tolist()]
        out.append(picture)
    return torch.cat(out).clamp(-1, 1)


def _blur(picture: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(2 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(picture.dtype)
    padded = nn.functional.pad(picture, (radius,) * 4, mode="replicate")
    rows = nn.functional.conv2d(padded, taps.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
    return nn.functional.conv2d(rows, taps.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)


def losses_of(maps: Maps, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """One loss a head, weighed to similar size."""
    people = truth["weights"].sum().clamp_min(1.0)
    apart = (maps.joints - truth["joints"]).abs().sum(2)  # (N, 18, h, w)
    heat = truth["centre"]
    balance = 1 + 20 * heat  # a centre is one cell of a thousand
    return {
        "depth": 20 * nn.functional.l1_loss(maps.inverse_depth, truth["inverse_depth"]),
        "normal": 2 * (1 - (maps.normal * truth["normal"]).sum(1)).mean(),
        "classes": nn.functional.cross_entropy(maps.classes, truth["classes"]),
        "centre": 5
        * nn.functional.binary_cross_entropy_with_logits(maps.centre, heat, weight=balance),
        "joints": 4 * (apart * truth["weights"]).sum() / people,
    }


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
