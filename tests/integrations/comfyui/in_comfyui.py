"""Runs inside of ComfyUI's environment: `in_comfyui.py CHECKOUT NODES WORK`. ComfyUI's own loaders
load the nodes and a control; what they compute is written to WORK/results.pt.

What ComfyUI imports for other models and is not installed is replaced by empty modules.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

# before the empty modules, since transformers looks for torchvision
import zeroconv.annotators
import zeroconv.control
import zeroconv.generation  # noqa: F401

UNUSED = ("torchvision", "torchaudio", "av", "kornia", "spandrel", "comfyui_frontend_package")
CHECKOUT, NODES, WORK = (Path(word) for word in sys.argv[1:4])


class Empty(types.ModuleType):
    __path__: list = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.split(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Sampling:
    """What ComfyUI's model brings to a control: timesteps, and the input as it is."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma * 500

    def calculate_input(self, sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x


def run(net: Any, inputs: dict[str, torch.Tensor], share: float = 0.5) -> Any:
    """The residuals of a control on a prompt's half, as ComfyUI's sampler asks for them."""
    model = types.SimpleNamespace(model_sampling=Sampling())
    net.pre_run(model, lambda percent: 2.0 - 2 * percent)  # σ from 2 to 0
    sigma = torch.full((len(inputs["z"]),), 2.0 - 2 * share)
    cond = {"c_crossattn": inputs["text"]}
    with torch.no_grad():
        control = net.get_control(inputs["z"], sigma, cond, 1, {})
    net.cleanup()
    return control


def main() -> None:
    sys.argv = ["main.py", "--cpu"]
    sys.meta_path.append(Absent())
    sys.path.insert(0, str(CHECKOUT))
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths
    import nodes

    folder_paths.add_model_folder_path("controlnet", str(WORK / "models"))
    loaded = asyncio.run(nodes.load_custom_node(str(NODES)))
    assert loaded, "ComfyUI did not load the nodes"
    known = nodes.NODE_CLASS_MAPPINGS
    load, apply = known["ZeroconvLoadControl"](), known["ZeroconvApplyControl"]()
    inputs = torch.load(WORK / "inputs.pt", weights_only=True)
    image = inputs["hint"].movedim(1, -1)
    half = [[inputs["text"], {}]]
    results: dict[str, Any] = {"refused": {}}

    (net,) = load.load(str(WORK / "control"))
    usual = known["ControlNetApplyAdvanced"]()
    positive, _ = usual.apply_controlnet(half, half, net, image, 1.0, 0.0, 1.0)
    results["usual"] = run(positive[0][1]["control"], inputs)

    def applied(positive: Any = half, **options: Any) -> tuple[Any, Any]:
        asked = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rule": "both"}
        return apply.apply(positive, half, net, image, **{**asked, **options})

    for rule in ("both", "resolution", "guess", "prompt"):
        positive, negative = applied(rule=rule, strength=0.5)
        results[rule] = run(positive[0][1]["control"], inputs)
        results[f"{rule} negative"] = "control" in negative[0][1]
    numbers = [0.1 * i for i in range(inputs["connections"])]
    positive, _ = applied(scales=", ".join(map(str, numbers)))
    results["scales"] = run(positive[0][1]["control"], inputs)
    positive, _ = applied(mask=inputs["mask"])
    results["mask"] = run(positive[0][1]["control"], inputs)
    copied = positive[0][1]["control"].copy().set_cond_hint(inputs["hint"])
    results["copied"] = run(copied, inputs)
    window = applied(start_percent=0.0, end_percent=0.4)[0][0][1]["control"]
    results["before its end"] = run(window, inputs, 0.3) is not None
    results["after its end"] = run(window, inputs, 0.5) is not None
    once, _ = applied(strength=0.5)
    twice, _ = applied(once, strength=0.5)
    results["twice"] = run(twice[0][1]["control"], inputs)

    (listed,) = load.load("file.safetensors")  # of ComfyUI's own folder
    positive, _ = usual.apply_controlnet(half, half, listed, image, 1.0, 0.0, 1.0)
    results["file"] = run(positive[0][1]["control"], inputs)
    for name in ("canny", "", "nothing/at/all.safetensors"):
        try:
            load.load(name)
        except Exception as error:
            results["refused"][name] = f"{type(error).__name__}: {error}"
    try:
        run(applied(scales="1, 2")[0][0][1]["control"], inputs)
    except Exception as error:
        results["refused"]["scales"] = f"{type(error).__name__}: {error}"

    (results["canny"],) = known["ZeroconvAnnotate"]().draw(inputs["picture"], "canny")
    results["workflow"] = check_workflow(known)
    torch.save(results, WORK / "results.pt")


def check_workflow(known: dict[str, Any]) -> list[str]:
    """Of the example: inputs that a node does not have, and links of another type."""
    workflow = json.loads((NODES / "example_workflow.json").read_text(encoding="utf-8"))
    wrong = []
    for number, node in workflow.items():
        kind = known.get(node["class_type"])
        if kind is None:
            wrong.append(f"{number}: there is no {node['class_type']}")
            continue
        types_of = {n: t for group in kind.INPUT_TYPES().values() for n, t in group.items()}
        needed = set(kind.INPUT_TYPES().get("required", {}))
        wrong += [f"{number}: lacks {name}" for name in needed - set(node["inputs"])]
        for name, value in node["inputs"].items():
            if name not in types_of:
                wrong.append(f"{number}: {name} is no input of {node['class_type']}")
            elif isinstance(value, list):
                source = known[workflow[value[0]]["class_type"]]
                if source.RETURN_TYPES[value[1]] != types_of[name][0]:
                    wrong.append(f"{number}: {name} is linked to another type")
    return wrong


main()
