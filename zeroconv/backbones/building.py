"""diffusers and transformers modules from a config and a state dict: strictly, and without random initialisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.checkpoints.reading import load_strict
from zeroconv.checkpoints.stable_diffusion import bare_text, modern_vae
from zeroconv.errors import UserError

State = Mapping[str, Tensor]


def empty(make: Callable[[], nn.Module], where: object) -> Any:
    """A module whose parameters are on the meta device: shapes without memory. UserError where `make` fails."""
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False):
            return make().eval()
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{where}: its config describes no module that can be built ({error}).") from error


def fill(module: Any, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    """Give an empty module these weights, in `dtype` (None: as stored), laid out for speed."""
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    return channels_last_(load_strict(module, state, where))


def channels_last_(module: Any) -> Any:
    """Lay the weights of convolutions out as (O, H, W, C), in place. What such a convolution puts out is laid out so
    too, and goes into the next, or into a transformer block, without being copied."""
    return module.to(memory_format=torch.channels_last)


def build_unet(config: dict, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    from diffusers import UNet2DConditionModel

    return fill(empty(lambda: UNet2DConditionModel.from_config(config), where), state, where, dtype)


def build_vae(config: dict, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    from diffusers import AutoencoderKL

    return fill(empty(lambda: AutoencoderKL.from_config(config), where), modern_vae(state), where, dtype)


def build_text_encoder(config: dict, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    """A CLIPTextModel, or the one with a projection of SDXL's second encoder, as the config's architecture says."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    projected = "CLIPTextModelWithProjection" in config.get("architectures", [])
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    known = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype", "model_type")}
    module = empty(lambda: kind(CLIPTextConfig(**known)), where)
    # transformers 5 dropped the `text_model.` prefix of the plain model; what a file says depends on who wrote it
    names = {key.removeprefix("text_model."): key for key in module.state_dict()}
    renamed = {names.get(key, key): value for key, value in bare_text(state).items()}
    return fill(module, renamed, where, dtype)
