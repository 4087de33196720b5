"""Adding a LoRA to the weights of a base's part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from zeroconv.checkpoints.lora.changes import Change
from zeroconv.checkpoints.lora.reading import Lora
from zeroconv.checkpoints.lora.strength import Strength, strength_of
from zeroconv.checkpoints.names import Topology, unet_names
from zeroconv.errors import UserError


class Merged(Mapping[str, Tensor]):
    """A part's state dict with a change added, computed anew whenever a tensor is asked for: so a
    network can be filled without all changed weights in float32 at once. See `merge`.
    """

    def __init__(
        self, state: Mapping[str, Tensor], lora: Lora, part: str, strength: Strength = 1.0
    ) -> None:
        self._state, self._weight = state, strength_of(strength, part)
        self._changes: dict[str, list[tuple[Change, str]]] = {}
        names = _names(state, part) if self._weight else {}
        for name, change in lora.parts.get(part, {}).items() if self._weight else ():
            module, kind = (name, "weight") if not name.endswith(".bias") else (name[:-5], "bias")
            key = f"{names.get(module.replace('.', '_'))}.{kind}"
            if key not in state:
                raise UserError(
                    f"{lora.where} changes {name}, which this {part} lacks; it belongs to another "
                    "base."
                )
            self._changes.setdefault(key, []).append((change, f"{lora.where}: {name[:100]}"))
            shape = state[key].shape
            if not change.fits(shape):
                raise UserError(
                    f"{lora.where} changes {name} by {change.sizes}, but its weight is "
                    f"{list(shape)}; it belongs to a base of another size."
                )

    def __getitem__(self, key: str) -> Tensor:
        value = self._state[key]
        for change, name in self._changes.get(key, ()):
            value = _sum(value, self._weight, change, name)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def merge(
    state: Mapping[str, Tensor], lora: Lora, part: str, strength: Strength = 1.0
) -> dict[str, Tensor]:
    """A part's state dict (diffusers' and transformers' names) with the change added; what changes
    is float32.

    part: one of `PARTS`. At strength 0 the part is returned as it is. Raises UserError, naming the
    first, for a module that the part lacks or of another size.
    """
    return dict(Merged(state, lora, part, strength))


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
