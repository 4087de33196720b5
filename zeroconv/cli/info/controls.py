"""What `zeroconv info` says of networks of other kinds that take a ControlNet's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_adapter(path: Path) -> dict[str, Any]:
    """A T2I-Adapter, from its file or folder alone. Raises UserError."""
    from zeroconv.checkpoints.controls.t2i_adapter import read_adapter

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
    from zeroconv.checkpoints.controls.controlnet_xs import read_xs

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


def describe_transformer_control(path: Path) -> dict[str, Any]:
    """A ControlNet of a diffusion transformer, from its folder or file alone. Raises UserError."""
    from zeroconv.checkpoints.flow.controls import CLASSES, read_flow_control

    control = read_flow_control(path)
    config, ours = control.config, control.config.get("zeroconv") or {}
    places = config.get("control_layers_places")
    blocks = {
        "blocks": None if places is not None else config.get("num_layers"),
        "single_blocks": config.get("num_single_layers"),
        "beside_layers": places,
        "modes": config.get("num_mode"),
    }
    pixels = config.get("conditioning_embedding_channels") is not None
    layout = {"names": "the original ones" if control.original else "diffusers'"}
    return {
        "parameters": {"control": sum(value.numel() for value in control.state.values())},
        "class": control.class_name,
        "condition": ours.get("condition"),
        "base": ours.get("base"),
        **{name: value for name, value in blocks.items() if value is not None},
        **({} if path.is_dir() else layout),
        "hint": "pixels (XLabs)" if pixels else None,
        "trained": ours.get("trained"),
        "needs": f"a base of {dict(CLASSES.values()).get(control.class_name)}",
    }
