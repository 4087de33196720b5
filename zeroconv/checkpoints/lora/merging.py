"""Adding a LoRA to the weights of a base's part."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zeroconv.checkpoints.lora.changes import Change
from zeroconv.checkpoints.lora.naming import Target, flat, targets_of
from zeroconv.checkpoints.lora.reading import Lora
from zeroconv.checkpoints.lora.strength import Strength, strength_of
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
        names = targets_of(state, part) if self._weight else {}
        changed = lora.parts.get(part, {}) if self._weight else {}
        for name, change in _once(changed, names, lora):
            module, kind = (name, "weight") if not name.endswith(".bias") else (name[:-5], "bias")
            where = f"{lora.where}: {name[:100]}"
            targets = names.get(flat(module), ())
            if not targets or any(f"{target.module}.{kind}" not in state for target in targets):
                raise UserError(
                    f"{lora.where} changes {name}, which this {part} lacks; it belongs to another "
                    "base."
                )
            for target in targets:
                key = f"{target.module}.{kind}"
                part_of = target.of(change, where)
                shape = state[key].shape
                if not part_of.fits(shape):
                    raise UserError(
                        f"{lora.where} changes {name} by {change.sizes}, but its weight is "
                        f"{list(shape)}; it belongs to a base of another size."
                    )
                self._changes.setdefault(key, []).append((part_of, where))

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


def _once(
    changed: Mapping[str, Change], names: Mapping[str, Sequence[Target]], lora: Lora
) -> Iterator[tuple[str, Change]]:
    """The changes, without those under an original name of what the file changes under diffusers'
    name too: some trainers write both. A note says so.
    """
    plain = {flat(name) for name in changed}
    twice = []
    for name, change in changed.items():
        targets = names.get(flat(name), ())
        others = {flat(target.module) for target in targets} - {flat(name)}
        if others & plain:
            twice.append(name)
            continue
        yield name, change
    if twice:
        warnings.warn(
            f"{lora.where} changes {twice[0][:100]} twice, under the names of two layouts; those "
            f"of diffusers are read, and {len(twice)} others are left out.",
            stacklevel=2,
        )
