"""What loading a base and making a picture take of main memory, measured, for the word `running`
of `benchmarks.speed.memory`.

Stable Diffusion 1.5 at full size with random weights from one float16 file and from a folder, each
in a process of its own. Pictures are of 256 pixels with one ControlNet, one step.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import write_result
from benchmarks.speed.memory import SD15
from benchmarks.speed.random_base import lora_shapes, write_base, write_weights
from benchmarks.speed.resident import Peak, baseline
from tools.reports import ROOT
from zeroconv.backbones import load_backbone
from zeroconv.backbones.loading.converting import convert_base
from zeroconv.control import ControlNet
from zeroconv.generation import Control, generate
from zeroconv.generation.memory import reckon

SIDE = 256  # pixels of a picture
LARGE = 1024  # pixels a side of what the autoencoder decodes

LORA = "lora.safetensors"  # of every attention, beside the weights

# what is measured: task, source, and arguments of load_backbone
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "load one file, float32": ("load", "file", {}),
    "load one file, bfloat16": ("load", "file", {"dtype": "bfloat16"}),
    "load a folder, float32": ("load", "folder", {}),
    "load a folder, bfloat16": ("load", "folder", {"dtype": "bfloat16"}),
    "load one file, bfloat16, LoRA": ("load", "file", {"dtype": "bfloat16", "lora": LORA}),
    "load one file, offload model": ("load", "file", {"offload": "model"}),
    "load one file, offload group": ("load", "file", {"offload": "group"}),
    "a picture, offload none": ("picture", "file", {}),
    "a picture, offload model": ("picture", "file", {"offload": "model"}),
    "a picture, offload group": ("picture", "file", {"offload": "group"}),
    "decode 1024 px, the playroom's VAE": ("decode", "playroom", {}),
    "decode 1024 px, the playroom's VAE, tiling": ("decode", "playroom", {"vae_tiling": True}),
}


def measure(task: str, path: Path, options: dict[str, Any]) -> dict[str, float]:
    """Peaks in bytes and seconds, and the bytes of the weights."""
    if "dtype" in options:
        options = {**options, "dtype": getattr(torch, options["dtype"])}
    if "lora" in options:
        options = {**options, "lora": path.parent / options["lora"]}
    warm = load_backbone("playroom")  # what libraries take for themselves is there before
    hint = np.zeros((128, 128, 3), np.uint8)
    generate(warm, "a ball", [Control(ControlNet.from_backbone(warm), hint)], steps=1)
    del warm
    gc.collect()

    before = baseline()
    if task == "load":
        with Peak(before) as peak:
            backbone = load_backbone(path, **options)
    else:
        backbone = load_backbone(path, **options)
        control = ControlNet.from_backbone(backbone) if task == "picture" else None
        gc.collect()
        with Peak(before) as peak, torch.inference_mode():
            _run(task, backbone, control)
    modules = [backbone.unet, backbone.vae, *backbone.text_encoders]
    weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
    return {"weights": weights, "own": peak.anonymous, "all": peak.all, "seconds": peak.cpu}


def _run(task: str, backbone: Any, control: ControlNet | None) -> None:
    if control is None:
        side = LARGE // backbone.latent_scale
        backbone.decode_latents(torch.randn(1, backbone.latent_channels, side, side))
        return
    hint = np.zeros((SIDE, SIDE, 3), np.uint8)
    generate(backbone, "a ball", [Control(control, hint)], steps=1, height=SIDE, width=SIDE)


def in_process(task: str, path: Path, options: dict[str, Any]) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.memory_running", task, str(path)]
    words = [*command, json.dumps(options)]
    out = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return json.loads(out.splitlines()[-1])


def reckoned(folder: Path) -> list[list[str]]:
    """Rows of the autoencoder of Stable Diffusion 1.5 at 1024 pixels, on tensors without memory."""
    rows = []
    for tiling in (False, True):
        need = reckon(str(folder), (LARGE, LARGE), vae_tiling=tiling).vae
        name = f"decode 1024 px, SD 1.5's VAE{', tiling' if tiling else ''}, reckoned"
        sizes = [f"{x / 1e9:.2f}" for x in (need.weights, need.weights + need.computed)]
        rows.append([name, *sizes, "", ""])
    return rows


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the weights: 5 GB on a disk")
    parser.add_argument("--only", default="", help="cases whose names hold this text")
    parser.add_argument("--out", type=Path, help="the result's file, in place of the usual one")
    options = parser.parse_args(words)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sources = {"file": Path(folder, "sd15.safetensors"), "folder": Path(folder, "sd15")}
        sources["playroom"] = Path("playroom")
        write_base(sources["file"], SD15)
        write_weights(Path(folder, LORA), lora_shapes(SD15))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert_base(sources["file"], sources["folder"], "diffusers")
        for name, (task, source, arguments) in CASES.items():
            if options.only not in name:
                continue
            measured = in_process(task, sources[source], arguments)
            sizes = [f"{measured[key] / 1e9:.2f}" for key in ("weights", "own", "all")]
            rows.append([name, *sizes, f"{measured['seconds']:.1f}"])
            print(*rows[-1], flush=True)
        rows += reckoned(sources["folder"])
    note = (
        "Stable Diffusion 1.5 at full size, random weights, float16 files, float32 where no other "
        "dtype is given, on a processor. GB are 10⁹ bytes above what the process held before "
        f"loading. Pictures: {SIDE} px, one ControlNet of 1.45 GB, one step, without the peak of "
        "loading. The pages of mapped files can be dropped by the system when memory is short. "
        "Reckoned: as `zeroconv info --memory` has it."
    )
    write_result(
        "memory_running",
        ["", "weights GB", "peak GB", "with pages of files", "CPU seconds"],
        rows,
        "python -m benchmarks.speed.memory running",
        note,
        options.out,
    )


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))))
