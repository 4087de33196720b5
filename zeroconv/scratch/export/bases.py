"""An averaged base as a diffusers pipeline folder in float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zeroconv.files import atomic_folder
from zeroconv.scratch.base import TextToLatent
from zeroconv.scratch.embedded import PLAYROOM, embedded_tokenizer, embedded_vae
from zeroconv.scratch.flow import FlowModel
from zeroconv.scratch.loop.state import fill_, read_average


def export_base(run: Path, folder: Path, decay: str, **configs: Any) -> int:
    """Write a StableDiffusionPipeline folder with the embedded VAE and tokenizer; returns the step
    of its weights.

    `configs` are `TextToLatent`'s, for tests.
    """
    weights, step = read_average(run, decay)
    model = TextToLatent(**configs)
    fill_(model, weights)

    with atomic_folder(folder) as temporary:
        write_base(temporary, model, embedded_vae(), embedded_tokenizer())
    return step


def write_base(folder: Path, model: TextToLatent, vae: Any, tokenizer: Any) -> None:
    """Write a StableDiffusionPipeline into a folder that is there; `model` and `vae` become
    float16.

    Its scheduler starts at the last timestep, as the training has seen pure noise.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    asked = DDIMScheduler.load_config(PLAYROOM / "scheduler")
    scheduler = DDIMScheduler.from_config({**asked, "timestep_spacing": "trailing"})
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=model.text.half(),
        tokenizer=tokenizer,
        unet=model.unet.half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    pipeline.save_pretrained(folder, safe_serialization=True)


def export_flow(run: Path, folder: Path, decay: str, **configs: Any) -> int:
    """Write a FluxPipeline folder; returns the step of its weights.

    `configs` are `FlowModel`'s, for tests.
    """
    from transformers import T5TokenizerFast

    weights, step = read_average(run, decay)
    sentences = T5TokenizerFast.from_pretrained(run / "tokenizer_2", trust_remote_code=False)
    model = FlowModel(len(sentences), **configs)
    fill_(model, weights)

    with atomic_folder(folder) as temporary:
        write_flow(temporary, model, embedded_vae(), embedded_tokenizer(), sentences)
    return step


def write_flow(folder: Path, model: FlowModel, vae: Any, tokenizer: Any, sentences: Any) -> None:
    """Write a FluxPipeline into a folder that is there; `model` and `vae` become float16.

    Prompts must be cut at the 48 tokens of the training: `max_sequence_length=48` in diffusers, and
    guided by `true_cfg_scale`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    model.half()
    vae.register_to_config(shift_factor=0.0)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae.half(),
        text_encoder=model.clip,
        tokenizer=tokenizer,
        text_encoder_2=model.t5,
        tokenizer_2=sentences,
        transformer=model.transformer,
    )

    pipeline.save_pretrained(folder, safe_serialization=True)
