"""Fit the read-out that judges depth controls, and say its error on real scenes (python -m benchmarks.readout)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.common import PICTURES, sheet
from zeroconv import playroom
from zeroconv.backbones import load_backbone
from zeroconv.evaluation.readout import DepthReadout, shrink


def main() -> None:
    backbone = load_backbone("playroom")
    readout = DepthReadout.fit(backbone, count=800)
    readout.save()
    scenes = [playroom.render(seed) for seed in playroom.split_seeds("test", 100, start=500_000)]
    read = readout.read(backbone, [scene.image for scene in scenes])
    truth = np.stack([shrink(playroom.depth_hint(scene.depth), read.shape[-1]) for scene in scenes])
    own = np.sqrt(((read - truth) ** 2).mean(axis=(1, 2))).mean()
    other = np.sqrt(((read - np.roll(truth, 1, axis=0)) ** 2).mean(axis=(1, 2))).mean()
    print(f"read-out on 100 real test scenes: RMSE {own:.4f} of the hint's range; against another's truth {other:.4f}")
    grey = [
        [Image.fromarray((d * 255).astype(np.uint8)).resize((128, 128)) for d in maps[:8]] for maps in (truth, read)
    ]
    sheet([[scene.image for scene in scenes[:8]], *grey], PICTURES / "depth-readout.png")


if __name__ == "__main__":
    main()
