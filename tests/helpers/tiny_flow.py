"""Tiny diffusion transformers in diffusers' pipeline layout, all weights random and written to a
folder: SD 3, FLUX.1, Chroma, Qwen-Image, Z-Image. And ControlNets of them, with connections that
are not zero.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.backbones.loading.locate import ASSETS

CHANNELS = 16  # of latents: one of diffusers' pipelines asks for them
SCALE = 4  # pixels a latent

FLUX: dict[str, Any] = {
    "in_channels": 4 * CHANNELS,
    "num_layers": 3,
    "num_single_layers": 5,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 6, 6),
}
CHROMA: dict[str, Any] = {
    **{k: v for k, v in FLUX.items() if k not in ("pooled_projection_dim", "guidance_embeds")},
    "approximator_num_channels": 16,
    "approximator_hidden_dim": 20,
    "approximator_layers": 2,
}
SD3: dict[str, Any] = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": 5,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 8,
}
QWEN: dict[str, Any] = {
    "in_channels": 4 * CHANNELS,
    "out_channels": CHANNELS,
    "num_layers": 5,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}
Z_IMAGE: dict[str, Any] = {
    "in_channels": CHANNELS,
    "dim": 32,
    "n_layers": 4,
    "n_refiner_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 24,
    "axes_dims": [4, 6, 6],
    "axes_lens": [256, 64, 64],
}
TURBO = {"shift": 3.0, "use_dynamic_shifting": False}
DYNAMIC = {
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_image_seq_len": 4,
    "max_image_seq_len": 64,
    "base_shift": 0.5,
    "max_shift": 1.15,
}


def randomised(module: nn.Module, scale: float | None = 0.2) -> Any:
    """Every parameter drawn anew, zero layers too: a zero would hide errors behind it. scale None:
    left as diffusers draws them, for what is to learn.
    """
    if scale is None:
        return module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
    return module


def write_flux(
    folder: Path,
    seed: int = 0,
    dynamic: bool = True,
    scale: float | None = 0.2,
    **changes: Any,
) -> Path:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    made = FluxTransformer2DModel(**{**FLUX, **changes})
    randomised(made, scale).save_pretrained(folder / "transformer")
    _clip(folder, "", 16)
    _t5(folder, "_2", 24)
    _vae(folder)
    _index(folder, "FluxPipeline", DYNAMIC if dynamic else {"shift": 1.0})
    return folder


def write_chroma(folder: Path, seed: int = 0, scale: float | None = 0.2, **changes: Any) -> Path:
    from diffusers import ChromaTransformer2DModel

    torch.manual_seed(seed)
    made = ChromaTransformer2DModel(**{**CHROMA, **changes})
    randomised(made, scale).save_pretrained(folder / "transformer")
    _t5(folder, "", 24)
    _vae(folder)
    _index(folder, "ChromaPipeline", {"shift": 3.0, "use_dynamic_shifting": False})
    return folder


def write_sd3(
    folder: Path,
    seed: int = 0,
    t5: bool = True,
    scale: float | None = 0.2,
    **changes: Any,
) -> Path:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(seed)
    randomised(SD3Transformer2DModel(**{**SD3, **changes}), scale).save_pretrained(
        folder / "transformer"
    )
    for number in ("", "_2"):
        _clip(folder, number, 16, projected=True)
    if t5:
        _t5(folder, "_3", 32)
    _vae(folder)
    _index(folder, "StableDiffusion3Pipeline", TURBO)
    return folder


def write_qwen(folder: Path, seed: int = 0, scale: float | None = 0.2, **changes: Any) -> Path:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    made = QwenImageTransformer2DModel(**{**QWEN, **changes})
    randomised(made, scale).save_pretrained(folder / "transformer")
    words = _bytes_tokenizer(folder / "tokenizer")
    text = _language(words) | {"rope_parameters": _rope([2, 1, 1])}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 24}
    vision |= {"intermediate_size": 16, "fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    config.image_token_id = config.video_token_id = words - 1
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.1, 0.2, 0.05] * 4,
        latents_std=[0.3, 0.4, 0.5, 0.6] * 4,
    )
    _steady(vae.quant_conv)
    vae.save_pretrained(folder / "vae")
    _index(folder, "QwenImagePipeline", {**DYNAMIC, "shift": 1.0, "shift_terminal": 0.02})
    return folder


def write_zimage(folder: Path, seed: int = 0, scale: float | None = 0.2, **changes: Any) -> Path:
    from diffusers import ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    made = ZImageTransformer2DModel(**{**Z_IMAGE, **changes})
    randomised(made, scale).save_pretrained(folder / "transformer")
    words = _bytes_tokenizer(folder / "tokenizer")
    Qwen3Model(Qwen3Config(**_language(words), head_dim=8)).save_pretrained(folder / "text_encoder")
    _vae(folder)
    _index(folder, "ZImagePipeline", TURBO)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    "sd3": write_sd3,
    "flux": write_flux,
    "chroma": write_chroma,
    "qwen": write_qwen,
    "zimage": write_zimage,
}


def flux_control(doubles: int = 2, singles: int = 0, seed: int = 1, **changes: Any) -> Any:
    """diffusers' FluxControlNetModel, every weight random."""
    from diffusers import FluxControlNetModel

    torch.manual_seed(seed)
    config = {**FLUX, "num_layers": doubles, "num_single_layers": singles, **changes}
    return randomised(FluxControlNetModel(**config))


def sd3_control(blocks: int = 2, seed: int = 1, **changes: Any) -> Any:
    from diffusers import SD3ControlNetModel

    torch.manual_seed(seed)
    return randomised(SD3ControlNetModel(**{**SD3, "num_layers": blocks, **changes}))


def qwen_control(blocks: int = 2, seed: int = 1, **changes: Any) -> Any:
    from diffusers import QwenImageControlNetModel

    torch.manual_seed(seed)
    return randomised(QwenImageControlNetModel(**{**QWEN, "num_layers": blocks, **changes}))


Z_CONTROL: dict[str, Any] = {
    "control_layers_places": [0, 2],
    "control_refiner_layers_places": [0, 1],
    "control_in_dim": CHANNELS,
    "dim": 32,
    "n_refiner_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
}


def zimage_control(seed: int = 1, **changes: Any) -> Any:
    """diffusers' ZImageControlNetModel, without what it borrows of its base."""
    from diffusers import ZImageControlNetModel

    torch.manual_seed(seed)
    return randomised(ZImageControlNetModel(**{**Z_CONTROL, **changes}))


def inputs(channels: int = CHANNELS, n: int = 2, seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """z and hint latents (n, C, 8, 12), timesteps (n,)."""
    g = torch.Generator().manual_seed(seed)
    z, hint = torch.randn(2, n, channels, 8, 12, generator=g)
    return z, hint, 1000 * torch.rand(n, generator=g)


def relative(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest number of b."""
    return float((a - b).abs().max() / b.abs().max())


# ---------------------------------------------------------------- parts


def _index(folder: Path, pipeline: str, schedule: dict[str, Any]) -> None:
    kind = "FlowMatchEulerDiscreteScheduler"
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    config = {"_class_name": kind, "num_train_timesteps": 1000, **schedule}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))


def tiny_vae(channels: int = CHANNELS, levels: int = 3) -> Any:
    """Of `channels` latents, 2^(levels − 1) pixels a side each."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _vae(folder: Path) -> None:
    vae = tiny_vae()
    _steady(vae.encoder.conv_out)
    vae.save_pretrained(folder / "vae")


def _steady(conv: Any) -> None:
    """Let a VAE's last convolution give the least spread: a sample is the mean, whoever draws."""
    with torch.no_grad():
        half = conv.weight.shape[0] // 2
        conv.weight[half:] = 0
        conv.bias[half:] = -30


def _clip(folder: Path, number: str, width: int, projected: bool = False) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    source = ASSETS / "playroom"
    shutil.copytree(source / "tokenizer", folder / f"tokenizer{number}")
    known = json.loads((source / "text_encoder" / "config.json").read_text())
    config = CLIPTextConfig(
        vocab_size=known["vocab_size"],
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=known["bos_token_id"],
        eos_token_id=known["eos_token_id"],
        pad_token_id=known.get("pad_token_id", 1),
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    kind(config).save_pretrained(folder / f"text_encoder{number}")


def _t5(folder: Path, number: str, width: int) -> None:
    from transformers import T5Config, T5EncoderModel

    from zeroconv.scratch.text.t5 import train_sentences

    captions = ["a red ball on a blue floor", "two green cubes and a hat"]
    tokenizer = train_sentences(captions, folder / f"tokenizer{number}", 256, 16)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{number}")


def _bytes_tokenizer(folder: Path) -> int:
    """A tokenizer of Qwen's kind whose words are single bytes; gives the number of its words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {word: i for i, word in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=[], additional_special_tokens=special, chat_template=template
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _language(words: int) -> dict[str, Any]:
    return {
        "vocab_size": words,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
