"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout, for programs.")]
Base = Annotated[
    str,
    Option(
        help="The frozen model: playroom, playroom-pencil, playroom-night, a folder, a hub id, or "
        "a .safetensors file."
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
    Option(help="A VAE in place of the base's: one file, a folder, or a hub id."),
]
TinyVae = Annotated[
    str | None,
    Option(help="A small decoder for --fast vae=tiny, in TAESD's layouts: a file, folder, hub id."),
]
Parts = Annotated[
    list[str] | None,
    Option(
        help="Text encoders, tokenizers, VAE and schedule of a diffusion transformer in one file: "
        "a folder, files, or a hub id. May be repeated."
    ),
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
    Option(help="Folder of the IP-Adapter's CLIP; by default image_encoder beside its file."),
]
References = Annotated[
    list[Path] | None,
    Option("--reference", help="A picture that the base's attention reads too. May be repeated."),
]
_EachPicture = "Once for all pictures, or once for each."
AdapterScales = Annotated[
    list[float] | None, Option(min=-100, max=100, help=f"Strength, 1 by default. {_EachPicture}")
]
AdapterShares = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"Share of the steps where it starts or ends. {_EachPicture}"),
]
AdapterRegions = Annotated[
    list[Path] | None, Option(help=f"A mask: white where the adapter acts. {_EachPicture}")
]
ReferenceShares = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"Share of the attention layers that read it; 1. {_EachPicture}"),
]
Fidelities = Annotated[
    list[float] | None,
    Option(min=0, max=1, help=f"A1111's style fidelity, 0.5 by default. {_EachPicture}"),
]
Revision = Annotated[str | None, Option(help="A branch, tag or commit of a base that is a hub id.")]
Variant = Annotated[
    str | None, Option(help="Which weights of a folder or hub id: fp16 for model.fp16.safetensors.")
]
Subfolder = Annotated[str | None, Option(help="The folder of the base, within a folder or hub id.")]
Device = Annotated[
    str, Option(help="cpu, cuda, cuda:1, mps; auto takes the first available of cuda, mps, cpu.")
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
        "other weights are kept in a temporary file."
    ),
]
VaeTiling = Annotated[
    bool, Option("--vae-tiling", help="Decode pictures in overlapping tiles: less memory.")
]
Quantise = Annotated[
    str | None,
    Option(help="int8 or fp8: store each weight of the UNet and of controls in one byte."),
]
RecipeDevice = Annotated[str | None, Option(help="auto or cpu, in place of the recipe's device.")]
RecipeDtype = Annotated[
    str | None,
    Option(help="float32, bfloat16, float16 or auto, in place of the recipe's training.precision."),
]


def _take(ctx: Context, value: Path | None) -> Any:
    from zeroconv.cli.generate.again import take

    return take(ctx, value)


From = Annotated[
    Path | None,
    Option(
        "--from",
        callback=_take,
        is_eager=True,
        help="A picture of zeroconv, A1111 or ComfyUI: its recorded settings are the defaults.",
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
        help="Scale of classifier-free guidance; 1 switches it off. By default 4 for the playroom, "
        "7.5 for other bases.",
    ),
]
TrueCfg = Annotated[
    float,
    Option(
        min=-100,
        max=100,
        help="Of a base that reads --cfg as an input (FLUX.1 dev): the scale of guidance by "
        "--negative, on top of it.",
    ),
]
Guidance = Annotated[
    str | None,
    Option(
        help="Where controls act: both, cond, resolution, guess. By default cond for the playroom, "
        "both for other bases."
    ),
]
Scheduler = Annotated[
    str | None,
    Option(
        help="The sampler, by default unipc; with a LoRA for few steps its own; of flow models "
        "(SD 3, FLUX) euler, their only one. "
        "Others are ddim, euler, euler_a, dpm++2m, dpm++2m_sde, dpm++2m_sde_heun, dpm++3m_sde, "
        "dpm++sde, dpm2, dpm2_a, heun, lms, deis, pndm, unipc, lcm, tcd; or a name of A1111 or "
        "ComfyUI, such as 'DPM++ 2M Karras'."
    ),
]
Schedule = Annotated[
    str | None,
    Option(
        help="The noise levels of the steps: leading, trailing (sgm_uniform), linspace, karras, "
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
    Option(min=0, max=1, help="Lowers the contrast of a high --cfg: try 0.7; 0 is off."),
]
Fast = Annotated[
    str,
    Option(
        metavar="PRESET",
        help="Less is computed, at a measured loss: off, x2, x3, or settings such as "
        "deep=3,branch=2,merge=0.5,vae=tiny.",
    ),
]
Engine = Annotated[
    str,
    Option(
        help="What computes: torch, or openvino, which compiles a graph for each size once. The "
        "pictures differ by rounding.",
    ),
]
Noise = Annotated[
    str,
    Option(
        help="cpu: one generator for each picture. gpu: the numbers of A1111 on an NVIDIA card. "
        "batch: one draw for all pictures, as ComfyUI does."
    ),
]
Vary = Annotated[
    list[str] | None,
    Option(
        help="SETTING=VALUE,VALUE: one labelled sheet of all combinations. Settings: steps, seed, "
        "cfg, eta, guidance-rescale, scheduler, schedule, guidance, noise, control-scale, "
        "control-start, control-end. May be repeated."
    ),
]
Control = Annotated[
    list[str] | None,
    Option(
        help="NAME=PICTURE takes the picture as the hint. NAME:PICTURE draws the hint from the "
        "picture first. NAME is canny, depth, a folder, a file, or a hub id. May be repeated."
    ),
]
Image = Annotated[Path | None, Option(help="A picture to start from. The result has its size.")]
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
        help="A mask: white where --image is painted anew. Without --image it is the old name of "
        "--region."
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
    Option(
        min=0, max=1000, help="Blurred edge inside the mask, in pixels; 0, or 4 with --only-masked."
    ),
]
MaskedContent = Annotated[
    str,
    Option(help="What the masked part holds at first: original, fill (colours around it), noise."),
]
Expand = Annotated[
    str | None,
    Option(help="Pixels to add around --image: left=128,right=64, or one number for all sides."),
]
ImageGuidance = Annotated[
    float | None,
    Option(min=-100, max=100, help="With InstructPix2Pix bases: how closely --image is kept; 1.5."),
]
Hires = Annotated[
    float | None,
    Option(min=1, max=8, help="Add a second pass at this many times the size, such as 2."),
]
HiresStrength = Annotated[
    float, Option(min=0, max=1, help="Share of the steps that the second pass takes.")
]
HiresSteps = Annotated[
    int | None, Option(min=1, max=1000, help="Steps of the second pass; --steps by default.")
]
HiresUpscaler = Annotated[
    str, Option(help="How the first picture is enlarged: latent, or lanczos (its pixels).")
]
LoraDir = Annotated[
    list[str] | None,
    Option(help="A folder with the LoRAs of <lora:name:weight> tags; ./loras by default."),
]
OneEach = "Once for all controls, or once for each, in their order."
OriginalSide = Annotated[
    int | None,
    Option(
        min=1, max=16384, help="SDXL: side of the original, in pixels; the picture's by default."
    ),
]
CropSide = Annotated[
    int,
    Option(min=0, max=16384, help="SDXL: pixels that were cropped off the original at this side."),
]
