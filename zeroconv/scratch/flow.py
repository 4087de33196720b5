"""playroom-flow from nothing: a tiny transformer of the FLUX family with its two text encoders.

    python -m zeroconv.scratch.flow RUN --shards SHARDS

starts, or goes on where it stopped. Flow matching (Lipman et al. 2023; Esser et al. 2024):
x_t = (1 − σ) x0 + σ ε, the target is ε − x0, σ is logit-normal. Prompts are empty in a tenth, for
true classifier-free guidance; the model has no guidance embedding.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.scratch.corpus import Batch, Writer, clip_writer, generator_of
from zeroconv.scratch.places import PLAYROOM
from zeroconv.scratch.precision import narrow
from zeroconv.scratch.sentences import train_sentences
from zeroconv.scratch.shards import load_shard, shard_names

TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 32,  # 2 × 2 latents of 8 channels
    "num_layers": 3,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "joint_attention_dim": 160,
    "pooled_projection_dim": 96,
    "guidance_embeds": False,
    "axes_dims_rope": (8, 12, 12),
}
POOLED: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "projection_dim": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}
STATES: dict[str, Any] = {
    "d_model": 160,
    "d_kv": 32,
    "d_ff": 448,
    "num_layers": 3,
    "num_heads": 5,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "is_encoder_decoder": False,
    "use_cache": False,
}


class FlowModel(nn.Module):
    """Transformer, CLIP for the pooled vector, T5 for the states; trained as one, weights are new.

    The arguments replace entries of the configs, for tests.
    """

    def __init__(
        self,
        sentences: int,
        transformer: dict | None = None,
        pooled: dict | None = None,
        states: dict | None = None,
    ) -> None:
        super().__init__()
        from diffusers import FluxTransformer2DModel
        from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

        self.transformer = FluxTransformer2DModel(**{**TRANSFORMER, **(transformer or {})})
        config = CLIPTextConfig.from_pretrained(PLAYROOM / "text_encoder", trust_remote_code=False)
        for name, value in {**POOLED, **(pooled or {})}.items():
            setattr(config, name, value)
        self.clip = CLIPTextModel(config).float()
        asked = {**STATES, **(states or {}), "vocab_size": sentences}
        self.t5 = T5EncoderModel(T5Config(**asked)).float()
        self._start_as_nothing()

    def _start_as_nothing(self) -> None:
        """Blocks begin as the identity and the prediction as 0 (adaLN-zero, Peebles & Xie 2023)."""
        transformer = self.transformer
        modulations = [transformer.norm_out.linear, transformer.proj_out]

        for block in transformer.transformer_blocks:
            modulations += [block.norm1.linear, block.norm1_context.linear]
        for block in transformer.single_transformer_blocks:
            modulations.append(block.norm.linear)

        for linear in modulations:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, z: Tensor, sigma: Tensor, tokens: Tensor, sentences: Tensor, prompt: Tensor
    ) -> Tensor:
        """z (B, C, h, w), sigma (B,), two token rows (P, L), prompt (B,) → velocity like z."""
        height, width = z.shape[2:]
        pooled = self.clip(tokens).pooler_output[prompt]
        states = self.t5(sentences).last_hidden_state[prompt]

        packed = self.transformer(
            hidden_states=pack(z),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=sigma,
            img_ids=places(height // 2, width // 2, z.device),
            txt_ids=torch.zeros(states.shape[1], 3, device=z.device),
            return_dict=False,
        )[0]
        return unpack(packed, height, width)


def pack(z: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h/2 · w/2, 4C), as FLUX packs its latents."""
    b, c, h, w = z.shape

    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for latents of `height` × `width`."""
    b, _, c = tokens.shape
    x = tokens.view(b, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)

    return x.reshape(b, c // 4, height, width)


def places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Position of each packed token (rows · columns, 3): 0, row, column."""
    sides = torch.arange(rows, device=device), torch.arange(columns, device=device)
    y, x = torch.meshgrid(*sides, indexing="ij")

    return torch.stack([torch.zeros_like(y), y, x], -1).reshape(-1, 3).float()


def draw_sigmas(count: int, generator: torch.Generator, device: str) -> Tensor:
    """(count,) in (0, 1), logit-normal, one from each of `count` equal shares of it."""
    shifts = torch.rand(count, generator=generator, device=device)
    u = (torch.arange(count, device=device) + shifts) / count
    normal = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))

    return torch.sigmoid(normal)[torch.randperm(count, generator=generator, device=device)]


class FlowTask:
    """The flow base as the loop sees it."""

    def __init__(
        self,
        sentences: Any,
        device: str = "cpu",
        precision: str = "float32",
        compiled: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        from transformers import CLIPTokenizer

        self.model = (model or FlowModel(len(sentences))).to(device)
        words = CLIPTokenizer.from_pretrained(PLAYROOM / "tokenizer", trust_remote_code=False)
        self.writers: list[Writer] = [clip_writer(words), clip_writer(sentences)]
        self.device, self.precision = device, precision
        self.predict = torch.compile(self.model) if compiled else self.model

    def draw(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, ...]:
        """What `loss` reads: noisy latents, σ, velocity, both token rows, each picture's prompt."""
        generator = generator_of(seed, 3, step, self.device)
        sigma = draw_sigmas(len(batch.latents), generator, self.device)
        noise = torch.randn(batch.latents.shape, generator=generator, device=self.device)

        s = sigma[:, None, None, None]
        noisy = (1 - s) * batch.latents + s * noise
        return noisy, sigma, noise - batch.latents, *batch.tokens, batch.prompt

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


def main() -> None:
    from zeroconv.scratch.command import run

    def make(arguments: argparse.Namespace, **how: Any) -> FlowTask:
        return FlowTask(sentences_of(arguments.folder, arguments.shards), **how)

    run("flow", __doc__ or "", make, rate=2e-3)


if __name__ == "__main__":
    main()
