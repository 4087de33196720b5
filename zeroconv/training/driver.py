"""A run from its start to its end, whatever it trains: processes, folder, signals, reporters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zeroconv.errors import Interrupted, UserError
from zeroconv.layers.allocator import keep_pages
from zeroconv.training.execution.choice import Launch, launch
from zeroconv.training.execution.room import memory_errors
from zeroconv.training.folder import run_folder
from zeroconv.training.loop import Loop
from zeroconv.training.progress import ShowLine, print_line, start_line
from zeroconv.training.reporting.reporter import Reporter
from zeroconv.training.reporting.trackers import Tracking, check_trackers
from zeroconv.training.stopping import GOES_ON


def drive(
    recipe: Any,
    resume: bool,
    show_line: ShowLine | None,
    assemble: Callable[[Any, Launch, ShowLine, Sequence[Reporter]], Loop],
) -> Path:
    """Train as a recipe says, or go on with a run that its folder holds; returns the folder.

    `assemble` makes the trainer, once everything is checked that can be without it. Raises
    UserError, and Interrupted where a signal stopped the run.
    """
    check_trackers(recipe.training.report_to)
    started = launch(recipe)
    accelerator = started.accelerator
    show_line = (show_line or print_line) if accelerator.is_main_process else _silent
    with run_folder(recipe, resume, accelerator), memory_errors(recipe.training):
        if started.note:
            show_line(started.note)
        trainer = assemble(recipe, started, show_line, [Tracking(recipe, accelerator)])
        if accelerator.device.type == "cpu":
            keep_pages()
        if trainer.resume():
            show_line(start_line(trainer.step, recipe.training.steps))
        status = _run(trainer, accelerator.is_main_process)

    if status == "interrupted":
        what = f"interrupted at step {trainer.step}, saved; {GOES_ON}"
        raise Interrupted(what if accelerator.is_main_process else "", trainer.stopped_by)
    return trainer.folder


def _run(trainer: Loop, main: bool) -> str:
    try:
        status = trainer.run()
        if main:
            trainer.finish(status)
        return status
    except UserError:  # the loss is no number, the disk is full: the page shows what led there
        for reporter in trainer.reporters:
            reporter.failed(trainer.folder)
        raise
    finally:  # last: a tracker's server may keep it waiting
        for reporter in trainer.reporters:
            reporter.finish()


def _silent(line: str) -> None:
    pass
