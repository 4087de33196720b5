"""IP-Adapter against diffusers' pipelines: the same files, latents and settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.tiny import tiny_backbone, tiny_backbone_xl
from tests.helpers.tiny_ip_adapter import SIDE, tiny_ip_adapter, tiny_vision
from zeroconv.adapters import IPAdapter
from zeroconv.generation import ImagePrompt, generate
from zeroconv.generation.samplers.names import make_scheduler

PROMPTS = ["a red ball", "two blue cubes"]
SETTINGS: dict[str, Any] = {"guidance_scale": 5.0, "num_inference_steps": 4}


def picture(seed: int, size: tuple[int, int] = (48, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(folder: Path, form: str, backbone: Any, suffix: str, seed: int = 11) -> Path:
    """An adapter's file, and the image encoder beside it."""
    parts = tiny_ip_adapter(form, backbone, seed)
    path = folder / f"ip-adapter-{form}-{seed}{suffix}"
    if suffix == ".bin":
        torch.save(parts, path)
    else:
        flat = {f"{part}.{key}": v for part, state in parts.items() for key, v in state.items()}
        save_file({key: value.contiguous() for key, value in flat.items()}, path)
    if not (folder / "image_encoder").exists():
        tiny_vision().save_pretrained(folder / "image_encoder")
    return path


def pipeline(backbone: Any, xl: bool) -> Any:
    import diffusers

    common = {
        "vae": copy.deepcopy(backbone.vae),
        "text_encoder": backbone.text_encoders[0],
        "tokenizer": backbone.tokenizers[0],
        "unet": copy.deepcopy(backbone.unet),
        "scheduler": make_scheduler("ddim", backbone),
    }
    if xl:
        second = {
            "text_encoder_2": backbone.text_encoders[1],
            "tokenizer_2": backbone.tokenizers[1],
        }
        pipe = diffusers.StableDiffusionXLPipeline(
            **common, **second, force_zeros_for_empty_prompt=False, add_watermarker=False
        )
    else:
        pipe = diffusers.StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("form", "xl", "suffix"),
    [
        ("base", False, ".bin"),
        ("plus", False, ".safetensors"),
        ("full", False, ".bin"),
        ("base", True, ".safetensors"),
        ("plus", True, ".bin"),
    ],
)
def test_ip_adapter_gives_the_pictures_of_diffusers(
    form: str, xl: bool, suffix: str, tmp_path: Path
) -> None:
    backbone = (tiny_backbone_xl if xl else tiny_backbone)()
    path = write(tmp_path, form, backbone, suffix)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    shown = picture(1)

    pipe = pipeline(backbone, xl)
    pipe.load_ip_adapter(str(tmp_path), subfolder="", weight_name=path.name)
    pipe.set_ip_adapter_scale(0.7)
    theirs = pipe(
        PROMPTS,
        negative_prompt=["", ""],
        ip_adapter_image=shown,
        latents=noise.clone(),
        height=64,
        width=64,
        output_type="pt",
        **SETTINGS,
    ).images

    adapter = IPAdapter.load(path, backbone=backbone)
    given: dict[str, Any] = {"cfg": 5.0, "steps": 4, "scheduler": "ddim", "latents": noise}
    given |= {"output": "tensor"}
    prompt = ImagePrompt(adapter, shown, scale=0.7)
    ours = torch.stack(generate(backbone, PROMPTS, adapters=[prompt], **given))
    plain = torch.stack(generate(backbone, PROMPTS, **given))
    assert float((ours - theirs).abs().max()) <= 1e-3
    assert float((plain - theirs).abs().max()) > 0.02  # the adapter is seen at all


def test_ip_adapter_of_two_kinds_at_once_gives_the_pictures_of_diffusers(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    paths = [write(tmp_path, form, backbone, ".bin") for form in ("base", "plus")]
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    shown, scales = [picture(1), picture(2)], [0.7, 0.4]

    pipe = pipeline(backbone, False)
    names = [path.name for path in paths]
    pipe.load_ip_adapter(str(tmp_path), subfolder="", weight_name=names)
    pipe.set_ip_adapter_scale(scales)
    theirs = pipe(
        PROMPTS, ip_adapter_image=shown, latents=noise.clone(), height=64, width=64,
        output_type="pt", **SETTINGS,
    ).images  # fmt: skip

    adapters = [
        ImagePrompt(IPAdapter.load(path, backbone=backbone), one, scale)
        for path, one, scale in zip(paths, shown, scales, strict=True)
    ]
    ours = generate(
        backbone, PROMPTS, adapters=adapters, cfg=5.0, steps=4, scheduler="ddim", latents=noise,
        output="tensor",
    )  # fmt: skip
    assert float((torch.stack(ours) - theirs).abs().max()) <= 1e-3


@pytest.mark.parametrize("size", [(48, 48), (70, 45), (33, 80)])
@pytest.mark.filterwarnings("ignore:the image encoder sees the middle")
def test_image_encoder_sees_a_picture_as_transformers_prepares_it(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessor

    from zeroconv.adapters.image_encoder import prepared

    processor = CLIPImageProcessor(size=SIDE, crop_size=SIDE)
    theirs = processor(picture(3, size), return_tensors="pt").pixel_values[0]
    assert float((prepared(picture(3, size), SIDE) - theirs).abs().max()) <= 1e-5
