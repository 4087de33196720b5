"""A kill in the middle and a second run leave what one run leaves, whatever the number of
processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from zeroconv.data import open_dataset
from zeroconv.data.annotating.run import JOURNAL, Job, annotate_dataset, read_journal
from zeroconv.files.temporary import make_file

SPEC = "playroom:test:24"
CODE = """
import sys, time
from pathlib import Path
from zeroconv.data import open_dataset
from zeroconv.data.annotating import run as annotating
draw = annotating.annotate_one
def slow(job, i):
    time.sleep(0.1)
    return draw(job, i)
annotating.annotate_one = slow
job = annotating.Job(open_dataset({spec!r}, size=64), ("canny", "depth"), Path(sys.argv[1]))
annotating.annotate_dataset(job, workers=1)
"""


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def run(out: Path, workers: int = 1):
    return annotate_dataset(Job(open_dataset(SPEC, size=64), ("canny", "depth"), out), workers)


def test_killed_and_taken_up_again(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run(straight).drawn == 24
    process = subprocess.Popen([sys.executable, "-c", CODE.format(spec=SPEC), str(killed)])
    deadline = time.monotonic() + 300
    while len(list(killed.glob("canny/*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= len(read_journal(killed / JOURNAL)) + 1 < 24
    # what a kill in the middle of a write may leave
    half = make_file(killed / "canny" / "scene-9000011.png")
    half.rename(half.with_name(half.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")))
    with open(killed / JOURNAL, "a") as journal:
        journal.write('{"name": "scene-90000')
    again = run(killed)
    assert 0 < again.kept < 24 and again.drawn + again.kept == 24
    assert tree(killed) == tree(straight)
    assert run(killed).drawn == 0 and tree(killed) == tree(straight)


def test_processes_do_not_change_the_result(tmp_path: Path) -> None:
    run(tmp_path / "one", 1), run(tmp_path / "two", 2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_broken_pictures_do_not_stop_the_others_and_are_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (16, 16), "red").save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"junk")
    lines = [{"file_name": f"{n}.png", "text": [n, n.upper()]} for n in "abc"]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job(open_dataset(folder), ("tile",), tmp_path / "out")
    report = annotate_dataset(job, 1)
    assert list(report.broken) == ["b.png"] and report.kept == 0
    # the broken one is tried again: it may have been mended
    assert annotate_dataset(job, 1).kept == 2
    written = open_dataset(tmp_path / "out")
    assert [e.text for e in written] == [("a", "A"), ("c", "C")]
