"""A LoRA's file, or the folder of diffusers or peft that holds one → changes by part and module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zeroconv.checkpoints.identify import identify, refuse_folder, refuse_other_kind
from zeroconv.checkpoints.kinds import LORA, UNKNOWN
from zeroconv.checkpoints.lora.changes import Change
from zeroconv.checkpoints.lora.entries import changes_of
from zeroconv.checkpoints.lora.few_steps import FewSteps, few_steps_of
from zeroconv.checkpoints.lora.keys import part_of, split
from zeroconv.checkpoints.reading import (
    read_config,
    read_metadata,
    read_state_dict,
    read_text_table,
)
from zeroconv.checkpoints.strict import check_finite
from zeroconv.errors import UserError
from zeroconv.inputs import at_home

FILE = "pytorch_lora_weights.safetensors"  # where diffusers looks in a folder
# beside it: {"base": what it was trained on, "weight": 1.0}; the folder is then a base by itself
BASE = "lora.json"

# what else such folders hold: diffusers' older file, and peft's
_PEFT = ("adapter_model.safetensors", "adapter_model.bin")
_FILES = (FILE, "pytorch_lora_weights.bin", *_PEFT)

# embeddings of new words, which some trainers put into the LoRA's file
_BUNDLED = "bundle_emb."


@dataclass(frozen=True)
class Lora:
    """What a file holds. Names of modules are as the file writes them, without the part's
    prefix; a change of a bias has `.bias` behind its module's name. few_steps: of a LoRA that makes
    pictures in few steps, how.
    """

    parts: dict[str, dict[str, Change]]
    where: Path
    few_steps: FewSteps | None = None


def read_lora(path: str | os.PathLike) -> Lora:
    """Read a LoRA file, or a folder of diffusers or peft that holds one.

    Raises UserError for a missing or foreign file, a matrix without its partner, and for kinds of
    change that zeroconv does not know (OFT, GLoRA, (IA)³).
    """
    path = at_home(path)
    config: dict = {}
    if path.is_dir():
        files = [path / name for name in _FILES if (path / name).is_file()]
        if not files:
            if (path / "config.json").is_file() or (path / "model_index.json").is_file():
                raise refuse_folder(path, "LoRA")
            raise UserError(f"the folder {path} holds no LoRA; it has none of {', '.join(_FILES)}.")
        if files[0].name in _PEFT:
            config = read_config(path, "adapter_config.json")
        path = files[0]
    state = read_state_dict(path)
    if (model_kind := identify(state)) not in (LORA, UNKNOWN):
        raise refuse_other_kind(model_kind, "LoRA", path, state)
    check_finite(state, path)
    modules: dict[str, dict[str, Tensor]] = {}
    for key, value in _without_words(state, path).items():
        module, kind = split(key, path)
        if kind in modules.setdefault(module, {}):
            raise UserError(
                f"{path} changes {module[:100]} twice: it holds several adapters; save one a file."
            )
        modules[module][kind] = value
    metadata = read_metadata(path)
    config = config or read_text_table(
        metadata.get("lora_adapter_metadata", "{}"),
        f"{path}: what its header says of the adapter",
    )
    parts: dict[str, dict[str, Change]] = {}
    for module, tensors in modules.items():
        part, name = part_of(module)
        parts.setdefault(part, {}).update(changes_of(tensors, name, part, config, path))
    return Lora(parts, path, few_steps_of(path, metadata, path.name in _FILES))


def _without_words(state: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """The tensors without bundled textual-inversion embeddings, with a note where there are
    some.
    """
    rest = {key: value for key, value in state.items() if not key.startswith(_BUNDLED)}
    words = sorted({key.split(".")[1] for key in state.keys() - rest.keys()})

    if words:
        warnings.warn(
            f"{where} also holds embeddings of the words {', '.join(words)[:200]}, which zeroconv "
            "does not read: in prompts these words mean what they mean to the base.",
            stacklevel=2,
        )
    return rest
