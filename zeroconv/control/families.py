"""Which class of ControlNet a base of diffusion transformers has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from zeroconv.backbones import Backbone
from zeroconv.backbones.flow.chroma import ChromaBackbone
from zeroconv.backbones.flow.flux import FluxBackbone
from zeroconv.backbones.flow.qwen import QwenBackbone
from zeroconv.backbones.flow.sd3 import SD3Backbone
from zeroconv.backbones.flow.zimage import ZImageBackbone
from zeroconv.checkpoints.flow.controls import CLASSES
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.reading import WEIGHT_FILES, read_config
from zeroconv.control.chroma import ChromaControlNet
from zeroconv.control.flux import FluxControlNet
from zeroconv.control.qwen import QwenControlNet
from zeroconv.control.sd3 import SD3ControlNet
from zeroconv.control.transformer import TransformerControlNet
from zeroconv.control.zimage import ZImageControlNet
from zeroconv.errors import UserError

CONTROLS: dict[type, Any] = {
    SD3Backbone: SD3ControlNet,
    ChromaBackbone: ChromaControlNet,  # before FLUX.1, of which it is one
    FluxBackbone: FluxControlNet,
    QwenBackbone: QwenControlNet,
    ZImageBackbone: ZImageControlNet,
}
CLASS_NAMES = tuple(kind.class_name for kind in CONTROLS.values())  # in config.json


def control_class(backbone: Backbone) -> Any:
    """The class of the base's ControlNets. Raises UserError for a base that has none here."""
    for kind, control in CONTROLS.items():
        if isinstance(backbone, kind):
            return control
    raise UserError(f"there is no class of ControlNets for {backbone.name}.")


def new_control(
    backbone: Backbone, condition: str | None = None, **options: Any
) -> TransformerControlNet:
    """A new control of the base's own family. options: of its `from_backbone`; None is its default.

    Raises UserError for an option that the family has not.
    """
    kind = control_class(backbone)
    known = kind.from_backbone.__func__.__kwdefaults__
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(name for name in known if name != "condition")
        raise UserError(f"a control of {kind.family} has no option {unknown[0]}; it has {names}.")
    return kind.from_backbone(backbone, condition=condition, **given)


def is_family(path: Path) -> bool:
    """Whether a path is a folder or a file with a ControlNet of a diffusion transformer."""
    if path.is_file():
        return path.suffix in WEIGHT_FILES and identify(path).name in CLASSES
    if not (path / "config.json").is_file():
        return False
    return read_config(path).get("_class_name") in CLASS_NAMES


def load_family(
    x: str | os.PathLike, backbone: Backbone | None, dtype: torch.dtype | None = None
) -> TransformerControlNet:
    """A control of a diffusion transformer, for its base. Raises UserError without a base."""
    if backbone is None:
        raise UserError(f"{os.fspath(x)} is {identify(Path(x))}; give its base, backbone=.")
    if not isinstance(backbone, tuple(CONTROLS)):
        raise UserError(
            f"{os.fspath(x)} is {identify(Path(x))}, and {backbone.name} is another kind of base."
        )
    return control_class(backbone).load(x, backbone=backbone, dtype=dtype)
