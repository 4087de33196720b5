"""An autoencoder's weights from whatever holds them: its folder, a pipeline's folder, or one file
in LDM's or diffusers' layout, alone or inside a whole base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from zeroconv.checkpoints.identify import identify as kind_of
from zeroconv.checkpoints.identify import (
    kind_of_config,
    plain_state,
    refuse_folder,
    refuse_other_kind,
)
from zeroconv.checkpoints.kinds import BASE, VAE
from zeroconv.checkpoints.names import inverse, rename, vae_names
from zeroconv.checkpoints.reading import read_config, read_state_dict, read_weights, weights_file
from zeroconv.errors import UserError

State = dict[str, Tensor]

_PREFIX = "first_stage_model."  # inside a whole base
_OLD_PREFIX = "vae."  # of a pipeline's parts in one file
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def read_vae(path: Path) -> tuple[dict | None, State]:
    """→ its config (None: one file has none) and its weights in diffusers' layout.

    Raises UserError for anything that is no AutoencoderKL.
    """
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        if not (folder / "config.json").is_file():
            raise refuse_folder(folder, "VAE")
        config = read_config(folder)
        named = str(config.get("_class_name") or "AutoencoderKL")[:80]
        if named != "AutoencoderKL":
            kind = kind_of_config(config)
            raise UserError(
                f"{folder} holds a {named}, not an AutoencoderKL"
                f"{'' if kind is VAE else f': it is {kind}'}; give the VAE of a Stable Diffusion."
            )
        if weights_file(folder) is None:
            raise UserError(f"{folder} is a VAE without weights; download it again.")
        return config, modern_vae(read_weights(folder))

    state = plain_state(read_state_dict(path))
    for prefix in (_PREFIX, _OLD_PREFIX):
        if any(key.startswith(prefix) for key in state):
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    kind = kind_of(state)
    if kind not in (VAE, BASE):
        raise refuse_other_kind(kind, "VAE", path, state)
    if any(key.startswith("encoder.down_blocks.") for key in state):
        return None, modern_vae(_vae_tensors(state))
    return None, vae_from_original(state, path)


def vae_from_original(state: Mapping[str, Tensor], where: object) -> State:
    """LDM's names without `first_stage_model.` → diffusers'; losses and the like are left out."""
    state = _vae_tensors(state)
    names = inverse(vae_names(*_shape(state, "encoder.down.{}.block.{}.conv1.weight")))
    return {key: _as_linear(key, value) for key, value in rename(state, names, where).items()}


def vae_to_original(state: Mapping[str, Tensor]) -> State:
    """The inverse of `vae_from_original`."""
    plain = {key: _as_convolution(key, value) for key, value in state.items()}
    shape = _shape(plain, "encoder.down_blocks.{}.resnets.{}.conv1.weight")
    return rename(plain, vae_names(*shape), "VAE")


def modern_vae(state: Mapping[str, Tensor]) -> State:
    """The autoencoders of older diffusers folders name their attention otherwise (query, key,
    value, proj_attn).
    """
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    modern = {}
    for key, value in state.items():
        name = (
            ".".join(old.get(part, part) for part in key.split("."))
            if ".attentions." in key
            else key
        )
        modern[name] = _as_linear(name, value)
    return modern


def _vae_tensors(state: Mapping[str, Tensor]) -> State:
    return {key: value for key, value in state.items() if key.startswith(_PARTS)}


def _shape(state: Mapping[str, Tensor], pattern: str) -> tuple[int, int]:
    layers = sum(pattern.format(0, j) in state for j in range(16))
    return layers, sum(pattern.format(i, 0) in state for i in range(16))


def _as_linear(key: str, value: Tensor) -> Tensor:
    """LDM's autoencoder attends with 1×1 convolutions, diffusers' with matrices."""
    return value[:, :, 0, 0].contiguous() if ".attentions." in key and value.ndim == 4 else value


def _as_convolution(key: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if ".attentions." in key and value.ndim == 2 else value
