"""A base's shapes: its modules without memory, from configs and a file's header."""

from __future__ import annotations

import os
from pathlib import Path

from zeroconv.backbones.loading.building import empty_text_encoder, empty_unet, empty_vae
from zeroconv.backbones.loading.config import configs_of
from zeroconv.backbones.loading.file import is_weights, read_base
from zeroconv.backbones.loading.folder import check_folder
from zeroconv.backbones.loading.locate import locate
from zeroconv.backbones.unet import UNetBackbone
from zeroconv.checkpoints.flow.file import is_flow
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.lora import BASE
from zeroconv.checkpoints.reading import read_config
from zeroconv.errors import UserError

_CONFIGS = ("model_index.json", "*/*.json")


def load_empty(x: str | os.PathLike) -> UNetBackbone:
    """A backbone whose parameters are on the meta device, without tokenizers.

    x: as `load_backbone` takes it. Of a hub id the configs alone are fetched. Raises UserError for
    what is no base.
    """
    path = locate(os.fspath(x), "backbone", _CONFIGS)
    if (path / "transformer").is_dir() or (is_weights(path) and is_flow(identify(path))):
        raise UserError(
            f"{path} is a diffusion transformer, whose memory is not calculated; it is for Stable "
            "Diffusion 1.x, 2.x and XL."
        )
    configs = _of_folder(path) if path.is_dir() else _of_file(path)
    texts = sorted(name for name in configs if name.startswith("text_encoder"))
    unet, vae = empty_unet(configs["unet"], path), empty_vae(configs["vae"], path)
    encoders = [empty_text_encoder(configs[name], path) for name in texts]
    return UNetBackbone(unet, vae, encoders, [None] * len(encoders), None, name=str(x))


def _of_file(path: Path) -> dict:
    parts, names = read_base(path, vae=False)
    return configs_of(parts, path, names)


def _of_folder(path: Path) -> dict:
    if (path / BASE).is_file():  # a LoRA that names its base has its shapes
        note = read_config(path, BASE)
        base = note.get("base")
        if not isinstance(base, str) or not base or base == path.name:
            raise UserError(f"{path / BASE} names no base; write its name into it.")
        beside = path.parent / base
        return _of_folder(beside if beside.exists() else locate(base, "backbone", _CONFIGS))

    check_folder(path, ("unet", "vae", "text_encoder"))
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {name: read_config(path / name) for name in names if (path / name).is_dir()}
