"""The two trainers of `benchmarks.speed.train_step --model flux`: ours, and diffusers' FLUX script.

FLUX.1's blocks at their full width, but one double block and two single ones, and its whole
autoencoder. The text encoders of both sides ran before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed.step_shared import (
    DTYPES,
    PICTURES,
    Batches,
    Clock,
    fill_,
    forget_peak,
    latents_only,
    recipe_of,
)
from benchmarks.speed.step_workers import Ours

TOKENS = 512  # of T5, as the script fills its prompts up
SHAPES: dict[str, dict[str, Any]] = {
    "flux": {
        "transformer": {"num_layers": 1, "num_single_layers": 2, "guidance_embeds": True},
        "vae": (128, 256, 512, 512),
    },
    "tiny-flux": {
        "transformer": {
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 4,
            "joint_attention_dim": 64,
            "pooled_projection_dim": 32,
            "axes_dims_rope": (8, 12, 12),
            "guidance_embeds": True,
        },
        "vae": (32, 32, 32, 32),
    },
}
SHIFT, SCALING = 0.1159, 0.3611  # of FLUX.1's autoencoder
GUIDANCE = 3.5  # the script's default


def transformer_of(model: str) -> Any:
    """Random weights, the same in every process."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(**SHAPES[model]["transformer"])


def fixed_inputs(model: str, batch: int, size: int) -> dict[str, Tensor]:
    """Latents, noise, noise levels, latents of hints and text states, for comparing losses."""
    generator = torch.Generator().manual_seed(1)
    config = {"joint_attention_dim": 4096, "pooled_projection_dim": 768}
    config |= {k: v for k, v in SHAPES[model]["transformer"].items() if k in config}
    latent = (batch, 16, size // 8, size // 8)
    return {
        "z": torch.randn(latent, generator=generator),
        "noise": torch.randn(latent, generator=generator),
        "hint": torch.randn(latent, generator=generator),
        "t": torch.linspace(100, 900, batch),
        "text": torch.randn(batch, TOKENS, config["joint_attention_dim"], generator=generator),
        "pooled": torch.randn(batch, config["pooled_projection_dim"], generator=generator),
    }


class FluxTheirs:
    """The FLUX script's step: the calls of examples/controlnet/train_controlnet_flux.py (diffusers
    0.35 to 0.38) in their order, with its defaults: AdamW, gradients set to zero in place and each
    looked through for NaN, clipping at 1. Picture and hint are encoded in every step; prompts were
    encoded into the data set.
    """

    def __init__(
        self, model: str, precision: str, batch: int, size: int, device: torch.device
    ) -> None:
        from accelerate import Accelerator
        from diffusers import AutoencoderKL, FluxControlNetModel

        self.device, self.dtype = device, DTYPES[precision]
        word = {"fp32": "no", "bf16": "bf16"}[precision]
        self.accelerator = Accelerator(mixed_precision=word, cpu=device.type == "cpu")
        self.transformer = transformer_of(model)
        config = self.transformer.config
        control = FluxControlNetModel.from_transformer(
            self.transformer,
            num_layers=1,
            num_single_layers=0,
            attention_head_dim=config.attention_head_dim,
            num_attention_heads=config.num_attention_heads,
        )
        fill_(control.state_dict())
        widths = SHAPES[model]["vae"]
        self.vae = AutoencoderKL(
            block_out_channels=widths, layers_per_block=2, latent_channels=16,
            shift_factor=SHIFT, scaling_factor=SCALING, use_quant_conv=False,
            use_post_quant_conv=False, down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
        self.vae.requires_grad_(False)
        self.transformer.requires_grad_(False)
        control.train()
        optimizer = torch.optim.AdamW(
            control.parameters(), lr=5e-6, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
        )
        given, generator = fixed_inputs(model, 1, size), torch.Generator().manual_seed(2)
        data = [
            {
                "pixel_values": torch.rand(3, size, size, generator=generator) * 2 - 1,
                "conditioning_pixel_values": torch.rand(3, size, size, generator=generator) * 2 - 1,
                "prompt_ids": given["text"][0],
                "pooled": given["pooled"][0],
            }
            for _ in range(PICTURES)
        ]
        rows: Any = data
        loader: Any = torch.utils.data.DataLoader(rows, shuffle=True, batch_size=batch)
        self.control, self.optimizer, self.loader = self.accelerator.prepare(
            control, optimizer, loader
        )
        for frozen in (self.vae, self.transformer):
            frozen.to(self.accelerator.device, dtype=self.dtype)
        self.next_batch = Batches(self.loader)
        forget_peak()

    def _encode(self, pixels: Tensor) -> Tensor:
        latents = self.vae.encode(pixels.to(dtype=self.dtype)).latent_dist.sample()
        return (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _predict(
        self,
        noisy: Tensor,
        sigma: Tensor,
        hint: Tensor,
        text: Tensor,
        pooled: Tensor,
        clock: Clock | None = None,
    ) -> Tensor:
        """noisy and hint (N, C, h, w) → the velocity's tokens."""
        from diffusers import FluxControlNetPipeline as Pipeline

        n, height, width = len(noisy), *noisy.shape[2:]
        ids = Pipeline._prepare_latent_image_ids(
            n, height // 2, width // 2, noisy.device, self.dtype
        )
        shared = {
            "hidden_states": packed(noisy),
            "timestep": sigma,
            "guidance": torch.full((n,), GUIDANCE, device=noisy.device, dtype=self.dtype),
            "pooled_projections": pooled.to(self.dtype),
            "encoder_hidden_states": text.to(self.dtype),
            "txt_ids": torch.zeros(text.shape[1], 3, device=noisy.device, dtype=self.dtype),
            "img_ids": ids,
            "return_dict": False,
        }
        doubles, singles = self.control(controlnet_cond=packed(hint), **shared)
        if clock:
            clock("ControlNet")
        return self.transformer(
            controlnet_block_samples=[x.to(self.dtype) for x in doubles],
            controlnet_single_block_samples=None
            if singles is None
            else [x.to(self.dtype) for x in singles],
            **shared,
        )[0]

    def step(self) -> dict[str, float]:
        batch, accelerator = self.next_batch(), self.accelerator
        clock = Clock(self.device)
        with accelerator.accumulate(self.control):
            latents = self._encode(batch["pixel_values"])
            hint = self._encode(batch["conditioning_pixel_values"])
            clock("autoencoder")
            noise = torch.randn_like(latents)
            sigma = torch.rand(len(latents), device=latents.device, dtype=self.dtype)
            level = sigma[:, None, None, None]
            noisy = (1 - level) * latents + level * noise
            made = self._predict(noisy, sigma, hint, batch["prompt_ids"], batch["pooled"], clock)
            clock("transformer")
            loss = functional.mse_loss(made.float(), packed(noise - latents).float())
            accelerator.backward(loss)
            clock("backward")
            for parameter in self.control.parameters():
                if parameter.grad is not None and torch.isnan(parameter.grad).any():
                    raise FloatingPointError("a gradient holds NaN")
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.control.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=False)
            clock("optimiser")
        loss.detach().item()
        return clock.parts

    @torch.no_grad()
    def loss(self, inputs: dict[str, Tensor]) -> float:
        z, noise, sigma = inputs["z"], inputs["noise"], inputs["t"] / 1000
        level = sigma[:, None, None, None]
        noisy = ((1 - level) * z + level * noise).to(self.dtype)
        hint = inputs["hint"].to(self.dtype)
        made = self._predict(noisy, sigma, hint, inputs["text"], inputs["pooled"])
        return float(functional.mse_loss(made.float(), packed(noise - z)))


def packed(z: Tensor) -> Tensor:
    """(N, C, h, w) → tokens, by the pipeline's own call."""
    from diffusers import FluxControlNetPipeline

    return FluxControlNetPipeline._pack_latents(z, *z.shape)


class FluxOurs(Ours):
    """zeroconv's trainer on what its cache would hold: moments, latents of hints, text states.

    `rung`: 0 everything cached; 1 layers of a processor; 2 blocks that do less; 3 bfloat16 weights
    and 8-bit AdamW, the frozen base in bfloat16.
    """

    def __init__(
        self,
        model: str,
        precision: str,
        batch: int,
        size: int,
        device: torch.device,
        rung: int = 3,
        others: dict[str, Any] | None = None,
    ) -> None:
        from zeroconv.backbones.flow.flux import FluxBackbone
        from zeroconv.control import new_control
        from zeroconv.training.execution import precision as dtypes

        if rung < 1:
            dtypes.use_cpu_layers_ = lambda *modules: None
        if rung < 2:
            dtypes.use_block_layers_ = lambda *modules: None
        vae = latents_only(scaling_factor=SCALING, shift_factor=SHIFT)
        backbone: Any = FluxBackbone(transformer_of(model), vae)
        control = new_control(backbone, "canny", blocks=1)
        fill_(control.state_dict())
        narrow = rung >= 3
        recipe = recipe_of(
            batch,
            precision="bf16_weights" if narrow else precision,
            optimizer="adamw8bit" if narrow else "adamw",
            frozen="bf16" if narrow else "same",
            **(others or {}),
        )
        self._start(recipe, backbone, control, examples_of(model, size), device, keep=True)
        forget_peak()

    @torch.no_grad()
    def loss(self, inputs: dict[str, Tensor]) -> float:
        from zeroconv.backbones import TextStates

        text = TextStates(inputs["text"], inputs["pooled"])
        loss, drawn = self.trainer.loss, (inputs["z"], inputs["noise"], inputs["t"])
        return float(loss.errors(*drawn, inputs["hint"], text, dtype=loss.weights_dtype).mean())


def examples_of(model: str, size: int) -> Any:
    """What the cache would hold of pictures of no particular content."""
    from zeroconv.data.cache.examples import Examples, HintLatents, Table, TextTable

    rng, side = np.random.default_rng(2), size // 8
    given = fixed_inputs(model, 1, size)
    moments = rng.standard_normal((PICTURES, 32, side, side), np.float32)
    hints = rng.standard_normal((PICTURES, 16, side, side), np.float32)
    arrays = {"hidden": given["text"].numpy(), "pooled": given["pooled"].numpy()}
    shard: Any = type("Shard", (), {"arrays": arrays})
    data = Examples(
        Table([moments]), None, Table([np.zeros((PICTURES, size, size), np.uint8)]),
        [(0,)] * PICTURES, np.zeros(PICTURES, bool), TextTable([shard], ["0"]),
    )  # fmt: skip
    data.hint_latents = HintLatents(Table([hints]), None, {})
    return data
