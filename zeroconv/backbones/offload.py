"""`--offload`: which parts of a base and its controls are moved together.

`model`: the text encoders, the UNet with its controls, and the autoencoder, whichever is needed.
`group`: the UNet and the controls block by block; the rest as with `model`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from zeroconv.errors import UserError
from zeroconv.layers.checkpointing import find_parts
from zeroconv.layers.offload import Residency

KINDS = ("none", "model", "group")


def check_offload(kind: str) -> None:
    """Raise UserError for a kind that there is not."""
    if kind not in KINDS:
        raise UserError(f"there is no offload {str(kind)[:80]!r}; choose {', '.join(KINDS)}.")


class Offload:
    """Moves what a base and its controls are made of to the device while it is needed.

    Everything it is given must be frozen. A part that is given twice is held once. most: of
    "group", how many blocks of a module are moved, the first ones; None: all.
    """

    def __init__(
        self, kind: str, device: torch.device | str, home: Any = None, most: int | None = None
    ) -> None:
        check_offload(kind)
        self.most = most
        self.kind, self.device = kind, torch.device(device)
        self.residency = Residency(self.device, home)
        self._held = set[int]()
        self._blocks = 0
        self._moves_unet = False

    def hold(self, part: str, module: nn.Module) -> None:
        """Take a part: "text", "vae", or "unet", to which controls belong too."""
        if id(module) in self._held:
            return
        self._held.add(id(module))
        self._moves_unet |= part == "unet"
        module.requires_grad_(False)

        if self.kind == "model" or part != "unet":
            self.residency.hold(part, [module])
            return

        blocks = (find_parts([module]) or _listed(module))[: self.most]
        for block in blocks:
            self.residency.hold(f"block {self._blocks}", [block])
            self._blocks += 1
        self._keep_rest(module, blocks)

    def _keep_rest(self, module: nn.Module, blocks: Iterable[nn.Module]) -> None:
        """What lies in no moved block is on the device for good."""
        inside = {
            id(tensor) for block in blocks for tensor in (*block.parameters(), *block.buffers())
        }

        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in inside:
                tensor.data = tensor.data.to(self.device)

    def attach(self, networks: Iterable[nn.Module]) -> None:
        """Take the networks of a control: they are needed when the UNet is.

        Where the UNet stays on the device, as in training, they do too.
        """
        if not self._moves_unet:
            return
        for network in networks:
            self.hold("unet", network)

    def leave(self) -> None:
        """Send home what is on the device and is not needed now."""
        self.residency.leave()

    def forget(self, part: str) -> None:
        """Let go of a part that is not needed any more."""
        self.residency.forget(part)

    def enter(self, part: str) -> None:
        """Have a part on the device, for code that asks its weights where they are."""
        self.residency.enter(part)


def _listed(module: nn.Module) -> list[nn.Module]:
    """The entries of the outermost lists of modules: the blocks of a transformer."""
    blocks: list[nn.Module] = []
    for child in module.children():
        blocks += list(child) if isinstance(child, nn.ModuleList) else _listed(child)
    return blocks
