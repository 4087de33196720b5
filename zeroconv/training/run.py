"""A training run from its recipe: the model and the data it asks for, the loop, and what is left in
its folder.

out/recipe.json        what the run was started with
out/log.jsonl          loss, speed and hint gain, one object a line
out/checkpoints/       the last few states, each complete with a checksum
out/samples/           sheets of pictures
out/broken.json        pictures that could not be read, and why (if there were any)
out/control/           the trained control, averaged weights, a diffusers folder
out/best/              the same at the checkpoint of the lowest validation loss, where that was not
                       the last
out/base/              with control.unlock_decoder: the base as it was trained beside out/control, a
                       diffusers folder
out/best-base/         and beside out/best
out/summary.json       how it ended
out/tensorboard/       the same figures for TensorBoard (with training.report_to)
out/report.html        curves, events and pictures on one page
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.training.progress import Countdown, ShowLine, print_line
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.prompts import beside_recipe
from zeroconv.training.recipes.recipe import Recipe, load_recipe, parse_recipe
from zeroconv.training.recipes.settings import check_recipe
from zeroconv.training.recipes.text import read_recipe
from zeroconv.training.stopping import stopped_at_once


def train_command(
    recipe_path: str | os.PathLike, overrides: Sequence[str] = (), resume: bool = True
) -> Path:
    """`zeroconv train`: load the recipe, apply overrides ("training.steps=2000"), train. Returns
    the run's folder.

    A recipe with `lora` trains the base itself, see `zeroconv.training.lora`; any other trains a
    ControlNet.

    Ctrl-C, SIGTERM or SIGHUP while the data is prepared loses at most the shard at work; later it
    saves the run's state. Either raises Interrupted, unless the run is finished.
    """
    recipe = _recipe_of(recipe_path, overrides)
    with stopped_at_once():
        return train(recipe, resume)


def _recipe_of(path: str | os.PathLike, overrides: Sequence[str]) -> Recipe | LoraRecipe:
    values = beside_recipe(read_recipe(path, overrides), Path(path))
    if "lora" in values:
        return check_recipe(LoraRecipe, values, str(path))
    return parse_recipe(values, str(path))


def train(
    recipe: str | os.PathLike | Recipe | LoraRecipe,
    resume: bool = True,
    say: ShowLine | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Train as a recipe says, or go on with a run that its folder holds; returns the folder.

    recipe: the path of a YAML file, or one that is read already. With `lora` it trains the base
    itself, see `zeroconv.training.lora`; any other trains a ControlNet. overrides: changes to a
    file's settings, such as "training.steps=2000".

    `say` hears one line of progress at a time (default: prints it). `resume=False`: refuse to go
    on with an old run. Raises UserError for whatever is wrong with recipe, data, model or folder,
    and Interrupted, a KeyboardInterrupt, where a signal stopped the run: it is saved, and the same
    call goes on.
    """
    if isinstance(recipe, str | os.PathLike):
        recipe = _recipe_of(recipe, overrides)
    elif overrides:
        raise UserError("overrides change the settings of a recipe's file; this recipe is no file")
    if isinstance(recipe, LoraRecipe):
        from zeroconv.training.lora import train_lora

        return train_lora(recipe, resume, say)
    return _train_control(recipe, resume, say)


def _train_control(recipe: Recipe, resume: bool, show_line: ShowLine | None) -> Path:
    """`train`, of a ControlNet or a baseline of it."""
    from zeroconv.training.assembling import assemble
    from zeroconv.training.driver import drive
    from zeroconv.training.measuring.rounds import check_rounds
    from zeroconv.training.reporting.prompted import check_prompts

    check_rounds(recipe)
    # control.init may bring a Union too: then its kinds are checked when it is there
    union = recipe.control.kind == "union" or recipe.control.init != "base"
    check_prompts(recipe.training.validation, recipe.data.condition, union)
    return drive(recipe, resume, show_line, assemble)


def cache_command(
    recipe_path: str | os.PathLike,
    overrides: Sequence[str] = (),
    part: str = "1/1",
    hints_only: bool = False,
) -> int:
    """`zeroconv cache`: what a run of the recipe would compute once, ahead of it; part "3/16" takes
    every 16th shard.

    Returns how many examples these are. Raises UserError.
    """
    from zeroconv.data.cache.fill import cache_hints, cache_share
    from zeroconv.generation.sizes import unit_of
    from zeroconv.training.assembling import hint_encoder_of, load_frozen, open_data
    from zeroconv.training.caching import cache_settings

    recipe, settings = load_recipe(recipe_path, overrides), cache_part(part)
    size, backbone, encoder = recipe.data.size, None, None
    if size is None or not hints_only:
        from accelerate import Accelerator

        backbone = load_frozen(recipe, Accelerator(cpu=recipe.device == "cpu").device)
        encoder = hint_encoder_of(recipe, backbone)
    size = size or backbone.default_size  # type: ignore[union-attr]
    count = 0
    for number, dataset in enumerate(
        open_data(recipe, size, 8 if backbone is None else unit_of(backbone))
    ):
        cache = cache_settings(recipe, *settings)
        # pictures to measure on are not mirrored
        cache = replace(cache, flip=cache.flip and number == 0)
        if hints_only or backbone is None:
            count += cache_hints(dataset, cache, Countdown(print_line))
        else:
            count += cache_share(dataset, backbone, cache, Countdown(print_line), encoder)
    return count


def cache_part(text: str) -> tuple[int, int]:
    """ "3/16" → (2, 16). Raises UserError."""
    number, slash, total = text.partition("/")
    numbers = slash and number.isdecimal() and total.isdecimal() and len(text) < 16
    if not (numbers and 1 <= int(number) <= int(total)):
        raise UserError(
            f"--part {text[:80]!r} is not understood; write 3/16 for the third of sixteen parts."
        )
    return int(number) - 1, int(total)
