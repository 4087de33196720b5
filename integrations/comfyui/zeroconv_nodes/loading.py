"""A control by name, folder or file, as ComfyUI's CONTROL_NET."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.backbones.loading.locate import locate
from zeroconv.checkpoints.controls.controlnet import diffusers_to_original
from zeroconv.checkpoints.controls.file import POOLED, ControlFile, note_pooling, read_control
from zeroconv.checkpoints.controls.union import is_union
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.kinds import BASELINE, CONTROL, UNION, XS
from zeroconv.control.naming import control_name
from zeroconv.errors import UserError

from .applying import weighted

GROUPS = 32  # of the normalisations in every UNet that ComfyUI builds


class Load:
    """ "Load Control (zeroconv)". name: a file of ComfyUI's folder `controlnet`, a path of a folder
    or a file, a hub id, or a name of zeroconv's. model: needed by controls that are kept as the
    difference from their base.
    """

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"name": ("STRING", {"default": "control.safetensors"})},
            "optional": {"model": ("MODEL",)},
        }

    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "load"
    CATEGORY = "zeroconv"

    def load(self, name: str, model: Any = None) -> tuple[Any]:
        return (load_control(name.strip(), model),)


def load_control(name: str, model: Any = None) -> Any:
    """ComfyUI's object of a control. Raises UserError for what ComfyUI has no network for."""
    import comfy.controlnet

    path = path_of(name)
    kind = identify(path)
    if kind in (BASELINE, XS):
        raise UserError(
            f"{name} is {kind.what}, which ComfyUI has no loader for; generate with it in zeroconv."
        )
    if kind not in (CONTROL, UNION):  # T2I-Adapters, Control-LoRAs, controls of transformers
        return of_comfyui(comfy.controlnet.load_controlnet(str(file_of(path)), model), name)
    control = read_control(path)
    note_pooling(control)
    state = state_for_comfyui(control, name)
    options = {"global_average_pooling": bool(control.config.get(POOLED))}
    net = comfy.controlnet.load_controlnet_state_dict(state, model=model, model_options=options)
    net = of_comfyui(net, name)
    if (control.config.get("zeroconv") or {}).get("only_mid_control"):
        return weighted(net, only_middle=True)
    return net


def of_comfyui(net: Any, name: str) -> Any:
    """What ComfyUI's loader gave. Raises UserError where that is nothing."""
    if net is None:
        raise UserError(f"{name}: ComfyUI does not know this kind of control.")
    return net


def file_of(path: Path) -> Path:
    """The one weights file of a folder; a file itself. Raises UserError."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"{path} holds {len(files)} .safetensors files; give one of them.")
    return files[0]


def path_of(name: str) -> Path:
    """ComfyUI's own folder first, then zeroconv's order. Raises UserError."""
    import folder_paths

    if not name:
        raise UserError("name is empty: give the name, the folder or the file of a control.")
    listed = folder_paths.get_full_path("controlnet", name)
    return Path(listed) if listed else locate(control_name(name), "ControlNet")


def state_for_comfyui(control: ControlFile, name: str) -> dict[str, Any]:
    """The tensors in the layout that ComfyUI builds its network from. Raises UserError."""
    groups = control.config.get("norm_num_groups", GROUPS)
    if groups != GROUPS:
        raise UserError(
            f"{name} has normalisations of {groups} groups, and ComfyUI builds networks of "
            f"{GROUPS} only: it is for a base that ComfyUI cannot load, such as the playroom."
        )
    if is_union(control.state):
        return dict(control.state)
    state = diffusers_to_original(control.state, name)
    if control.difference:
        import torch

        state["difference"] = torch.tensor([])
    return state
