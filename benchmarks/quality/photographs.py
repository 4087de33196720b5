"""A sheet of every condition that works offline, on scikit-image's photographs.

python -m benchmarks.quality.photographs
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps
from skimage import data

from benchmarks.common import PICTURES, sheet
from zeroconv import annotators
from zeroconv.conditions import CONDITIONS

SIDE = 192


def main() -> None:
    astronaut = data.astronaut()
    pictures = [
        astronaut,
        np.hstack([astronaut[:, :400]] * 2),
        data.chelsea(),
        data.coffee(),
        data.rocket(),
    ]
    rows = []
    for pixels in pictures:
        photo = ImageOps.fit(Image.fromarray(pixels), (384, 384))
        if pixels.shape[1] == 800:  # two people side by side
            photo = (
                Image.fromarray(pixels).resize((384, 246)).crop((0, 0, 384, 246)).resize((384, 384))
            )
        hints = [photo]
        for condition in CONDITIONS.values():
            if condition.draw is not None:
                hints.append(annotators.annotate(condition.name, photo))
            if condition.name == "softedge":
                hints.append(annotators.annotate("softedge", photo, "hed"))
            if condition.name == "pose":
                skeletons = np.asarray(annotators.annotate("pose", photo))
                dim = np.asarray(photo) // 4
                hints.append(
                    Image.fromarray(np.where(skeletons.any(-1, keepdims=True), skeletons, dim))
                )
        rows.append(
            [hint_of(hint).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for hint in hints]
        )
    sheet(rows, PICTURES / "photographs.jpg")
    print(PICTURES / "photographs.jpg")


def hint_of(hint: Image.Image) -> Image.Image:
    """A hole as black."""
    if hint.mode != "RGBA":
        return hint
    return Image.composite(hint.convert("RGB"), Image.new("RGB", hint.size), hint.getchannel(3))


if __name__ == "__main__":
    main()
