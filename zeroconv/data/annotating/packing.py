"""Writing an imagefolder as parquet or tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from zeroconv.data.reading.names import distinct, label, shown
from zeroconv.data.reading.regular import open_regular
from zeroconv.data.reading.strangers import PACKED, written_here
from zeroconv.data.sources.imagefolder import Folder, open_folder
from zeroconv.data.sources.parquets import arrow
from zeroconv.errors import UserError
from zeroconv.files import atomic_write


def pack(folder: Path, out: Path, kind: str, shard: int = 1000) -> list[Path]:
    """Write an imagefolder with hints as parquet or tar shards of `shard` examples; returns their
    paths.

    parquet: columns image, conditioning_image (structs of bytes and path), text. tar: KEY.png (or
    .jpg …), KEY.hint.png, KEY.txt (a caption a line). The files depend on the folder's content
    alone. Shards of an earlier call that this one does not write again are removed; others in `out`
    are refused. Raises UserError.
    """
    source = open_folder(folder)
    if not isinstance(source, Folder):
        raise UserError(f"{folder} is packed already.")
    write = {"parquet": _write_parquet, "tar": _write_tar}.get(kind)
    if write is None:
        raise UserError(f"there is no format {kind!r}; choose imagefolder, parquet or tar.")
    several = sorted({condition for row in source.rows for condition, _ in row.named})
    if len(several) > 1:
        raise UserError(
            f"{folder} has hints of {', '.join(several)}, and a {kind} shard holds one a picture; "
            "annotate one condition at a time, or keep the imagefolder."
        )

    count = -(-len(source) // shard)
    paths = [out / f"{number:05d}-of-{count:05d}.{kind}" for number in range(count)]
    ours = check_shards(out, kind)
    _note_ours(out, sorted({*ours, *(path.name for path in paths)}))
    for number, path in enumerate(paths):
        with atomic_write(path) as temporary:
            write(source, range(number * shard, min(len(source), (number + 1) * shard)), temporary)

    for name in ours - {path.name for path in paths}:
        (out / name).unlink(missing_ok=True)
    _note_ours(out, [path.name for path in paths])
    return paths


def check_shards(out: Path, kind: str) -> set[str]:
    """The names of the shards of `kind` in `out` that an earlier call wrote.

    Raises UserError where there are shards that it did not write, or of another kind: a reader
    would take both.
    """
    ours = written_here(out)
    there = {
        path.name
        for end in ("parquet", "tar")
        for path in out.glob(f"*.{end}")
        if path.name[0] != "."
    }
    foreign = sorted(name for name in there if name not in ours or not name.endswith(f".{kind}"))
    if foreign:
        raise UserError(
            f"{out} holds shards of another packing, {shown(foreign[0])} the first, which would be "
            "read with the new ones; move them away, or name another --out."
        )
    return ours & there


def _note_ours(out: Path, names: Sequence[str]) -> None:
    with atomic_write(out / PACKED) as temporary:
        temporary.write_text(json.dumps([*names]) + "\n", encoding="utf-8")


def _entries(
    source: Folder, rows: Sequence[int]
) -> Iterator[tuple[str, bytes, bytes | None, tuple[str, ...]]]:
    for i in rows:
        row = source.rows[i]
        hint = None if row.hint is None else _bytes(source.file(row.hint))
        yield row.image, _bytes(source.file(row.image)), hint, row.text


def _bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _write_parquet(source: Folder, rows: Sequence[int], path: Path) -> None:
    package, parquet = arrow()
    kind = package.struct([("bytes", package.binary()), ("path", package.string())])
    columns: dict[str, list[Any]] = {"image": [], "conditioning_image": [], "text": []}
    for name, image, hint, text in _entries(source, rows):
        columns["image"].append({"bytes": image, "path": label(name)})
        columns["conditioning_image"].append(
            None if hint is None else {"bytes": hint, "path": label(name)}
        )
        columns["text"].append(list(text))

    single = all(len(text) == 1 for text in columns["text"])
    texts = (
        package.array([t[0] for t in columns["text"]]) if single else package.array(columns["text"])
    )
    arrays = {name: package.array(columns[name], kind) for name in ("image", "conditioning_image")}
    if all(hint is None for hint in columns["conditioning_image"]):
        del arrays["conditioning_image"]
    features = {
        **{name: {"_type": "Image"} for name in arrays},
        "text": {"dtype": "string", "_type": "Value"},
    }
    note = {"huggingface": json.dumps({"info": {"features": features}})}

    table = package.table({**arrays, "text": texts}).replace_schema_metadata(
        note if single else None
    )
    parquet.write_table(table, path, row_group_size=64)


def _write_tar(source: Folder, rows: Sequence[int], path: Path) -> None:
    keys = _tar_keys([row.image for row in source.rows])
    with tarfile.open(path, "w") as archive:
        for i, (name, image, hint, text) in zip(rows, _entries(source, rows), strict=True):
            parts = [(f"{keys[i]}{PurePosixPath(label(name)).suffix}", image)]
            parts.append(_caption_part(keys[i], text))
            parts += [] if hint is None else [(f"{keys[i]}.hint.png", hint)]
            for member, content in sorted(parts):
                info = tarfile.TarInfo(member)  # no owner, no time: the same content, the same file
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _caption_part(key: str, text: tuple[str, ...]) -> tuple[str, bytes]:
    """KEY.txt with a caption a line; KEY.json where a caption has several lines."""
    lines = "\n".join(text)
    if text == ("",) or lines.splitlines() == [*text]:
        return f"{key}.txt", lines.encode()
    return f"{key}.json", json.dumps({"text": [*text]}, ensure_ascii=False).encode()


def _tar_keys(names: Sequence[str]) -> list[str]:
    """Names without suffix and without dots, which end a key; where that makes two the same, the
    later are numbered.
    """
    keys = [
        str(PurePosixPath(label(name)).with_suffix("")).removeprefix("images/").replace(".", "_")
        for name in names
    ]
    taken = set(keys)
    for _, later in distinct(keys):
        number = 2
        while f"{keys[later]}-{number}" in taken:
            number += 1
        keys[later] = f"{keys[later]}-{number}"
        taken.add(keys[later])
    return keys
