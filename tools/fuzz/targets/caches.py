"""A filled cache with mutated files: what comes out must be what came out of the sound one, or a
sentence.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tools.fuzz import mutate
from tools.fuzz.targets import Call, detailed


class Caches:
    owns = ("out/cache",)  # files that the commands wrote themselves

    def prepare(self, room: Path) -> None:
        from tests.helpers.tiny import tiny_backbone
        from zeroconv.data import open_dataset

        self.backbone = tiny_backbone()
        folder = room / "pictures"
        folder.mkdir()
        for i in range(6):
            noise = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(noise).resize((64, 64)).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(f"picture {i}")
        self.dataset = open_dataset(str(folder), condition="canny", size=64)
        self.sound = room / "sound"
        self.wanted = self._read(self.sound)

    def case(self, rng: Random, work: Path) -> Call:
        root = work / "out" / "cache"
        shutil.copytree(self.sound, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        for _ in range(rng.choice((1, 1, 2))):
            _damage(rng, rng.choice(files))
        return detailed(self._same, root)

    def _same(self, root: Path) -> None:
        arrays = self._read(root)
        for name, array in self.wanted.items():
            if not np.array_equal(arrays[name], array):
                raise AssertionError(
                    f"{name} of a damaged cache differs from those of the sound one"
                )

    def _read(self, root: Path) -> dict[str, Any]:
        from zeroconv.data.cache.fill import CacheSettings, cache_examples

        examples = cache_examples(self.dataset, self.backbone, CacheSettings(root, workers=1))
        rows = range(len(examples.moments))
        return {
            "moments": np.array(examples.moments[list(rows)]),
            "hints": np.array(examples.hints[list(rows)]),
            "captions": np.array([str(texts) for texts in examples.captions]),
            "text": examples.text.states(range(len(examples.text.captions))).hidden.numpy(),
        }


def _damage(rng: Random, path: Path) -> None:
    if not path.is_file():
        return
    kind = rng.randrange(8)
    if kind == 0:
        path.unlink()
        path.mkdir()
    elif kind == 1:
        path.unlink()
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        path.unlink()
        path.symlink_to("/nowhere")
    elif kind == 4:
        data = bytearray(path.read_bytes())
        at = rng.randrange(len(data)) if data else 0
        data[at : at + 1] = bytes([data[at] ^ (1 << rng.randrange(8))]) if data else b"\1"
        # the time stays as it was, so that only the bytes can tell
        state = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        path.write_bytes(mutate.raw(rng, path.read_bytes()))
