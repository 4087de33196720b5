"""What one module's entry of a file does to its weight W (out, in) or (out, in, k, k): formulas,
and no names.

| kind | ΔW | source |
|---|---|---|
| LowRank | s · B A, for convolutions also with a core (Tucker) | Hu et al. 2021, eq. 3; LyCORIS |
| Hadamard (LoHa) | s · (B₁ A₁) ∘ (B₂ A₂) | Hyeon-Woo et al. 2022 (FedPara), eq. 1 |
| Kronecker (LoKr) | s · W₁ ⊗ W₂ | Yeh et al. 2024 (LyCORIS), section 3 |
| Difference | the tensor itself | LyCORIS's full training, and its norms |
| Decomposed (DoRA) | m · (W + ΔW) / ‖W + ΔW‖ − W | Liu et al. 2024, eq. 5 |

A strength multiplies ΔW as a whole. s is α / rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Change(Protocol):
    """A change of one weight or bias."""

    def delta(self, weight: Tensor) -> Tensor:
        """The change of this weight in float32, in its shape."""
        ...

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it is a change of a weight of this shape."""
        ...

    @property
    def sizes(self) -> str:
        """The shapes of its tensors, for sentences."""
        ...


@dataclass(frozen=True)
class LowRank:
    """`up` (out, r) or (out, r, 1, 1), `down` (r, in) or (r, in, k, k), `scale` = α/r.

    With a `core` (r, r, k, k), `down` is (r, in, 1, 1) and
    ΔW[o, i] = Σ up[o, a] core[a, b] down[b, i].
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    core: Tensor | None = None

    def delta(self, weight: Tensor) -> Tensor:
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if self.core is None:
            product = up @ down
        else:
            product = torch.einsum("oa,abkl,bi->oikl", up, self.core.float(), down)
        return self.scale * product.reshape(weight.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        inner = self.down[0].numel()
        if self.core is not None:
            inner *= math.prod(self.core.shape[2:])
            if self.core.ndim != 4 or self.core.shape[1] != self.down.shape[0]:
                return False
        ranks = self.down.shape[0] if self.core is None else self.core.shape[0]
        return _fits(shape, self.up.shape[0], inner) and self.up[0].numel() == ranks

    @property
    def sizes(self) -> str:
        return _sizes(self.up, self.core, self.down)


@dataclass(frozen=True)
class Hadamard:
    """Two products of low rank, multiplied number by number.

    Each is `a` (out, r), `b` (r, in·k·k); or with a `core` (r, r, k, k), `a` (r, out), `b` (r, in).
    """

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    scale: float = 1.0
    cores: tuple[Tensor, Tensor] | None = None

    def delta(self, weight: Tensor) -> Tensor:
        cores = self.cores or (None, None)
        one, two = (_product(*p, c) for p, c in zip((self.first, self.second), cores, strict=True))
        return self.scale * (one * two).reshape(weight.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        cores = self.cores or (None, None)
        pairs = zip((self.first, self.second), cores, strict=True)
        sizes = [_product_size(*pair, core) for pair, core in pairs]
        return all(size is not None and _fits(shape, *size) for size in sizes)

    @property
    def sizes(self) -> str:
        return _sizes(*self.first, *self.second)


@dataclass(frozen=True)
class Kronecker:
    """`w1` (a, b) and `w2` (c, d) or (c, d, k, k), multiplied out where a file has their factors:
    a·c = out, b·d = in.
    """

    w1: Tensor
    w2: Tensor
    scale: float = 1.0

    def delta(self, weight: Tensor) -> Tensor:
        w1, w2 = self.w1.float(), self.w2.float()
        w1 = w1.reshape(*w1.shape, *[1] * (w2.ndim - w1.ndim))
        return self.scale * torch.kron(w1.contiguous(), w2.contiguous()).reshape(weight.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        if self.w1.ndim != 2 or self.w2.ndim < 2:
            return False
        inner = self.w1.shape[1] * self.w2[0].numel()
        return _fits(shape, self.w1.shape[0] * self.w2.shape[0], inner)

    @property
    def sizes(self) -> str:
        return _sizes(self.w1, self.w2)


@dataclass(frozen=True)
class Difference:
    """The whole change, in the weight's own shape."""

    value: Tensor

    def delta(self, weight: Tensor) -> Tensor:
        return self.value.float().reshape(weight.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        inner = math.prod(self.value.shape[1:])
        return self.value.ndim > 0 and _fits(shape, self.value.shape[0], inner)

    @property
    def sizes(self) -> str:
        return _sizes(self.value)


@dataclass(frozen=True)
class Decomposed:
    """DoRA around another change: directions W + ΔW, each brought to the length that `magnitude`
    says.

    magnitude: (out,) numbers of outputs (peft; LyCORIS's newer files, as (out, 1)), or (1, in) of
    inputs (LyCORIS), also with further axes of 1. outputs: which of the two.
    """

    change: Change
    magnitude: Tensor
    outputs: bool

    def delta(self, weight: Tensor) -> Tensor:
        old = weight.float()
        new = old + self.change.delta(weight)
        ones = [1] * (new.ndim - 2)
        if self.outputs:
            length = new.flatten(1).norm(dim=1).reshape(-1, 1, *ones)
        else:
            length = new.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *ones)
        magnitude = self.magnitude.float().reshape(length.shape)
        # a direction of zeros stays one
        return new * (magnitude / length.clamp_min(torch.finfo(torch.float32).eps)) - old

    def fits(self, shape: Sequence[int]) -> bool:
        numbers = shape[0 if self.outputs else 1] if len(shape) > 1 else -1
        return self.magnitude.numel() == numbers and self.change.fits(shape)

    @property
    def sizes(self) -> str:
        return f"{self.change.sizes} and a magnitude {list(self.magnitude.shape)}"


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """(out, in·k·k), or (out, in, k, k) with a core."""
    if core is None:
        return a.float() @ b.float()
    return torch.einsum("abkl,ao,bi->oikl", core.float(), a.float(), b.float())


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r, r, k, k), a (r, out), b (r, in) → (out, in, k, k), float32."""
    return _product(a, b, core)


def _product_size(a: Tensor, b: Tensor, core: Tensor | None) -> tuple[int, int] | None:
    """Outputs, and inputs times places of the filter; None where the shapes do not go together."""
    if a.ndim != 2 or b.ndim != 2:
        return None
    if core is None:
        return (a.shape[0], b.shape[1]) if a.shape[1] == b.shape[0] else None
    if core.ndim != 4 or tuple(core.shape[:2]) != (a.shape[0], b.shape[0]):
        return None
    return a.shape[1], b.shape[1] * core.shape[2] * core.shape[3]


def _fits(shape: Sequence[int], outputs: int, inner: int) -> bool:
    return len(shape) > 0 and shape[0] == outputs and math.prod(shape[1:]) == inner


def _sizes(*tensors: Tensor | None) -> str:
    return " × ".join(str(list(tensor.shape)) for tensor in tensors if tensor is not None)
