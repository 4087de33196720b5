"""In which numbers a run computes, from its recipe's word for it and the device it is on."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import Net
from zeroconv.layers.cpu import has_bf16_matrix_unit, use_cpu_layers_
from zeroconv.layers.cuda import use_card_layers_
from zeroconv.optim.split_weights import narrow_, narrow_all_


def autocast_dtype(precision: str, device: torch.device | str) -> torch.dtype | None:
    """What autocast computes in; None: no autocast. On a processor that multiplies float32 faster
    than bfloat16, bfloat16 weights are cast a layer at a time and what flows between the layers is
    float32.
    """
    if precision == "fp32":
        return None
    if precision == "fp16":
        return torch.float16
    cast_in_layers = (
        precision == "bf16_weights"
        and torch.device(device).type == "cpu"
        and not has_bf16_matrix_unit()
    )
    return None if cast_in_layers else torch.bfloat16


def computes_in_bf16(precision: str, device: torch.device | str) -> bool:
    """Whether the steps of a run are computed in bfloat16 throughout, without autocast: it would
    have norms in float32 and cast before and behind them, which took a fifth of a step on a card
    (validation and pictures, in which averaged float32 weights take the place of the trained ones,
    keep it).
    """
    return precision == "bf16_weights" and torch.device(device).type == "cuda"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which a model that `prepare_` prepared can be run."""
    dtype = autocast_dtype(precision, device)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def loss_scale(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """What multiplies the loss and divides its gradients (Micikevicius et al. 2018, section 3.2);
    None where it is not needed. float16 ends at 6e-8 and 65504, and gradients may be smaller: they
    are made as large as fits. A step whose gradients overflow halves the scale and is left out;
    2000 steps without one double it.
    """
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def prepare_(
    backbone: UNetBackbone, control: Net, precision: str, compiled: bool = False
) -> dict[nn.Parameter, Tensor]:
    """Bring the frozen UNet and the control into the precision's dtypes and the layout and layers
    that train fastest, in place. `compiled`: leave the layers to torch.compile, which makes its
    own. Returns the low halves of weights that are bfloat16 and train, see
    `zeroconv.optim.split_weights`.
    """
    trained = cast(nn.Module, control)
    for module in (backbone.denoiser, trained):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if precision == "fp32":  # a transformer that is held in fewer bits was read in bfloat16
        backbone.denoiser.float()
    # frozen weights need no float32 masters; autocast would cast them anew in every pass
    if half is not None:
        cast_frozen_(backbone.denoiser, half)
    lows: dict[nn.Parameter, Tensor] = {}
    if precision == "bf16_weights":
        if autocast_dtype(precision, backbone.device) is None:  # each layer casts for itself
            backbone.denoiser.float()
        narrow = narrow_all_ if computes_in_bf16(precision, backbone.device) else narrow_
        lows = {**narrow(backbone.denoiser), **narrow(trained)}
    if computes_in_bf16(precision, backbone.device) and not compiled:
        use_card_layers_(backbone.denoiser, trained)
    if backbone.device.type == "cpu" and not compiled:
        use_cpu_layers_(backbone.denoiser, trained)
    if not compiled:
        use_block_layers_(backbone.denoiser, trained)
    return lows


def use_block_layers_(*modules: nn.Module) -> None:
    """Let blocks of diffusion transformers train with less work, where there are such layers."""
    names = {type(part).__name__ for module in modules for part in module.modules()}
    if names & {"FluxTransformerBlock", "FluxSingleTransformerBlock"}:
        # diffusers' file of FLUX.1 is read for FLUX.1 alone
        from zeroconv.layers.flux import use_flux_layers_

        use_flux_layers_(*modules)


def cast_frozen_(unet: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parts of the UNet of which nothing trains; what trains keeps its float32."""
    for part in unet.children():
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.to(dtype=dtype)
