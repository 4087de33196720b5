"""A training run from its recipe: the model and the data it asks for, the loop, and what is left in its folder.

out/recipe.json        what the run was started with
out/log.jsonl          loss, speed and hint gain, one object a line
out/checkpoints/       the last few states, each complete with a checksum
out/samples/           sheets of pictures
out/broken.json        pictures that could not be read, and why (if there were any)
out/control/           the trained control, averaged weights, a diffusers folder
out/best/              the same at the checkpoint of the lowest validation loss, where that was not the last
out/base/              with control.unlock_decoder: the base as it was trained beside out/control, a diffusers folder
out/best-base/         and beside out/best
out/summary.json       how it ended
out/tensorboard/       the same figures for TensorBoard (with training.report_to)
out/report.html        curves, events and pictures on one page
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroconv.data.buckets import Buckets
from zeroconv.data.datasets import Dataset, open_dataset
from zeroconv.errors import UserError
from zeroconv.files import atomic_write
from zeroconv.machine import cores, peak_memory
from zeroconv.training.launching import Sharding, asked_sharding, check_launcher, check_processes
from zeroconv.training.lora_recipe import LoraRecipe
from zeroconv.training.recipe import AnyRecipe, Recipe, check_recipe, load_recipe, parse_recipe, read_recipe
from zeroconv.training.report import write_report
from zeroconv.training.state import checkpoints
from zeroconv.training.stopping import sigterm_as_ctrl_c
from zeroconv.training.zero import asks_for_zero, check_zero

if TYPE_CHECKING:
    from zeroconv.backbones import UNetBackbone
    from zeroconv.data.cache import CacheSettings
    from zeroconv.rivals import Net
    from zeroconv.training.trainer import Trainer

Say = Callable[[str], None]
_NO_SHAPE = {"kind", "options", "init", "frozen_copy", "unlock_decoder"}  # settings that a new ControlNet does not take


def train_command(recipe_path: str | os.PathLike, overrides: Sequence[str] = (), resume: bool = True) -> Path:
    """`zeroconv train`: load the recipe, apply overrides ("training.steps=2000"), train. Returns the run's folder.

    A recipe with `lora` trains the base itself, see `zeroconv.training.lora`; any other trains a ControlNet.

    Ctrl-C or SIGTERM while the data is prepared loses at most the shard at work; later it saves the run's state.
    """
    values = read_recipe(recipe_path, overrides)
    try:
        with sigterm_as_ctrl_c():
            if "lora" in values:
                from zeroconv.training.lora import train_lora

                return train_lora(check_recipe(LoraRecipe, values, str(recipe_path)), resume=resume)
            return train(parse_recipe(values, str(recipe_path)), resume=resume)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", flush=True)
        return Path(values["out"])


def train(recipe: Recipe, resume: bool = True, say: Say | None = None) -> Path:
    """Train a ControlNet as the recipe says, or go on with a run that its folder holds; returns the folder.

    `say` hears one line of progress at a time (default: prints it). `resume=False`: refuse to go on with an old run.
    Raises UserError for whatever is wrong with recipe, data, model or folder.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

    from zeroconv.training.allocator import keep_pages
    from zeroconv.training.compiling import check_compile
    from zeroconv.training.rounds import check_rounds
    from zeroconv.training.threads import use_threads
    from zeroconv.training.tracking import Tracking, check_trackers

    say = say or _print
    use_threads(recipe.training.threads)
    check_trackers(recipe.training.report_to)
    check_rounds(recipe)
    check_launcher()
    sharding = asked_sharding(recipe)
    zero = asks_for_zero()
    if zero:
        check_zero(recipe)
    # accelerate has DeepSpeed choose how processes talk where it sees no card, and DeepSpeed has no choice of its own
    gloo = {"backend": "gloo"} if zero and not torch.cuda.is_available() else {}
    # accelerate places processes and devices; autocast is ours, so that two runs in one process may differ in it
    accelerator = Accelerator(
        # processes wait for each other while one draws pictures or another still fills the cache
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2), **gloo)],
        mixed_precision="no",
        cpu=recipe.device == "cpu" and not zero,
        log_with=list(recipe.training.report_to) or None,
        project_config=ProjectConfiguration(logging_dir=str(Path(recipe.out) / "tensorboard")),
    )
    check_processes(sharding, accelerator.num_processes)
    check_compile(recipe.training, accelerator.device)
    with accelerator.main_process_first():  # one process makes the folder, the others find it made
        if accelerator.is_main_process:
            open_run(recipe, resume)
    say = say if accelerator.is_main_process else _silent
    if sharding is not None and sharding.told:
        say(sharding.told)
    trainer = assemble(recipe, accelerator, say, sharding)
    if accelerator.device.type == "cpu":
        keep_pages()
    if trainer.resume():
        say(f"going on from step {trainer.step} of {recipe.training.steps}")
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
    return trainer.folder


def cache_command(
    recipe_path: str | os.PathLike, overrides: Sequence[str] = (), part: str = "1/1", hints_only: bool = False
) -> int:
    """`zeroconv cache`: what a run of the recipe would compute once, ahead of it; part "3/16" takes every 16th shard.

    Returns how many examples these are. Raises UserError.
    """
    from zeroconv.backbones import load_backbone
    from zeroconv.data.cache import cache_hints, cache_share

    recipe, settings = load_recipe(recipe_path, overrides), cache_part(part)
    size, backbone = recipe.data.size, None
    if size is None or not hints_only:
        from accelerate import Accelerator

        backbone = load_backbone(recipe.base, device=Accelerator(cpu=recipe.device == "cpu").device)
    size = size or backbone.default_size  # type: ignore[union-attr]
    count = 0
    for number, dataset in enumerate(open_data(recipe, size, 8 if backbone is None else backbone.latent_scale)):
        cache = cache_settings(recipe, *settings)
        cache = replace(cache, flip=cache.flip and number == 0)  # pictures to measure on are not mirrored
        if hints_only or backbone is None:
            count += cache_hints(dataset, cache, Countdown(_print))
        else:
            count += cache_share(dataset, backbone, cache, Countdown(_print))
    return count


def cache_part(text: str) -> tuple[int, int]:
    """ "3/16" → (2, 16). Raises UserError."""
    number, slash, total = text.partition("/")
    whole = slash and number.isdecimal() and total.isdecimal() and len(text) < 16
    if not (whole and 1 <= int(number) <= int(total)):
        raise UserError(f"--part {text[:80]!r} is not understood; write 3/16 for the third of sixteen parts.")
    return int(number) - 1, int(total)


def assemble(recipe: Recipe, accelerator: Any, say: Say, sharding: Sharding | None = None) -> Trainer:
    """Backbone, control and cached data of a recipe, put together."""
    from zeroconv.backbones import load_backbone
    from zeroconv.data.cache import cache_examples
    from zeroconv.training.rounds import Rounds
    from zeroconv.training.trainer import Trainer

    settings = recipe.data
    backbone = load_backbone(recipe.base, device=accelerator.device)
    size = settings.size or backbone.default_size
    train_set, held_out = open_data(recipe, size, backbone.latent_scale)
    cache = cache_settings(recipe, accelerator.process_index, accelerator.num_processes)
    progress = Countdown(say)
    data = cache_examples(train_set, backbone, cache, progress)
    held = cache_examples(held_out, backbone, replace(cache, flip=False), progress)
    list_broken(Path(recipe.out), {**data.broken, **held.broken}, say)
    for examples in (data, held):
        if len(examples.hints) != len(examples):
            raise UserError(
                f"{len(examples)} pictures have {len(examples.hints)} hints; give every picture one, or none."
            )
    say(f"{len(data)} pictures to train on, {len(held)} held out")
    control = make_control(recipe, backbone).to(accelerator.device)
    trainer = Trainer(recipe, backbone, control, data, held, accelerator, say, sharding)
    if recipe.training.evaluate_every and trainer.measures:
        trainer.rounds = Rounds(recipe, backbone, held_out)
    return trainer


def cache_settings(recipe: Recipe, rank: int, world: int) -> CacheSettings:
    """Of the recipe; the processes of a machine share its cores."""
    from zeroconv.data.cache import CacheSettings

    settings, beside = recipe.data, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = settings.workers or max(1, cores() // beside)
    return CacheSettings(settings.cache, workers, settings.flip, rank=rank, world=world)


def make_control(recipe: Recipe, backbone: UNetBackbone) -> Net:
    """A new control or rival of the recipe's kind (its random part drawn from the run's seed), or an old one to go on
    from."""
    import torch

    from zeroconv.control import ControlNet
    from zeroconv.rivals import load_net, make_rival

    settings, condition = recipe.control, recipe.data.condition
    if settings.init != "base":
        control = load_net(settings.init, backbone)
        control.config["zeroconv"]["condition"] = condition
        return control
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if settings.kind != "controlnet":
            return make_rival(settings.kind, backbone, condition=condition, **settings.options)
        return ControlNet.from_backbone(backbone, condition=condition, **settings.model_dump(exclude=_NO_SHAPE))


# ---------------------------------------------------------------- data


def open_data(recipe: Recipe, size: int, scale: int = 8) -> tuple[Dataset, Dataset]:
    """The pictures to train on and those to measure on; no picture is in both. `scale`: pixels a latent."""
    settings = recipe.data
    buckets = None if settings.buckets is None else Buckets.of(size, scale, **settings.buckets.model_dump())
    options: dict[str, Any] = {"condition": settings.condition, "size": size, "buckets": buckets}
    train_set = open_dataset(settings.train, **options)
    if settings.validation is not None:
        return train_set, open_dataset(settings.validation, **options)
    return hold_out(train_set, settings.validation_count)


def hold_out(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Set aside `count` examples, but at most a tenth, by the hash of their names: the same ones when the set grows.

    Views of one sticker stay together.
    """
    marks = [hashlib.sha256(dataset.name(i).partition("#")[0].encode()).digest() for i in range(len(dataset))]
    share = min(count, len(dataset) // 10)
    if share < 2:
        raise UserError(
            f"{len(dataset)} pictures are too few to hold some out; give at least 20, or name data.validation."
        )
    edge = sorted(marks)[share - 1]
    held = tuple(row for row, mark in zip(dataset.rows, marks, strict=True) if mark <= edge)
    rest = tuple(row for row, mark in zip(dataset.rows, marks, strict=True) if mark > edge)
    return replace(dataset, rows=rest), replace(dataset, rows=held)


class Countdown:
    """Progress of the cache, a line every few seconds, with the time that is left."""

    def __init__(self, say: Say, every: float = 5.0) -> None:
        self.say, self.every = say, every
        self.what, self.began, self.told, self.first = "", 0.0, 0.0, 0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.told, self.first = what, now, now, done
        elif now - self.told > self.every or done == total:
            self.told = now
            left = (now - self.began) / max(1, done - self.first) * (total - done)
            self.say(f"caching {what}: {done}/{total}  {left / 60:.1f} min left")


# ---------------------------------------------------------------- the folder of the run


def open_run(recipe: AnyRecipe, resume: bool = True) -> None:
    """Note the recipe in its folder, or check that the folder holds a run of the same one."""
    out = Path(recipe.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"out is {out}, which is a file; name a folder for the run.")
    path, identity = out / "recipe.json", recipe.identity()
    if not path.is_file() and out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no run; name another out folder.")
    if not checkpoints(out / "checkpoints"):  # nothing to go on from: a first try that failed may be mended
        _write_json(path, {"recipe": recipe.model_dump(mode="json")})
        return
    if not resume:
        raise UserError(f"{out} holds a run already; go on with it, or name another out folder.")
    try:
        # read anew, so that settings which did not exist then have their defaults
        before = check_recipe(
            type(recipe), json.loads(path.read_text(encoding="utf-8"))["recipe"], str(path)
        ).identity()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read; name another out folder.") from error
    if before != identity:
        changed = _first_difference(before, identity)
        raise UserError(f"{out} holds the run of another recipe ({changed}); name another out folder, or put it back.")


def _first_difference(a: Any, b: Any, place: str = "") -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b)):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{place}.{key}" if place else key)
    return f"{place} was {a}, is {b}"


def list_broken(out: Path, broken: dict[str, str], say: Say) -> None:
    """Name the pictures that were set aside in out/broken.json, if there are any."""
    if broken:
        _write_json(out / "broken.json", broken)
        name, reason = next(iter(broken.items()))
        say(f"{len(broken)} pictures were set aside, {name} the first ({reason}); all are in {out / 'broken.json'}")


def last_round(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the log says of the newest round of pictures; it is cut with the run's state, so nothing else keeps it."""
    rounds = [{"step": line["step"], **line["evaluation"]} for line in lines if "evaluation" in line]
    return rounds[-1] if rounds else None


def _page(trainer: Trainer) -> None:
    """The report of a run that goes on; what its summary said of an earlier stop is past."""
    with suppress(OSError):
        summary = trainer.folder / "summary.json"
        if summary.is_file() and json.loads(summary.read_text(encoding="utf-8")).get("status") == "interrupted":
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
        kept = trainer.kept  # the last step's weights are usually as good; where they are not, both are there
        if trainer.export_best(out / "best", out / "best-base"):
            summary["kept"] = {"control": str(out / "best"), **(kept or {})}
    _write_json(out / "summary.json", summary)
    write_report(out)
    if status == "finished":
        say(f"finished: {out / 'control'}")
    else:
        say(f"interrupted at step {step}, saved; the same command goes on from there")


def _peak_memory() -> int:
    """Bytes: the most this process has held, or the most of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_memory()


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _print(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    pass
