"""What is said on stdout and stderr: printable lines, in any locale, to readers that may have
left.
"""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

import typer

LONGEST = 1000  # characters of a message: a prompt of a megabyte is quoted in parts


def echo_error(line: str) -> None:
    """One line on stderr, where somebody reads it."""
    with suppress(OSError):
        typer.echo(line, err=True)


def echo(line: str) -> None:
    """One line on stdout; where nobody reads on (`| head`), the work goes on in silence."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        discard_output()


def one_line(message: object) -> str:
    """A message as one printable sentence: no line breaks, no control characters, not endless."""
    words = " ".join(str(message).split())
    if len(words) > LONGEST:
        words = f"{words[: LONGEST // 2]} … {words[-LONGEST // 2 :]}"
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words).rstrip(".")
    return printable if printable.endswith(("?", "!")) else f"{printable}."


def discard_output() -> None:
    """Whatever is still to be written goes nowhere, also what Python flushes when it ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def quiet_libraries() -> None:
    """What transformers and diffusers say to their developers stays out of sight, where the user
    has not asked for it. Before either is imported.
    """
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")


def open_streams() -> None:
    """Make stdin, stdout and stderr such that anything can be written there.

    A closed one is opened on the null device: else the next file that is opened would take its
    number, and what is printed would go into that file. File names that are no text come out as
    the bytes they are; a character that the terminal's encoding lacks comes out escaped.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    null = os.devnull
    sys.stdout = sys.stdout or open(null, "w", encoding="utf-8")  # noqa: SIM115, for good
    sys.stderr = sys.stderr or open(null, "w", encoding="utf-8")  # noqa: SIM115

    codecs.register_error("zeroconv", _encode)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="zeroconv")


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    with suppress(UnicodeEncodeError):
        return part.encode("ascii", "surrogateescape"), error.end
    return part.encode("ascii", "backslashreplace"), error.end
