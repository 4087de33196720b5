"""The command line; see app.py for the commands."""

from __future__ import annotations

from zeroconv.cli.app import app, main

__all__ = ["app", "main"]
