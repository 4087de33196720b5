"""Checkpoints: one file a step, complete or not there at all, its checksum in its name."""

from __future__ import annotations

import hashlib
import random
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zeroconv.data.cache.examples import Examples
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, sweep

_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.pt")


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], keep: int, best: int | None = None
) -> Path:
    """Write `state` (tensors, numbers, strings, lists, dicts) and the random generators; then drop
    all but the newest `keep` and that of step `best`.

    The old files go only after the new one is on disk. Raises UserError where the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        (folder / "writing.pt").unlink(missing_ok=True)  # whole, but killed before it had its name
        with atomic_write(folder / "writing.pt") as temporary:
            # given a path, torch does not say why it cannot write
            with open(temporary, "wb") as file:
                torch.save({"step": step, "random": random_state(), **state}, file)
            path = folder / f"step-{step:08d}-{checksum(temporary)}.pt"
        (folder / "writing.pt").replace(path)
    except (OSError, RuntimeError) as error:
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(
            f"the checkpoint of step {step} cannot be written to {folder} ({reason}); make room, "
            "and the same command goes on from the checkpoint before it."
        ) from error
    _drop_old(folder, path, keep, best)
    return path


def _drop_old(folder: Path, path: Path, keep: int, best: int | None) -> None:
    """Drop what the state in `path` replaces: all but the newest `keep` up to its step, and others
    of that step. Later ones are damaged, as the run did not go on from them; they stay.
    """
    step = step_of(path)
    earlier = [old for old in checkpoints(folder) if step_of(old) < step]
    same = [old for old in checkpoints(folder) if step_of(old) == step and old != path]
    drop = [old for old in earlier[keep - 1 :] if step_of(old) != best]
    for old in (*same, *drop):
        with suppress(OSError):  # a folder of that name, or a file that another process took away
            old.unlink()


def data_fingerprint(data: Examples, processes: int) -> dict[str, Any]:
    """What a step's batch depends on besides seed, step and recipe."""
    return {"processes": processes, "pictures": len(data), "data": data.mark}


def resume_warnings(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """A sentence for each thing that makes a run that goes on another one than it would have been.
    `before`: what `data_fingerprint` was; None in checkpoints that do not say.
    """
    lines: list[str] = []
    rest = "steps from here on are not those it would have made"
    if before is None or before == now:
        return lines
    if before["processes"] != now["processes"]:
        lines.append(
            f"the run was made by {before['processes']} processes and goes on with "
            f"{now['processes']}: {rest}"
        )
    if before["data"] != now["data"]:
        counts = f"{before['pictures']} pictures, now {now['pictures']}"
        lines.append(f"the data to train on has changed ({counts}) since the checkpoint: {rest}")
    return lines


def step_of(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])  # type: ignore[index]


def checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted((p for p in folder.glob("step-*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", step: int | None = None, mapped: bool = False
) -> dict[str, Any] | None:
    """The newest whole checkpoint (or that of `step`), its random generators set.

    None where there is none. Damaged ones are passed over, with a note. Where all of them are
    damaged, of any step: UserError, since a run that begins anew would replace what may be mended.

    mapped: on the CPU, read from the file as it is used, for processes that need a part each.
    """
    damaged: dict[Path, str] = {}
    for path in checkpoints(folder):
        if step is not None and step_of(path) != step:
            continue
        try:
            state = _read(path, device, mapped)
        except (OSError, ValueError) as error:
            damaged[path] = " ".join(str(error).split())
            continue
        if damaged:
            names = ", ".join(f"{path.name} ({reason})" for path, reason in damaged.items())
            what = "checkpoint is damaged" if len(damaged) == 1 else "checkpoints are damaged"
            warnings.warn(
                f"the newest {what}: {names} in {folder}; going on from the one before, of step "
                f"{step_of(path)}.",
                stacklevel=2,
            )
        set_random_state(state.pop("random"))
        return state

    if damaged and step is None:
        first = next(iter(damaged))
        raise UserError(
            f"all checkpoints in {folder} are damaged ({first.name}: {damaged[first]}); put back a "
            "copy of one, or begin anew: name another out folder, or move that folder away."
        )
    return None


def _read(path: Path, device: torch.device | str, mapped: bool) -> dict[str, Any]:
    """The state that a file holds. Raises OSError and ValueError, which say what is wrong."""
    if not path.exists():
        raise ValueError("it is a link to a file that is gone")
    if not path.is_file():
        raise ValueError("it is no file")
    if checksum(path) != _NAME.fullmatch(path.name)[2]:  # type: ignore[index]
        raise ValueError("its content is not what was written")

    # of several processes the device is "cpu:0"
    where = "cpu" if mapped or torch.device(device).type == "cpu" else device
    try:
        state = torch.load(path, map_location=where, weights_only=True, mmap=mapped)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever unpickling something else may raise
        raise ValueError("it is no checkpoint of a run") from error
    if not isinstance(state, dict) or not {"step", "random"} <= set(state):
        raise ValueError("it is no checkpoint of a run")
    return state


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Inside, a state of `folder` is put into a run. One that is of another run, or of another
    version, is told as a UserError.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError | torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the checkpoint in {folder} does not fit this run ({type(error).__name__}: {reason}); "
            "base, control.init or the program are not those it was made with: put them back, or "
            "name another out folder."
        ) from error


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def random_state() -> dict[str, Any]:
    """Of Python, NumPy, torch and every CUDA device, in types that `torch.load(weights_only=True)`
    reads.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [
            kind,
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
