"""Folders of pictures with mutated lists and captions, in every layout that a data spec may
name.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command, detailed

SECRET = (255, 0, 254)  # a picture of this colour lies outside of every set


class Lists:
    def prepare(self, room: Path) -> None:
        self.open = _open

    def case(self, rng: Random, work: Path) -> Call:
        folder = work / "in" / "set"
        for name in ("a.png", "b.png", "images/c.png", "hints/a.png", "hints/b.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), "white").save(folder / name)
        Image.new("RGB", (16, 16), SECRET).save(work / "in" / "secret.png")
        if rng.random() < 0.2:
            (folder / "linked.png").symlink_to(work / "in" / "secret.png")

        rng.choice((_metadata, _prompts, _captions, _csv))(rng, folder)
        spec = str(folder) + rng.choice(
            ("", "", "?hints=hints", f"?hints={folder / 'hints'}", "?limit=2", "?repeat=3")
        )
        if rng.random() < 0.3:
            return command(
                "annotate", "canny", folder, "--out", work / "out" / "set", "--workers", 1
            )
        return detailed(self.open, spec)


def _open(spec: str) -> None:
    """Read all examples; a broken one is a sentence each."""
    from zeroconv.data import open_dataset
    from zeroconv.errors import UserError

    dataset = open_dataset(spec, size=16, condition="canny")
    for i in range(min(len(dataset), 20)):
        dataset.key(i)
        try:
            example = dataset[i]
        except UserError:
            continue
        if example.image.getpixel((8, 8)) == SECRET:
            raise AssertionError("a picture outside of the set was read")
        if any(not isinstance(text, str) for text in example.text):
            raise AssertionError("a caption is no text")
        if any("\ud800" <= letter <= "\udfff" for text in example.text for letter in text):
            raise AssertionError("a caption holds a lone surrogate")


def _rows(rng: Random) -> list[Any]:
    names = (
        "a.png",
        "b.png",
        "images/c.png",
        "linked.png",
        "../secret.png",
        "hints/../../secret.png",
    )
    rows: list[Any] = [
        {
            "file_name": rng.choice(names),
            "text": "a",
            "conditioning_image": rng.choice(("hints/a.png", *names)),
        },
        {"file_name": "b.png", "text": ["b", "c"]},
        {"file_name": "images/c.png", "text": {"raw": "d"}},
    ]
    return mutate.tree(rng, rows)


def _lines(rng: Random, rows: Any) -> bytes:
    rows = rows if isinstance(rows, list) else [rows]
    text = rng.choice(("\n", "\n", "\r\n", "\n\n")).join(
        json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows
    )
    data = mutate.encoded(rng, text)
    return mutate.raw(rng, data) if rng.random() < 0.3 else data


def _metadata(rng: Random, folder: Path) -> None:
    path = folder / rng.choice(("metadata.jsonl", "metadata.jsonl", "images/metadata.jsonl"))
    path.write_bytes(_lines(rng, _rows(rng)))


def _csv(rng: Random, folder: Path) -> None:
    text = 'file_name,text\na.png,one\nb.png,"two, three"\n'
    (folder / "metadata.csv").write_bytes(mutate.raw(rng, mutate.encoded(rng, text)))


def _prompts(rng: Random, folder: Path) -> None:
    rows = [
        {"source": "hints/a.png", "target": "a.png", "prompt": "a"},
        {"source": "hints/b.png", "target": "b.png", "prompt": "b"},
    ]
    (folder / "prompt.json").write_bytes(_lines(rng, mutate.tree(rng, rows)))


def _captions(rng: Random, folder: Path) -> None:
    for name in ("a", "b", "a.png"):
        text = rng.choice(("a cat", "", "one\ntwo", "é", "\0", "x" * 100_000, *mutate.TEXTS))
        data = mutate.encoded(rng, text)
        (folder / f"{name}{rng.choice(('.txt', '.caption', '.TXT', '.json'))}").write_bytes(
            mutate.raw(rng, data) if rng.random() < 0.3 else data
        )
    if rng.random() < 0.2:
        (folder / "10_cats").mkdir()
        (folder / "10_cats" / "a.png").write_bytes((folder / "a.png").read_bytes())
