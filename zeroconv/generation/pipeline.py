"""`generate`: prompts, hints and seeds in, pictures out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from PIL import Image
from torch import Tensor

from zeroconv.backbones import Backbone, TextStates, is_split
from zeroconv.control import Net, ResidualNet, compose
from zeroconv.errors import UserError
from zeroconv.generation import arguments
from zeroconv.generation import guidance as guidance_rules
from zeroconv.generation.baselines import check_baselines
from zeroconv.generation.control import Control
from zeroconv.generation.hints import hint_size, hint_tensor, mask_tensor
from zeroconv.generation.noise import batch_latents, initial_latents, sources
from zeroconv.generation.prompts import TextInputs
from zeroconv.generation.sampling import Guide, denoise
from zeroconv.generation.sizes import sizes_of
from zeroconv.generation.stepping import (
    check_sampling,
    note_other_noise,
    note_unused,
    scheduler_for,
)
from zeroconv.renamed import old_arguments


@old_arguments
def generate(
    backbone: Backbone,
    prompt: str | Sequence[str] | TextStates,
    controls: Sequence[Control] = (),
    *,
    guidance: str | None = None,
    cfg: float | None = None,
    steps: int = 20,
    seed: int | Sequence[int] = 0,
    scheduler: str | Any = "unipc",
    schedule: str | None = None,
    eta: float | None = None,
    guidance_rescale: float = 0.0,
    noise: str = "cpu",
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
    seed: of the first picture, the next ones count up; or a list of one a picture. The same seed
    gives the same picture in any batch. latents: (N, C, h, w), noise of unit variance, in place of
    the seeds' noise.
    guidance, cfg: where control acts, a name of `guidance.MODES`, and the scale of classifier-free
    guidance, which 1 turns off. None is the backbone's own: cond and 4 of the playroom, both and
    7.5 of others.
    connection_scales: one number a connection, or a rule of `guidance.RULES` by its name, in place
    of those of the guidance, for all controls that have none of their own.
    height, width: in pixels; by default the first hint's shape at the area the model was trained
    for. callback(step, steps, latents) is called after every step of every batch, finished(number,
    picture) with each picture, counted from 0, as soon as its batch is done.

    Returns PIL pictures, or with `output` "tensor" tensors (3, H, W) in [0, 1].

    Raises TypeError for an argument of a wrong type, and UserError for unknown names, numbers out
    of range, hints that are no pictures, and a model whose numbers stop being finite.
    """
    arguments.check_arguments(
        guidance=guidance,
        cfg=cfg,
        steps=steps,
        height=height,
        width=width,
        latents=latents,
        count=count,
        batch_size=batch_size,
        connection_scales=connection_scales,
        callback=callback,
        finished=finished,
        output=output,
    )
    check_sampling(scheduler, schedule, eta, guidance_rescale, noise)
    if is_split(backbone):  # of others a control has connections of its own
        guidance_rules.check_count(connection_scales, backbone.connections)
    guidance, cfg = guidance_rules.settled(backbone, guidance, cfg)
    words = TextInputs(
        backbone,
        prompt,
        negative,
        count,
        prompt_2=prompt_2,
        negative_2=negative_2,
        clip_skip=clip_skip,
        plain_prompt=plain_prompt,
        embeddings=embeddings,
    )
    total = words.total
    seeds = arguments.seeds(seed, total)
    controls = arguments.check_controls(controls)
    check_baselines(controls, guidance, connection_scales)
    stepping = (scheduler, backbone, steps, schedule, eta, noise)
    scheduler_for(*stepping)  # what cannot be is told before anything is computed
    note_other_noise(scheduler, backbone)
    note_unused(cfg, guidance_rescale, latents, noise)
    if backbone.reads_guidance and any(words.negative.texts):
        warnings.warn(
            f"{backbone.name} is distilled (LCM): its guidance has no unconditional half, so the "
            "negative prompt is not used.",
            stacklevel=3,  # of the caller, past `old_arguments`
        )
    height, width = _size(backbone, controls, height, width, latents)
    size = (width, height)
    sizes = sizes_of(backbone, height, width, original_size, crop, target_size)
    hints = [_hints(control, total, count, size) for control in controls]
    scales = [_scales(control, guidance, connection_scales) for control in controls]
    own = [_picture_scales(control, total, count) for control in controls]
    masks = [mask_tensor(control.mask, size) for control in controls]
    shape = (
        backbone.latent_channels,
        height // backbone.latent_scale,
        width // backbone.latent_scale,
    )
    if latents is not None and tuple(latents.shape) != (total, *shape):
        raise UserError(
            f"latents have shape {tuple(latents.shape)}, but {(total, *shape)} is needed."
        )
    if noise == "batch" and latents is None:
        latents = batch_latents(seeds, shape)
    images: list = []
    with torch.inference_mode():
        for part in words.batches(batch_size):
            drawn = sources(seeds[part], noise, shape)
            started = initial_latents(drawn, shape) if latents is None else latents[part]
            cond, uncond = words.states(part, cfg, sizes)
            guides = [
                Guide(
                    c.net,
                    _embed(c.net, h[part], backbone),
                    w,
                    c.start,
                    c.end,
                    _controls_uncond(c, guidance),
                    c.curve,
                    None if p is None else p[part],
                    None if m is None else compose.masks_at(m, c.net.connections, shape[1:]),  # type: ignore[arg-type]
                )
                for c, h, w, p, m in zip(controls, hints, scales, own, masks, strict=True)
                if any(w) and (p is None or bool(p[part].any()))
            ]
            # float32 whatever the model computes in: the sum of all steps is not
            # rounded at each of them
            z = started.to(backbone.device, torch.float32)
            scheme = scheduler_for(*stepping)
            z = denoise(
                backbone, z, cond, uncond, guides, scheme, steps, cfg, drawn, callback, eta,
                guidance_rescale,
            )  # fmt: skip
            decoded = _decode(backbone, z)
            made = [_to_pil(image) for image in decoded] if output == "pil" else list(decoded)
            for number, image in enumerate(made, start=part.start):
                if finished is not None:
                    finished(number, image)
            images += made
    return images


def _size(
    backbone: Backbone,
    controls: Sequence[Control],
    height: int | None,
    width: int | None,
    latents: Tensor | None,
) -> tuple[int, int]:
    """Height and width in pixels: given, else the first hint's shape, else the base's own
    square.
    """
    default = (backbone.default_size, backbone.default_size)
    if controls:
        hint = controls[0].hint
        default = shape_like(hint[0] if isinstance(hint, list | tuple) else hint, backbone)
    return arguments.size_of(default, backbone.latent_scale, height, width, latents)


def shape_like(hint: Any, backbone: Backbone) -> tuple[int, int]:
    """The hint's aspect ratio at the model's own area, rounded to what the encoder halves
    evenly.
    """
    wide, high = hint_size(hint)
    unit = backbone.latent_scale * max(connection.scale for connection in backbone.connections)
    ratio = math.sqrt(wide / high)
    sides = [max(unit, round(backbone.default_size * f / unit) * unit) for f in (1 / ratio, ratio)]
    return sides[0], sides[1]


def _hints(control: Control, total: int, count: int, size: tuple[int, int]) -> list[Tensor]:
    """One hint a picture, (3, H, W) in [0, 1] at `size` (width, height); equal hints are the same
    tensor.
    """
    known: dict[int, Tensor] = {}
    hints = arguments.per_picture(control.hint, total, count, "hint")
    for hint in hints:
        if id(hint) not in known:
            known[id(hint)] = hint_tensor(
                hint,
                size,
                control.net.condition,
                getattr(control.net, "hint_channels", 3),
                control.resize,
            )
    return [known[id(hint)] for hint in hints]


def _embed(net: Net, hints: list[Tensor], backbone: Backbone) -> Tensor | tuple[Tensor, ...]:
    """Hint embeddings (N, C0, h, w), of a baseline a tuple of its own; each different hint is
    embedded once.
    """
    different = {id(hint): hint for hint in hints}
    pictures = torch.stack(list(different.values())).to(net.device, net.dtype)
    if net.hint_space == "latent":
        pictures = cast(ResidualNet, net).hint_latents(backbone, pictures)
    embedded = net.embed_hint(pictures)
    numbers = {key: row for row, key in enumerate(different)}
    rows = [numbers[id(hint)] for hint in hints]
    return tuple(part[rows] for part in embedded) if isinstance(embedded, tuple) else embedded[rows]


def _decode(backbone: Backbone, z: Tensor) -> Tensor:
    """Latents (N, C, h, w) → pictures (N, 3, H, W) in [0, 1]. Raises UserError where they are no
    numbers.
    """
    decoded = backbone.decode_latents(z)
    if not bool(torch.isfinite(decoded).all()):
        raise UserError(
            f"the VAE of {backbone.name} makes no numbers of the latents (NaN): its weights are "
            "damaged, or too large for the dtype; get the file again, or compute in float32."
        )
    return decoded


def _scales(control: Control, guidance: str, common: Sequence[float] | str | None) -> list[float]:
    """One number a connection, the control's scale among its factors where it is one for all."""
    if not control.net.has_residuals:
        return [1.0]
    connections = cast(ResidualNet, control.net).connections
    scales = guidance_rules.chosen_scales(
        control.connection_scales, common, control.mode, guidance, connections
    )
    if not isinstance(control.scale, int | float):
        return scales
    return [control.scale * scale for scale in scales]


def _picture_scales(control: Control, total: int, count: int) -> Tensor | None:
    """One scale a picture (N,), or None where one number is for all."""
    if isinstance(control.scale, int | float):
        return None
    scales = arguments.per_picture(list(control.scale), total, count, "scale")
    return torch.tensor([float(scale) for scale in scales])


def _controls_uncond(control: Control, guidance: str) -> bool:
    """Whether the unconditional half of guidance gets this control's residuals.

    Those of a pooled one it never gets (shuffle).
    """
    if control.conditional_only or getattr(control.net, "pool", False):
        return False
    by_mode = control.mode is not None and control.net.has_residuals
    return guidance_rules.controls_uncond(control.mode if by_mode else guidance)  # type: ignore[arg-type]


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
