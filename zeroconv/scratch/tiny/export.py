"""A trained decoder as a folder of diffusers' AutoencoderTiny."""

from __future__ import annotations

from pathlib import Path

from zeroconv.files import atomic_folder
from zeroconv.scratch.tiny.task import TinyTask


def export(task: TinyTask, folder: Path) -> None:
    """Write config and weights, float16, of the decoder alone; the config's encoder has none."""
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    config = task.config.diffusers()
    state = {
        f"decoder.{name}": value.half().contiguous()
        for name, value in task.model.state_dict().items()
    }
    with atomic_folder(folder) as temporary:
        AutoencoderTiny(**config).save_config(temporary)
        save_file(state, temporary / "diffusion_pytorch_model.safetensors", {"format": "pt"})
