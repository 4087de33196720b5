"""`zeroconv convert`: a ControlNet, a Union or a T2I-Adapter from one layout into the other,
exactly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.controls.controlnet import diffusers_to_original
from zeroconv.checkpoints.controls.controlnet_xs import CLASS_NAME as XS_CLASS
from zeroconv.checkpoints.controls.controlnet_xs import read_xs, to_adapter
from zeroconv.checkpoints.controls.file import note_pooling, read_control
from zeroconv.checkpoints.controls.t2i_adapter import CLASS_NAME as ADAPTER_CLASS
from zeroconv.checkpoints.controls.t2i_adapter import diffusers_to_original as adapter_to_original
from zeroconv.checkpoints.controls.t2i_adapter import read_adapter
from zeroconv.checkpoints.controls.union import CLASS_NAME as UNION_CLASS
from zeroconv.checkpoints.controls.union import is_union
from zeroconv.checkpoints.flow.controls import CLASSES as FLOW_CONTROLS
from zeroconv.checkpoints.flow.controls import original_names, read_flow_control
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.kinds import BASELINE, T2I, XS
from zeroconv.checkpoints.reading import read_config
from zeroconv.checkpoints.renaming import convert_ip_adapter, convert_lllite
from zeroconv.checkpoints.strict import check_strict
from zeroconv.checkpoints.typed import check_types
from zeroconv.errors import UserError
from zeroconv.files import atomic_folder, atomic_write, check_not_input, check_output
from zeroconv.jsonfile import to_json


def convert(source: str | os.PathLike, out: str | os.PathLike, to: str) -> Path:
    """Read a ControlNet (one file of either layout, or a diffusers folder) and write it in the
    other layout. Also a Union, a T2I-Adapter, an IP-Adapter, a ControlNet-LLLite, and ControlNets
    of diffusion transformers.

    to "diffusers": a folder with config.json and diffusion_pytorch_model.safetensors. to
    "original": one .safetensors file, its names under `control_model.`. The tensors keep their
    values and dtype; config and names are checked against a network built from them. `out` is tried
    first; it may be absent, or what zeroconv wrote there before. Returns `out`. Raises UserError.
    """
    source, out = Path(source), Path(out)
    check_target(source, out, to)  # before the slow part
    kind = kind_to_convert(source)
    if to == "diffusers" and kind != "lllite":
        check_output(out, "folder")
    if kind == T2I.name:
        return _convert_adapter(source, out, to)
    if kind == XS.name:
        return _convert_xs(source, out, to)
    if kind == "lllite":
        return convert_lllite(source, _one_file(source, out), to)
    if kind == "ip_adapter":
        return convert_ip_adapter(source, out, to)
    if kind in FLOW_CONTROLS:
        return _convert_flow(source, out, to)
    if kind in _AS_THEY_ARE:
        raise UserError(f"{source} is {_AS_THEY_ARE[kind]}, so there is nothing to convert.")
    config, state = read_controlnet(source)
    check_controlnet(config, state, source)
    if to == "diffusers":
        return write_folder({"_class_name": "ControlNetModel", **config}, state, out)
    # the one-file form of a Union has diffusers' names
    original = state if is_union(state) else diffusers_to_original(state, source)
    return write_file(config, original, out)


# what `info` knows and `convert` leaves alone, by its kind
_AS_THEY_ARE = {
    "lora": "a LoRA, whose layouts are all read as they are: --lora FILE",
    "vae": "a VAE, which is read in either layout: --vae FILE",
    "control_lora": "a Control-LoRA, low-rank updates of its base in the one layout there is",
    "lora_control": "a LoRA that reads hints, which only zeroconv knows",
    **{
        kind: f"a network of kind {kind}, which only zeroconv knows"
        for kind in ("concat", "hypernetwork", "side")
    },
}


def _one_file(source: Path, out: Path) -> Path:
    """`out`. Raises UserError for another name than that of a .safetensors file."""
    if out.suffix != ".safetensors":
        raise UserError(
            f"{source} is {identify(source).what}, one file in either layout; give a name that "
            f"ends in .safetensors, not {out}."
        )
    return out


def write_folder(config: dict, state: dict[str, Tensor], out: Path) -> Path:
    """Write diffusers' folder, all or nothing; returns it."""
    state = own_memory(state)
    with atomic_folder(out) as folder:
        text = to_json(config, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    return out


def own_memory(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them: rows of one matrix may
    stand in several.
    """
    return {
        key: value.clone()
        if value.untyped_storage().nbytes() > value.nbytes
        else value.contiguous()
        for key, value in state.items()
    }


def _owns(value: Tensor) -> bool:
    return value.untyped_storage().nbytes() == value.nbytes


def write_file(config: dict, state: dict[str, Tensor], out: Path) -> Path:
    """Write one file, its config in the header; returns it."""
    state = own_memory(state)
    with atomic_write(out) as file:
        save_file(state, file, metadata={"format": "pt", "zeroconv": to_json(config)})
    return out


def kind_to_convert(source: Path) -> str:
    """The name of its kind; of a network of zeroconv.baselines, of the published kind that it is.
    "" where nothing is there.
    """
    if not source.exists():
        return ""
    kind = identify(source)
    if kind is BASELINE:
        own = str(read_config(source).get("kind"))
        return {"lora": "lora_control"}.get(own, own)
    return kind.name


def _convert_xs(source: Path, out: Path, to: str) -> Path:
    if to != "diffusers":
        raise UserError(f"{source} is a ControlNet-XS, which has diffusers' layout alone.")
    config, state = read_xs(source)
    return write_folder({"_class_name": XS_CLASS, **config}, to_adapter(state), out)


def _convert_adapter(source: Path, out: Path, to: str) -> Path:
    from diffusers import T2IAdapter

    config, state = read_adapter(source)
    with torch.device("meta"), describing_config(source):
        network = T2IAdapter(**config)
    check_strict(network.state_dict(), state, source)
    if to == "original":
        return write_file(config, adapter_to_original(state), out)
    return write_folder({"_class_name": ADAPTER_CLASS, **config}, state, out)


def _convert_flow(source: Path, out: Path, to: str) -> Path:
    """A ControlNet of a diffusion transformer: diffusers' folder ↔ one file, in its authors' names
    where those are others. Its config is that of the published bases' where the file has none.
    """
    import diffusers

    control = read_flow_control(source)
    kind: Any = getattr(diffusers, control.class_name)
    plain = {k: v for k, v in control.config.items() if not k.startswith("_") and k != "zeroconv"}
    check_config(plain, source)
    with torch.device("meta"), describing_config(source):
        network = kind.from_config(plain)
    check_strict(network.state_dict(), control.state, source)
    config = {"_class_name": control.class_name, **control.config}
    if to == "diffusers":
        return write_folder(config, control.state, out)
    return write_file(config, original_names(control), out)


@contextmanager
def describing_config(where: object) -> Iterator[None]:
    """Inside, what diffusers and torch raise for a config that makes no sense is one sentence."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{where}: its config describes no network that can be built ({error})."
        ) from error


def check_target(source: str | os.PathLike, out: str | os.PathLike, to: str) -> None:
    """Raise UserError unless `convert` may write `out`; see there."""
    if to not in ("diffusers", "original"):
        raise UserError(f"there is no layout {to!r}; choose diffusers or original.")
    if to == "original" and Path(out).suffix != ".safetensors":
        sentence = "the original layout is one file: give a name that ends in .safetensors"
        raise UserError(f"{sentence}, not {out}.")

    check_not_input(out, [source, *_beside(Path(source))])
    if to == "diffusers" and Path(out).suffix != ".safetensors":
        check_output(out, "folder")
    else:
        check_output(out, "file", (".safetensors",), ours=True)


def _beside(source: Path) -> list[Path]:
    """The folder that a control shares weights with, which is input too."""
    if not (source / "config.json").is_file():
        return []
    ours = read_config(source).get("zeroconv")
    name = ours.get("shared") if isinstance(ours, dict) else None
    return [source.parent / name] if isinstance(name, str) and name else []


def read_controlnet(source: Path) -> tuple[dict, dict[str, Tensor]]:
    """Config and weights, both in diffusers' terms; of a whole control, as a difference needs its
    base.
    """
    control = read_control(source)
    note_pooling(control)
    return control.config, control.full_state(None)


def check_controlnet(config: dict, state: dict[str, Tensor], where: object) -> None:
    """Raise UserError unless diffusers' ControlNetModel, or its Union, of this config has exactly
    these tensors.
    """
    import diffusers

    union = config.get("_class_name") == UNION_CLASS
    kind: Any = diffusers.ControlNetUnionModel if union else diffusers.ControlNetModel

    ours = config.get("zeroconv") or {}
    if ours.get("connections") == "lite" or ours.get("hint_encoder", "released") != "released":
        raise UserError(
            f"{where} has parts that no other tool knows: lite connections or the paper's hint "
            "encoder."
        )
    plain = {k: v for k, v in config.items() if k != "zeroconv"}
    check_types(plain, kind, where)
    with torch.device("meta"), describing_config(where):
        model = kind.from_config(plain)
    check_strict(model.state_dict(), state, where)
