"""playroom-flow as its training sees it: noisy latents in, the loss on the velocity out.

Flow matching (Lipman et al. 2023; Esser et al. 2024): x_t = (1 − σ) x0 + σ ε, the target is ε − x0,
σ is logit-normal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.process import Flow
from zeroconv.scratch.corpus.batch import Batch, generator_of
from zeroconv.scratch.corpus.shards import load_shard, shard_names
from zeroconv.scratch.embedded import embedded_tokenizer
from zeroconv.scratch.flow.model import FlowModel
from zeroconv.scratch.loop.precision import narrow
from zeroconv.scratch.text.t5 import train_sentences
from zeroconv.scratch.text.writers import Writer, clip_writer


def draw_sigmas(count: int, generator: torch.Generator, device: str) -> Tensor:
    """(count,) in (0, 1), logit-normal, one from each of `count` equal shares of it."""
    shifts = torch.rand(count, generator=generator, device=device)
    u = (torch.arange(count, device=device) + shifts) / count
    normal = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))

    return torch.sigmoid(normal)[torch.randperm(count, generator=generator, device=device)]


class FlowTask:
    """The flow base as the loop sees it. `sentences`: the T5 tokenizer of its captions."""

    def __init__(
        self,
        sentences: Any,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        self.model = (model or FlowModel(len(sentences))).to(device)
        self.writers: list[Writer] = [clip_writer(embedded_tokenizer()), clip_writer(sentences)]
        self.device, self.precision = device, precision
        self.process = Flow(steps=1)  # its timesteps are σ
        self.predict = torch.compile(self.model) if compiled else self.model

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """What `loss` reads: noisy latents, σ, velocity, both token rows, each picture's prompt."""
        generator = generator_of(seed, 3, step, self.device)
        sigma = draw_sigmas(len(batch.latents), generator, self.device)
        noise = torch.randn(batch.latents.shape, generator=generator, device=self.device)

        noisy = self.process.noised(batch.latents, noise, sigma)
        target = self.process.target(batch.latents, noise, sigma)
        return noisy, sigma, target, *batch.tokens, batch.prompt

    def loss(self, *drawn: Tensor) -> Tensor:
        """Mean squared error of the velocity ε − x0."""
        noisy, sigma, target, *texts = drawn
        with narrow(self.device, self.precision):
            predicted = self.predict(noisy, sigma, *texts)

        return nn.functional.mse_loss(predicted.float(), target)


def sentences_of(run: Path, shards: Path) -> Any:
    """The run's T5 tokenizer, learned from the captions at hand when the run begins."""
    from transformers import T5TokenizerFast

    folder = run / "tokenizer_2"
    if folder.is_dir():
        return T5TokenizerFast.from_pretrained(folder, trust_remote_code=False)

    known = (load_shard(shards, name, ()).captions for name in shard_names(shards))
    captions = (text for shard in known for variants in shard for text in variants)
    return train_sentences(captions, folder)
