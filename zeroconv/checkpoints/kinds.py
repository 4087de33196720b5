"""Kinds of models that people meet, and what gives each away: names of tensors, or a config's
class.

Only names are looked at; `identify` says of a file or a folder which it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of model: a short name for programs, words with their article for people, and what
    to do with it.
    """

    name: str
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.advice})" if self.advice else self.what


_YET = "zeroconv does not run these yet"
_BASE = "load it as a backbone"
_AS_CONTROL = "load it as a control, with its base"
_WHOLE = "load its file as a backbone, with --parts for what it lacks, or a folder of the whole"
_NEVER = "it is no control of Stable Diffusion"

CONTROL = Kind("control", "a ControlNet")
UNKNOWN = Kind("unknown", "a model of an unknown kind")
BASE = Kind("base", "a whole Stable Diffusion", _BASE)
LORA = Kind("lora", "a LoRA", "merge it into a base: --lora FILE")
BASELINE = Kind("baseline", "a network of zeroconv.baselines")
UNET = Kind("unet", "a UNet", "load its folder as a backbone")
VAE = Kind("vae", "a VAE", "it is one part of a base")
TINY_VAE = Kind("tiny_vae", "a tiny VAE", "give it as --tiny-vae")
VIDEO_VAE = Kind("video_vae", "the VAE of Qwen-Image", "it is one part of a base")
TEXT = Kind("text_encoder", "a text encoder", "it is one part of a base")
CONTROL_LORA = Kind("control_lora", "a Control-LoRA", _AS_CONTROL)
UNION = Kind("union", "a ControlNet Union", "load it as a control, with a kind for each hint")
XS = Kind("controlnet_xs", "a ControlNet-XS", _AS_CONTROL)
SPARSE = Kind("sparse_control", "a SparseCtrl of AnimateDiff", _YET)
T2I = Kind("t2i_adapter", "a T2I-Adapter", _AS_CONTROL)
FLUX_CONTROL = Kind("flux_control", "a ControlNet of FLUX", _AS_CONTROL)
CHROMA_CONTROL = Kind("chroma_control", "a ControlNet of Chroma", _AS_CONTROL)
SD3_CONTROL = Kind("sd3_control", "a ControlNet of Stable Diffusion 3", _AS_CONTROL)
QWEN_CONTROL = Kind("qwen_control", "a ControlNet of Qwen-Image", _AS_CONTROL)
Z_CONTROL = Kind("z_image_control", "a ControlNet of Z-Image", _AS_CONTROL)
DIT_CONTROL = Kind("transformer_control", "a ControlNet of a transformer base", _YET)
FLUX = Kind("flux", "a FLUX transformer", _WHOLE)
CHROMA = Kind("chroma", "a Chroma transformer", _WHOLE)
SD3 = Kind("sd3", "a Stable Diffusion 3", _WHOLE)
QWEN = Kind("qwen", "a Qwen-Image transformer", _WHOLE)
Z_IMAGE = Kind("z_image", "a Z-Image transformer", _WHOLE)

# tried in order; each kind's expressions must all match the start of some tensor's name
_BY_NAMES: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        Kind("embedding", "a textual-inversion embedding", "it is for prompts"),
        (r"\A(string_to_param|emb_params|clip_g|clip_l|<[^<>\n]*>)$",),
    ),
    (CONTROL_LORA, (r"^lora_controlnet$",)),
    (
        Kind("lllite", "a ControlNet-LLLite", "give it as a control: --control FILE=hint.png"),
        (r"^lllite_",),
    ),
    (
        Kind("ip_adapter", "an IP-Adapter", "give it as --image-prompt FILE=picture.png"),
        (r"^(image_proj|ip_adapter)\.",),
    ),
    (Z_CONTROL, (r"^control_all_x_embedder\.",)),
    (QWEN_CONTROL, (r"^controlnet_x_embedder\.", r"^txt_norm\.")),
    (CHROMA_CONTROL, (r"^controlnet_x_embedder\.", r"^distilled_guidance_layer\.")),
    (FLUX_CONTROL, (r"^controlnet_x_embedder\.",)),
    (FLUX_CONTROL, (r"^(input_hint_block|controlnet_blocks)\.", r"^double_blocks\.")),
    (
        SD3_CONTROL,
        (r"^controlnet_blocks\.", r"^(pos_embed_input|joint_blocks|context_embedder)\.?"),
    ),
    (DIT_CONTROL, (r"^controlnet_blocks\.",)),
    (
        UNION,
        (r"^(task_embedding$|control_add_embedding\.|spatial_ch_projs\.|transformer_layes\.)",),
    ),
    (
        XS,
        (
            r"(^|\.)(base_to_ctrl|ctrl_to_base|control_to_base_for_conv_in|enc_zero_convs_out|dec_zero_convs_out)\.",
        ),
    ),
    (SPARSE, (r"^controlnet_cond_embedding\.", r"\.motion_modules\.")),
    (Kind("motion", "a motion module of AnimateDiff", _NEVER), (r"(^|\.)motion_modules\.",)),
    (
        T2I,
        (
            r"^(adapter\.|adapters\.\d+\.)?(adapter\.)?body\.\d+\.(block1|in_conv|body|resnets|skep|down_opt)\b",
        ),
    ),
    (CONTROL, (r"^(control_model\.|input_hint_block\.)",)),
    (CONTROL, (r"^controlnet_cond_embedding\.",)),
    (
        LORA,
        (
            r"(^lora_(unet|te)|\blora_(A|B|up|down|linear_layer)\b|\blora\.(up|down)\b|"
            r"\b(hada_w|lokr_w|oft_)|_lora[12]?\.(up|down)\b|dora_scale)",
        ),
    ),
    (
        Kind("sdxl_refiner", "the refiner of SDXL", "zeroconv does not run it; use the base alone"),
        (r"^conditioner\.embedders\.0\.model\.",),
    ),
    (BASE, (r"^model\.diffusion_model\.", r"^conditioner\.embedders\.")),
    (TEXT, (r"^conditioner\.embedders\.",)),
    (CHROMA, (r"^((model\.)?diffusion_model\.)?distilled_guidance_layer\.",)),
    (FLUX, (r"^((model\.)?diffusion_model\.)?(double_blocks|single_transformer_blocks)\.",)),
    (SD3, (r"^((model\.)?diffusion_model\.)?joint_blocks\.",)),
    (SD3, (r"^context_embedder\.", r"^pos_embed\.proj\.", r"^transformer_blocks\.")),
    (
        QWEN,
        (
            r"^((model\.)?diffusion_model\.)?transformer_blocks\.",
            r"^((model\.)?diffusion_model\.)?txt_norm\.",
        ),
    ),
    (Z_IMAGE, (r"^((model\.)?diffusion_model\.)?(all_x_embedder|cap_embedder|noise_refiner)\.",)),
    (BASE, (r"^model\.diffusion_model\.", r"^(cond_stage_model|first_stage_model)\.")),
    (
        Kind("unet", "the UNet of a Stable Diffusion alone", "give the whole model"),
        (r"^model\.diffusion_model\.",),
    ),
    (
        Kind("unet", "the UNet of a Stable Diffusion alone", "give the whole model"),
        (r"^output_blocks\.",),
    ),
    (UNET, (r"^conv_in\.", r"^up_blocks\.")),
    (UNET, (r"^conv_in\.", r"^conv_out\.")),
    (Kind("transformer", "a transformer base", _YET), (r"^transformer_blocks\.",)),
    (
        VIDEO_VAE,
        (r"^decoder\.(middle\.0\.residual\.0|up_blocks\.0\.resnets\.0\.norm1)\.gamma$",),
    ),
    (TINY_VAE, (r"^(taesd_)?decoder\.(layers\.)?\d+\.conv\.0\.weight$",)),
    (TINY_VAE, (r"\A(?!0\.)", r"^1\.weight$", r"^3\.conv\.0\.weight$", r"^3\.conv\.4\.weight$")),
    (VAE, (r"^(first_stage_model\.)?(encoder|decoder)\.conv_in\.",)),
    (VAE, (r"^(first_stage_model\.)?(post_)?quant_conv\.",)),
    (TEXT, (r"^(cond_stage_model\.|text_encoders?\.|transformer\.|text_model\.)",)),
    (TEXT, (r"^(encoder\.)?(block|layers)\.\d+\.(layer|self_attn)\b",)),
    (TEXT, (r"^(model\.)?(embed_tokens|layers\.\d+\.self_attn)\b",)),
    (TEXT, (r"^embeddings\.token_embedding\.",)),
    (
        Kind("image_encoder", "an image encoder", _NEVER),
        (r"^(vision_model|visual|embeddings\.patch_embeddings)\b",),
    ),
    (
        Kind("upscaler", "a network that enlarges pictures", _NEVER),
        (r"^(model\.1\.sub\.|body\.\d+\.rdb|RRDB_trunk|conv_first\.)",),
    ),
    (Kind("inception", "an Inception for FID", "give it as --features"), (r"^Conv2d_1a_3x3\.",)),
)

# a config's class → the kind; the class itself is told too
_BY_CLASS = {
    "ControlNetModel": CONTROL,
    "ZeroconvBaseline": BASELINE,
    "ZeroconvRival": BASELINE,  # its old name
    "ControlNetUnionModel": UNION,
    "ControlNetModel_Union": UNION,  # as its own repository has it
    "ControlNetXSAdapter": XS,
    "UNetControlNetXSModel": XS,
    "SparseControlNetModel": SPARSE,
    "T2IAdapter": T2I,
    "MultiAdapter": T2I,
    "FluxControlNetModel": FLUX_CONTROL,
    "ChromaControlNetModel": CHROMA_CONTROL,
    "SD3ControlNetModel": SD3_CONTROL,
    "QwenImageControlNetModel": QWEN_CONTROL,
    "ZImageControlNetModel": Z_CONTROL,
    "UNet2DConditionModel": UNET,
    "AutoencoderKL": VAE,
    "AutoencoderTiny": TINY_VAE,
    "AutoencoderKLQwenImage": VIDEO_VAE,
    "FluxTransformer2DModel": FLUX,
    "ChromaTransformer2DModel": CHROMA,
    "SD3Transformer2DModel": SD3,
    "QwenImageTransformer2DModel": QWEN,
    "ZImageTransformer2DModel": Z_IMAGE,
}


def kind_of_names(names: object) -> Kind:
    """The kind that the names of tensors tell, whatever holds them (a state dict, a list)."""
    text = "\n".join(str(name) for name in names)  # type: ignore[attr-defined]
    for kind, expressions in _BY_NAMES:
        if all(re.search(expression, text, re.MULTILINE) for expression in expressions):
            return kind
    return UNKNOWN


def kind_of_class(name: str) -> Kind:
    """The kind that a config's `_class_name` or architecture tells."""
    if name in _BY_CLASS:
        return _BY_CLASS[name]
    if "ControlNet" in name:
        return DIT_CONTROL
    if "TextModel" in name or "EncoderModel" in name:
        return TEXT
    return Kind(
        "other",
        f"a {name[:80]}",
        "it is one part of another model" if "Transformer" in name else "",
    )
