"""A stand-in for OpenVINO's compiler that runs what it was given, so tests need no compiler."""

from __future__ import annotations

import io
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from zeroconv.generation.engines import openvino, runtime


class Compiled:
    """Of a module: as much of OpenVINO's compiled model as the engine uses."""

    def __init__(self, module):
        self.module, self.runs = module, 0

    def create_infer_request(self):
        return Request(self)

    def export_model(self):
        return io.BytesIO(b"a graph")


class Request:
    def __init__(self, compiled):
        self.compiled, self.given = compiled, {}

    def set_input_tensor(self, i, array):
        self.given[i] = torch.from_numpy(array)

    def infer(self):
        with torch.no_grad():
            made = self.compiled.module(*(self.given[i].clone() for i in sorted(self.given)))
        self.compiled.runs += 1
        self.made = made if isinstance(made, tuple) else (made,)

    def get_output_tensor(self, i):
        return Output(self.made[i].numpy())


class Output:
    def __init__(self, array):
        self.data = array


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """The graphs that are compiled, in a list that fills. Nothing is read from the disk."""
    made = []

    def compile_module(module, values, dtype):
        made.append(Compiled(module))
        return made[-1], None

    fake = ModuleType("openvino")
    fake.__spec__ = ModuleSpec("openvino", None)
    fake.Tensor = lambda array, shared_memory: array
    monkeypatch.setitem(sys.modules, "openvino", fake)
    monkeypatch.setattr(runtime, "library", lambda: fake)
    monkeypatch.setenv("ZEROCONV_CACHE", str(tmp_path))
    monkeypatch.setattr(openvino, "compile_module", compile_module)
    monkeypatch.setattr(openvino, "_engine", lambda dtype: ["fake", str(dtype)])
    monkeypatch.setattr(openvino.store, "read", lambda key: None)
    monkeypatch.setattr(openvino, "_GRAPHS", openvino.OrderedDict())
    monkeypatch.setattr(openvino, "_LEFT", {})
    return made
