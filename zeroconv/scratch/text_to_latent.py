"""Training text encoder and UNet from scratch on cached moments: the second stage of a latent
diffusion model.

v-prediction (Salimans & Ho 2022) on Stable Diffusion's scaled-linear betas: with few steps the
coarse picture must be learned first, and its weight at high noise is what plain epsilon loss lacks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zeroconv.files import atomic_write
from zeroconv.optim.muon import Muon, muon_groups
from zeroconv.scratch import pictures as base_pictures
from zeroconv.scratch.autoencoder import schedule, to_tensor
from zeroconv.scratch.progress import load_state, save_grid, save_state
from zeroconv.scratch.text import build_text_encoder, train_tokenizer


@dataclass
class DiffusionConfig:
    widths: tuple[int, ...] = (80, 128, 160, 128)
    text_width: int = 192
    text_layers: int = 3
    vocabulary: int = 2048
    max_length: int = 48
    steps: int = 2_000
    batch_size: int = 96
    learning_rate: float = 2e-3
    warmup: int = 50
    empty_prompts: float = 0.1
    sticker_share: float = 0.35
    ema_decay: float = 0.998
    bf16: bool = False  # slower than float32 on the CPUs it was measured on, at these widths
    minutes: float | None = None
    save_every: int = 100
    seed: int = 0


class TextToLatent(nn.Module):
    """Text encoder and UNet, trained as one."""

    def __init__(
        self, config: DiffusionConfig, tokenizer, latent_channels: int, latent_size: int
    ) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.text = build_text_encoder(tokenizer, config.text_width, config.text_layers)
        # attention at the two middle sizes: at 16×16 it doubles the time of a step, at
        # 2×2 it has nothing to look at
        self.unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=config.widths,
            layers_per_block=2,
            down_block_types=(
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=config.text_width,
            attention_head_dim=tuple(
                max(1, width // 32) for width in config.widths
            ),  # diffusers: the number of heads
            norm_num_groups=16,
        )
        nn.init.zeros_(self.unet.conv_out.weight)  # the first prediction is the mean of the target

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(z, t, self.text(tokens).last_hidden_state).sample


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's noise schedule: 1000 steps, √beta linear from √0.00085 to √0.012; (1000,)
    float32.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


@torch.no_grad()
def cache_moments(vae, pictures: Path, folder: Path) -> tuple[Tensor, Tensor]:
    """Encode every shard once into `<shard>.npy` float16 (N, 2C, h, w); returns mean and spread a
    channel (C,).
    """
    folder.mkdir(parents=True, exist_ok=True)
    vae.eval()
    for split in ("train", "val"):
        for shard in base_pictures.load_shards(pictures, split):
            path = folder / f"{shard.name}.npy"
            if path.exists():
                continue
            starts = range(0, len(shard.pictures), 32)
            parts = [
                vae.encode(to_tensor(shard.pictures[i : i + 32])).latent_dist.parameters
                for i in starts
            ]
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.save(file, torch.cat(parts).half().numpy())
            print(f"moments of {shard.name}", flush=True)
    return _statistics(pictures, folder)


def _statistics(pictures: Path, folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and spread a channel, measured once: later shards must not move the latents of a running
    training.
    """
    path = folder / "statistics.json"
    if not path.exists():
        names = [shard.name for shard in base_pictures.load_shards(pictures)]
        sample = [
            torch.from_numpy(np.load(folder / f"{name}.npy")[:512]).float().chunk(2, dim=1)[0]
            for name in names
        ]
        means = torch.cat(sample)
        with atomic_write(path) as temporary:
            values = {
                "mean": means.mean(dim=(0, 2, 3)).tolist(),
                "spread": means.std(dim=(0, 2, 3)).tolist(),
            }
            temporary.write_text(json.dumps(values))
    values = json.loads(path.read_text())
    return torch.tensor(values["mean"]), torch.tensor(values["spread"])


@torch.no_grad()
def whiten(vae, mean: Tensor, spread: Tensor) -> None:
    """Fold `(z − mean) / spread` a channel into the VAE's own 1×1 convolutions, so that latents
    have mean 0, spread 1.

    Stable Diffusion's single scaling factor cannot shift or tell channels apart; its quant
    convolutions can.
    """
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= spread[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / spread
    quant.bias[channels:] -= 2 * spread.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= spread[None, :, None, None]


@dataclass
class Examples:
    """Moments and token variants of a split: scenes and stickers apart, so that their share can be
    chosen.
    """

    moments: list[np.ndarray]  # one (N, 2C, h, w) a shard
    tokens: list[list[Tensor]]  # one list of (variants, L) a shard
    scenes: list[int]
    stickers: list[int]
    mean: Tensor
    spread: Tensor

    def latents(self, shard: int, index: int, noise: Tensor) -> Tensor:
        """A fresh sample of the posterior, whitened: (C, h, w)."""
        mean, logvar = torch.from_numpy(self.moments[shard][index].astype(np.float32)).chunk(2)
        z = mean + (0.5 * logvar.clamp(-30, 20)).exp() * noise
        return (z - self.mean[:, None, None]) / self.spread[:, None, None]


def load_examples(
    pictures: Path, moments: Path, tokenizer, mean: Tensor, spread: Tensor
) -> Examples:
    shards = base_pictures.load_shards(pictures)
    tokens = [tokenize(tokenizer, shard.captions) for shard in shards]
    arrays = [np.load(moments / f"{shard.name}.npy") for shard in shards]
    scenes = [i for i, shard in enumerate(shards) if shard.name.startswith("scenes")]
    stickers = [i for i, shard in enumerate(shards) if shard.name.startswith("stickers")]
    return Examples(arrays, tokens, scenes or stickers, stickers or scenes, mean, spread)


def tokenize(tokenizer, captions: list[list[str]]) -> list[Tensor]:
    """Token ids (variants, L) for every picture's captions, padded to the model's length."""
    flat = [caption for variants in captions for caption in variants]
    ids = tokenizer(flat, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return list(ids.split([len(variants) for variants in captions]))


def draw_batches(
    data: Examples, empty: Tensor, config: DiffusionConfig, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (latents (N, C, h, w), tokens (N, L)); a tenth of the prompts empty, drawn anew every
    time.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = data.moments[0].shape[1] // 2, *data.moments[0].shape[2:]
    while True:
        noise = torch.randn(config.batch_size, channels, height, width, generator=generator)
        latents, tokens = [], []
        for i in range(config.batch_size):
            pool = data.stickers if rng.random() < config.sticker_share else data.scenes
            shard = pool[rng.integers(len(pool))]
            index = int(rng.integers(len(data.moments[shard])))
            latents.append(data.latents(shard, index, noise[i]))
            variants = data.tokens[shard][index]
            tokens.append(
                empty
                if rng.random() < config.empty_prompts
                else variants[rng.integers(len(variants))]
            )
        yield torch.stack(latents), torch.stack(tokens)


def v_loss(model: TextToLatent, z: Tensor, tokens: Tensor, alphas: Tensor, bf16: bool) -> Tensor:
    """Mean squared error of v = √ᾱ·ε − √(1−ᾱ)·z at a uniform timestep a picture."""
    t = torch.randint(0, len(alphas), (len(z),))
    signal, scatter = (
        alphas[t].sqrt()[:, None, None, None],
        (1 - alphas[t]).sqrt()[:, None, None, None],
    )
    noise = torch.randn_like(z)
    noisy = (signal * z + scatter * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        predicted = model(noisy, t, tokens)
    return nn.functional.mse_loss(predicted.float(), signal * noise - scatter * z)


def train_diffusion(vae, pictures: Path, run: Path, config: DiffusionConfig):
    """Train (or go on training); returns tokenizer, EMA model and the latents' (mean, spread)."""
    torch.manual_seed(config.seed + 1)
    mean, spread = cache_moments(vae, pictures, run / "moments")
    tokenizer = _tokenizer(pictures, run, config)
    data = load_examples(pictures, run / "moments", tokenizer, mean, spread)
    channels, size = data.moments[0].shape[1] // 2, data.moments[0].shape[2]
    model = TextToLatent(config, tokenizer, channels, size)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = Muon(muon_groups([model]), lr=config.learning_rate)
    done = load_state(run / "diffusion.pt", model=model, optimizer=optimizer)
    if done:
        average = done["average"]
    step = done["step"] if done else 0
    begin = time.monotonic() - (done["seconds"] if done else 0.0)
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    stream, alphas, running = (
        draw_batches(data, empty, config, config.seed + step + 1),
        alphas_cumprod(),
        0.0,
    )
    while True:
        seconds = time.monotonic() - begin
        progress = seconds / (60 * config.minutes) if config.minutes else step / config.steps
        finished = progress >= 1.0
        if (step % config.save_every == 0 and step) or finished:
            save_state(
                run / "diffusion.pt",
                model=model,
                optimizer=optimizer,
                step=step,
                seconds=seconds,
                average=average,
            )
            shown = TextToLatent(config, tokenizer, channels, size)
            shown.load_state_dict(average)
            preview(shown, vae, tokenizer, pictures, run / "diffusion.png", mean, spread)
            if finished:
                return tokenizer, shown, (mean, spread)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(progress, step, config.warmup)
        loss = v_loss(model, *next(stream), alphas, config.bf16)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        _follow(average, model, min(config.ema_decay, (1 + step) / (10 + step)))
        running += (loss.item() - running) / min(step, 50)
        if step % 25 == 0:
            print(f"diffusion step {step}  {seconds / 60:.1f} min  loss {running:.4f}", flush=True)
        if not math.isfinite(running):
            raise FloatingPointError(
                f"The diffusion loss is {running} at step {step}; lower the learning rate."
            )


@torch.no_grad()
def _follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)


def _tokenizer(pictures: Path, run: Path, config: DiffusionConfig):
    from transformers import CLIPTokenizer

    folder = run / "tokenizer"
    if folder.exists():
        return CLIPTokenizer.from_pretrained(folder, trust_remote_code=False)
    shards = base_pictures.load_shards(pictures)
    captions = (caption for shard in shards for variants in shard.captions for caption in variants)
    return train_tokenizer(captions, folder, config.vocabulary, config.max_length)


@torch.no_grad()
def preview(
    model: TextToLatent, vae, tokenizer, pictures: Path, path: Path, mean: Tensor, spread: Tensor
) -> None:
    """Sixteen pictures of held-out captions (eight scenes, eight stickers), DDIM 20 steps, guidance
    4.
    """
    from diffusers import DDIMScheduler

    shards = base_pictures.load_shards(pictures, "val")
    captions = [shard.captions[i][0] for shard in shards for i in range(8)]
    tokens = tokenizer(
        [*captions, *[""] * len(captions)],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(20)
    size = model.unet.config.sample_size
    z = torch.randn(
        len(captions),
        model.unet.config.in_channels,
        size,
        size,
        generator=torch.Generator().manual_seed(0),
    )
    for t in scheduler.timesteps:
        with torch.autocast("cpu", torch.bfloat16):
            cond, empty = model(torch.cat([z, z]), t, tokens).float().chunk(2)
        z = scheduler.step(empty + 4.0 * (cond - empty), t, z).prev_sample
    shown = vae.decode(z * spread[:, None, None] + mean[:, None, None]).sample
    save_grid(shown, path, columns=8)
    with atomic_write(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(captions, indent=1))


SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
