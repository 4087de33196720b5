"""Speed of `zeroconv annotate`, nine conditions, and a kill -9 in the middle.

python -m benchmarks.speed.annotate [--count 2000]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import write_result
from zeroconv.conditions import PAPER
from zeroconv.data.annotating.run import JOURNAL, read_journal


def command(spec: str, out: Path, workers: int) -> list[str]:
    program = [sys.executable, "-c", "from zeroconv.cli import main; main()"]
    return [
        *program,
        "annotate",
        ",".join(PAPER),
        spec,
        "--out",
        str(out),
        "--workers",
        str(workers),
    ]


def tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def timed(spec: str, out: Path, workers: int) -> float:
    began = time.monotonic()
    subprocess.run(command(spec, out, workers), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    spec, folder = f"playroom:test:{arguments.count}", Path(tempfile.mkdtemp())
    one = timed(f"playroom:test:{max(20, arguments.count // 4)}", folder / "one", 1)
    two = timed(spec, folder / "two", 2)
    process = subprocess.Popen(
        command(spec, folder / "killed", 2), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while len(read_journal(folder / "killed" / JOURNAL)) < arguments.count // 2:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(read_journal(folder / "killed" / JOURNAL))
    rest = timed(spec, folder / "killed", 2)
    same = tree(folder / "two") == tree(folder / "killed")
    shutil.rmtree(folder)
    rate_one, rate_two = max(20, arguments.count // 4) / one, arguments.count / two
    rows = [
        ["pictures a second, one process", rate_one],
        ["pictures a second, two processes", rate_two],
        ["two over one", rate_two / rate_one],
        ["hints a second, two processes", rate_two * len(PAPER)],
        ["killed after pictures", done],
        ["seconds of the second run", rest],
        ["same files as an uninterrupted run", "yes" if same else "NO"],
    ]
    note = (
        f"{arguments.count} scenes at 128 px, rendered on the way; nine hints and a picture each, "
        "written as PNG."
    )
    shown = f"python -m benchmarks.speed.annotate --count {arguments.count}"
    write_result("annotate", ["", "measured"], rows, shown, note)


if __name__ == "__main__":
    main()
