"""What a file or a folder is: one answer for loading, `info` and `convert`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from zeroconv.checkpoints.kinds import (
    BASE,
    CONTROL,
    LORA,
    UNKNOWN,
    Kind,
    kind_of_class,
    kind_of_names,
)
from zeroconv.checkpoints.reading import WEIGHT_FILES, read_config, read_names
from zeroconv.errors import UserError

# what other programs put before every name: wrappers of trainers and compilers, and pipelines'
# parts
PREFIXES = ("module.", "_orig_mod.", "controlnet.", "control_net.", "model.", "net.", "network.")
_LORAS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json")


def identify(x: str | os.PathLike | Iterable[str]) -> Kind:
    """The kind of a file, a folder, or of the names of tensors.

    Raises UserError for a path where nothing is, and for a file that holds no weights, saying what
    it is.
    """
    if not isinstance(x, str | os.PathLike):
        return kind_of_names(list(plain_names(dict.fromkeys(x)).values()))
    path = Path(x)
    return _of_folder(path) if path.is_dir() else identify(read_names(path))


def _of_folder(folder: Path) -> Kind:
    if (folder / "model_index.json").is_file() or (folder / "lora.json").is_file():
        return BASE
    if (folder / "config.json").is_file():
        return kind_of_config(read_config(folder))
    if any((folder / name).is_file() for name in _LORAS):
        return LORA
    return UNKNOWN


def kind_of_config(config: Mapping) -> Kind:
    """The kind that a config.json tells. One without any class is taken for a ControlNet's, as
    diffusers' are.
    """
    architectures = config.get("architectures")
    named = config.get("_class_name") or (
        architectures[0] if isinstance(architectures, list) and architectures else ""
    )
    if not named and (config.get("model_type") or config.get("_name_or_path")):
        named = str(config.get("model_type") or "model of transformers")
    return kind_of_class(str(named)) if named else CONTROL


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as the file has it → without what trainers and pipelines put before all of them.

    A prefix goes only where every name has it. Of a pipeline in one file the control's names alone
    are kept.
    """
    renamed = {name: name for name in names}
    part = {
        name: name.removeprefix("controlnet.") for name in renamed if name.startswith("controlnet.")
    }
    others = {name.split(".")[0] for name in renamed if name not in part}
    if part and others and others <= {"unet", "vae", "text_encoder", "text_encoder_2"}:
        renamed = part
    while True:
        prefix = next(
            (p for p in PREFIXES if renamed and all(new.startswith(p) for new in renamed.values())),
            None,
        )
        if prefix is None or (prefix == "model." and _is_original_base(renamed.values())):
            return renamed
        renamed = {old: new.removeprefix(prefix) for old, new in renamed.items()}


def _is_original_base(names: Iterable[str]) -> bool:
    """`model.diffusion_model.` is a base's own beginning, no wrapper's."""
    return any(name.startswith("model.diffusion_model.") for name in names)


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `plain_names`."""
    return {new: state[old] for old, new in plain_names(state).items()}


def refuse_other_kind(
    kind: Kind, wanted: str, where: object, names: Iterable[str] = ()
) -> UserError:
    """The sentence for what is of another kind than `wanted` ("ControlNet", "LoRA")."""
    if kind is UNKNOWN:
        first = ", ".join(name[:60] for name in sorted(names)[:3])
        return UserError(
            f"{where} is no {wanted}, nor anything else that zeroconv knows; it holds "
            f"{first or 'nothing'}."
        )
    return UserError(f"{where} is no {wanted} but {kind}.")


def refuse_folder(folder: Path, wanted: str) -> UserError:
    """The sentence for a folder that is no `wanted`."""
    kind = _of_folder(folder)
    if kind is UNKNOWN:
        inside = sorted(p.name for p in folder.iterdir() if p.suffix in WEIGHT_FILES)
        how = f"give the file in it, {folder / inside[0]}" if inside else "check the path"
        if copies := sorted(folder.glob("snapshots/*/")):
            how = f"it is a cache of the hub: give the copy in it, {copies[-1]}"
        return UserError(f"{folder} holds no {wanted}: it has no config.json of one; {how}.")
    return UserError(f"{folder} holds {kind}, not a {wanted}.")
