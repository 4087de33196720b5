"""Adding a LoRA to the weights of a base's part."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zeroconv.checkpoints.lora.changes import Change
from zeroconv.checkpoints.lora.reading import Lora
from zeroconv.checkpoints.lora.strength import Strength, strength_of
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.errors import UserError


def merge(
    state: Mapping[str, Tensor], lora: Lora, part: str, strength: Strength = 1.0
) -> dict[str, Tensor]:
    """A part's state dict (diffusers' and transformers' names) with the change added; what changes
    is float32.

    part: one of `PARTS`. At strength 0 the part is returned as it is. Raises UserError, naming the
    first, for a module that the part lacks or of another size.
    """
    merged, weight = dict(state), strength_of(strength, part)
    if weight == 0:
        return merged
    names = _names(state, part)
    for name, change in lora.parts.get(part, {}).items():
        module, kind = (name, "weight") if not name.endswith(".bias") else (name[:-5], "bias")
        key = f"{names.get(module.replace('.', '_'))}.{kind}"
        if key not in merged:
            raise UserError(
                f"{lora.where} changes {name}, which this {part} lacks; it belongs to another base."
            )
        old = merged[key]
        if not change.fits(old.shape):
            raise UserError(
                f"{lora.where} changes {name} by {change.sizes}, but its weight is "
                f"{list(old.shape)}; it belongs to a base of another size."
            )
        merged[key] = _sum(old, weight, change, f"{lora.where}: {name[:100]}")
    return merged


def _sum(old: Tensor, weight: float, change: Change, name: str) -> Tensor:
    """The changed weight in float32. Raises UserError where it overflows."""
    changed = old.float() + weight * change.delta(old)

    if changed.numel() and not _finite(changed) and _finite(old):  # else the base is damaged
        raise UserError(
            f"{name} overflows with the weight {weight:g}; give a smaller one, or the file is "
            "damaged."
        )
    return changed


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x.float().abs().amax()))


def _names(state: Mapping[str, Tensor], part: str) -> dict[str, str]:
    """A module's name with underscores for dots, as kohya writes it → the module's own."""
    modules = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    names = {module.replace(".", "_"): module for module in modules}
    # transformers before 5 wrote `text_model.` before every name, and files do still
    if part != "unet":
        bare = {name.removeprefix("text_model_"): module for name, module in names.items()}
        return bare | {f"text_model_{name}": module for name, module in bare.items()}
    original = unet_names(Topology.of_diffusers(state))
    for module in modules:
        owner = module
        while owner and owner not in original:
            owner = owner.rpartition(".")[0]
        if owner:
            theirs = original[owner] + module[len(owner) :]
            names.setdefault(theirs.replace(".", "_"), module)
    return names
