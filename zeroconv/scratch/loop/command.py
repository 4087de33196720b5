"""The command line that the trainings share: a run folder, its plan, and how it ends."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zeroconv.machine import cores
from zeroconv.scratch.corpus.batch import Mixture
from zeroconv.scratch.corpus.latents import Latents
from zeroconv.scratch.loop.plan import Plan, load_plan
from zeroconv.scratch.loop.precision import fastest
from zeroconv.scratch.loop.run import Run, print_line

TaskMaker = Callable[..., Any]  # (arguments, precision=, compiled=) → task, see `Latents` and `Run`


def run(
    name: str,
    text: str,
    make: TaskMaker,
    rate: float = 2e-3,
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Parse the arguments, then start or go on with a training of `name`.

    `options` adds those that only this training has.
    """
    parser = _parser(text, rate)
    options(parser)
    arguments = parser.parse_args()

    maker = partial(make, arguments)
    plan = plan_of(arguments, maker)
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    task = maker(precision=plan.precision, compiled=plan.compiled)

    mixture, journal = Mixture(batch=plan.batch), arguments.folder / "shards.json"
    feed = Latents(
        task, arguments.shards, journal, plan, mixture, seed=plan.seed, report=print_line
    )
    training = Run(task, feed, plan, arguments.folder, plan.batch)
    _ask_for_decay(plan, arguments.folder, training.step, arguments.decay)

    print_line(f"{name}: {plan}")
    training.go(arguments.steps)


def _parser(text: str, rate: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument

    add("folder", type=Path, help="of the run; holds its state")
    add("--shards", type=Path, required=True, help="what `python -m zeroconv.scratch.drawing` made")
    add("--first-steps", type=int, default=6_000, help="steps at 64 pixels, before those at 128")
    add("--batch", type=int, default=128)
    add("--rate", type=float, default=rate)
    add(
        "--decay",
        type=int,
        default=0,
        metavar="STEPS",
        help="let the rate fall from now on, then end",
    )
    add("--steps", type=int, default=None, help="stop after so many steps of this call")
    add("--threads", type=int, default=0, help="default: what the run had, else one a core")
    add("--precision", choices=["float32", "bfloat16"], help="default: the faster, measured once")
    add("--compile", action=argparse.BooleanOptionalAction, default=None)

    return parser


def plan_of(arguments: argparse.Namespace, make: TaskMaker) -> Plan:
    """The run's plan, made and saved at its first start; on another machine precision is chosen
    anew.
    """
    path = arguments.folder / "plan.json"
    plan = load_plan(path)

    if plan is None:
        plan = Plan(arguments.first_steps, batch=arguments.batch, rate=arguments.rate)
    if arguments.threads or not plan.machine:
        plan.threads = arguments.threads or cores()

    given: dict[str, Any] = {"precision": arguments.precision, "compiled": arguments.compile}
    if plan.machine != _machine():
        torch.set_num_threads(plan.threads)
        plan.precision = arguments.precision or fastest(make, plan.batch)
        plan.machine = _machine()
    for key, value in given.items():
        if value is not None:
            setattr(plan, key, value)

    plan.save(path)
    return plan


def _ask_for_decay(plan: Plan, folder: Path, step: int, steps: int) -> None:
    """Write the decay into the plan, once: asked for again, it stays where it began."""
    if steps and plan.decay_from is None:
        plan.decay_from, plan.decay_steps = step, steps
        plan.save(folder / "plan.json")


def _machine() -> str:
    """The processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags")
    facts = {
        line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip()
        for line in lines
        if line.startswith(wanted)
    }
    narrow = [
        flag for flag in ("avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()
    ]

    return " ".join([facts.get("model name", platform.machine()), *narrow])
