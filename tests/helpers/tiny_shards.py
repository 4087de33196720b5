"""Small tar and parquet shards, packed by hand as other tools do it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow
from PIL import Image
from pyarrow import parquet


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def shade(picture: Image.Image | None) -> int | None:
    return None if picture is None else picture.convert("L").getpixel((8, 8))


def tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], **header) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def table(path: Path, columns: dict[str, list], group: int = 2, **types) -> Path:
    arrays = {name: pyarrow.array(values, types.get(name)) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays), path, row_group_size=group)
    return path
