"""Weights and configs from files, without ever running what a file says."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from zeroconv.checkpoints.pickled import read_pickled
from zeroconv.checkpoints.sniff import check_weights_file, foreign
from zeroconv.checkpoints.strict import check_kind
from zeroconv.errors import UserError
from zeroconv.inputs import parse_json, read_json

PICKLED = (".pth", ".ckpt", ".pt", ".bin")
WEIGHT_FILES = (*PICKLED, ".safetensors")
# what diffusers and transformers write behind a name, now and in older versions
_SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".fp16.safetensors",
    ".safetensors.index.fp16.json",
    ".fp16.safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".fp16.bin",
    ".bin.index.fp16.json",
    ".fp16.bin.index.json",
)
_VARIANTS = (
    ".{}.safetensors",
    ".safetensors.index.{}.json",
    ".{}.safetensors.index.json",
    ".{}.bin",
    ".bin.index.{}.json",
    ".{}.bin.index.json",
)
LONGEST_JSON = 32 * 2**20  # bytes; the longest index of shards has about one


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read .safetensors, or .pth, .ckpt, .pt, .bin by `torch.load(weights_only=True)`; on the CPU,
    as stored.

    The content decides which of the two it is. Raises UserError, one sentence that names the file:
    missing, cut short, something else than weights (and what), a pickle that holds more than
    tensors, and tensors that are sparse, quantised, complex or without data.
    """
    path = Path(path)
    _check_there(path)
    form = check_weights_file(path)
    if form in ("zip", "pickle"):
        state = read_pickled(path, form == "zip")
    elif form == "safetensors" or path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        raise UserError(
            f"{path} is damaged or no checkpoint: it begins like none; download or write it again."
        )
    if not state:
        raise UserError(
            f"{path} holds no tensors, so there are no weights to load; is it the right file?"
        )
    for name, value in state.items():
        check_kind(name, value, path)
    return state


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a weights file; give the file in it.")
    if not path.is_file():  # a FIFO or a device too: reading one may never end
        raise UserError(f"there is no weights file {path}; check the path.")
    if path.suffix not in WEIGHT_FILES:
        what = foreign(path) or "no weights file"
        raise UserError(f"{path} is {what}; zeroconv reads {', '.join(sorted(WEIGHT_FILES))}.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    # the library's own errors, and those of torch for a dtype or shape that it lacks
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({_first_line(error)}); download or write "
            "it again."
        ) from error


def read_names(path: Path) -> list[str]:
    """The names of a weights file's tensors; of .safetensors its header alone is read."""
    _check_there(path)
    if check_weights_file(path) in ("zip", "pickle"):
        return list(read_state_dict(path))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({_first_line(error)}); download or write "
            "it again."
        ) from error


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The text written into a .safetensors header; empty for other files."""
    path = Path(path)
    if path.suffix != ".safetensors" or check_weights_file(path) in ("zip", "pickle"):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({_first_line(error)}); download or write "
            "it again."
        ) from error


def read_text_table(text: str, where: object) -> dict[str, Any]:
    """A JSON object from a header. Raises UserError where the text is none."""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise UserError(
            f"{where} holds no JSON ({_first_line(error)}); write the file again."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no JSON object; write the file again.")
    return value


def read_config(folder: Path, name: str = "config.json") -> dict:
    """A component's config; UserError where it is missing or no JSON object."""
    path = folder / name
    if not path.exists():
        raise UserError(f"{folder} has no {name}, so it is no model folder; check the path.")
    if not path.is_file() or path.stat().st_size > LONGEST_JSON:
        raise UserError(
            f"{path} is no config: it is no file, or larger than {LONGEST_JSON:,} bytes."
        )
    try:
        config = read_json(path, LONGEST_JSON)
    except (OSError, ValueError) as error:
        what = foreign(path)
        reason = what if what not in (None, "a JSON text") else _first_line(error)
        raise UserError(f"{path} is damaged ({reason}); download or write it again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no JSON object; download or write it again.")
    ours = config.get("zeroconv")
    if isinstance(ours, dict) and not isinstance(ours.get("condition"), str | None):
        raise UserError(
            f"{path}: its condition is {str(ours['condition'])[:80]}, not a name such as canny; "
            "write it again."
        )
    return config


COMPONENT = ("diffusion_pytorch_model", "model", "pytorch_model")


def read_weights(
    folder: Path, names: Iterable[str] = COMPONENT, variant: str | None = None
) -> dict[str, Tensor]:
    """The weights in a component's folder: plain or in shards, safetensors before pickles, full
    precision before the float16 variant.

    variant: the word of another set of weights, as in `model.fp16.safetensors`. Where the folder
    has none of it, its plain weights are read, with a note.
    """
    names = tuple(names)
    path = weights_file(folder, names, variant)
    if path is None and variant is not None:
        path = weights_file(folder, names)
        if path is not None:
            warnings.warn(
                f"{folder} has no weights of the variant {variant!r}; {path.name} is read.",
                stacklevel=2,
            )
    if path is not None:
        shards = path.suffix == ".json"
        return _read_shards(folder, path.name) if shards else read_state_dict(path)

    raise UserError(
        f"{folder} holds no weights (such as diffusion_pytorch_model.safetensors); download it "
        "again."
    )


def weights_file(
    folder: Path, names: Iterable[str] = COMPONENT, variant: str | None = None
) -> Path | None:
    """The file, or the index of shards, that `read_weights` reads; None where there is none."""
    suffixes = _SUFFIXES if variant is None else [form.format(variant) for form in _VARIANTS]
    names = tuple(names)
    paths = (folder / f"{name}{suffix}" for suffix in suffixes for name in names)
    return next((path for path in paths if path.is_file()), None)


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    """The tensors of the shards that an index names. They lie beside it: a name with a folder in
    it is refused.
    """
    table = read_config(folder, index).get("weight_map")
    where = folder / index
    if (
        not isinstance(table, dict)
        or not table
        or not all(isinstance(shard, str) for shard in table.values())
    ):
        raise UserError(f"{where} has no weight_map from tensors to files; download it again.")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(table.values())):
        if not is_plain_name(shard):
            raise UserError(
                f"{where} names the shard {shard[:80]!r}, which is not beside it, so it is refused."
            )
        if not (folder / shard).is_file():
            raise UserError(
                f"{folder} lacks the shard {shard}, which {index} names; download it again."
            )
        state |= read_state_dict(folder / shard)
    if lost := sorted(set(table) - set(state)):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UserError(
            f"the shards of {folder} lack {lost[0][:100]}{more}, which {index} names; download "
            "them again."
        )
    return state


def is_plain_name(name: str) -> bool:
    """Whether a name from a file is that of something beside it: no folder, no way up, no drive."""
    return (
        bool(name)
        and name not in (".", "..")
        and not set(name) & set("/\\:\0")
        and Path(name).name == name
    )


def _first_line(error: Exception) -> str:
    words = str(error).strip().splitlines()
    return words[0][:200].rstrip(" .") if words else type(error).__name__
