"""Training a base on the latents of its own autoencoder, with a tokenizer of its own captions.

A stage of `zeroconv playroom train-base`; `python -m zeroconv.scratch.base` trains on the embedded
autoencoder and tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zeroconv.errors import UserError
from zeroconv.scratch.base.model import TextToLatent
from zeroconv.scratch.base.task import BaseTask
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.latents import Latents
from zeroconv.scratch.corpus.shards import load_shard, shard_names
from zeroconv.scratch.loop.averages import Averages
from zeroconv.scratch.loop.budget import Budget
from zeroconv.scratch.loop.run import Run, print_line
from zeroconv.scratch.loop.state import fill_, read_average
from zeroconv.scratch.text.clip import train_tokenizer


@dataclass
class DiffusionConfig:
    """Length and settings; `unet` and `text` replace entries of the embedded base's configs."""

    steps: int = 2_000
    batch_size: int = 96
    learning_rate: float = 2e-3
    warmup: int = 50
    vocabulary: int = 2048
    max_length: int = 48
    ema_decay: float = 0.998
    minutes: float | None = None  # the schedule runs by the clock instead of by steps
    seed: int = 0
    unet: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)


def train_diffusion(shards: Path, folder: Path, config: DiffusionConfig) -> None:
    """Train, or go on with, text encoder and UNet in `folder`, on shards of moments."""
    tokenizer = _tokenizer(folder, config, shards)
    torch.manual_seed(config.seed)
    task = BaseTask(model=_new_model(tokenizer, config), tokenizer=tokenizer)

    budget = Budget(
        config.learning_rate,
        steps=config.steps,
        seconds=None if config.minutes is None else 60 * config.minutes,
        warmup=config.warmup,
        decay=0.6,
    )
    mixture = Mixture(batch=config.batch_size, seed=config.seed)
    journal = folder / "shards.json"
    feed = Latents(task, shards, journal, budget, mixture, seed=config.seed, report=print_line)
    averages = Averages(task.model, decays=(config.ema_decay,), every=1)
    Run(task, feed, budget, folder, config.batch_size, averages=averages).finish()


def read_model(folder: Path, config: DiffusionConfig) -> tuple[TextToLatent, Any]:
    """The averaged model trained in `folder`, and its tokenizer. Raises UserError where there is
    none.
    """
    if not (folder / "tokenizer").is_dir():
        raise UserError(f"No trained diffusion model in {folder}; run the stage 'diffusion' first.")
    tokenizer = _tokenizer(folder, config)
    model = _new_model(tokenizer, config)
    fill_(model, read_average(folder, str(config.ema_decay))[0])

    return model, tokenizer


def _new_model(tokenizer: Any, config: DiffusionConfig) -> TextToLatent:
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }

    return TextToLatent(config.unet, {**config.text, **words})


def _tokenizer(folder: Path, config: DiffusionConfig, shards: Path | None = None) -> Any:
    """The run's tokenizer; learned from the captions of `shards` where it has none."""
    from transformers import CLIPTokenizer

    path = folder / "tokenizer"
    if path.is_dir() or shards is None:
        return CLIPTokenizer.from_pretrained(path, trust_remote_code=False)

    known = (load_shard(shards, name, ()).captions for name in shard_names(shards))
    captions = (text for shard in known for variants in shard for text in variants)
    return train_tokenizer(captions, path, config.vocabulary, config.max_length)
