"""The playroom base as its training sees it: noisy latents in, the loss on v out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.process import Diffusion
from zeroconv.errors import UserError
from zeroconv.scratch.base.model import TextToLatent
from zeroconv.scratch.base.timesteps import density, draw_timesteps
from zeroconv.scratch.corpus.batch import Batch, generator_of
from zeroconv.scratch.embedded import embedded_tokenizer
from zeroconv.scratch.loop.precision import narrow
from zeroconv.scratch.text.writers import Writer, clip_writer


class BaseTask:
    """The base as the loop sees it.

    `precision` "bfloat16" runs the forward pass under autocast; `compiled` through torch.compile.
    None for `model` is a new one of the embedded base's configs, for `tokenizer` the embedded one.
    Raises UserError for `compiled` on a CPU.
    """

    def __init__(
        self,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        model: nn.Module | None = None,
        tokenizer: Any = None,
    ) -> None:
        if compiled and device == "cpu":
            # torch 2.13: the gradient that passes an upsampling into a residual block is zero
            raise UserError(
                "torch.compile gives a UNet wrong gradients on a CPU; leave --compile out, or set "
                "compiled to false in the run's plan.json."
            )
        self.model = (model or TextToLatent()).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.writers: list[Writer] = [clip_writer(tokenizer or embedded_tokenizer())]
        self.device, self.precision = device, precision
        self.predict = torch.compile(self.model) if compiled else self.model
        self.process = Diffusion.scaled_linear("v_prediction", torch.float64).to(device)
        self.chances = density(self.process.alphas_cumprod)

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """What `loss` reads: noisy latents, timesteps, v, tokens and each picture's prompt."""
        generator = generator_of(seed, 3, step, self.device)
        t = draw_timesteps(len(batch.latents), self.chances, generator)
        noise = torch.randn(batch.latents.shape, generator=generator, device=self.device)

        noisy = self.process.noised(batch.latents, noise, t)
        target = self.process.target(batch.latents, noise, t)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return noisy, t, target, batch.tokens[0], batch.prompt

    def loss(self, *drawn: Tensor) -> Tensor:
        """Mean squared error of v."""
        noisy, t, target, *texts = drawn
        with narrow(self.device, self.precision):
            predicted = self.predict(noisy, t, *texts)

        return nn.functional.mse_loss(predicted.float(), target)
