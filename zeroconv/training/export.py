"""What a run leaves behind: the control, and the base whose decoder was trained beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.encoder import UNetEncoder
from zeroconv.backbones.loading.building import empty
from zeroconv.control import ControlNet, Net
from zeroconv.control.transformer import TransformerControlNet
from zeroconv.control.union import ControlNetUnion
from zeroconv.training.recipes.recipe import Recipe
from zeroconv.training.unlock import save_base


def write_control(
    recipe: Recipe,
    control: Net,
    decoder: Mapping[str, Tensor] | None,
    folder: Path,
    base: Path | None,
) -> None:
    """Save the control as a diffusers folder, and in `base` the recipe's base with a trained
    `decoder`, if there is one.
    """
    dtype = getattr(torch, recipe.training.export)
    if decoder is not None and base is not None:
        save_base(recipe.base, decoder, base, dtype, **recipe.base_files.options())
        control.config["zeroconv"]["base"] = str(base)
    control.save(folder, dtype=dtype)


def averages_of(
    state: dict[str, Any], modules: Mapping[str, nn.Module]
) -> dict[str, dict[str, Tensor]]:
    """The averaged weights that a checkpoint holds, by the names of its modules; the weights
    themselves where there is no average.
    """
    average = list(state["ema"]["average"])
    weights = {}
    for name, module in modules.items():
        trained = [key for key, p in module.named_parameters() if p.requires_grad]
        weights[name] = {**state[name], **dict(zip(trained, average, strict=False))}
        average = average[len(trained) :]
    return weights


def undivided(control: ControlNet, state: Mapping[str, Tensor]) -> ControlNet:
    """An ordinary control with the shape of one that is split over processes, and these weights."""
    if isinstance(control, TransformerControlNet):
        return control.of_weights(state)
    scale = control.config["zeroconv"]["latent_scale"]
    made = ControlNetUnion if hasattr(control, "of_kind") else ControlNet
    plain = empty(
        lambda: made(UNetEncoder.from_config(control.config), control.config, scale),
        "the run",
    )
    plain.load_state_dict(state, assign=True)
    return plain
