"""Folders of transformers' ControlNets: written and read in diffusers' layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from zeroconv.backbones.building import empty, fill
from zeroconv.backbones.locate import locate
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.reading import read_config, read_weights
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output
from zeroconv.jsonfile import to_json

WEIGHTS = "diffusion_pytorch_model"


def save_network(
    network: nn.Module,
    config: Mapping[str, Any],
    folder: str | os.PathLike,
    dtype: torch.dtype | None = None,
) -> None:
    """Write config.json and the weights, all or nothing, in `dtype` (None: as they are). Raises
    UserError for a folder that holds what zeroconv did not write.
    """
    check_output(folder, "folder")
    state = {
        key: value.detach().to("cpu", dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    with atomic_folder(folder) as temporary:
        text = to_json(dict(config), indent=2, sort_keys=True)
        (temporary / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(state, temporary / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})


def read_network(
    x: str | os.PathLike,
    kind: Any,
    base: str,
    dtype: torch.dtype,
    check: Callable[[Any, Path], None],
) -> tuple[Any, dict[str, Any]]:
    """diffusers' network of class `kind` from a folder or a hub id, and what of its config is
    zeroconv's. check: called with the network before weights are read. Raises UserError.
    """
    folder = locate(os.fspath(x), "ControlNet", ("config.json", f"{WEIGHTS}*"))
    if not folder.is_dir():
        raise UserError(
            f"{folder} is one file; a ControlNet of {base} is read from a folder in diffusers' "
            "layout (config.json and its weights)."
        )
    config = read_config(folder)
    if config.get("_class_name") != kind.__name__:
        raise UserError(f"{folder} is a {config.get('_class_name')}, no ControlNet of {base}.")
    ours = config.pop("zeroconv", {})
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    check_config(known, folder)
    # None where a branch reads no text, which diffusers' signature does not tell
    typed = {key: v for key, v in known.items() if (key, v) != ("joint_attention_dim", None)}
    check_types(typed, kind, folder)
    network = empty(lambda: cast(nn.Module, kind.from_config(config)), folder)
    check(network, folder)
    fill(network, read_weights(folder, (WEIGHTS,)), folder, dtype)
    return network, ours if isinstance(ours, dict) else {}
