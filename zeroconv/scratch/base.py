"""The playroom base from nothing: text encoder and UNet, at 64 pixels first and then at 128.

    python -m zeroconv.scratch.base RUN --shards SHARDS

starts, or goes on where it stopped. With `--decay 3000` the learning rate falls to zero over the
next 3000 steps, and the training ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroconv.scratch.corpus import Batch, Writer, clip_writer, generator_of
from zeroconv.scratch.diffusion import alphas_cumprod, density, draw_timesteps, noised
from zeroconv.scratch.places import PLAYROOM
from zeroconv.scratch.precision import narrow


class TextToLatent(nn.Module):
    """The embedded base's text encoder and UNet, trained as one; weights are new.

    `unet` and `text` replace entries of their configs, for tests.
    """

    def __init__(self, unet: dict | None = None, text: dict | None = None) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        asked = UNet2DConditionModel.load_config(PLAYROOM / "unet")
        self.unet = UNet2DConditionModel.from_config({**asked, **(unet or {})})
        config = CLIPTextConfig.from_pretrained(PLAYROOM / "text_encoder", trust_remote_code=False)
        for name, value in (text or {}).items():
            setattr(config, name, value)
        self.text = CLIPTextModel(config).float()
        nn.init.zeros_(self.unet.conv_out.weight)  # the first prediction is the mean of the target

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor, prompt: Tensor) -> Tensor:
        """z (B, C, h, w), t (B,), tokens (P, L), prompt (B,) which of the P each picture has → v
        like z.
        """
        states = self.text(tokens).last_hidden_state[prompt]

        return self.unet(z, t, states).sample


class BaseTask:
    """The base as the loop sees it.

    `precision` "bfloat16" runs the forward pass under autocast; `compiled` through torch.compile.
    """

    def __init__(
        self,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        from transformers import CLIPTokenizer

        self.model = (model or TextToLatent()).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.writers: list[Writer] = [
            clip_writer(
                CLIPTokenizer.from_pretrained(PLAYROOM / "tokenizer", trust_remote_code=False)
            )
        ]
        self.device, self.precision = device, precision
        self.predict = torch.compile(self.model) if compiled else self.model
        self.alphas = alphas_cumprod().to(device)
        self.chances = density(self.alphas)

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """What `loss` reads: noisy latents, timesteps, v, tokens and each picture's prompt."""
        generator = generator_of(seed, 3, step, self.device)
        t = draw_timesteps(len(batch.latents), self.chances, generator)
        noise = torch.randn(batch.latents.shape, generator=generator, device=self.device)

        noisy, target = noised(batch.latents, noise, t, self.alphas)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return noisy, t, target, batch.tokens[0], batch.prompt

    def loss(self, *drawn: Tensor) -> Tensor:
        """Mean squared error of v."""
        noisy, t, target, *texts = drawn
        with narrow(self.device, self.precision):
            predicted = self.predict(noisy, t, *texts)

        return nn.functional.mse_loss(predicted.float(), target)


def main() -> None:
    from zeroconv.scratch.command import run

    run("base", __doc__ or "", lambda arguments, **how: BaseTask(**how))


if __name__ == "__main__":
    main()
