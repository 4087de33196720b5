"""Low-rank matrices beside the layers of a base's UNet (LoRA, Hu et al. 2021). They alone train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from zeroconv.backbones import UNetBackbone
from zeroconv.training.execution.precision import autocast_dtype
from zeroconv.training.execution.protocol import Model
from zeroconv.training.model import TRAINING
from zeroconv.training.objective import ControlledLoss, stream
from zeroconv.training.optimizer import make_optimizer
from zeroconv.training.recipes.lora import LoraRecipe, LoraSettings

# names of diffusers' modules; in and out of the UNet, and the time embedding, stay as they are
LAYERS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "linear": ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj"),
    "convolutions": ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
}


def add_adapter(backbone: UNetBackbone, settings: LoraSettings, seed: int = 0) -> None:
    """Put matrices beside the UNet's layers, by peft. B is zero, so nothing changes yet; they alone
    train.
    """
    from peft import LoraConfig

    targets = [name for kind in settings.layers for name in LAYERS[kind]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone.unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=targets)
        )


def lora_state(backbone: UNetBackbone, values: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """The matrices in diffusers' layout: `unet.<module>.lora_A.weight` and `lora_B`; α is the
    rank. values: other ones, in the order of the UNet's parameters that train.
    """
    trained = [(name, p) for name, p in backbone.unet.named_parameters() if p.requires_grad]
    tensors = [p for _, p in trained] if values is None else values
    # peft names what it adds by its adapter
    names = [f"unet.{name.replace('.default.', '.')}" for name, _ in trained]
    return {name: tensor.detach() for name, tensor in zip(names, tensors, strict=True)}


def prepare_lora(recipe: LoraRecipe, backbone: UNetBackbone) -> Model:
    """`backbone` with matrices beside its UNet's layers, which alone train."""
    settings, device = recipe.training, backbone.device
    add_adapter(backbone, recipe.lora, settings.seed)
    backbone.unet.to(memory_format=torch.channels_last)
    dtype = autocast_dtype(settings.precision, device)
    loss = ControlledLoss(
        backbone,
        None,
        dtype,
        settings.timesteps,
        settings.min_snr,
        settings.offset_noise,
        mask_mean=settings.mask_mean,
    )
    loss.unet = backbone.unet  # named here so that processes share its gradients

    def noise(step: int, number: int, process: int) -> torch.Generator:
        """The first process draws as a run of one did before there could be several."""
        several = (process,) if process else ()
        return stream(device, settings.seed, TRAINING, step, number, *several)

    return Model(backbone, None, loss, partial(make_optimizer, backbone.unet, settings), noise)
