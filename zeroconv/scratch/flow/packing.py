"""Latents as the tokens of a FLUX transformer, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(z: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h/2 · w/2, 4C), as FLUX packs its latents."""
    b, c, h, w = z.shape

    return z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for latents of `height` × `width`."""
    b, _, c = tokens.shape
    x = tokens.view(b, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)

    return x.reshape(b, c // 4, height, width)


def positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """Position of each packed token (rows · columns, 3): 0, row, column."""
    sides = torch.arange(rows, device=device), torch.arange(columns, device=device)
    y, x = torch.meshgrid(*sides, indexing="ij")

    return torch.stack([torch.zeros_like(y), y, x], -1).reshape(-1, 3).float()
