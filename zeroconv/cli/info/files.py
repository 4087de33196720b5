"""What `zeroconv info` says about bases in one file, LoRAs and VAEs: read off names and shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def describe_base_file(path: Path) -> dict[str, Any]:
    """Facts about a base in one file, and what it needs beside itself. Nothing is loaded onto a
    device, and no tokenizer is looked for on the hub.

    Raises UserError for a file that is no whole base.
    """
    from zeroconv.backbones import UNetBackbone
    from zeroconv.backbones.loading.building import check_text_encoder, check_vae, empty_unet
    from zeroconv.backbones.loading.config import configs_of
    from zeroconv.backbones.loading.file import read_base
    from zeroconv.checkpoints.strict import check_strict

    parts, names = read_base(path, vae=False)
    configs = configs_of(parts, path, names)
    unet = empty_unet(configs["unet"], path)
    check_strict(unet.state_dict(), without_scales(parts.unet, path), path)
    check_text_encoder(configs["text_encoder"], without_scales(parts.text, path), path)
    if parts.text_2 is not None:
        check_text_encoder(configs["text_encoder_2"], parts.text_2, path)
    if parts.vae:
        check_vae(configs["vae"], parts.vae, path)

    backbone = UNetBackbone(unet, scheduler_config=configs["scheduler"], name=str(path))
    texts = {"text": parts.text, "text 2": parts.text_2 or {}}
    states = {"unet": parts.unet, "vae": parts.vae, **texts}
    return {
        "family": "SDXL" if parts.xl else "SD 2.x" if parts.open_clip else "SD 1.x",
        "parameters": {name: numbers(state) for name, state in states.items() if state},
        "stored_as": dtypes(tensor for state in states.values() for tensor in state.values()),
        "picture_size": (configs["unet"]["sample_size"] or 64) * 8,
        "latent": {"channels": backbone.latent_channels, "pixels": 8},
        "prediction": backbone.prediction_type,
        "zero_snr": bool(configs["scheduler"].get("rescale_betas_zero_snr")) or None,
        "connections": [
            {"name": c.name, "channels": c.channels, "scale": c.scale} for c in backbone.connections
        ],
        "needs": "; ".join(_needs(path, parts, configs["unet"]["in_channels"])) or None,
    }


def _needs(path: Path, parts: Any, reads: int) -> list[str]:
    from zeroconv.backbones.encoder import PICTURE_CHANNELS
    from zeroconv.backbones.loading.tokenizer import CLIP, SD2

    needs = []
    if not parts.vae:
        needs.append("a VAE, which is not in the file: --vae FILE")
    if not (path.parent / "tokenizer").is_dir():
        name = SD2 if parts.open_clip else CLIP
        needs.append(f"a tokenizer: {path.parent / 'tokenizer'}, else {name} of the hub")
    if reads in PICTURE_CHANNELS:
        needs.append(f"pictures: it reads {PICTURE_CHANNELS[reads]}")
    return needs


def _few_steps(few: Any) -> str:
    """What a LoRA for few steps is made for, and how that is known."""
    return f"{few.name}{' by its name' if few.guessed else ''}: {few.words()}"


def describe_lora(path: Path) -> dict[str, Any]:
    """Facts about a LoRA: its kinds of changes, its parts, and which family of bases it is for."""
    from zeroconv.checkpoints.lora import read_lora

    lora = read_lora(path)
    changes = [(name, change) for part in lora.parts.values() for name, change in part.items()]
    kinds = Counter(_kind_of(change) for _, change in changes)
    return {
        "changes": {kind: f"of {count} weights" for kind, count in kinds.items()},
        "parts": {part: f"{len(modules)} weights" for part, modules in lora.parts.items()},
        "family": _family(lora.parts),
        **({} if lora.few_steps is None else {"few_steps": _few_steps(lora.few_steps)}),
        "needs": "a base: --lora FILE, FILE:0.8 or FILE=unet:0.8,text:0.5",
    }


# diffusion transformers, by the names of their blocks
_FLOWS = {
    "FLUX.1": r"^(double_blocks|single_blocks|single_transformer_blocks)_",
    "SD 3": r"^joint_blocks_",
    "Qwen-Image": r"^transformer_blocks_\d+_(img|txt)_(mod|mlp)_",
    "Z-Image": r"^(layers|noise_refiner|context_refiner)_\d+_(attention|feed_forward)_",
}
_KINDS = {
    "LowRank": "LoRA",
    "Hadamard": "LoHa",
    "Kronecker": "LoKr",
    "Difference": "whole difference",
}


def _kind_of(change: Any) -> str:
    inner = getattr(change, "change", None)
    name = _KINDS[type(inner if inner is not None else change).__name__]
    return f"DoRA ({name})" if inner is not None else name


def _family(parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """By names of blocks, a second text encoder, or how many numbers the attention reads of a text
    token.
    """
    from zeroconv.checkpoints.lora import LowRank

    names = "\n".join(parts.get("unet", {})).replace(".", "_")
    for family, mark in _FLOWS.items():
        if re.search(mark, names, re.MULTILINE):
            return family
    if "text_encoder_2" in parts:
        return "SDXL"
    widths = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
    for name, change in parts.get("unet", {}).items():
        change = getattr(change, "change", change)
        reads_text = name.replace("_", ".").endswith(("attn2.to.k", "attn2.to.v"))
        if reads_text and isinstance(change, LowRank):
            return widths.get(change.down.shape[1])
    return None


def describe_vae(path: Path) -> dict[str, Any]:
    """Facts about an autoencoder."""
    from zeroconv.backbones.loading.building import check_vae
    from zeroconv.checkpoints.infer import infer_vae_config
    from zeroconv.checkpoints.stable_diffusion import describing
    from zeroconv.checkpoints.vae import read_vae

    config, state = read_vae(path)
    with describing(path):
        known = config or infer_vae_config(state)
    check_vae(known, state, path)
    return {
        "parameters": {"vae": numbers(state)},
        "stored_as": dtypes(state.values()),
        "latent": {"channels": known.get("latent_channels", 4), "pixels": _pixels(known)},
        "scaling_factor": known.get("scaling_factor", 0.18215) if config else "its base's",
        "needs": "a base: --vae FILE",
    }


def describe_tiny_vae(path: Path) -> dict[str, Any]:
    """Facts about a small decoder."""
    from zeroconv.backbones.loading.tiny_vae import build_tiny_vae, pixels_of

    tiny = build_tiny_vae(path)
    return {
        "parameters": {"vae": numbers(tiny.state_dict())},
        "stored_as": dtypes(tiny.state_dict().values()),
        "latent": {"channels": tiny.config.latent_channels, "pixels": pixels_of(tiny)},
        "needs": "a base: --tiny-vae PATH --fast vae=tiny",
    }


def _pixels(config: Mapping[str, Any]) -> int:
    return 2 ** (len(config["block_out_channels"]) - 1)


def without_scales(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    from zeroconv.checkpoints.float8 import unscaled

    return unscaled(state, path)


def numbers(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for key, value in state.items() if not key.endswith("_scale"))


def dtypes(tensors: Iterable[Tensor]) -> str:
    """Which kinds of numbers, those with most first."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return ", ".join(name for name, _ in counts.most_common())
