"""The playroom base from nothing: pictures → autoencoder → text and UNet on cached latents →
decoder → folder.

Every stage goes on where it stopped: a second call with the same folder redoes nothing that is
finished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.jsonfile import write_json
from zeroconv.machine import cores
from zeroconv.scratch.base.training import DiffusionConfig, read_model, train_diffusion
from zeroconv.scratch.corpus.shards import PIXELS, load_shard, shard_names
from zeroconv.scratch.drawing.draw import draw
from zeroconv.scratch.drawing.encoding import encode_shards
from zeroconv.scratch.drawing.jobs import SHARD
from zeroconv.scratch.export.bases import write_base
from zeroconv.scratch.export.model_card import card
from zeroconv.scratch.loop.state import STATE, read_progress
from zeroconv.scratch.vae import AutoencoderConfig, read_autoencoder, train_autoencoder
from zeroconv.scratch.vae.model import encoder_checksum, measure, whiten_

STAGES = ("pictures", "autoencoder", "diffusion", "decoder", "export")
MEASURED = 256  # pictures of each shard whose latents are measured


@dataclass
class BaseConfig:
    """Everything that decides what the base model becomes."""

    size: int = 128
    scenes: int = 24 * SHARD
    stickers: int = 10 * SHARD
    shard: int = SHARD
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    decoder: AutoencoderConfig = field(
        default_factory=lambda: AutoencoderConfig(steps=2_000, learning_rate=1e-3, crop_share=0.3)
    )
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


@dataclass(frozen=True)
class Folders:
    """Where a training of the base keeps what."""

    out: Path

    @property
    def pictures(self) -> Path:
        return self.out / "pictures"

    @property
    def moments(self) -> Path:
        return self.out / "moments"

    def run(self, stage: str) -> Path:
        return self.out / "run" / stage


def train_base(
    out: str | Path,
    stickers: str | Path,
    *,
    config: BaseConfig | None = None,
    stages: tuple[str, ...] = STAGES,
    minutes: float | None = None,
    threads: int | None = None,
    workers: int | None = None,
) -> Path:
    """Train the playroom base model in `out`; returns the diffusers pipeline folder `out/playroom`.

    `stickers` is the folder made by `zeroconv playroom stickers`. `minutes` shares a time budget
    among the training stages (40% autoencoder, 45% diffusion, 15% decoder) instead of the
    configured steps; `stages` runs a part only.

    Raises UserError for an unknown stage, a missing sticker folder, or a folder of an earlier
    version.
    """
    config, folders = config or BaseConfig(), Folders(Path(out))
    _check(stages, folders)
    if threads:
        torch.set_num_threads(threads)
    if minutes:
        config = replace(
            config,
            autoencoder=replace(config.autoencoder, minutes=0.40 * minutes),
            diffusion=replace(config.diffusion, minutes=0.45 * minutes),
            decoder=replace(config.decoder, minutes=0.15 * minutes),
        )

    if "pictures" in stages:
        draw_pictures(folders.pictures, Path(stickers), config, workers or cores())
    if "autoencoder" in stages:
        train_autoencoder(
            folders.pictures, folders.run("autoencoder"), config.size, config.autoencoder
        )
    if "diffusion" in stages:
        encode_shards(folders.pictures, folders.moments, _autoencoder(folders, config))
        train_diffusion(folders.moments, folders.run("diffusion"), config.diffusion)
    if "decoder" in stages:
        start, run = folders.run("autoencoder"), folders.run("decoder")
        train_autoencoder(folders.pictures, run, config.size, config.decoder, start)
    if "export" in stages:
        export(folders, config)

    return folders.out / "playroom"


def _check(stages: tuple[str, ...], folders: Folders) -> None:
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UserError(f"Unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}.")

    for name in ("autoencoder.pt", "diffusion.pt"):
        if folders.run(name).is_file():
            raise UserError(f"{folders.out} was begun by an earlier version; take another folder.")


def draw_pictures(pictures: Path, stickers: Path, config: BaseConfig, workers: int) -> None:
    """Draw all shards: the validation split first."""
    small = min(64, config.shard)
    held_out = {"shard": small, "split": "val"}

    for scenes, drawings, how in (
        (small, small, held_out),
        (config.scenes, config.stickers, {"shard": config.shard}),
    ):
        how |= {"size": config.size, "workers": workers, "pixels": True}
        draw(pictures, stickers, scenes, drawings, **how)  # type: ignore[arg-type]


def _autoencoder(folders: Folders, config: BaseConfig) -> Any:
    """The newest trained autoencoder, whitened: with the refined decoder where there is one."""
    refined = folders.run("decoder")
    newest = refined if (refined / STATE).exists() else folders.run("autoencoder")
    vae = read_autoencoder(newest, config.size, config.autoencoder)

    whiten_(vae, *_statistics(vae, folders))
    return vae


def _statistics(vae: Any, folders: Folders) -> tuple[Tensor, Tensor]:
    """Mean and spread of the latents (C,), measured once: they decide all cached latents.

    Raises UserError where the encoder has changed since.
    """
    path, encoder = folders.run("statistics.json"), encoder_checksum(vae)

    if not path.exists():
        names = shard_names(folders.pictures)
        shards = [load_shard(folders.pictures, name, [PIXELS]) for name in names]
        sample = np.concatenate([shard.arrays[PIXELS][:MEASURED] for shard in shards])
        mean, spread = measure(vae, sample)
        values = {"mean": mean.tolist(), "spread": spread.tolist(), "encoder": encoder}
        write_json(path, values)

    values = json.loads(path.read_text(encoding="utf-8"))
    if values["encoder"] != encoder:
        raise UserError(
            f"The autoencoder in {folders.out} was trained further since its latents were cached; "
            f"move {path}, {folders.moments} and {folders.run('diffusion')} away."
        )
    return torch.tensor(values["mean"]), torch.tensor(values["spread"])


def export(folders: Folders, config: BaseConfig) -> None:
    """Write a StableDiffusionPipeline folder in float16 safetensors, with averaged weights and
    whitened latents.
    """
    vae = _autoencoder(folders, config)
    model, tokenizer = read_model(folders.run("diffusion"), config.diffusion)
    done = {stage: read_progress(folders.run(stage)) for stage in STAGES}
    finished = {stage: progress for stage, progress in done.items() if progress}

    with atomic_folder(folders.out / "playroom") as temporary:
        write_base(temporary, model, vae, tokenizer)
        channels = config.autoencoder.latent_channels
        text = card(folders.pictures, config.size, channels, finished)
        (temporary / "README.md").write_text(text, encoding="utf-8")
