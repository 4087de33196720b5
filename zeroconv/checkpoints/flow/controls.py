"""ControlNets of diffusion transformers from whatever holds them: diffusers' folder, its names in
one file, or another published layout (XLabs' of FLUX.1, Stability AI's of SD 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.float8 import unscaled
from zeroconv.checkpoints.flow.control_configs import CONFIGS
from zeroconv.checkpoints.flow.layout import (
    Joined,
    State,
    Table,
    count,
    from_original,
    one,
    to_original,
)
from zeroconv.checkpoints.flow.names import flux_names
from zeroconv.checkpoints.identify import identify, plain_state, refuse_folder, refuse_other_kind
from zeroconv.checkpoints.kinds import (
    CHROMA_CONTROL,
    FLUX_CONTROL,
    QWEN_CONTROL,
    SD3_CONTROL,
    Z_CONTROL,
)
from zeroconv.checkpoints.reading import (
    read_config,
    read_metadata,
    read_state_dict,
    read_text_table,
    read_weights,
)
from zeroconv.checkpoints.stable_diffusion import describing
from zeroconv.errors import UserError

WEIGHTS = "diffusion_pytorch_model"
# kind → the class of diffusers' network, and the family of its bases
CLASSES = {
    FLUX_CONTROL.name: ("FluxControlNetModel", "FLUX.1"),
    CHROMA_CONTROL.name: ("ChromaControlNetModel", "Chroma"),
    SD3_CONTROL.name: ("SD3ControlNetModel", "Stable Diffusion 3"),
    QWEN_CONTROL.name: ("QwenImageControlNetModel", "Qwen-Image"),
    Z_CONTROL.name: ("ZImageControlNetModel", "Z-Image"),
}
# numbers of XLabs' convolutions on the hint's pixels → diffusers' names
_HINT = ("conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out")


@dataclass
class FlowControl:
    """A control in diffusers' terms."""

    class_name: str
    config: dict[str, Any]
    state: State
    original: bool = False  # its file has another layout's names


def read_flow_control(path: Path, base: Mapping[str, Any] | None = None) -> FlowControl:
    """A control of a folder or a file. base: the config of its base's transformer, for what leaves
    no trace in shapes; without one it is that of the published bases.

    Raises UserError for another kind of model, and for layouts that zeroconv does not know.
    """
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise refuse_folder(path, "ControlNet")
        config = read_config(path)
        state = read_weights(path, (WEIGHTS,))
        return FlowControl(str(config.pop("_class_name", "")), config, state)
    raw = plain_state(read_state_dict(path))
    kind = identify(raw)
    if kind.name not in CLASSES:
        raise refuse_other_kind(kind, "ControlNet of a diffusion transformer", path, raw)
    class_name = CLASSES[kind.name][0]
    plain = unscaled(raw, path)
    state = _to_diffusers(plain, path)
    original = state.keys() != plain.keys()
    if "zeroconv" in (metadata := read_metadata(path)):
        config = read_text_table(metadata["zeroconv"], f"{path}: its header's zeroconv")
        config.pop("_class_name", None)
    else:
        with describing(path):
            config = CONFIGS[class_name](state, dict(base or {}), path)
    if class_name == "ZImageControlNetModel" and _shares_layers(config):
        # in the file, and read by nothing
        state = {k: v for k, v in state.items() if not k.startswith("control_noise_refiner.")}
    return FlowControl(class_name, config, state, original)


def original_names(control: FlowControl) -> State:
    """Its tensors in its authors' layout, if that is another than diffusers'; else as they are."""
    table = _table_for(control.state)
    return to_original(control.state, table) if table else dict(control.state)


def _shares_layers(config: Mapping[str, Any]) -> bool:
    return config.get("add_control_noise_refiner") == "control_layers"


def _to_diffusers(state: Mapping[str, Tensor], where: object) -> State:
    if "controlnet_blocks.0.linear.weight" in state:
        raise UserError(
            f"{where} is a ControlNet of FLUX.1 in MistoLine's layout, whose hint encoder zeroconv "
            "does not know."
        )
    if "double_blocks.0.img_mod.lin.weight" in state:
        return from_original(state, _xlabs(count(state, "double_blocks.")), where)
    if "transformer_blocks.0.adaLN_modulation.1.weight" in state:
        return from_original(state, _stability(count(state, "transformer_blocks.")), where)
    return dict(state)


def _table_for(state: Mapping[str, Tensor]) -> Table | None:
    """The original names of a control in diffusers' names; None where there are no others."""
    blocks = count(state, "transformer_blocks.")
    if "input_hint_block.conv_in.weight" in state:
        return _xlabs(blocks)
    if "pos_embed_input.proj.weight" in state and "context_embedder.weight" not in state:
        return _stability(blocks)
    return None


def _xlabs(blocks: int) -> Table:
    table = flux_names(blocks, 0, 0, 0) | {"pos_embed_input": one("controlnet_x_embedder")}
    for i, name in enumerate(_HINT):  # every second entry is a SiLU
        table[f"input_hint_block.{2 * i}"] = one(f"input_hint_block.{name}")
    return table


def _stability(blocks: int) -> Table:
    """SD 3.5's, whose blocks read no text."""
    table: Table = {}
    names = {
        "attn.proj": "attn.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
        "adaLN_modulation.1": "norm1.linear",
    }
    for i in range(blocks):
        start = f"transformer_blocks.{i}."
        table |= {start + theirs: one(start + ours) for theirs, ours in names.items()}
        parts = tuple(f"{start}attn.to_{part}" for part in "qkv")
        table[f"{start}attn.qkv"] = Joined(parts)
    return table
