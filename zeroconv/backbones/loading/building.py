"""diffusers and transformers modules from a config and a state dict: strictly, and without
random initialisation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.stable_diffusion import bare_text
from zeroconv.checkpoints.strict import check_finite, check_strict
from zeroconv.checkpoints.typed import check_types
from zeroconv.checkpoints.vae import modern_vae
from zeroconv.errors import UserError
from zeroconv.layers.unfilled import unfilled
from zeroconv.stopping import stop_if_asked

State = Mapping[str, Tensor]
# tensors by name, made one by one → those that are kept
Keep = Callable[[Iterable[tuple[str, Tensor]]], dict[str, Tensor]]


def empty(make: Callable[[], nn.Module], where: object) -> Any:
    """A module whose parameters are on the meta device: shapes without memory. UserError where
    `make` fails.

    Check the config by `check_config` before: a number too large makes this run on and on.
    """
    try:
        with (
            unfilled(),
            _NoInitialValues(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", FutureWarning)  # diffusers' notes on its own classes
            return make().eval()
    except UserError:
        raise
    # diffusers, transformers and torch raise many kinds for what makes no sense
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(" .") or type(error).__name__
        raise UserError(
            f"{where}: its config describes no module that can be built ({reason})."
        ) from error


class _NoInitialValues(TorchFunctionMode):
    """Inside, initial values of tensors without memory are not computed. torch would do it in
    Python, and load its compiler for that.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) in ("torch.nn.init", "transformers.initialization"):
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def fill(
    module: Any,
    state: State,
    where: object,
    dtype: torch.dtype | None = None,
    keep: Keep = dict,
) -> Any:
    """Give an empty module these weights, in `dtype` (None: as stored), laid out for speed.

    One tensor is converted at a time, so that beside `state` only one copy of the weights is in
    memory. keep: takes the converted tensors one by one and returns those that the module gets.
    """
    check_strict(module.state_dict(), state, where)
    ready = ((name, laid_out(value, name, where, dtype)) for name, value in state.items())
    module.load_state_dict(keep(ready), assign=True)
    return module


def laid_out(
    value: Tensor, name: str, where: object, dtype: torch.dtype | None = None, copy: bool = False
) -> Tensor:
    """A weight in `dtype` (integers, and all for None, as they are); of a convolution as
    (O, H, W, C) in memory. copy: with memory of its own.

    Raises UserError where a number is too large for `dtype`.
    """
    stop_if_asked()
    made = value if dtype is None else converted({name: value}, dtype, where)[name]
    if made.ndim == 4:
        made = made.to(memory_format=torch.channels_last)
    return made.clone() if copy and made is value else made


def converted(state: State, dtype: torch.dtype, where: object) -> dict[str, Tensor]:
    """The weights in another dtype, integers as they are. UserError where a number is too large
    for it.
    """
    out = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()
    }
    if dtype == torch.float16:
        check_finite({key: value for key, value in state.items() if value.dtype != dtype}, where)
        for key, value in out.items():
            if (
                value.is_floating_point()
                and value.numel()
                and not bool(torch.isfinite(value.abs().amax()))
            ):
                raise UserError(
                    f"{where}: tensor {key[:100]} holds numbers that are too large for float16 "
                    "(above 65504); use bfloat16 or float32."
                )
    return out


def channels_last_(module: Any) -> Any:
    """Lay the weights of convolutions out as (O, H, W, C), in place. What such a convolution
    puts out is laid out so too, and goes into the next, or into a transformer block, without
    being copied. Modules for videos stay as they are.
    """
    if any(parameter.dim() == 5 for parameter in module.parameters()):
        return module
    return module.to(memory_format=torch.channels_last)


def build_unet(
    config: dict,
    state: State,
    where: object,
    dtype: torch.dtype | None = None,
    keep: Keep = dict,
) -> Any:
    return fill(empty_unet(config, where), state, where, dtype, keep)


def empty_unet(config: dict, where: object) -> Any:
    """A UNet2DConditionModel without memory. UserError for a config that describes none."""
    from diffusers import UNet2DConditionModel

    check_config(config, where)
    check_types(config, UNet2DConditionModel, where)
    return empty(lambda: UNet2DConditionModel.from_config(config), where)


def build_vae(config: dict, state: State, where: object, dtype: torch.dtype | None = None) -> Any:
    return fill(empty_vae(config, where), modern_vae(state), where, dtype)


def empty_vae(config: dict, where: object) -> Any:
    """An AutoencoderKL without memory. UserError for a config that describes none."""
    from diffusers import AutoencoderKL

    check_config(config, where)
    check_types(config, AutoencoderKL, where)
    return empty(lambda: AutoencoderKL.from_config(config), where)


def build_text_encoder(
    config: dict,
    state: State,
    where: object,
    dtype: torch.dtype | None = None,
    keep: Keep = dict,
) -> Any:
    """A CLIPTextModel, or the one with a projection of SDXL's second encoder, as the config's
    architecture says.
    """
    module = empty_text_encoder(config, where)
    return fill(module, _as_module_names(module, state), where, dtype, keep)


def empty_text_encoder(config: dict, where: object) -> Any:
    """A text encoder without memory. UserError for a config that describes none."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    check_config(config, where)
    projected = "CLIPTextModelWithProjection" in (config.get("architectures") or [])
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    if not isinstance(config.get("eos_token_id", 0), int):  # it is looked for in each prompt
        end = str(config["eos_token_id"])[:80]
        raise UserError(f"{where}: eos_token_id is {end!r} in its config, but it must be a number.")

    known = {
        key: value
        for key, value in config.items()
        if key not in ("dtype", "torch_dtype", "model_type")
    }
    return empty(lambda: kind(CLIPTextConfig(**known)), where)


def _as_module_names(module: Any, state: State) -> dict[str, Tensor]:
    """transformers 5 dropped the `text_model.` prefix of the plain model; what a file says depends
    on who wrote it.
    """
    names = {key.removeprefix("text_model."): key for key in module.state_dict()}
    return {names.get(key, key): value for key, value in bare_text(state).items()}


def check_unet(config: dict, state: State, where: object) -> None:
    """Raise UserError unless a UNet of this config has exactly these tensors."""
    check_strict(empty_unet(config, where).state_dict(), state, where)


def check_vae(config: dict, state: State, where: object) -> None:
    """Raise UserError unless an autoencoder of this config has exactly these tensors."""
    check_strict(empty_vae(config, where).state_dict(), modern_vae(state), where)


def check_text_encoder(config: dict, state: State, where: object) -> None:
    """Raise UserError unless a text encoder of this config has exactly these tensors."""
    module = empty_text_encoder(config, where)
    check_strict(module.state_dict(), _as_module_names(module, state), where)
