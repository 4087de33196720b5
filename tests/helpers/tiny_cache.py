"""Folders of tiny pictures to cache, and shards of a few of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroconv.data.cache import plan, text


def noise_pictures(folder: Path, count: int, captions: int | None = None) -> Path:
    """Pictures of noise, (32, 32), and a list of them. `captions`: how many different ones; None:
    each picture has another.
    """
    rng, lines = np.random.default_rng(1), []
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
        lines.append({"file_name": f"{i}.png", "text": f"picture {i % (captions or count)}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def limit_shards(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """At most so many examples a shard, and so many captions."""
    for module in (plan, text):
        monkeypatch.setattr(module, "SHARD", most)
