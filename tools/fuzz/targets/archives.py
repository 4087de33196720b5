"""Tar and parquet shards with mutated members, names, columns and bytes; and files that only have
such a name.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command, detailed
from tools.fuzz.targets.lists import SECRET, _open


class Archives:
    def prepare(self, room: Path) -> None:
        self.picture = _png("white")

    def case(self, rng: Random, work: Path) -> Call:
        folder = work / "in" / "set"
        folder.mkdir()
        (work / "in" / "secret.png").write_bytes(_png(SECRET))
        name, data = rng.choice((self._tar, self._tar, self._parquet, self._parquet, self._zip))(
            rng
        )
        if rng.random() < 0.3:
            data = mutate.raw(rng, data)
        if rng.random() < 0.1:
            data = gzip.compress(data)
        (folder / name).write_bytes(data)

        if rng.random() < 0.4:
            return command(
                "annotate", "canny", folder, "--out", work / "out" / "set", "--workers", 1
            )
        return detailed(_open, str(folder))

    def _tar(self, rng: Random) -> tuple[str, bytes]:
        out = io.BytesIO()
        with tarfile.open(
            fileobj=out, mode="w", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        ) as tar:
            for key in ("a", "b", rng.choice(mutate.TEXTS).replace("\0", "") or "c"):
                about = mutate.tree(rng, {"text": f"caption {key}", "conditioning_image": "x"}, 1)
                _member(rng, tar, f"{key}.png", self.picture)
                if rng.random() < 0.5:
                    _member(rng, tar, f"{key}.cond.png", self.picture)
                words = (
                    mutate.encoded(rng, json.dumps(about)) if rng.random() < 0.7 else b"a caption"
                )
                _member(rng, tar, f"{key}.{rng.choice(('json', 'txt'))}", words)
        return rng.choice(("train-00000-of-00001.tar", "a.tar")), out.getvalue()

    def _parquet(self, rng: Random) -> tuple[str, bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        image: Any = {"bytes": self.picture, "path": rng.choice(("a.png", *mutate.TEXTS))}
        rows = [
            {"image": image, "text": "a", "conditioning_image": image},
            {"image": image, "text": "b", "conditioning_image": rng.choice((image, None))},
        ]
        if rng.random() < 0.7:
            rows = _parquet_rows(rng, rows)
        out = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist(rows), out)
        except (
            pa.ArrowException,
            OverflowError,
            UnicodeEncodeError,
            AttributeError,
            TypeError,
            ValueError,
        ):
            return "train.parquet", b"PAR1" + rng.randbytes(64) + b"PAR1"
        return rng.choice(("train-00000-of-00001.parquet", "data.parquet")), out.getvalue()

    def _zip(self, rng: Random) -> tuple[str, bytes]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("../evil.png", self.picture)
        return rng.choice(("images.zip", "images.tar", "images.parquet")), out.getvalue()


def _member(rng: Random, tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    if rng.random() < 0.1:
        info.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
        )
        info.linkname, info.size = rng.choice(("../secret.png", "/dev/zero", "a.png")), 0
    if rng.random() < 0.1:
        info.name = f"{rng.choice(('../', '/tmp/', 'a/../../', './'))}{info.name}"
    try:
        tar.addfile(info, io.BytesIO(data))
    except (ValueError, UnicodeError, OverflowError):
        return


def _parquet_rows(rng: Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    changed = mutate.tree(rng, [{**row, "image": None, "conditioning_image": None} for row in rows])
    rows = [row for row in changed if isinstance(row, dict)] if isinstance(changed, list) else []
    for row in rows:
        for name in ("image", "conditioning_image", "control_image"):
            if rng.random() < 0.6:
                row[name] = {"bytes": _png("white"), "path": rng.choice(("a.png", *mutate.TEXTS))}
    return rows


def _png(colour: str | tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(out, "PNG")
    return out.getvalue()
