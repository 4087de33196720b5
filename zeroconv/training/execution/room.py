"""Whether a step has room in memory: refused before any work where it has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zeroconv.backbones import UNetBackbone
from zeroconv.errors import UserError
from zeroconv.machine import all_memory
from zeroconv.training.recipes.training import TrainingSettings

_LARGER = "raise training.accumulation as much, or set training.checkpointing full"
_MEND = f"lower training.batch_size and {_LARGER}"


def check_room(settings: TrainingSettings, backbone: UNetBackbone, size: int) -> None:
    """Raise UserError where the inputs of one micro-batch alone are more than all memory.

    What a step really takes is several times that: this is for numbers that are mistakes, which
    would otherwise end the process without a word, or the machine.
    """
    widths = getattr(backbone.denoiser.config, "block_out_channels", None)
    # of a transformer at least its packed latents
    channels = widths[0] if widths else backbone.latent_channels
    latent = (size // backbone.latent_scale) ** 2
    picture = 4 * (3 * size**2 + 4 * channels * latent)  # bytes: hint and the first features

    need, have = settings.batch_size * picture, _memory(backbone.device)
    if need > have:
        raise UserError(
            f"training.batch_size {settings.batch_size} at {size} pixels takes {need / 1e9:.0f} GB "
            f"and more a step, and there are {have / 1e9:.0f} GB of memory; {_MEND}."
        )


@contextmanager
def memory_errors(settings: TrainingSettings) -> Iterator[None]:
    """Inside, memory that runs out ends the run in one sentence, a UserError."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_room(settings, error) from error
    except RuntimeError as error:  # torch's own on a processor
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _no_room(settings, error) from error


def _no_room(settings: TrainingSettings, error: BaseException) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    what = f"there is not enough memory for training.batch_size {settings.batch_size}"
    return UserError(f"{what} ({reason}); {_MEND}.")


def _memory(device: torch.device) -> int:
    """Bytes of the device, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return all_memory()
