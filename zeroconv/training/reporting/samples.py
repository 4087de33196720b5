"""Pictures of a run: hint, target, and what the network makes of the hint with the caption and
without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy import ndarray
from PIL import Image

from zeroconv.backbones import UNetBackbone
from zeroconv.baselines import Net
from zeroconv.data.batches import channels_first, hints_to_float
from zeroconv.data.cache.examples import Examples
from zeroconv.files import atomic_write
from zeroconv.training.execution.precision import autocast
from zeroconv.training.recipes.training import TrainingSettings


def sample_grid(
    path: Path | None,
    backbone: UNetBackbone,
    control: Net,
    examples: Examples,
    settings: TrainingSettings,
    condition: str | None = None,
) -> None:
    """A PNG with one row an example: hint | target (through the autoencoder) | with its caption |
    with no prompt.

    The same examples and seeds every time, so that pictures of one run can be laid side by side.
    path None: nothing is written, by a process that holds a part of the weights and computes for
    another's sake.
    """
    rows = np.array(spread(len(examples), settings.sample_count))
    columns: list[list[Image.Image]] = [[], [], [], []]
    for kind, some in _by_kind(control, examples, rows, condition):
        net = control if kind is None else cast(Any, control).of_kind(kind)
        for bucket in examples.buckets:  # pictures of one shape
            if len(chosen := some[np.isin(some, bucket)]):
                made = _columns(backbone, net, examples, chosen, settings)
                for column, pictures in zip(columns, made, strict=True):
                    column.extend(pictures)
    if path is not None:
        with atomic_write(path) as temporary:
            grid(columns).save(temporary)


def _by_kind(
    control: Net, examples: Examples, rows: ndarray, condition: str | None
) -> list[tuple[str | None, ndarray]]:
    """The rows by the kind of their hints, for a Union control; all for any other, whose kind is
    None.
    """
    if not hasattr(control, "of_kind"):
        return [(None, rows)]
    known = examples.conditions
    names = [None if known is None else known[int(i)] for i in rows]
    kinds = [name or condition for name in names]
    return [(kind, rows[[k == kind for k in kinds]]) for kind in dict.fromkeys(kinds)]


def _columns(
    backbone: UNetBackbone,
    control: Net,
    examples: Examples,
    rows: ndarray,
    settings: TrainingSettings,
) -> list[list[Image.Image]]:
    from zeroconv.generation import Control, generate

    hints = [to_picture(hint) for hint in hints_to_float(channels_first(examples.hints[rows]))]
    latents = backbone.latents_from_moments(
        torch.from_numpy(examples.moments[rows]).to(backbone.device), sample=False
    )
    targets = [to_picture(image) for image in backbone.decode_latents(latents)]
    columns = [hints, targets]
    for prompts, guidance, cfg in (
        (examples.prompts(rows), "cond", settings.sample_cfg),
        ([""] * len(rows), "both", 1.0),
    ):
        with autocast(settings.precision, backbone.device):
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
                plain_prompt=not examples.text.weighted,
            )
        columns.append(pictures)
    return columns


def spread(n: int, count: int) -> list[int]:
    """`count` of n rows, evenly spread."""
    count = min(n, count)
    return [i * n // count for i in range(count)]


def to_picture(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] → PIL."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def grid(columns: list[list[Image.Image]]) -> Image.Image:
    """Columns of pictures side by side, two white pixels apart; each in the middle of a place for
    the largest.
    """
    every = [picture for column in columns for picture in column]
    width, height = max(p.width for p in every), max(p.height for p in every)
    sheet = Image.new(
        "RGB", (len(columns) * (width + 2) - 2, len(columns[0]) * (height + 2) - 2), "white"
    )
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            left, top = (width - picture.width) // 2, (height - picture.height) // 2
            sheet.paste(picture, (x * (width + 2) + left, y * (height + 2) + top))
    return sheet
