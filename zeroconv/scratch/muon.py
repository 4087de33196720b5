"""Muon for many small matrices: momentum by lists of tensors, orthogonalisation in batches of equal
shape.

The same update as `zeroconv.optim.muon.Muon`. Newton–Schulz runs on the Gram matrix: for a
filter of 128 × 1152 that takes a third of the arithmetic, as only the first and the last product
touch the long side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """(k, rows, columns) → of each the nearest semi-orthogonal matrix, approximately."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)

    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    factor = None  # the product of all polynomials so far: (k, n, n)

    for i in range(ITERATIONS):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        factor = step if factor is None else step @ factor
        if i + 1 < ITERATIONS:
            gram = step @ gram @ step

    x = factor @ x  # type: ignore[operator]
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon on groups with `muon=True`, AdamW on the others; groups as
    `zeroconv.optim.muon.muon_groups` makes them.

    `lr` is AdamW's: an update of a Muon group has the root mean square 0.2·lr an entry (Liu et al.
    2025).
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, weight_decay: float = 0.01
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "muon": False,
            "momentum": 0.95,
            "betas": (0.9, 0.99),
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None

        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = (
                self._muon(parameters, group) if group["muon"] else self._adam(parameters, group)
            )
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self._kept(p, "momentum") for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        looked_ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])

        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, p in enumerate(parameters):
            shapes[(p.shape[0], p.numel() // p.shape[0])].append(i)

        updates: list[Tensor] = [torch.empty(0)] * len(parameters)
        for (rows, columns), members in shapes.items():
            stacked = torch.stack([looked_ahead[i].reshape(rows, columns) for i in members])
            turned = orthogonalise(stacked) * (0.2 * max(rows, columns) ** 0.5)
            for i, matrix in zip(members, turned, strict=True):
                updates[i] = matrix.reshape(parameters[i].shape)

        return updates

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        means = [self._kept(p, "mean") for p in parameters]
        squares = [self._kept(p, "square") for p in parameters]
        group["steps"] = group.get("steps", 0) + 1

        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)

        scales = torch._foreach_div(squares, 1 - beta2 ** group["steps"])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, 1e-8)
        updates = torch._foreach_div(means, 1 - beta1 ** group["steps"])
        torch._foreach_div_(updates, scales)

        return list(updates)

    def _kept(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]
