"""A diffusion transformer in a folder of diffusers' pipeline layout: SD 3, FLUX.1, Qwen-Image,
Z-Image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zeroconv.backbones.building import build_text_encoder
from zeroconv.backbones.building_flow import build_part, build_qwen, build_t5
from zeroconv.backbones.flux import FluxBackbone
from zeroconv.backbones.loading_request import Request
from zeroconv.backbones.loading_tokenizer import load_any_tokenizer, load_tokenizer
from zeroconv.backbones.loading_vae import another_vae, vae_of_base
from zeroconv.backbones.packing import PATCH
from zeroconv.backbones.protocol import Defaults
from zeroconv.backbones.qwen import QwenBackbone
from zeroconv.backbones.sd3 import SD3Backbone
from zeroconv.backbones.transformer import TransformerBackbone
from zeroconv.backbones.zimage import ZImageBackbone
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError


@dataclass(frozen=True)
class Part:
    """A text encoder: its folder, its tokenizer's, and how the two are built."""

    folder: str
    tokenizer: str
    build: Callable[..., Any]
    read_tokenizer: Callable[[Path], Any]
    optional: bool = False


@dataclass(frozen=True)
class Family:
    backbone: type[TransformerBackbone]
    texts: tuple[Part, ...]
    video_vae: bool = False


def _clip(number: str = "") -> Part:
    return Part(f"text_encoder{number}", f"tokenizer{number}", build_text_encoder, load_tokenizer)


def _t5(number: str, optional: bool = False) -> Part:
    folder, tokenizer = f"text_encoder{number}", f"tokenizer{number}"
    return Part(folder, tokenizer, build_t5, load_any_tokenizer, optional)


def _qwen(kind: str) -> Part:
    build = partial(build_qwen, kind=kind)
    return Part("text_encoder", "tokenizer", build, load_any_tokenizer)


# by the class of the transformer
FAMILIES = {
    "SD3Transformer2DModel": Family(SD3Backbone, (_clip(), _clip("_2"), _t5("_3", True))),
    "FluxTransformer2DModel": Family(FluxBackbone, (_clip(), _t5("_2"))),
    "QwenImageTransformer2DModel": Family(QwenBackbone, (_qwen("qwen2_5_vl"),), video_vae=True),
    "ZImageTransformer2DModel": Family(ZImageBackbone, (_qwen("qwen3"),)),
}


def load_flow(
    folder: Path, request: Request, defaults: Defaults | None = None
) -> TransformerBackbone:
    """Every part from its own folder; `request.variant` says which weights. Raises UserError."""
    kind, family = family_of(folder)
    _check_asked(folder, request)
    _check_parts(folder, family, request)
    scheduler = read_config(folder / "scheduler", "scheduler_config.json")
    check_config(scheduler, folder / "scheduler")
    transformer = request.built("unet", _part(folder / "transformer", _diffusers(kind), request))
    texts = [part for part in family.texts if (folder / part.folder).is_dir()]
    encoders = [request.built("text", _text(folder / part.folder, part, request)) for part in texts]
    return family.backbone(
        transformer,
        _vae(folder / "vae", family, transformer, request),
        scheduler_config=scheduler,
        name=request.name,
        defaults=defaults,
        text_encoders=encoders,
        tokenizers=[part.read_tokenizer(folder / part.tokenizer) for part in texts],
    )


def family_of(folder: Path) -> tuple[str, Family]:
    """The class of a folder's transformer and what belongs to it. Raises UserError for one that
    zeroconv does not run.
    """
    named = str(read_config(folder / "transformer").get("_class_name") or "")
    if named not in FAMILIES:
        raise UserError(
            f"{folder} holds a {named[:80] or 'transformer without a name'}, which zeroconv does "
            "not run; of transformers it runs SD 3, FLUX.1, Qwen-Image and Z-Image."
        )
    return named, FAMILIES[named]


def _diffusers(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _check_asked(folder: Path, request: Request) -> None:
    if request.loras.given:
        raise UserError(
            f"{folder} is a diffusion transformer, into which zeroconv merges no LoRA; leave the "
            "LoRA out."
        )
    if request.prediction_type is not None:
        raise UserError(
            f"{folder} is a flow-matching model, which predicts a velocity; leave prediction_type "
            "out."
        )


def _check_parts(folder: Path, family: Family, request: Request) -> None:
    names = ["transformer", "scheduler", *([] if request.vae else ["vae"])]
    for part in family.texts:
        names += [] if part.optional else [part.folder]
        if not part.optional or (folder / part.folder).is_dir():
            names.append(part.tokenizer)
    if missing := [name for name in names if not (folder / name).is_dir()]:
        lacking = ", ".join(f"{name}/" for name in missing)
        raise UserError(f"the model in {folder} is incomplete: it lacks {lacking}.")


def _part(folder: Path, kind: Any, request: Request) -> Any:
    config = read_config(folder)
    check_config({k: v for k, v in config.items() if not k.startswith("_")}, folder)
    check_types(config, kind, folder)
    weights = read_weights(folder, variant=request.variant)
    return build_part(kind, config, weights, folder, request.dtype)


def _text(folder: Path, part: Part, request: Request) -> Any:
    weights = read_weights(folder, variant=request.variant)
    return part.build(read_config(folder), weights, folder, request.dtype)


def _vae(folder: Path, family: Family, transformer: Any, request: Request) -> Any:
    if family.video_vae:
        if request.vae is not None:
            raise UserError(f"{request.name} takes no other VAE; leave the vae out.")
        return _part(folder, _diffusers("AutoencoderKLQwenImage"), request)
    config = read_config(folder) if (folder / "config.json").exists() or not request.vae else {}
    if request.vae is not None:
        packed = family.backbone is FluxBackbone
        channels = transformer.config.in_channels // (PATCH**2 if packed else 1)
        return another_vae(request.vae, config, channels, request.dtype)
    return vae_of_base(config, read_weights(folder, variant=request.variant), folder, request.dtype)
