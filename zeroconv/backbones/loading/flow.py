"""A diffusion transformer put together from its parts: SD 3, FLUX.1, Chroma, Qwen-Image,
Z-Image.

Where the parts come from is another matter: a folder (`flow_folder.py`), or a file and what
stands beside it (`flow_file.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from zeroconv.backbones.flow.chroma import ChromaBackbone
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.packing import PATCH
from zeroconv.backbones.flow.qwen import QwenBackbone
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.flow.zimage import ZImageBackbone
from zeroconv.backbones.loading.building import build_text_encoder, build_vae
from zeroconv.backbones.loading.building_flow import build_part, build_qwen, build_t5
from zeroconv.backbones.loading.request import Request
from zeroconv.backbones.loading.tokenizer import load_any_tokenizer, load_tokenizer
from zeroconv.backbones.loading.vae import another_vae
from zeroconv.backbones.protocol import Defaults
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.flow.video_vae import read_video_vae
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError


@dataclass(frozen=True)
class Part:
    """A text encoder: its folder, its tokenizer's, and how the two are built."""

    kind: str  # of checkpoints/flow/text_files.py
    folder: str
    tokenizer: str
    build: Callable[..., Any]
    read_tokenizer: Callable[[Path], Any]
    optional: bool = False
    lora: str = "text_encoder"  # what LoRAs call it


@dataclass(frozen=True)
class Family:
    backbone: type[TransformerBackbone]
    texts: tuple[Part, ...]
    # of its VAE, what one file's weights do not show
    vae: Mapping[str, Any]
    video_vae: bool = False


@dataclass
class Weights:
    """A part as it is read: its config, its tensors, and where from."""

    config: dict[str, Any]
    state: Mapping[str, Tensor]
    where: Path


class Source(Protocol):
    """Where the parts come from. Each is read when it is asked for."""

    def check(self, family: Family, request: Request) -> None:
        """Raise UserError where something is missing, before anything is read."""

    def transformer(self, request: Request) -> Weights: ...

    def text(self, part: Part, request: Request) -> Weights | None: ...

    def tokenizer(self, part: Part) -> Any: ...

    def vae(self, family: Family, request: Request) -> Weights:
        """The base's own."""
        ...

    def vae_config(self) -> dict[str, Any] | None:
        """Of the base's own, where it has one."""

    def scheduler(self) -> dict[str, Any] | None:
        """None: the family's."""


def _clip(kind: str, number: str = "") -> Part:
    folder, tokenizer = f"text_encoder{number}", f"tokenizer{number}"
    return Part(kind, folder, tokenizer, build_text_encoder, load_tokenizer, lora=folder)


def _t5(number: str, optional: bool = False) -> Part:
    folder, tokenizer = f"text_encoder{number}", f"tokenizer{number}"
    return Part("t5", folder, tokenizer, build_t5, load_any_tokenizer, optional, "text_encoder_3")


def _qwen(kind: str) -> Part:
    build = partial(build_qwen, kind=kind)
    return Part(kind, "text_encoder", "tokenizer", build, load_any_tokenizer)


_FLUX_VAE = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024}
_SD3_VAE = {"scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024}

# by the class of the transformer
FAMILIES = {
    "SD3Transformer2DModel": Family(
        SD3Backbone, (_clip("clip_l"), _clip("clip_g", "_2"), _t5("_3", True)), _SD3_VAE
    ),
    "FluxTransformer2DModel": Family(FluxBackbone, (_clip("clip_l"), _t5("_2")), _FLUX_VAE),
    "ChromaTransformer2DModel": Family(ChromaBackbone, (_t5(""),), _FLUX_VAE),
    "QwenImageTransformer2DModel": Family(QwenBackbone, (_qwen("qwen2_5_vl"),), {}, video_vae=True),
    "ZImageTransformer2DModel": Family(ZImageBackbone, (_qwen("qwen3"),), _FLUX_VAE),
}


def assemble(
    source: Source, kind: str, request: Request, where: Path, defaults: Defaults | None = None
) -> TransformerBackbone:
    """The base of a transformer of diffusers' class `kind`, from its parts. Raises UserError."""
    family = FAMILIES[kind]
    _check_asked(request, where)
    request.loras.check_names(["unet", *(part.lora for part in family.texts)])
    source.check(family, request)
    scheduler = source.scheduler()
    if scheduler is not None:
        check_config(scheduler, where)
    held = replace(request, dtype=request.flow_dtype or request.dtype)
    transformer = _transformer(source, kind, held)
    encoders, tokenizers = [], []
    for part in family.texts:
        if (weights := source.text(part, held)) is not None:
            tokenizers.append(source.tokenizer(part))
            encoders.append(request.built("text", _text(part, weights, held)))
    request.loras.check_names(["unet", *(part.lora for part in family.texts[: len(encoders)])])
    return family.backbone(
        transformer,
        _vae(source, family, transformer, request),
        scheduler_config=scheduler,
        name=request.name,
        defaults=defaults,
        text_encoders=encoders,
        tokenizers=tokenizers,
    )


def _transformer(source: Source, kind: str, request: Request) -> Any:
    import diffusers

    weights, network = source.transformer(request), getattr(diffusers, kind)
    _check(weights, network)
    state = request.loras.merged(weights.state, "unet")
    built = build_part(network, weights.config, state, weights.where, request.dtype, request.keep)
    return request.built("unet", built)


def _text(part: Part, weights: Weights, request: Request) -> Any:
    state = unscaled(weights.state, weights.where, request.dtype)
    merged = request.loras.merged(state, part.lora)
    return part.build(weights.config, merged, weights.where, request.dtype)


def _check(weights: Weights, network: Any) -> None:
    plain = {k: v for k, v in weights.config.items() if not k.startswith("_")}
    check_config(plain, weights.where)
    check_types(plain, network, weights.where)


def _check_asked(request: Request, where: Path) -> None:
    if request.prediction_type is not None:
        raise UserError(
            f"{where} is a flow-matching model, which predicts a velocity; leave prediction_type "
            "out."
        )


def _vae(source: Source, family: Family, transformer: Any, request: Request) -> Any:
    if family.video_vae:
        import diffusers

        if request.vae is not None:
            weights = Weights(*read_video_vae(request.vae), request.vae)
        else:
            weights = source.vae(family, request)
        _check(weights, diffusers.AutoencoderKLQwenImage)
        state = unscaled(weights.state, weights.where, request.dtype)
        return build_part(
            diffusers.AutoencoderKLQwenImage, weights.config, state, weights.where, request.dtype
        )
    config, packed = transformer.config, issubclass(family.backbone, FluxBackbone)
    # FLUX Control and Fill read more than a latent, and give one
    given = (config.out_channels if packed else None) or config.in_channels
    channels = given // (PATCH**2 if packed else 1)
    if request.vae is not None:
        base = source.vae_config() or family.vae
        return another_vae(request.vae, base, channels, request.dtype)
    weights = source.vae(family, request)
    if (has := weights.config.get("latent_channels", 4)) != channels:
        raise UserError(
            f"the VAE {weights.where} has latents of {has} channels, but the base's have "
            f"{channels}; it belongs to another family of bases."
        )
    state = unscaled(weights.state, weights.where, request.dtype)
    return build_vae(weights.config, state, weights.where, request.dtype)
