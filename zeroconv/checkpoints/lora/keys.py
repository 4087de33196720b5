"""Names of a LoRA's tensors: which part of the base, which module of it, and which role."""

from __future__ import annotations

import re
from pathlib import Path

from zeroconv.errors import UserError

# a tensor's name behind its module's, in every tool's spelling → its role
_ROLES = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_linear_layer.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
    "lora_linear_layer.up": "up",
    "lora_mid": "core",
    **{
        name: name
        for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
    },
    **{
        name: name
        for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
    },
    "lokr_t2": "lokr_t2",
    "dora_scale": "dora_scale",  # LyCORIS
    "lora_magnitude_vector": "magnitude",  # peft
    "alpha": "alpha",
    "scalar": "scalar",  # LyCORIS: trained, multiplies the change
    "diff": "weight",
    "diff_b": "bias",
    "w_norm": "weight",
    "b_norm": "bias",
}

# a module's name, which tensor, and in peft's own files the adapter's name
_KEY = re.compile(
    rf"(?P<module>.+)\.(?P<role>{'|'.join(map(re.escape, sorted(_ROLES, reverse=True)))})"
    r"(\.(?!(?:weight|bias)$)(?P<adapter>\w+))?(\.weight)?"
)

# attention processors of diffusers before 0.17, of the UNet and of the text encoder
_OLD_UNET = re.compile(r"(.*)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
_OLD_TEXT = re.compile(r"(.*\.self_attn)\.to_(q|k|v|out)_lora\.(down|up)\.weight")

# XLabs' processors of FLUX.1's blocks: 1 is the picture's, 2 the text's
_XLABS = re.compile(
    r"(?P<block>.*(?:double|single)_blocks\.\d+)\.processor\.(?P<name>qkv|proj)_lora(?P<side>[12]?)\."
    r"(?P<role>down|up)\.weight"
)
_XLABS_SINGLE = {"qkv": "qkv", "proj": "linear2"}

# kinds that other tools know and zeroconv does not
_OTHERS = {
    r"\.(oft_|boft_)": "OFT",
    r"\.(a1|a2|b1|b2|c1|c2|bm1|bm2)(\.weight)?$": "GLoRA",
    r"\.(on_input|ia3_l)": "(IA)³",
    r"\.lora_embedding_": "a LoRA of an embedding",
    r"\.lora_[AB]\.(\w+\.)?bias$": "a LoRA with biases",
}

_PREFIXES = {  # how a module's name begins → which part of the base it is in
    "lora_unet_": "unet",
    "lora_unet.": "unet",
    "lycoris_unet_": "unet",
    "lora_transformer_": "unet",
    "lora_te_": "text_encoder",
    "lora_te.": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te1.": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te2.": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "lora_te3.": "text_encoder_3",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_3",
    "clip_l.": "text_encoder",
    "clip_g.": "text_encoder_2",
    "base_model.model.text_model.": "text_encoder",
    "base_model.model.": "unet",
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "transformer.base_model.model.": "unet",
    "transformer.": "unet",
    "unet.base_model.model.": "unet",
    "unet.": "unet",
    "text_encoder_3.": "text_encoder_3",
    "text_encoder_2.base_model.model.": "text_encoder_2",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder.base_model.model.": "text_encoder",
    "text_encoder.": "text_encoder",
    "lycoris_": "unet",
    "": "unet",
}


def part_of(module: str) -> tuple[str, str]:
    """A module's name in the file → its part of the base, and the name without the prefix."""
    prefix = next(p for p in _PREFIXES if module.startswith(p))
    return _PREFIXES[prefix], module.removeprefix(prefix)


def split(key: str, where: Path) -> tuple[str, str]:
    """A tensor's name → its module, and its role there.

    Raises UserError for a name that is no part of a kind that zeroconv knows.
    """
    if old := _OLD_UNET.fullmatch(key):
        module, name, role = old.groups()
        return f"{module}.{'to_out.0' if name == 'to_out' else name}", role

    if old := _OLD_TEXT.fullmatch(key):
        module, name, role = old.groups()
        return f"{module}.{name}_proj", role

    if xlabs := _XLABS.fullmatch(key):
        block, name, side, role = xlabs.groups()
        single = {"": _XLABS_SINGLE[name]}
        sides = {"1": f"img_attn.{name}", "2": f"txt_attn.{name}"}
        return f"{block}.{(single | sides)[side]}", role

    if match := _KEY.fullmatch(key):
        return match["module"], _ROLES[match["role"]]
    other = next((what for sign, what in _OTHERS.items() if re.search(sign, key)), None)
    raise UserError(
        f"{where} has {key[:200]}, which is no part of a LoRA, LoHa, LoKr or DoRA"
        f"{f': it is {other}, which zeroconv does not merge' if other else ''}; save it as one of "
        "these, or merged into its base."
    )
