"""A diffusion transformer in one file, taken apart: the transformer, and what of text encoders and
VAE stands beside it.

Files hold the transformer alone, under its own names or ComfyUI's prefix, or the whole model:
`model.diffusion_model.`, `text_encoders.NAME.transformer.` and `vae.` or `first_stage_model.`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from zeroconv.checkpoints.flow.layout import State, Table, count, from_original, to_original
from zeroconv.checkpoints.flow.names import (
    chroma_names_of,
    flux_names_of,
    sd3_names_of,
    zimage_names_of,
)
from zeroconv.checkpoints.identify import identify
from zeroconv.checkpoints.kinds import CHROMA, FLUX, QWEN, SD3, Z_IMAGE, Kind
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.errors import UserError

# the class of diffusers' transformer, by the kind of the file
CLASSES = {
    FLUX.name: "FluxTransformer2DModel",
    CHROMA.name: "ChromaTransformer2DModel",
    SD3.name: "SD3Transformer2DModel",
    QWEN.name: "QwenImageTransformer2DModel",
    Z_IMAGE.name: "ZImageTransformer2DModel",
}
PREFIX = "model.diffusion_model."
_PREFIXES = (PREFIX, "diffusion_model.")
_VAES = ("vae.", "first_stage_model.")
_TEXTS = "text_encoders."
# ComfyUI's names of text encoders in a whole model → their kind
TEXT_NAMES = {
    "clip_l": "clip_l",
    "clip_g": "clip_g",
    "t5xxl": "t5",
    "qwen25_7b": "qwen2_5_vl",
    "qwen3_4b": "qwen3",
}
_TABLES: dict[str, Callable[[Mapping[str, Tensor]], Table]] = {
    FLUX.name: flux_names_of,
    CHROMA.name: chroma_names_of,
    SD3.name: sd3_names_of,
    Z_IMAGE.name: zimage_names_of,
}
# of a file with one of these the transformer is of another model
_OTHERS = {
    "single_stream_modulation.": "a FLUX.2",
    "img_in_context.": "a transformer with a second picture",
    "siglip_embedder.": "a Z-Image Omni",
    "__index_timestep_zero__": "a Qwen-Image Edit",
}
# in ComfyUI's files beside what is read
_UNREAD = ("norm_final.weight", "logit_scale", "position_ids", "spiece_model")


@dataclass
class FlowFile:
    """The parts of a file, under diffusers' and transformers' names; empty for what it lacks."""

    kind: Kind
    transformer: State
    vae: State = field(default_factory=dict)  # in LDM's names, as it stands there
    texts: dict[str, State] = field(default_factory=dict)  # by kind

    @property
    def class_name(self) -> str:
        return CLASSES[self.kind.name]


def is_flow(kind: Kind) -> bool:
    """Whether a kind of file is a diffusion transformer that zeroconv runs."""
    return kind.name in CLASSES


def read_flow(path: Path) -> FlowFile:
    """Raises UserError for a transformer of another family."""
    return split(read_state_dict(path), path)


def split(state: Mapping[str, Tensor], where: object) -> FlowFile:
    """The parts of a state dict; see `read_flow`. A note for what no part reads."""
    kind = identify(state)
    rest, texts, vae = dict(state), {}, {}
    if any(key.startswith((PREFIX, *_VAES, _TEXTS)) for key in rest):
        for name, text in TEXT_NAMES.items():
            texts[text] = _pop(rest, f"{_TEXTS}{name}.transformer.")
        vae = next((part for prefix in _VAES if (part := _pop(rest, prefix))), {})
    transformer = next((part for p in _PREFIXES if (part := _pop(rest, p))), None)
    if transformer is None:
        transformer, rest = rest, {}
    _check_family(transformer, where)
    if strange := [key for key in rest if not key.endswith(_UNREAD) and "scaled_fp8" not in key]:
        warnings.warn(
            f"{where} also holds {len(strange)} tensors that no part of the base reads, such as "
            f"{strange[0][:100]}; they are left out.",
            stacklevel=3,
        )
    transformer = {k: v for k, v in transformer.items() if not k.endswith(_UNREAD)}
    texts = {name: part for name, part in texts.items() if part}
    return FlowFile(kind, transformer, vae, texts)


def to_diffusers(state: Mapping[str, Tensor], kind: str, where: object) -> State:
    """The transformer's tensors under diffusers' names, from either layout. Multiply scaled float8
    out before (`unscaled`): several modules' rows may share a scale.
    """
    if not is_original(state, kind):
        return dict(state)
    return from_original(state, _TABLES[kind](state), where)


def from_diffusers(state: Mapping[str, Tensor], kind: str) -> State:
    """The inverse of `to_diffusers`."""
    return to_original(state, _TABLES[kind](state)) if kind in _TABLES else dict(state)


def table_of(state: Mapping[str, Tensor]) -> Table | None:
    """The table of a transformer's tensors in diffusers' names; None for those of no such one."""
    if count(state, "single_transformer_blocks.") or "context_embedder.weight" in state:
        kind = FLUX if "x_embedder.weight" in state else SD3
        if "distilled_guidance_layer.in_proj.weight" in state:
            kind = CHROMA
        return _TABLES[kind.name](state)
    if any(key.startswith("all_x_embedder.") for key in state):
        return zimage_names_of(state)
    return {} if "txt_norm.weight" in state else None


def is_original(state: Mapping[str, Tensor], kind: str) -> bool:
    """Whether the names are the original ones."""
    marks = {
        FLUX.name: ("double_blocks.", "single_blocks."),
        CHROMA.name: ("double_blocks.", "single_blocks."),
        SD3.name: ("joint_blocks.",),
        Z_IMAGE.name: ("x_embedder.",),
    }.get(kind)
    return marks is not None and any(key.startswith(marks) for key in state)


def _check_family(state: Mapping[str, Tensor], where: object) -> None:
    for mark, what in _OTHERS.items():
        if any(key.startswith(mark) for key in state):
            raise UserError(
                f"{where} is {what}, which zeroconv does not run; of transformers it runs SD 3, "
                "FLUX.1, Chroma, Qwen-Image and Z-Image."
            )


def _pop(state: State, prefix: str) -> State:
    """The tensors under a prefix, without it, taken out of `state`."""
    names = [key for key in state if key.startswith(prefix)]
    return {key.removeprefix(prefix): state.pop(key) for key in names}
