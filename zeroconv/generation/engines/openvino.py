"""OpenVINO: a step and a decode as static graphs, compiled once and kept on disk."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones import autoencoder
from zeroconv.backbones.tiling import is_one
from zeroconv.generation.engines import store
from zeroconv.generation.engines.content import key_of
from zeroconv.generation.engines.engine import Compute
from zeroconv.generation.engines.graph import (
    DecodeModule,
    Projection,
    StepModule,
    run,
    text_layers,
)
from zeroconv.generation.engines.step import Step, nets_of
from zeroconv.layers.sampling import sampling_layers
from zeroconv.machine import all_memory

FORMAT = 1  # of the files
MOST = 12  # graphs that stay in memory between calls
SHARE = 0.3  # of the machine's memory that their weights may take
# largest difference between a graph and torch, relative to the largest number, when it is made
EXACT = {torch.float32: 1e-3, torch.bfloat16: 0.1}
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


@dataclass
class Graph:
    """Compiled for one structure and one set of shapes."""

    compiled: Any
    inputs: list[str]
    projections: list[Projection]
    outputs: list[str]
    weights: int  # bytes
    source: Any = None  # the mapped file, which the compiled model reads and does not keep alive


_GRAPHS: OrderedDict[str, Graph] = OrderedDict()
_LOCK = threading.Lock()


class OpenVino:
    """Of one batch; see `Engine`. What it cannot compile is computed by torch, with a note."""

    name = "openvino"

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self._ready: dict[Any, Ready | None] = {}
        self._texts: dict[Any, tuple[Tensor, Tensor]] = {}  # what was projected, and its projection

    def evaluate(self, compute: Compute, step: Step) -> Tensor:
        guides = tuple(id(guide) for guide, _ in step.acting)
        name = (step.structure(), tuple(step.z.shape), guides)
        if name not in self._ready:
            self._ready[name] = self._prepared(compute, step)
        ready = self._ready[name]
        if ready is None:
            with sampling_layers(self.backbone.unet, *nets_of(step.acting)):
                return compute(step)
        made = ready.run(step.changing())
        output = made.pop("output").to(step.z.dtype)
        step.keep({name: value.to(step.z.dtype) for name, value in made.items()})
        return output

    def decode(self, z: Tensor) -> Tensor:
        backbone = self.backbone
        vae, tiled = backbone.vae, backbone.vae_tiling
        if tiled and not is_one(vae, *z.shape[2:]):
            _note(self.name, "the picture is decoded in tiles")
            return backbone.decode_latents(z)
        return autoencoder.decode(vae, z, backbone.name, backbone.dtype, decoder=self._decoded)

    def _decoded(self, z: Tensor) -> Tensor:
        """Latents in the autoencoder's scale → pictures in [−1, 1], float32."""
        vae, shape = self.backbone.vae, list(z.shape)
        key = key_of(_engine(z.dtype), [vae], ["decode", shape])
        graph = _kept(key, vae, z.dtype)
        if graph is None:
            expected = vae.decode(z, return_dict=False)[0].float()
            graph = self._made(
                key,
                lambda: DecodeModule(vae),
                [z.float()],
                {"picture": expected},
                z.dtype,
                ["z"],
                [],
            )
            if graph is None:
                return expected
        return Ready(graph, {}, []).run({"z": z})["picture"]

    def _prepared(self, compute: Compute, step: Step) -> Ready | None:
        """A graph with all that stays in a loop; None where there cannot be one."""
        networks = [self.backbone.unet, *nets_of(step.acting)]
        layers, dtype = text_layers(networks), step.z.dtype
        inputs = step.inputs()
        shapes = [[name, list(value.shape), str(value.dtype)] for name, value in inputs.items()]
        texts = [list(states.hidden.shape) for states in step.texts().values()]
        about = ["step", step.structure(), shapes, texts]
        key = key_of(_engine(dtype), networks, about)
        graph = _kept(key, networks, dtype)
        if graph is None:
            graph = self._traced(key, compute, step, networks, inputs)
        if graph is None:
            return None
        changing = step.changing()
        fixed = {name: value for name, value in inputs.items() if name not in changing}
        return Ready(graph, fixed, [self._text(step, layers, one) for one in graph.projections])

    def _text(self, step: Step, layers: Sequence[nn.Module], projection: Projection) -> Tensor:
        """Keys or values of the text in a layer, computed once in a loop."""
        number, variant = projection
        hidden, layer = step.texts()[variant].hidden, layers[number]
        name = id(layer), id(hidden)
        if name not in self._texts:
            self._texts[name] = hidden, layer(hidden)
        return self._texts[name][1]

    def _traced(
        self,
        key: str,
        compute: Compute,
        step: Step,
        networks: list[nn.Module],
        inputs: dict[str, Tensor],
    ) -> Graph | None:
        layers = text_layers(networks)
        try:
            expected, projections = run(compute, step.with_inputs(inputs), layers)
        except Exception as error:
            return self._left(error)
        outputs = list(expected)
        values = [value.float() for value in inputs.values()]
        values += [self._text(step, layers, one).float() for one in projections]

        def module() -> nn.Module:
            return StepModule(compute, step, networks, inputs, projections, outputs)

        return self._made(key, module, values, expected, step.z.dtype, list(inputs), projections)

    def _made(
        self,
        key: str,
        module: Callable[[], nn.Module],
        values: list[Tensor],
        expected: dict[str, Tensor],
        dtype: torch.dtype,
        inputs: list[str],
        projections: list[Projection],
    ) -> Graph | None:
        """Compiled, compared with torch, and kept on disk."""
        warnings.warn(
            f"{self.name} compiles a graph for this size and these controls; it is kept in "
            f"{store.folder()}, so the next call starts at once.",
            stacklevel=2,
        )
        try:
            with torch.inference_mode(False), torch.no_grad():
                values = [value.clone() for value in values]
                made = module().eval()
                compiled = compile_module(made, values, dtype)
            weights = sum(w.numel() * w.element_size() for w in made.parameters())
            graph = Graph(compiled, inputs, projections, list(expected), weights)
            got = Ready(graph, {}, []).infer(values)
        except Exception as error:  # converter and compiler raise many kinds
            return self._left(error)
        for name, value in expected.items():
            distance = float((got[name] - value.float()).abs().max())
            if not distance <= EXACT[dtype] * max(1.0, float(value.float().abs().max())):
                return self._left(f"its {name} differs from torch's by {distance:.3g}")
        about = {"inputs": inputs, "projections": projections, "outputs": list(expected)}
        export = compiled.export_model  # into memory: there is no other way
        store.write(key, {**about, "weights": weights}, weights, lambda: export().getbuffer())
        return _remember(key, graph)

    def _left(self, reason: object) -> None:
        """A note on what torch computes instead."""
        words = str(reason).strip().splitlines() or [type(reason).__name__]
        _note(self.name, f"the graph cannot be compiled ({words[0][:200]})")


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


def compile_module(module: nn.Module, values: list[Tensor], dtype: torch.dtype) -> Any:
    """A module and an example of its float32 inputs → OpenVINO's compiled model, of their shapes.
    dtype: in which it computes.
    """
    openvino = library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer, on what Python decides
        model = openvino.convert_model(
            module,
            example_input=tuple(values),
            input=[(list(value.shape), openvino.Type.f32) for value in values],
        )
    return core().compile_model(model, "CPU", settings(dtype))


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


def _engine(dtype: torch.dtype) -> list[Any]:
    device = core()
    processor = device.get_property("CPU", "FULL_DEVICE_NAME")
    able = sorted(device.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    version = importlib.metadata.version("openvino")
    return ["openvino", FORMAT, version, processor, able, sorted(settings(dtype).items())]


def _kept(key: str, networks: Any, dtype: torch.dtype) -> Graph | None:
    """Of this process, else of the disk."""
    with _LOCK:
        if key in _GRAPHS:
            _GRAPHS.move_to_end(key)
            return _GRAPHS[key]
    if (there := store.read(key)) is None:
        return None
    about, blob = there
    try:
        tensor = library().Tensor(blob, shared_memory=True)
        compiled = core().import_model(tensor, "CPU", settings(dtype))
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason"])[0]
        warnings.warn(
            f"a compiled graph cannot be read ({reason}); it is made again.", stacklevel=2
        )
        return None
    projections = [(int(number), str(variant)) for number, variant in about["projections"]]
    graph = Graph(
        compiled, about["inputs"], projections, about["outputs"], about["weights"], (blob, tensor)
    )
    return _remember(key, graph)


def _remember(key: str, graph: Graph) -> Graph:
    """For later calls, of which those used last stay."""
    with _LOCK:
        _GRAPHS[key] = graph
        bound = SHARE * all_memory()
        while len(_GRAPHS) > 1 and (
            len(_GRAPHS) > MOST or sum(one.weights for one in _GRAPHS.values()) > bound
        ):
            _GRAPHS.popitem(last=False)
    return graph


def _note(engine: str, reason: str) -> None:
    warnings.warn(f"engine {engine}: {reason}, so torch computes it.", stacklevel=3)
