"""AdamW with moments of one byte each (Dettmers et al. 2022), and float32 weights that may be kept
in two halves.

Both moments are kept in blocks of 256 numbers: a float32 scale, the block's largest, and a byte a
number, four to a 32-bit word (a processor loads eight words at once, but has to put eight bytes
together). The byte counts on a curve, its square for the mean and its fourth power for the square,
which gives small numbers small steps. Rounding is random and unbiased on that curve: with β₂ =
0.999 the second moment moves by less than a step, and rounded to the nearest it would stand still.
The random numbers are a function of the step, so a run that goes on from a checkpoint is the run
that never stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from zeroconv.optim.adamw8bit_blocks import GROUPS, WIDTH, pack, update_blocks, update_plain
from zeroconv.optim.split_weights import BLOCK, join

PIECE = 2048  # blocks updated at a time on a CPU: what is in between stays in a core's cache
# on a graphics card: what is in between takes 0.37 GB, not 1.3 for the largest weight of SD 1.5
LARGE_PIECE = 2**15
# numbers of a parameter whose moments are kept in bytes; those of smaller ones stay float32
LEAST = 4096


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) in which moments take 2 bytes a number instead of 8.

    `lows`: the low halves of parameters that are bfloat16, see `zeroconv.optim.split_weights`.
    `compiled`: fuse the update by torch.compile, which needs a C++ compiler, on a graphics card
    Triton; None: where there is one. The two differ in the last bits. The update is plain tensor
    arithmetic, so any device will do. Set `gradient_scale` before `step` to have gradients
    multiplied by it, for instance to clip them without a pass of their own.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        lows: dict[torch.nn.Parameter, Tensor] | None = None,
        compiled: bool | None = None,
    ) -> None:
        self.lows = lows or {}
        super().__init__(
            parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.gradient_scale = 1.0
        device = self.param_groups[0]["params"][0].device.type
        self.at_once = compiled is None and has_kernels(device)
        # and where the weights and gradients lay that they are for
        self.kernels: tuple[Any, Any] | None = None
        self.compiled = not self.at_once and (can_compile(device) if compiled is None else compiled)
        if self.compiled:
            self._compile()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            self.state[parameter] = _new_state(parameter, self.lows.get(parameter))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        if self.at_once:
            self._update_at_once()
            return loss
        with warnings.catch_warnings():
            # while it compiles: they are meant to
            warnings.filterwarnings("ignore", message="bf16 and fp16 are mixed")
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, group)
        return loss

    def master(self, parameter: Tensor) -> Tensor:
        """The parameter in float32: itself, or both halves joined."""
        low = self.state[parameter].get("low")
        if low is None:
            return parameter.detach()
        return join(parameter.detach(), low.as_strided(parameter.shape, parameter.stride()))

    @torch.no_grad()
    def clip(self, limit: float) -> float:
        """The norm of all gradients; the next step multiplies them by what brings it down to
        `limit`.
        """
        if self.at_once:
            norm = float(self._kernels().norm())
        else:
            grads = [
                p.grad for group in self.param_groups for p in group["params"] if p.grad is not None
            ]
            norm = float(torch.stack(torch._foreach_norm(grads, 2.0, dtype=torch.float32)).norm())
        self.gradient_scale = min(1.0, limit / (norm + 1e-6))
        return norm

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would cast every state to its parameter's dtype. The weights must be
        there already: one that was kept in two halves where the state was saved, and is kept in one
        here, gets its lower half.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.kernels = None
        for number, values in state_dict["state"].items():
            parameter, ours = parameters[number], self.state[parameters[number]]
            for name, value in _as_words(values).items():
                if name == "low" and "low" not in ours:
                    flat(parameter).add_(value.to(parameter.device).flatten())
                else:
                    ours[name] = value.to(parameter.device) if torch.is_tensor(value) else value
        for ours, theirs in zip(self.param_groups, state_dict["param_groups"], strict=True):
            ours.update({name: value for name, value in theirs.items() if name != "params"})

    @torch.no_grad()
    def _compile(self) -> None:
        """Compile what the steps will run, now: it takes half a gigabyte for a while, which a
        model, its activations and gradients will need later on.
        """
        state = self.state
        kinds = {(p.dtype, "low" in state[p], p.device) for p in state if "mean_words" in state[p]}
        for dtype, has_low, device in kinds:
            # a whole piece, then remainders, whose length is found to vary
            for blocks in (PIECE, 48, 32):
                weight = torch.nn.Parameter(torch.zeros(blocks * BLOCK, dtype=dtype, device=device))
                weight.grad = torch.zeros_like(weight)
                low = torch.zeros_like(weight, dtype=torch.float16)
                self.state[weight] = _new_state(weight, low if has_low else None)
                self._update(weight, self.param_groups[0])
                del self.state[weight]

    def _update_at_once(self) -> None:
        """All parameters by one kernel a kind, see `zeroconv.optim.adamw8bit_cuda`."""
        kernels, numbers = self._kernels(), {}
        for job in kernels.kept:
            job.state["step"] += 1
            if job.numbers not in numbers:
                numbers[job.numbers] = self._numbers(job.state["step"], job.group)
        if numbers:
            kernels.update(
                [numbers[row] for row in range(len(numbers))],
                max(j.state["step"] for j in kernels.kept),
            )

    def _kernels(self) -> Any:
        """Made anew when a gradient lies elsewhere than in the step before."""
        from zeroconv.optim.adamw8bit_cuda import Job, Kernels

        places = [
            (p, group) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        key = [address for p, _ in places for address in (p.data_ptr(), p.grad.data_ptr())]  # type: ignore[union-attr]
        if self.kernels is None or self.kernels[0] != key:
            # parameters of one group that made as many steps have one row
            rows: dict[tuple[int, int], int] = {}
            jobs = []
            for p, group in places:
                row = rows.setdefault((id(group), self.state[p]["step"]), len(rows))
                jobs.append(Job(flat(p), flat(p.grad, p), self.state[p], row, group))  # type: ignore[arg-type]
            kernels = Kernels(jobs)
            moved = any(
                job.grad.data_ptr() != p.grad.data_ptr()  # type: ignore[union-attr]
                for job, (p, _) in zip(jobs, places, strict=True)
            )
            if moved:  # into the weight's order: a copy, which is of this step alone
                return kernels
            kernels.forget_gradients()
            self.kernels = (key, kernels)
        return self.kernels[1]

    def _numbers(self, step: int, group: dict[str, Any]) -> list[float]:
        """What a step's arithmetic needs to know, in the order of `update_blocks`."""
        (beta1, beta2), lr = group["betas"], group["lr"]
        return [
            self.gradient_scale,
            beta1,
            beta2,
            lr / (1 - beta1**step),
            (1 - beta2**step) ** -0.5,
            group["eps"],
            1 - lr * group["weight_decay"],
        ]

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        state["step"] += 1
        step = state["step"]
        numbers = torch.tensor(self._numbers(step, group), device=parameter.device)
        weight, grad = flat(parameter), flat(parameter.grad, parameter)  # type: ignore[arg-type]
        if "mean" in state:
            update_plain(weight, grad, state, numbers)
            return
        generator = torch.Generator(parameter.device).manual_seed(step)
        columns = torch.rand(BLOCK, generator=generator, device=parameter.device)
        rows = torch.rand(weight.numel() // BLOCK, 1, generator=generator, device=parameter.device)
        groups = [
            part.view(-1, GROUPS, WIDTH)
            for part in (weight, grad, *([state["low"]] if "low" in state else []))
        ]
        blocks = [*groups, *(state[n] for n in _NAMES), rows]
        update = compiled() if self.compiled else update_blocks
        size = PIECE if parameter.device.type == "cpu" else LARGE_PIECE
        for parts in zip(*(block.split(size) for block in blocks), strict=True):
            # .data is no view, whose base's shape would be compiled in
            grouped: list[Any] = [
                [group.data for group in part.unbind(1)] for part in parts[: len(groups)]
            ]
            update(
                *grouped[:2], *parts[len(groups) :], *grouped[2:], numbers=numbers, columns=columns
            )


_NAMES = ("mean_words", "square_words", "mean_scales", "deviation_scales")


def _new_state(parameter: Tensor, low: Tensor | None) -> dict[str, Any]:
    if parameter.numel() < LEAST or parameter.numel() % BLOCK:
        zeros = torch.zeros(parameter.numel(), device=parameter.device)
        state: dict[str, Any] = {"step": 0, "mean": zeros, "square": zeros.clone()}
        return state if low is None else {**state, "low": flat(low)}
    blocks = parameter.numel() // BLOCK
    scales = torch.zeros(blocks, 1, device=parameter.device)
    state = {
        "step": 0,
        "mean_words": torch.zeros(blocks, WIDTH, dtype=torch.int32, device=parameter.device),
        "square_words": torch.zeros(blocks, WIDTH, dtype=torch.int32, device=parameter.device),
        "mean_scales": scales,
        "deviation_scales": scales.clone(),
    }
    if low is not None:
        state["low"] = flat(low).view(-1, BLOCK)
    return state


def _as_words(state: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state; one that was saved with bytes in the order of their numbers, as at
    first, in words.
    """
    return {
        name.replace("codes", "words"): pack(list(value.view(-1, GROUPS, WIDTH).unbind(1)))
        if name in ("mean_codes", "square_codes")
        else value
        for name, value in state.items()
    }


def flat(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """The numbers of a dense tensor in the order of memory (of `like`, where it lies otherwise),
    without a copy.
    """
    if like is not None and _order(tensor) != _order(like):
        tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _order(tensor: Tensor) -> list[int]:
    """Strides, of dimensions that have more than one place."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


@torch.no_grad()
def recover_lows(
    optimizer: Any, networks: Iterable[tuple[torch.nn.Module | None, dict[str, Tensor] | None]]
) -> None:
    """The lower halves of weights that were saved in one, as a processor keeps small ones; networks
    that have loaded what was saved, and that.
    """
    for network, saved in networks if isinstance(optimizer, AdamW8bit) else ():
        for name, parameter in network.named_parameters() if network is not None else ():
            low = optimizer.state.get(parameter, {}).get("low")
            if saved is not None and low is not None and saved[name].dtype == torch.float32:
                rest = saved[name].to(parameter.device) - parameter.detach().float()
                low.copy_(flat(rest, parameter).view_as(low))


@cache
def has_kernels(device: str) -> bool:
    """Whether a device takes the kernels of `zeroconv.optim.adamw8bit_cuda`."""
    return device == "cuda" and find_spec("triton") is not None


@cache
def compiled() -> Callable[..., None]:
    # one program for whole pieces, one for remainders of any length
    return torch.compile(update_blocks)


@cache
def can_compile(device: str = "cpu") -> bool:
    """Whether torch finds what it needs to compile an update for a kind of device (a C++ compiler,
    or Triton).
    """
    try:
        torch.compile(lambda x: x * 2 + 1, dynamic=True)(torch.ones(8, device=device))
    except Exception:  # whatever is missing, the plain way remains
        return False
    return True
