"""The decoder of a small autoencoder (TAESD and its kin) from the layouts of published ones.

diffusers' AutoencoderTiny names `decoder.layers.N`. The original file of a decoder has the bare
numbers of a sequence that begins with a clamp, so they are one higher.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.identify import identify as kind_of
from zeroconv.checkpoints.identify import plain_state, refuse_folder, refuse_other_kind
from zeroconv.checkpoints.reading import read_config, read_state_dict, read_weights, weights_file
from zeroconv.errors import UserError

State = dict[str, Tensor]

_DIFFUSERS = "decoder.layers."
_ORIGINAL = ("taesd_decoder.", "decoder.", "")
_NUMBERED = re.compile(r"\d{1,3}\.(conv\.\d\.|skip\.)?(weight|bias)")


def read_tiny_vae(path: Path) -> tuple[dict[str, Any], State]:
    """→ the config of diffusers' AutoencoderTiny, and the decoder's weights as `layers.N…`.

    One file shows its config by its tensors. Raises UserError for anything else.
    """
    if path.is_dir():
        return _from_folder(path)
    state = plain_state(read_state_dict(path))
    layers = _layers(state)
    if not layers:
        if re.search(r"(^|\n)(taesd_encoder\.|encoder\.layers\.)?0\.(conv\.0\.)?weight",
                     "\n".join(state)):  # fmt: skip
            raise UserError(f"{path} is the encoder of a tiny VAE; give its decoder.")
        raise refuse_other_kind(kind_of(state), "tiny VAE", path, state)
    return infer_config(layers, path), {f"layers.{key}": value for key, value in layers.items()}


def _from_folder(path: Path) -> tuple[dict[str, Any], State]:
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file():
        raise refuse_folder(folder, "tiny VAE")
    config = read_config(folder)
    if (named := str(config.get("_class_name"))[:80]) != "AutoencoderTiny":
        raise UserError(
            f"{folder} holds another model ({named}), not an AutoencoderTiny; give a tiny VAE."
        )
    if weights_file(folder) is None:
        raise UserError(f"{folder} is a tiny VAE without weights; download it again.")
    state = {k: v for k, v in read_weights(folder).items() if k.startswith("decoder.")}
    return config, {key.removeprefix("decoder."): value for key, value in state.items()}


def _layers(state: Mapping[str, Tensor]) -> State:
    """The decoder's tensors by diffusers' numbers, `N.weight` or `N.conv.K.weight`; empty where
    there are none.
    """
    for prefix in (_DIFFUSERS, *_ORIGINAL):
        layers = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if not layers or not all(map(_NUMBERED.fullmatch, layers)):
            continue
        if prefix == _DIFFUSERS:
            return layers
        if "1.weight" not in layers or "0.weight" in layers:  # an encoder has no clamp
            return {}
        return {_one_lower(key): value for key, value in layers.items()}
    return {}


def _one_lower(key: str) -> str:
    number, _, rest = key.partition(".")
    return f"{int(number) - 1}.{rest}"


def infer_config(layers: Mapping[str, Tensor], where: object) -> dict[str, Any]:
    """The config that diffusers' numbers and shapes show: a convolution of the latents, then levels
    of blocks, each with a convolution behind it.
    """
    first = layers.get("0.weight")
    if first is None or first.dim() != 4:
        raise UserError(f"{where} is no tiny VAE: its first layer is no convolution.")
    blocks, count = [], 0
    for number in sorted({int(key.split(".")[0]) for key in layers})[1:]:
        if f"{number}.conv.0.weight" in layers:
            count += 1
        else:
            blocks.append(count)
            count = 0
    width, channels = first.shape[:2]
    return {
        "_class_name": "AutoencoderTiny",
        "latent_channels": int(channels),
        "encoder_block_out_channels": [8] * len(blocks),
        "num_encoder_blocks": [1] * len(blocks),
        "decoder_block_out_channels": [int(width)] * len(blocks),
        "num_decoder_blocks": blocks,
    }
