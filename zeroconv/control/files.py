"""A ControlNet on disk: written as a diffusers folder; read from a name, a folder or one file of any layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.backbones import Backbone, UNetEncoder
from zeroconv.backbones.building import channels_last_, empty
from zeroconv.backbones.locate import locate
from zeroconv.checkpoints.controlnet import layout_of, original_to_diffusers
from zeroconv.checkpoints.infer import infer_config
from zeroconv.checkpoints.reading import check_strict, read_config, read_metadata, read_state_dict
from zeroconv.checkpoints.sharing import own_part, read_shared
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output

if TYPE_CHECKING:
    from zeroconv.control.controlnet import ControlNet

    C = TypeVar("C", bound=ControlNet)


DEFAULTS = {
    "hint_encoder": "released",
    "connections": "zero",
    "only_mid_control": False,
    "condition": None,
    "base": None,
}


def save_control(
    control: ControlNet,
    folder: str | os.PathLike,
    dtype: torch.dtype | None = None,
    shared: str | os.PathLike | None = None,
) -> None:
    """Write config.json and diffusion_pytorch_model.safetensors with a list of them, all or none.

    folder: absent, empty, or one that holds nothing but what zeroconv wrote there; raises
    UserError otherwise.

    shared: the folder of another control, which must lie beside `folder`: what the two have in common is left out.

    diffusers reads the folder where connections are not lite and the hint encoder is the released one; what is ours
    stands under "zeroconv" in the config, which others ignore.
    """
    from diffusers import __version__

    check_output(folder, "folder")
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in diffusers_state(control).items()}
    config = {"_class_name": "ControlNetModel", "_diffusers_version": __version__, **control.config}
    if shared is not None:
        state = own_part(state, Path(shared))
        config["zeroconv"] = {**config["zeroconv"], "shared": Path(shared).name}
    with atomic_folder(folder) as temporary:
        (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(state, temporary / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def plain_config(config: dict) -> dict:
    """What config.json will hold, and how it comes back: lists for tuples, our defaults filled in."""
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return json.loads(json.dumps({**config, "zeroconv": {**DEFAULTS, **config.get("zeroconv", {})}}))


def diffusers_state(control: ControlNet) -> dict[str, Tensor]:
    """The weights under diffusers' ControlNetModel keys, in the order of `state_dict`. The lite copy and the paper's
    hint encoder have no keys there and keep their own."""
    return {_to_diffusers(key, len(control.connections)): value for key, value in control.state_dict().items()}


def _to_diffusers(key: str, n: int) -> str:
    part, _, rest = key.partition(".")
    if part == "hint_encoder":
        return f"controlnet_cond_embedding.{rest}"
    if part == "zero_convs":
        index, _, rest = rest.partition(".")
        return f"controlnet_mid_block.{rest}" if int(index) == n - 1 else f"controlnet_down_blocks.{index}.{rest}"
    return rest  # copy.conv_in.weight → conv_in.weight


def load_control(
    cls: type[C], x: str | os.PathLike, backbone: Backbone | None = None, dtype: torch.dtype | None = None
) -> C:
    """See `ControlNet.load`."""
    if x is None or not str(x):
        raise UserError("no ControlNet was named; give an embedded name, a folder, a hub id or a weights file.")
    path = locate(os.fspath(x), "ControlNet", ("config.json", "diffusion_pytorch_model*"))
    config, state = _read_folder(path) if path.is_dir() else _read_file(path, backbone)
    control = build_control(cls, config, state, path, dtype or (backbone.dtype if backbone else torch.float32))
    if backbone is None:
        return control
    check_fit(control, backbone, path)
    return control.to(backbone.device)


def build_control(cls: type[C], config: dict, state: dict[str, Tensor], where: object, dtype: torch.dtype) -> C:
    """From a config and weights in diffusers' layout; strict."""
    widths = config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
    scale = config.get("zeroconv", {}).get("latent_scale") or 2 ** (len(widths) - 1)
    control: Any = empty(lambda: cls(UNetEncoder.from_config(config), config, scale), where)
    check_strict(diffusers_state(control), state, where)
    # a copy: what trains must not share memory with the file it came from
    ours = zip(control.state_dict(), diffusers_state(control), strict=True)
    control.load_state_dict({name: state[key].to(dtype, copy=True) for name, key in ours}, assign=True)
    return channels_last_(control).train()


def check_fit(control: ControlNet, backbone: Backbone, where: object) -> None:
    """Raise UserError unless the residuals have a place to go and the copy understands the text."""
    if control.connections != backbone.connections:
        found, wanted = _describe(control.connections), _describe(backbone.connections)
        raise UserError(
            f"{where} was made for another base: its channels are {found}, those of {backbone.name} {wanted}."
        )
    mine = control.config.get("cross_attention_dim")
    theirs = getattr(getattr(backbone, "encoder", None), "config", {}).get("cross_attention_dim", mine)
    if mine != theirs:
        raise UserError(
            f"{where} was made for another base: it reads text states {mine} wide, {backbone.name} gives {theirs}."
        )


def _describe(connections) -> str:
    return "/".join(str(c.channels) for c in connections)


def _read_folder(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    config = read_config(folder) if (folder / "config.json").is_file() else {}
    if config.get("_class_name", "ControlNetModel") != "ControlNetModel":
        raise UserError(f"{folder} holds a {config['_class_name']}, not a ControlNet.")
    if not config:
        what = "a whole model" if (folder / "model_index.json").is_file() else "no ControlNet"
        raise UserError(f"{folder} holds {what}: it has no config.json of a ControlNet; check the path.")
    return read_shared(folder, config)


def _read_file(path: Path, backbone: Backbone | None) -> tuple[dict, dict[str, Tensor]]:
    """The config is what the file says of itself, else the backbone's where it fits, else read off the shapes."""
    state = read_state_dict(path)
    if layout_of(state, path) == "original":
        state = original_to_diffusers(state, path)
    if "zeroconv" in (metadata := read_metadata(path)):
        return json.loads(metadata["zeroconv"]), state
    config = infer_config(state)
    base = getattr(getattr(backbone, "encoder", None), "config", {})
    if all(list(base.get(k, ())) == config[k] for k in ("block_out_channels", "down_block_types")):
        config = {**config, **{k: v for k, v in base.items() if not k.startswith("condition")}}
    return config, state
