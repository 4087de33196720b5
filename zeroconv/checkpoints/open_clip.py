"""OpenCLIP's text tower, as SD 2.x and SDXL hold it in one file ↔ transformers' CLIP text model.

OpenCLIP keeps queries, keys and values in one matrix, and its projection transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zeroconv.checkpoints.names import inverse, rename

State = dict[str, Tensor]

PROJECTION = "text_projection"
_NAMES = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
}
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def from_open_clip(state: Mapping[str, Tensor], where: object, sd2: bool) -> tuple[State, State]:
    """→ the text model's weights without `text_model.`, and what it has no tensor for.

    sd2: the last layer is left out, because SD 2.x reads the states before it, and the projection
    is not read. SDXL's encoder keeps all layers and its projection.
    """
    layers = sum(key.endswith(".ln_1.weight") for key in state) - sd2
    unread = ("logit_scale", f"transformer.resblocks.{layers}.") + ((PROJECTION,) if sd2 else ())
    left = {key: value for key, value in state.items() if key.startswith(unread)}
    rest = {key: value for key, value in state.items() if key not in left}

    text: State = {"embeddings.position_embedding.weight": rest.pop("positional_embedding")}
    if not sd2:
        text[f"{PROJECTION}.weight"] = rest.pop(PROJECTION).T.contiguous()
    for i in range(layers):
        for kind in ("weight", "bias"):
            joined = rest.pop(f"transformer.resblocks.{i}.attn.in_proj_{kind}")
            for name, part in zip("qkv", joined.chunk(3), strict=True):
                text[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part.contiguous()
    return text | rename(rest, inverse(_names(layers)), where), left


def to_open_clip(text: Mapping[str, Tensor], sd2: bool) -> State:
    """The inverse of `from_open_clip`. SD 2.x gets back a last layer that nothing reads, filled
    with zeros; SDXL's encoder the temperature of its training, which nothing reads either.
    """
    layers = sum(key.endswith(".layer_norm1.weight") for key in text)
    rest, state = dict(text), {}
    state["positional_embedding"] = rest.pop("embeddings.position_embedding.weight")
    if not sd2:
        projection = rest.pop(f"{PROJECTION}.weight")
        state[PROJECTION] = projection.T.contiguous()
        # ln 100, where OpenCLIP's training ends
        state["logit_scale"] = torch.tensor(4.6052, dtype=projection.dtype)
    for i in range(layers):
        for kind in ("weight", "bias"):
            parts = [rest.pop(f"encoder.layers.{i}.self_attn.{name}_proj.{kind}") for name in "qkv"]
            state[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat(parts)
    state |= rename(rest, _names(layers), "text encoder")
    if not sd2:
        return state

    last, unread = f"transformer.resblocks.{layers - 1}.", f"transformer.resblocks.{layers}."
    return state | {
        unread + key.removeprefix(last): torch.zeros_like(value)
        for key, value in state.items()
        if key.startswith(last)
    }


def _names(layers: int) -> dict[str, str]:
    names = dict(_NAMES)
    for i in range(layers):
        names |= {
            f"encoder.layers.{i}.{a}": f"transformer.resblocks.{i}.{b}" for a, b in _LAYER.items()
        }
    return names
