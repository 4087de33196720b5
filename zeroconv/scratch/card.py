"""A whole training by the clock on one graphics card: all data on the card, both passes as one
recorded graph.

    python -m zeroconv.scratch.card RUN --shards SHARDS --minutes 8
    python -m zeroconv.scratch.card RUN --shards SHARDS --minutes 8 --what flow

Pictures of 64 pixels for the first third of the time, of 128 after that; the rate falls to zero
over the last quarter. The averages at the end are the result.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroconv.errors import UserError
from zeroconv.optim.muon import muon_groups
from zeroconv.scratch.averages import Averages
from zeroconv.scratch.base import BaseTask
from zeroconv.scratch.corpus import Corpus, Mixture
from zeroconv.scratch.flow import FlowTask, sentences_of
from zeroconv.scratch.loop import Task
from zeroconv.scratch.muon import Muon
from zeroconv.scratch.shards import SIZES, shard_names


@dataclass(frozen=True)
class Clock:
    """What happens when, in shares of the time."""

    seconds: float
    first: float = 1 / 3  # at 64 pixels
    decay: float = 1 / 4  # at the end
    warmup: int = 100  # steps

    def side(self, passed: float) -> int:
        return SIZES[0] if passed < self.first * self.seconds else SIZES[1]

    def factor(self, passed: float, step: int) -> float:
        """Of the learning rate, after `passed` seconds and `step` steps."""
        left = max(0.0, 1 - passed / self.seconds)

        return min(1.0, (step + 1) / self.warmup, left / self.decay)


class Recorded:
    """Gradients of a task by a CUDA graph, recorded anew for each shape of its inputs.

    On other devices, or with `record` False, both passes run as they are.
    """

    def __init__(self, task: Task, record: bool) -> None:
        self.task, self.record = task, record
        self.parameters = list(task.model.parameters())
        self.inputs: list[Tensor] = []

    def __call__(self, drawn: Sequence[Tensor]) -> Tensor:
        """Set the parameters' gradients; returns the loss, a scalar on the device."""
        if not self.record:
            self._forget()
            return self._both_passes(drawn)
        if [x.shape for x in self.inputs] != [x.shape for x in drawn]:
            self._record(drawn)

        torch._foreach_copy_(self.inputs, list(drawn))
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss

    def _record(self, drawn: Sequence[Tensor]) -> None:
        """Warm up on a stream of its own, as libraries choose kernels there; then record."""
        self.inputs = [x.clone() for x in drawn]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())

        with torch.cuda.stream(stream):
            for _ in range(2):
                self._forget()
                self._both_passes(self.inputs)
        torch.cuda.current_stream().wait_stream(stream)

        self._forget()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self._both_passes(self.inputs)
        self.gradients = [p.grad for p in self.parameters]

    def _both_passes(self, drawn: Sequence[Tensor]) -> Tensor:
        loss = self.task.loss(*drawn)
        loss.backward()
        return loss.detach()

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def train(
    task: Task,
    corpus: Corpus,
    folder: Path,
    clock: Clock,
    rate: float,
    record: bool = False,
    report: Callable[[str], None] = print,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Train until the clock has run out and write the averages; returns the steps.

    Raises UserError where no time is left, and FloatingPointError where the loss is no number;
    then nothing is written.
    """
    if clock.seconds <= 0:
        raise UserError("Loading has used up the time of this training; give it more --minutes.")
    optimizer = Muon(muon_groups([task.model]), lr=rate)
    averages = Averages(task.model)
    gradients = Recorded(task, record)
    begun, step = now(), 0

    while (passed := now() - begun) < clock.seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate * clock.factor(passed, step)

        batch = corpus.batch(step, clock.side(passed))
        loss = gradients(task.draw(batch, corpus.mixture.seed, step))
        nn.utils.clip_grad_norm_(task.model.parameters(), 1.0, foreach=True)
        optimizer.step()
        step += 1
        averages.update(step)

        if step % 100 == 0:  # the only place that waits for the card
            seen = step * corpus.mixture.batch
            report(f"step {step}  {seen:,} samples  {passed:.0f} s  loss {_checked(loss):.4f}")

    _checked(loss)
    averages.save(folder, step)
    return step


def _checked(loss: Tensor) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(f"The loss is {value}; lower the learning rate.")

    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--what", choices=["base", "flow"], default="base")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()

    begun = time.monotonic()
    device, card = arguments.device, arguments.device.startswith("cuda")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # for the optimiser's products
    arguments.folder.mkdir(parents=True, exist_ok=True)

    how = {"device": device, "precision": "bfloat16" if card else "float32"}
    if arguments.what == "flow":
        task: Task = FlowTask(sentences_of(arguments.folder, arguments.shards), **how)
    else:
        task = BaseTask(**how)

    mixture = Mixture(batch=arguments.batch)
    corpus = Corpus(arguments.shards, SIZES, task.writers, mixture, device)
    corpus.add(shard_names(arguments.shards))

    ready = time.monotonic() - begun
    print(f"{len(corpus):,} pictures on {device} after {ready:.0f} s", flush=True)
    clock = Clock(60 * arguments.minutes - ready)
    steps = train(task, corpus, arguments.folder, clock, arguments.rate, card and arguments.graphs)
    print(f"{steps} steps, {steps * arguments.batch:,} samples", flush=True)


if __name__ == "__main__":
    main()
