"""Shards at an address, in whatever store fsspec speaks to (https, s3, gs, hf …): copied when they are read, few kept.

A copy is a file like any other, so no other module reads over a network. Copies and tables of contents lie in
`~/.cache/zeroconv` or $ZEROCONV_CACHE; of copies at most $ZEROCONV_COPIES_GB stay (20), the last used, and those that
were read within the last minute.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from zeroconv.data.fitting import StorageError
from zeroconv.data.shards import Store, content_key, default_root
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, is_disk_full

KINDS = (".parquet", ".tar")
FORMAT = 1  # of tables of contents
IN_USE = 60.0  # seconds after its last reading in which a copy is not removed
ABANDONED = 3600.0  # seconds without a change after which a half copy is nobody's
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# what stores say of a file: hashes of its content, else what changes with it at the same address
_HASHES = ("md5Hash", "Content-MD5", "Digest", "blob_id", "sha256")
_CHANGES = (
    *("ETag", "etag", "generation", "VersionId", "LastModified", "Last-Modified", "last_modified", "mtime"),
    *("updated", "created"),
)
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Remote:
    """A file at an address; it stands where the path of a shard would."""

    address: str
    mark: str  # names its content by what the store says of it
    size: int | None = None  # bytes

    def __str__(self) -> str:
        return self.address

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

    address: str

    def __str__(self) -> str:
        return self.address

    def glob(self, pattern: str) -> list[Remote]:
        """Raises StorageError where the store cannot be asked."""
        store, path = _store(self.address)
        with _in_one_sentence(self.address):
            found = store.glob(f"{path.rstrip('/')}/{pattern}", detail=True)
        files = [path for path, info in found.items() if info.get("type") != "directory"]
        return in_parallel(_remote, [store.unstrip_protocol(path) for path in files])


def is_address(place: str) -> bool:
    return "://" in place


def find(address: str) -> RemoteFolder | list[Remote]:
    """The shards that an address lists, "https://host/train-{00000..00009}.tar"; without their ending, a folder.

    Raises StorageError where one is not there.
    """
    _store(address)[0].invalidate_cache()  # what it listed before, in this process
    addresses = expand(address)
    endings = {PurePosixPath(urlsplit(one).path).suffix for one in addresses}
    if not endings & set(KINDS):
        return RemoteFolder(address)
    return in_parallel(_remote, addresses)


def expand(address: str) -> list[str]:
    """ "shard-{08..11}.tar" → shard-08.tar … shard-11.tar, as webdataset writes them."""
    match = _RANGE.search(address)
    if match is None:
        return [address]
    first, last = match.groups()
    numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [one for n in numbers for one in expand(address[: match.start()] + n + address[match.end() :])]


def _remote(address: str) -> Remote:
    store, path = _store(address)
    with _in_one_sentence(address):
        info = store.info(path)
    hashes, changes = ({name: str(info[name]) for name in names if info.get(name)} for names in (_HASHES, _CHANGES))
    told = hashes or [store.unstrip_protocol(path), changes]  # two files may share a time and a length
    return Remote(address, content_key(info.get("size"), told), info.get("size"))


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
    if _touched(path):
        return path
    with _in_one_sentence(shard.address):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # of several processes that read it one makes the copy
            if not _touched(path):
                coming = path.with_suffix(".coming")  # its size, so that others leave room for it
                with FileLock(folder / "room.lock"):
                    _make_room(folder, shard.size or 0)
                    coming.write_text(str(shard.size or 0))
                try:
                    _copy(shard, path)
                finally:
                    coming.unlink(missing_ok=True)
    return path


def _touched(path: Path) -> bool:
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _copy(shard: Remote, path: Path) -> None:
    store, place = _store(shard.address)
    with atomic_write(path, sync=False) as temporary:
        store.get_file(place, str(temporary))
        size = temporary.stat().st_size
        if shard.size not in (None, size):
            raise ConnectionError(f"{size:,} of {shard.size:,} bytes came")


def _make_room(folder: Path, size: int) -> None:
    """Remove the copies that were not used for longest, until `size` bytes more are within the bound."""
    bound, now, copies, total = _bound(), time.time(), [], size
    for path in folder.iterdir():
        with suppress(OSError, ValueError):
            told = path.stat()
            if now - told.st_mtime > ABANDONED and (path.name.startswith(".") or path.suffix == ".coming"):
                path.unlink()  # of a process that was killed
            elif path.suffix == ".coming":
                total += int(path.read_text())
            elif path.suffix in KINDS and not path.name.startswith("."):
                copies.append((told.st_mtime, told.st_size, path))
                total += told.st_size
    for last_used, freed, path in sorted(copies):
        if total <= bound or now - last_used < IN_USE:
            break
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
        total -= freed


def _bound() -> float:
    """Bytes."""
    given = os.environ.get("ZEROCONV_COPIES_GB") or "20"
    try:
        return float(given) * 1e9
    except ValueError as error:
        raise StorageError(f"ZEROCONV_COPIES_GB is {given!r}; give how many gigabytes of copies may stay.") from error


def contents(shard: Remote, read: Callable[[], T], what: str = "rows") -> T:
    """What `read` tells of a shard, in JSON, remembered: a tar's table of contents stands all over the file."""
    store, key = Store(default_root(), "contents"), content_key(FORMAT, shard.mark, shard.suffix, what)
    with suppress(KeyError):
        return store.read(key).note
    found = read()
    with suppress(UserError):  # no room: then it is read again next time
        store.write(key, {}, found)
    return found


@contextmanager
def opened(shard: Path | Remote) -> Iterator[Any]:
    """Something that a parquet file's end can be read from: a path, or an open file at its address that fetches the
    parts that are asked for; the copy where the store hands out whole files alone."""
    if isinstance(shard, Path):
        yield shard
        return
    store, path = _store(shard.address)
    with _in_one_sentence(shard.address):
        file = store.open(path, "rb", block_size=1 << 16)
    with file:
        try:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8))
            file.read(8)
            end: Any = file
        except (ValueError, OSError):
            end = local(shard)
        try:
            yield end
        except (TimeoutError, PermissionError, FileNotFoundError, ConnectionError) as error:
            raise _failure(shard.address, error) from error
        except (ValueError, OSError):
            raise  # what is read is no parquet
        except Exception as error:
            raise _failure(shard.address, error) from error


def _store(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path there. Raises StorageError where it lacks what it needs."""
    import fsspec

    options: dict[str, Any] = {}
    try:
        if urlsplit(address).scheme in ("http", "https"):
            from aiohttp import ClientTimeout

            # its own five minutes are for a whole file, however large
            options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}
        return fsspec.core.url_to_fs(address, **options)
    except (ImportError, ValueError) as error:  # which package to install, or an unknown protocol
        raise StorageError(
            f"{address} cannot be read ({error}); https needs pip install 'zeroconv[remote]', s3 needs s3fs, gs gcsfs."
        ) from error


@contextmanager
def _in_one_sentence(address: str) -> Iterator[None]:
    """Errors of stores, each of which has classes of its own, as StorageError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _failure(address, error) from error


def _failure(address: str, error: BaseException) -> StorageError:
    """What to say of a store's error, and whether it may pass."""
    reason = error.__cause__
    if isinstance(error, FileNotFoundError) and reason is not None and getattr(reason, "status", 0) not in (404, 410):
        error = reason  # fsspec calls whatever happened to an https request so
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return StorageError(f"there is no {address}; check the address in the recipe's data.train.")
    said = str(error).strip() or type(error).__name__
    if isinstance(error, PermissionError) or status in (401, 403):
        return StorageError(f"{address} may not be read ({said}); log in to its store first.")
    if is_disk_full(error):
        return StorageError(f"there is no room for a copy of {address} in {default_root()}; make some.")
    failure = StorageError(f"{address} cannot be fetched ({said}); give the same command once its store answers.")
    failure.passing = True
    return failure
