"""`load_backbone`: "playroom", a diffusers folder, a hub id, or one weights file of Stable
Diffusion 1.x, 2.x or XL; with LoRAs merged in, and with another autoencoder if asked for.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch

from zeroconv.backbones.loading.file import load_file
from zeroconv.backbones.loading.folder import load_folder
from zeroconv.backbones.loading.locate import locate
from zeroconv.backbones.loading.parts import find_parts
from zeroconv.backbones.loading.request import Loras, Request
from zeroconv.backbones.loading.tiny_vae import load_tiny_vae
from zeroconv.backbones.loading.vae import find_vae
from zeroconv.backbones.offload import Offload, check_offload
from zeroconv.backbones.unet import UNetBackbone
from zeroconv.checkpoints.lora import BASE, FILE, Strength, parse_lora
from zeroconv.checkpoints.reading import read_config, weights_file
from zeroconv.errors import UserError
from zeroconv.layers.offload import Spill
from zeroconv.layers.quantised import Bits, check_quantise, quantise_

PARTS = ("unet", "transformer", "vae", "text_encoder", "tokenizer", "scheduler")
_PATTERNS = ("model_index.json", BASE, FILE, *(f"{part}*/*" for part in PARTS))

# what of a part is fetched beside its weights, and the weights of one variant
_SMALL = ("json", "txt", "model")
_WEIGHED = ("unet", "transformer", "vae", "text_encoder")
_VARIANT = re.compile(r"[\w-]{1,64}")
_OF_VARIANT = ("*.{0}.safetensors", "*.{0}-*.safetensors", "*.{0}.bin", "*.{0}-*.bin")

Given = str | os.PathLike | tuple[str | os.PathLike, Strength]


def load_backbone(
    x: str | os.PathLike,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    prediction_type: str | None = None,
    lora: str | os.PathLike | Sequence[Given] = (),
    vae: str | os.PathLike | None = None,
    tiny_vae: str | os.PathLike | None = None,
    parts: str | os.PathLike | Sequence[str | os.PathLike] = (),
    revision: str | None = None,
    variant: str | None = None,
    subfolder: str | None = None,
    offload: str = "none",
    quantise: str | None = None,
    vae_tiling: bool = False,
    flow_dtype: torch.dtype | None = None,
) -> UNetBackbone:
    """Load a frozen Stable Diffusion, FLUX.1, Qwen-Image or Z-Image; float32 on the CPU unless
    asked otherwise.

    x: "playroom" (embedded), a folder in diffusers' pipeline layout, a hub id `owner/name`, one
    weights file in the original layout or in ComfyUI's, or a folder with a LoRA and a lora.json
    that names its base ("playroom-pencil" is one).
    lora: files, folders or hub ids to merge into the weights (LoRA, LoHa, LoKr, DoRA), in
    diffusers', peft's, kohya's or LyCORIS's layout; each with ":0.8" behind it or as a pair
    (file, 0.8) for another strength than 1, or (file, {"unet": 0.8, "text": 0.5}).
    vae: another autoencoder: a file, a folder or a hub id. tiny_vae: a small decoder beside it
    (TAESD's layouts), which `generate(fast="vae=tiny")` decodes pictures by.
    parts: of a diffusion transformer in one file, where its text encoders, tokenizers, VAE and
    noise schedule are, as far as the file lacks them: folders or hub ids in diffusers' layout,
    single files, or a folder with ComfyUI's names of those. What is not given is looked for beside
    the file.
    revision: a branch, tag or commit of a hub id. variant: which weights of a folder or hub id,
    "fp16" for `model.fp16.safetensors`. subfolder: where in a folder or hub id the base is.
    prediction_type overrides what the model's files say, see `single_file_scheduler`.
    offload: "model" has the text encoders, the UNet with its controls, or the VAE on the device,
    whichever is needed; "group" the UNet and its controls block by block. Where the processor
    computes, what is not needed lies in a temporary file. quantise: "int8" or "fp8" for the UNet's
    weights, computed with in `dtype`. vae_tiling: the VAE works in overlapping tiles. flow_dtype:
    of a diffusion transformer and its text encoders, whose VAE keeps `dtype`.
    Nothing is ever unpickled but tensors. Raises UserError, one sentence, for whatever is wrong.
    """
    if x is None or not str(x):
        raise UserError(
            "no backbone was named; give 'playroom', a folder, a hub id or a .safetensors file."
        )
    check_offload(offload)
    check_quantise(quantise)
    spilled = Spill() if offload != "none" and torch.device(device).type == "cpu" else None
    mover = None if offload == "none" else Offload(offload, device, spilled)
    path, below = _base_of(_fetched(os.fspath(x), revision, variant, subfolder))
    request = Request(
        name=str(x),
        dtype=dtype or torch.float32,
        prediction_type=prediction_type,
        loras=Loras([*below, *_given(lora)]),
        vae=find_vae(vae),
        parts=find_parts([parts] if isinstance(parts, str | os.PathLike) else parts),
        variant=variant,
        built=partial(_built, mover, quantise),
        keep=dict if spilled is None else spilled.take,
        flow_dtype=flow_dtype,
    )
    load = load_folder if path.is_dir() else load_file
    backbone = load(path, request)
    backbone.to(None if mover else device, None if flow_dtype else request.dtype)
    backbone.vae_tiling, backbone.quantised = vae_tiling, quantise
    if isinstance(backbone, UNetBackbone):
        _use_few_steps(backbone, request.loras)

    if mover is not None:
        mover.hold("vae", backbone.vae)
        backbone.offload = mover
    if tiny_vae is not None:
        backbone.tiny_vae = load_tiny_vae(tiny_vae, backbone)
    return backbone


def _use_few_steps(backbone: UNetBackbone, loras: Loras) -> None:
    """Let the base have the usual sampler and guidance of a LoRA that makes pictures in few steps.
    A note where the LoRA is known by its name alone.
    """
    if not loras.few_steps:
        return
    few, *others = loras.few_steps
    for other in others:
        if other.words() != few.words():
            warnings.warn(
                f"two LoRAs for few steps are merged: {few.where} ({few.words()}) and "
                f"{other.where} ({other.words()}); sampler and cfg are taken from the first.",
                stacklevel=3,
            )
    if few.guessed:
        warnings.warn(
            f"{few.where} is taken for {few.name} by its name, which is made for {few.words()}; "
            "sampler and cfg are these where nothing else is asked for, steps are not.",
            stacklevel=3,
        )
    backbone.few_steps = few
    if not backbone.reads_guidance:
        backbone.defaults = replace(backbone.defaults, cfg=few.cfg[0])


def _built(mover: Offload | None, quantise: str | None, part: str, module: Any) -> Any:
    """A part in fewer bits, and handed to the mover, before the next one is read."""
    module.requires_grad_(False)
    if part == "unet" and quantise is not None:
        quantise_(module, cast(Bits, quantise))
    if mover is not None:
        mover.hold(part, module)
    return module


def _fetched(x: str, revision: str | None, variant: str | None, subfolder: str | None) -> Path:
    """The folder or file, fetched from the hub if need be."""
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise UserError(f"the variant {variant[:80]!r} is no word as in model.fp16.safetensors.")
    inside = _inside(subfolder)
    path = locate(x, "backbone", _patterns(inside, variant), revision)
    folder = path / inside if inside else path
    if inside and not os.path.isdir(folder):
        raise UserError(f"{path} has no folder {inside[:200]!r}; check the subfolder.")
    if variant is None:
        return folder
    if folder.is_file():
        raise UserError(f"{folder} is one file, so it has no variant {variant!r}; leave it out.")

    weighed = [p for p in folder.iterdir() if p.name.startswith(_WEIGHED)]
    if not any(weights_file(part, variant=variant) for part in weighed):
        raise UserError(
            f"{folder} has no weights of the variant {variant!r} (such as "
            f"unet/diffusion_pytorch_model.{variant}.safetensors); leave the variant out."
        )
    lacking = [p for p in weighed if not (weights_file(p, variant=variant) or weights_file(p))]
    if lacking and not os.path.exists(os.path.expanduser(x)):
        # some parts have plain weights only, which were not fetched with the variant's
        wanted = tuple(f"{inside}/{p.name}/*" if inside else f"{p.name}/*" for p in lacking)
        locate(x, "backbone", wanted, revision)
    return folder


def _inside(subfolder: str | None) -> str:
    """A relative path that stays below; empty for none. UserError otherwise."""
    if subfolder is None:
        return ""
    parts = PurePosixPath(subfolder.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in subfolder or not parts.parts:
        raise UserError(
            f"the subfolder {subfolder[:200]!r} is not below the model; give a relative path "
            "without '..'."
        )
    return str(parts)


def _patterns(inside: str, variant: str | None) -> tuple[str, ...]:
    """What is fetched from the hub."""
    wanted = list(_PATTERNS)
    if variant is not None:
        ends = [f"*.{suffix}" for suffix in _SMALL] + [form.format(variant) for form in _OF_VARIANT]
        wanted = ["model_index.json", *(f"{part}*/{end}" for part in PARTS for end in ends)]
    return tuple(f"{inside}/{pattern}" if inside else pattern for pattern in wanted)


def _given(lora: Any) -> list[tuple[str | os.PathLike, Strength]]:
    pair = isinstance(lora, tuple) and len(lora) == 2 and isinstance(lora[1], float | int | Mapping)
    entries = [lora] if pair or isinstance(lora, str | os.PathLike) else list(lora)
    return [entry if isinstance(entry, tuple) else parse_lora(entry) for entry in entries]


def _base_of(path: Path, above: tuple[Path, ...] = ()) -> tuple[Path, list[tuple[Path, float]]]:
    """A folder that is a LoRA and names its base → the base's path and that LoRA; any other path as
    it is.
    """
    if not (path / BASE).is_file():
        return path, []
    if path.resolve() in above:
        raise UserError(
            f"{path / BASE} names, in the end, itself as its base; write the base it was trained "
            "on into it."
        )
    note = read_config(path, BASE)
    base, weight = note.get("base"), note.get("weight", 1.0)
    if not isinstance(base, str) or not base or not isinstance(weight, int | float):
        raise UserError(
            f'{path / BASE} names no base; write {{"base": "playroom", "weight": 1.0}} into it.'
        )
    beside = path.parent / base  # as embedded models stand, or a base's folder beside its LoRA's
    path_below = beside if beside.exists() else locate(base, "backbone", _PATTERNS)
    path_below, below = _base_of(path_below, (*above, path.resolve()))
    return path_below, [*below, (path, float(weight))]
