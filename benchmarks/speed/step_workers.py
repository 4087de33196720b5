"""The two trainers of `benchmarks.speed.train_step`: ours, and diffusers' script.

Each lives in a process of its own and does what it is told on its standard input, one word a line:
`loss` on fixed latents, noise and timesteps, `step`, `flops`, `end`. It answers with a line of
JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
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
    latents_only,
    recipe_of,
)

TEXT = {"sd15": (77, 768), "tiny": (77, 32)}


def unet_of(model: str, device: torch.device) -> Any:
    """The UNet of Stable Diffusion 1.5 (REFERENCE: 859.5 M parameters), or one of its shape and few
    channels; random weights, the same in every process, drawn where they will be.
    """
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    with device:
        if model == "sd15":
            return UNet2DConditionModel(
                sample_size=64, cross_attention_dim=768, attention_head_dim=8
            )
        small: Any = {"cross_attention_dim": 32, "block_out_channels": (32, 64, 64, 64)}
        return UNet2DConditionModel(sample_size=64, attention_head_dim=8, **small)


def fixed_inputs(model: str, batch: int, size: int) -> dict[str, Tensor]:
    """One batch of latents, noise, timesteps, hints (uint8) and text states, for comparing
    losses.
    """
    generator = torch.Generator().manual_seed(1)
    latent = (batch, 4, size // 8, size // 8)
    return {
        "z": torch.randn(latent, generator=generator),
        "noise": torch.randn(latent, generator=generator),
        "t": torch.linspace(100, 900, batch).long(),
        "hint": torch.randint(
            0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8
        ),
        "text": torch.randn(batch, *TEXT[model], generator=generator),
    }


class Theirs:
    """The usual script's step: the same calls in the same order as
    examples/controlnet/train_controlnet.py (diffusers 0.35 to 0.38), with its defaults: AdamW,
    gradients set to zero in place, clipping at 1.
    """

    def __init__(
        self, model: str, precision: str, batch: int, size: int, device: torch.device
    ) -> None:
        from accelerate import Accelerator
        from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler
        from diffusers.optimization import get_scheduler
        from transformers import CLIPTextConfig, CLIPTextModel

        self.device, self.dtype = device, DTYPES[precision]
        word = {"fp32": "no", "bf16": "bf16"}[precision]
        self.accelerator = Accelerator(mixed_precision=word, cpu=device.type == "cpu")
        self.noise_scheduler = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        )
        full = model == "sd15"
        self.unet = unet_of(model, device)
        length, width = TEXT[model]
        heads, layers = (12, 12) if full else (2, 2)
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                projection_dim=width,
                max_position_embeddings=length,
            )
        )
        widths = (128, 256, 512, 512) if full else (32, 32, 32, 32)
        self.vae = AutoencoderKL(
            block_out_channels=widths, layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        )  # fmt: skip
        controlnet = ControlNetModel.from_unet(self.unet)
        fill_(controlnet.state_dict())
        for frozen in (self.vae, self.unet, self.text_encoder):
            frozen.requires_grad_(False)
        controlnet.train()
        optimizer = torch.optim.AdamW(
            controlnet.parameters(), lr=5e-6, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
        )
        generator = torch.Generator().manual_seed(2)
        data = [
            {
                "pixel_values": torch.rand(3, size, size, generator=generator) * 2 - 1,
                "conditioning_pixel_values": torch.rand(3, size, size, generator=generator),
                "input_ids": torch.randint(0, 49000, (length,), generator=generator),
            }
            for _ in range(PICTURES)
        ]
        loader = torch.utils.data.DataLoader(data, shuffle=True, batch_size=batch)  # type: ignore[arg-type]
        schedule = get_scheduler(
            "constant", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000
        )
        self.controlnet, self.optimizer, self.loader, self.schedule = self.accelerator.prepare(
            controlnet, optimizer, loader, schedule
        )
        for frozen in (self.vae, self.unet, self.text_encoder):
            frozen.to(self.accelerator.device, dtype=self.dtype)
        self.next_batch = Batches(self.loader)

    def _predict(
        self, noisy: Tensor, t: Tensor, hidden: Tensor, image: Tensor, clock: Clock | None = None
    ) -> Tensor:
        down, mid = self.controlnet(
            noisy,
            t,
            encoder_hidden_states=hidden,
            controlnet_cond=image.to(dtype=self.dtype),
            return_dict=False,
        )
        if clock:
            clock("ControlNet")
        return self.unet(
            noisy, t, encoder_hidden_states=hidden,
            down_block_additional_residuals=[sample.to(dtype=self.dtype) for sample in down],
            mid_block_additional_residual=mid.to(dtype=self.dtype), return_dict=False,
        )[0]  # fmt: skip

    def step(self) -> dict[str, float]:
        batch, accelerator = self.next_batch(), self.accelerator
        clock = Clock(self.device)
        with accelerator.accumulate(self.controlnet):
            latents = self.vae.encode(
                batch["pixel_values"].to(dtype=self.dtype)
            ).latent_dist.sample()
            latents = latents * self.vae.config.scaling_factor
            clock("autoencoder")
            noise = torch.randn_like(latents)
            t = torch.randint(0, 1000, (len(latents),), device=latents.device).long()
            noisy = self.noise_scheduler.add_noise(latents.float(), noise.float(), t).to(
                dtype=self.dtype
            )
            hidden = self.text_encoder(batch["input_ids"], return_dict=False)[0]
            clock("text encoder")
            predicted = self._predict(noisy, t, hidden, batch["conditioning_pixel_values"], clock)
            clock("UNet")
            loss = functional.mse_loss(predicted.float(), noise.float(), reduction="mean")
            accelerator.backward(loss)
            clock("backward")
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.controlnet.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=False)
            clock("optimiser")
        loss.detach().item()
        return clock.parts

    @torch.no_grad()
    def loss(self, inputs: dict[str, Tensor]) -> float:
        z, noise, t = inputs["z"], inputs["noise"], inputs["t"]
        noisy = self.noise_scheduler.add_noise(z, noise, t).to(dtype=self.dtype)
        image = inputs["hint"].float() / 255
        predicted = self._predict(noisy, t, inputs["text"].to(self.dtype), image)
        return float(functional.mse_loss(predicted.float(), noise))


class Ours:
    """zeroconv's trainer on what its cache would hold: moments and text states. `rung`: how much of
    it, 0 to 3; see `benchmarks.speed.train_step.RUNGS`.
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
        """`others`: settings of training in place of the rung's."""
        from zeroconv.backbones import UNetBackbone
        from zeroconv.control import ControlNet
        from zeroconv.control.files import diffusers_state
        from zeroconv.data.cache.examples import Examples, Table, TextTable
        from zeroconv.training.execution import precision as dtypes

        if rung < 2:
            dtypes.use_cpu_layers_ = lambda *modules: None
        backbone = UNetBackbone(unet_of(model, device))
        control = ControlNet.from_backbone(backbone, condition="canny")
        fill_(diffusers_state(control))
        on_card = device.type == "cuda"
        if on_card and rung < 3:
            dtypes.use_card_layers_ = lambda *modules: None
        all_of_it = rung >= (2 if on_card else 3)
        small = {"bf16": "bf16_weights"}.get(precision, precision) if all_of_it else precision
        graphs = on_card and rung > 0
        recipe = recipe_of(
            batch,
            precision=small,
            optimizer="adamw8bit" if all_of_it else "adamw",
            cuda_graphs=graphs,
            **(others or {}),
        )
        rng = np.random.default_rng(2)
        moments = rng.standard_normal((PICTURES, 8, size // 8, size // 8), np.float32)
        hints = rng.integers(0, 256, (PICTURES, size, size, 3), np.uint8)
        hidden = rng.standard_normal((PICTURES + 1, *TEXT[model]), np.float32)
        shard: Any = type("Shard", (), {"arrays": {"hidden": hidden}})
        table = TextTable([shard], {str(i): i for i in range(len(hidden))})
        captions = [(i + 1,) for i in range(PICTURES)]
        data = Examples(
            Table([moments]), None, Table([hints]), captions, np.zeros(PICTURES, bool), table
        )
        backbone._vae = latents_only(scaling_factor=0.18215)
        self._start(recipe, backbone, control, data, device, keep=rung >= 1)

    def _start(
        self, recipe: Any, backbone: Any, control: Any, data: Any, device: torch.device, keep: bool
    ) -> None:
        """Put the trainer together. keep: freed memory stays with the process."""
        from accelerate import Accelerator

        from zeroconv.layers.allocator import keep_pages
        from zeroconv.training.execution.choice import Launch
        from zeroconv.training.execution.cuda_graphs import CudaGraphs
        from zeroconv.training.model import prepare_control
        from zeroconv.training.trainer import Trainer

        self.device = device
        backbone.to(device)
        model = prepare_control(recipe, backbone, control.to(device))
        started = Launch(Accelerator(cpu=device.type == "cpu"))
        self.execution: Any = started.execution(model, data, recipe.training, print)
        self.recorded = isinstance(self.execution, CudaGraphs)
        self.trainer = Trainer(recipe, model, data, data, self.execution)
        if keep and device.type == "cpu":
            keep_pages()
        self.batches = self.trainer.plan.from_step(0)

    def step(self) -> dict[str, float]:
        batch = next(self.batches)
        clock, trainer = Clock(self.device), self.trainer
        if self.recorded:
            mark = between(
                self.execution, "add_gradients", lambda: None, lambda: clock("both passes")
            )
        else:
            accelerator = self.execution.accelerator
            mark = between(
                accelerator, "backward", lambda: clock("forward"), lambda: clock("backward")
            )
        with mark:
            trainer._train_step([batch])
        clock("optimiser")
        trainer.step += 1
        return clock.parts

    def stop_recording(self) -> None:
        """Make steps operation by operation, which can be counted."""
        from zeroconv.training.execution.eager import Eager

        self.execution.add_gradients = partial(Eager.add_gradients, self.execution)
        self.recorded = False

    @torch.no_grad()
    def loss(self, inputs: dict[str, Tensor]) -> float:
        from zeroconv.backbones import TextStates

        text = TextStates(inputs["text"].to(self.trainer.backbone.dtype))
        loss, drawn = self.trainer.loss, (inputs["z"], inputs["noise"], inputs["t"])
        errors = loss.errors(*drawn, inputs["hint"], text, dtype=loss.weights_dtype)
        return float(errors.mean())


@contextmanager
def between(thing: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> Any:
    """Inside, `thing.name(...)` is preceded and followed by a call."""
    plain = getattr(thing, name)

    def wrapped(*words: Any, **options: Any) -> Any:
        before()
        result = plain(*words, **options)
        after()
        return result

    setattr(thing, name, wrapped)
    try:
        yield
    finally:
        setattr(thing, name, plain)


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process ever held; on a GPU, what torch allocated there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(
        next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    )


def reserved(device: torch.device) -> int:
    """What torch took from the card for it, recordings and what lies in pieces with it."""
    return torch.cuda.max_memory_reserved() if device.type == "cuda" else 0


def flops_of(step: Callable[[], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    # of `zeroconv.layers.cpu.product`, which the counter does not know
    linear = torch.ops.mkldnn._linear_pointwise
    with FlopCounterMode(display=False, custom_mapping={linear: _linear_flops}) as counter:
        step()
    return counter.get_total_flops()


def _linear_flops(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return 2 * x[0] * weight[0] * weight[1]


def main(job: dict[str, Any]) -> None:
    device = torch.device(job["device"])
    shared = {name: job[name] for name in ("model", "precision", "batch", "size")}
    theirs, ours, inputs_of = trainers(job["model"])
    worker: Any = theirs(**shared, device=device) if job["who"] == "theirs" else ours(
        **shared, device=device, rung=job["rung"]
    )  # fmt: skip
    send({"ready": True})
    for line in sys.stdin:
        word = line.strip()
        if word == "loss":
            inputs = inputs_of(job["model"], job["batch"], job["size"])
            send({"loss": worker.loss({name: value.to(device) for name, value in inputs.items()})})
        elif word == "step":
            parts = worker.step()
            send(
                {
                    "seconds": sum(parts.values()),
                    "parts": parts,
                    "peak": peak_bytes(device),
                    "reserved": reserved(device),
                }
            )
        elif word == "flops":
            if job["who"] == "ours":
                worker.stop_recording()
            send({"flops": flops_of(worker.step)})
        else:
            break


def trainers(model: str) -> tuple[Any, Any, Any]:
    """Of a model: their trainer, ours, and what gives both the same inputs."""
    if "flux" in model:
        from benchmarks.speed import flux_workers

        return flux_workers.FluxTheirs, flux_workers.FluxOurs, flux_workers.fixed_inputs
    return Theirs, Ours, fixed_inputs


def send(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
