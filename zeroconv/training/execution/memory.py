"""What a run spends on memory: the frozen weights (`training.frozen`) and activations
(`training.checkpointing`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import TextStates, UNetBackbone, is_split
from zeroconv.control import ControlNet, Net
from zeroconv.data.batches import of_size
from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.layers.checkpointing import Ledger, choose, find_parts, measure, recompute_
from zeroconv.layers.quantised import quantise_
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.training import TrainingSettings, parse_size
from zeroconv.training.reward.reward import Reward


def hold_frozen_(backbone: UNetBackbone, control: Net, frozen: str) -> None:
    """Hold the frozen parts of the UNet as `training.frozen` says. Raises UserError for a baseline,
    which may share them.
    """
    if frozen == "same":
        return
    if not control.has_residuals:
        raise UserError(
            "training.frozen works for a ControlNet, not for a baseline, which may share weights; "
            "drop it."
        )
    quantise_(backbone.denoiser, cast(Any, frozen))
    # all captions are cached: it is kept for the pictures on the way alone
    for encoder in backbone.text_encoders:
        encoder.to(dtype=torch.bfloat16)


def apply_checkpointing_(
    loss: ControlledLoss, data: Examples, settings: TrainingSettings
) -> str | None:
    """Do as `training.checkpointing` says with what runs under gradients; returns a line that says
    what that is.

    Measured for the largest shape of the data. Computing again changes no number, so a run may go
    on with another setting. Raises UserError where the budget is too small, and for baselines.
    """
    if settings.checkpointing == "none":
        return None
    if loss.control is not None and not loss.control.has_residuals:
        raise UserError(
            "training.checkpointing works for a ControlNet or a LoRA of the base, not for a "
            "baseline; drop it."
        )
    height, width = max(data.moments.shapes(), key=lambda shape: shape[0] * shape[1])
    scale = loss.backbone.latent_scale
    text = of_size(data.text.states([0] * settings.batch_size), scale * height, scale * width)
    ledger = activations(loss, settings.batch_size, (height, width), text)
    beside = reward_peak(loss.reward, (height, width), settings.batch_size)
    again = chosen(ledger, settings.checkpointing, beside)
    for i in again:
        recompute_(ledger.parts[i].module)
    return (
        f"{len(again)} of {len(ledger.parts)} parts are computed again: a micro-batch keeps "
        f"{ledger.peak(again) / 1e9:.2f} GB in place of {ledger.peak([]) / 1e9:.2f}"
        + (f", and {beside / 1e9:.2f} GB for its reward" if beside else "")
    )


def reward_peak(reward: Reward | None, size: tuple[int, int], batch_size: int) -> int:
    """Bytes that a reward takes beside a micro-batch with latents of `size` (h, w)."""
    return 0 if reward is None else reward.peak(size, batch_size)


def chosen(ledger: Ledger, setting: str, beside: int = 0) -> list[int]:
    """Numbers of the parts that the setting asks to compute again. beside: bytes that the reward
    takes of a budget, while everything is kept.
    """
    if setting == "none":
        return []
    return (
        list(range(len(ledger.parts)))
        if setting == "full"
        else choose(ledger, parse_size(setting), beside)
    )


def activations(loss: ControlledLoss, n: int, size: tuple[int, int], text: TextStates) -> Ledger:
    """What a micro-batch of n examples with latents of `size` (h, w) keeps for its backward pass;
    nothing is computed.

    text: n states, on any device.
    """
    modules = trained_path(loss)
    weights = [*loss.parameters(), *backbone_weights(loss)]
    try:
        return measure(find_parts(modules), weights, micro_batch(loss, n, size, text))
    finally:
        if not is_split(loss.backbone):
            cast(Any, loss.backbone).forget()


def trained_path(loss: ControlledLoss) -> list[nn.Module]:
    """The modules that run under gradients: the control and the decoder, or the whole UNet where
    that trains.
    """
    unet = cast(UNetBackbone, loss.backbone).denoiser
    if loss.control is None:
        return [unet]
    if not is_split(loss.backbone):
        return [cast(nn.Module, loss.control), unet]
    control = cast(ControlNet, loss.control)
    return [control.hint_encoder, control.copy, unet.up_blocks]


def backbone_weights(loss: ControlledLoss) -> list[Tensor]:
    unet = cast(UNetBackbone, loss.backbone).denoiser
    return [*unet.parameters(), *unet.buffers()]


def micro_batch(
    loss: ControlledLoss, n: int, size: tuple[int, int], text: TextStates
) -> Callable[[], Any]:
    """A call that makes a micro-batch of that shape, of no particular content, and gives its
    loss.
    """
    channels, scale, device = (
        loss.backbone.latent_channels,
        loss.backbone.latent_scale,
        loss.process.device,
    )

    def forward() -> Tensor:
        z = torch.empty(n, channels, *size, device=device)
        if getattr(loss.control, "hint_space", "pixels") == "latent":  # which are cached
            read = channels + cast(Any, loss.control).mask_channels
            hints = torch.empty(n, read, *size, device=device)
        else:
            sides = (size[0] * scale, size[1] * scale)
            hints = torch.empty(n, 1, *sides, dtype=torch.uint8, device=device)
        t = torch.zeros(n, dtype=torch.long, device=device)
        alone, noise = loss.control is None, torch.empty_like(z)
        given, states = None if alone else hints, text.to(device)
        kinds = t if hasattr(loss.control, "of_kind") else None
        return loss.errors(
            z, noise, t, given, states, not alone, loss.weights_dtype, kinds=kinds
        ).mean()

    return forward
