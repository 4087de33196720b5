"""Qwen-Image's VAE: in diffusers' layout, or in the original one (of Wan, which it comes from)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.flow.layout import State, count, owner
from zeroconv.checkpoints.identify import identify, plain_state, refuse_other_kind
from zeroconv.checkpoints.kinds import VIDEO_VAE
from zeroconv.checkpoints.reading import read_config, read_state_dict, read_weights
from zeroconv.checkpoints.stable_diffusion import describing

_RESNET = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_ENDS = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    **{f"{half}.conv1": f"{half}.conv_in" for half in ("encoder", "decoder")},
    **{f"{half}.head.0": f"{half}.norm_out" for half in ("encoder", "decoder")},
    **{f"{half}.head.2": f"{half}.conv_out" for half in ("encoder", "decoder")},
    **{f"{half}.middle.1": f"{half}.mid_block.attentions.0" for half in ("encoder", "decoder")},
}


def read_video_vae(path: Path) -> tuple[dict[str, Any], State]:
    """Config and weights in diffusers' layout, of a folder or a file; of a file's config the
    latents' means and spreads are Qwen-Image's, which are diffusers' defaults.

    Raises UserError for any other VAE.
    """
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        return read_config(folder), read_weights(folder)
    state = plain_state(read_state_dict(path))
    if (kind := identify(state)) is not VIDEO_VAE:
        raise refuse_other_kind(kind, "VAE of Qwen-Image", path, state)
    return of_video_vae(state, path)


def of_video_vae(state: Mapping[str, Tensor], where: object) -> tuple[dict[str, Any], State]:
    """The same of tensors in either layout."""
    with describing(where):
        state = _renamed(state) if "decoder.conv1.weight" in state else dict(state)
        return _config(state), state


def _renamed(state: Mapping[str, Tensor]) -> State:
    names = dict(_ENDS)
    for half in ("encoder", "decoder"):
        for theirs, ours in ((0, 0), (2, 1)):
            names |= _resnet(f"{half}.middle.{theirs}", f"{half}.mid_block.resnets.{ours}")
    for i in range(count(state, "encoder.downsamples.")):
        names[f"encoder.downsamples.{i}"] = f"encoder.down_blocks.{i}"
        names |= _resnet(f"encoder.downsamples.{i}", f"encoder.down_blocks.{i}")
    level = number = 0
    for i in range(count(state, "decoder.upsamples.")):
        start = f"decoder.upsamples.{i}"
        if f"{start}.resample.1.weight" in state:
            names[start] = f"decoder.up_blocks.{level}.upsamplers.0"
            level, number = level + 1, 0
        else:
            names |= _resnet(start, f"decoder.up_blocks.{level}.resnets.{number}")
            number += 1
    renamed = {}
    for key, value in state.items():
        module = owner(key, names)
        renamed[key if module is None else names[module] + key[len(module) :]] = value
    return renamed


def _resnet(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in _RESNET.items()}


def _config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    base = state["encoder.conv_in.weight"].shape[0]
    widths, blocks, halvings = [base], [0], []
    for i in range(count(state, "encoder.down_blocks.")):
        block = f"encoder.down_blocks.{i}."
        if f"{block}resample.1.weight" in state:
            halvings.append(f"{block}time_conv.weight" in state)
            widths.append(0)
            blocks.append(0)
        else:
            widths[-1] = state[f"{block}conv2.weight"].shape[0]
            blocks[-1] += 1
    return {
        "base_dim": base,
        "z_dim": state["post_quant_conv.weight"].shape[0],
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": blocks[0],
        "temperal_downsample": halvings,
    }
