"""Temporary names: only ours are swept, only once their writer is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from zeroconv.files import atomic_write, is_stale, is_temporary, sweep
from zeroconv.files import temporary as module

BYSTANDERS = [
    ".eslintrc.json",
    ".cover.png",
    ".a.png.x8f3k2lq.png",
    ".zeroconv-tmp-notes.json",
    ".zeroconv-tmp-0123abcd-12-x",
    "zeroconv-tmp-0123abcd-12-a.png-abcdefgh.png",
    ".zeroconv.json",
    ".annotate.jsonl",
    "a.tmp",
]


def left_by_a_killed_process(target: Path) -> str:
    """The name of the temporary file that a process leaves which is killed while it writes."""
    code = "import os, sys\nfrom zeroconv.files import atomic_write\n"
    code += "with atomic_write(sys.argv[1]) as t:\n print(t, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True)
    assert done.returncode == -9
    return os.path.basename(done.stdout.strip())


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in BYSTANDERS:
        (tmp_path / name).write_text("mine")
        (tmp_path / "sub" / name).write_text("mine")
    left = left_by_a_killed_process(tmp_path / "sub" / "a.png")
    assert (tmp_path / "sub" / left).exists() and is_stale(tmp_path / "sub" / left)
    (tmp_path / left).symlink_to("a.tmp")
    (tmp_path / left.replace("a.png", "b.png")).mkdir()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert sweep(tmp_path) == 0
    assert sweep(tmp_path, recursive=True) == 1
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert after == [path for path in before if path != Path("sub", left)]


def test_what_is_being_written_is_not_swept(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.png") as temporary:
        assert is_temporary(temporary) and not is_stale(temporary)
        assert sweep(tmp_path) == 0
        temporary.write_text("x")
    assert (tmp_path / "a.png").read_text() == "x"


def test_what_another_machine_left_is_stale_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / ".zeroconv-tmp-00000000-1-a.png-abcd1234.png"
    path.touch()
    assert not is_stale(path)
    os.utime(path, (1, 1))
    assert is_stale(path)


@given(st.text(max_size=60))
def test_no_other_name_is_taken_for_ours(name: str) -> None:
    known = module._NAME.fullmatch(name) is not None
    assert is_temporary(name) == (known and "/" not in name) or "/" in name
    assert not is_temporary(name) or name.startswith(module.MARK)


@given(st.text(min_size=1, max_size=80).filter(lambda t: "/" not in t and "\0" not in t))
def test_every_name_that_we_give_is_known(name: str) -> None:
    target = Path("folder") / name
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= 20 else ""
    assert is_temporary(module._prefix(target) + "a_3xyz00" + suffix)


def test_names_of_other_encodings_are_written_in_a_process_of_ascii(tmp_path: Path) -> None:
    name = "ü€😀" * 20 + ".png"
    program = (
        "import sys; from zeroconv.files import atomic_write, atomic_folder\n"
        "with atomic_write(sys.argv[1]) as f: f.write_text('x')\n"
        "with atomic_folder(sys.argv[1] + '-folder') as f: (f / 'a').write_text('x')\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-c", program, str(tmp_path / name)]
    done = subprocess.run(words, env={**os.environ, **ascii_only}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [name + "-folder", name][::-1]
