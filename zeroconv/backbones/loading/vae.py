"""The autoencoder of a base: its own, or another one in its place."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.backbones.loading.building import build_vae
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.infer import infer_vae_config
from zeroconv.checkpoints.stable_diffusion import describing
from zeroconv.checkpoints.vae import read_vae
from zeroconv.errors import UserError

_PATTERNS = ("config.json", "*.safetensors", "*.bin", "vae/*")
# what a file's weights do not show: it is the base's
_OF_THE_BASE = ("scaling_factor", "shift_factor", "force_upcast", "sample_size")


def find_vae(vae: str | os.PathLike | None) -> Path | None:
    """The path of another autoencoder: a file, a folder, or a hub id. UserError for none."""
    return None if vae is None else locate(os.fspath(vae), "VAE", _PATTERNS)


def another_vae(path: Path, base: Mapping[str, Any], channels: int, dtype: torch.dtype) -> Any:
    """The module of another autoencoder than the base's.

    base: config of the base's own one, from which one file takes what its weights do not show.
    channels: of the base's latents. Raises UserError where it has others; a note says so where its
    config scales latents otherwise than the base's.
    """
    config, state = read_vae(path)
    state = unscaled(state, path, dtype)
    with describing(path):
        if config is None:
            config = infer_vae_config(state)
            config |= {name: base[name] for name in _OF_THE_BASE if name in base}
    _check(config, base, channels, path)
    return build_vae(config, state, path, dtype)


def _check(config: Mapping[str, Any], base: Mapping[str, Any], channels: int, path: Path) -> None:
    if (has := config.get("latent_channels", 4)) != channels:
        raise UserError(
            f"the VAE {path} has latents of {has} channels, but the base's have {channels}; it "
            "belongs to another family of bases."
        )
    scale, expected = (c.get("scaling_factor", 0.18215) for c in (config, base))
    if scale != expected:
        warnings.warn(
            f"the VAE {path} scales latents by {scale}, the base's own by {expected}: it may "
            "belong to another family, and pictures would have wrong colours; its own number is "
            "used.",
            stacklevel=4,
        )


def vae_of_base(config: dict, state: Mapping[str, Tensor], where: Path, dtype: torch.dtype) -> Any:
    """The module of the base's own autoencoder."""
    return build_vae(config, unscaled(state, where, dtype), where, dtype)
