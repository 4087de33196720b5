"""A ControlNet on disk: written as a diffusers folder; read from a name, a folder or one file of
any layout.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.backbones import Backbone, UNetEncoder
from zeroconv.backbones.flow.transformer import TransformerBackbone
from zeroconv.backbones.loading.building import empty, laid_out
from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.controls.file import POOLED, note_pooling, read_control
from zeroconv.checkpoints.controls.sharing import unshared_part
from zeroconv.checkpoints.strict import check_strict
from zeroconv.checkpoints.typed import check_types
from zeroconv.control.families import is_family, load_family
from zeroconv.control.naming import control_name
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, check_output
from zeroconv.jsonfile import parse_json, to_json
from zeroconv.layers.quantised import plain_state

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

    shared: the folder of another control, which must lie beside `folder`: what the two have in
    common is left out.

    diffusers reads the folder where connections are not lite and the hint encoder is the released
    one; what is ours stands under "zeroconv" in the config, which others ignore.
    """
    from diffusers import __version__

    check_output(folder, "folder")
    state = {
        key: value.detach().to("cpu", dtype).contiguous()
        for key, value in diffusers_state(control).items()
    }
    config = {"_class_name": control.class_name, "_diffusers_version": __version__}
    config |= control.config
    if shared is not None:
        state = unshared_part(state, Path(shared))
        config["zeroconv"] = {**config["zeroconv"], "shared": Path(shared).name}
    with atomic_folder(folder) as temporary:
        text = to_json(config, indent=2, sort_keys=True) + "\n"
        (temporary / "config.json").write_text(text, encoding="utf-8")
        save_file(
            state, temporary / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"}
        )


def plain_config(config: dict) -> dict:
    """What config.json will hold, and how it comes back: lists for tuples, our defaults filled
    in.
    """
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    ours = {**DEFAULTS, **config.get("zeroconv", {})}
    return parse_json(to_json({**config, "zeroconv": ours}))


def diffusers_state(control: ControlNet) -> dict[str, Tensor]:
    """The weights under diffusers' ControlNetModel keys, in the order of `state_dict`. The lite
    copy and the paper's hint encoder have no keys there and keep their own.
    """
    return {
        _to_diffusers(key, len(control.connections)): value
        for key, value in control.state_dict().items()
    }


def _to_diffusers(key: str, n: int) -> str:
    part, _, rest = key.partition(".")
    if part == "hint_encoder":
        return f"controlnet_cond_embedding.{rest}"
    if part == "zero_convs":
        index, _, rest = rest.partition(".")
        return (
            f"controlnet_mid_block.{rest}"
            if int(index) == n - 1
            else f"controlnet_down_blocks.{index}.{rest}"
        )
    return rest if part == "copy" else key  # copy.conv_in.weight → conv_in.weight


def load_control(
    cls: type[C],
    x: str | os.PathLike,
    backbone: Backbone | None = None,
    dtype: torch.dtype | None = None,
    global_average_pooling: bool | None = None,
) -> C:
    """See `ControlNet.load`."""
    if x is None or not str(x):
        raise UserError(
            "no ControlNet was named; give an embedded name, a folder, a hub id or a weights file."
        )
    name = control_name(os.fspath(x), None if backbone is None else backbone.name)
    path = locate(name, "ControlNet", ("config.json", "diffusion_pytorch_model*"))
    if is_family(path) or isinstance(backbone, TransformerBackbone):
        return load_family(path, backbone, dtype)  # type: ignore[return-value]
    file = read_control(path)
    if global_average_pooling is None:
        note_pooling(file)
    encoder = getattr(backbone, "encoder", None)
    config = file.with_base_config(getattr(encoder, "config", {}))
    if global_average_pooling is not None:
        config = {**config, POOLED: global_average_pooling}
    base = plain_state(encoder) if file.needs_base and encoder is not None else None
    state = file.full_state(base, backbone.name if backbone else "")
    control = build_control(
        cls, config, state, path, dtype or (backbone.dtype if backbone else torch.float32)
    )
    if backbone is None:
        return control
    check_fit(control, backbone, path)
    return control.to(backbone.device)


def build_control(
    cls: type[C], config: dict, state: dict[str, Tensor], where: object, dtype: torch.dtype
) -> C:
    """From a config and weights in diffusers' layout; strict."""
    import diffusers

    cls = class_of(cls, config, where)
    check_config({key: value for key, value in config.items() if key != "zeroconv"}, where)
    check_types(config, getattr(diffusers, cls.class_name), where)
    scale = _latent_scale(config, where)
    control: Any = empty(lambda: cls(UNetEncoder.from_config(config), config, scale), where)
    check_strict(diffusers_state(control), state, where)
    # a copy: what trains must not share memory with the file it came from
    ours = zip(control.state_dict(), diffusers_state(control), strict=True)
    control.load_state_dict(
        {name: laid_out(state[key], key, where, dtype, copy=True) for name, key in ours},
        assign=True,
    )
    return control.train()


def class_of(cls: type[C], config: dict, where: object) -> type[C]:
    """The class whose files `_class_name` marks: `cls` or one below it. Raises UserError where a
    Union is wanted and the file holds none.
    """
    named = config.get("_class_name")
    below = [kind for kind in (cls, *cls.__subclasses__()) if kind.class_name == named]
    if not below and cls.class_name != "ControlNetModel":
        raise UserError(f"{where} is no {cls.class_name}; load it with ControlNet.load.")
    return below[0] if below else cls


def _latent_scale(config: dict, where: object) -> int:
    """Pixels a latent: as the config says, else one halving for each width of the hint encoder
    after the first.
    """
    widths = config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
    given = (config.get("zeroconv") or {}).get("latent_scale")
    if not isinstance(widths, list | tuple) or not all(
        isinstance(width, int) and width > 0 for width in widths
    ):
        raise UserError(
            f"{where}: conditioning_embedding_out_channels is {str(widths)[:80]}, not a list of "
            "widths."
        )
    if given is not None and (not isinstance(given, int) or not 1 <= given <= 64):
        raise UserError(
            f"{where}: latent_scale is {str(given)[:80]}; a latent has 1 to 64 pixels a side."
        )
    return given or 2 ** (len(widths) - 1)


def check_fit(control: ControlNet, backbone: Backbone, where: object) -> None:
    """Raise UserError unless the residuals have a place to go and the copy understands the text."""
    if control.connections != backbone.connections:
        ours, wanted = _describe(control.connections), _describe(backbone.connections)
        raise UserError(
            f"{where} was made for another base: its channels are {ours}, those of "
            f"{backbone.name} {wanted}."
        )
    base = getattr(getattr(backbone, "encoder", None), "config", {})
    channels, given = control.config.get("in_channels", 4), backbone.latent_channels
    if channels != given:
        raise UserError(
            f"{where} was made for another base: it reads latents of {channels} channels, "
            f"{backbone.name} has {given}."
        )
    if bool(control.config.get("addition_embed_type")) != bool(base.get("addition_embed_type")):
        raise UserError(
            f"{where} was made for another base: of the two, only one is an SDXL; {backbone.name} "
            "differs."
        )
    # a small control of SDXL does not
    reads_text = any(".attn2." in name for name in control.state_dict())
    width = control.config.get("cross_attention_dim")
    base_width = base.get("cross_attention_dim", width)
    if reads_text and width != base_width:
        raise UserError(
            f"{where} was made for another base: it reads text states {width} wide, "
            f"{backbone.name} gives {base_width}."
        )


def _describe(connections) -> str:
    return "/".join(str(c.channels) for c in connections)
