"""`generate`: prompts, hints and seeds in, pictures out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from zeroconv.backbones import Backbone, TextStates, is_split
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation import guidance as guidance_rules
from zeroconv.generation.adapters import ImagePrompt, ReferencePicture, check_adapters
from zeroconv.generation.adapting import Adapters
from zeroconv.generation.baselines import check_baselines
from zeroconv.generation.control import Control
from zeroconv.generation.engines import check_engine
from zeroconv.generation.guiding import attach
from zeroconv.generation.image.given import ImageInputs
from zeroconv.generation.image.hires import Hires
from zeroconv.generation.image.options import ImageOptions
from zeroconv.generation.joining import check_unions
from zeroconv.generation.passes import Job, Outputs, Stepping
from zeroconv.generation.prompts import TextInputs
from zeroconv.generation.samplers.few_steps import note_few_steps
from zeroconv.generation.samplers.stepping import note_other_noise, note_unused
from zeroconv.generation.saving import Fast, parse_fast
from zeroconv.generation.sizes import shape_like, sizes_of, unit_of
from zeroconv.renamed import old_arguments


@old_arguments
def generate(
    backbone: Backbone,
    prompt: str | Sequence[str] | TextStates,
    controls: Sequence[Control] = (),
    *,
    adapters: Sequence[ImagePrompt | ReferencePicture] = (),
    image: Any = None,
    strength: float | None = None,
    mask: Any = None,
    only_masked: bool = False,
    padding: int = 32,
    mask_blur: float | None = None,
    masked_content: str = "original",
    paste_back: bool = True,
    expand: Mapping[str, int] | None = None,
    image_guidance: float | None = None,
    hires: float | None = None,
    hires_strength: float = 0.7,
    hires_steps: int | None = None,
    hires_upscaler: str = "latent",
    guidance: str | None = None,
    cfg: float | None = None,
    true_cfg: float = 1.0,
    steps: int = 20,
    seed: int | Sequence[int] = 0,
    scheduler: str | Any = None,
    schedule: str | None = None,
    eta: float | None = None,
    guidance_rescale: float = 0.0,
    noise: str = "cpu",
    fast: str | Mapping[str, Any] | Fast = "off",
    engine: str = "torch",
    negative: str | Sequence[str] | TextStates = "",
    prompt_2: str | Sequence[str] | None = None,
    negative_2: str | Sequence[str] | None = None,
    clip_skip: int | None = None,
    plain_prompt: bool = False,
    embeddings: Any = None,
    original_size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    target_size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    latents: Tensor | None = None,
    count: int = 1,
    batch_size: int = 8,
    connection_scales: Sequence[float] | str | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
    output: Literal["pil", "tensor"] = "pil",
    finished: Callable[[int, Any], None] | None = None,
) -> list:
    """Generate `count` pictures a prompt, prompt after prompt.

    prompt, negative: texts with A1111's weights (`zeroconv.prompts`), read as they stand with
    plain_prompt; or text states, one row a prompt. prompt_2, negative_2: for SDXL's second text
    encoder, by default the same. clip_skip: layers of the text encoders left out at the end, as
    diffusers counts them. embeddings: files of textual inversion, or a mapping from names to files
    or tensors (n, D). original_size, crop, target_size: SDXL's conditioning, (height, width) or
    (top, left) in pixels; by default the picture's size and (0, 0).
    image: a picture to start from, one for all, or a list of one a prompt or picture, whatever
    `pictures.load` reads. strength: in (0, 1], int(steps · strength) steps are taken; by default 1
    with a mask or a base that edits, else 0.8. image_guidance: of bases that edit, 1.5 by default.
    mask: white is painted anew, grey from 128 on; outside, the result is the picture, unless
    paste_back is False. only_masked: the masked box, `padding` pixels larger, is generated at the
    size asked for. mask_blur: pixels of blurred edge inside the mask; 4 with only_masked, else 0.
    masked_content: what is in the hole at first, a name of `inpaint.CONTENTS`. expand: pixels of
    new ground a side, {"left": 128}.
    hires: the factor of a second pass at a larger size, of hires_steps (by default `steps`) and
    hires_strength; hires_upscaler: a name of `hires.UPSCALERS`.
    seed: of the first picture, the next ones count up; or a list of one a picture. The same seed
    gives the same picture in any batch. latents: (N, C, h, w), noise of unit variance, in place of
    the seeds' noise.
    adapters: pictures beside the prompt (IP-Adapter) and pictures to be like (reference-only).
    scheduler: a name of `samplers.SCHEDULERS` or an object of diffusers; None: unipc, of a flow
    euler, which is the only one there, of a base that is distilled to few steps its own.
    fast: what is used again from earlier steps, at a measured loss: off, a preset's name, or
    settings of `saving.Fast` as a mapping or text, "deep=3,branch=2". Of UNets with ControlNets; a
    note says where it is left out.
    engine: what computes UNet, ControlNets and VAE: "torch", or "openvino", which compiles a graph
    for each size once and keeps it on disk. A note says where torch computes it all the same.
    guidance, cfg: where control acts, a name of `guidance.MODES`, and the scale of classifier-free
    guidance, which 1 turns off. None is the backbone's own: cond and 4 of the playroom, both and
    7.5 of others.
    true_cfg: of a base that reads cfg as an input (FLUX.1 dev): the scale of classifier-free
    guidance by the negative prompt, on top of it.
    connection_scales: one number a connection, or a rule of `guidance.RULES` by its name, in place
    of those of the guidance, for all controls that have none of their own.
    height, width: in pixels; by default the given picture's own, else the first hint's shape at
    the area the model was trained for.
    callback(step, steps, latents) is called after every step of every batch and pass,
    finished(number, picture) with each picture, counted from 0, as soon as its batch is done.

    Returns PIL pictures, or with `output` "tensor" tensors (3, H, W) in [0, 1].

    Raises TypeError for an argument of a wrong type, and UserError for unknown names, numbers out
    of range, hints that are no pictures, and a model whose numbers stop being finite.
    """
    arguments.check_arguments(
        guidance=guidance, cfg=cfg, steps=steps, height=height, width=width, latents=latents,
        count=count, batch_size=batch_size, connection_scales=connection_scales,
        callback=callback, finished=finished, output=output, true_cfg=true_cfg,
    )  # fmt: skip
    stepping = Stepping(
        scheduler, schedule, eta, guidance_rescale, noise, steps, parse_fast(fast),
        check_engine(engine),
    )  # fmt: skip
    asked = ImageOptions(
        image, strength, mask, only_masked, padding, mask_blur, masked_content, paste_back, expand,
        image_guidance,
    )  # fmt: skip
    second = Hires(hires, hires_strength, hires_steps, hires_upscaler)
    second.check(steps, asked, controls)
    if is_split(backbone):  # of others a control has connections of its own
        guidance_rules.check_count(connection_scales, backbone.connections)
    guidance, cfg = guidance_rules.settled(backbone, guidance, cfg)
    words = TextInputs(
        backbone, prompt, negative, count, prompt_2=prompt_2, negative_2=negative_2,
        clip_skip=clip_skip, plain_prompt=plain_prompt, embeddings=embeddings,
    )  # fmt: skip
    seeds = arguments.seeds(seed, words.total)
    controls = arguments.check_controls(controls)
    attach(backbone, controls)
    check_baselines(controls, guidance, connection_scales)
    adapters = check_adapters(adapters, backbone)
    check_unions(controls)
    # what cannot be is told before anything is computed
    stepping.check(backbone, second, image is None and latents is None)
    note_other_noise(scheduler, backbone)
    note_few_steps(backbone, scheduler, schedule, steps, cfg, eta)
    negated = words.negative.states is None and any(words.negative.texts)
    note_unused(cfg, guidance_rescale, latents, noise, negated and not backbone.reads_guidance)
    if true_cfg != 1 and not backbone.reads_guidance:
        raise UserError(
            "true_cfg is for bases that read the guidance scale as an input, which "
            f"{backbone.name} does not; give it as cfg."
        )
    if backbone.reads_guidance and true_cfg == 1 and any(words.negative.texts):
        warnings.warn(
            f"{backbone.name} is distilled: its guidance has no unconditional half, so the "
            "negative prompt is not used; true_cfg above 1 uses it.",
            stacklevel=3,  # of the caller, past `old_arguments`
        )
    images = None if image is None else ImageInputs(asked, backbone, words.total, count, steps)
    size = _size(backbone, controls, height, width, latents, images)
    if images is not None:
        images.fit(size)
    conditioning = original_size, crop, target_size
    sizes = sizes_of(backbone, *size, *conditioning)
    shown = Adapters(adapters, backbone, seeds, count, images)
    job = Job(
        backbone, words, controls, seeds, stepping, cfg, guidance, connection_scales, images, shown,
        true_cfg,
    )  # fmt: skip
    first = job.plan(size, sizes, steps, None if second.factor is None else "low")
    later = None
    if second.factor is not None:
        larger = second.size(size, unit_of(backbone))
        with warnings.catch_warnings():  # the notes on them came with the first pass
            warnings.simplefilter("ignore")
            sizes = sizes_of(backbone, *larger, *conditioning)
        later = job.plan(larger, sizes, second.steps or steps, "high")
    return job.run(first, later, second, latents, batch_size, Outputs(callback, finished, output))


def _size(
    backbone: Backbone,
    controls: Sequence[Control],
    height: int | None,
    width: int | None,
    latents: Tensor | None,
    images: ImageInputs | None,
) -> tuple[int, int]:
    """Height and width in pixels: given, else the given picture's, else the first hint's shape,
    else the base's own square.
    """
    if images is not None and latents is None:
        return images.size(height, width)
    default = (backbone.default_size, backbone.default_size)
    if controls and controls[0].hint is not None:
        hint = controls[0].hint
        default = shape_like(hint[0] if isinstance(hint, list | tuple) else hint, backbone)
    return arguments.size_of(default, backbone.latent_scale, height, width, latents)
