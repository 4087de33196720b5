"""Whether tensors are the ones that a network needs: names, shapes, kinds, and numbers that are
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zeroconv.errors import UserError


def check_kind(name: str, value: Tensor, where: object) -> None:
    """Raise UserError for a tensor that no layer can compute with: without data, sparse,
    quantised, complex.
    """
    kind = None
    if value.is_meta:
        kind = "has no data (a meta tensor)"
    elif value.is_quantized:
        kind = "is quantised"
    elif value.is_nested or value.layout != torch.strided:
        kind = "is sparse or nested"
    elif value.is_complex():
        kind = "is complex"
    if kind:
        raise UserError(
            f"{where}: tensor {name[:100]} {kind}; save the weights as ordinary tensors."
        )


def check_finite(state: Mapping[str, Tensor], where: object) -> None:
    """Raise UserError, naming the tensor, where a weight is NaN or infinite.

    Least and largest number of each tensor in one pass: 0.13 to 0.19 s for 1.7 GB on one core,
    where `isfinite` takes 7 to 12 s. NaN is the least number of what holds one.
    """
    for name, value in state.items():
        if not value.is_floating_point() or not value.numel() or value.is_meta:
            continue
        # float8 has no least and largest
        plain = value.float() if value.element_size() == 1 else value
        if not all(bool(torch.isfinite(limit)) for limit in torch.aminmax(plain)):
            count = int((~torch.isfinite(plain)).sum())
            raise UserError(
                f"{where}: tensor {name[:100]} holds {count:,} values that are no numbers (NaN or "
                "infinite), so every picture would be black; the file is damaged or its training "
                "diverged."
            )


def check_strict(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: object
) -> None:
    """Raise UserError unless `state` has exactly the tensors of `expected`, in the same shapes,
    of finite numbers.
    """
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        parts = [f"lacks {_first(missing)}"] if missing else []
        parts += [f"has the unknown {_first(unexpected)}"] if unexpected else []
        raise UserError(f"{where} {' and '.join(parts)}; it belongs to another kind of model.")
    for key, value in state.items():
        wanted = expected[key]
        if value.shape != wanted.shape:
            raise UserError(
                f"{where}: tensor {key} has shape {list(value.shape)}, expected "
                f"{list(wanted.shape)}; it belongs to a model of another size."
            )
        if wanted.is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(
                f"{where}: tensor {key} holds {kind} numbers, not floats; it is quantised or "
                "damaged."
            )
    check_finite(state, where)


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: object) -> nn.Module:
    """Give the module these very tensors (it may be built on the meta device), after
    `check_strict`.
    """
    check_strict(module.state_dict(), state, where)
    module.load_state_dict(state, assign=True)
    return module


def _first(keys: list[str], n: int = 3) -> str:
    more = f" and {len(keys) - n} more" if len(keys) > n else ""
    return ", ".join(key[:100] for key in keys[:n]) + more
