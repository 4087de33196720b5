"""Tables of the original layouts of diffusion transformers: original module → diffusers'.

FLUX.1: Black Forest Labs' names. SD 3: Stability AI's. Z-Image: those that ComfyUI reads; the
authors' own are diffusers'. Qwen-Image has diffusers' names in both. Checked against the converters
of diffusers 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zeroconv.checkpoints.flow.layout import Joined, Table, count, one

_QKV = ("to_q", "to_k", "to_v")
_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")

_FLUX = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
}
_FLUX_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
    "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_FLUX_SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
}


def flux_names(doubles: int, singles: int, width: int, hidden: int) -> Table:
    """FLUX.1 of so many double and single blocks. width: of tokens; hidden: of the single blocks'
    MLP.
    """
    table = {theirs: one(ours) for theirs, ours in _FLUX.items()}
    table["final_layer.adaLN_modulation.1"] = Joined(("norm_out.linear",), swapped=True)
    for i in range(doubles):
        theirs, ours = f"double_blocks.{i}.", f"transformer_blocks.{i}."
        table |= {theirs + a: one(ours + b) for a, b in _FLUX_DOUBLE.items()}
        table[theirs + "img_attn.qkv"] = _joined(f"{ours}attn.", _QKV)
        table[theirs + "txt_attn.qkv"] = _joined(f"{ours}attn.", _ADDED)
    for i in range(singles):
        theirs, ours = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        table |= {theirs + a: one(ours + b) for a, b in _FLUX_SINGLE.items()}
        modules = (*(f"{ours}attn.{name}" for name in _QKV), f"{ours}proj_mlp")
        table[theirs + "linear1"] = Joined(modules, (width, width, width, hidden))
    return table


def flux_names_of(state: Mapping[str, Tensor]) -> Table:
    """`flux_names` of tensors in either layout."""
    doubles = max(count(state, "double_blocks."), count(state, "transformer_blocks."))
    singles = max(count(state, "single_blocks."), count(state, "single_transformer_blocks."))
    width = _rows(state, "img_in.weight", "x_embedder.weight")
    hidden = _rows(state, "single_transformer_blocks.0.proj_mlp.weight")
    if "single_blocks.0.linear1.weight" in state:
        hidden = state["single_blocks.0.linear1.weight"].shape[0] - 3 * width
    return flux_names(doubles, singles, width, hidden)


_CHROMA = {
    "in_layer": "linear_1",
    "out_layer": "linear_2",
}


def chroma_names_of(state: Mapping[str, Tensor]) -> Table:
    """Chroma, of tensors in either layout: FLUX.1's names, without modulation in the blocks."""
    table = flux_names_of(state)
    start = "distilled_guidance_layer."
    for i in range(count(state, f"{start}layers.")):
        layer = f"{start}layers.{i}."
        table |= {layer + theirs: one(layer + ours) for theirs, ours in _CHROMA.items()}
        table[f"{start}norms.{i}.scale"] = one(f"{start}norms.{i}.weight")
    return table


_SD3 = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_SD3_BLOCK = {
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}


def sd3_names(blocks: int) -> Table:
    """Stable Diffusion 3 of so many blocks, the last of which has no output for text."""
    table = {theirs: one(ours) for theirs, ours in _SD3.items()}
    table["final_layer.adaLN_modulation.1"] = Joined(("norm_out.linear",), swapped=True)
    for i in range(blocks):
        theirs, ours = f"joint_blocks.{i}.", f"transformer_blocks.{i}."
        table |= {theirs + a: one(ours + b) for a, b in _SD3_BLOCK.items()}
        table[theirs + "x_block.attn.qkv"] = _joined(f"{ours}attn.", _QKV)
        table[theirs + "x_block.attn2.qkv"] = _joined(f"{ours}attn2.", _QKV)
        table[theirs + "context_block.attn.qkv"] = _joined(f"{ours}attn.", _ADDED)
        # the last is followed by no gate, and its scale and shift stand the other way round
        table[theirs + "context_block.adaLN_modulation.1"] = Joined(
            (f"{ours}norm1_context.linear",), swapped=i == blocks - 1
        )
    return table


def sd3_names_of(state: Mapping[str, Tensor]) -> Table:
    """`sd3_names` of tensors in either layout."""
    return sd3_names(max(count(state, "joint_blocks."), count(state, "transformer_blocks.")))


_Z_IMAGE = {"x_embedder": "all_x_embedder.2-1", "final_layer": "all_final_layer.2-1"}
_Z_LISTS = ("layers", "noise_refiner", "context_refiner")


def zimage_names_of(state: Mapping[str, Tensor]) -> Table:
    """Z-Image, of tensors in either layout."""
    table = {theirs: one(ours) for theirs, ours in _Z_IMAGE.items()}
    for part in _Z_LISTS:
        for i in range(count(state, f"{part}.")):
            start = f"{part}.{i}.attention."
            table[start + "qkv"] = _joined(start, _QKV)
            table[start + "out"] = one(start + "to_out.0")
            table[start + "q_norm"] = one(start + "norm_q")
            table[start + "k_norm"] = one(start + "norm_k")
    return table


def _joined(start: str, names: tuple[str, ...]) -> Joined:
    return Joined(tuple(start + name for name in names))


def _rows(state: Mapping[str, Tensor], *names: str) -> int:
    return next((state[name].shape[0] for name in names if name in state), 0)
