"""Weights from files, without ever running what a file says; and into modules, strictly."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from zeroconv.errors import UserError

PICKLED = (".pth", ".ckpt", ".pt", ".bin")
WEIGHT_FILES = (*PICKLED, ".safetensors")


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read .safetensors, or .pth, .ckpt, .pt, .bin by `torch.load(weights_only=True)`; on the CPU, as stored.

    Raises UserError for a missing, truncated or foreign file, and for a pickle that holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weights file {path}; check the path.")
    if path.suffix not in WEIGHT_FILES:
        raise UserError(f"{path} is no weights file; zeroconv reads {', '.join(sorted(WEIGHT_FILES))}.")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    if not state:
        raise UserError(f"{path} holds no tensors, so there are no weights to load; is it the right file?")
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); download or write it again.") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, and unpickling it could run code, so it is refused; "
            "ask for a .safetensors file, or convert it where you trust it."
        ) from error
    except Exception as error:  # a broken zip, an empty file, text: torch raises half a dozen kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint ({reason}); download or write it again.") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The text written into a .safetensors header; empty for other files."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_config(folder: Path, name: str = "config.json") -> dict:
    """A component's config; UserError where it is missing or no JSON object."""
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {name}, so it is no model folder; check the path.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); download or write it again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object; download or write it again.")
    return config


def read_weights(folder: Path, names: Iterable[str] = ("diffusion_pytorch_model", "model", "pytorch_model")) -> dict:
    """The weights in a component's folder: plain, float16 variant, or in shards; safetensors before pickles."""
    for suffix in (".safetensors", ".fp16.safetensors", ".safetensors.index.json", ".bin"):
        for name in names:
            path = folder / f"{name}{suffix}"
            if path.is_file() and suffix.endswith(".json"):
                shards = sorted(set(read_config(folder, path.name).get("weight_map", {}).values()))
                return {key: value for shard in shards for key, value in read_state_dict(folder / shard).items()}
            if path.is_file():
                return read_state_dict(path)
    raise UserError(f"{folder} holds no weights (such as diffusion_pytorch_model.safetensors); download it again.")


def check_strict(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: object) -> None:
    """Raise UserError unless `state` has exactly the tensors of `expected`, in the same shapes."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        parts = [f"lacks {_first(missing)}"] if missing else []
        parts += [f"has the unknown {_first(unexpected)}"] if unexpected else []
        raise UserError(f"{where} {' and '.join(parts)}; it belongs to another kind of model.")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            found, wanted = list(value.shape), list(expected[key].shape)
            raise UserError(
                f"{where}: tensor {key} has shape {found}, expected {wanted}; it belongs to a model of another size."
            )


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: object) -> nn.Module:
    """Give the module these very tensors (it may be built on the meta device), after `check_strict`."""
    check_strict(module.state_dict(), state, where)
    module.load_state_dict(state, assign=True)
    return module


def _first(keys: list[str], n: int = 3) -> str:
    more = f" and {len(keys) - n} more" if len(keys) > n else ""
    return ", ".join(keys[:n]) + more
