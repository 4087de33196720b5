"""Text encoders of diffusion transformers in one file: which kind, and its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.checkpoints.flow.infer import qwen3_config, qwen_vl_config, t5_config
from zeroconv.checkpoints.flow.layout import State
from zeroconv.checkpoints.infer import infer_text_config
from zeroconv.checkpoints.stable_diffusion import bare_text, describing

# kind → what people call it, and how the names of its published files begin
NAMES = {
    "clip_l": ("CLIP-L", ("clip_l",)),
    "clip_g": ("CLIP-G", ("clip_g",)),
    "t5": ("T5", ("t5",)),
    "qwen2_5_vl": ("Qwen2.5-VL", ("qwen_2.5_vl", "qwen2.5")),
    "qwen3": ("Qwen3", ("qwen_3", "qwen3")),
}
_LANGUAGE = ("model.language_model.", "language_model.model.", "language_model.", "model.")


def text_config(state: Mapping[str, Tensor], kind: str, where: Path) -> dict[str, Any]:
    """transformers' config of a text encoder of this kind, from its shapes. Raises UserError."""
    with describing(where):
        if kind in ("clip_l", "clip_g"):
            return infer_text_config(bare_text(state), "quick_gelu" if kind == "clip_l" else "gelu")
        if kind == "t5":
            return t5_config(state)
        bare = language_state(state)
        return qwen3_config(bare) if kind == "qwen3" else qwen_vl_config(bare)


def kind_of_text(names: Mapping[str, Any] | list[str], path: Path) -> str | None:
    """The kind of a text encoder by the names of its tensors; CLIP's two by the file's name. None
    for what is none of them.
    """
    keys = list(names)

    def some(*ends: str) -> bool:
        return any(key.endswith(ends) for key in keys)

    if some("encoder.block.0.layer.0.SelfAttention.q.weight"):
        return "t5"
    if some("layers.0.self_attn.q_norm.weight"):
        return "qwen3"
    if some("layers.0.mlp.gate_proj.weight") and some("layers.0.self_attn.q_proj.bias"):
        return "qwen2_5_vl"
    if some("embeddings.token_embedding.weight"):
        large = path.stem.lower().startswith(NAMES["clip_g"][1])
        return "clip_g" if large else "clip_l"
    return None


def without_projection(state: Mapping[str, Tensor]) -> State:
    """CLIP's tensors without what projects its pooled vector, which FLUX.1 does not use."""
    return {key: value for key, value in state.items() if not key.startswith("text_projection")}


def language_state(state: Mapping[str, Tensor]) -> State:
    """Tensors of a language model by its own names, without those of other parts."""
    named = {}
    for key, value in state.items():
        if "visual." in key or key.startswith("lm_head."):
            continue
        prefix = next((p for p in _LANGUAGE if key.startswith(p)), "")
        named[key.removeprefix(prefix)] = value
    return named
