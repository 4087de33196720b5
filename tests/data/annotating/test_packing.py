"""Packing an imagefolder: no example is lost, and no shard of before is left."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.tiny_shards import png, shade, tar
from zeroconv.data import open_dataset
from zeroconv.data.annotating.packing import pack
from zeroconv.errors import UserError

NAMES = [
    "a.png",
    "a.b.png",
    "A.b.png",
    "a_b.png",
    "x/a_b.png",
    "con.png",
    "caf\u00e9.png",
    "cafe\u0301.png",
    "e" * 100 + ".png",
]
WORDS = ["", "x", "two\nlines", " a ", "ende\r", "\u2028"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True),
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=5, max_size=5),
    st.booleans(),
    st.sampled_from(["tar", "parquet"]),
)
def test_packing_loses_no_example(tmp_path: Path, names, words, hinted: bool, kind: str) -> None:
    folder = Path(str(tmp_path / f"set-{time.monotonic_ns()}"))
    lines = []
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number * 10))
        (folder / f"h{number}.png").write_bytes(png(number * 10 + 5))
        lines.append(
            {"file_name": name, "text": words[number]}
            | ({"hint": f"h{number}.png"} if hinted else {})
        )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pack(folder, folder / "out", kind, 2)
        packed = open_dataset(folder / "out")
        examples = sorted((shade(e.image), shade(e.hint), e.text) for e in packed)
    wanted = sorted(
        (n * 10, n * 10 + 5 if hinted else None, tuple(words[n])) for n in range(len(names))
    )
    assert examples == wanted


def test_packing_again_leaves_no_shard_of_before_and_refuses_others(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(png(number))
    lines = [json.dumps({"file_name": f"{n}.png", "text": "x"}) for n in range(5)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert len(pack(folder, out, "tar", 2)) == 3
    assert len(pack(folder, out, "tar", 5)) == 1
    assert len(open_dataset(out)) == 5
    tar(out / "mine.tar", {"k.png": png(10)})
    with pytest.raises(UserError, match=r"mine\.tar the first"):
        pack(folder, out, "tar", 5)
    assert (out / "mine.tar").is_file()
    (out / "mine.tar").unlink()
    with pytest.raises(UserError, match="another packing"):
        pack(folder, out, "parquet", 5)
