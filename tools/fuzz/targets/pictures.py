"""Pictures of every format and mode, mutated: as photographs, hints, masks, and to be annotated."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, features

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command

CONDITIONS = (
    "canny",
    "scribble",
    "softedge",
    "lineart",
    "blur",
    "tile",
    "lines",
    "shuffle",
    "grayscale",
    "inpaint",
)
MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpeg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "gif": ("1", "L", "P"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "ppm": ("1", "L", "RGB", "I"),
    "avif": ("RGB", "RGBA"),
}


class Pictures:
    def prepare(self, room: Path) -> None:
        self.seeds: list[tuple[str, bytes]] = []
        for name, modes in MODES.items():
            if name == "avif" and not features.check("avif"):
                continue
            self.seeds += [(name, _encode(name, mode)) for mode in modes]
        frames = [Image.new("RGB", (24, 20), colour) for colour in ("red", "blue")]
        for name in ("gif", "webp", "png", "tiff"):
            self.seeds.append(
                (name, _bytes(frames[0], name, save_all=True, append_images=frames[1:]))
            )

        from zeroconv.conditions import CONDITIONS as known

        self.conditions = [name for name in CONDITIONS if name in known]
        self.roles = sorted(known)

    def case(self, rng: Random, work: Path) -> Call:
        suffix, data = rng.choice(self.seeds)
        change = mutate.png if suffix == "png" and rng.random() < 0.7 else mutate.raw
        if rng.random() < 0.95:
            data = change(rng, data)
        if rng.random() < 0.1:
            suffix = rng.choice([*MODES, "eps", "psd", "svg", "jpg", "tif", "npy", ""])
        path = work / "in" / (f"a.{suffix}" if suffix else "a")
        path.write_bytes(data)

        if rng.random() < 0.8:
            condition = rng.choice(self.conditions)
            return command("annotate", condition, path, "--out", work / "out" / "hint.png")
        return command(
            "annotate",
            rng.choice(self.conditions),
            work / "in",
            "--out",
            work / "out" / "set",
            "--workers",
            1,
        )


def _encode(name: str, mode: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    picture = Image.fromarray(noise)
    if mode == "I;16":
        picture = Image.fromarray((noise[..., 0].astype(np.uint16) << 8) | noise[..., 1])
    elif mode == "F":
        picture = Image.fromarray(noise[..., 0].astype(np.float32) / 100)
    elif mode == "I":
        picture = Image.fromarray(noise[..., 0].astype(np.int32) * 200)
    elif mode == "LAB":
        picture = Image.frombytes("LAB", (24, 20), noise.tobytes())
    else:
        picture = picture.convert(mode)
    return _bytes(picture, name)


def _bytes(picture: Image.Image, name: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, name, **options)
    return out.getvalue()
