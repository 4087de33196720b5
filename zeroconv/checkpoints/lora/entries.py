"""The tensors of one module → its changes; their roles are those of `keys.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroconv.checkpoints.lora.changes import (
    Change,
    Decomposed,
    Difference,
    Hadamard,
    Kronecker,
    LowRank,
    tucker,
)
from zeroconv.errors import UserError

Tensors = Mapping[str, Tensor]

_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CORES = ("hada_t1", "hada_t2")


def changes_of(
    tensors: Tensors, module: str, part: str, config: Mapping, where: Path
) -> dict[str, Change]:
    """Changes by the name of what they change: the module's own for its weight, with `.bias` for
    its bias.

    config: peft's, from a header or adapter_config.json. Raises UserError for tensors that do not
    make a whole change.
    """
    here = f"{where}: {module[:100]}"
    for role, value in tensors.items():
        if role not in ("alpha", "scalar"):
            _check_tensor(value, role, here)
    made: dict[str, Change] = {}
    if "bias" in tensors:
        made[f"{module}.bias"] = Difference(tensors["bias"])
    if "weight" in tensors:
        made[module] = Difference(tensors["weight"])
    rest = tensors.keys() - {"bias", "weight"}
    if rest and not (made and rest <= {"alpha", "scalar"}):
        change, rank = _product(tensors, here)
        scale = _checked_scale(tensors, rank, module, part, config, where)
        made[module] = _lengths(_scaled(change, scale), tensors, here)
    return made


def _product(tensors: Tensors, here: str) -> tuple[Change, int | None]:
    """The change without its scale, and its rank: None where both factors of a LoKr are whole."""
    if any(role in tensors for role in (*_HADA, *_CORES)):
        return _hadamard(tensors, here)
    if any(role.startswith("lokr_") for role in tensors):
        return _kronecker(tensors, here)
    if not {"down", "up"} <= tensors.keys():
        have = next(iter(tensors))
        raise UserError(
            f"{here} has {have} alone; a LoRA needs both matrices, so the file is damaged."
        )
    down, up, core = tensors["down"], tensors["up"], tensors.get("core")
    shapes = f"{list(up.shape)} × {list(down.shape)}"
    inner = down.shape[0] if core is None else core.shape[0]
    if up[0].numel() != inner or (core is not None and core.shape[1] != down.shape[0]):
        raise UserError(
            f"{here}: its matrices, {shapes}, have different ranks; the file is damaged."
        )
    return LowRank(down, up, core=core), down.shape[0]


def _hadamard(tensors: Tensors, here: str) -> tuple[Change, int]:
    if missing := [role for role in _HADA if role not in tensors]:
        raise UserError(f"{here} lacks {missing[0]} of its LoHa, so the file is damaged.")
    if any(role in tensors for role in _CORES) and not all(role in tensors for role in _CORES):
        raise UserError(f"{here} has one core of a LoHa alone, so the file is damaged.")
    one, two, three, four = (tensors[role] for role in _HADA)
    cores = (tensors["hada_t1"], tensors["hada_t2"]) if "hada_t1" in tensors else None
    return Hadamard((one, two), (three, four), cores=cores), two.shape[0]


def _kronecker(tensors: Tensors, here: str) -> tuple[Change, int | None]:
    rank = None
    try:
        first, second = tensors.get("lokr_w1"), tensors.get("lokr_w2")
        if first is None:
            first = tensors["lokr_w1_a"].float() @ tensors["lokr_w1_b"].float()
            rank = tensors["lokr_w1_b"].shape[0]
        if second is None:
            a, b, core = tensors["lokr_w2_a"], tensors["lokr_w2_b"], tensors.get("lokr_t2")
            second = a.float() @ b.float() if core is None else tucker(core, a, b)
            rank = b.shape[0]
    except KeyError as error:
        raise UserError(
            f"{here} lacks {error.args[0]} of its LoKr, so the file is damaged."
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{here}: the matrices of its LoKr do not go together ({reason}); the file is damaged."
        ) from error
    return Kronecker(first, second), rank


def _scaled(change: Change, scale: float) -> Change:
    if isinstance(change, LowRank):
        return LowRank(change.down, change.up, scale, change.core)
    if isinstance(change, Hadamard):
        return Hadamard(change.first, change.second, scale, change.cores)
    assert isinstance(change, Kronecker)
    return Kronecker(change.w1, change.w2, scale)


def _lengths(change: Change, tensors: Tensors, here: str) -> Change:
    """With DoRA's magnitudes around it, where there are some."""
    if "magnitude" in tensors:  # peft: one number an output
        return Decomposed(change, tensors["magnitude"], outputs=True)
    if "dora_scale" not in tensors:
        return change
    shape = tensors["dora_scale"].shape
    outputs = len(shape) == 1 or math.prod(shape[1:]) == 1
    if not outputs and math.prod(shape) != shape[1]:
        raise UserError(
            f"{here}: its dora_scale has shape {list(shape)}, but it is one number an output or "
            "one an input; the file is damaged."
        )
    return Decomposed(change, tensors["dora_scale"], outputs)


def _check_tensor(value: Tensor, role: str, here: str) -> None:
    """Raise UserError unless it holds floats, and has the axes of its role."""
    vector = role in ("bias", "weight", "magnitude", "dora_scale")
    if not value.is_floating_point() or (value.ndim < 2 and not vector) or not value.ndim:
        raise UserError(
            f"{here} holds {list(value.shape)} as {role}, which are no two matrices of floats; it "
            "is damaged."
        )
    if not value.numel():
        raise UserError(
            f"{here} has rank 0 ({role} is {list(value.shape)}), so it changes nothing; it is "
            "damaged."
        )


def _checked_scale(
    tensors: Tensors, rank: int | None, module: str, part: str, config: Mapping, where: Path
) -> float:
    try:
        scale = _scale(tensors, rank, module, part, config)
        scale *= float(tensors.get("scalar", torch.ones(())))
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


def _scale(tensors: Tensors, rank: int | None, module: str, part: str, config: Mapping) -> float:
    """α / rank. α stands beside the matrices (kohya), in a header or adapter_config.json (peft), or
    is the rank (diffusers).

    A LoKr of two whole factors has no rank: LyCORIS then has the scale 1 whatever α is, and peft
    the rank of its config.
    """

    # diffusers calls a transformer by its name
    words = (part, "transformer") if part == "unet" else (part,)

    def option(name: str, default: object) -> Any:
        named = (f"{word}.{name}" for word in words)
        return next((config[n] for n in (*named, name) if n in config), default)

    if "alpha" in tensors:
        alpha = float(tensors["alpha"])
        return 1.0 if rank is None else alpha / rank
    if rank is None:
        ranks = option("rank_pattern", None) or {}
        rank = int(_matching(ranks, module, option("r", 1)))
        if option("alpha", None) is None:
            return 1.0
    alphas = option("alpha_pattern", None) or {}
    alpha = _matching(alphas, module, option("lora_alpha", option("alpha", rank)))
    return float(alpha) / (rank**0.5 if option("use_rslora", False) else rank)


def _matching(patterns: Any, module: str, default: Any) -> Any:
    """The value of the pattern that a module's name ends in."""
    return next(
        (v for p, v in patterns.items() if module == p or module.endswith(f".{p}")), default
    )
