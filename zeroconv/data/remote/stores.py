"""Stores as fsspec speaks to them: questions and copies that end, whatever answers, and errors of
one kind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zeroconv.data.fitting import StorageError
from zeroconv.data.remote.addresses import check_address
from zeroconv.data.storage.shards import default_root
from zeroconv.errors import UserError
from zeroconv.files import is_disk_full

SECONDS = 30.0  # a question to a store may take
LISTING = 120.0  # and listing a folder, which is many questions
WINDOW = 30.0  # seconds of a copy, in each of which some of it must come
LEAST_RATE = 1_000  # bytes a second, on average of a window: a modem's
SHARD_GB = 100.0  # of one shard at most; ZEROCONV_SHARD_GB


def open_store(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path there. Raises StorageError where it lacks
    what it needs.

    No chains (`::`) are followed: the protocol is that of the address, checked, and nothing in the
    path is looked at.
    """
    protocol = check_address(address)
    try:
        if protocol in ("http", "https"):
            from zeroconv.data.remote.web import Web

            return Web(), address

        import fsspec

        kind = fsspec.get_filesystem_class(protocol)
        return kind(**kind._get_kwargs_from_urls(address)), kind._strip_protocol(address)
    except (ImportError, ValueError) as error:  # which package to install
        raise StorageError(
            f"{address} cannot be read ({error}); https needs pip install 'zeroconv[remote]', s3 "
            "needs s3fs, gs gcsfs."
        ) from error


def ask(store: Any, method: str, *args: Any, seconds: float | None = None, **options: Any) -> Any:
    """The answer of a store's method ("info", "glob"), or a TimeoutError after `seconds`
    (`SECONDS`).
    """
    if not store.async_impl:
        return getattr(store, method)(*args, **options)

    from fsspec.asyn import sync

    limit = SECONDS if seconds is None else seconds
    try:
        return sync(store.loop, getattr(store, f"_{method}"), *args, timeout=limit, **options)
    except TimeoutError as error:
        raise TimeoutError(f"no answer came within {limit:g} seconds") from error


def copy(store: Any, path: str, target: Path, size: int | None) -> None:
    """Copy a file of `size` bytes (None: unknown). Raises ConnectionError where fewer or more come,
    or too slowly, and `TooLarge` over the bound of a shard.
    """
    meter = _meter(size)

    if not store.async_impl:
        store.get_file(path, str(target), callback=meter)
    else:
        from fsspec.asyn import sync

        sync(store.loop, _watched, store, path, str(target), meter)

    came = target.stat().st_size
    if size not in (None, came):
        raise ConnectionError(f"{came:,} of {size:,} bytes came")


class TooLarge(ValueError):
    """A shard over the bound of `most_bytes`."""


def most_bytes() -> int:
    """Of one shard. Raises StorageError where ZEROCONV_SHARD_GB is no number."""
    return int(gigabytes("ZEROCONV_SHARD_GB", SHARD_GB) * 1e9)


def gigabytes(variable: str, usual: float) -> float:
    """What a variable of the environment says, or what is usual. Raises StorageError."""
    given = os.environ.get(variable) or str(usual)
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        raise StorageError(
            f"{variable} is {given[:40]!r}; give how many gigabytes, a number from 0 to 10⁹."
        )
    return value


async def _watched(store: Any, path: str, target: str, meter: Any) -> None:
    options: dict[str, Any] = {}
    if "http" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,)):
        from aiohttp import ClientTimeout

        # the session's own time is for short answers, not for a whole file
        options["timeout"] = ClientTimeout(total=None, sock_connect=SECONDS, sock_read=WINDOW)

    task = asyncio.ensure_future(store._get_file(path, target, callback=meter, **options))
    try:
        before = 0
        while True:
            await asyncio.wait({task}, timeout=WINDOW)

            if task.done():
                return task.result()
            if meter.value - before < LEAST_RATE * WINDOW:
                raise ConnectionError(f"{meter.value - before:,} bytes came in {WINDOW:g} seconds")
            before = meter.value
    finally:
        task.cancel()


def _meter(size: int | None) -> Any:
    """Counts what comes, and ends a copy that goes on beyond its announced size, or the bound."""
    import fsspec

    most = most_bytes()
    if size is not None and size > most:
        raise TooLarge(f"it has {size:,} bytes, and a shard may have {most:,}")

    class Meter(fsspec.callbacks.Callback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)

            if size is not None and self.value > size:
                raise ConnectionError(f"more than the {size:,} bytes came that were announced")
            if self.value > most:
                raise TooLarge(f"more than {most:,} bytes came, which a shard may have at most")

    return Meter()


@contextmanager
def in_one_sentence(address: str) -> Iterator[None]:
    """Errors of stores, each of which has classes of its own, as StorageError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise failure(address, error) from error


def failure(address: str, error: BaseException) -> StorageError:
    """What to say of a store's error, and whether it may pass."""
    reason = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and reason is not None
        and getattr(reason, "status", 0) not in (404, 410)
    ):
        error = reason  # fsspec calls whatever happened to an https request so

    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return StorageError(f"there is no {address}; check the address in the recipe's data.train.")

    # a server chooses these words; what a terminal would obey stays out of them
    cause = (
        "".join(c if c.isprintable() else " " for c in str(error))[:300].strip()
        or type(error).__name__
    )

    if isinstance(error, PermissionError) or status in (401, 403):
        return StorageError(f"{address} may not be read ({cause}); log in to its store first.")
    if is_disk_full(error):
        return StorageError(
            f"there is no room for a copy of {address} in {default_root()}; make some."
        )
    if isinstance(error, TooLarge):
        return StorageError(f"{address} is not copied: {cause}; ZEROCONV_SHARD_GB sets the bound.")
    if type(error).__module__ == "zeroconv.data.remote.web":
        return StorageError(f"{address} is not read: {cause}.")

    problem = StorageError(
        f"{address} cannot be fetched ({cause}); give the same command once its store answers."
    )
    problem.passing = True
    return problem
