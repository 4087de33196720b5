"""Other ways to add a hint, behind one call, so that they are trained, measured and run like a
ControlNet and compared fairly.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, cast

import torch

from zeroconv.backbones import Backbone, UNetBackbone
from zeroconv.backbones.loading.locate import locate
from zeroconv.baselines.base import (
    CLASS_NAME,
    HINT_FORMS,
    OLD_CLASS_NAME,
    WEIGHTS,
    Baseline,
)
from zeroconv.baselines.concat import Concat
from zeroconv.baselines.control_lora import ControlLora
from zeroconv.baselines.controlnet_xs import ControlNetXS
from zeroconv.baselines.flux_concat import is_flux_transformer, load_flux_control
from zeroconv.baselines.hypernetwork import Hypernetwork
from zeroconv.baselines.lllite import LLLite
from zeroconv.baselines.lora import Lora
from zeroconv.baselines.published import PUBLISHED, read_published
from zeroconv.baselines.side import Side
from zeroconv.baselines.t2i_adapter import T2IAdapter
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.kinds import Kind
from zeroconv.checkpoints.reading import read_config, read_state_dict
from zeroconv.checkpoints.strict import check_strict
from zeroconv.control import ControlNet, Net
from zeroconv.control.naming import control_name
from zeroconv.errors import UserError
from zeroconv.renamed import old_name

__all__ = [
    "BASELINES",
    "HINT_FORMS",
    "Baseline",
    "Net",
    "is_baseline",
    "load_baseline",
    "load_net",
    "make_baseline",
]

BASELINES: dict[str, type[Baseline]] = {
    baseline.kind: baseline
    for baseline in (
        Concat,
        Lora,
        ControlLora,
        T2IAdapter,
        ControlNetXS,
        Hypernetwork,
        Side,
        LLLite,
    )
}


def make_baseline(
    kind: str, backbone: UNetBackbone, *, condition: str | None = None, **options: Any
) -> Baseline:
    """A new baseline around a frozen backbone, with its dtype and on its device.

    kind: a name of `BASELINES`; options: those of its class; condition: what the hint shows, such
    as "canny". Raises UserError for an unknown name or option.
    """
    if kind not in BASELINES:
        raise UserError(f"there is no baseline {kind!r}; choose one of {', '.join(BASELINES)}.")
    known = {
        n: p.default
        for n, p in inspect.signature(BASELINES[kind]).parameters.items()
        if n != "backbone"
    }
    for name in options:
        if name not in known:
            raise UserError(f"{kind} has no option {name!r}; it has {', '.join(known)}.")
    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    baseline = BASELINES[kind](backbone, **options)
    ours = {"condition": condition, "base": backbone.name}
    baseline.config = {"kind": kind, "options": {**known, **options}, "zeroconv": ours}
    return baseline.to(backbone.device, backbone.dtype)


def load_baseline(
    folder: str | os.PathLike, backbone: UNetBackbone, dtype: torch.dtype | None = None
) -> Baseline:
    """Read what `Baseline.save` wrote, around the backbone that it was trained on. Raises
    UserError.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.get("_class_name") not in (CLASS_NAME, OLD_CLASS_NAME):
        raise UserError(
            f"{folder} holds a {config.get('_class_name')}, not a baseline; load it with "
            "ControlNet.load."
        )
    ours, options = config.get("zeroconv") or {}, config.get("options") or {}
    if not isinstance(ours, dict) or not isinstance(options, dict):
        raise UserError(
            f"{folder}: options and zeroconv in its config.json are no JSON objects; it is damaged."
        )
    check_config(options, folder)
    # the weights drawn here are replaced: nobody's random numbers move
    with torch.random.fork_rng(devices=[]):
        baseline = _from_options(
            str(config.get("kind")), backbone, ours.get("condition"), options, folder
        )
    baseline.config["zeroconv"] = ours
    return _filled(baseline, read_state_dict(folder / WEIGHTS), folder, dtype or backbone.dtype)


def load_published(
    path: Path, kind: Kind, backbone: UNetBackbone, dtype: torch.dtype | None = None
) -> Baseline:
    """A network that others published, of a kind of `PUBLISHED`, around a base. Raises UserError,
    also where it was made for another base.
    """
    if not isinstance(backbone, UNetBackbone):
        raise UserError(f"{path} is {kind.what}, which a UNet runs, and {backbone.name} is none.")
    name, options, state = read_published(path, kind)
    with torch.random.fork_rng(devices=[]):
        baseline = _from_options(name, backbone, None, options, path)
    return _filled(baseline, state, path, dtype or backbone.dtype)


def _filled(baseline: Baseline, state: dict, where: Path, dtype: torch.dtype) -> Baseline:
    check_strict(baseline.state_dict(), state, where)
    baseline.load_state_dict(state)
    return baseline.to(dtype=dtype)


def _from_options(
    kind: str, backbone: UNetBackbone, condition: Any, options: dict, where: Path
) -> Baseline:
    """`make_baseline` of what a file says, which may be of wrong types."""
    try:
        return make_baseline(kind, backbone, condition=condition, **options)
    except UserError:
        raise
    except Exception as error:  # torch, peft and diffusers raise many kinds for what makes no sense
        raise UserError(
            f"{where}: its options describe no network that can be built ({error})."
        ) from error


def is_baseline(path: Path) -> bool:
    """Whether a path is a folder that `Baseline.save` wrote."""
    if not (path / "config.json").is_file():
        return False
    return read_config(path).get("_class_name") in (CLASS_NAME, OLD_CLASS_NAME)


def is_lllite(path: Path) -> bool:
    """Whether a path is a ControlNet-LLLite file."""
    return path.is_file() and identify(path).name == LLLite.kind


def load_lllite(path: Path, backbone: Backbone, dtype: torch.dtype | None = None) -> LLLite:
    """A ControlNet-LLLite from its file, around the base that it was made for. Raises UserError."""
    if not isinstance(backbone, UNetBackbone):
        raise UserError(f"{path} is for a UNet (Stable Diffusion), which {backbone.name} is not.")
    net = LLLite.from_state(read_state_dict(path), backbone, path)
    return net.to(backbone.device, dtype or backbone.dtype)


def load_net(x: str | os.PathLike, backbone: Backbone, dtype: torch.dtype | None = None) -> Net:
    """A ControlNet by all that `ControlNet.load` takes, a baseline by its folder, or a T2I-Adapter,
    ControlNet-XS or FLUX Control as published; whichever it is.
    """
    path = locate(
        control_name(os.fspath(x), backbone.name),
        "ControlNet",
        ("config.json", "diffusion_pytorch_model*"),
    )
    if is_baseline(path):
        return load_baseline(path, cast(UNetBackbone, backbone), dtype)
    if (kind := identify(path)) in PUBLISHED:
        return load_published(path, kind, cast(UNetBackbone, backbone), dtype)
    if is_flux_transformer(path):
        return load_flux_control(path, backbone, dtype)
    if is_lllite(path):
        return load_lllite(path, backbone, dtype)
    return ControlNet.load(x, backbone=backbone, dtype=dtype)


def __getattr__(name: str) -> Any:
    return old_name(__name__, name)
