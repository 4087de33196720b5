"""Transformers' ControlNets on disk: written in diffusers' layout, read in every published one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from zeroconv.backbones.loading.building import empty, fill
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.flow.controls import WEIGHTS, FlowControl, read_flow_control
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output
from zeroconv.jsonfile import to_json


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
    backbone: Any,
    dtype: torch.dtype,
    check: Callable[[Any, Path], None],
) -> tuple[Any, dict[str, Any]]:
    """diffusers' network of class `kind` from a folder, one file or a hub id, and what of its
    config is zeroconv's. check: called with the network before weights are read in. Raises
    UserError.
    """
    path = locate(os.fspath(x), "ControlNet", ("config.json", f"{WEIGHTS}*"))
    control = read_flow_control(path, backbone.transformer.config)
    if control.class_name != kind.__name__:
        raise UserError(
            f"{path} is a {control.class_name}, no ControlNet of {backbone.name} "
            f"({backbone.family})."
        )
    ours = control.config.pop("zeroconv", {})
    network = empty_network(control, kind, path)
    check(network, path)
    fill(network, control.state, path, dtype)
    return network, ours if isinstance(ours, dict) else {}


def empty_network(control: FlowControl, kind: Any, where: Path) -> Any:
    """diffusers' network of a control, without memory. Raises UserError for a config that describes
    none.
    """
    known = {key: value for key, value in control.config.items() if not key.startswith("_")}
    check_config(known, where)
    # None where a branch reads no text or has no positions, which diffusers' signature does not
    # tell
    may_lack = ("joint_attention_dim", "pos_embed_max_size")
    typed = {key: v for key, v in known.items() if v is not None or key not in may_lack}
    check_types(typed, kind, where)
    return empty(lambda: cast(nn.Module, kind.from_config(control.config)), where)
