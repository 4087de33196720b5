"""LoRA files: low-rank changes of a base's weights, W + s·(α/r)·B·A (Hu et al. 2021), read in any
usual layout.

Two families of names. diffusers and peft write a module's own name with dots,
`unet.mid_block…to_q.lora_A.weight`; kohya's scripts, and with them A1111 and ComfyUI, write it with
underscores, `lora_unet_mid_block_…q.lora_down.weight`, after diffusers' names or the original ones.
A file becomes `{part: {module: LowRank}}`, to be merged into state dicts.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.checkpoints.identify import identify, refuse_folder, refuse_other_kind
from zeroconv.checkpoints.kinds import LORA, UNKNOWN
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.checkpoints.reading import (
    read_config,
    read_metadata,
    read_state_dict,
    read_text_table,
)
from zeroconv.checkpoints.strict import check_finite
from zeroconv.errors import UserError
from zeroconv.inputs import at_home
from zeroconv.words import exists, number_behind

FILE = "pytorch_lora_weights.safetensors"  # where diffusers looks in a folder
# beside it: {"base": what it was trained on, "weight": 1.0}; the folder is then a base by itself
BASE = "lora.json"

# what else such folders hold: diffusers' older file, and peft's
_PEFT = ("adapter_model.safetensors", "adapter_model.bin")
_FILES = (FILE, "pytorch_lora_weights.bin", *_PEFT)

_MATRICES = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_linear_layer.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
    "lora_linear_layer.up": "up",
}

# a module's name, which matrix, and in peft's own files the adapter's name
_KEY = re.compile(
    rf"(?P<module>.+)\.(?P<matrix>{'|'.join(map(re.escape, _MATRICES))})"
    r"(\.(?P<adapter>\w+))?\.weight"
)

# attention processors of diffusers before 0.17, of the UNet and of the text encoder
_OLD_UNET = re.compile(r"(.*)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
_OLD_TEXT = re.compile(r"(.*\.self_attn)\.to_(q|k|v|out)_lora\.(down|up)\.weight")

# embeddings of new words, which some trainers put into the LoRA's file
_BUNDLED = "bundle_emb."

_PREFIXES = {  # how a module's name begins → which part of the base it is in
    "lora_unet_": "unet",
    "lora_unet.": "unet",
    "lora_te_": "text_encoder",
    "lora_te.": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te1.": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te2.": "text_encoder_2",
    "clip_l.": "text_encoder",
    "clip_g.": "text_encoder_2",
    "base_model.model.text_model.": "text_encoder",
    "base_model.model.": "unet",
    "diffusion_model.": "unet",
    "unet.": "unet",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.": "text_encoder",
    "": "unet",
}
PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class LowRank:
    """One module's change: `up` (out, r) or (out, r, 1, 1), `down` (r, in) or (r, in, k, k),
    `scale` = α/r.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0

    def delta(self, shape: Sequence[int]) -> Tensor:
        """scale · up · down in float32, in the weight's own shape."""
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(
            *shape
        )

    def fits(self, shape: Sequence[int]) -> bool:
        inner = math.prod(shape[1:])
        return (
            self.up.shape[0] == shape[0]
            and self.down[0].numel() == inner
            and self.up[0].numel() == self.down.shape[0]
        )


@dataclass(frozen=True)
class Lora:
    """What a file holds. Names of modules are as the file writes them, without the part's
    prefix.
    """

    parts: dict[str, dict[str, LowRank]]
    where: Path


def parse_lora(text: str | os.PathLike) -> tuple[str, float]:
    """ "style.safetensors:0.8" → ("style.safetensors", 0.8); without a number, 1.

    A file whose whole name is the text wins; a note says so where the text has a second meaning.
    Raises UserError for a weight that is no finite number.
    """
    text = os.fspath(text)
    place, weight, two_ways = number_behind(text)
    if two_ways:
        other, _, number = text.rpartition(":")
        warnings.warn(
            f"{text!r} is taken as the name of a file, not as {other!r} with a weight; for that "
            f"write '{other}:{float(number):+}'.",
            stacklevel=2,
        )
    if weight is not None or exists(text):
        return place, 1.0 if weight is None else weight
    tail = text.rpartition(":")[2]
    if tail != text and not any(sign in tail for sign in "/\\"):
        raise UserError(f"the LoRA {text!r} has the weight {tail!r}; write FILE or FILE:0.8.")
    return text, 1.0


def read_lora(path: str | os.PathLike) -> Lora:
    """Read a LoRA file, or a folder of diffusers or peft that holds one.

    Raises UserError for a missing or foreign file, a matrix without its partner, and for kinds of
    change that are not low-rank sums (LoHa, LoKr, DoRA).
    """
    path = at_home(path)
    config: dict = {}
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            if (path / "config.json").is_file() or (path / "model_index.json").is_file():
                raise refuse_folder(path, "LoRA")
            raise UserError(f"the folder {path} holds no LoRA; it has none of {', '.join(_FILES)}.")
        if found[0].name in _PEFT:
            config = read_config(path, "adapter_config.json")
        path = found[0]
    state = read_state_dict(path)
    if (found_kind := identify(state)) not in (LORA, UNKNOWN):
        raise refuse_other_kind(found_kind, "LoRA", path, state)
    check_finite(state, path)
    modules: dict[str, dict[str, Tensor]] = {}
    for key, value in _without_words(state, path).items():
        module, kind = _split(key, path)
        if kind in modules.setdefault(module, {}):
            raise UserError(
                f"{path} changes {module[:100]} twice: it holds several adapters; save one a file."
            )
        modules[module][kind] = value
    config = config or read_text_table(
        read_metadata(path).get("lora_adapter_metadata", "{}"),
        f"{path}: what its header says of the adapter",
    )
    parts: dict[str, dict[str, LowRank]] = {}
    for module, found_in in modules.items():
        if not {"down", "up"} <= found_in.keys():
            have = next(iter(found_in))
            raise UserError(
                f"{path}: {module} has {have} alone; a LoRA needs both matrices, so the file is "
                "damaged."
            )
        _check_matrices(found_in["down"], found_in["up"], module, path)
        prefix = next(p for p in _PREFIXES if module.startswith(p))
        name, part = module.removeprefix(prefix), _PREFIXES[prefix]
        scale = _checked_scale(found_in, name, part, config, path)
        parts.setdefault(part, {})[name] = LowRank(found_in["down"], found_in["up"], scale)
    return Lora(parts, path)


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


def _split(key: str, where: Path) -> tuple[str, str]:
    """A key → its module, and down, up or alpha."""
    if old := _OLD_UNET.fullmatch(key):
        module, name, kind = old.groups()
        return f"{module}.{'to_out.0' if name == 'to_out' else name}", kind

    if old := _OLD_TEXT.fullmatch(key):
        module, name, kind = old.groups()
        return f"{module}.{name}_proj", kind

    if found := _KEY.fullmatch(key):
        return found["module"], _MATRICES[found["matrix"]]

    if key.endswith(".alpha"):
        return key.removesuffix(".alpha"), "alpha"
    raise UserError(
        f"{where} has {key[:200]}, which is no part of a LoRA; LoHa, LoKr, DoRA and lora_mid are "
        "not supported."
    )


def _check_matrices(down: Tensor, up: Tensor, module: str, where: Path) -> None:
    """Raise UserError unless `down` (r, in, …) and `up` (out, r, …) are float matrices of one rank,
    at least 1.
    """
    shapes = f"{list(up.shape)} × {list(down.shape)}"
    if down.ndim < 2 or up.ndim < 2 or not (down.is_floating_point() and up.is_floating_point()):
        raise UserError(
            f"{where}: {module[:100]} holds {shapes}, which are no two matrices of floats; it is "
            "damaged."
        )
    if not down.shape[0] or not down.numel() or not up.numel():
        raise UserError(
            f"{where}: {module[:100]} has rank 0 ({shapes}), so it changes nothing; it is damaged."
        )
    if up[0].numel() != down.shape[0]:
        raise UserError(
            f"{where}: the matrices of {module[:100]}, {shapes}, have different ranks; the file is "
            "damaged."
        )


def _checked_scale(
    matrices: Mapping[str, Tensor], module: str, part: str, config: Mapping, where: Path
) -> float:
    try:
        scale = _scale(matrices, module, part, config)
    except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{where}: the alpha of {module[:100]} is no number ({error}); the file is damaged."
        ) from error
    if not math.isfinite(scale):
        raise UserError(
            f"{where}: the alpha of {module[:100]} is {scale}, no finite number; the file is "
            "damaged."
        )
    return scale


def _scale(matrices: Mapping[str, Tensor], module: str, part: str, config: Mapping) -> float:
    """α/r. α stands beside the matrices (kohya), in a header or adapter_config.json (peft), or is r
    (diffusers).
    """
    rank = matrices["down"].shape[0]
    if "alpha" in matrices:
        return float(matrices["alpha"]) / rank

    def said(name: str, default: object) -> object:
        return config.get(f"{part}.{name}", config.get(name, default))

    patterns: Any = said("alpha_pattern", None) or {}
    alpha = next(
        (a for p, a in patterns.items() if module == p or module.endswith(f".{p}")),
        said("lora_alpha", rank),
    )
    return float(alpha) / (rank**0.5 if said("use_rslora", False) else rank)  # type: ignore[arg-type]


def merge(
    state: Mapping[str, Tensor], lora: Lora, part: str, weight: float = 1.0
) -> dict[str, Tensor]:
    """A part's state dict (diffusers' and transformers' names) with the change added; what changes
    is float32.

    part: one of `PARTS`. Raises UserError, naming the first, for a module that the part lacks or of
    another size.
    """
    merged, names = dict(state), _names(state, part)
    for module, change in lora.parts.get(part, {}).items():
        key = names.get(module.replace(".", "_"))
        if key is None:
            raise UserError(
                f"{lora.where} changes {module}, which this {part} lacks; it belongs to another "
                "base."
            )
        old = merged[key]
        if not change.fits(old.shape):
            found = f"{list(change.up.shape)} × {list(change.down.shape)}"
            raise UserError(
                f"{lora.where} changes {module} by {found}, but its weight is {list(old.shape)}; "
                "it belongs to a base of another size."
            )
        merged[key] = _sum(old, weight, change, f"{lora.where}: {module[:100]}")
    return merged


def _sum(old: Tensor, weight: float, change: LowRank, name: str) -> Tensor:
    """The changed weight in float32. Raises UserError where it overflows."""
    changed = old.float() + weight * change.delta(old.shape)

    if changed.numel() and not _finite(changed) and _finite(old):  # else the base is damaged
        raise UserError(
            f"{name} overflows with the weight {weight:g}; give a smaller one, or the file is "
            "damaged."
        )
    return changed


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x.float().abs().amax()))


def _names(state: Mapping[str, Tensor], part: str) -> dict[str, str]:
    """A module's name with underscores for dots, as kohya writes it → the key of its weight."""
    modules = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    names = {module.replace(".", "_"): f"{module}.weight" for module in modules}
    # transformers before 5 wrote `text_model.` before every name, and files do still
    if part != "unet":
        bare = {name.removeprefix("text_model_"): key for name, key in names.items()}
        return bare | {f"text_model_{name}": key for name, key in bare.items()}
    original = unet_names(Topology.of_diffusers(state))
    for module in modules:
        owner = module
        while owner and owner not in original:
            owner = owner.rpartition(".")[0]
        if owner:
            theirs = original[owner] + module[len(owner) :]
            names.setdefault(theirs.replace(".", "_"), f"{module}.weight")
    return names
