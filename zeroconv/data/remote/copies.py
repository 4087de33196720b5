"""Shards at an address, in whatever store fsspec speaks to (https, s3, gs, hf …): copied when they
are read, few kept.

A copy is a file like any other, so no other module reads over a network. Copies and tables of
contents lie in `~/.cache/zeroconv` or $ZEROCONV_CACHE; of copies at most $ZEROCONV_COPIES_GB stay
(20), the last used, and those that were read within the last minute.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from zeroconv.data.fitting import StorageError
from zeroconv.data.remote import stores
from zeroconv.data.remote.addresses import MOST_SHARDS, check_address, expand, is_address
from zeroconv.data.remote.stores import ask, failure, gigabytes, in_one_sentence, open_store
from zeroconv.data.storage.shards import Store, content_key, default_root
from zeroconv.errors import UserError, without_secrets
from zeroconv.files import atomic_write

__all__ = [
    "Remote",
    "RemoteFolder",
    "contents",
    "expand",
    "find",
    "in_parallel",
    "is_address",
    "local",
    "opened",
]

KINDS = (".parquet", ".tar")
FORMAT = 1  # of tables of contents
IN_USE = 60.0  # seconds after its last reading in which a copy is not removed
ABANDONED = 3600.0  # seconds without a change after which a half copy is nobody's
LOOKS = 300.0, 0.25  # seconds for looking at all shards of an address, and more for each of them
MOST_END = 256 << 20  # bytes of a parquet file that may be read for its table of contents
# what stores say of a file: hashes of its content, else what changes with it at the same address
_HASHES = ("md5Hash", "Content-MD5", "Digest", "blob_id", "sha256")
_CHANGES = (
    *(
        "ETag",
        "etag",
        "generation",
        "VersionId",
        "LastModified",
        "Last-Modified",
        "last_modified",
        "mtime",
    ),
    *("updated", "created"),
)
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Remote:
    """A file at an address; it stands where the path of a shard would."""

    address: str = field(repr=False)  # may hold a password
    mark: str  # names its content by what the store says of it
    size: int | None = None  # bytes

    def __str__(self) -> str:
        return without_secrets(self.address)

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.address).path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> PurePosixPath:
        """Where the store has it, to read a split off the name."""
        return PurePosixPath(urlsplit(self.address).path).parent


@dataclass(frozen=True)
class RemoteFolder:
    """A place with shards; `glob` is that of a Path."""

    address: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.address)

    def glob(self, pattern: str) -> list[Remote]:
        """Raises StorageError where the store cannot be asked, or lists too many."""
        store, path = open_store(self.address)
        folder, here = path.rstrip("/"), self.address.rstrip("/")

        with in_one_sentence(self.address):
            listing = ask(store, "glob", f"{folder}/{pattern}", seconds=stores.LISTING, detail=True)

        files = [name for name, info in listing.items() if info.get("type") != "directory"]
        inside = [
            f"{here}{name.removeprefix(folder)}" for name in files if name.startswith(f"{folder}/")
        ]
        return _remotes(inside, self.address)


def find(address: str) -> RemoteFolder | list[Remote]:
    """The shards that an address lists, "https://host/train-{00000..00009}.tar"; without their
    ending, a folder.

    Raises StorageError where one is not there.
    """
    check_address(address)
    open_store(address)[0].invalidate_cache()  # what it listed before, in this process
    addresses = expand(address)
    endings = {PurePosixPath(urlsplit(one).path).suffix for one in addresses}

    if not endings & set(KINDS):
        return RemoteFolder(address)
    return _remotes(addresses, address)


def _remotes(addresses: Sequence[str], of: str) -> list[Remote]:
    """A look at each, in a bounded time. Raises StorageError."""
    if len(addresses) > MOST_SHARDS:
        raise StorageError(
            f"{of} lists {len(addresses):,} shards, and at most {MOST_SHARDS:,} are read; name "
            "some."
        )

    seconds = LOOKS[0] + LOOKS[1] * len(addresses)
    end = time.monotonic() + seconds

    def look(address: str) -> Remote:
        if time.monotonic() > end:
            raise StorageError(
                f"{of} is given up: looking at its shards took more than {seconds:,.0f} seconds."
            )
        return _remote(address)

    return in_parallel(look, addresses)


def _remote(address: str) -> Remote:
    store, path = open_store(address)

    with in_one_sentence(address):
        if "file" in store.protocol and not os.path.isfile(path):
            raise FileNotFoundError(path)  # a pipe or a device among them

        info = ask(store, "info", path)
        size = info.get("size")

        if size is not None and (not isinstance(size, int) or size < 0):
            raise ConnectionError(f"its size is given as {size!r}")

    hashes, changes = (
        {name: str(info[name]) for name in names if info.get(name)} for names in (_HASHES, _CHANGES)
    )
    # two files may share a time and a length; a new password is no new content
    version = hashes or [without_secrets(store.unstrip_protocol(path)), changes]
    return Remote(address, content_key(size, version), size)


def in_parallel(look: Callable[[T], U], of: Sequence[T]) -> list[U]:
    """A look at every one, several at a time: each waits for an answer most of its time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(look, of))


def local(shard: Path | Remote) -> Path:
    """The shard as a file: itself, or its copy, made where there is none. Raises StorageError."""
    if isinstance(shard, Path):
        return shard
    from filelock import FileLock

    folder = default_root() / "copies"
    path = folder / f"{shard.mark}{shard.suffix}"

    if _touched(path, shard.size):
        return path

    _make_folder(folder)
    # of several processes that read it one makes the copy
    with in_one_sentence(shard.address), FileLock(path.with_suffix(".lock")):
        if not _touched(path, shard.size):
            _fetch(shard, path)
    return path


def _fetch(shard: Remote, path: Path) -> None:
    from filelock import FileLock

    if (shard.size or 0) > (most := stores.most_bytes()):  # before others make room for it
        raise stores.TooLarge(f"it has {shard.size:,} bytes, and a shard may have {most:,}")

    coming = path.with_suffix(".coming")  # its size, so that others leave room for it
    with FileLock(path.parent / "room.lock"):
        _make_room(path.parent, shard.size or 0)
        coming.write_text(str(shard.size or 0))
    try:
        store, source = open_store(shard.address)
        with atomic_write(path, sync=False, follow=False) as temporary:
            stores.copy(store, source, temporary, shard.size)
    finally:
        coming.unlink(missing_ok=True)


def _touched(path: Path, size: int | None) -> bool:
    """Whether the copy is there, whole; it is marked as used, where the cache may be written."""
    if not path.is_file():
        return False

    if size not in (None, there := path.stat().st_size):
        warnings.warn(
            f"the copy {path} has {there:,} of {size:,} bytes; it is made again.", stacklevel=2
        )
        return False
    with suppress(PermissionError):
        os.utime(path)
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the cache {folder} cannot be written ({error.strerror or error}); name another place "
            "with the variable ZEROCONV_CACHE."
        ) from error


def _make_room(folder: Path, size: int) -> None:
    """Remove the copies that were not used for longest, until `size` bytes more are within the
    bound.
    """
    bound, now, copies, total = gigabytes("ZEROCONV_COPIES_GB", 20) * 1e9, time.time(), [], size
    for path in folder.iterdir():
        with suppress(OSError, ValueError):
            status = path.stat()
            if now - status.st_mtime > ABANDONED and (
                path.name.startswith(".") or path.suffix == ".coming"
            ):
                path.unlink()  # of a process that was killed
            elif path.suffix == ".coming":
                total += int(path.read_text())
            elif path.suffix in KINDS and not path.name.startswith("."):
                copies.append((status.st_mtime, status.st_size, path))
                total += status.st_size
    for last_used, freed, path in sorted(copies):
        if total <= bound or now - last_used < IN_USE:
            break
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
        total -= freed

    if size > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(shard: Remote, read: Callable[[], T], what: str = "rows") -> T:
    """What `read` tells of a shard, in JSON, remembered: a tar's table of contents stands all over
    the file.
    """
    store, key = (
        Store(default_root(), "contents"),
        content_key(FORMAT, shard.mark, shard.suffix, what),
    )
    with suppress(KeyError, UserError):
        return store.read(key).note
    arrays = read()
    with suppress(UserError):  # no room: then it is read again next time
        store.write(key, {}, arrays)
    return arrays


@contextmanager
def opened(shard: Path | Remote) -> Iterator[Any]:
    """Something that a parquet file's end can be read from: a path, or an open file at its address
    that fetches the parts that are asked for; the copy where the store hands out whole files alone.
    """
    if isinstance(shard, Path):
        yield shard
        return
    store, path = open_store(shard.address)
    with in_one_sentence(shard.address):
        file = store.open(path, "rb", block_size=1 << 16)

    with file:
        try:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8))
            last = file.read(8)
            end: Any = file
        except (ValueError, OSError):
            last, end = b"", local(shard)

        length = int.from_bytes(last[:4], "little")  # of the table, which stands before it
        if last[4:] == b"PAR1" and length > MOST_END:
            raise StorageError(
                f"{shard} is no parquet file that is read: its table has {length:,} bytes."
            )
        try:
            yield end
        except (TimeoutError, PermissionError, FileNotFoundError, ConnectionError) as error:
            raise failure(shard.address, error) from error
        except (ValueError, OSError):
            raise  # what is read is no parquet
        except Exception as error:
            raise failure(shard.address, error) from error
