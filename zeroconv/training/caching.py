"""What a run computes once of its pictures."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.backbones import UNetBackbone
from zeroconv.data.batches import hints_to_float, mirrors_of
from zeroconv.data.cache import fill
from zeroconv.data.cache.examples import Examples
from zeroconv.data.cache.hint_latents import HintEncoder
from zeroconv.data.cache.moments import encoder_key
from zeroconv.data.dataset import Dataset
from zeroconv.data.storage.shards import content_key
from zeroconv.errors import UserError
from zeroconv.machine import cores
from zeroconv.training.folder import list_broken
from zeroconv.training.progress import Countdown, ShowLine
from zeroconv.training.recipes.recipe import AnyRecipe


def cache_both(
    recipe: AnyRecipe,
    backbone: UNetBackbone,
    datasets: tuple[Dataset, Dataset],
    cache: fill.CacheSettings,
    show_line: ShowLine,
    control: Any = None,
) -> tuple[Examples, Examples]:
    """What is computed once of the pictures to train on, and of those to measure on, which are not
    mirrored. Pictures that were set aside are listed in the run's folder. Hints that `control`
    reads as latents are encoded too.
    """
    progress, encoder = Countdown(show_line), hint_encoder(backbone, control)
    data = fill.cache_examples(datasets[0], backbone, cache, progress, encoder)
    held = fill.cache_examples(datasets[1], backbone, replace(cache, flip=False), progress, encoder)
    check_masks(data, held)
    list_broken(Path(recipe.out), {**data.broken, **held.broken}, show_line)
    show_line(f"{len(data)} pictures to train on, {len(held)} held out")
    return data, held


def hint_encoder(backbone: Any, control: Any) -> HintEncoder | None:
    """How a control reads hints as latents; None where it reads pixels, or there is none."""
    if control is None or control.hint_space != "latent" or not hasattr(control, "hint_key"):
        return None
    config = {k: v for k, v in dict(backbone.vae.config).items() if not k.startswith("_")}
    key = content_key(encoder_key(backbone), repr(sorted(config.items())), control.hint_key)

    def encode(hints: Tensor) -> Tensor:
        return control.hint_latents(backbone, hints_to_float(hints)).float()

    def mirror(condition: str | None) -> Any:
        return mirrors_of([condition])[condition] or (lambda hint: hint[:, ::-1])

    return HintEncoder(key, encode, mirror)


def check_masks(data: Examples, held: Examples) -> None:
    """A note where pictures have no mask of their own. Raises UserError where none to train on
    has.
    """
    if data.masks is None:
        return
    if data.unmasked == len(data):
        raise UserError(
            f"data.masked_loss is set, and none of {len(data)} pictures has a mask; add them, or "
            "take the setting away."
        )
    for what, examples in (("to train on", data), ("held out", held)):
        if examples.unmasked:
            warnings.warn(
                f"{examples.unmasked} of {len(examples)} pictures {what} have no mask, so all of "
                "each counts in the loss.",
                stacklevel=2,
            )


def cache_settings(recipe: AnyRecipe, rank: int, world: int) -> fill.CacheSettings:
    """Of the recipe; the processes of a machine share its cores."""
    settings, beside = recipe.data, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = settings.workers or max(1, cores() // beside)
    return fill.CacheSettings(
        settings.cache,
        workers,
        settings.flip,
        caption_weights=settings.caption_weights,
        rank=rank,
        world=world,
    )
