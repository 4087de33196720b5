"""Both passes of a step, eager or as one recorded CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Task(Protocol):
    """What a training brings along: what trains, and its loss."""

    model: nn.Module

    def loss(self, *inputs: Tensor) -> Tensor:
        """Mean loss, differentiable; a function of the weights and its arguments."""
        ...


class Eager:
    """Inputs → loss (a scalar without a graph); the parameters have gradients then."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.parameters = [p for p in task.model.parameters() if p.requires_grad]

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        self._forget()
        return self._both_passes(inputs)

    def _both_passes(self, inputs: Sequence[Tensor]) -> Tensor:
        loss = self.task.loss(*inputs)
        loss.backward()
        return loss.detach()

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class Recorded(Eager):
    """`Eager` by a CUDA graph, which is recorded anew for each shape of its inputs."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.inputs: list[Tensor] = []

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        if [x.shape for x in self.inputs] != [x.shape for x in inputs]:
            self._record(inputs)

        torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Warm up on a stream of its own, as libraries choose kernels there; then record."""
        self.inputs = [x.clone() for x in inputs]
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
