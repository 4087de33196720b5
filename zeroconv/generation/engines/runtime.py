"""OpenVINO's compiler and its compiled graphs: how they are made, and how they are run."""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.generation.engines.graph import Projection

# what a graph may differ from torch when it is made, of the norm of all numbers
EXACT = {torch.float32: 1e-3, torch.bfloat16: 0.2}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


@dataclass
class Graph:
    """Compiled for one structure and one set of shapes."""

    compiled: Any
    inputs: list[str]
    projections: list[Projection]
    outputs: list[str]
    weights: int  # bytes
    source: Any = None  # what the compiled model reads and does not keep alive: the mapped file


class Ready:
    """A graph with the inputs that stay."""

    def __init__(self, graph: Graph, fixed: dict[str, Tensor], texts: list[Tensor]) -> None:
        self._graph = graph
        self._request = graph.compiled.create_infer_request()
        self._held: dict[int, Any] = {}  # what the request reads, which does not keep it alive
        self._numbers = {name: i for i, name in enumerate(graph.inputs)}
        for name, value in fixed.items():
            self._give(self._numbers[name], value)
        for i, value in enumerate(texts, start=len(graph.inputs)):
            self._give(i, value)

    def run(self, changing: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, float32 on the CPU; they are copies."""
        for name, value in changing.items():
            self._give(self._numbers[name], value)
        self._request.infer()
        names = enumerate(self._graph.outputs)
        return {name: _tensor(self._request.get_output_tensor(i)) for i, name in names}

    def infer(self, values: list[Tensor]) -> dict[str, Tensor]:
        """The same of all inputs in order."""
        for i, value in enumerate(values):
            self._give(i, value)
        return self.run({})

    def _give(self, i: int, value: Tensor) -> None:
        array = value.detach().to(torch.float32).contiguous().numpy()
        self._held[i] = array, library().Tensor(array, shared_memory=True)
        self._request.set_input_tensor(i, self._held[i][1])


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(value.data.copy())


def differs(got: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """The norm of the difference, of that of `expected`, where it is more than rounding; else 0."""
    distance = float((got - expected).norm() / expected.norm().clamp_min(1e-3))
    return 0.0 if distance <= EXACT[dtype] else distance or math.nan


def compile_module(module: nn.Module, values: list[Tensor], dtype: torch.dtype) -> tuple[Any, Any]:
    """A module and an example of its float32 inputs → OpenVINO's compiled model, of their shapes.
    dtype: in which it computes. And what must live as long: the model reads memory of it.
    """
    openvino = library()
    with warnings.catch_warnings(), _in_rows(module, dtype) as held:
        warnings.simplefilter("ignore")  # of torch's tracer, on what Python decides
        model = openvino.convert_model(
            module,
            example_input=tuple(values),
            input=[(list(value.shape), openvino.Type.f32) for value in values],
        )
        # within, since the model reads the weights' memory
        return core().compile_model(model, "CPU", settings(dtype)), (module, held)


@contextmanager
def _in_rows(module: nn.Module, dtype: torch.dtype) -> Iterator[list[Tensor]]:
    """Inside, bfloat16 weights lie as their shapes say. Of others the converter takes the memory of
    a copy that is gone when the model is compiled.
    """
    changed = []
    if dtype == torch.bfloat16:
        changed = [(w, w.data) for w in module.parameters() if not w.is_contiguous()]
    try:
        for weight, data in changed:
            weight.data = data.contiguous()
        yield [weight.data for weight, _ in changed]
    finally:
        for weight, data in changed:
            weight.data = data


def settings(dtype: torch.dtype) -> dict[str, Any]:
    """OpenVINO's properties: one picture at a time, on as many threads as torch has."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],  # else bfloat16 where there is AMX
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # beside other work a pinned thread waits for its core
    }


@functools.cache
def library() -> Any:
    """OpenVINO, which sends figures of its use when it is imported and when it converts: without
    the package that sends them it does not.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


@functools.cache
def core() -> Any:
    """One for the process."""
    return library().Core()
