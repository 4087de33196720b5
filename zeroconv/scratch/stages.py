"""The playroom base model from nothing: pictures → autoencoder → text and UNet on cached moments →
decoder → folder.

Every stage goes on where it stopped: a second call with the same folder redoes nothing that is
finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.scratch import pictures as base_pictures
from zeroconv.scratch.autoencoder import AutoencoderConfig, build_autoencoder, train_autoencoder
from zeroconv.scratch.model_card import card
from zeroconv.scratch.progress import load_state, read_progress
from zeroconv.scratch.text_to_latent import (
    SCHEDULER,
    DiffusionConfig,
    TextToLatent,
    cache_moments,
    train_diffusion,
    whiten,
)

STAGES = ("pictures", "autoencoder", "diffusion", "decoder", "export")


@dataclass
class BaseConfig:
    """Everything that decides what the base model becomes; the defaults are the shipped one's."""

    size: int = 128
    scenes: int = 12 * base_pictures.SHARD
    stickers: int = 5 * base_pictures.SHARD
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    decoder: AutoencoderConfig = field(
        default_factory=lambda: AutoencoderConfig(steps=2_000, learning_rate=1e-3, crop_share=0.3)
    )
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)


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

    Raises UserError for an unknown stage or a missing sticker folder.
    """
    config, out = config or BaseConfig(), Path(out)
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UserError(f"Unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}.")
    if threads:
        torch.set_num_threads(threads)
    if minutes:
        config = replace(
            config,
            autoencoder=replace(config.autoencoder, minutes=0.40 * minutes),
            diffusion=replace(config.diffusion, minutes=0.45 * minutes),
            decoder=replace(config.decoder, minutes=0.15 * minutes),
        )
    pictures, run = out / "pictures", out / "run"
    run.mkdir(parents=True, exist_ok=True)
    if "pictures" in stages:
        draw_pictures(pictures, Path(stickers), config, workers)
    if "autoencoder" in stages:
        train_autoencoder(pictures, run, config.size, config.autoencoder)
    if "diffusion" in stages:
        train_diffusion(_autoencoder(run, config), pictures, run, config.diffusion)
    if "decoder" in stages:
        train_autoencoder(
            pictures, run, config.size, config.decoder, decoder_only=True, name="decoder"
        )
    if "export" in stages:
        export(run, pictures, out / "playroom", config)
    return out / "playroom"


def draw_pictures(pictures: Path, stickers: Path, config: BaseConfig, workers: int | None) -> None:
    """Draw all shards: validation first, stickers, then scenes."""
    base_pictures.draw_scenes(pictures, 64, config.size, split="val", workers=workers)
    base_pictures.draw_stickers(pictures, stickers, 128, config.size, split="val")
    base_pictures.draw_stickers(pictures, stickers, config.stickers, config.size)
    base_pictures.draw_scenes(pictures, config.scenes, config.size, workers=workers)


def _autoencoder(run: Path, config: BaseConfig):
    """The newest trained autoencoder: with the refined decoder where there is one."""
    vae = build_autoencoder(config.autoencoder, config.size).to(memory_format=torch.channels_last)
    for name in ("decoder.pt", "autoencoder.pt"):
        if load_state(run / name, model=vae) is not None:
            return vae.eval()
    raise UserError(f"No trained autoencoder in {run}; run the stage 'autoencoder' first.")


def export(run: Path, pictures: Path, folder: Path, config: BaseConfig) -> None:
    """Write a StableDiffusionPipeline folder in float16 safetensors, with EMA weights and whitened
    latents.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    vae = _autoencoder(run, config)
    mean, spread = cache_moments(vae, pictures, run / "moments")
    whiten(vae, mean, spread)
    tokenizer = CLIPTokenizer.from_pretrained(run / "tokenizer", trust_remote_code=False)
    latent_size = config.size // 2 ** (len(config.autoencoder.widths) - 1)
    model = TextToLatent(
        config.diffusion, tokenizer, config.autoencoder.latent_channels, latent_size
    )
    state = load_state(run / "diffusion.pt", model=model)
    if state is None:
        raise UserError(f"No trained diffusion model in {run}; run the stage 'diffusion' first.")
    model.load_state_dict(state["average"])
    stages = {
        name: done
        for name in ("autoencoder", "diffusion", "decoder")
        if (done := read_progress(run / f"{name}.pt"))
    }
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=model.text.half(),
        tokenizer=tokenizer,
        unet=model.unet.half(),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        text = card(pictures, config.size, config.autoencoder.latent_channels, stages)
        (temporary / "README.md").write_text(text, encoding="utf-8")
