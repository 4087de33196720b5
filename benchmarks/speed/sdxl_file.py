"""SDXL at full size from one float16 file of random weights: loading it, and one step with a Union.

    python -m benchmarks.speed.sdxl_file --folder /tmp/sdxl

Writes 9.5 GB into the folder and deletes them afterwards; needs 14 GB of memory. The picture has
512 pixels, one step, no guidance, a canny and a depth hint in one Union control of ProMax's size.
Memory is what the process takes above its start, for itself and with the pages of files, which the
system may drop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import write_result
from benchmarks.speed.memory import SDXL
from benchmarks.speed.random_base import union_shapes, write_base, write_weights
from benchmarks.speed.resident import Peak, baseline, resident
from tools.reports import ROOT

SIDE = 512  # pixels


def measure(base: Path, union: Path, dtype: str) -> list[list[float | str]]:
    """Rows: what was done, bytes of weights, peaks in bytes, seconds."""
    from zeroconv.backbones import load_backbone
    from zeroconv.control import ControlNet
    from zeroconv.generation import Control, generate

    # what libraries take for themselves is there before
    generate(load_backbone("playroom"), "a ball", steps=1)
    before, rows = baseline(), []

    def note(name: str, peak: Peak, held: int) -> None:
        numbers = [x / 1e9 for x in (held, peak.anonymous, peak.all)]
        rows.append([name, *numbers, peak.seconds])

    with Peak(before) as peak:
        backbone = load_backbone(base, dtype=getattr(torch, dtype))
    modules = [backbone.unet, backbone.vae, *backbone.text_encoders]
    held = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    note("load SDXL", peak, held)

    with Peak(before) as peak:
        control = ControlNet.load(union, backbone=backbone)
    held += sum(p.numel() * p.element_size() for p in control.parameters())
    note("load the Union", peak, held)

    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    hints = [Control(control, one, kind=kind) for one, kind in zip(noise, ("canny", "depth"),
                                                                   strict=True)]  # fmt: skip
    began = time.perf_counter()
    steps: list[float] = []
    with Peak(before) as peak:
        (made,) = generate(
            backbone, "a red ball", hints, steps=1, cfg=1, height=SIDE, width=SIDE, seed=0,
            callback=lambda *_: steps.append(time.perf_counter() - began),
        )  # fmt: skip
    assert made.size == (SIDE, SIDE)
    note("a picture of one step", peak, held)
    rows.append(["of it until the step is done", "", "", "", steps[0]])
    rows.append(["held afterwards", "", (resident("RssAnon") - before[0]) / 1e9, "", ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--measure", type=Path, nargs=2, help="measure these files, print JSON")
    options = parser.parse_args()
    if options.measure:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(measure(*options.measure, options.dtype)))
        return

    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base, union = Path(folder, "sdxl.safetensors"), Path(folder, "union.safetensors")
        sizes = write_base(base, SDXL), write_weights(union, union_shapes())
        command = [sys.executable, "-m", "benchmarks.speed.sdxl_file", "--dtype", options.dtype]
        words = [*command, "--measure", str(base), str(union)]
        out = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    rows = json.loads(out.splitlines()[-1])
    note = (
        f"SDXL and a Union of ProMax's size, random weights, float16 files of {sizes[0] / 1e9:.2f} "
        f"and {sizes[1] / 1e9:.2f} GB, {options.dtype}, {torch.get_num_threads()} thread of a "
        f"shared machine. {SIDE} px, two hints, no guidance; GB are 10⁹ bytes above the process's "
        "start. The pages of mapped files can be dropped by the system when memory is short."
    )
    write_result(
        "sdxl_file",
        ["", "weights GB", "peak GB", "with pages of files", "seconds"],
        [[x if isinstance(x, str) else f"{x:.2f}" for x in row] for row in rows],
        f"python -m benchmarks.speed.sdxl_file --folder {options.folder or tempfile.gettempdir()}",
        note,
    )


if __name__ == "__main__":
    main()
