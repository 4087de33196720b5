"""A ControlNet's weights and config from whatever holds them, for loading, `info` and `convert`
alike.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zeroconv.checkpoints.bounds import check_config
from zeroconv.checkpoints.controls.control_lora import (
    config_of_pairs,
    is_control_lora,
    merged,
    read_pairs,
)
from zeroconv.checkpoints.controls.controlnet import PREFIX, layout_of, original_to_diffusers
from zeroconv.checkpoints.controls.sharing import read_shared
from zeroconv.checkpoints.controls.union import CLASS_NAME as UNION_CLASS
from zeroconv.checkpoints.controls.union import infer_union_config, is_union
from zeroconv.checkpoints.identify import kind_of_config, plain_state, refuse_folder
from zeroconv.checkpoints.infer import VISIBLE, infer_config
from zeroconv.checkpoints.kinds import CONTROL, UNION
from zeroconv.checkpoints.reading import (
    read_config,
    read_metadata,
    read_state_dict,
    read_text_table,
)
from zeroconv.errors import UserError

POOLED = "global_pool_conditions"
_DIFFERENCE = ("difference", f"{PREFIX}difference")
_SHUFFLE = re.compile(r"(?:^|[^a-z])shuffle(?:[^a-z]|$)")


@dataclass
class ControlFile:
    """A control as its file has it, in diffusers' terms."""

    config: dict
    state: dict[str, Tensor]
    where: Path
    inferred: bool = False  # the config is read off the shapes
    difference: bool = False  # the tensors of the copy are the control's less its base's
    low_rank: bool = False  # the copy is updates of its base's encoder (Control-LoRA)
    # `global_pool_conditions` is on because the file's name says shuffle
    pooled_by_name: bool = False

    def with_base_config(self, base: Mapping) -> dict:
        """The config, with what leaves no trace in shapes (heads, groups) from a base of the
        same widths.
        """
        if (
            not self.inferred
            or list(base.get("block_out_channels", ())) != self.config["block_out_channels"]
        ):
            return self.config
        unseen = {
            k: v
            for k, v in base.items()
            if k not in VISIBLE and not k.startswith("condition") and k != POOLED
        }
        return {**self.config, **unseen}

    @property
    def needs_base(self) -> bool:
        """Whether its base's encoder is needed to make it whole."""
        return self.difference or self.low_rank

    def full_state(self, base: Mapping[str, Tensor] | None, name: str = "") -> dict[str, Tensor]:
        """The weights, a difference added to the encoder of its base. UserError where that is
        needed and not there.
        """
        if not self.needs_base:
            return self.state
        if base is None:
            held = "low-rank updates of" if self.low_rank else "the difference to"
            raise UserError(
                f"{self.where} holds only {held} its base, so it is no whole "
                "ControlNet: load it together with that base, or make it whole: zeroconv transfer "
                "FILE --method unchanged --from BASE --to BASE --out FOLDER."
            )
        if self.low_rank:
            return merged(self.state, base, self.where)
        warnings.warn(
            f"{self.where} holds a difference to the base that it was made from; the weights of "
            f"{name} were added.",
            stacklevel=2,
        )
        return {
            key: _added(value, base.get(key), key, self.where, name)
            for key, value in self.state.items()
        }


def _added(value: Tensor, base: Tensor | None, key: str, where: Path, name: str) -> Tensor:
    if base is None:  # hint encoder and connections are whole
        return value
    if base.shape != value.shape:
        raise UserError(
            f"{where} was made from another base: {key} is {list(value.shape)} in it, "
            f"{list(base.shape)} in {name}."
        )
    return (value.float() + base.float().to(value.device)).to(torch.float32)


def read_control(path: Path) -> ControlFile:
    """Read a diffusers folder, or one file of either layout. Raises UserError, which says of
    another kind of model what it is.
    """
    control = _of_folder(path) if path.is_dir() else _of_file(path)
    if not isinstance(control.config.get("zeroconv") or {}, dict):
        raise UserError(f'{path}: what stands under "zeroconv" in its config is no JSON object.')
    if is_union(control.state):  # its own repository's config names another class
        control.config = {**control.config, "_class_name": UNION_CLASS}
    check_config({k: v for k, v in control.config.items() if k != "zeroconv"}, path)
    name = path.stem.lower() if path.is_file() else path.name.lower()
    if POOLED not in control.config and _SHUFFLE.search(name):
        control.config, control.pooled_by_name = {**control.config, POOLED: True}, True
    return control


def note_pooling(control: ControlFile) -> None:
    """A note that a file's name decided how it is run."""
    if control.pooled_by_name:
        warnings.warn(
            f"{control.where} is called shuffle, so its residuals are averaged over the picture, "
            "as the published shuffle control's are; to have them as they are, convert it and "
            f"write {POOLED}: false into its config.json, or load it in Python with "
            "global_average_pooling=False.",
            stacklevel=2,
        )


def _of_folder(folder: Path) -> ControlFile:
    if not (folder / "config.json").is_file():
        raise refuse_folder(folder, "ControlNet")
    config = read_config(folder)
    if (kind := kind_of_config(config)) not in (CONTROL, UNION):
        named = str(config.get("_class_name") or f"model of kind {config.get('model_type')}")[:80]
        remark = "" if named in kind.what else f": it is {kind}"
        raise UserError(f"{folder} holds a {named}, not a ControlNet{remark}.")
    config, state = read_shared(folder, config)
    state, difference = _marked(plain_state(state))
    return ControlFile(config, state, folder, difference=difference)


def _of_file(path: Path) -> ControlFile:
    """The config is what the file says of itself, else read off the shapes."""
    raw = plain_state(read_state_dict(path))
    if is_control_lora(raw):
        pairs = read_pairs(raw, path)
        with _naming(path):
            config = config_of_pairs(pairs)
        return ControlFile(config, pairs, path, inferred=True, low_rank=True)
    layout = layout_of(raw, path)
    state, difference = _marked(raw)
    if layout == "original":
        state = original_to_diffusers(state, path)
    infer = infer_union_config if is_union(state) else infer_config
    control = ControlFile({}, state, path, difference=difference)
    if "zeroconv" in (metadata := read_metadata(path)):
        control.config = read_text_table(
            metadata["zeroconv"], f"{path}: what its header says under zeroconv"
        )
    else:
        with _naming(path):
            control.config, control.inferred = infer(state), True
    return control


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Inside, a sentence of a UserError begins with the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _marked(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The tensors without the mark of a difference, and whether it was there."""
    rest = {key: value for key, value in state.items() if key not in _DIFFERENCE}
    return rest, len(rest) < len(state)
