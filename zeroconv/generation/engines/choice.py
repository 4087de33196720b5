"""Which engine computes: the one asked for, or torch where it cannot."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from zeroconv.backbones import Backbone, UNetBackbone
from zeroconv.control import is_additive
from zeroconv.errors import UserError
from zeroconv.generation.engines.engine import Engine, Torch

ENGINES = ("torch", "openvino")
_DTYPES = (torch.float32, torch.bfloat16)
_PLAIN = ("torch", "diffusers", "transformers", "zeroconv")  # whose layers are known
_PROCESSORS = ("AttnProcessor", "AttnProcessor2_0")


def check_engine(name: Any) -> str:
    """Raise UserError for an unknown name and for a library that is not installed, TypeError for
    what is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"engine is {name!r}; it is a name.")
    if name not in ENGINES:
        raise UserError(f"There is no engine {name[:40]!r}; choose one of {', '.join(ENGINES)}.")
    if name != "torch" and importlib.util.find_spec(name) is None:
        raise UserError(
            f"the engine {name} is not installed; install it with pip install 'zeroconv[{name}]'."
        )
    return name


def engine_for(
    name: str,
    backbone: Backbone,
    guides: Sequence[Any] = (),
    edits: bool = False,
    adapting: bool = False,
    quiet: bool = False,
    merging: bool = False,
) -> Engine:
    """For one batch of these guides. A note says why it is torch instead, unless `quiet`."""
    if name == "torch":
        return Torch(backbone)
    reason = "which tokens are merged differs from step to step" if merging else ""
    if reason := reason or _reason(backbone, guides, edits, adapting):
        if not quiet:
            warnings.warn(f"engine {name}: {reason}, so torch computes it.", stacklevel=2)
        return Torch(backbone)
    from zeroconv.generation.engines.openvino import OpenVino

    return OpenVino(backbone)


def _reason(backbone: Any, guides: Sequence[Any], edits: bool, adapting: bool) -> str:
    if not isinstance(backbone, UNetBackbone):
        return f"{backbone.name} is no UNet"
    if edits:
        return f"{backbone.name} edits pictures, in three evaluations a step"
    if adapting:
        return "image prompts and references change what the network attends to"
    if backbone.device.type != "cpu":
        return f"it computes on processors, and the base is on {backbone.device}"
    if backbone.quantised or backbone.offload is not None:
        return "weights are quantised or moved while they are used"
    if backbone.dtype not in _DTYPES:
        return f"it computes in float32 or bfloat16, not in {backbone.dtype}"
    for guide in guides:
        name = guide.net.condition or "a control"
        if not is_additive(guide.net) or guide.net.has_features:
            return f"{name} is a baseline or an adapter"
        if guide.net.dtype != backbone.dtype or guide.net.device.type != "cpu":
            return f"{name} has another dtype or device than the base"
        if not isinstance(guide.embedding, torch.Tensor):
            return f"{name} reads more than one tensor of its hint"
    networks = [backbone.unet, *(net for guide in guides for net in guide.net.networks())]
    return _changed(networks)


def _changed(networks: Iterable[nn.Module]) -> str:
    """Why a network is no longer what its weights and config say; empty where it is."""
    for network in networks:
        for layer in network.modules():
            if "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks:
                return "something has replaced a layer's forward pass"
            if type(layer).__module__.partition(".")[0] not in _PLAIN:
                return f"a layer is of {type(layer).__module__}"
            processor = getattr(layer, "processor", None)
            if processor is not None and type(processor).__name__ not in _PROCESSORS:
                return f"its attention is {type(processor).__name__}"
    return ""
