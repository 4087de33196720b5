"""OpenVINO: a step and a decode as static graphs, compiled once and kept on disk."""

from __future__ import annotations

import importlib.metadata
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
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
from zeroconv.generation.engines.runtime import (
    Graph,
    Ready,
    compile_module,
    core,
    differs,
    library,
    settings,
)
from zeroconv.generation.engines.step import Step, nets_of
from zeroconv.layers.sampling import sampling_layers
from zeroconv.machine import all_memory

FORMAT = 1  # of the files
MOST = 12  # graphs that stay in memory between calls
SHARE = 0.3  # of the machine's memory that their weights may take


_GRAPHS: OrderedDict[str, Graph] = OrderedDict()
_LEFT: dict[str, str] = {}  # what cannot be compiled, and why
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
        if key in _LEFT:
            _note(self.name, f"the decoder cannot be compiled ({_LEFT[key]})")
            with sampling_layers(vae.decoder):
                return vae.decode(z, return_dict=False)[0].float()
        graph = _kept(key, z.dtype)
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
        if key in _LEFT:
            _note(self.name, f"the graph cannot be compiled ({_LEFT[key]})")
            return None
        graph = _kept(key, dtype)
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
            return self._left(key, error)
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
                compiled, held = compile_module(made, values, dtype)
            weights = sum(w.numel() * w.element_size() for w in made.parameters())
            about: dict[str, Any] = {"inputs": inputs, "projections": projections}
            about["outputs"] = list(expected)
            export = compiled.export_model  # into memory: there is no other way
            about |= {"weights": weights}
            store.write(key, about, weights, lambda: export().getbuffer())
            graph = Graph(compiled, inputs, projections, list(expected), weights, held)
            # what the next process will read, which needs no weights of torch
            graph = _read(key, dtype) or graph
            got = Ready(graph, {}, []).infer(values)
        except Exception as error:  # converter and compiler raise many kinds
            return self._left(key, error)
        for name, value in expected.items():
            if distance := differs(got[name], value.float(), dtype):
                store.remove(key)
                return self._left(key, f"its {name} differs from torch's by {distance:.3g}")
        return _remember(key, graph)

    def _left(self, key: str, reason: object) -> Graph | None:
        """None, and a note on what torch computes instead; it is not tried again."""
        words = str(reason).strip().splitlines() or [type(reason).__name__]
        _LEFT[key] = words[0][:200]
        _note(self.name, f"the graph cannot be compiled ({_LEFT[key]})")
        return None


def _engine(dtype: torch.dtype) -> list[Any]:
    device = core()
    processor = device.get_property("CPU", "FULL_DEVICE_NAME")
    able = sorted(device.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    version = importlib.metadata.version("openvino")
    return ["openvino", FORMAT, version, processor, able, sorted(settings(dtype).items())]


def _kept(key: str, dtype: torch.dtype) -> Graph | None:
    """Of this process, else of the disk."""
    with _LOCK:
        if key in _GRAPHS:
            _GRAPHS.move_to_end(key)
            return _GRAPHS[key]
    graph = _read(key, dtype)
    return None if graph is None else _remember(key, graph)


def _read(key: str, dtype: torch.dtype) -> Graph | None:
    """Of the disk. A note where it cannot be read."""
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
    names, weights = (about["inputs"], about["outputs"]), about["weights"]
    return Graph(compiled, names[0], projections, names[1], weights, (blob, tensor))


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
