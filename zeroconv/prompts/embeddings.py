"""Textual inversion: files whose vectors stand in a prompt for a name (Gal et al. 2022).

Read are A1111's `.pt` (`string_to_param`) and `.safetensors` (`emb_params`), diffusers'
`learned_embeds` (the token is the key), and SDXL's `clip_l` and `clip_g`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.checkpoints.pickled import load_pickle
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.checkpoints.sniff import check_weights_file
from zeroconv.errors import UserError

MOST_VECTORS = 1000  # of one file, to keep it from taking the whole prompt
_PARTS = ("clip_l", "clip_g")  # SDXL's first and second text encoder
_ANY = "any"


@dataclass(frozen=True)
class Embedding:
    """Vectors of a name, (n, D) a text encoder: "clip_l" and "clip_g", or "any" for one."""

    name: str
    vectors: Mapping[str, Tensor]
    where: str = ""  # the file, for messages

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UserError(f"the embedding {self.where} has no name; give one.")
        if len(self.name) > 200:
            raise UserError(f"the embedding {self.where} has a name of {len(self.name)} letters.")
        for part, matrix in self.vectors.items():
            _check(matrix, f"the embedding {self.name!r} ({self.where or part})")


def load_embedding(path: str | os.PathLike, name: str | None = None) -> Embedding:
    """Read a file of textual inversion.

    name: what stands for it in prompts; by default the token that diffusers' files hold, else the
    file's name without its suffix, as in A1111. Raises UserError for a file that holds none.
    """
    path = Path(path)
    state = _read(path)
    parts = {part: state[part] for part in _PARTS if part in state}
    if parts:
        return Embedding(name or path.stem, _rows(parts), str(path))

    vectors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if len(vectors) != 1:
        raise UserError(
            f"{path} holds {len(vectors)} tensors, so it is no textual-inversion embedding; give "
            "a file with emb_params, string_to_param, clip_l and clip_g, or one token."
        )
    key, matrix = next(iter(vectors.items()))
    token = path.stem if key in ("emb_params", "*") else key
    return Embedding(name or token, _rows({_ANY: matrix}), str(path))


def embeddings_from(given: Any) -> list[Embedding]:
    """What `generate(embeddings=…)` takes: a list of files or `Embedding`s, or a mapping from
    names to files, tensors (n, D) or `Embedding`s.

    Raises TypeError for anything else, UserError for what a file has wrong and for equal names.
    """
    if given is None:
        return []
    entries: list[tuple[str | None, Any]]
    if isinstance(given, Mapping):
        entries = list(given.items())
    elif isinstance(given, Sequence) and not isinstance(given, str):
        entries = [(None, value) for value in given]
    else:
        entries = [(None, given)]

    made = [_embedding(name, value) for name, value in entries]
    names = [one.name.strip().lower() for one in made]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two embeddings have the name {twice!r}; give one another name.")
    return made


def _embedding(name: str | None, value: Any) -> Embedding:
    if isinstance(value, Embedding):
        return value if name is None else Embedding(name, value.vectors, value.where)
    if isinstance(value, Tensor) and name is not None:
        return Embedding(name, _rows({_ANY: value}), "a tensor")
    if isinstance(value, str | os.PathLike):
        return load_embedding(value, name)
    raise TypeError(
        f"embeddings holds a {type(value).__name__}; give files, or a mapping from names to files "
        "or tensors (n, D)."
    )


def for_encoders(
    embeddings: Sequence[Embedding], widths: Sequence[int]
) -> list[list[tuple[str, Tensor]]]:
    """Of each text encoder, whose token vectors are `widths` long: names and vectors (n, D).

    Raises UserError where an embedding belongs to another base.
    """
    loaded: list[list[tuple[str, Tensor]]] = [[] for _ in widths]
    for one in embeddings:
        places = {}
        for part, matrix in one.vectors.items():
            fitting = [number for number, width in enumerate(widths) if width == matrix.shape[1]]
            if part in _PARTS and len(widths) == len(_PARTS):
                fitting = [n for n in fitting if n == _PARTS.index(part)]
            if (part in _PARTS and len(widths) == 1 and len(one.vectors) > 1) or not fitting:
                reads = " and ".join(map(str, widths))
                raise UserError(
                    f"the embedding {one.name!r} ({one.where}) has {_shape(one)}, and the text "
                    f"encoders of this base read vectors of {reads} numbers: it belongs to "
                    "another base."
                )
            places[fitting[0]] = matrix
        for number, matrix in places.items():
            loaded[number].append((one.name, matrix))
        if len(places) < len(widths):
            warnings.warn(
                f"the embedding {one.name!r} has vectors for one text encoder of {len(widths)}; "
                "the other reads its name as text.",
                stacklevel=2,
            )
    return loaded


def _shape(one: Embedding) -> str:
    return " and ".join(f"{part} of {matrix.shape[1]}" for part, matrix in one.vectors.items())


def _read(path: Path) -> Mapping[str, Any]:
    """The tensors of a file under their names, `string_to_param` unpacked."""
    form = check_weights_file(path) if path.is_file() else "unknown"
    if form not in ("zip", "pickle"):
        return read_state_dict(path)

    loaded = load_pickle(path, form == "zip", [nn.ParameterDict])
    inner = loaded.get("string_to_param") if isinstance(loaded, Mapping) else None
    if isinstance(inner, nn.ParameterDict):  # A1111's files of torch before 1.12
        inner = vars(inner).get("_parameters")
    if isinstance(inner, Mapping):
        return {"*": next(iter(inner.values()))} if len(inner) == 1 else inner
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path} holds no tensors under names; is it an embedding?")
    return {key: value for key, value in loaded.items() if isinstance(key, str)}


def _rows(vectors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Float32 matrices (n, D); one vector (D,) is a matrix of one row."""
    loaded = {}
    for part, value in vectors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"an embedding's {part} is a {type(value).__name__}, not a tensor.")
        value = value.detach().float().cpu() if value.is_floating_point() else value
        loaded[part] = value[None] if value.ndim == 1 else value
    return loaded


def _check(matrix: Tensor, what: str) -> None:
    shape = tuple(matrix.shape)
    if matrix.ndim != 2 or not 1 <= shape[0] <= MOST_VECTORS or not matrix.is_floating_point():
        raise UserError(
            f"{what} holds a tensor of shape {shape} and {matrix.dtype}; an embedding has 1 to "
            f"{MOST_VECTORS} vectors (n, D) of floating-point numbers."
        )
    if not bool(torch.isfinite(matrix).all()):
        raise UserError(f"{what} holds numbers that are not finite; get it again.")
