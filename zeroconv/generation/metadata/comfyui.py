"""ComfyUI's `prompt`, the graph of nodes that made a picture, read as far as there is an option for
it: one sampler, its texts, size, checkpoint and LoRAs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zeroconv.errors import UserError
from zeroconv.generation.metadata.infotext import Reading
from zeroconv.generation.samplers.names import read_names
from zeroconv.inputs import parse_json

LONGEST = 4_000_000  # characters of a graph that is read
MOST_NODES = 10_000
DEEPEST = 100  # links that are followed one behind the other

_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_TEXTS = ("text", "string", "value", "text_g", "prompt")
# that show or keep pictures, and change nothing in them
_SILENT = ("SaveImage", "PreviewImage", "VAEDecode", "VAEDecodeTiled", "Note", "PrimitiveNode")


class Graph:
    """The nodes by their names, and which of them were read.

    `inputs` is of nodes whose effect is taken or noted; `peek` is of those that are passed through.
    """

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        self.nodes = nodes
        self.seen: set[str] = set()

    def inputs(self, key: str) -> Mapping[str, Any]:
        self.seen.add(key)
        return self.peek(key)

    def peek(self, key: str) -> Mapping[str, Any]:
        inputs = self.nodes[key].get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    def kind(self, key: str) -> str:
        return str(self.nodes[key].get("class_type", ""))[:80]

    def linked(self, value: Any) -> str | None:
        """The node that an input comes from: a link is its name and the number of an output."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.nodes:
            return str(value[0])
        return None

    def plain(self, value: Any) -> Any:
        """An input's number or text, also where a node of constants gives it."""
        for _ in range(DEEPEST):
            key = self.linked(value)
            if key is None:
                return value if isinstance(value, int | float | str) else None
            inputs = self.inputs(key)
            names = (*_TEXTS, "seed", "int", "float", "number")
            value = next((inputs[name] for name in names if name in inputs), None)
        return None

    def chain(self, value: Any, *through: str) -> Iterator[str]:
        """The nodes behind an input, along the first input of `through` that is a link."""
        for _ in range(DEEPEST):
            key = self.linked(value)
            if key is None:
                return
            yield key
            inputs = self.peek(key)
            value = next((inputs[n] for n in through if self.linked(inputs.get(n))), None)


def read_prompt(text: str) -> Reading:
    """ComfyUI's graph → values of generate's options.

    Raises UserError for what is no graph, or has no sampler that is read.
    """
    graph = Graph(_nodes(text))
    samplers = [key for key in graph.nodes if graph.kind(key) in _SAMPLERS]
    if not samplers:
        raise UserError(
            f"ComfyUI's graph has none of the nodes {', '.join(_SAMPLERS)}, which alone are read; "
            "give the options themselves."
        )
    reading = Reading("ComfyUI", {"noise": "batch"})
    first = graph.inputs(samplers[0])
    if len(samplers) > 1:
        reading.notes.append(f"of its {len(samplers)} samplers the node {samplers[0]} is read")
    _numbers(graph, first, reading)
    _sampler(graph, first, reading)
    _texts(graph, first, reading)
    _latents(graph, first, reading)
    _models(graph, first, reading)
    kinds = {graph.kind(k) for k in graph.nodes if k not in graph.seen} - set(_SILENT)
    if kinds:
        more = " …" if len(kinds) > 20 else ""
        reading.notes.append(f"nodes that are not read: {', '.join(sorted(kinds)[:20])}{more}")
    return reading


def _nodes(text: str) -> dict[str, Any]:
    if len(text) > LONGEST:
        raise UserError(f"ComfyUI's graph has {len(text):,} characters; {LONGEST:,} are read.")
    try:
        nodes = parse_json(text, null=True)
    except ValueError as error:
        raise UserError(f"ComfyUI's graph is damaged ({error}).") from error
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise UserError("ComfyUI's graph is damaged: it is no object of nodes.")
    if len(nodes) > MOST_NODES:
        raise UserError(f"ComfyUI's graph has {len(nodes):,} nodes; {MOST_NODES:,} are read.")
    return nodes


def _numbers(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    names = ("seed", "noise_seed", "steps", "cfg", "denoise", "sampler_name", "scheduler")
    unknown = [name for name in names if name in inputs and graph.plain(inputs[name]) is None]
    if unknown:  # of a link to a node that computes, or to none
        reading.notes.append(f"its {', '.join(unknown)} cannot be read and is not taken")
    seed = graph.plain(inputs.get("seed", inputs.get("noise_seed")))
    for option, value in (("steps", graph.plain(inputs.get("steps"))), ("seed", seed)):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53:
            reading.values[option] = value
        elif value is not None:
            reading.notes.append(f"its {option} {str(value)[:40]} is out of range and not taken")
    cfg = graph.plain(inputs.get("cfg"))
    if isinstance(cfg, int | float) and not isinstance(cfg, bool):
        reading.values["cfg"] = float(cfg)
    elif cfg is not None:
        reading.notes.append(f"its cfg {str(cfg)[:40]} is no number and not taken")
    denoise = graph.plain(inputs.get("denoise"))
    if denoise is not None and denoise != 1:
        reading.notes.append(f"its denoise {denoise} is not taken: it began from another picture")
    _part_of_steps(graph, inputs, reading)


def _part_of_steps(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    """A note where KSamplerAdvanced takes a part of the schedule, or adds no noise."""
    part = {name: graph.plain(inputs.get(name)) for name in ("start_at_step", "end_at_step")}
    steps = reading.values.get("steps", 0)
    cut = {
        "start_at_step": isinstance(part["start_at_step"], int) and part["start_at_step"] > 0,
        "end_at_step": isinstance(part["end_at_step"], int) and part["end_at_step"] < steps,
        "add_noise": graph.plain(inputs.get("add_noise")) == "disable",
        "return_with_leftover_noise": inputs.get("return_with_leftover_noise") == "enable",
    }
    names = [f"{name} {str(graph.plain(inputs[name]))[:40]}" for name in cut if cut[name]]
    if names:
        reading.notes.append(f"its {', '.join(names)} is not taken: all steps are made from noise")


def _sampler(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    names = graph.plain(inputs.get("sampler_name")), graph.plain(inputs.get("scheduler"))
    try:
        sampler, schedule = read_names(str(names[0]), str(names[1]))
    except UserError as error:
        reading.notes.append(f"its sampler is not taken: {error}")
        return
    reading.values |= {"scheduler": sampler, "schedule": schedule}


def _texts(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    for option, name in (("prompt", "positive"), ("negative", "negative")):
        words = None
        for key in graph.chain(inputs.get(name), name, "conditioning", "conditioning_1"):
            inner = graph.peek(key)
            if "control_net" in inner:
                _control(graph, key, reading)
            words = next((graph.plain(inner[n]) for n in _TEXTS if n in inner), words)
            if isinstance(words, str):
                _of_sdxl(graph, graph.inputs(key), option, reading)
                break
        if not isinstance(words, str):
            reading.notes.append(f"its {option} is not read")
            continue
        reading.values[option] = [words] if option == "prompt" else words


def _of_sdxl(graph: Graph, inputs: Mapping[str, Any], option: str, reading: Reading) -> None:
    """Notes on what CLIPTextEncodeSDXL holds beside the text that is taken."""
    first, second = (graph.plain(inputs.get(name)) for name in ("text_l", "text_g"))
    if isinstance(first, str) and isinstance(second, str) and first != second:
        reading.notes.append(
            f"the text_l of its {option}, {first[:80]!r}, is not taken; give it as {option}, and "
            f"text_g by --{option}-2"
        )
    crop = [str(graph.plain(inputs.get(name)) or 0)[:20] for name in ("crop_h", "crop_w")]
    if crop != ["0", "0"]:
        reading.notes.append(f"its crop of {' and '.join(crop)} is not taken; give --crop-top and "
                             "--crop-left")  # fmt: skip


def _control(graph: Graph, key: str, reading: Reading) -> None:
    inputs = graph.inputs(key)
    loader = graph.linked(inputs.get("control_net"))
    name = graph.inputs(loader).get("control_net_name") if loader else None
    sentence = f"its control {str(name)[:80]} holds no hint; give --control NAME=PICTURE"
    if sentence not in reading.notes:
        reading.notes.append(sentence)


def _latents(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    key = graph.linked(inputs.get("latent_image"))
    if key is None:
        return
    inner = graph.inputs(key)
    sides = {name: graph.plain(inner.get(name)) for name in ("width", "height")}
    if not graph.kind(key).startswith("Empty"):
        reading.notes.append(f"its latents come from {graph.kind(key)}, which is not read")
    elif all(isinstance(side, int) and 0 < side < 2**20 for side in sides.values()):
        reading.values |= sides
    elif any(side is not None for side in sides.values()):
        written = "×".join(str(side)[:20] for side in sides.values())
        reading.notes.append(f"its size {written} is not taken; give --width and --height")
    if graph.plain(inner.get("batch_size")) not in (None, 1):
        reading.notes.append("which picture of its batch this is, is not known; the first is made")


def _models(graph: Graph, inputs: Mapping[str, Any], reading: Reading) -> None:
    for key in graph.chain(inputs.get("model"), "model"):
        inner = graph.peek(key)
        for name, option in (("ckpt_name", "--base"), ("unet_name", "--base"), ("lora_name", "")):
            if name not in inner:
                continue
            graph.seen.add(key)
            value = str(graph.plain(inner[name]))[:80]
            strength = graph.plain(inner.get("strength_model"))
            behind = option or f"--lora FILE:{strength}"
            reading.notes.append(f"its {name} is {value!r}; name a file of it by {behind}")
