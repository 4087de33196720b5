"""An averaged base as a diffusers pipeline folder: the embedded VAE and tokenizer, new weights.

python -m zeroconv.scratch.export RUN FOLDER --average 0.9995
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroconv.errors import UserError
from zeroconv.files import atomic_folder
from zeroconv.scratch.places import PLAYROOM, embedded_vae

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


def export_flow(run: Path, folder: Path, decay: str, **configs: Any) -> int:
    """Write a FluxPipeline folder in float16; returns the step of its weights.

    `configs` are `FlowModel`'s, for tests. Prompts must be cut at the 48 tokens of the training:
    `max_sequence_length=48` in diffusers, and guided by `true_cfg_scale`.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from transformers import CLIPTokenizer, T5TokenizerFast

    from zeroconv.scratch.flow import FlowModel

    weights, step = read_average(run, decay)
    sentences = T5TokenizerFast.from_pretrained(run / "tokenizer_2", trust_remote_code=False)
    model = FlowModel(len(sentences), **configs)
    model.load_state_dict(weights, strict=False)  # what is no float, such as positions, is new
    model.half()

    vae = embedded_vae()
    vae.register_to_config(shift_factor=0.0)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae.half(),
        text_encoder=model.clip,
        tokenizer=CLIPTokenizer.from_pretrained(PLAYROOM / "tokenizer", trust_remote_code=False),
        text_encoder_2=model.t5,
        tokenizer_2=sentences,
        transformer=model.transformer,
    )

    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--average", default="0.9995")
    parser.add_argument("--what", choices=["base", "flow"], default="base")
    arguments = parser.parse_args()

    export = export_flow if arguments.what == "flow" else export_base
    step = export(arguments.run, arguments.folder, arguments.average)
    print(f"{arguments.folder}: average {arguments.average} at step {step}")


if __name__ == "__main__":
    main()
