"""Networks of baselines' kinds as others published them, around a base that is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.checkpoints.controls.controlnet_xs import read_xs
from zeroconv.checkpoints.controls.t2i_adapter import read_adapter
from zeroconv.checkpoints.kinds import T2I, XS, Kind

PUBLISHED = (T2I, XS)


def read_published(path: Path, kind: Kind) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """→ the kind of baseline, its options, and its weights under the baseline's names, float32.
    Raises UserError.
    """
    if kind is T2I:
        config, state = read_adapter(path)
        options = {
            "res_blocks": config["num_res_blocks"],
            "adapter_type": config["adapter_type"],
            "in_channels": config["in_channels"],
            "channels": tuple(config["channels"]),
            "downscale": config["downscale_factor"],
        }
        state = {f"adapter.{key}": value for key, value in state.items()}
        return "t2i_adapter", options, _floats(state)
    config, state = read_xs(path)
    return "controlnet_xs", {"adapter": config}, _floats(state)


def _floats(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: value.to(torch.float32) if value.is_floating_point() else value
        for key, value in state.items()
    }
