"""A base in one weights file of the original layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from zeroconv.backbones.encoder import check_latents
from zeroconv.backbones.loading.building import build_text_encoder, build_unet
from zeroconv.backbones.loading.config import configs_of
from zeroconv.backbones.loading.flow_file import load_flow_file
from zeroconv.backbones.loading.request import Request
from zeroconv.backbones.loading.tokenizer import tokenizers_for
from zeroconv.backbones.loading.vae import another_vae, vae_of_base
from zeroconv.backbones.unet import UNetBackbone
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.flow.file import is_flow
from zeroconv.checkpoints.identify import identify, plain_state
from zeroconv.checkpoints.reading import WEIGHT_FILES, read_state_dict
from zeroconv.checkpoints.sniff import foreign
from zeroconv.checkpoints.stable_diffusion import StableDiffusion, from_single_file
from zeroconv.errors import UserError


def load_file(path: Path, request: Request) -> UNetBackbone:
    """The parts of one file; the tokenizers stand beside it or on the hub."""
    if is_weights(path) and is_flow(identify(path)):
        # as callers know it, most of which ask for no UNet
        return cast(UNetBackbone, load_flow_file(path, request))
    request.check_no_parts(path)
    parts, marks = read_base(path, vae=request.vae is None)
    configs = configs_of(parts, path, marks, request.prediction_type)
    check_latents(configs["unet"], path)
    texts = [("text_encoder", parts.text)]
    texts += [("text_encoder_2", parts.text_2)] if parts.text_2 is not None else []
    loras, dtype, keep = request.loras, request.dtype, request.keep
    loras.check_parts(len(texts))
    tokenizers = tokenizers_for(path, parts.open_clip, parts.xl)  # before the slow part

    def merged(state: Mapping[str, Tensor], part: str) -> Mapping[str, Tensor]:
        return loras.merged(unscaled(state, path, dtype), part)

    unet = build_unet(configs["unet"], merged(parts.unet, "unet"), path, dtype, keep)
    return UNetBackbone(
        request.built("unet", unet),
        _vae(path, parts, configs, request),
        [
            request.built(
                "text", build_text_encoder(configs[name], merged(s, name), path, dtype, keep)
            )
            for name, s in texts
        ],
        tokenizers,
        configs["scheduler"],
        name=request.name,
        zero_empty_negative=len(tokenizers) > 1,  # SDXL's default (diffusers)
    )


def _vae(path: Path, parts: StableDiffusion, configs: Mapping[str, Any], request: Request) -> Any:
    if request.vae is not None:
        channels = configs["unet"]["out_channels"]
        return another_vae(request.vae, configs["vae"], channels, request.dtype)
    return vae_of_base(configs["vae"], parts.vae, path, request.dtype)


def is_weights(path: Path) -> bool:
    return path.suffix in WEIGHT_FILES


def read_base(path: Path, vae: bool = True) -> tuple[StableDiffusion, dict[str, Tensor]]:
    """The parts of a base in one file, and its tensors under the file's names.

    vae: whether it must hold the autoencoder. Raises UserError for what is no base.
    """
    if not is_weights(path):
        what = foreign(path) if path.is_file() else "no file"
        raise UserError(
            f"{path} is no model{f' but {what}' if what else ''}; give a folder or a weights file "
            f"({', '.join(sorted(WEIGHT_FILES))})."
        )
    state = plain_state(read_state_dict(path))
    return from_single_file(state, path, vae), state
