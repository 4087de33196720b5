"""Training sets in few large files: parquet as the `datasets` library lays it out, tar as webdataset does."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from zeroconv.data.columns import USUAL, Columns
from zeroconv.data.datasets import Example
from zeroconv.data.fitting import BrokenExample, StorageError, read_patiently
from zeroconv.data.folders import SIDED, Folder
from zeroconv.data.pictures import picture_size, read_hint, read_picture
from zeroconv.data.remote import Remote, RemoteFolder, contents, find, in_parallel, local, opened
from zeroconv.data.signatures import signature
from zeroconv.errors import UserError
from zeroconv.files import atomic_write

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![a-z])")
_SAME = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "testing": "test"}


def pack(folder: Path, out: Path, kind: str, shard: int = 1000) -> list[Path]:
    """Write an imagefolder with hints as parquet or tar shards of `shard` examples; returns their paths.

    parquet: columns image, conditioning_image (structs of bytes and path), text. tar: KEY.png (or .jpg …),
    KEY.hint.png, KEY.txt (a caption a line). The files depend on the folder's content alone. Raises UserError.
    """
    from zeroconv.data.folders import open_folder

    source = open_folder(folder)
    if not isinstance(source, Folder):
        raise UserError(f"{folder} is packed already.")
    write = {"parquet": _write_parquet, "tar": _write_tar}.get(kind)
    if write is None:
        raise UserError(f"there is no format {kind!r}; choose imagefolder, parquet or tar.")
    several = sorted({condition for row in source.rows for condition, _ in row.named})
    if len(several) > 1:
        raise UserError(
            f"{folder} has hints of {', '.join(several)}, and a {kind} shard holds one a picture; annotate one "
            "condition at a time, or keep the imagefolder."
        )
    count = -(-len(source) // shard)
    paths = []
    for number in range(count):
        paths.append(out / f"{number:05d}-of-{count:05d}.{kind}")
        with atomic_write(paths[-1]) as temporary:
            write(source, range(number * shard, min(len(source), (number + 1) * shard)), temporary)
    return paths


def _entries(source: Folder, rows: Sequence[int]) -> Iterator[tuple[str, bytes, bytes | None, tuple[str, ...]]]:
    for i in rows:
        row = source.rows[i]
        hint = None if row.hint is None else (source.folder / row.hint).read_bytes()
        yield row.image, (source.folder / row.image).read_bytes(), hint, row.text


def _write_parquet(source: Folder, rows: Sequence[int], path: Path) -> None:
    arrow, parquet = _arrow()
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns: dict[str, list[Any]] = {"image": [], "conditioning_image": [], "text": []}
    for name, image, hint, text in _entries(source, rows):
        columns["image"].append({"bytes": image, "path": name})
        columns["conditioning_image"].append(None if hint is None else {"bytes": hint, "path": name})
        columns["text"].append(list(text))
    single = all(len(text) == 1 for text in columns["text"])
    texts = arrow.array([t[0] for t in columns["text"]]) if single else arrow.array(columns["text"])
    arrays = [arrow.array(columns["image"], kind), arrow.array(columns["conditioning_image"], kind), texts]
    features = {"image": {"_type": "Image"}, "conditioning_image": {"_type": "Image"}}
    note = {
        "huggingface": json.dumps({"info": {"features": {**features, "text": {"dtype": "string", "_type": "Value"}}}})
    }
    table = arrow.table(arrays, names=list(columns)).replace_schema_metadata(note if single else None)
    parquet.write_table(table, path, row_group_size=64)


def _write_tar(source: Folder, rows: Sequence[int], path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name, image, hint, text in _entries(source, rows):
            key = str(Path(name).with_suffix("")).removeprefix("images/").replace(".", "_")
            parts = [(f"{key}{Path(name).suffix}", image), (f"{key}.txt", "\n".join(text).encode())]
            parts += [] if hint is None else [(f"{key}.hint.png", hint)]
            for member, content in sorted(parts):
                info = tarfile.TarInfo(member)  # no owner, no time: the same content, the same file
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Packed:
    """Examples in shards, read one at a time where they lie (remote ones in a copy); nothing is unpacked."""

    shards: tuple[Path | Remote, ...]
    rows: tuple[tuple, ...]  # tar: (shard, key, {part: (offset, size)} as pairs); parquet: (shard, row group, row)
    condition: str | None = None
    columns: Columns = USUAL
    generated: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        shard, *place = self.rows[i]
        return f"{self.shards[shard].name}:{place[0]}" + (f".{place[1]}" if isinstance(place[1], int) else "")

    def key(self, i: int) -> str:
        read = "" if self.columns == USUAL else f" {self.columns}"  # which of its columns: captions, hints, pictures
        return f"{self._signatures[self.rows[i][0]]} {self.rows[i][1:]}{read}"

    @cached_property
    def _signatures(self) -> list[str]:
        return [signature(shard) if isinstance(shard, Path) else shard.mark for shard in self.shards]

    def example(self, i: int, size: int | None, condition: str | None) -> Example:
        image, hint, text = self._read(i)
        name = self.name(i)
        drawn = (
            None if hint is None else read_hint(io.BytesIO(hint), self.condition or condition, f"the hint of {name}")
        )
        sides = not any(SIDED.search(t) for t in text)
        return Example(name, read_picture(io.BytesIO(image), name), text, drawn, sides)

    def shape(self, i: int) -> tuple[int, int]:
        number, name = self.rows[i][0], self.name(i)
        if isinstance(self.shards[number], Remote):
            if number not in self._shapes:
                self._shapes[number] = self._remembered_shapes(number)
            if name in self._shapes[number]:
                return self._shapes[number][name]
        return picture_size(io.BytesIO(self._read(i)[0]), name)

    @cached_property
    def _shapes(self) -> dict[int, dict[str, tuple[int, int]]]:
        return {}

    def _remembered_shapes(self, number: int) -> dict[str, tuple[int, int]]:
        """Width and height of a remote shard's whole pictures: shapes are asked for at every start, which would copy
        it each time."""

        def look(i: int) -> tuple[int, int]:
            return picture_size(io.BytesIO(self._read(i)[0]), self.name(i))

        def read() -> dict[str, tuple[int, int]]:
            found = {}
            for i, row in enumerate(self.rows):
                if row[0] == number:
                    with suppress(BrokenExample):
                        found[self.name(i)] = read_patiently(partial(look, i))
            return found

        shard = self.shards[number]
        assert isinstance(shard, Remote)
        return {name: (w, h) for name, (w, h) in contents(shard, read, f"shapes {self.columns}").items()}

    def _read(self, i: int) -> tuple[bytes, bytes | None, tuple[str, ...]]:
        """Picture, hint and captions of a row. Raises UserError for a row that holds something else, or is damaged."""
        try:
            return self._taken(i)
        except StorageError:
            raise
        except (
            KeyError,
            TypeError,
            ValueError,
            OSError,
            NotImplementedError,
        ) as error:  # pyarrow's errors are of these
            raise UserError(f"{self.name(i)} cannot be read ({error}).") from error

    def _taken(self, i: int) -> tuple[bytes, bytes | None, tuple[str, ...]]:
        path = local(self.shards[self.rows[i][0]])
        if path.suffix == ".tar":
            return _read_tar(path, dict(self.rows[i][2]))
        line = _row_group(path, self.rows[i][1]).slice(self.rows[i][2], 1).to_pylist()[0]
        hint = self.columns.hint(line)
        return _content(self.columns.image(line)), None if hint is None else _content(hint), self.columns.caption(line)


def open_packed(
    folder: Path | RemoteFolder,
    condition: str | None = None,
    columns: Columns | None = None,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> Packed | None:
    """The shards of a folder, parquet or tar, and their first `limit` examples; None where there are none.

    They lie in it or its data/, those of one split told by their names (train-00000-of-00004), or as the hub converts
    data sets: SPLIT/ or CONFIG/SPLIT/. Without a split, train is taken. Raises UserError.
    """
    for kind in ("parquet", "tar"):
        shards = _shards(folder, kind, split, config)
        if shards:
            return _packed(shards, condition, columns or Columns(), limit)
    return None


def open_remote(
    address: str,
    split: str | None = None,
    limit: int | None = None,
    condition: str | None = None,
    columns: Columns | None = None,
    config: str | None = None,
) -> Packed:
    """Shards at an address, which lists them ("https://host/train-{00000..00009}.tar") or is a folder of theirs.

    Raises UserError where there are none, or the store cannot be asked.
    """
    found = read_patiently(lambda: find(address))
    if not isinstance(found, RemoteFolder):
        chosen = _of_split({shard: _split_of(shard.name) for shard in found}, split, address) if split else found
        return _packed(tuple(chosen), condition, columns or Columns(), limit)
    packed = open_packed(found, condition, columns, split, config, limit)
    if packed is None:
        raise UserError(
            f"{address} holds no parquet and no tar shards; name them, as in https://host/train-{{00000..00009}}.tar."
        )
    return packed


def _packed(shards: tuple[Path | Remote, ...], condition: str | None, columns: Columns, limit: int | None) -> Packed:
    def index(shard: Path | Remote) -> list[tuple]:
        table = _index_tar if shard.suffix == ".tar" else _index_parquet
        return read_patiently(lambda: table(shard, columns))

    whole = limit is None and isinstance(shards[0], Remote)
    tables = in_parallel(index, shards) if whole else map(index, shards)
    rows = ((number, *row) for number, table in enumerate(tables) for row in table)  # what is past a limit stays shut
    return Packed(shards, tuple(islice(rows, limit)), condition, columns)


def _shards(folder: Path | RemoteFolder, kind: str, split: str | None, config: str | None) -> tuple[Any, ...]:
    def there(pattern: str) -> list[Any]:
        found = read_patiently(lambda: list(folder.glob(f"{pattern}.{kind}")))
        return sorted(found, key=lambda shard: PurePosixPath(str(shard)).parts)

    for place in ("*", "data/*"):
        if paths := there(place):
            return _of_split({path: _split_of(path.name) for path in paths}, split, folder)
    splits = {path: path.parent.name for path in there("*/*") if _split_of(path.parent.name)}
    if splits:
        return _of_split({path: _split_of(name) for path, name in splits.items()}, split, folder)
    deep = [path for path in there("*/*/*") if _split_of(path.parent.name)]
    configs = sorted({path.parent.parent.name for path in deep})
    config = config or ("default" if "default" in configs else configs[0] if len(configs) == 1 else None)
    if configs and config not in configs:
        what = f"no part {config!r}" if config else "several parts"
        raise UserError(f"{folder} holds {what}; choose with config= in the data spec: {', '.join(configs)}.")
    return _of_split({p: _split_of(p.parent.name) for p in deep if p.parent.parent.name == config}, split, folder)


def _split_of(name: str) -> str | None:
    """ "train-00000-of-00004.parquet" → train; None where a name says nothing."""
    match = _SPLIT.match(name)
    return None if match is None else _SAME.get(match[1], match[1])


def _of_split(shards: dict[Any, str | None], split: str | None, folder: Any) -> tuple[Any, ...]:
    known = sorted({name for name in shards.values() if name})
    if not known:  # nothing tells splits apart
        return tuple(shards)
    wanted = _SAME.get(split, split) if split else "train" if "train" in known else known[0]
    if wanted not in known:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(known)}.")
    return tuple(path for path, name in shards.items() if name == wanted)


@lru_cache(maxsize=2)
def _row_group(path: Path, number: int) -> Any:
    """Rows are asked for one after the other, but can be read a group at a time only."""
    _, parquet = _arrow()
    with parquet.ParquetFile(path) as file:
        return file.read_row_group(number)


def _index_parquet(shard: Path | Remote, columns: Columns) -> list[tuple]:
    names, sizes = _contents(shard, _groups)
    columns.check(names, str(shard))
    return [(group, row) for group, size in enumerate(sizes) for row in range(size)]


def _index_tar(shard: Path | Remote, columns: Columns) -> list[tuple]:
    return [(key, tuple((part, tuple(place)) for part, place in parts)) for key, parts in _contents(shard, _members)]


def _contents(shard: Path | Remote, read: Callable[[Any], Any]) -> Any:
    return contents(shard, lambda: read(shard)) if isinstance(shard, Remote) else read(shard)


def _groups(shard: Path | Remote) -> tuple[list[str], list[int]]:
    """The columns of a parquet file, and how many rows each of its groups has."""
    _, parquet = _arrow()
    try:
        with opened(shard) as end, parquet.ParquetFile(end) as file:
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            return file.schema_arrow.names, sizes
    except UserError:  # a ValueError itself
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{shard} cannot be read as parquet ({error}).") from error


def _members(shard: Path | Remote) -> list[tuple]:
    """(key, ((part, (offset, size)), …)) of every picture in a tar."""
    path, found = local(shard), dict[str, dict[str, tuple[int, int]]]()
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, part = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                found.setdefault(key, {})[f".{part.lower()}"] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard} cannot be read as tar ({str(error).splitlines()[0].rstrip(':')}).") from error
    return [(key, tuple(parts.items())) for key, parts in found.items() if any(s in parts for s in _PICTURES)]


def _read_tar(path: Path, parts: dict[str, tuple[int, int]]) -> tuple[bytes, bytes | None, tuple[str, ...]]:
    def take(*names: str) -> bytes | None:
        with open(path, "rb") as file:
            for name in names:
                if name in parts:
                    file.seek(parts[name][0])
                    return file.read(parts[name][1])
        return None

    image = take(*_PICTURES)
    assert image is not None
    hint = take(*(f".hint{s}" for s in _PICTURES), *(f".conditioning_image{s}" for s in _PICTURES))
    text = (take(".txt", ".caption") or b"").decode("utf-8")
    return image, hint, tuple(text.splitlines()) or ("",)


def _content(cell: Any) -> bytes:
    """The bytes of a picture's cell: the `datasets` library keeps them in a struct. Raises UserError."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise UserError("the parquet file holds paths or addresses of pictures, not the pictures.")
    return content


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet files need pyarrow: pip install 'zeroconv[parquet]'.") from error
    return pyarrow, parquet
