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
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroconv.data.buckets import Buckets
from zeroconv.data.dataset import Dataset
from zeroconv.data.holding_out import hold_out
from zeroconv.data.spec import open_dataset
from zeroconv.errors import Interrupted, UserError
from zeroconv.jsonfile import write_json
from zeroconv.machine import cores, peak_memory
from zeroconv.training.execution.deepspeed import asks_for_zero, check_zero
from zeroconv.training.execution.launcher import (
    Sharding,
    asked_sharding,
    check_launcher,
    check_processes,
    processors_only,
)
from zeroconv.training.folder import list_broken, read_object, run_folder
from zeroconv.training.progress import Countdown, Say, print_line, told_of_start
from zeroconv.training.recipes.lora import LoraRecipe
from zeroconv.training.recipes.recipe import (
    Recipe,
    check_recipe,
    load_recipe,
    parse_recipe,
    read_recipe,
)
from zeroconv.training.reporting.report import write_report
from zeroconv.training.stopping import GOES_ON, stopped_at_once

if TYPE_CHECKING:
    from zeroconv.backbones import UNetBackbone
    from zeroconv.baselines import Net
    from zeroconv.data.cache.fill import CacheSettings
    from zeroconv.training.trainer import Trainer

# settings that a new ControlNet does not take
_NO_SHAPE = {"kind", "options", "init", "frozen_copy", "unlock_decoder"}


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
    values = read_recipe(path, overrides)
    if "lora" in values:
        return check_recipe(LoraRecipe, values, str(path))
    return parse_recipe(values, str(path))


def train(
    recipe: str | os.PathLike | Recipe | LoraRecipe,
    resume: bool = True,
    say: Say | None = None,
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


def _train_control(recipe: Recipe, resume: bool, say: Say | None) -> Path:
    """`train`, of a ControlNet or a baseline of it."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

    from zeroconv.training.execution.compile import check_compile
    from zeroconv.training.execution.room import told_of_room
    from zeroconv.training.execution.threads import use_threads
    from zeroconv.training.reporting.trackers import check_trackers
    from zeroconv.training.rounds import check_rounds

    say = say or print_line
    use_threads(recipe.training.threads)
    check_trackers(recipe.training.report_to)
    check_rounds(recipe)
    check_launcher()
    sharding = asked_sharding(recipe)
    zero = asks_for_zero()
    if zero:
        check_zero(recipe)
    # accelerate has DeepSpeed choose how processes talk where it sees no card, and DeepSpeed
    # has no choice of its own
    gloo = {"backend": "gloo"} if zero and not torch.cuda.is_available() else {}
    # accelerate places processes and devices; autocast is ours, so that two runs in one
    # process may differ in it
    accelerator = Accelerator(
        # processes wait for each other while one draws pictures or another still fills the cache
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2), **gloo)],
        mixed_precision="no",
        cpu=not zero and (recipe.device == "cpu" or processors_only()),
        log_with=list(recipe.training.report_to) or None,
        project_config=ProjectConfiguration(logging_dir=str(Path(recipe.out) / "tensorboard")),
    )
    check_processes(sharding, accelerator.num_processes)
    check_compile(recipe.training, accelerator.device)
    say = say if accelerator.is_main_process else _silent
    with run_folder(recipe, resume, accelerator), told_of_room(recipe.training):
        return _train(recipe, accelerator, say, sharding)


def _train(recipe: Recipe, accelerator: Any, say: Say, sharding: Sharding | None) -> Path:
    """The run, in a folder that is its own."""
    from zeroconv.layers.allocator import keep_pages
    from zeroconv.training.reporting.trackers import Tracking

    if sharding is not None and sharding.told:
        say(sharding.told)
    trainer = assemble(recipe, accelerator, say, sharding)
    if accelerator.device.type == "cpu":
        keep_pages()
    if trainer.resume():
        say(told_of_start(trainer.step, recipe.training.steps))
    tracking = Tracking(recipe, accelerator, trainer.step, trainer.log.read())
    trainer.log.tell, trainer.show = tracking.figures, tracking.sheet
    trainer.page = lambda: _page(trainer)
    try:
        status = trainer.run()
        if accelerator.is_main_process:
            _finish(trainer, status, say)
    except UserError:  # the loss is no number, the disk is full: the page shows what led there
        if accelerator.is_main_process:
            _page(trainer)
        raise
    finally:  # last: a tracker's server may keep it waiting
        tracking.finish()
    if status == "interrupted":
        what = f"interrupted at step {trainer.step}, saved; {GOES_ON}"
        raise Interrupted(what if accelerator.is_main_process else "", trainer.stopped_by)
    return trainer.folder


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
    from zeroconv.backbones import load_backbone
    from zeroconv.data.cache.fill import cache_hints, cache_share

    recipe, settings = load_recipe(recipe_path, overrides), cache_part(part)
    size, backbone = recipe.data.size, None
    if size is None or not hints_only:
        from accelerate import Accelerator

        backbone = load_backbone(recipe.base, device=Accelerator(cpu=recipe.device == "cpu").device)
    size = size or backbone.default_size  # type: ignore[union-attr]
    count = 0
    for number, dataset in enumerate(
        open_data(recipe, size, 8 if backbone is None else backbone.latent_scale)
    ):
        cache = cache_settings(recipe, *settings)
        # pictures to measure on are not mirrored
        cache = replace(cache, flip=cache.flip and number == 0)
        if hints_only or backbone is None:
            count += cache_hints(dataset, cache, Countdown(print_line))
        else:
            count += cache_share(dataset, backbone, cache, Countdown(print_line))
    return count


def cache_part(text: str) -> tuple[int, int]:
    """ "3/16" → (2, 16). Raises UserError."""
    number, slash, total = text.partition("/")
    whole = slash and number.isdecimal() and total.isdecimal() and len(text) < 16
    if not (whole and 1 <= int(number) <= int(total)):
        raise UserError(
            f"--part {text[:80]!r} is not understood; write 3/16 for the third of sixteen parts."
        )
    return int(number) - 1, int(total)


def assemble(
    recipe: Recipe, accelerator: Any, say: Say, sharding: Sharding | None = None
) -> Trainer:
    """Backbone, control and cached data of a recipe, put together."""
    from zeroconv.backbones import load_backbone
    from zeroconv.backbones.text import note_cut_prompts
    from zeroconv.data.cache.fill import cache_examples
    from zeroconv.training.execution.room import check_room
    from zeroconv.training.rounds import Rounds
    from zeroconv.training.trainer import Trainer

    settings = recipe.data
    backbone = load_backbone(recipe.base, device=accelerator.device)
    size = settings.size or backbone.default_size
    check_room(recipe.training, backbone, size)
    control = make_control(recipe, backbone)  # now, so that what is wrong with it costs no work
    train_set, held_out = open_data(recipe, size, backbone.latent_scale)
    cache = cache_settings(recipe, accelerator.process_index, accelerator.num_processes)
    progress = Countdown(say)
    data = cache_examples(train_set, backbone, cache, progress)
    held = cache_examples(held_out, backbone, replace(cache, flip=False), progress)
    list_broken(Path(recipe.out), {**data.broken, **held.broken}, say)
    for examples in (data, held):
        if len(examples.hints) != len(examples):
            raise UserError(
                f"{len(examples)} pictures have {len(examples.hints)} hints; give every picture "
                "one, or none."
            )
    say(f"{len(data)} pictures to train on, {len(held)} held out")
    if accelerator.is_main_process:
        note_cut_prompts(backbone, data.text.captions, "captions")
    control = control.to(accelerator.device)
    trainer = Trainer(recipe, backbone, control, data, held, accelerator, say, sharding)
    if recipe.training.evaluate_every and trainer.measures:
        trainer.rounds = Rounds(recipe, backbone, held_out)
    return trainer


def cache_settings(recipe: Recipe, rank: int, world: int) -> CacheSettings:
    """Of the recipe; the processes of a machine share its cores."""
    from zeroconv.data.cache.fill import CacheSettings

    settings, beside = recipe.data, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = settings.workers or max(1, cores() // beside)
    return CacheSettings(settings.cache, workers, settings.flip, rank=rank, world=world)


def make_control(recipe: Recipe, backbone: UNetBackbone) -> Net:
    """A new control or baseline of the recipe's kind (its random part drawn from the run's seed),
    or an old one to go on from.
    """
    import torch

    from zeroconv.baselines import load_net, make_baseline
    from zeroconv.control import ControlNet

    settings, condition = recipe.control, recipe.data.condition
    if settings.init != "base":
        control = load_net(settings.init, backbone)
        control.config["zeroconv"]["condition"] = condition
        return control
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if settings.kind != "controlnet":
            return make_baseline(settings.kind, backbone, condition=condition, **settings.options)
        return ControlNet.from_backbone(
            backbone, condition=condition, **settings.model_dump(exclude=_NO_SHAPE)
        )


# ---------------------------------------------------------------- data


def open_data(recipe: Recipe, size: int, scale: int = 8) -> tuple[Dataset, Dataset]:
    """The pictures to train on and those to measure on; no picture is in both. `scale`: pixels a
    latent.
    """
    settings = recipe.data
    buckets = (
        None
        if settings.buckets is None
        else Buckets.of(size, scale, **settings.buckets.model_dump())
    )
    options: dict[str, Any] = {"condition": settings.condition, "size": size, "buckets": buckets}
    train_set = open_dataset(settings.train, **options)
    if settings.validation is not None:
        return train_set, open_dataset(settings.validation, **options)
    return hold_out(train_set, settings.validation_count)


# ---------------------------------------------------------------- how it ended


def last_round(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the log says of the newest round of pictures; it is cut with the run's state, so nothing
    else keeps it.
    """
    rounds = [
        {"step": line["step"], **line["evaluation"]} for line in lines if line.get("evaluation")
    ]
    return rounds[-1] if rounds else None


def _page(trainer: Trainer) -> None:
    """The report of a run that goes on; what its summary said of an earlier stop is past."""
    with suppress(OSError):
        summary = trainer.folder / "summary.json"
        if read_object(summary).get("status") == "interrupted":
            summary.unlink()
        write_report(trainer.folder)


def _finish(trainer: Trainer, status: str, say: Say) -> None:
    out, step, settings = trainer.folder, trainer.step, trainer.settings
    samples = trainer.micro * settings.batch_size * trainer.plan.world
    summary = {
        "status": status,
        "steps": step,
        "samples": samples,
        "minutes": round(trainer.seconds / 60, 2),
        "samples_per_second": round(samples / max(1e-9, trainer.seconds), 2),
        "examples": len(trainer.plan.examples),
        "broken": len(trainer.plan.examples.broken) + len(trainer.held_out.broken),
        "validation": trainer.last,
        "evaluation": last_round(trainer.log.read()),
        "best": trainer.best,
        "converged": trainer.converged,
        "rollbacks": trainer.rollbacks,
        "peak_memory_mb": round(_peak_memory() / 2**20),
    }
    if status == "finished":
        trainer.export(out / "control", out / "base")
        summary["control"] = str(out / "control")
        if trainer.decoder is not None:
            summary["base"] = str(out / "base")
        # the last step's weights are usually as good; where they are not, both are there
        kept = trainer.kept
        if trainer.export_best(out / "best", out / "best-base"):
            summary["kept"] = {"control": str(out / "best"), **(kept or {})}
    write_json(out / "summary.json", summary)
    write_report(out)
    if status == "finished":
        say(f"finished: {out / 'control'}")


def _peak_memory() -> int:
    """Bytes: the most this process has held, or the most of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_memory()


def _silent(line: str) -> None:
    pass
