"""How commands meet their shell, on small commands of the test's own, as processes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zeroconv.cli.terminal.answers import to_json
from zeroconv.cli.terminal.streams import LONGEST, one_line

PROGRAM = """
import sys, time, warnings
from pathlib import Path
from typing import Annotated
import typer
from zeroconv.cli.terminal import shell, streams
from zeroconv.errors import UserError

app = shell.App(cls=shell.PlainErrors, add_completion=False, pretty_exceptions_enable=False)

@app.command()
def wait():
    try:
        typer.echo("ready")
        time.sleep(60)
    finally:
        typer.echo("cleared", err=True)

@app.command()
def lines(count: int = 100_000):
    for i in range(count):
        typer.echo(str(i))

@app.command()
def table():
    from rich.console import Console
    for i in range(10_000):
        Console().print("x" * 70)

@app.command()
def files(count: int = 20_000):
    for i in range(count):
        streams.echo(str(i))
    Path("done").write_text("done")

@app.command()
def speak(text: str):
    typer.echo(text)

@app.command()
def where(
    path: Annotated[Path, typer.Option()],
    more: Annotated[list[Path] | None, typer.Option()] = None,
):
    typer.echo("|".join(map(str, [path, *(more or [])])))

@app.command()
def fail(kind: str):
    if kind == "note":
        warnings.warn_explicit("twice", UserWarning, str(shell.PACKAGE / "x.py"), 1)
        warnings.warn_explicit("twice", UserWarning, str(shell.PACKAGE / "x.py"), 2)
        warnings.warn_explicit("a library's", UserWarning, "/somewhere/else.py", 1)
    errors = {
        "user": UserError("line one\\n\\x1b[31mline two"),
        "missing": FileNotFoundError(2, "No such file or directory", "/nowhere/x"),
        "full": OSError(28, "No space left on device", "/full/x"),
        "memory": MemoryError("Unable to allocate 3 TiB"),
        "torch": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        "ours": RuntimeError("a mistake"),
    }
    if kind in errors:
        raise errors[kind]

streams.open_streams()
app(prog_name="toy")
"""


@pytest.fixture
def start(tmp_path: Path):
    """Start a command of the program above; `**changes` go to the environment."""
    (tmp_path / "toy.py").write_text(PROGRAM, encoding="utf-8")

    def run(*words: str | bytes, stdout=subprocess.PIPE, **changes: str) -> subprocess.Popen:
        environment = {**os.environ, "HOME": str(tmp_path / "home"), **changes}
        return subprocess.Popen(
            [sys.executable, "toy.py", *words],
            cwd=tmp_path,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )

    return run


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, (out or b"").decode(errors="surrogateescape"), err.decode()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stopped_command_clears_away_and_says_so_by_its_code(start, number, code) -> None:
    process = start("wait")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    ended_with, _, err = ended(process)
    assert ended_with == code
    assert err == "cleared\nzeroconv: interrupted.\n"


def test_a_signal_that_is_ignored_stays_so(start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("wait")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_reader_that_left_ends_a_command_silently(start) -> None:
    process = start("lines")
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""


def test_a_reader_that_left_does_not_end_work_that_makes_files(start, tmp_path) -> None:
    process = start("files")
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    assert (tmp_path / "done").is_file()


@pytest.mark.skipif(os.name != "posix", reason="closing descriptors as a shell does")
def test_closed_streams_harm_nobody(start, tmp_path) -> None:
    line = f'"{sys.executable}" toy.py speak hello >&- 2>&- <&-'
    assert subprocess.run(line, shell=True, cwd=tmp_path).returncode == 0
    line = f'"{sys.executable}" toy.py files --count 3 >&-'
    assert subprocess.run(line, shell=True, cwd=tmp_path).returncode == 0
    assert (tmp_path / "done").read_text() == "done"  # what was printed is not in the file


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_no_locale_makes_a_traceback(start, locale) -> None:
    code, out, err = ended(start("speak", "größer ≤ 日本", **locale))
    assert (code, err) == (0, "")
    assert out.startswith("gr")


def test_names_that_are_no_text_come_out_as_they_are(start) -> None:
    process = start("speak", b"caf\xe9.png")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (0, b"caf\xe9.png\n", b"")


def test_the_home_folder_is_meant_in_every_path(start, tmp_path) -> None:
    home = str(tmp_path / "home")
    code, out, _ = ended(start("where", "--path=~/a", "--more=~", "--more=b~"))
    assert (code, out) == (0, f"{home}/a|{home}|b~\n")
    code, _, err = ended(start("where", "--path", ""))
    assert code == 2
    assert "empty path" in err
    code, out, _ = ended(start("where", "--path", "."))
    assert (code, out) == (0, ".\n")


@pytest.mark.parametrize(
    ("kind", "code", "sentence"),
    [
        ("user", 2, r"zeroconv: line one \x1b[31mline two."),
        ("missing", 2, "zeroconv: /nowhere/x: no such file or directory; check the path."),
        ("full", 2, "zeroconv: the disk is full"),
        ("memory", 2, "zeroconv: there is not enough memory"),
        ("torch", 2, "zeroconv: there is not enough memory"),
        ("note", 0, "note: twice."),
    ],
)
def test_what_goes_wrong_is_one_line(start, kind, code, sentence) -> None:
    ended_with, out, err = ended(start("fail", kind))
    assert (ended_with, out) == (code, "")
    assert err.startswith(sentence)
    assert len(err.splitlines()) == 1


def test_internal_error_keeps_its_traceback(start) -> None:
    code, _, err = ended(start("fail", "ours"))
    assert code == 1
    assert "Traceback" in err


def test_a_sentence_is_printable_and_has_an_end() -> None:
    assert one_line("a\n b\t\x07\udcff.") == "a b \\x07\\udcff."
    assert one_line("did you mean 'x'?") == "did you mean 'x'?"
    assert len(one_line("x" * 1_000_000)) < LONGEST + 10


def test_json_never_holds_what_is_no_number() -> None:
    report = {"a": math.nan, "b": [1.0, (math.inf, "x")], 3: {"c": -math.inf}, "p": Path("x")}

    def refuse(text: str) -> None:
        raise AssertionError(text)

    read = json.loads(to_json(report), parse_constant=refuse)
    assert read == {"a": None, "b": [1.0, [None, "x"]], "3": {"c": None}, "p": "x"}


@pytest.mark.parametrize("color", [{"NO_COLOR": "1", "FORCE_COLOR": "1"}, {}])
def test_help_has_no_colours_where_none_are_wanted(start, color) -> None:
    code, out, err = ended(start("--help", **color))
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", out + err)
    assert "wait" in out


def test_a_table_that_nobody_reads_ends_silently(start) -> None:
    process = start("table")
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""


def test_ctrl_c_at_the_terminal_gives_one_line_though_processes_work(tmp_path) -> None:
    """The terminal sends it to every process of the group."""
    words = ["playroom", "render", "out", "--count", "20000", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zeroconv.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # pytest in the background of a shell ignores it, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if (tmp_path / "out" / "images").is_dir():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out, err) == (130, "", "zeroconv: interrupted.\n")


def test_a_dash_is_no_path(start) -> None:
    for words in (
        ("where", "--path", "-"),
        ("where", "--path=-"),
        ("where", "--path=x", "--more=-"),
    ):
        code, out, err = ended(start(*words))
        assert (code, out) == (2, "")
        assert "stands for no file here" in err and len(err.splitlines()) == 1
    code, out, _ = ended(start("where", "--path", "./-"))
    assert (code, out) == (0, "-\n")


def test_libraries_are_quiet_where_the_user_did_not_ask(tmp_path: Path) -> None:
    program = (
        "from zeroconv.cli.terminal import streams\n"
        "streams.quiet_libraries()\n"
        "from transformers.utils import logging\n"
        "logging.get_logger('transformers.x').warning('for developers')\n"
    )
    for asked, shown in (({}, False), ({"TRANSFORMERS_VERBOSITY": "warning"}, True)):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_VERBOSITY")}
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, env={**environment, **asked}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("for developers" in done.stderr) is shown
