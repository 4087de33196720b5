"""Pictures of a run: hint, target, and what the network makes of the hint with the caption and without."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from zeroconv.backbones import UNetBackbone
from zeroconv.data.batches import channels_first, hints_to_float
from zeroconv.data.examples import Examples
from zeroconv.files import atomic_write
from zeroconv.rivals import Net
from zeroconv.training.recipe import TrainingSettings


def sample_grid(
    path: Path, backbone: UNetBackbone, control: Net, examples: Examples, settings: TrainingSettings
) -> None:
    """A PNG with one row an example: hint | target (through the autoencoder) | with its caption | with no prompt.

    The same examples and seeds every time, so that pictures of one run can be laid side by side.
    """
    from zeroconv.generation import Control, generate

    rows = spread(len(examples), settings.sample_count)
    hints = [to_picture(hint) for hint in hints_to_float(channels_first(examples.hints[rows]))]
    latents = backbone.latents_from_moments(torch.from_numpy(examples.moments[rows]).to(backbone.device), sample=False)
    targets = [to_picture(image) for image in backbone.decode_latents(latents)]
    columns = [hints, targets]
    for prompts, guidance, cfg in (
        (examples.prompts(rows), "cond", settings.sample_cfg),
        ([""] * len(rows), "both", 1.0),
    ):
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            pictures = generate(
                backbone,
                prompts,
                controls=[Control(control, hints)],
                guidance=guidance,
                cfg=cfg,
                steps=settings.sample_steps,
                seed=list(range(len(rows))),
                height=hints[0].height,
                width=hints[0].width,
                batch_size=4,
            )
        columns.append(pictures)
    with atomic_write(path) as temporary:
        grid(columns).save(temporary)


def spread(n: int, count: int) -> list[int]:
    """`count` of n rows, evenly spread."""
    count = min(n, count)
    return [i * n // count for i in range(count)]


def to_picture(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] → PIL."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def grid(columns: list[list[Image.Image]]) -> Image.Image:
    """Columns of equal-sized pictures side by side, two white pixels apart."""
    width, height = columns[0][0].size
    sheet = Image.new("RGB", (len(columns) * (width + 2) - 2, len(columns[0]) * (height + 2) - 2), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            sheet.paste(picture, (x * (width + 2), y * (height + 2)))
    return sheet
