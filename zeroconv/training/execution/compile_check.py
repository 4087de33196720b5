"""Whether compiled layers have the gradients of plain ones, asked once a run on a CPU.

torch's compiler is sometimes wrong there, without a word: torch 2.13 gives zero gradients where an
upsampling follows a residual block in one program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from zeroconv.errors import UserError

SHARE = 0.2  # of a gradient's norm: rounding in few bits stays well below it
SMALL = 1e-3  # of the norm of all gradients of a layer: what is smaller is rounding


class FirstCalls:
    """Keeps what each kind of layer was first given, and compares the two ways once."""

    def __init__(self) -> None:
        self.calls: dict[str, Callable[[], bool] | None] = {}  # None: compared already

    def keep(
        self,
        kind: str,
        plain: Callable[..., Any],
        program: Callable[..., Any],
        layer: nn.Module,
        given: tuple[tuple, dict[str, Any]],
    ) -> None:
        """Remember the first call of a kind of layers that gradients are made of. given: its
        arguments.
        """
        if kind in self.calls or not torch.is_grad_enabled() or not _comparable(layer, given):
            return  # a later call of the kind may be

        low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        # torch would compile anew for a tuple in place of a size
        held = tree_map(_held, given, is_leaf=lambda node: isinstance(node, torch.Size))
        self.calls[kind] = lambda: _agree(plain, program, layer, held, low)

    def compare(self) -> None:
        """After both passes of a step. Raises UserError where a kind's gradients differ."""
        for kind, call in self.calls.items():
            if call is None:
                continue
            self.calls[kind] = None
            if not call():
                name = kind.partition("(")[0]
                raise UserError(
                    f"torch.compile gives {name} wrong gradients on this processor; leave "
                    "training.compile out."
                )


def _comparable(layer: nn.Module, given: tuple[tuple, dict[str, Any]]) -> bool:
    """On a CPU, and gradients are asked for. What several processes share in parts is whole during
    the passes alone.
    """
    tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    tensors += list(layer.parameters())

    whole = all(t.device.type == "cpu" and type(t).__name__ != "DTensor" for t in tensors)
    return whole and any(t.requires_grad for t in tensors)


def _held(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf

    return leaf.detach().requires_grad_(leaf.requires_grad)


def _agree(
    plain: Callable[..., Any],
    program: Callable[..., Any],
    layer: nn.Module,
    held: tuple[tuple, dict[str, Any]],
    low: torch.dtype | None,
) -> bool:
    """Whether outputs' gradients with regard to inputs and weights are the same both ways."""
    args, kwargs = held
    leaves = [leaf for leaf in tree_leaves(held) if isinstance(leaf, Tensor)]
    asked = [leaf for leaf in [*leaves, *layer.parameters()] if leaf.requires_grad]

    def gradients(call: Callable[..., Any]) -> list[Tensor]:
        with torch.enable_grad(), torch.autocast("cpu", low, enabled=low is not None):
            made = [out for out in tree_leaves(call(*args, **kwargs)) if isinstance(out, Tensor)]
        made = [out for out in made if out.requires_grad]
        weights = [torch.linspace(-1, 1, o.numel()).reshape(o.shape).to(o.dtype) for o in made]
        taken = torch.autograd.grad(made, asked, weights, allow_unused=True)
        return [torch.zeros(()) if g is None else g.float() for g in taken]

    try:
        first = gradients(plain)
    except AssertionError:
        return True  # it reads more than its arguments, such as what a hypernetwork sets before

    second = gradients(lambda *a, **k: program(layer, *a, **k))
    total = float(torch.stack([g.norm() for g in first]).norm())

    return all(
        float((a - b).norm()) <= SHARE * float(a.norm()) + SMALL * total
        for a, b in zip(first, second, strict=True)
    )
