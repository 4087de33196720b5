"""A base in a folder of diffusers' pipeline layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from zeroconv.backbones.encoder import check_latents
from zeroconv.backbones.loading.building import build_text_encoder, build_unet
from zeroconv.backbones.loading.flow_folder import load_flow_folder
from zeroconv.backbones.loading.locate import ASSETS
from zeroconv.backbones.loading.request import Request
from zeroconv.backbones.loading.tokenizer import load_tokenizer
from zeroconv.backbones.loading.vae import another_vae, vae_of_base
from zeroconv.backbones.protocol import Defaults
from zeroconv.backbones.unet import UNetBackbone
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.identify import kind_of_config
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def load_folder(folder: Path, request: Request) -> UNetBackbone:
    """Every part from its own folder; `request.variant` says which weights."""
    if (folder / "transformer" / "config.json").is_file():
        defaults = _defaults_of(folder)
        flow = load_flow_folder(folder, request, defaults if defaults == PLAYROOM else None)
        return cast(UNetBackbone, flow)  # as callers know it, most of which ask for no UNet
    request.check_no_parts(folder)
    check_folder(folder, tuple(p for p in PARTS if p != "vae" or request.vae is None))
    unet, variant, dtype = folder / "unet", request.variant, request.dtype
    scheduler = read_config(folder / "scheduler", "scheduler_config.json")
    check_schedule(scheduler, folder / "scheduler")
    check_latents(unet_config := read_config(unet), folder)
    if request.prediction_type is not None:
        scheduler["prediction_type"] = request.prediction_type

    texts = [sub for sub in (folder / "text_encoder", folder / "text_encoder_2") if sub.is_dir()]
    loras = request.loras
    loras.check_parts(len(texts))
    weights = loras.merged(read_weights(unet, variant=variant), "unet")
    return UNetBackbone(
        request.built("unet", build_unet(unet_config, weights, unet, dtype, request.keep)),
        _vae(folder / "vae", unet_config, request),
        [
            request.built(
                "text",
                build_text_encoder(
                    read_config(sub),
                    loras.merged(read_weights(sub, variant=variant), sub.name),
                    sub,
                    dtype,
                    request.keep,
                ),
            )
            for sub in texts
        ],
        [load_tokenizer(folder / sub.name.replace("text_encoder", "tokenizer")) for sub in texts],
        scheduler,
        name=request.name,
        defaults=_defaults_of(folder),
        zero_empty_negative=_zeroes_empty_negative(folder),
    )


def _zeroes_empty_negative(folder: Path) -> bool:
    """What model_index.json says; an SDXL pipeline's is true where it says nothing (diffusers)."""
    if not (folder / "model_index.json").is_file():
        return False
    index = read_config(folder, "model_index.json")
    xl = str(index.get("_class_name") or "").startswith("StableDiffusionXL")
    return xl and bool(index.get("force_zeros_for_empty_prompt", True))


def _vae(folder: Path, unet_config: dict, request: Request) -> Any:
    config = read_config(folder) if (folder / "config.json").exists() or not request.vae else {}
    if request.vae is not None:
        channels = unet_config.get("out_channels", 4)
        return another_vae(request.vae, config, channels, request.dtype)
    return vae_of_base(config, read_weights(folder, variant=request.variant), folder, request.dtype)


def check_schedule(config: dict, where: Path) -> None:
    """Raise UserError for what no scheduler can compute with."""
    from diffusers import DDIMScheduler

    check_config(config, where)
    check_types(config, DDIMScheduler, where)

    spacing, betas = config.get("timestep_spacing", "leading"), config.get("trained_betas")
    if spacing not in ("linspace", "leading", "trailing"):
        raise UserError(
            f"{where}: timestep_spacing is {str(spacing)[:80]!r}; it is linspace, leading or "
            "trailing."
        )
    if betas is not None and len(betas) != config.get("num_train_timesteps", 1000):
        raise UserError(
            f"{where}: trained_betas has {len(betas):,} entries, but it needs one for each of the "
            "num_train_timesteps."
        )


# what the figures of the playroom are published with
PLAYROOM = Defaults("cond", 4.0)


def _defaults_of(folder: Path) -> Defaults:
    """The playroom's for a base that reads the playroom's words, also one trained on from it."""
    words = _vocabulary(folder)
    return PLAYROOM if words and words == _vocabulary(ASSETS / "playroom") else Defaults()


def _vocabulary(folder: Path) -> dict[str, int] | None:
    try:
        file = folder / "tokenizer" / "tokenizer.json"
        return json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None  # it has none of this form, or a damaged one, which `load_tokenizer` tells


def check_folder(folder: Path, parts: tuple[str, ...] = PARTS) -> None:
    """Raise UserError unless a folder holds these parts of a Stable Diffusion."""
    missing = [part for part in parts if not (folder / part).is_dir()]
    if not missing:
        return
    if len(missing) == len(parts) and (folder / "config.json").is_file():
        config = read_config(folder)
        kind, named = kind_of_config(config), config.get("_class_name") or config.get("model_type")
        raise UserError(
            f"{folder} holds {f'a {named}' if named else kind.what}, not a whole model "
            f"({kind.what}); give the folder with unet/, vae/, text_encoder/."
        )
    if (folder / "model_index.json").is_file():
        _check_pipeline(folder)
    if len(missing) == len(parts):
        raise UserError(
            f"{folder} is no model folder: it has none of {', '.join(f'{p}/' for p in PARTS)}."
        )
    raise UserError(
        f"the model in {folder} is incomplete: it lacks {', '.join(f'{p}/' for p in missing)}."
    )


def _check_pipeline(folder: Path) -> None:
    """Raise UserError for a whole model of another family than Stable Diffusion 1, 2 and XL."""
    named = str(read_config(folder, "model_index.json").get("_class_name") or "")
    if (folder / "transformer").is_dir() or (
        named and not named.startswith(("StableDiffusion", "LatentConsistency"))
    ):
        raise UserError(
            f"{folder} holds a {named or 'model with a transformer'}, which zeroconv does not run "
            "yet; it runs Stable Diffusion 1.x, 2.x, XL and 3, FLUX.1, Chroma, Qwen-Image "
            "and Z-Image."
        )
