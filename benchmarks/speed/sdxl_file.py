"""SDXL at full size from one float16 file of random weights: seconds and memory of loading it.

    python -m benchmarks.speed.sdxl_file --folder /tmp/sdxl

Needs 7 GB of disk and 9 GB of memory. The file is deleted afterwards. Memory is what the loading
process holds for itself (anonymous pages) and with the file's pages, which the system may drop.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import write_result
from zeroconv.checkpoints.stable_diffusion import StableDiffusion, bare_text, to_single_file

UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
FIRST = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
SECOND = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}


def names_and_shapes() -> dict[str, Tensor]:
    """The published file's tensors on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        first = CLIPTextModel(CLIPTextConfig(**FIRST, num_attention_heads=12))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**SECOND, num_attention_heads=20))
    texts = [bare_text(text.state_dict()) for text in (first, second)]
    return to_single_file(
        StableDiffusion(unet.state_dict(), vae.state_dict(), texts[0], False, texts[1])
    )


def write(path: Path) -> int:
    """The file, tensor by tensor, so that it is never in memory as a whole. Returns its bytes."""
    state = names_and_shapes()
    table, end = {}, 0
    for name, value in state.items():
        begin, end = end, end + 2 * value.numel()
        table[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)

    noise = torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name, value in state.items():
            scale = 1 / math.sqrt(max(1, math.prod(value.shape[1:])))
            block = (noise * scale).half().numpy().tobytes()
            if name.endswith("weight") and value.ndim == 1:  # of norms
                block = torch.ones(2**22, dtype=torch.float16).numpy().tobytes()
            left = 2 * value.numel()
            while left > 0:
                left -= file.write(block[:left])
    return path.stat().st_size


def memory(field: str) -> float:
    """A field of this process's status in GB: VmHWM, RssAnon."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e9
    return math.nan


def load(path: Path, dtype: str) -> None:
    """Load it, and print one JSON line with what that took."""
    from zeroconv.backbones import load_backbone

    before, peak, done = memory("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    backbone = load_backbone(path, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    parts = [backbone.unet, backbone.vae, *backbone.text_encoders]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    measured = {"seconds": seconds, "own": peak[0] - before, "with_file": memory("VmHWM")}
    print(json.dumps({**measured, "weights": weights / 1e9}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"])
    parser.add_argument("--load", type=Path, help="load this file and print what it took")
    options = parser.parse_args()
    if options.load:
        load(options.load, options.dtype[0])
        return

    from tests.helpers.tiny import tiny_tokenizer

    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "sdxl.safetensors")
        size = write(path)
        tiny_tokenizer().save_pretrained(Path(folder, "tokenizer"))
        for dtype in options.dtype:
            command = [sys.executable, "-m", "benchmarks.speed.sdxl_file"]
            words = [*command, "--load", str(path), "--dtype", dtype]
            out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            measured = json.loads(out.splitlines()[-1])
            numbers = [
                size / 1e9,
                *(measured[k] for k in ("weights", "seconds", "own", "with_file")),
            ]
            rows.append([dtype, *(round(number, 2) for number in numbers)])
    write_result(
        "sdxl_file",
        ["dtype", "file GB", "weights GB", "seconds", "peak GB", "peak GB with the file's pages"],
        rows,
        "python -m benchmarks.speed.sdxl_file",
        "SDXL at full size, random weights, one float16 file",
    )


if __name__ == "__main__":
    main()
