"""Adafactor (Shazeer & Stern 2018) for networks of convolutions, at the recipe's own learning rate.

torch.optim.Adafactor and transformers' factor the last two axes. Of a 3×3 filter bank (O, I, 3, 3)
these are 3 by 3, so that two thirds of a weight's size remain, and twice its size of a 1×1 one.
Here a filter bank is the matrix (O, I·h·w). Two more choices are the method's, and stop a
ControlNet from learning: steps relative to a weight's own size would keep zero convolutions at a
thousandth of the learning rate, and there is no step size schedule beside the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_EPS = 1e-30  # added to squared gradients (section 3.2): a weight without a gradient gets no step


class Adafactor(torch.optim.Optimizer):
    """Steps of a root mean square of at most `lr` a weight (update clipping, section 6, with d =
    1), no momentum.

    State of a matrix (O, I): O + I numbers; of a bias as many as it has. The decay of the second
    moment is 1 − t^−0.8 (section 7.2). Weight decay is decoupled, as AdamW's.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                        update, alpha=-group["lr"]
                    )
        return loss

    def _update(self, parameter: Tensor) -> Tensor:
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        matrix = grad.float().flatten(1) if grad.dim() > 1 else grad.float()  # (O, I·h·w) or (O,)
        state["step"] = state.get("step", 0) + 1
        rate = state["step"] ** -0.8  # 1 − β₂ of this step
        if matrix.dim() == 1:
            mean = _follow(state, "square", matrix.square() + _EPS, rate)
            update = matrix * mean.rsqrt()
        else:
            rows = _follow(state, "rows", matrix.square().mean(dim=1) + _EPS, rate)  # (O,)
            # (I·h·w,)
            columns = _follow(state, "columns", matrix.square().mean(dim=0) + _EPS, rate)
            update = matrix * (rows / rows.mean()).rsqrt()[:, None] * columns.rsqrt()
        size = update.square().mean().sqrt()
        return (update / size.clamp_min(1)).reshape(parameter.shape)


def _follow(state: dict[str, Tensor], name: str, value: Tensor, rate: float) -> Tensor:
    if name not in state:
        state[name] = torch.zeros_like(value)
    return state[name].lerp_(value, rate)
