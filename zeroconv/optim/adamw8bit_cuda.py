"""AdamW8bit on a graphics card: one kernel a step for all parameters, by Triton.

One parameter after the other, a step of Stable Diffusion 1.5's control is some thousand launches,
which took 113 ms on an H100 for what one kernel does in two. What it needs to know of a parameter
(where its numbers lie, how many there are) stands in a table, and every program looks up which part
of which parameter is its own. The curve, the scales and the layout are those of
`zeroconv.optim.adamw8bit`; the random numbers are Philox's, a function of the step and the place,
so that a card rounds otherwise than a processor, and the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 8  # blocks of 256 numbers that a program updates
PIECE = 1024  # numbers of a small parameter, or of a gradient of which the norm is wanted
# of a parameter in the table (the kernels say 9): seven addresses, its length, its row of numbers
FIELDS = 9


@triton.jit
def _step(at, mask, weight, grad, low, mean, deviation, numbers, HAS_LOW: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bring mean and deviation of some numbers up to date, and the weights; as
    `adamw8bit.update_blocks`.
    """
    scale, beta1, beta2 = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    size, root, eps, decay = (
        tl.load(numbers + 3),
        tl.load(numbers + 4),
        tl.load(numbers + 5),
        tl.load(numbers + 6),
    )
    g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32) * scale
    mean = mean * beta1 + g * (1 - beta1)
    deviation = tl.sqrt(deviation * deviation * beta2 + g * g * (1 - beta2))
    joined = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    if HAS_LOW:
        joined += tl.load(low + at, mask=mask, other=0.0).to(tl.float32)
    joined = joined * decay - size * mean / (deviation * root + eps)
    if HAS_LOW:
        high = joined.to(tl.bfloat16)
        tl.store(weight + at, high, mask=mask)
        tl.store(low + at, (joined - high.to(tl.float32)).to(tl.float16), mask=mask)
    else:
        tl.store(weight + at, joined, mask=mask)
    return mean, deviation


@triton.jit
def _mean_of(words, scales, k: tl.constexpr):  # type: ignore[no-untyped-def]
    code = (words << (24 - 8 * k) >> 24).to(tl.float32) * (1 / 127)
    return code * tl.abs(code) * scales


@triton.jit
def _deviation_of(words, scales, k: tl.constexpr):  # type: ignore[no-untyped-def]
    code = (words >> 8 * k & 255).to(tl.float32) * (1 / 255)
    return code * code * scales


@triton.jit
def _largest(a, b, c, d):  # type: ignore[no-untyped-def]
    return tl.max(
        tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.maximum(tl.abs(c), tl.abs(d))), axis=1
    )[:, None]


@triton.jit
def _mean_code(mean, fit, chance, k: tl.constexpr):  # type: ignore[no-untyped-def]
    code = tl.minimum(tl.floor(tl.sqrt(tl.abs(mean) * fit) + chance), 127.0).to(tl.int32)
    return (tl.where(mean < 0, -code, code) & 255) << 8 * k


@triton.jit
def _deviation_code(deviation, fit, chance, k: tl.constexpr):  # type: ignore[no-untyped-def]
    code = tl.floor(tl.sqrt(deviation * fit) + chance)  # never zero, see `adamw8bit`
    return tl.minimum(tl.maximum(code, 1.0), 255.0).to(tl.int32) << 8 * k


# else a step whose number 16 divides would be a program of its own
@triton.jit(do_not_specialize=["seed"])
def _update_blocks(  # type: ignore[no-untyped-def]
    table, jobs, firsts, numbers, seed, HAS_LOW: tl.constexpr, ROWS: tl.constexpr
):
    program = tl.program_id(0)
    job = tl.load(jobs + program)
    entry = table + job * 9
    kind: tl.constexpr = tl.bfloat16 if HAS_LOW else tl.float32
    weight = tl.multiple_of(tl.load(entry).to(tl.pointer_type(kind)), 16)
    grad = tl.multiple_of(tl.load(entry + 1).to(tl.pointer_type(kind)), 16)
    low = tl.multiple_of(tl.load(entry + 2).to(tl.pointer_type(tl.float16)), 16)
    mean_words = tl.multiple_of(tl.load(entry + 3).to(tl.pointer_type(tl.int32)), 16)
    square_words = tl.multiple_of(tl.load(entry + 4).to(tl.pointer_type(tl.int32)), 16)
    mean_scales = tl.load(entry + 5).to(tl.pointer_type(tl.float32))
    deviation_scales = tl.load(entry + 6).to(tl.pointer_type(tl.float32))
    numbers += 7 * tl.load(entry + 8)
    rows = tl.load(firsts + program) + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, 64)[None, :]
    there = rows < tl.load(entry + 7)
    mask, words, at = there & (columns >= 0), rows * 64 + columns, rows * 256 + columns
    m, s = (
        tl.load(mean_words + words, mask=mask, other=0),
        tl.load(square_words + words, mask=mask, other=0),
    )
    ms = tl.load(mean_scales + rows, mask=there, other=0.0)
    ds = tl.load(deviation_scales + rows, mask=there, other=0.0)
    m0, d0 = _step(
        at, mask, weight, grad, low, _mean_of(m, ms, 0), _deviation_of(s, ds, 0), numbers, HAS_LOW
    )
    m1, d1 = _step(
        at + 64,
        mask,
        weight,
        grad,
        low,
        _mean_of(m, ms, 1),
        _deviation_of(s, ds, 1),
        numbers,
        HAS_LOW,
    )
    m2, d2 = _step(
        at + 128,
        mask,
        weight,
        grad,
        low,
        _mean_of(m, ms, 2),
        _deviation_of(s, ds, 2),
        numbers,
        HAS_LOW,
    )
    m3, d3 = _step(
        at + 192,
        mask,
        weight,
        grad,
        low,
        _mean_of(m, ms, 3),
        _deviation_of(s, ds, 3),
        numbers,
        HAS_LOW,
    )
    # no two programs have the same places: all blocks are numbered through
    c0, c1, c2, c3 = tl.rand4x(
        seed, program * ROWS * 64 + tl.arange(0, ROWS)[:, None] * 64 + columns
    )
    largest = _largest(m0, m1, m2, m3)
    fit = 16129.0 / tl.maximum(largest, 1e-30)
    codes = _mean_code(m0, fit, c0, 0) | _mean_code(m1, fit, c1, 1)
    codes = codes | _mean_code(m2, fit, c2, 2) | _mean_code(m3, fit, c3, 3)
    tl.store(mean_words + words, codes, mask=mask)
    tl.store(mean_scales + rows, largest, mask=there)
    largest = _largest(d0, d1, d2, d3)
    fit = 65025.0 / tl.maximum(largest, 1e-30)
    codes = _deviation_code(d0, fit, c0, 0) | _deviation_code(d1, fit, c1, 1)
    codes = codes | _deviation_code(d2, fit, c2, 2) | _deviation_code(d3, fit, c3, 3)
    tl.store(square_words + words, codes, mask=mask)
    tl.store(deviation_scales + rows, largest, mask=there)


@triton.jit(do_not_specialize=["seed"])
def _update_plain(  # type: ignore[no-untyped-def]
    table, jobs, firsts, numbers, seed, HAS_LOW: tl.constexpr, PIECE: tl.constexpr
):
    """Of parameters whose moments are float32; their `square` is one, and not its root."""
    program = tl.program_id(0)
    entry = table + tl.load(jobs + program) * 9
    kind: tl.constexpr = tl.bfloat16 if HAS_LOW else tl.float32
    weight, grad = (
        tl.load(entry).to(tl.pointer_type(kind)),
        tl.load(entry + 1).to(tl.pointer_type(kind)),
    )
    low = tl.load(entry + 2).to(tl.pointer_type(tl.float16))
    means, squares = (
        tl.load(entry + 3).to(tl.pointer_type(tl.float32)),
        tl.load(entry + 4).to(tl.pointer_type(tl.float32)),
    )
    numbers += 7 * tl.load(entry + 8)
    at = tl.load(firsts + program) + tl.arange(0, PIECE)
    mask = at < tl.load(entry + 7)
    mean, square = (
        tl.load(means + at, mask=mask, other=0.0),
        tl.load(squares + at, mask=mask, other=0.0),
    )
    mean, deviation = _step(at, mask, weight, grad, low, mean, tl.sqrt(square), numbers, HAS_LOW)
    tl.store(means + at, mean, mask=mask)
    tl.store(squares + at, deviation * deviation, mask=mask)


@triton.jit
def _sum_squares(table, jobs, firsts, sums, HAS_LOW: tl.constexpr, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.program_id(0)
    entry = table + tl.load(jobs + program) * 2
    grad = tl.load(entry).to(tl.pointer_type(tl.bfloat16 if HAS_LOW else tl.float32))
    at = tl.load(firsts + program) + tl.arange(0, PIECE)
    g = tl.load(grad + at, mask=at < tl.load(entry + 1), other=0.0).to(tl.float32)
    tl.store(sums + program, tl.sum(g * g))


@dataclass
class Job:
    """A parameter's tensors, in the order of memory."""

    weight: Tensor
    grad: Tensor | None
    state: dict[str, Any]
    numbers: int  # its row of them
    group: dict[str, Any]  # of the optimiser

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether its moments are in bytes, and whether its weight is in two halves."""
        return "mean_words" in self.state, "low" in self.state

    @property
    def length(self) -> int:
        return len(self.state["mean_words"]) if self.kind[0] else self.weight.numel()

    def fields(self) -> list[int]:
        names = (
            ("mean_words", "square_words", "mean_scales", "deviation_scales")
            if self.kind[0]
            else ("mean", "square")
        )
        low = self.state["low"].data_ptr() if self.kind[1] else 0
        addresses = [
            self.weight.data_ptr(),
            cast(Tensor, self.grad).data_ptr(),
            low,
            *(self.state[n].data_ptr() for n in names),
        ]
        return [*addresses, *[0] * (FIELDS - 2 - len(addresses)), self.length, self.numbers]


class Launch:
    """A kernel with the table of its parameters and the share of each program, for as long as
    nothing moves.
    """

    def __init__(
        self,
        kernel: Any,
        rows: list[list[int]],
        lengths: list[int],
        piece: int,
        device: torch.device,
    ) -> None:
        self.kernel, self.piece, self.device = kernel, piece, device
        self.table = torch.tensor(rows).to(device)
        jobs = [torch.full(((length + piece - 1) // piece,), i) for i, length in enumerate(lengths)]
        self.jobs = torch.cat(jobs).to(device)  # which parameter a program has
        # and from where
        self.firsts = torch.cat([torch.arange(0, length, piece) for length in lengths]).to(device)

    def __call__(self, *words: Any, small: bool) -> None:
        self.kernel[(len(self.jobs),)](
            self.table, self.jobs, self.firsts, *words, small, self.piece
        )


class Kernels:
    """All that a step of some parameters launches, as long as neither they nor their gradients
    change places.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.kept = list(jobs)  # so that no address is another's
        device, grads = jobs[0].weight.device, [cast(Tensor, job.grad) for job in jobs]
        self.updates: list[tuple[Launch, bool]] = []
        self.squares: list[tuple[Launch, bool]] = []
        for small in (True, False):
            for in_bytes, kernel, piece in (
                (True, _update_blocks, ROWS),
                (False, _update_plain, PIECE),
            ):
                if chosen := [job for job in jobs if job.kind == (in_bytes, small)]:
                    rows, lengths = [job.fields() for job in chosen], [job.length for job in chosen]
                    self.updates.append((Launch(kernel, rows, lengths, piece, device), small))
            if some := [grad for grad in grads if (grad.dtype == torch.bfloat16) == small]:
                rows, lengths = [[g.data_ptr(), g.numel()] for g in some], [g.numel() for g in some]
                self.squares.append((Launch(_sum_squares, rows, lengths, 8 * PIECE, device), small))

    def forget_gradients(self) -> None:
        """Let their memory be used for other things between steps: it is known by its address."""
        for job in self.kept:
            job.grad = None

    def update(self, numbers: Sequence[Sequence[float]], seed: int) -> None:
        """A step of all of them; a row of numbers as `adamw8bit.update_blocks` takes them."""
        there = torch.tensor(numbers).to(self.kept[0].weight.device)
        for launch, small in self.updates:
            launch(there, seed, small=small)

    def norm(self) -> Tensor:
        """Of all gradients, a scalar on the card; the same bits every time."""
        sums = []
        for launch, small in self.squares:
            squares = torch.empty(len(launch.jobs), device=launch.device)
            launch(squares, small=small)
            sums.append(squares.sum())
        return torch.stack(sums).sum().sqrt()
