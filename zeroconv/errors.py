"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """The user's mistake, in one sentence: what is wrong, where, and how to mend it.

    The command line prints the sentence and exits with code 2; nothing is lost and no traceback is shown.
    """
