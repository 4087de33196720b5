"""What `zeroconv info` says about files of IP-Adapter and ControlNet-LLLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_ORIGINAL = tuple(f"lllite_unet_{b}" for b in ("input_blocks", "middle_block", "output_blocks"))
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}  # by how wide the text states are
_FORMS = {
    "base": "base: the picture's projected embedding",
    "plus": "plus: a resampler of the picture's states",
    "full": "full-face: each of the picture's states",
}


def describe_ip_adapter(path: Path) -> dict[str, Any]:
    """Facts about an IP-Adapter, and which image encoder it needs. Raises UserError."""
    from zeroconv.adapters.ip_adapter import FOLDER
    from zeroconv.checkpoints.controls.ip_adapter import read_ip_adapter

    file = read_ip_adapter(path)
    parts = {"projection": file.projection, "attention": file.attention}
    beside = (path.parent / FOLDER).is_dir()
    where = f"{path.parent / FOLDER}, beside it" if beside else "--image-encoder FOLDER"
    return {
        "parameters": {name: sum(v.numel() for v in part.values()) for name, part in parts.items()},
        "form": _FORMS[file.form],
        "tokens": file.tokens or "as many as the image encoder's states",
        "family": FAMILIES.get(file.width),
        "attentions": len(file.attention) // 2,
        "needs": f"an image encoder, {file.encoder} ({where}); a base: --image-prompt "
        "FILE=picture.png",
    }


def describe_lllite(path: Path) -> dict[str, Any]:
    """Facts about a ControlNet-LLLite. Raises UserError."""
    from zeroconv.checkpoints.controls.lllite import split_modules
    from zeroconv.checkpoints.reading import read_state_dict

    state = read_state_dict(path)
    modules = split_modules(state, path)
    first = next(iter(modules.values()))
    original = any(name.startswith(_ORIGINAL) for name in modules)
    sizes = {"embedded hint": "conditioning1.0.bias", "small network": "down.0.bias"}
    widths = {name: len(first[key]) for name, key in sizes.items() if key in first}
    if "embedded hint" in widths:
        widths["embedded hint"] = 2 * widths["embedded hint"]
    return {
        "parameters": {"control": sum(value.numel() for value in state.values())},
        "modules": len(modules),
        "channels": widths,
        "names": "the original layout's" if original else "diffusers'",
        "needs": "a base: --control FILE=hint.png",
    }
