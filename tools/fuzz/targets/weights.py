"""Controls, bases and LoRAs: mutated headers, tensors, configs and file names, to be shown,
converted and used.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

from tools.fuzz import mutate
from tools.fuzz.targets import Call, command


class Weights:
    def prepare(self, room: Path) -> None:
        import torch

        from tests.helpers.tiny import randomise_
        from tests.helpers.tiny_folder import save_backbone, save_single_file
        from zeroconv.checkpoints.convert import convert
        from zeroconv.control import ControlNet

        self.seeds = room / "seeds"
        backbone = save_backbone(self.seeds / "base")
        save_single_file(self.seeds / "single" / "model.safetensors", backbone)
        randomise_(ControlNet.from_backbone(backbone, condition="canny")).save(
            self.seeds / "control"
        )
        convert(self.seeds / "control", self.seeds / "original.safetensors", "original")
        state = {"a": torch.zeros(4, 4), "state_dict": {"b": torch.ones(3)}}
        torch.save(state, self.seeds / "pickled.ckpt")

    def case(self, rng: Random, work: Path) -> Call:
        name = rng.choice(
            ("base", "control", "control", "original.safetensors", "single", "pickled.ckpt")
        )
        copied = work / "in" / name
        copy = shutil.copytree if (self.seeds / name).is_dir() else shutil.copy
        copy(self.seeds / name, copied)
        files = [path for path in [copied, *copied.rglob("*")] if path.is_file()]
        _change(rng, rng.choice(files))
        if name == "single":
            copied = copied / "model.safetensors"

        kind = rng.randrange(4)
        if kind == 0:
            to = rng.choice(("diffusers", "original"))
            out = work / "out" / ("new.safetensors" if to == "original" else "new")
            return command("convert", copied, out, "--to", to)
        if kind == 1 and name != "base":
            return command(
                "transfer",
                copied,
                "--from",
                self.seeds / "base",
                "--to",
                copied,
                "--out",
                work / "out" / "t",
            )
        return command("info", copied, "--json")


def _change(rng: Random, path: Path) -> None:
    data = path.read_bytes()
    if path.suffix == ".json":
        changed = mutate.tree(rng, json.loads(data)) if rng.random() < 0.8 else None
        path.write_bytes(mutate.raw(rng, data) if changed is None else json.dumps(changed).encode())
    elif path.suffix == ".safetensors" and rng.random() < 0.8:
        path.write_bytes(_safetensors(rng, data))
    else:
        path.write_bytes(mutate.raw(rng, data))


def _safetensors(rng: Random, data: bytes) -> bytes:
    """A mutated header with a right length in front of it."""
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    kind = rng.randrange(5)
    if kind == 0:
        prefix = rng.choice(
            ("module.", "controlnet.", "model.", "lllite_unet_", "lora_unet_", "ip_adapter.")
        )
        header = {
            key if key == "__metadata__" else prefix + key: about for key, about in header.items()
        }
    elif kind == 1:
        extra = rng.choice(("difference", "lora_controlnet", "task_embedding", "control_type"))
        header[extra] = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}
    elif kind == 2:
        dtype = rng.choice(("F16", "BF16", "I8", "U8", "F8_E4M3", "I64", "BOOL", "X"))
        some = rng.choice([key for key in header if key != "__metadata__"])
        header[some]["dtype"] = dtype
    else:
        header = mutate.tree(rng, header)
    text = json.dumps(header).encode()
    body = data[8 + length :]
    if rng.random() < 0.3:
        # not a number somewhere among the weights
        at = 4 * rng.randrange(len(body) // 4)
        body = body[:at] + struct.pack("<f", float("nan")) + body[at + 4 :]
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 2**31, 2**63))
    return struct.pack("<Q", size) + text + body
