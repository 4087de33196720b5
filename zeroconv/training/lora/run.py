"""Fine-tuning a base by LoRA (Hu et al. 2021): the loop, its state, and the file other programs
read.

out/recipe.json, log.jsonl, checkpoints/, samples/   as of a ControlNet's run, see
                                                     `zeroconv.training.run`
out/lora/                                            the averaged matrices in diffusers' layout, and
                                                     a lora.json that names the base: `--base
                                                     out/lora` takes the folder as it is
out/summary.json                                     how it ended
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zeroconv.backbones import load_backbone
from zeroconv.data.holding_out import hold_out
from zeroconv.data.spec import check_masked, open_dataset
from zeroconv.training.caching import cache_both, cache_settings
from zeroconv.training.driver import drive
from zeroconv.training.execution.choice import Launch
from zeroconv.training.execution.room import check_room
from zeroconv.training.lora.adapter import prepare_lora
from zeroconv.training.lora.consistency import ConsistencyLoss
from zeroconv.training.lora.trainer import LoraTrainer
from zeroconv.training.progress import ShowLine, print_line
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.reporting.prompted import check_prompts, prepare
from zeroconv.training.reporting.reporter import Reporter


def train_lora(recipe: LoraRecipe, resume: bool = True, say: ShowLine | None = None) -> Path:
    """Train as the recipe says, or go on with a run that its folder holds; returns the folder.

    `say` hears one line of progress at a time. `resume=False`: refuse to go on with an old run.
    Raises UserError, and Interrupted where a signal stopped the run.
    """
    check_prompts(recipe.training.validation, None)
    return drive(recipe, resume, say, assemble)


def assemble(
    recipe: LoraRecipe,
    launch: Launch,
    show_line: ShowLine = print_line,
    reporters: Sequence[Reporter] = (),
) -> LoraTrainer:
    """Base, adapter and cached data of a recipe, put together."""
    settings, accelerator = recipe.data, launch.accelerator
    files: dict[str, Any] = recipe.base_files.options()
    if recipe.training.precision == "bf16":
        files["flow_dtype"] = torch.bfloat16
    backbone = load_backbone(recipe.base, device=accelerator.device, **files)
    size = settings.size or backbone.default_size
    check_room(recipe.training, backbone, size)

    masks = settings.masked_loss
    train_set = open_dataset(settings.train, size=size, masks=masks)
    check_masked(train_set, " + ".join(settings.train))
    if settings.validation is not None:
        held_out = open_dataset(settings.validation, size=size, masks=masks)
    else:
        train_set, held_out = hold_out(train_set, settings.validation_count)
    cache = cache_settings(recipe, accelerator.process_index, accelerator.num_processes)
    data, held = cache_both(recipe, backbone, (train_set, held_out), cache, show_line)

    model = prepare_lora(recipe, backbone)
    execution = launch.execution(model, data, recipe.training, show_line)
    if isinstance(model.loss, ConsistencyLoss) and model.loss.settings.target == "average":
        model.loss.target_weights = execution.averaged
    prompts = prepare(recipe.training.validation, None, backbone, size)
    return LoraTrainer(recipe, backbone, data, held, execution, show_line, reporters, prompts)
