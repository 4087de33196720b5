"""An averaged base as a diffusers pipeline folder: the embedded VAE and tokenizer, new weights.

python -m zeroconv.scratch.export RUN FOLDER --average 0.9995
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.scratch.places import PLAYROOM

SHARED = ("vae", "tokenizer", "model_index.json")
PARTS = {"unet": ("unet", "diffusion_pytorch_model"), "text": ("text_encoder", "model")}


def read_average(run: Path, decay: str) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a run and the step they belong to.

    Raises UserError where the run has no such average.
    """
    from safetensors import safe_open

    path = run / f"average-{decay}.safetensors"
    if not path.is_file():
        known = sorted(found.stem.removeprefix("average-") for found in run.glob("average-*"))
        raise UserError(f"{run} has no average {decay}; it has {', '.join(known) or 'none yet'}.")

    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = int((file.metadata() or {}).get("step", 0))

    return weights, step


def export_base(run: Path, folder: Path, decay: str) -> int:
    """Write a StableDiffusionPipeline folder in float16; returns the step of its weights.

    Its scheduler starts at the last timestep, as the training has seen pure noise.
    """
    from safetensors.torch import save_file

    weights, step = read_average(run, decay)

    with atomic_folder(folder) as temporary:
        for name in SHARED:
            source = PLAYROOM / name
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, temporary / name)

        for prefix, (part, stem) in PARTS.items():
            own = {
                k.removeprefix(f"{prefix}."): v
                for k, v in weights.items()
                if k.startswith(f"{prefix}.")
            }
            (temporary / part).mkdir()
            shutil.copyfile(PLAYROOM / part / "config.json", temporary / part / "config.json")
            save_file(own, temporary / part / f"{stem}.safetensors", metadata={"format": "pt"})

        scheduler = json.loads((PLAYROOM / "scheduler/scheduler_config.json").read_text("utf-8"))
        scheduler |= {"timestep_spacing": "trailing", "steps_offset": 0}
        (temporary / "scheduler").mkdir()
        text = json.dumps(scheduler, indent=2) + "\n"
        (temporary / "scheduler/scheduler_config.json").write_text(text, encoding="utf-8")

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--average", default="0.9995")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    step = export_base(arguments.run, arguments.folder, arguments.average)
    print(f"{arguments.folder}: average {arguments.average} at step {step}")


if __name__ == "__main__":
    main()
