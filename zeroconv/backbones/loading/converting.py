"""`zeroconv convert` of a base: one file of the original layout ↔ a folder of diffusers' layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.backbones.loading.building import check_text_encoder, check_unet, check_vae, converted
from zeroconv.backbones.loading.config import HEADER, configs_of
from zeroconv.backbones.loading.file import read_base
from zeroconv.backbones.loading.folder import check_folder
from zeroconv.backbones.loading.tokenizer import tokenizers_for
from zeroconv.checkpoints.convert import check_target
from zeroconv.checkpoints.float8 import is_scaled, unscaled
from zeroconv.checkpoints.lora import BASE
from zeroconv.checkpoints.reading import read_config, read_state_dict, read_weights
from zeroconv.checkpoints.stable_diffusion import (
    AVERAGES,
    StableDiffusion,
    bare_text,
    describing,
    to_single_file,
)
from zeroconv.checkpoints.vae import modern_vae
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, atomic_write
from zeroconv.jsonfile import to_json

State = dict[str, Tensor]
Configs = dict[str, dict[str, Any]]

REST = "original_rest.safetensors"  # in a folder: what of the file no part of diffusers has
_TEXTS = ("text_encoder", "text_encoder_2")


def convert_base(source: str | os.PathLike, out: str | os.PathLike, to: str) -> Path:
    """Write a base in the other layout; there and back gives the same tensors.

    to "diffusers": a pipeline's folder, with tokenizers. to "original": one .safetensors file; its
    header holds the configs. Tensors keep their values and dtype, except scaled float8, which is
    multiplied out to float16 with a note. `out` is tried first; it may be absent, or what zeroconv
    wrote there before. Returns `out`. Raises UserError.
    """
    source, out = Path(source), Path(out)
    check_target(source, out, to)
    parts, configs = _read(source)
    _check(parts, configs, source)
    if to == "original":
        _write_file(parts, configs, source, out)
    else:
        _write_folder(parts, configs, source, out)
    return out


def _read(source: Path) -> tuple[StableDiffusion, Configs]:
    if source.is_dir():
        return _of_folder(source)
    parts, names = read_base(source)
    configs = configs_of(parts, source, names)
    if averages := sum(name.startswith(AVERAGES) for name in names):
        warnings.warn(
            f"{source} also holds {averages} tensors of averaged weights ({AVERAGES}), which are "
            "left out.",
            stacklevel=4,
        )
    if is_scaled(parts.unet):
        warnings.warn(
            f"the scaled float8 weights of {source} are written in float16.", stacklevel=4
        )
        parts.unet = converted(unscaled(parts.unet, source), torch.float16, source)
    return parts, configs


def _of_folder(folder: Path) -> tuple[StableDiffusion, Configs]:
    if (folder / BASE).is_file():
        raise UserError(f"{folder} is a LoRA that names its base, so it has no other layout.")
    check_folder(folder)
    texts = [name for name in _TEXTS if (folder / name).is_dir()]
    configs = {name: read_config(folder / name) for name in ("unet", "vae", *texts)}
    configs["scheduler"] = read_config(folder / "scheduler", "scheduler_config.json")
    states = {name: read_weights(folder / name) for name in ("unet", "vae", *texts)}
    rest = read_state_dict(folder / REST) if (folder / REST).is_file() else {}
    text = bare_text(states["text_encoder"])
    text_2 = bare_text(states["text_encoder_2"]) if "text_encoder_2" in states else None
    open_clip = text_2 is None and configs["text_encoder"].get("hidden_act") == "gelu"
    vae = modern_vae(states["vae"])
    parts = StableDiffusion(states["unet"], vae, text, open_clip, text_2, rest)
    return parts, configs


def _check(parts: StableDiffusion, configs: Configs, source: Path) -> None:
    """Raise UserError unless modules of these configs have exactly these tensors."""
    check_unet(configs["unet"], parts.unet, source)
    check_vae(configs["vae"], parts.vae, source)
    for name, state in zip(_TEXTS, (parts.text, parts.text_2), strict=True):
        if state is not None:
            check_text_encoder(configs[name], state, source)


def _write_file(parts: StableDiffusion, configs: Configs, source: Path, out: Path) -> None:
    with describing(source):
        state = to_single_file(parts)
    predicted = configs["scheduler"].get("prediction_type")
    if predicted == "v_prediction" and not parts.open_clip:
        state.setdefault("v_pred", torch.zeros(0))  # as trainers of such models mark them
        if configs["scheduler"].get("rescale_betas_zero_snr"):
            state.setdefault("ztsnr", torch.zeros(0))
    with atomic_write(out) as file:
        save_file(_packed(state), file, metadata={"format": "pt", HEADER: to_json(configs)})
    if not (out.parent / "tokenizer").is_dir():
        warnings.warn(
            f"{out} holds no tokenizer, as no such file does; where the hub is out of reach, copy "
            f"{source / 'tokenizer'} beside it.",
            stacklevel=3,
        )


def _write_folder(parts: StableDiffusion, configs: Configs, source: Path, out: Path) -> None:
    if source.is_dir():
        raise UserError(f"{source} is in diffusers' layout already; give --to original.")
    tokenizers = tokenizers_for(source, parts.open_clip, parts.xl)
    with atomic_folder(out) as folder:
        _write_part(folder / "unet", "UNet2DConditionModel", configs["unet"], parts.unet)
        _write_part(folder / "vae", "AutoencoderKL", configs["vae"], parts.vae)
        for name, state in zip(_TEXTS, (parts.text, parts.text_2), strict=True):
            if state is not None:
                # older versions of transformers want the prefix, newer ones take it
                named = {
                    key if key.startswith("text_projection") else f"text_model.{key}": value
                    for key, value in state.items()
                }
                _write_part(folder / name, None, configs[name], named, "model")
        for name, tokenizer in zip(("tokenizer", "tokenizer_2"), tokenizers, strict=False):
            tokenizer.save_pretrained(folder / name)
        _write_json(folder / "scheduler", "scheduler_config.json", configs["scheduler"])
        if parts.rest:
            save_file(_packed(parts.rest), folder / REST, metadata={"format": "pt"})
        _write_json(folder, "model_index.json", _index(parts, configs))


def _write_part(
    folder: Path,
    kind: str | None,
    config: Mapping[str, Any],
    state: State,
    name: str = "diffusion_pytorch_model",
) -> None:
    _write_json(folder, "config.json", {**({"_class_name": kind} if kind else {}), **config})
    save_file(_packed(state), folder / f"{name}.safetensors", metadata={"format": "pt"})


def _write_json(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    text = to_json(table, indent=2, sort_keys=True) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def _packed(state: Mapping[str, Tensor]) -> State:
    """Contiguous tensors with memory of their own, as safetensors wants them."""
    return {key: value.contiguous() for key, value in state.items()}


def _index(parts: StableDiffusion, configs: Configs) -> dict[str, Any]:
    """diffusers' list of a pipeline's parts."""
    xl = "XL" if parts.xl else ""
    kind = f"StableDiffusion{xl}Pipeline"
    if configs["unet"].get("in_channels") == 9:
        kind = f"StableDiffusion{xl}InpaintPipeline"
    if configs["unet"].get("in_channels") == 8:
        kind = f"StableDiffusion{xl}InstructPix2PixPipeline"
    text = ["transformers", "CLIPTextModel"]
    index: dict[str, Any] = {
        "_class_name": kind,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": text,
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", configs["scheduler"].get("_class_name", "DDIMScheduler")],
    }
    if parts.xl:
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,  # as SDXL was trained
        }
        return index
    nothing = [None, None]
    return index | {"safety_checker": nothing, "feature_extractor": nothing}
