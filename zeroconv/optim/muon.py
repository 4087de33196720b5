"""Muon for convolutional networks: orthogonalised momentum for matrices and filters, AdamW for the
rest.

Training from scratch on a CPU is limited by arithmetic, not by optimiser state, so an optimiser
that needs fewer steps pays for its own matrix products. `torch.optim.Muon` takes matrices only;
filters are flattened here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from zeroconv.optim.orthogonal import orthogonalise, orthogonalise_many


class Muon(torch.optim.Optimizer):
    """Muon on parameters of two and more dimensions, AdamW on the rest (biases, norms, embeddings,
    outer layers).

    Build the groups with `muon_groups`. `lr` of a Muon group is the root-mean-square size of one
    update of an entry relative to AdamW's (the 0.2·√max(rows, columns) scaling of Liu et al. 2025),
    so one learning rate serves both.

    `stacked`: a group is updated at once, and its matrices of one shape are orthogonalised
    together. That is faster for many small matrices, and takes the memory of all updates instead of
    the largest one. The two ways differ by rounding.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.01,
        stacked: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "muon": False,
            "momentum": 0.95,
            "betas": (0.9, 0.99),
        }
        super().__init__(groups, defaults)
        self.stacked = stacked

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None

        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if self.stacked and parameters:
                self._update(parameters, group)
                continue
            for parameter in parameters:
                self._update([parameter], group)

        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's. Older states count the steps of a group, not of each parameter."""
        super().load_state_dict(state_dict)

        for group in self.param_groups:
            steps = group.pop("steps", None)
            for parameter in group["params"] if steps is not None else ():
                if "mean" in self.state[parameter]:
                    self.state[parameter].setdefault("step", steps)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        compute = self._muon if group["muon"] else self._adam
        updates = compute(parameters, gradients, group)

        _scale_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _muon(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """Of each parameter the orthogonalised Nesterov momentum, flattened to a matrix for it."""
        momenta = self._moments(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        looked_ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        matrices = [x.reshape(x.shape[0], -1) for x in looked_ahead]

        turned = _all_orthogonal(matrices) if self.stacked else map(orthogonalise, matrices)
        scaled = [x * (0.2 * max(x.shape) ** 0.5) for x in turned]
        return [x.reshape(p.shape) for x, p in zip(scaled, parameters, strict=True)]

    def _adam(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """AdamW's updates (Loshchilov & Hutter 2019), without the weight decay."""
        beta1, beta2 = group["betas"]
        means = self._moments(parameters, "mean")
        squares = self._moments(parameters, "square")
        steps = [self._count(p) for p in parameters]

        torch._foreach_lerp_(means, gradients, 1 - beta1)
        _scale_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)

        scales = torch._foreach_div(squares, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, 1e-8)
        updates = torch._foreach_div(means, [1 - beta1**step for step in steps])
        torch._foreach_div_(updates, scales)

        return list(updates)

    def _moments(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)

        return [self.state[parameter][name] for parameter in parameters]

    def _count(self, parameter: Tensor) -> int:
        """The number of this step of a parameter, from 1."""
        state = self.state[parameter]
        state["step"] = state.get("step", 0) + 1

        return state["step"]


def _scale_(tensors: list[Tensor], factor: float) -> None:
    """Multiply in place. The list function rounds the factor to bfloat16 for such tensors, so a
    single one does without it.
    """
    if len(tensors) == 1:
        tensors[0].mul_(factor)
    else:
        torch._foreach_mul_(tensors, factor)


def _all_orthogonal(matrices: list[Tensor]) -> list[Tensor]:
    """`orthogonalise_many` of the matrices of each shape."""
    members = defaultdict(list)
    for i, matrix in enumerate(matrices):
        members[matrix.shape].append(i)

    turned = list(matrices)
    for numbers in members.values():
        together = orthogonalise_many(torch.stack([matrices[i] for i in numbers]))
        for i, matrix in zip(numbers, together, strict=True):
            turned[i] = matrix

    return turned


def muon_groups(modules: Iterable[torch.nn.Module]) -> list[dict[str, Any]]:
    """Two parameter groups for `Muon`: hidden matrices and filters, and everything else.

    Embeddings and layers that read or write the data itself (fewer than 16 channels on a side) go
    to AdamW: their rows are features in their own right and are not to be equalised.
    """
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for module in modules:
        embeddings = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
        for parameter in module.parameters():
            if parameter.requires_grad:
                matrix = (
                    parameter.ndim >= 2
                    and min(parameter.shape[:2]) >= 16
                    and id(parameter) not in embeddings
                )
                (hidden if matrix else rest).append(parameter)

    return [{"params": hidden, "muon": True}, {"params": rest, "muon": False, "weight_decay": 0.0}]
