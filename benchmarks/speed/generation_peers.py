"""A denoising step and a decode by ours and by others, each in a process of its own that takes
turns (`benchmarks.speed.generation`).

All have the same numbers as weights, which mean nothing: arithmetic takes as long with any.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.machine import peak_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TEXT = 77  # tokens
T, CFG = 500.0, 7.5
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
# of a UNet and an autoencoder: their configs, pixels a side, tokens of the text
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "sd15": (
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        VAE,
        512,
        TEXT,
    ),
    "tiny": (
        {
            "sample_size": 8,
            "cross_attention_dim": 32,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
        },
        {"block_out_channels": (32, 32, 32, 64), "layers_per_block": 1},
        64,
        8,
    ),
}


def configs(size: str) -> tuple[dict[str, Any], dict[str, Any], int, int]:
    """An entry of SIZES; the playroom's own is that of its files."""
    if size != "playroom":
        return SIZES[size]
    from zeroconv.backbones.loading.locate import ASSETS

    unet, vae = (
        json.loads((ASSETS / "playroom" / part / "config.json").read_text(encoding="utf-8"))
        for part in ("unet", "vae")
    )
    plain = [{k: v for k, v in one.items() if not k.startswith("_")} for one in (unet, vae)]
    return plain[0], plain[1], 128, 48


def networks(size: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """UNet and autoencoder of diffusers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet, vae, *_ = configs(size)
    levels = len(vae["block_out_channels"])
    kinds = {f"{way}_block_types": (f"{way.title()}{name}Block2D",) * levels
             for way, name in (("down", "Encoder"), ("up", "Decoder"))}  # fmt: skip
    with torch.device("meta"):
        made = UNet2DConditionModel(**unet), AutoencoderKL(**{**kinds, **vae})
    empty = [nn.Module.to(one, dtype).to_empty(device="cpu") for one in made]
    return filled(empty[0]), filled(empty[1])


@torch.no_grad()
def filled(module: Any) -> Any:
    """Norms of ones, the others small numbers, by the layers' widths."""
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for name, value in module.named_parameters():
        scale = 1.0 if value.ndim < 2 else 1 / math.sqrt(math.prod(value.shape[1:]))
        if value.ndim < 2:
            value.fill_(float(name.endswith("weight")))
            continue
        flat = value.view(-1)
        for part in flat.split(len(noise)):
            part.copy_(noise[: len(part)] * scale)
    return module.eval().requires_grad_(False)


class Peer:
    """One picture's inputs; `step` and `decode` are what is timed."""

    def __init__(self, size: str, dtype: torch.dtype) -> None:
        self.unet, self.vae = networks(size, dtype)
        _, _, pixels, tokens = configs(size)
        config = self.unet.config
        latent = 2 ** (len(self.vae.config.block_out_channels) - 1)
        shape = (1, config.in_channels, pixels // latent, pixels // latent)
        generator = torch.Generator().manual_seed(1)
        self.z = torch.randn(shape, generator=generator).to(dtype)
        width = config.cross_attention_dim
        self.text = torch.randn(2, tokens, width, generator=generator).to(dtype)
        self.hint = torch.rand(1, 3, pixels, pixels, generator=generator).to(dtype)

    def step(self) -> Tensor:
        """The guided output, of a ControlNet on both halves."""
        raise NotImplementedError

    def decode(self) -> Tensor:
        return self.vae.decode(self.z / self.vae.config.scaling_factor, return_dict=False)[0]


class Ours(Peer):
    """The package's own loop, within it."""

    def __init__(self, size: str, dtype: torch.dtype, engine: str) -> None:
        super().__init__(size, dtype)
        from zeroconv.backbones import TextStates, UNetBackbone
        from zeroconv.control import ControlNet
        from zeroconv.generation.engines import Step, engine_for
        from zeroconv.generation.sampling import Guide

        self.backbone = UNetBackbone(self.unet, self.vae)
        net = filled(ControlNet.from_backbone(self.backbone))
        for module in (self.unet, self.vae, net):  # as they are loaded
            nn.Module.to(module, memory_format=torch.channels_last)
        guide = Guide(net, net.embed_hint(self.hint), [1.0] * len(net.connections), 0.0, 1.0, True)
        uncond, cond = TextStates(self.text[:1]), TextStates(self.text[1:])
        self.engine = engine_for(engine, self.backbone, [guide])
        self.layers = (self.unet, net) if engine == "torch" else ()
        text, pairs = TextStates(self.text), [(guide, 1.0)]
        self.call = Step(
            self.backbone, self.z, torch.tensor(T), cond, uncond, text, pairs, CFG, 0.0
        )

    def step(self) -> Tensor:
        from zeroconv.generation.sampling import evaluated
        from zeroconv.layers.sampling import sampling_layers

        with sampling_layers(*self.layers):
            return self.engine.evaluate(evaluated, self.call)

    def decode(self) -> Tensor:
        return self.engine.decode(self.z)


class Theirs(Peer):
    """What `StableDiffusionControlNetPipeline` calls in a step."""

    def __init__(self, size: str, dtype: torch.dtype) -> None:
        super().__init__(size, dtype)
        from diffusers import ControlNetModel

        net = filled(ControlNetModel.from_unet(self.unet, load_weights_from_unet=False))
        self.net: Any = nn.Module.to(net, dtype)

    def step(self) -> Tensor:
        both, hints = torch.cat([self.z, self.z]), torch.cat([self.hint, self.hint])
        return guided(self.unet, self.net, both, torch.tensor(T), self.text, hints)


class TheirsStatic(Theirs):
    """The same modules as static graphs of OpenVINO."""

    def __init__(self, size: str, dtype: torch.dtype) -> None:
        super().__init__(size, dtype)
        from zeroconv.generation.engines.runtime import compile_module

        both, hints = torch.cat([self.z, self.z]), torch.cat([self.hint, self.hint])
        self.values = [x.float() for x in (both, torch.tensor(T), self.text, hints)]
        with torch.inference_mode(False), torch.no_grad():
            module = Whole(self.unet, self.net, dtype)
            values = [value.clone() for value in self.values]
            self.compiled, self.held = compile_module(module, values, dtype)
            decoder = Decoder(self.vae, dtype)
            self.decoder, _ = compile_module(decoder, [self.z.float().clone()], dtype)

    def step(self) -> Tensor:
        return torch.from_numpy(self.compiled([value.numpy() for value in self.values])[0])

    def decode(self) -> Tensor:
        return torch.from_numpy(self.decoder([self.z.float().numpy()])[0])


class Whole(nn.Module):
    """`guided` of float32 tensors."""

    def __init__(self, unet: nn.Module, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.net, self.dtype = unet, net, dtype

    def forward(self, z: Tensor, t: Tensor, text: Tensor, hints: Tensor) -> Tensor:
        z, text, hints = (x.to(self.dtype) for x in (z, text, hints))
        return guided(self.unet, self.net, z, t, text, hints).float()


class Decoder(nn.Module):
    def __init__(self, vae: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.vae, self.dtype = vae, dtype

    def forward(self, z: Tensor) -> Tensor:
        z = z.to(self.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(z, return_dict=False)[0].float()


def guided(unet: Any, net: Any, z: Tensor, t: Tensor, text: Tensor, hints: Tensor) -> Tensor:
    """(2N, C, h, w) latents → the guided output (N, C, h, w)."""
    down, middle = net(z, t, text, hints, return_dict=False)
    output = unet(
        z, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle,
        return_dict=False,
    )[0]  # fmt: skip
    without, within = output.chunk(2)
    return without + CFG * (within - without)


PEERS = {
    "ours, torch": lambda size, dtype: Ours(size, dtype, "torch"),
    "ours, openvino": lambda size, dtype: Ours(size, dtype, "openvino"),
    "diffusers": Theirs,
    "OpenVINO of diffusers": TheirsStatic,
}


def seconds(peer: Peer, what: str) -> float:
    """Of one step or decode."""
    began = time.perf_counter()
    getattr(peer, what)()
    return time.perf_counter() - began


def work(name: str, size: str, dtype: str, lines: Iterator[str]) -> None:
    """The worker's part: for each line, step or decode, its seconds; at the end bytes."""
    warnings.simplefilter("ignore")
    with torch.inference_mode():
        peer = PEERS[name](size, DTYPES[dtype])
        for what in ("step", "decode"):
            seconds(peer, what)  # the first one compiles, or lays weights out
        print("ready", flush=True)
        for line in lines:
            print(seconds(peer, line.strip()), flush=True)
    print(peak_memory(), flush=True)


if __name__ == "__main__":
    work(*sys.argv[1:4], sys.stdin)  # type: ignore[arg-type,misc]
