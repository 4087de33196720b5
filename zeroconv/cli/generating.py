"""The command `generate`: its options, and what they ask for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from zeroconv.cli.bases import base_files, with_tiny_vae
from zeroconv.cli.options import (
    AdapterRegions,
    AdapterScales,
    AdapterShares,
    Base,
    Cfg,
    Control,
    CropSide,
    Device,
    Dtype,
    Engine,
    Eta,
    Expand,
    Fast,
    Fidelities,
    From,
    Guidance,
    Hires,
    HiresSteps,
    HiresStrength,
    HiresUpscaler,
    Image,
    ImageEncoder,
    ImageGuidance,
    ImagePrompts,
    Json,
    Lora,
    LoraDir,
    Mask,
    MaskBlur,
    MaskedContent,
    Noise,
    Offload,
    OneEach,
    OnlyMasked,
    OriginalSide,
    Padding,
    Parts,
    Quantise,
    References,
    ReferenceShares,
    Rescale,
    Revision,
    Schedule,
    Scheduler,
    Seed,
    Steps,
    Strength,
    Subfolder,
    TinyVae,
    TrueCfg,
    Vae,
    VaeTiling,
    Variant,
    Vary,
)
from zeroconv.cli.terminal.answers import answer, answers_on_stdout
from zeroconv.cli.terminal.streams import echo, echo_error, one_line

SIDE = "Pixels; by default the shape of the first hint or --image, at the base's own area."


def generate(
    ctx: typer.Context,
    prompt: Annotated[list[str] | None, Argument(help="One prompt or several.")] = None,
    again: From = None,
    control: Control = None,
    scale: Annotated[
        list[float] | None,
        Option(min=-100, max=100, help=f"Strength of a control, 1 by default. {OneEach}"),
    ] = None,
    weight: Annotated[list[float] | None, Option(min=-100, max=100, hidden=True)] = None,
    start: Annotated[
        list[float] | None,
        Option(min=0, max=1, help=f"Share of the steps before a control starts. {OneEach}"),
    ] = None,
    end: Annotated[
        list[float] | None,
        Option(min=0, max=1, help=f"Share of the steps after which a control ends. {OneEach}"),
    ] = None,
    mode: Annotated[
        list[str] | None, Option(help=f"A1111's modes: balanced, prompt, control. {OneEach}")
    ] = None,
    region: Annotated[
        list[Path] | None, Option(help=f"A mask: white where a control acts. {OneEach}")
    ] = None,
    passes: Annotated[
        list[str] | None,
        Option(help=f"With --hires, the passes of a control: both, low, high. {OneEach}"),
    ] = None,
    resize_mode: Annotated[
        list[str] | None,
        Option(
            help=f"For hints of another shape: stretch, crop, fill, or A1111's names. {OneEach}"
        ),
    ] = None,
    image: Image = None,
    strength: Strength = None,
    mask: Mask = None,
    only_masked: OnlyMasked = False,
    padding: Padding = 32,
    mask_blur: MaskBlur = None,
    masked_content: MaskedContent = "original",
    expand: Expand = None,
    image_guidance: ImageGuidance = None,
    hires: Hires = None,
    hires_strength: HiresStrength = 0.7,
    hires_steps: HiresSteps = None,
    hires_upscaler: HiresUpscaler = "latent",
    image_prompt: ImagePrompts = None,
    image_encoder: ImageEncoder = None,
    image_prompt_scale: AdapterScales = None,
    image_prompt_start: AdapterShares = None,
    image_prompt_end: AdapterShares = None,
    image_prompt_region: AdapterRegions = None,
    reference: References = None,
    reference_fidelity: Fidelities = None,
    reference_scale: ReferenceShares = None,
    reference_start: AdapterShares = None,
    reference_end: AdapterShares = None,
    base: Base = "playroom",
    lora: Lora = None,
    lora_dir: LoraDir = None,
    vae: Vae = None,
    tiny_vae: TinyVae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    guidance: Guidance = None,
    cfg: Cfg = None,
    true_cfg: TrueCfg = 1.0,
    steps: Steps = 20,
    seed: Seed = 0,
    scheduler: Scheduler = None,
    schedule: Schedule = None,
    eta: Eta = None,
    guidance_rescale: Rescale = 0.0,
    noise: Noise = "cpu",
    fast: Fast = "off",
    engine: Engine = "torch",
    negative: Annotated[str, Option(help="What the picture should not show.")] = "",
    prompt_2: Annotated[
        str | None, Option(help="For SDXL's second text encoder; the prompt by default.")
    ] = None,
    negative_2: Annotated[
        str | None, Option(help="For SDXL's second text encoder; --negative by default.")
    ] = None,
    plain_prompt: Annotated[
        bool, Option("--plain-prompt", help="Read prompts as plain text, without weights.")
    ] = False,
    clip_skip: Annotated[
        int | None,
        Option(
            min=0,
            max=100,
            help="How many last layers of the text encoder to leave out; A1111's minus one.",
        ),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        Option(help="A textual inversion for prompts: FILE or NAME=FILE. May be repeated."),
    ] = None,
    original_height: OriginalSide = None,
    original_width: OriginalSide = None,
    crop_top: CropSide = 0,
    crop_left: CropSide = 0,
    height: Annotated[int | None, Option(min=8, max=8192, help=SIDE)] = None,
    width: Annotated[int | None, Option(min=8, max=8192, help=SIDE)] = None,
    count: Annotated[int, Option(min=1, max=100_000, help="Pictures for each prompt.")] = 1,
    out: Annotated[
        Path, Option(help="A .png, .jpg or .webp (numbered if several), or a folder.")
    ] = Path("picture.png"),
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = "none",
    vae_tiling: VaeTiling = False,
    quantise: Quantise = None,
    vary: Vary = None,
    json: Json = False,
) -> None:
    """Make pictures from a prompt, with any number of controls. Each picture is saved when its
    batch is done.
    """
    from zeroconv.cli.generate.again import (
        adapter_specs,
        control_specs,
        kept_sides,
        making_of,
        prompts_of,
    )
    from zeroconv.cli.generate.controls import renamed_option
    from zeroconv.cli.generate.folders import run
    from zeroconv.cli.generate.pictured import masks_of, parse_expand
    from zeroconv.cli.generate.run import pair_of

    making = making_of(ctx)
    height, width = kept_sides(ctx, height, width)
    source = making.image if image is None else image
    picture_mask, regions = masks_of(mask or [], region or [], source, bool(control))
    request = {
        "guidance": guidance,
        "cfg": cfg,
        "true_cfg": true_cfg,
        "steps": steps,
        "seed": seed,
        "scheduler": scheduler,
        "schedule": schedule,
        "eta": eta,
        "guidance_rescale": guidance_rescale,
        "noise": noise,
        "fast": fast,
        "engine": engine,
        "negative": negative,
        "prompt_2": prompt_2,
        "negative_2": negative_2,
        "plain_prompt": plain_prompt,
        "clip_skip": clip_skip,
        "embeddings": embedding or [],
        "original_size": pair_of("--original", original_height, original_width),
        "crop": [crop_top, crop_left] if crop_top or crop_left else None,
        "height": height,
        "width": width,
        "count": count,
        "image": None if source is None else str(source),
        "mask": making.mask_for(picture_mask, image is not None),
        "strength": strength,
        "only_masked": only_masked,
        "padding": padding,
        "mask_blur": mask_blur,
        "masked_content": masked_content,
        "expand": parse_expand(expand),
        "image_guidance": image_guidance,
        "hires": hires,
        "hires_strength": hires_strength,
        "hires_steps": hires_steps,
        "hires_upscaler": hires_upscaler,
    }
    making.given_anew(image is not None, picture_mask is not None)
    scales = renamed_option("--weight", weight, scale)
    specs = control_specs(
        ctx, control, scales, start or [], end or [], mode or [], regions, resize_mode or [],
        passes or [], source,
    )  # fmt: skip
    prompts = prompts_of(prompt)
    making.lora_folders = lora_dir
    making.adapters = adapter_specs(
        ctx, image_prompt, reference, image_encoder,
        image_prompt_scale=image_prompt_scale, image_prompt_start=image_prompt_start,
        image_prompt_end=image_prompt_end, image_prompt_region=image_prompt_region,
        reference_fidelity=reference_fidelity, reference_scale=reference_scale,
        reference_start=reference_start, reference_end=reference_end,
    )  # fmt: skip
    report: dict[str, Any] = {}
    free = answers_on_stdout(out, json)
    saved = (lambda path: None) if json else (echo if free else echo_error)
    try:
        files = base_files(vae, revision, variant, subfolder, parts=parts)
        files = with_tiny_vae(files, tiny_vae, fast)
        files |= {"offload": None if offload == "none" else offload, "quantise": quantise}
        files |= {"vae_tiling": vae_tiling or None}
        asked = (report, saved, files, vary or [], making)
        run(prompts, specs, base, out, device, dtype, request, lora or [], *asked)
    finally:  # what is saved is listed, however it ended
        if json and (report.get("pictures") or report.get("broken") or report.get("kept")):
            answer(report, json, lambda: None)
    if report.get("kept") and not json:
        warnings.warn(
            f"{report['kept']} pictures of this request were there already and are kept.",
            stacklevel=2,
        )
    if report.get("broken"):
        name, reason = next(iter(report["broken"].items()))
        echo_error(
            f"zeroconv: {len(report['broken'])} pictures set aside, the first "
            f"{one_line(f'{name}: {reason}')}"
        )
        raise typer.Exit(3)
