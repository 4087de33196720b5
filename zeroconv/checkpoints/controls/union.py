"""What a ControlNet Union has beyond a ControlNet: names of tensors, and a config off their shapes.

Its one-file form has diffusers' names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from zeroconv.checkpoints.infer import infer_config
from zeroconv.errors import UserError

CLASS_NAME = "ControlNetUnionModel"
_NEEDED = ("task_embedding", "spatial_ch_projs.weight", "control_add_embedding.linear_1.weight")


def is_union(names: Iterable[str]) -> bool:
    """Whether tensors of these names, in diffusers' layout, are a Union's."""
    return "task_embedding" in set(names)


def infer_union_config(state: Mapping[str, Tensor]) -> dict:
    """The config of a Union, in diffusers' keys, from its weights. Attention heads leave no trace:
    published ones have 8. Raises UserError.
    """
    for name in _NEEDED:
        axes = 2
        if name not in state or state[name].ndim != axes or 0 in state[name].shape:
            raise UserError(
                f"the weights lack {name} of {axes} axes, so they are no Union control."
            )
    kinds, width = state["task_embedding"].shape
    layers = {key.split(".")[1] for key in state if key.startswith("transformer_layes.")}
    return {
        **infer_config(state),
        "_class_name": CLASS_NAME,
        "num_control_type": kinds,
        "num_trans_channel": width,
        "num_trans_head": math.gcd(8, width),
        "num_trans_layer": len(layers),
        "num_proj_channel": state["spatial_ch_projs.weight"].shape[0],
        "addition_time_embed_dim": state["control_add_embedding.linear_1.weight"].shape[1] // kinds,
    }
