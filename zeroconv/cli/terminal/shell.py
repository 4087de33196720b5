"""How every command meets its shell: errors in one line, notes, signals, closed pipes, `~`.

Exit codes: 0 done; 2 the user's mistake, a full disk or too little memory; 3 done with some inputs
set aside; 1 our fault, with its traceback; 130, 143, 129 stopped by Ctrl-C, SIGTERM, SIGHUP; 141
nobody reads the output any more.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from zeroconv.cli.terminal.streams import discard_output, echo_error, one_line
from zeroconv.errors import Interrupted, UserError
from zeroconv.files import is_disk_full

UsageError: Any = typer.BadParameter.__base__  # typer does not export it
PACKAGE = Path(__file__).resolve().parents[2]
BROKEN_PIPE = 128 + 13  # as a shell says of a program that SIGPIPE ended

# what a system says of a path that somebody gave; anything else of its errors is our fault
_PATH_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENXIO,
    errno.EFBIG,
)


class App(typer.Typer):
    """A typer application in which `~` is the home folder in every path, also behind `--out=`."""

    def command(self, name: str | None = None, **options: Any) -> Any:  # type: ignore[override]
        register = super().command(name, **options)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(**values: Any) -> Any:
                return function(**{key: _at_home(key, value) for key, value in values.items()})

            register(call)
            return function

        return decorate


def _at_home(name: str, value: Any) -> Any:
    """Paths, alone or in a list, with `~` expanded; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_at_home(name, one) for one in value]
    if not isinstance(value, Path):
        return value
    # Path("") is Path("."): an unset variable would mean the folder one is in
    if value == Path("") and any(word == "" or word.endswith("=") for word in _words):
        raise UserError(
            f"{name} is an empty path: name a file or a folder; . is the one you are in"
        )
    if value == Path("-") and name != "json" and any(w == "-" or w.endswith("=-") for w in _words):
        raise UserError(f"{name} is -, which stands for no file here: name a path, such as ./-")
    return Path(os.path.expanduser(value))


_words: list[str] = []  # of the command line, as they came


class PlainErrors(typer.core.TyperGroup):
    """Turns a `UserError`, a full disk and the like into one line, and warnings into notes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _words[:] = args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _notes(), _signals():
            try:
                try:
                    return super().invoke(ctx)
                finally:
                    sys.stdout.flush()
            except KeyboardInterrupt as stopped:
                echo_error(f"zeroconv: {one_line(str(stopped) or 'interrupted')}")
                number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
                raise typer.Exit(128 + number) from None
            except (BrokenPipeError, SystemExit) as error:
                if isinstance(error, SystemExit) and error.code != 1:
                    raise
                # rich, which draws tables, turns a closed pipe into SystemExit(1)
                discard_output()
                raise typer.Exit(BROKEN_PIPE) from None
            except Exception as error:
                sentence = _sentence(error)
                if sentence is None:
                    raise
                echo_error(sentence)
                raise typer.Exit(2) from None


def _sentence(error: Exception) -> str | None:
    """The line that the user reads of an error; None where it is our fault."""
    if isinstance(error, UserError):
        return f"zeroconv: {one_line(error)}"
    if isinstance(error, UsageError):
        if type(error).__name__ == "NoArgsIsHelpError":
            return None
        command = error.ctx.command_path if error.ctx else "zeroconv"
        return f"zeroconv: {one_line(error.format_message() + _given(error))} See: {command} --help"
    message = one_line(error).rstrip(".")
    if is_disk_full(error):
        return f"zeroconv: the disk is full ({message}); make room and give the same command again."
    if _is_out_of_memory(error):
        return (
            f"zeroconv: there is not enough memory ({message}); ask for fewer or smaller pictures, "
            "or for --dtype bfloat16."
        )
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        reason = (error.strerror or "cannot be used").lower()
        return f"zeroconv: {one_line(f'{os.fsdecode(error.filename)}: {reason}; check the path')}"
    return None


def _given(error: Any) -> str:
    """The last word that an option was given, for a message that does not repeat it: on the
    command line, else by the picture of `--from`.
    """
    parameter = getattr(error, "param", None)
    options = tuple(getattr(parameter, "opts", ()))
    given = ""
    for word, following in zip(_words, [*_words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in options and name.startswith("-"):
            given = f"; {value if equals else following!r} was given"
    kept = (getattr(error.ctx, "default_map", None) or {}) if error.ctx else {}
    key = getattr(parameter, "name", None)
    if not given and key in kept:
        given = f"; {str(kept[key])[:40]!r} is what the picture of --from holds"
    return given


def _is_out_of_memory(error: Exception) -> bool:
    """Python's error, torch's of a card, and torch's of a processor, which has no class."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)


@contextmanager
def _notes() -> Iterator[None]:
    """Inside, what the package warns its user of is a line on stderr, each once.

    What a library says to its developers stays out of sight.
    """
    printed: set[str] = set()

    def note(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        line = f"note: {one_line(message)}"
        if PACKAGE in Path(filename).resolve().parents and line not in printed:
            printed.add(line)
            echo_error(line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = note  # type: ignore[assignment]
        yield


@contextmanager
def _signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `Interrupted`, as Ctrl-C raises KeyboardInterrupt.

    Not in one of several processes that a launcher started: it must see that this one fell.
    Children that a command forks die of the signal as they always did.
    """
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")
    if several or threading.current_thread() is not threading.main_thread():
        yield
        return

    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            raise Interrupted("", number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # nohup has SIGHUP ignored: it stays so
    free = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)
