"""`zeroconv convert` of files that have diffusers' and the original names in one file each
(ControlNet-LLLite), or one layout in two containers (IP-Adapter).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from zeroconv.checkpoints.controls.ip_adapter import read_ip_adapter
from zeroconv.checkpoints.controls.lllite import PREFIX, split_modules
from zeroconv.checkpoints.reading import read_state_dict
from zeroconv.errors import UserError
from zeroconv.files import atomic_write

# of a UNet with two residual blocks a level, as all of Stable Diffusion's are: three blocks of the
# original layout are one of diffusers'
_ORIGINAL = re.compile(r"(input_blocks|output_blocks)_(\d+)_1_(transformer_blocks_.+)")
_DIFFUSERS = re.compile(r"(down_blocks|up_blocks)_(\d+)_attentions_(\d+)_(transformer_blocks_.+)")
_MIDDLE = ("middle_block_1_", "mid_block_attentions_0_")


def convert_lllite(source: Path, out: Path, to: str) -> Path:
    """Write a ControlNet-LLLite with the other names of its modules: one file either way. Raises
    UserError for a module that no UNet of Stable Diffusion has a place for.
    """
    file = source / "diffusion_pytorch_model.safetensors" if source.is_dir() else source
    modules = split_modules(read_state_dict(file), file)
    rename = to_diffusers if to == "diffusers" else to_original
    renamed: dict[str, Tensor] = {}
    for module, tensors in modules.items():
        name = rename(module.removeprefix(PREFIX))
        if name is None:
            raise UserError(
                f"{source} has the module {module[:100]}, which is none of an attention of Stable "
                "Diffusion's UNet."
            )
        renamed |= {f"{PREFIX}{name}.{tensor}": value for tensor, value in tensors.items()}
    return _write(renamed, out)


def to_diffusers(name: str) -> str | None:
    """`input_blocks_4_1_transformer_…` → `down_blocks_1_attentions_0_transformer_…`; a name of
    diffusers' stays. None for any other.
    """
    if _DIFFUSERS.fullmatch(name) or name.startswith(_MIDDLE[1]):
        return name
    if name.startswith(_MIDDLE[0]):
        return _MIDDLE[1] + name.removeprefix(_MIDDLE[0])
    if (match := _ORIGINAL.fullmatch(name)) is None:
        return None
    down = match[1] == "input_blocks"
    level, block = divmod(int(match[2]) - down, 3)  # the first of the input blocks is conv_in
    return f"{'down' if down else 'up'}_blocks_{level}_attentions_{block}_{match[3]}"


def to_original(name: str) -> str | None:
    """The opposite."""
    if _ORIGINAL.fullmatch(name) or name.startswith(_MIDDLE[0]):
        return name
    if name.startswith(_MIDDLE[1]):
        return _MIDDLE[0] + name.removeprefix(_MIDDLE[1])
    if (match := _DIFFUSERS.fullmatch(name)) is None:
        return None
    down = match[1] == "down_blocks"
    number = 3 * int(match[2]) + int(match[3]) + down
    return f"{'input' if down else 'output'}_blocks_{number}_1_{match[4]}"


def convert_ip_adapter(source: Path, out: Path, to: str) -> Path:
    """Write an IP-Adapter, from .bin or .safetensors, as .safetensors under its published names.
    Raises UserError for diffusers, which has no layout of its own for it.
    """
    if to == "diffusers":
        raise UserError(
            f"{source} is an IP-Adapter, which diffusers reads in its published layout alone; "
            "--to original writes it as one .safetensors file."
        )
    read_ip_adapter(source)  # that it is whole, and of a known kind
    return _write(read_state_dict(source), out)


def _write(state: Mapping[str, Tensor], out: Path) -> Path:
    """One file, with zeroconv's sign, by which it may be written again."""
    state = {key: value.contiguous().clone() for key, value in state.items()}
    with atomic_write(out) as file:
        save_file(state, file, metadata={"format": "pt", "zeroconv": "{}"})
    return out
