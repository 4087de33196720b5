"""Tensors from a pickle of torch, by its `weights_only` reader, which runs nothing."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.checkpoints.sniff import check_torch_zip
from zeroconv.errors import UserError

# names under which trainers keep the weights of a network, in the order in which they are looked
# for
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "module",
    "model",
    "controlnet",
    "control_model",
    "net",
    "params",
)
_EMBEDDING = "string_to_param"
_IP_ADAPTER = ("image_proj", "ip_adapter")  # two dicts side by side
# how torch's reader says that a pickle wants something made that is no tensor
_CODE = ("GLOBAL", "Can only create", "Can only build", "Trying to call reduce")
SPARE = 64 * 2**20  # bytes that tensors may have beyond what the file stores, and
SHARED = 4  # so many times the file's size, where several names share a tensor


def read_pickled(path: Path, is_zip: bool) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, out of the dicts that trainers put around them; on the
    CPU.

    Raises UserError for a file that holds code, is damaged, or keeps its tensors in no dict of
    names.
    """
    state = unwrapped(load_pickle(path, is_zip), path)
    check_sizes(state, path)
    return state


def load_pickle(path: Path, is_zip: bool, allowed: Sequence[type] = ()) -> Any:
    """Whatever a pickle of torch holds, read by `weights_only`; on the CPU.

    allowed: containers of torch that may stand in it beside tensors and plain values. Raises
    UserError for a file that holds code or is damaged.
    """
    if is_zip:
        check_torch_zip(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # torch's words about its own types
            # by its name, torch takes it for the format of its suffix
            with open(path, "rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not is_new_pickle(path) and not any(words in str(error) for words in _CODE):
            raise UserError(
                f"{path} is damaged or no checkpoint; download or write it again."
            ) from error
        raise UserError(
            f"{path} holds more than tensors, and unpickling it could run code, so it is refused; "
            "ask for a .safetensors file, or convert it where you trust it."
        ) from error
    except MemoryError as error:
        raise UserError(
            f"{path} asks for more memory than there is; is it the right file?"
        ) from error
    except Exception as error:  # a broken zip, an unknown storage: torch raises half a dozen kinds
        raise UserError(
            f"{path} is damaged or no checkpoint ({_first_line(error)}); download or write it "
            "again."
        ) from error


def is_new_pickle(path: Path) -> bool:
    """A bare pickle of protocol 4 or 5, which torch.save writes none of: any Python object."""
    with open(path, "rb") as file:
        return file.read(2) in (b"\x80\x04", b"\x80\x05")


def _first_line(error: Exception) -> str:
    words = str(error).strip().splitlines()
    return words[0][:200].rstrip(" .") if words else type(error).__name__


def unwrapped(content: Any, where: Path) -> dict[str, Tensor]:
    """The innermost dict of named tensors. Raises UserError where there is none, saying what
    there is.
    """
    for _ in range(6):
        if not isinstance(content, Mapping):
            kind = "nothing (null)" if content is None else f"a {type(content).__name__}"
            raise UserError(
                f"{where} holds no tensors under names but {kind}; is it the right file?"
            )
        if _EMBEDDING in content:
            return {_EMBEDDING: torch.zeros(1)}  # a textual inversion: its name tells its kind
        if all(isinstance(content.get(name), Mapping) for name in _IP_ADAPTER):
            return {
                f"{name}.{key}": value
                for name in _IP_ADAPTER
                for key, value in _tensors(content[name], where).items()
            }
        inner = next((name for name in WRAPPERS if _wraps(content, name)), None)
        if inner is None:
            return _tensors(content, where)
        _note_averages(content, inner, where)
        content = content[inner]
    raise UserError(
        f"{where} keeps its tensors in more than six dicts in each other; is it the right file?"
    )


def _wraps(content: Mapping, name: str) -> bool:
    """Whether an entry is the dict of the weights: a dict, or null under a name that means
    nothing else.
    """
    if name not in content or isinstance(content[name], Tensor):
        return False
    if content[name] is None:
        return not any(isinstance(value, Tensor | Mapping) for value in content.values())
    return isinstance(content[name], Mapping)


def _note_averages(content: Mapping, taken: str, where: Path) -> None:
    averages = [
        name
        for name in content
        if isinstance(name, str) and name != taken and "ema" in name.lower()
    ]
    averages = [name for name in averages if isinstance(content[name], Mapping)]
    if averages:
        warnings.warn(
            f"{where} holds weights under {taken!r}, which are read, and averaged ones under "
            f"{averages[0]!r}, which are not; to use those, save them alone.",
            stacklevel=2,
        )


def _tensors(content: Mapping, where: Path) -> dict[str, Tensor]:
    state = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            continue  # the epoch, the step, a version
        if not isinstance(name, str):
            raise UserError(
                f"{where} names a tensor {str(name)[:60]!r}, which is no text: it is an "
                "optimizer's state or another file without names of layers, not weights."
            )
        state[name] = value.detach()
    return state


def check_sizes(state: Mapping[str, Tensor], where: Path) -> None:
    """Raise UserError where tensors are much larger than what the file stores for them, as one
    number repeated is.
    """
    stored = sum(
        value.numel() * value.element_size()
        for value in state.values()
        if value.layout == torch.strided
    )
    if stored > SHARED * where.stat().st_size + SPARE:
        raise UserError(
            f"the tensors of {where} have {stored:,} bytes, but the file {where.stat().st_size:,}: "
            "most of them are repeated, so it is no checkpoint."
        )
