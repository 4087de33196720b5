"""Names of models by their weights, for the keys of what they compute. It imports torch, which
`keys` must not: processes that draw hints start in a second without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn


def weights_key(modules: Iterable[nn.Module]) -> str:
    """Names modules by their weights."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            # in the order of their indices, however they lie
            numbers = tensor.detach().cpu().contiguous().flatten()
            digest.update(numbers.view(torch.uint8).numpy().data if tensor.dim() else b"")
    return digest.hexdigest()[:32]
