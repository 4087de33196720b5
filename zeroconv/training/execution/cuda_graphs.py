"""Both passes of a micro-batch as one CUDA graph, launched as a whole.

A step of Stable Diffusion's ControlNet at batch 4 is some four thousand kernels, which an H100
computes in a fraction of the time that Python takes to launch them. So the first micro-batch is
recorded, and from then on inputs are copied to where the recording reads them and the recording is
played. What is drawn at random is drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import TextStates, is_split
from zeroconv.data.batches import Batch
from zeroconv.data.cache.examples import Examples
from zeroconv.training.execution.eager import Eager
from zeroconv.training.objective import ControlledLoss
from zeroconv.training.recipes.training import TrainingSettings


@dataclass
class Recording:
    graph: Any
    inputs: list[Tensor]  # which it reads
    loss: Tensor  # which it writes
    grads: list[Tensor]  # likewise, parameter by parameter


class Graphs:
    """Gradients of micro-batches of one shape, by a recording of both passes."""

    def __init__(self, loss: ControlledLoss, parameters: Sequence[nn.Parameter]) -> None:
        self.loss, self.parameters = loss, list(parameters)
        self.recording: Recording | None = None
        self.sums: list[Tensor] = []  # of several micro-batches
        self.masked = False  # whether masks of the loss are among the inputs

    def add_gradients(
        self, batch: Batch, generator: torch.Generator, number: int, of: int
    ) -> Tensor:
        """Let the parameters' `grad` be the gradient of micro-batch `number` of a step's `of`,
        added to those before; returns its share of the mean loss, a scalar on the card.
        """
        drawn = self.loss.draw(batch.moments, generator)
        text = [
            part
            for part in (batch.text.hidden, batch.text.pooled, batch.text.time_ids)
            if part is not None
        ]
        hints = [] if self.loss.control is None else [cast(Tensor, batch.hints)]
        masks = [] if batch.masks is None else [batch.masks]
        self.masked = bool(masks)
        inputs = [torch.full((), 1 / of, device=drawn[0].device), *drawn, *hints, *masks, *text]
        if self.recording is None or [x.shape for x in self.recording.inputs] != [
            x.shape for x in inputs
        ]:
            self.recording = self._record([x.clone() for x in inputs])
        torch._foreach_copy_(self.recording.inputs, inputs)
        self.recording.graph.replay()
        grads = self.recording.grads
        # the recording would add to gradients that were there when it was made, and
        # nowhere else
        if of > 1:
            self.sums = self.sums or [torch.empty_like(grad) for grad in grads]
            if number == 0:
                torch._foreach_copy_(self.sums, grads)
            else:
                torch._foreach_add_(self.sums, grads)
            grads = self.sums
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad
        return self.recording.loss.clone()

    def _record(self, inputs: list[Tensor]) -> Recording:
        """The gradients lie in memory of the recording's own, which its activations may have used
        before.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        self._forget()
        # libraries choose and prepare their kernels, which cannot be recorded
        with torch.cuda.stream(stream):
            self._both_passes(inputs)
        # the others have no part in the loss
        self.parameters = [p for p in self.parameters if p.grad is not None]
        self._forget()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # what this took: the recording takes its memory anew
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._both_passes(inputs)
        return Recording(
            graph, inputs, loss, [cast(Tensor, parameter.grad) for parameter in self.parameters]
        )

    def _both_passes(self, inputs: list[Tensor]) -> Tensor:
        share, z, noise, t, *rest = inputs
        hints = None if self.loss.control is None else rest.pop(0)
        masks = rest.pop(0) if self.masked else None
        loss = self.loss.of_drawn(z, noise, t, hints, TextStates(*rest), masks) * share
        loss.backward()
        return loss.detach()

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def can_record(loss: ControlledLoss, data: Examples, settings: TrainingSettings) -> bool:
    """Whether the recipe wants recordings and they are known to work: on a card, pictures of one
    shape, a ControlNet or a LoRA of the base, no activations computed again, frozen weights as they
    are, no scale of the loss.
    """
    if not is_split(loss.backbone):
        return False  # states of transformers have masks, which recordings do not know
    if not loss.recordable:
        return False
    if loss.reward is not None:
        return False  # how many samples it decodes differs from step to step
    on_card = loss.process.device.type == "cuda"
    known = loss.control is None or loss.control.has_residuals
    known = known and not hasattr(loss.control, "of_kind")  # whose hints differ in kind
    plain = settings.frozen == "same" and settings.precision != "fp16"
    as_they_are = settings.checkpointing == "none" and not settings.compile
    one_shape = len(data.moments.shapes()) == 1 and not data.text.several_lengths
    return settings.cuda_graphs and on_card and known and plain and as_they_are and one_shape


class CudaGraphs(Eager):
    """One process on one card, whose micro-batches are recordings."""

    def _set_up(self, data: Examples, settings: TrainingSettings) -> None:
        super()._set_up(data, settings)
        self.graphs = Graphs(self.loss, self.parameters)

    def add_gradients(
        self, batch: Batch, generator: torch.Generator, number: int, of: int
    ) -> Tensor:
        return self.graphs.add_gradients(batch, generator, number, of)
