"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout, for programs.")]
Base = Annotated[
    str,
    Option(
        help="The frozen model: playroom, -pencil, -night, a folder, a hub id, a .safetensors file."
    ),
]
Lora = Annotated[
    list[str] | None,
    Option(
        help="A LoRA, LoHa, LoKr or DoRA to merge into the base: FILE, FILE:0.8 or "
        "FILE=unet:0.8,text:0.5. May be repeated."
    ),
]
Vae = Annotated[
    str | None,
    Option(help="Another VAE than the base's: one file, a folder, or a hub id."),
]
ImagePrompts = Annotated[
    list[str] | None,
    Option(
        "--image-prompt",
        help="ADAPTER=PICTURE: an IP-Adapter's file and the picture it reads. May be repeated.",
    ),
]
ImageEncoder = Annotated[
    str | None,
    Option(help="The folder of an image prompt's CLIP; by default image_encoder beside the file."),
]
References = Annotated[
    list[Path] | None,
    Option(
        "--reference", help="A picture to be like, by the base's own attention. May be repeated."
    ),
]
_EachPicture = "Once for all pictures, or once for each."
AdapterScales = Annotated[
    list[float] | None, Option(min=-100, max=100, help=f"Strength, 1 by default. {_EachPicture}")
]
AdapterShares = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"Share of the steps. {_EachPicture}"),
]
AdapterRegions = Annotated[
    list[Path] | None, Option(help=f"A picture, white where it acts. {_EachPicture}")
]
ReferenceShares = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"Share of the attentions that see it, 1 by default. {_EachPicture}"),
]
Fidelities = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"A1111's style fidelity, 0.5 by default. {_EachPicture}"),
]
Revision = Annotated[str | None, Option(help="A branch, tag or commit of a base that is a hub id.")]
Variant = Annotated[
    str | None, Option(help="Which weights of a folder or hub id: fp16 for model.fp16.safetensors.")
]
Subfolder = Annotated[str | None, Option(help="Where in a folder or hub id the base is.")]
Device = Annotated[
    str, Option(help="cpu, cuda, cuda:1, mps; auto takes the best there is: cuda, mps, cpu.")
]
Dtype = Annotated[
    str,
    Option(
        help="float32, bfloat16, float16; auto: bfloat16 where the hardware multiplies it faster, "
        "else float32."
    ),
]
Offload = Annotated[
    str,
    Option(
        help="Weights on the device only while they are needed. model: text encoders, UNet with "
        "controls, VAE in turn. group: the UNet and controls block by block. On a processor the "
        "rest lies in a temporary file."
    ),
]
VaeTiling = Annotated[
    bool, Option("--vae-tiling", help="Decode pictures in overlapping tiles: less memory.")
]
Quantise = Annotated[
    str | None,
    Option(help="int8 or fp8: weights of the UNet and of controls in a byte each."),
]
RecipeDevice = Annotated[str | None, Option(help="auto or cpu, in place of the recipe's device.")]
RecipeDtype = Annotated[
    str | None,
    Option(help="float32, bfloat16, float16 or auto, in place of the recipe's training.precision."),
]


def _take(ctx: Context, value: Path | None) -> Any:
    from zeroconv.cli.again import take

    return take(ctx, value)


From = Annotated[
    Path | None,
    Option(
        "--from",
        callback=_take,
        is_eager=True,
        help="A picture: make it again as its file says, with the options that are given changed.",
    ),
]
Seed = Annotated[
    int, Option(min=0, max=2**53, help="Seed of the first picture; the next ones count up.")
]
Steps = Annotated[int, Option(min=1, max=1000, help="Denoising steps.")]
Cfg = Annotated[
    float | None,
    Option(
        min=-100,
        max=100,
        help="Classifier-free guidance; 1 switches it off. By default the base's: 4 of the "
        "playroom, 7.5 of others.",
    ),
]
Guidance = Annotated[
    str | None,
    Option(
        help="Where control acts: both, cond, resolution, guess. By default the base's: cond of "
        "the playroom, both of others."
    ),
]
Scheduler = Annotated[
    str,
    Option(
        help="The sampler: ddim, euler, euler_a, dpm++2m, dpm++2m_sde, dpm++2m_sde_heun, "
        "dpm++3m_sde, dpm++sde, dpm2, dpm2_a, heun, lms, deis, pndm, unipc, lcm, tcd; or a name of "
        "A1111 or ComfyUI, such as 'DPM++ 2M Karras'."
    ),
]
Schedule = Annotated[
    str | None,
    Option(
        help="Where the steps stand: leading, trailing (sgm_uniform), linspace, karras, "
        "exponential, beta, beta_sigmas, kl_optimal, align_your_steps, automatic. By default the "
        "base's own."
    ),
]
Eta = Annotated[
    float | None,
    Option(min=0, max=1, help="Share of the noise that steps of ddim, euler_a, dpm++sde, tcd add."),
]
Rescale = Annotated[
    float,
    Option(min=0, max=1, help="Against too strong contrast at a high --cfg: 0.7, say; 0 is none."),
]
Noise = Annotated[
    str,
    Option(
        help="cpu: a generator a picture. gpu: the numbers of A1111 on an NVIDIA card. batch: "
        "ComfyUI's, one draw for all pictures."
    ),
]
Vary = Annotated[
    list[str] | None,
    Option(
        help="SETTING=VALUE,VALUE: one labelled sheet of all combinations. steps, seed, cfg, eta, "
        "guidance-rescale, scheduler, schedule, guidance, noise, control-scale, control-start, "
        "control-end. May be repeated."
    ),
]
Control = Annotated[
    list[str] | None,
    Option(
        help="NAME=PICTURE takes the picture as the hint; "
        "NAME:PICTURE draws the hint from it first. "
        "NAME: canny, depth, a folder, a file, or a hub id. May be given several times."
    ),
]
Image = Annotated[
    Path | None, Option(help="A picture to start from; its size is that of the result.")
]
Strength = Annotated[
    float | None,
    Option(
        min=0,
        max=1,
        help="Share of the steps taken from --image: 0.8 by default, 1 with a mask.",
    ),
]
Mask = Annotated[
    list[Path] | None,
    Option(
        help="White where --image is painted anew; the rest stays as it is. Without --image the "
        "old name of --region."
    ),
]
OnlyMasked = Annotated[
    bool,
    Option("--only-masked", help="Generate the masked part alone, enlarged, and paste it back."),
]
Padding = Annotated[
    int, Option(min=0, max=16384, help="Pixels around the masked part with --only-masked.")
]
MaskBlur = Annotated[
    float | None,
    Option(min=0, max=1000, help="Blurred edge inside the mask, pixels; 4 with --only-masked."),
]
MaskedContent = Annotated[
    str, Option(help="What is in the hole at first: original, fill (from around it), noise.")
]
Expand = Annotated[
    str | None, Option(help="New ground around --image: left=128,right=64, or one number.")
]
ImageGuidance = Annotated[
    float | None,
    Option(min=-100, max=100, help="Guidance by --image of InstructPix2Pix bases; 1.5."),
]
Hires = Annotated[
    float | None, Option(min=1, max=8, help="A second pass at so many times the size: 2, say.")
]
HiresStrength = Annotated[
    float, Option(min=0, max=1, help="Share of the steps that the second pass takes.")
]
HiresSteps = Annotated[
    int | None, Option(min=1, max=1000, help="Steps of the second pass; --steps by default.")
]
HiresUpscaler = Annotated[
    str, Option(help="How the first picture is enlarged: latent, or lanczos, of its pixels.")
]
LoraDir = Annotated[
    list[str] | None,
    Option(help="A folder with the LoRAs of <lora:name:weight> tags; ./loras by default."),
]
OneEach = "Once for all controls, or once for each, in their order."
OriginalSide = Annotated[
    int | None,
    Option(min=1, max=16384, help="SDXL: side of the original, in pixels; the picture's own."),
]
CropSide = Annotated[
    int, Option(min=0, max=16384, help="SDXL: pixels that a crop of the original left out.")
]
