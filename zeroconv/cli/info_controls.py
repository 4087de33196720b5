"""What `zeroconv info` says of networks of other kinds that take a ControlNet's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_adapter(path: Path) -> dict[str, Any]:
    """A T2I-Adapter, from its file or folder alone. Raises UserError."""
    from zeroconv.checkpoints.t2i_adapter import read_adapter

    config, state = read_adapter(path)
    large = config["adapter_type"] == "full_adapter_xl"
    return {
        "parameters": {"adapter": sum(value.numel() for value in state.values())},
        "adapter_type": config["adapter_type"],
        "hint_channels": config["in_channels"],
        "channels": config["channels"],
        "residual_blocks_a_level": config["num_res_blocks"],
        "squares": config["downscale_factor"],
        "notes": f"needs a base of these channels ({'SDXL' if large else 'SD 1.x'} as published), "
        f"and pictures whose sides are multiples of {config['downscale_factor']}",
    }


def describe_xs(path: Path) -> dict[str, Any]:
    """A ControlNet-XS, from its folder alone. Raises UserError."""
    from zeroconv.checkpoints.controlnet_xs import read_xs

    config, state = read_xs(path)
    return {
        "parameters": {"trained": sum(value.numel() for value in state.values())},
        "channels": config.get("block_out_channels"),
        "channels_of_its_base": config.get("base_block_out_channels"),
        "hint_channels": config.get("conditioning_channels", 3),
        "text_width": config.get("cross_attention_dim"),
        "notes": "needs a base of these channels, whose UNet it runs beside; it takes ControlNets "
        "beside it, but no mask",
    }
