"""`--device` and `--dtype` in the words of a recipe."""

from __future__ import annotations

from zeroconv.errors import UserError

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def recipe_settings(device: str | None, dtype: str | None) -> list[str]:
    """The settings of a recipe that the two options stand for, as `--set` takes them.

    A recipe knows `auto` and `cpu`: which card a process takes is its launcher's to say. Raises
    UserError for other devices, and for an unknown dtype.
    """
    settings = []
    if device is not None:
        settings.append(f"device={_device(device)}")
    if dtype is not None:
        settings.append(f"training.precision={_precision(dtype, device or 'auto')}")
    return settings


def _device(name: str) -> str:
    from zeroconv.backbones.devices import pick_device

    picked = pick_device(name)
    if name == "auto" or picked == "cpu" or picked == pick_device("auto"):
        return "cpu" if picked == "cpu" and name != "auto" else "auto"
    raise UserError(
        f"training takes {pick_device('auto')} on this machine, not {name!r}: choose auto or cpu; "
        "CUDA_VISIBLE_DEVICES=1 in front of the command chooses a card"
    )


def _precision(name: str, device: str) -> str:
    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype
    from zeroconv.layers.cpu import has_bf16_matrix_unit

    picked = pick_device(device)
    if name == "auto" and picked == "cpu" and not has_bf16_matrix_unit():
        return "fp32"  # autocast's casts take longer than AVX512-BF16 saves in a training step
    return PRECISIONS[dtype_name(pick_dtype(name, picked))]
