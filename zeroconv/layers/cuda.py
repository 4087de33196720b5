"""Layers of a UNet that train faster on a graphics card, where every weight is bfloat16
(`precision: bf16_weights`).

Norm and SiLU are one, see `zeroconv.layers.group_norm_cuda`, and a residual block divides by its
scale only where there is one. Under autocast, as when averaged float32 weights are measured, layers
compute as diffusers has them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def use_card_layers_(*modules: nn.Module) -> None:
    """Let group norms and residual blocks within compute as this file does; their names, weights
    and state dicts stay as they are. Nothing happens where there is no Triton.
    """
    if find_spec("triton") is None:
        return
    for module in modules:
        for layer in module.modules():
            if type(layer) is nn.GroupNorm and layer.affine:
                layer.__class__ = CardGroupNorm
            elif type(layer) is ResnetBlock2D and _is_plain(layer):
                layer.__class__ = CardResnetBlock2D


def _is_plain(block: Any) -> bool:
    same_size = block.upsample is None and block.downsample is None
    plain = block.time_embedding_norm == "default" and isinstance(block.nonlinearity, nn.SiLU)
    return same_size and plain and not block.dropout.p


def _launches(x: Tensor) -> bool:
    """Whether kernels can read it: it lies on a card (or Triton interprets), is no shape without
    memory, and autocast has no say.
    """
    there = x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return there and not isinstance(x, FakeTensor) and not torch.is_autocast_enabled(x.device.type)


class CardGroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        if x.ndim != 4 or x.dtype != self.weight.dtype or not _launches(x):
            y = super().forward(x)
            return nn.functional.silu(y) if silu else y
        from zeroconv.layers.group_norm_cuda import GroupNormSiLU

        return GroupNormSiLU.apply(x, self.weight, self.bias, self.num_groups, self.eps, silu)


class CardResnetBlock2D(ResnetBlock2D):
    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not _launches(input_tensor):
            return super().forward(input_tensor, temb, *args, **kwargs)
        x = self.conv1(self.norm1(input_tensor, silu=True))
        if self.time_emb_proj is not None and temb is not None:
            emb = temb if self.skip_time_act else self.nonlinearity(temb)
            x = x + self.time_emb_proj(emb)[:, :, None, None]
        x = self.conv2(self.norm2(x, silu=True))
        if self.conv_shortcut is not None:
            input_tensor = self.conv_shortcut(input_tensor)
        x = input_tensor + x
        return x if self.output_scale_factor == 1 else x / self.output_scale_factor
