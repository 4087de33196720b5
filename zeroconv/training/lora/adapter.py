"""Low-rank matrices beside the layers of a base (LoRA, Hu et al. 2021). They alone train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from zeroconv.backbones import UNetBackbone, is_split
from zeroconv.checkpoints.lora import LCM
from zeroconv.errors import UserError
from zeroconv.training.execution.precision import autocast_dtype
from zeroconv.training.execution.protocol import Model
from zeroconv.training.lora.consistency import ConsistencyLoss, empty_prompt
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
# of the blocks of transformers, which have no convolutions
BLOCK_LAYERS = {
    "attention": (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    ),
    "linear": ("net.0.proj", "net.2", "proj_mlp", "proj_out", "w1", "w2", "w3"),
}


def add_adapter(backbone: UNetBackbone, settings: LoraSettings, seed: int = 0) -> None:
    """Put matrices beside the layers of a UNet or a transformer, by peft. B is zero, so nothing
    changes yet; they alone train. Raises UserError where it has no such layers.
    """
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone.denoiser.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.rank,
                target_modules=_targets(backbone, settings),
            )
        )


def _targets(backbone: UNetBackbone, settings: LoraSettings) -> list[str]:
    """Names of the layers that get matrices: ends of a UNet's, all of a transformer's."""
    if is_split(backbone):
        return [name for kind in settings.layers for name in LAYERS[kind]]
    ends = tuple(f".{end}" for kind in settings.layers for end in BLOCK_LAYERS.get(kind, ()))
    targets = [
        name
        for name, layer in backbone.denoiser.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(ends or ("\0",))
    ]
    if not targets:
        raise UserError(
            f"lora.layers are {', '.join(settings.layers)}, and {backbone.name} is a diffusion "
            "transformer without such; write attention and linear."
        )
    return targets


def lora_state(backbone: UNetBackbone, values: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """The matrices in diffusers' layout: `unet.<module>.lora_A.weight` and `lora_B`, of a
    transformer `transformer.<module>…`; α is the rank. values: other ones, in the order of the
    parameters that train.
    """
    trained = [(name, p) for name, p in backbone.denoiser.named_parameters() if p.requires_grad]
    tensors = [p for _, p in trained] if values is None else values
    part = "unet" if is_split(backbone) else "transformer"
    # peft names what it adds by its adapter
    names = [f"{part}.{name.replace('.default.', '.')}" for name, _ in trained]
    return {name: tensor.detach() for name, tensor in zip(names, tensors, strict=True)}


def prepare_lora(recipe: LoraRecipe, backbone: UNetBackbone) -> Model:
    """`backbone` with matrices beside its UNet's layers, which alone train."""
    settings, device = recipe.training, backbone.device
    add_adapter(backbone, recipe.lora, settings.seed)
    backbone.denoiser.to(memory_format=torch.channels_last)
    loss = _loss(recipe, backbone)
    loss.unet = backbone.denoiser  # named here so that processes share its gradients

    def noise(step: int, number: int, process: int) -> torch.Generator:
        """The first process draws as a run of one did before there could be several."""
        several = (process,) if process else ()
        return stream(device, settings.seed, TRAINING, step, number, *several)

    return Model(backbone, None, loss, partial(make_optimizer, backbone.denoiser, settings), noise)


def _loss(recipe: LoraRecipe, backbone: UNetBackbone) -> ControlledLoss:
    """What the recipe's kind of LoRA learns by."""
    settings, lcm = recipe.training, recipe.lora.distillation
    dtype = autocast_dtype(settings.precision, backbone.device)
    mean = settings.mask_mean
    if lcm is None:
        rules = settings.timesteps, settings.min_snr, settings.offset_noise
        return ControlledLoss(backbone, None, dtype, *rules, mask_mean=mean)
    empty, rule, offset = empty_prompt(backbone), settings.timesteps, settings.offset_noise
    loss = ConsistencyLoss(backbone, lcm, empty, dtype, rule, offset, mean)
    backbone.few_steps = LCM  # of its sheets on the way
    return loss
