"""The exceptions a user is meant to read."""

from __future__ import annotations

import re

# what a data spec may say behind its ?; the value of any other name may be a signature or a token
_PLAIN = (
    "split|limit|views|seed|start|only|condition|style|hints|repeat|config|revision|"
    "image_column|caption_column|conditioning_image_column"
)
# user:password@, also with a / in the password; a port and a path with an @ in it are none
_USER = re.compile(r"(?<=://)(?:[^/?#\s'\"]*|[^/:@\s'\"]*:(?!\d+/)[^@\s'\"]*)@")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]*[?#][^\s'\"<>]*", re.IGNORECASE)
_VALUE = re.compile(rf"(?<=[?&;#])(?!(?:{_PLAIN})=)([^=&;#\s]*=)?[^&;#\s]+")


class UserError(ValueError):
    """The user's mistake, in one sentence: what is wrong, where, and how to mend it.

    The command line prints the sentence and exits with code 2; nothing is lost and no traceback is
    shown. Passwords and signatures of addresses in it are replaced by ***.
    """

    def __init__(self, *sentence: object) -> None:
        super().__init__(
            *(without_secrets(part) if isinstance(part, str) else part for part in sentence)
        )


def without_secrets(text: str) -> str:
    """The text with what only the owner of an address should see replaced: user and password before
    the host, and what follows its question mark (signatures, tokens), but for the options of a data
    spec.
    """
    if "://" not in text:
        return text
    return _ADDRESS.sub(lambda match: _VALUE.sub(_hidden, match[0]), _USER.sub(_anyone, text))


def _anyone(match: re.Match[str]) -> str:
    before = match.string[: match.start()].rpartition("://")[0]
    # abfs://container@account.dfs.core.windows.net names no user
    plain = before.endswith(("abfs", "abfss", "az")) and ":" not in match[0]
    return match[0] if plain else "***@"


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1] or ''}***"


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop, and it did so in good order.

    The command line prints the sentence and exits with `code`: 128 and the number of the signal, as
    shells have it (130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP), so that what was to follow the
    command does not follow.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number

    @property
    def code(self) -> int:
        return 128 + self.number
