"""Parquet shards as the `datasets` library lays them out: their columns, and one row group at a
time, with limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from zeroconv.data.reading.names import shown
from zeroconv.data.reading.regular import check_regular, open_regular, stand_in
from zeroconv.data.sources.columns import USUAL
from zeroconv.errors import UserError

MAX_GROUP = 1 << 30  # bytes of a row group in memory
MAX_ROWS = 5_000_000  # of a shard; a few bytes can claim billions
_BATCH = 16  # rows read at a time, so that the limit is noticed before memory is full


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises UserError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet files need pyarrow: pip install 'zeroconv[parquet]'.") from error
    return pyarrow, parquet


@contextmanager
def in_one_sentence(name: object) -> Iterator[None]:
    """Errors of pyarrow as UserError."""
    package, _ = arrow()
    kinds = (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        NotImplementedError,
        OverflowError,
        MemoryError,
        RecursionError,
    )
    try:
        yield
    except (*kinds, package.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{shown(name)} cannot be read as parquet ({lines[0][:200]}).") from error


def read_footer(end: Any, name: object) -> dict[str, Any]:
    """{"columns": {name: kind}, "groups": [rows, …], "empty": [names]}.

    A kind is "picture" (bytes, or a struct that has some), "text", "texts" (a list), "objects" (a
    struct of texts, or a list of such) or "other". "empty" are columns of hints that are null
    throughout. `end`: a path, or an open file. Raises UserError.
    """
    _, parquet = arrow()
    if isinstance(end, Path):
        with open_regular(end) as file:
            kind = stand_in(file.read(8))
        if kind:
            raise UserError(f"{shown(name)} is {kind}.")
    with in_one_sentence(name), parquet.ParquetFile(end) as file:
        schema, footer = file.schema_arrow, file.metadata
        if len(set(schema.names)) < len(schema.names):
            raise UserError(
                f"{shown(name)} has two columns of one name: {', '.join(map(shown, schema.names))}."
            )
        if not 0 <= footer.num_rows <= MAX_ROWS or footer.num_row_groups > MAX_ROWS:
            raise UserError(
                f"{shown(name)} claims {footer.num_rows:,} rows, at most {MAX_ROWS:,} are read."
            )

        groups = [footer.row_group(g) for g in range(footer.num_row_groups)]
        sizes = [group.num_rows for group in groups]
        if min(sizes, default=0) < 0 or sum(sizes) != footer.num_rows:
            raise UserError(
                f"{shown(name)} is damaged: its row groups do not add up to its "
                f"{footer.num_rows:,} rows."
            )
        for number, group in enumerate(groups):
            if group.total_byte_size > MAX_GROUP:
                raise too_large(name, number)

        columns = {field.name: _kind(field.type) for field in schema}
        hints = [name for name in USUAL.conditioning_image_column if columns.get(name) == "picture"]
        empty = [name for name in hints if footer.num_rows and _is_empty(file, name)]
        return {"columns": columns, "groups": sizes, "empty": empty}


def too_large(name: object, number: int) -> UserError:
    return UserError(
        f"row group {number} of {shown(name)} holds more than {MAX_GROUP >> 30} GiB, and is read "
        "whole; write the file with row_group_size=64."
    )


def _kind(kind: Any) -> str:
    package, _ = arrow()
    types = package.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if _is_binary(kind):
        return "picture"
    if types.is_struct(kind) and any(
        field.name == "bytes" and _is_binary(field.type) for field in kind
    ):
        return "picture"
    if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
        return "text"
    nested = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if nested:
        within = _kind(kind.value_type)
        return {"text": "texts", "texts": "texts", "objects": "objects"}.get(within, "other")
    if types.is_struct(kind) and any(_kind(field.type) in ("text", "texts") for field in kind):
        return "objects"
    return "other"


def _is_binary(kind: Any) -> bool:
    package, _ = arrow()
    return (
        package.types.is_binary(kind)
        or package.types.is_large_binary(kind)
        or str(kind) == "binary_view"
    )


def _is_empty(file: Any, name: str) -> bool:
    """Whether a column has nothing but nulls.

    Read until one is not: the footer's statistics would say so too, but pyarrow ends the process
    where those are damaged.
    """
    kind = file.schema_arrow.field(name).type
    short = arrow()[0].types.is_struct(kind) and any(field.name == "path" for field in kind)
    for batch in file.iter_batches(_BATCH, columns=[f"{name}.path" if short else name]):
        if batch.column(0).null_count < len(batch):
            return False
    return True


def is_list(path: Path) -> bool:
    """Whether a file with the name of a list is one; a parquet file may hold the pictures
    themselves."""
    if path.suffix.lower() != ".parquet":
        return True
    return "picture" not in read_footer(path, path)["columns"].values()


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row) of a parquet file that lists pictures by name, from 1 on. Raises UserError."""
    check_regular(path)
    _, parquet = arrow()
    number = 0
    with in_one_sentence(path), parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def row_group(path: Path, number: int, columns: tuple[str, ...]) -> Any:
    """Some columns of a row group as an arrow table; the last two are remembered, as rows are asked
    for one after the other but are read a group at a time.

    Raises UserError for one that takes more than 1 GiB.
    """
    check_regular(path)
    status = path.stat()
    return _row_group(path, (status.st_size, status.st_mtime_ns, status.st_ino), number, columns)


@lru_cache(maxsize=2)
def _row_group(path: Path, stamp: tuple[int, ...], number: int, columns: tuple[str, ...]) -> Any:
    """`stamp`: what changes where another file takes the place."""
    package, parquet = arrow()
    with parquet.ParquetFile(path) as file:
        batches, size = [], 0
        for batch in file.iter_batches(_BATCH, row_groups=[number], columns=[*columns]):
            size += batch.nbytes
            if size > MAX_GROUP:
                raise too_large(path, number)
            batches.append(batch)
        if not batches:
            raise UserError(f"row group {number} of {shown(path)} holds no rows.")
        return package.Table.from_batches(batches)
