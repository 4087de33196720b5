"""One process of fuzzing: prepare a target, run its cases one after the other, print a JSON line
for each.

A case fails where its call ends otherwise than by a result or a `UserError`, takes over 20 seconds
or 2 GB, leaves another file than those below its output folder changed, or alters its own input.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from tools.fuzz.harness import LIMIT_SECONDS

LIMIT_BYTES = 2 << 30


def main() -> None:
    name, seed, start, stop, step, folder, out = sys.argv[1:]
    from tools.fuzz.targets import TARGETS

    target = TARGETS[name]()
    room = Path(folder)
    for part in ("home", "cache", "work"):
        (room / part).mkdir()
    os.environ |= {"HOME": str(room / "home"), "ZEROCONV_CACHE": str(room / "cache")}
    results = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.prepare(room)
    results.write("ready\n")
    results.flush()
    _bound_memory()
    for number in range(int(start), int(stop), int(step)):
        result = run_case(target, f"{name}/{seed}/{number}", room / "work")
        result["case"] = number
        if "fault" in result:
            _keep(room / "work", Path(out) / name / str(number), result)
        results.write(json.dumps(result) + "\n")
        results.flush()


def run_case(target: Any, seed: str, work: Path) -> dict[str, Any]:
    """Make a case in an empty folder full of bystanders, run it, and look at what it left."""
    shutil.rmtree(work, ignore_errors=True)
    for part in ("in", "out", "out/nested"):
        (work / part).mkdir(parents=True)
    _bystanders(work)
    call = target.case(random.Random(seed), work)
    before = _snapshot(work)
    os.chdir(work / "out")  # so that a relative path is one that may be written

    used, began, fault, accepted = _peak(), time.monotonic(), None, True
    detail = getattr(call, "detail", "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except BaseException as error:
        accepted = isinstance(error, SystemExit) and not error.code
        fault = _fault(error)
        if fault:
            detail = f"{detail} {_last_lines(error)}"
    seconds, memory = time.monotonic() - began, max(0, _peak() - used)

    fault = fault or _changes(before, _snapshot(work), getattr(target, "owns", ()))
    if fault is None and seconds > LIMIT_SECONDS:
        fault = f"over {LIMIT_SECONDS:.0f} seconds"
    result = {"seconds": round(seconds, 3), "memory_mb": memory >> 20, "accepted": accepted}
    return result if fault is None else {**result, "fault": fault, "detail": detail}


def _fault(error: BaseException) -> str | None:
    """None for the user's mistakes, and for how a command ends that has said what was wrong."""
    from zeroconv.errors import UserError

    if isinstance(error, UserError):
        return _sentence_fault(str(error))
    if isinstance(error, SystemExit) and error.code in (0, 2, 3, None):
        return None
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/zeroconv/" in f.filename]
    position = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} at {position}"


def _last_lines(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    places = [line.strip() for line in lines if "/zeroconv/" in line or "/tools/" in line]
    return "\n    ".join(["", *places[-6:], lines[-1][:300]])


def _sentence_fault(sentence: str) -> str | None:
    if not sentence.strip() or len(sentence) > 2_000:
        return f"a sentence of {len(sentence)} letters"
    return "a traceback in a sentence" if "Traceback (most recent" in sentence else None


def _bystanders(work: Path) -> None:
    """Files that nobody asked to be touched, hidden ones and links among them."""
    for name in (
        ".hidden.json",
        ".cover.png",
        "notes.txt",
        "out/.eslintrc.json",
        "out/keep.txt",
        "out/nested/.x.png",
    ):
        (work / name).write_text(f"{name} is the user's\n")
    (work / "link.png").symlink_to("notes.txt")


def _snapshot(work: Path) -> dict[str, Any]:
    """Every file of the room but what lies new below out/: kind, size, time."""
    entries: dict[str, Any] = {}
    for folder in (work, work.parent / "home"):
        for path in sorted(folder.rglob("*")):
            state = path.lstat()
            entries[str(path)] = (
                state.st_mode,
                state.st_size,
                state.st_mtime_ns if not path.is_dir() else 0,
            )
    return entries


def _changes(before: dict[str, Any], after: dict[str, Any], owns: tuple[str, ...]) -> str | None:
    """What happened to files that were there; what lies below a folder that the target `owns` may
    change.
    """
    for path, state in before.items():
        if any(f"/work/{name}/" in path for name in owns):
            continue
        if path not in after:
            return f"deleted {_short(path)}"
        if after[path] != state:
            return f"changed {_short(path)}"
    for path in after:
        if path not in before and "/work/out/" not in path:
            return f"wrote {_short(path)}"
    return None


def _short(path: str) -> str:
    return path.partition("/work/")[2] or path.rpartition("/")[2]


def _keep(work: Path, target: Path, result: dict[str, Any]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(work, target, symlinks=True, ignore=lambda *_: set(), copy_function=_copy)
    (target / "fault.json").write_text(json.dumps(result, indent=1))


def _copy(source: str, target: str) -> None:
    if os.path.isfile(source):
        shutil.copy2(source, target, follow_symlinks=False)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _bound_memory() -> None:
    """What the process has, and 2 GB more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
